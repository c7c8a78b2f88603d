//! Export and import: identical bytes and complete files.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::support::{Sandbox, line};

/// Values that are easy to change by mistake.
const VALUES: &[(&str, &[u8])] = &[
    ("json", br#"{"b":1,"a": 1.50,"a":2}"#),
    ("json string", b"\"\\u00e9\\ud83d\""),
    ("big number", b"123456789012345678901234567890.10"),
    ("outer space", b" [1]"),
    ("line end", b"[1]\n"),
    ("inner line end", b"[1,\n2]"),
    ("carriage return", b"[1,\r2]"),
    ("text", b"hello"),
    ("empty", b""),
    ("bytes", b"\x00\xff\xfe"),
    ("mark", b"\xef\xbb\xbf1"),
    ("a\nkey \"%\" \u{1f600} \u{2028}", b"null"),
];

fn export(sandbox: &Sandbox) -> String {
    sandbox.ok(&["export", "--all"])
}

#[test]
fn export_and_import_preserve_all_bytes() {
    let sandbox = Sandbox::new();
    let deep = format!("{}{}", "[".repeat(3000), "]".repeat(3000));
    sandbox.ok(&["put", r"acme:a\:b:", "deep", &deep, "--ttl", "1h"]);
    for (key, value) in VALUES {
        assert_eq!(sandbox.run_reading(&["put", r"acme:a\:b:", key], value).code, 0);
    }
    let exported = export(&sandbox);
    assert_eq!(exported.lines().count(), VALUES.len() + 2);
    let ran = sandbox.run_reading(&["import", "--store", "redb:copy.redb"], exported.as_bytes());
    assert_eq!(ran.code, 0, "{ran:?}");
    for (key, value) in VALUES {
        let got = sandbox.run(&["get", r"acme:a\:b:", key, "--store", "redb:copy.redb"]);
        assert_eq!(got.stdout, *value, "{key}");
    }
    let copied = sandbox.ok(&["export", "--all", "--store", "redb:copy.redb"]);
    assert_eq!(copied, exported);
    assert!(exported.contains(r#""namespace":["acme","a:b",""],"key":"deep""#));
}

#[test]
fn values_are_embedded_only_if_bytes_are_preserved() {
    let sandbox = Sandbox::new();
    for (key, value) in VALUES {
        assert_eq!(sandbox.run_reading(&["put", "acme", key], value).code, 0);
    }
    for line in export(&sandbox).lines().skip(1) {
        let entry: Value = serde_json::from_str(line).unwrap_or(Value::Null);
        // `serde_json::Value` refuses a lone surrogate; the reader of the tool does not.
        let embedded = entry.get("value").is_some() || line.contains("\\ud83d");
        let expected = ["json", "big number", "a\nkey"];
        let key = entry["key"].as_str().unwrap_or("json string").to_owned();
        assert_eq!(embedded, expected.iter().any(|start| key.starts_with(start)), "{line}");
    }
}

#[test]
fn export_is_ordered_and_limited_to_its_prefix() {
    let sandbox = Sandbox::new();
    for (namespace, key) in [("b", "1"), ("a:x", "2"), ("a:x", "1"), ("a", "9"), ("ab", "1")] {
        sandbox.ok(&["put", namespace, key, "1"]);
    }
    let names = |out: String| -> Vec<(Value, Value)> {
        let lines = out.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|entry| (entry["namespace"].clone(), entry["key"].clone())).collect()
    };
    let under_a = [(json!(["a"]), json!("9")), (json!(["a", "x"]), json!("1"))];
    let under_a = [&under_a[..], &[(json!(["a", "x"]), json!("2"))]].concat();
    assert_eq!(names(sandbox.ok(&["export", "a"])), under_a);
    let all = [under_a, vec![(json!(["ab"]), json!("1")), (json!(["b"]), json!("1"))]].concat();
    assert_eq!(names(export(&sandbox)), all);
}

#[test]
fn file_is_replaced_only_by_a_complete_export() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["put", "acme", "k", "1"]);
    let ran = sandbox.run(&["export", "acme", "out.jsonl"]);
    assert_eq!(ran.stderr, "exported 1 entry in 1 namespace\n");
    assert!(ran.code == 0 && ran.stdout.is_empty());
    let expected = "{\"format\":\"cubbyhole-export\",\"version\":1}\n\
                    {\"namespace\":[\"acme\"],\"key\":\"k\",\"value\":1}\n";
    assert_eq!(std::fs::read_to_string(sandbox.path("out.jsonl")).unwrap(), expected);
    let counts = sandbox.json(&["export", "--all", "out.jsonl"]).remove(0);
    assert_eq!(counts, json!({"entries": 1, "namespaces": 1, "skipped": 0}));
    sandbox.write("old.jsonl", "as it was");
    sandbox.fails(4, &["export", "acme", "old.jsonl", "--timeout", "1ns"]);
    assert_eq!(std::fs::read_to_string(sandbox.path("old.jsonl")).unwrap(), "as it was");
    sandbox.fails(6, &["export", "acme", "no/such/folder.jsonl"]);
    assert_eq!(sandbox.files(), ["cubbyhole.redb", "old.jsonl", "out.jsonl"]);
}

