//! Copies and imports under another prefix.

use serde_json::{Value, json};

use crate::support::{Sandbox, line};

/// Namespaces with `:` and `\` in segments, and neighbours whose names begin alike.
const NAMESPACES: [&str; 5] = [
    r"acme:agent-7",
    r"acme:agent-7:",
    r"acme:agent-7:a\:b\\:c",
    r"acme:agent-7:chat",
    r"acme:agent-70",
];

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    for namespace in NAMESPACES {
        sandbox.ok(&["put", namespace, "k", "1"]);
    }
    sandbox.ok(&["put", "acme:agent-7:chat", "idle", "2", "--idle-ttl", "30m"]);
    sandbox.ok(&["put", "acme:agent-7:chat", "ttl", "3", "--ttl", "1h"]);
    sandbox
}

/// Returns the lines of an export without its header.
fn exported(sandbox: &Sandbox, prefix: &str, store: &str) -> Vec<String> {
    let out = sandbox.ok(&["export", prefix, "--store", store]);
    out.lines().skip(1).map(str::to_owned).collect()
}

const HERE: &str = "redb:cubbyhole.redb";
const THERE: &str = "redb:there.redb";

#[test]
fn copies_get_the_new_prefix_in_the_same_and_in_another_store() {
    for target in [HERE, THERE] {
        let sandbox = sandbox();
        let before = exported(&sandbox, "acme:agent-7", HERE);
        let copy = |options: &[&str]| {
            let copy = ["copy", "acme:agent-7", "--to", target, "--as", r"glo\:bex:x:y"];
            sandbox.json(&[&copy, options].concat()).remove(0)
        };
        let tried = copy(&["--dry-run"]);
        assert_eq!((&tried["copied"], &tried["namespaces"]), (&json!(6), &json!(4)), "{tried}");
        assert_eq!(sandbox.ok(&["tenants"]), "acme\n");
        assert!(!sandbox.path("there.redb").exists());
        let copied = copy(&["--verify"]);
        assert_eq!((&copied["copied"], &copied["skipped"]), (&json!(6), &json!(0)), "{copied}");
        assert_eq!(copied["verified"]["equal"], true, "{copied}");
        assert_eq!(copied["verified"]["target"]["entries"], 6);
        assert_eq!(
            sandbox.ok(&["namespaces", r"glo\:bex", "--store", target]),
            "glo\\:bex:x:y\nglo\\:bex:x:y:\nglo\\:bex:x:y:a\\:b\\\\:c\nglo\\:bex:x:y:chat\n"
        );
        // Values, expiries and idle TTLs are those of the source.
        let renamed = exported(&sandbox, r"glo\:bex", target);
        let name = r#"["acme","agent-7""#;
        let expected: Vec<String> =
            before.iter().map(|line| line.replace(name, r#"["glo:bex","x","y""#)).collect();
        assert_eq!(renamed, expected);
        assert!(renamed.iter().any(|line| line.contains(r#""idle_ttl":"30m""#)), "{renamed:?}");
        // The source is unchanged, and a repeated copy writes nothing.
        assert_eq!(exported(&sandbox, "acme:agent-7", HERE), before);
        let again = copy(&["--verify"]);
        assert_eq!((&again["copied"], &again["skipped"]), (&json!(0), &json!(6)), "{again}");
        let digests = |copied: &Value| copied["verified"]["source"]["sha256"].clone();
        assert_eq!(digests(&again), digests(&copied));
    }
}

#[test]
fn interrupted_copy_under_another_prefix_is_resumed() {
    let sandbox = Sandbox::new();
    let input: String = (0..4000)
        .map(|n| line(&format!("acme\",\"a\",\"{}", n % 20), &format!("{n:05}"), "1"))
        .collect();
    assert_eq!(sandbox.run_reading(&["import"], input.as_bytes()).code, 0);
    let copy = ["copy", "acme:a", "--to", HERE, "--as", "globex", "--json"];
    let there =
        || sandbox.json(&["usage", "globex", "--depth", "0"])[0]["entries"].as_u64().unwrap();
    for timeout in [20, 50, 100, 200].map(|millis| format!("{millis}ms")) {
        let ran = sandbox.run(&[&copy[..], &["--timeout", &timeout]].concat());
        assert!(ran.code == 0 || ran.code == 4, "{ran:?}");
    }
    let before = there();
    let ran = sandbox.run(&[&copy[..], &["--verify"]].concat());
    let copied: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((&copied["skipped"], &copied["copied"]), (&json!(before), &json!(4000 - before)));
    assert_eq!((ran.code, &copied["verified"]["equal"]), (0, &json!(true)), "{copied}");
    assert_eq!(there(), 4000);
}

#[test]
fn verify_reports_differences_by_their_new_names() {
    let sandbox = sandbox();
    sandbox.ok(&["put", "globex:chat", "extra", "1"]);
    sandbox.ok(&["put", "globex:zz", "extra", "1"]);
    // The name in the source would be too long.
    let long = format!("globex:{}", "x".repeat(1017));
    sandbox.ok(&["put", &long, "extra", "1"]);
    let ran = sandbox.run(&["copy", "acme:agent-7", "--to", HERE, "--as", "globex", "--verify"]);
    assert_eq!(ran.code, 6, "{ran:?}");
    for name in ["globex:chat", "globex:zz", &long] {
        let expected = format!("only in the target: `extra` in {name}");
        assert!(ran.stderr.contains(&expected), "{expected}: {ran:?}");
    }
    assert!(ran.stderr.contains("0 missing in the target, 0 different, 3 only"), "{ran:?}");
}

#[test]
fn overlapping_prefixes_in_one_store_are_refused() {
    let sandbox = sandbox();
    let before = sandbox.ok(&["export", "--all"]);
    for (from, to) in [
        ("acme:agent-7", "acme:agent-7"),
        ("acme:agent-7", "acme:agent-7:copy"),
        ("acme:agent-7", "acme"),
        ("acme", "acme:x"),
    ] {
        for options in [&[][..], &["--dry-run"], &["--keep-existing", "--verify"]] {
            let copy = ["copy", from, "--to", HERE, "--as", to];
            let message = sandbox.fails(2, &[&copy, options].concat());
            assert!(message.contains(&format!("{from} and {to}")), "{message}");
            assert!(message.contains("nothing was written"), "{message}");
        }
    }
    // Without --as, and with --all, it is a usage error too.
    assert!(sandbox.fails(2, &["copy", "acme", "--to", HERE]).contains("--as"));
    sandbox.fails(2, &["copy", "--all", "--to", THERE, "--as", "x"]);
    assert_eq!(sandbox.ok(&["export", "--all"]), before);
    assert_eq!(sandbox.files(), ["cubbyhole.redb"]);
    // In another store the prefixes may overlap.
    sandbox.ok(&["copy", "acme", "--to", THERE, "--as", "acme:backup", "--verify"]);
    assert_eq!(sandbox.ok(&["tenants", "--store", THERE]), "acme\n");
    // A neighbour whose name begins alike does not overlap.
    sandbox.ok(&["copy", "acme:agent-7", "--to", HERE, "--as", "acme:agent-7b", "--verify"]);
}

#[test]
fn name_that_becomes_too_long_stops_a_copy() {
    let sandbox = Sandbox::new();
    let long = format!("a:{}", "x".repeat(1000));
    sandbox.ok(&["put", &long, "k", "1"]);
    let to = "y".repeat(100);
    let message = sandbox.fails(2, &["copy", "a", "--to", THERE, "--as", &to]);
    assert!(message.contains("MAX_NAMESPACE_BYTES"), "{message}");
    assert!(message.contains("stopped after 0 entries copied:"), "{message}");
    assert_eq!(sandbox.ok(&["tenants", "--store", THERE]), "");
}

#[test]
fn import_stores_the_lines_under_the_new_prefix() {
    let sandbox = sandbox();
    sandbox.ok(&["export", "acme:agent-7", "out.jsonl"]);
    let before = exported(&sandbox, "acme:agent-7", HERE);
    let import = ["import", "out.jsonl", "--from", "acme:agent-7", "--as", r"acme:a\:8"];
    for _ in 0..2 {
        let imported = sandbox.json(&import).remove(0);
        assert_eq!((&imported["entries"], &imported["namespaces"]), (&json!(6), &json!(4)));
    }
    let expected: Vec<String> = before
        .iter()
        .map(|line| line.replace(r#"["acme","agent-7""#, r#"["acme","a:8""#))
        .collect();
    assert_eq!(exported(&sandbox, r"acme:a\:8", HERE), expected);
    assert_eq!(exported(&sandbox, "acme:agent-7", HERE), before);
    // The two options need each other.
    sandbox.fails(2, &["import", "out.jsonl", "--as", "x"]);
    sandbox.fails(2, &["import", "out.jsonl", "--from", "acme"]);
}

#[test]
fn import_reports_lines_outside_the_replaced_prefix() {
    let sandbox = Sandbox::new();
    let header = "{\"format\":\"cubbyhole-export\",\"version\":1}\n".to_owned();
    let long = "x".repeat(1000);
    let input = [
        header,
        line("acme\",\"a", "k", "1"),
        line("acme\",\"ab", "k", "2"),
        line(&format!("acme\",\"a\",\"{long}"), "k", "3"),
        line("acme\",\"a\",\"b", "k", "4"),
    ]
    .concat();
    let import = ["import", "--from", "acme:a", "--as", "globex-that-is-longer-than-the-old-name"];
    let ran = sandbox.run_reading(&import, input.as_bytes());
    assert_eq!(ran.code, 6, "{ran:?}");
    let expected = "line 3: the namespace acme:ab is not under acme:a; stopped there with 1 entry";
    assert!(ran.stderr.contains(expected), "{ran:?}");
    let skipping = [&import[..], &["--on-error", "skip"]].concat();
    let ran = sandbox.run_reading(&skipping, input.as_bytes());
    assert_eq!(ran.code, 6, "{ran:?}");
    assert!(ran.stderr.contains("line 3: ") && ran.stderr.contains("line 4: "), "{ran:?}");
    assert!(ran.stderr.contains("MAX_NAMESPACE_BYTES"), "{ran:?}");
    assert_eq!(sandbox.ok(&["tenants"]), "globex-that-is-longer-than-the-old-name\n");
    assert_eq!(sandbox.ok(&["get", "globex-that-is-longer-than-the-old-name:b", "k"]), "4");
}