#[cfg(unix)]
#[test]
fn export_keeps_a_symlink_and_a_device() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["put", "acme", "k", "1"]);
    sandbox.write("real.jsonl", "");
    std::os::unix::fs::symlink(sandbox.path("real.jsonl"), sandbox.path("link.jsonl")).unwrap();
    sandbox.ok(&["export", "acme", "link.jsonl"]);
    assert!(std::fs::symlink_metadata(sandbox.path("link.jsonl")).unwrap().is_symlink());
    assert!(std::fs::read_to_string(sandbox.path("real.jsonl")).unwrap().contains("\"k\""));
    sandbox.ok(&["export", "acme", "/dev/null"]);
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
}

#[test]
fn import_keeps_expiry_and_skips_expired_entries() {
    let sandbox = Sandbox::new();
    let input = [
        r#"{"namespace":["a"],"key":"old","value":1,"expires_at":"2001-01-01T00:00:00Z"}"#,
        r#"{"namespace":["a"],"key":"new","value":1,"expires_at":"9999-12-31T23:59:59.999Z"}"#,
    ]
    .join("\n");
    let ran = sandbox.run_reading(&["import"], input.as_bytes());
    assert!(ran.stderr.starts_with("imported 1 entry in 1 namespace in "), "{ran:?}");
    assert!(ran.stderr.ends_with(" s (0 skipped, 1 already expired)\n"), "{ran:?}");
    assert_eq!(ran.code, 0);
    let exported = export(&sandbox);
    assert_eq!(exported.lines().skip(1).collect::<Vec<_>>(), [input.lines().last().unwrap()]);
    let ran = sandbox.run_reading(&["import", "--json"], input.as_bytes());
    let summary: Value = serde_json::from_slice(&ran.stdout).unwrap();
    let counts = ["entries", "namespaces", "skipped", "expired"].map(|name| &summary[name]);
    assert_eq!(counts, [&json!(1), &json!(1), &json!(0), &json!(1)]);
    assert!(ran.stderr.is_empty(), "{ran:?}");
}

#[test]
fn last_line_of_a_repeated_key_wins() {
    let sandbox = Sandbox::new();
    let last = 4000;
    let input: String = (0..=last).map(|number| line("a", "k", &number.to_string())).collect();
    assert_eq!(sandbox.run_reading(&["import"], input.as_bytes()).code, 0);
    assert_eq!(sandbox.ok(&["get", "a", "k"]), last.to_string());
}

#[test]
fn importing_again_keeps_created_at() {
    let sandbox = Sandbox::new();
    let input = line("a", "k", "1");
    assert_eq!(sandbox.run_reading(&["import", "-"], input.as_bytes()).code, 0);
    let before = sandbox.json(&["get", "a", "k"]).remove(0);
    assert_eq!(sandbox.run_reading(&["import", "-"], input.as_bytes()).code, 0);
    let after = sandbox.json(&["get", "a", "k"]).remove(0);
    assert_eq!(after["created_at"], before["created_at"]);
    assert_ne!(after["version"], before["version"]);
}

#[test]
fn values_up_to_the_limit_are_transferred() {
    let sandbox = Sandbox::new();
    let value = vec![0xff_u8; 16 * 1024 * 1024];
    let file = sandbox.write("large.bin", &value);
    sandbox.ok(&["put", "acme", "k", "--file", &file]);
    sandbox.ok(&["export", "acme", "out.jsonl"]);
    sandbox.ok(&["import", "out.jsonl", "--store", "redb:copy.redb"]);
    assert_eq!(sandbox.run(&["get", "acme", "k", "--store", "redb:copy.redb"]).stdout, value);
    let file = sandbox.write("larger.bin", vec![0_u8; 16 * 1024 * 1024 + 1]);
    sandbox.fails(2, &["put", "acme", "k2", "--file", &file]);
}

#[test]
fn export_has_the_expiry_that_was_set() {
    let sandbox = Sandbox::new();
    let before = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    sandbox.ok(&["put", "acme", "k", "1", "--ttl", "1h"]);
    let entry: Value = serde_json::from_str(export(&sandbox).lines().last().unwrap()).unwrap();
    let expires: cubbyhole::Timestamp = entry["expires_at"].as_str().unwrap().parse().unwrap();
    let left = Duration::from_millis(expires.as_millis()).checked_sub(before).unwrap();
    assert!((3590..3660).contains(&left.as_secs()), "{left:?}");
}

#[test]
fn export_never_replaces_a_store() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["put", "acme", "k", "1"]);
    sandbox.ok(&["put", "acme", "k", "1", "--store", "redb:other.redb"]);
    std::fs::hard_link(sandbox.path("cubbyhole.redb"), sandbox.path("hard.jsonl")).unwrap();
    for file in ["cubbyhole.redb", "./cubbyhole.redb", "hard.jsonl"] {
        let message = sandbox.fails(2, &["export", "acme", file]);
        assert!(message.contains("is the store itself"), "{message}");
    }
    assert!(sandbox.fails(2, &["export", "--all", "other.redb"]).contains("is a store"));
    assert_eq!(sandbox.ok(&["get", "acme", "k"]), "1");
    assert_eq!(sandbox.ok(&["get", "acme", "k", "--store", "redb:other.redb"]), "1");
}

#[test]
fn export_without_entries_writes_nothing() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["put", "acme", "k", "1"]);
    sandbox.write("good.jsonl", "as it was");
    let message = sandbox.fails(1, &["export", "amce", "good.jsonl"]);
    assert!(message.contains("no entry under amce; good.jsonl is unchanged"), "{message}");
    assert_eq!(std::fs::read_to_string(sandbox.path("good.jsonl")).unwrap(), "as it was");
    sandbox.fails(1, &["export", "amce", "new.jsonl"]);
    sandbox.fails(1, &["export", "amce"]);
    sandbox.ok(&["delete", "acme", "k"]);
    sandbox.fails(1, &["export", "--all"]);
    assert_eq!(sandbox.files(), ["cubbyhole.redb", "good.jsonl"]);
}

#[test]
fn unordered_lines_are_stored_in_large_batches() {
    let sandbox = Sandbox::new();
    let input: String = (0..3000)
        .map(|n| line(&format!("n{}", n % 10), &(n / 10).to_string(), &n.to_string()))
        .collect();
    let ran = sandbox.run_reading(&["import", "--report-batches"], input.as_bytes());
    let reports = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(reports.lines().count(), 10, "{reports}");
    assert!(reports.contains("n3\t300\t4\t2994\n"), "{reports}");
    assert_eq!(sandbox.ok(&["get", "n3", "299"]), "2993");
}

#[test]
fn compressed_export_equals_the_plain_one_and_is_importable() {
    let sandbox = Sandbox::new();
    let input: String = (0..500).map(|n| line("acme", &n.to_string(), "\"the same\"")).collect();
    assert_eq!(sandbox.run_reading(&["import"], input.as_bytes()).code, 0);
    sandbox.ok(&["export", "acme", "plain.jsonl"]);
    sandbox.ok(&["export", "acme", "small.jsonl.zst"]);
    let sizes = ["plain.jsonl", "small.jsonl.zst"]
        .map(|name| std::fs::metadata(sandbox.path(name)).unwrap().len());
    assert!(sizes[1] * 5 < sizes[0], "{sizes:?}");
    // Imported from standard input, without a file name.
    let bytes = std::fs::read(sandbox.path("small.jsonl.zst")).unwrap();
    let ran = sandbox.run_reading(&["import", "--store", "redb:copy.redb"], &bytes);
    assert_eq!(ran.code, 0, "{ran:?}");
    let copied = sandbox.ok(&["export", "acme", "--store", "redb:copy.redb"]);
    assert_eq!(copied, std::fs::read_to_string(sandbox.path("plain.jsonl")).unwrap());
    // A truncated file is an error.
    let cut = sandbox.write("cut.jsonl.zst", &bytes[..bytes.len() - 5]);
    let message = sandbox.fails(6, &["import", &cut, "--store", "redb:cut.redb"]);
    assert!(message.contains("cannot read the input"), "{message}");
}

#[test]
fn import_accepts_headers_at_any_line() {
    let sandbox = Sandbox::new();
    let header = "{\"format\":\"cubbyhole-export\",\"version\":1}\n";
    let input = [header, &line("a", "k", "1"), header, &line("b", "k", "1")].concat();
    let ran = sandbox.run_reading(&["import"], input.as_bytes());
    assert!(ran.code == 0 && ran.stderr.starts_with("imported 2 entries"), "{ran:?}");
    assert_eq!(sandbox.ok(&["tenants"]), "a\nb\n");
}

#[test]
fn newer_or_unknown_format_stops_despite_on_error_skip() {
    let header = "{\"format\":\"cubbyhole-export\",\"version\":1}\n";
    for (newer, part) in [
        (header.replace(":1}", ":7}"), "an export of version 7"),
        (header.replace(":1}", ":\"2\"}"), "an export of an unknown version"),
        (header.replace("cubbyhole-", "other-"), "another format"),
    ] {
        for options in [&[][..], &["--on-error", "skip"], &["--on-error", "stop"]] {
            let sandbox = Sandbox::new();
            let import = [&["import"], options].concat();
            let ran =
                sandbox.run_reading(&import, (newer.clone() + &line("c", "k", "1")).as_bytes());
            assert!(ran.code == 6 && ran.stderr.contains(part), "{ran:?}");
            assert!(ran.stderr.contains("line 1: ") && !ran.stderr.contains("skip"), "{ran:?}");
            assert_eq!(sandbox.ok(&["tenants"]), "");
            // After a readable export, in a concatenated file.
            let input = [header, &line("a", "k", "1"), &newer, &line("c", "k", "1")].concat();
            let ran = sandbox.run_reading(&import, input.as_bytes());
            assert!(ran.code == 6 && ran.stderr.contains("line 3: "), "{ran:?}");
            assert!(ran.stderr.ends_with("stopped there with 1 entry stored\n"), "{ran:?}");
            assert_eq!(sandbox.ok(&["tenants"]), "a\n");
        }
    }
}
