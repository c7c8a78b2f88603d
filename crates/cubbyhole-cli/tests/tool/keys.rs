//! `key` and `reencrypt`, and encrypted profiles.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::layers::{ENCRYPTED, raw, sandbox_with};
use crate::support::{PipedImport, Ran, Sandbox, line, signal};

/// A separate store of the tenants' keys.
const APART: &str = "encryption = { key_file = \"keys\", tenant_keys = \"redb:tenants.redb\" }";

fn folder_file(sandbox: &Sandbox, name: &str) -> PathBuf {
    sandbox.path(".config/cubbyhole").join(name)
}

fn keys(sandbox: &Sandbox) -> String {
    folder_file(sandbox, "keys").display().to_string()
}

/// Returns the key texts of a key file.
fn secrets(sandbox: &Sandbox) -> Vec<String> {
    let text = std::fs::read_to_string(keys(sandbox)).unwrap();
    let words = text.split_whitespace().filter(|word| word.len() > 30).map(str::to_owned);
    words.collect()
}

#[track_caller]
fn reencrypt(sandbox: &Sandbox, scope: &str) -> Value {
    sandbox.json(&["reencrypt", scope]).remove(0)
}

#[test]
fn generated_file_is_private_and_never_overwritten() {
    let sandbox = Sandbox::new();
    let made = &sandbox.json(&["key", "generate", "keys"])[0];
    assert_eq!(made["current"], true);
    let before = std::fs::read(sandbox.path("keys")).unwrap();
    let mode = std::fs::metadata(sandbox.path("keys")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let message = sandbox.fails(2, &["key", "generate", "keys"]);
    assert!(message.contains("keys exists and is not overwritten"), "{message}");
    assert_eq!(std::fs::read(sandbox.path("keys")).unwrap(), before);
    let listed = sandbox.json(&["key", "list", "keys"]);
    assert_eq!(listed, std::slice::from_ref(made));
    // No store is used or created, and a wrong configuration is not read.
    sandbox.configure("wrong");
    sandbox.ok(&["key", "list", "keys"]);
    assert_eq!(sandbox.files(), [".config", "keys"]);
    assert!(
        sandbox.fails(2, &["key", "generate", "no/such/keys"]).contains("no such file or folder")
    );
}

#[test]
fn rotation_keeps_the_old_key_and_no_output_has_a_key() {
    let sandbox = sandbox_with(ENCRYPTED);
    let file = keys(&sandbox);
    sandbox.ok(&["put", "acme", "k", "v"]);
    let old = sandbox.json(&["key", "list", &file])[0]["id"].clone();
    let rotated = sandbox.run(&["key", "rotate", &file]);
    assert!(rotated.stderr.contains("reencrypt --all"), "{rotated:?}");
    let listed = sandbox.json(&["key", "list", &file]);
    assert_eq!(listed.len(), 2);
    assert_eq!(
        (&listed[0]["current"], &listed[1]),
        (&true.into(), &json!({"id": old, "current": false}))
    );
    let text = String::from_utf8(rotated.stdout).unwrap();
    let new = listed[0]["id"].as_str().unwrap();
    assert_eq!(text, format!("{new}  current\n"));
    assert_eq!(sandbox.ok(&["key", "list", &file]), format!("{text}{}\n", old.as_str().unwrap()));
    assert_eq!(sandbox.ok(&["get", "acme", "k"]), "v");
    let secrets = secrets(&sandbox);
    assert_eq!(secrets.len(), 2, "{secrets:?}");
    for arguments in [
        &["key", "list", &file][..],
        &["key", "list", &file, "--json"],
        &["key", "rotate", &file, "-vvv"],
        &["config", "show", "--json"],
        &["get", "acme", "k", "-vvv"],
        &["reencrypt", "--all"],
    ] {
        let ran = sandbox.run(arguments);
        let all = format!("{}{}", ran.stderr, String::from_utf8_lossy(&ran.stdout));
        assert!(!secrets.iter().any(|secret| all.contains(secret)), "{arguments:?}: {all}");
    }
}

#[test]
fn unusable_key_file_is_a_clear_error() {
    let sandbox = sandbox_with(ENCRYPTED);
    sandbox.ok(&["put", "acme", "k", "v"]);
    let file = keys(&sandbox);
    let text = std::fs::read_to_string(&file).unwrap();
    let mode = |mode| std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
    let get = |part: &str| {
        let message = sandbox.fails(2, &["get", "acme", "k"]);
        let expected = "layer `encryption`, key `key_file`: ";
        assert!(message.contains(expected) && message.contains(part), "{message}");
        assert!(message.contains(&file) && !message.contains("s3cret"), "{message}");
    };
    mode(0o644);
    get("chmod 600");
    sandbox.fails(6, &["key", "list", &file]);
    mode(0o600);
    std::fs::write(&file, format!("{text}\nkey s3cret s3cret s3cret\n")).unwrap();
    get("line ");
    assert!(!sandbox.fails(2, &["key", "rotate", &file]).contains("s3cret"));
    // Other keys than those that the values need.
    std::fs::remove_file(&file).unwrap();
    get("no such file");
    sandbox.ok(&["key", "generate", &file]);
    let message = sandbox.fails(5, &["get", "acme", "k"]);
    assert!(message.contains("key"), "{message}");
    assert_eq!(sandbox.ok(&["list", "acme"]), "k\n");
    // Names need no key of the tenant, and the old file still decrypts.
    std::fs::write(&file, text).unwrap();
    assert_eq!(sandbox.ok(&["get", "acme", "k"]), "v");
}

#[test]
fn keys_can_come_from_the_environment() {
    let sandbox = sandbox_with("encryption = { key_env = \"KEYS\" }");
    let text = std::fs::read_to_string(keys(&sandbox)).unwrap().trim_end().replace('\n', ";");
    let run = |keys: &str, arguments: &[&str]| {
        Ran::of(sandbox.command(arguments).env("KEYS", keys).output().unwrap())
    };
    assert_eq!(run(&text, &["put", "acme", "k", "v"]).code, 0);
    assert_eq!(run(&text, &["get", "acme", "k"]).stdout, b"v");
    let message = sandbox.fails(2, &["get", "acme", "k"]);
    assert!(
        message.contains("key `key_env`: ") && message.contains("KEYS is not set"),
        "{message}"
    );
    let wrong = run("s3cret", &["get", "acme", "k"]);
    assert!(wrong.code == 2 && !wrong.stderr.contains("s3cret"), "{wrong:?}");
}

#[test]
fn key_file_can_be_in_the_home_folder() {
    let sandbox = sandbox_with("encryption = { key_file = \"~/home-keys\" }");
    sandbox.ok(&["key", "generate", "home-keys"]);
    let home = sandbox.path("");
    let run = |arguments: &[&str]| {
        Ran::of(sandbox.command(arguments).env("HOME", &home).output().unwrap())
    };
    assert_eq!(run(&["put", "acme", "k", "v"]).code, 0);
    assert_eq!(run(&["get", "acme", "k"]).stdout, b"v");
}

#[test]
fn doctor_finds_missing_keys() {
    let sandbox = sandbox_with(APART);
    sandbox.ok(&["put", "acme", "k", "v"]);
    let verdicts = || {
        let ran = sandbox.run(&["doctor", "--json"]);
        let found: Value = serde_json::from_slice(&ran.stdout).unwrap();
        let checks = found["checks"].as_array().unwrap();
        let of =
            |name| checks.iter().find(|check| check["name"] == name).unwrap()["verdict"].clone();
        (ran.code, of("keys"), of("tenant keys"))
    };
    assert_eq!(verdicts(), (0, "ok".into(), "ok".into()));
    std::fs::rename(keys(&sandbox), folder_file(&sandbox, "other")).unwrap();
    assert_eq!(verdicts(), (6, "problem".into(), "ok".into()));
    std::fs::rename(folder_file(&sandbox, "other"), keys(&sandbox)).unwrap();
    std::fs::remove_file(folder_file(&sandbox, "tenants.redb")).unwrap();
    assert_eq!(verdicts(), (6, "ok".into(), "problem".into()));
}

#[test]
fn tenant_without_entries_gets_a_new_key_too() {
    let sandbox = sandbox_with(ENCRYPTED);
    sandbox.ok(&["put", "acme", "k", "v"]);
    sandbox.ok(&["delete", "acme", "k"]);
    let old = sandbox.json(&["key", "list", &keys(&sandbox)])[0]["id"].clone();
    sandbox.ok(&["key", "rotate", &keys(&sandbox)]);
    let counts = reencrypt(&sandbox, "--all");
    assert_eq!((&counts["tenants"], &counts["new_data_keys"]), (&1.into(), &1.into()));
    let text = std::fs::read_to_string(keys(&sandbox)).unwrap();
    let of_old = format!("key {} ", old.as_str().unwrap());
    let rest: Vec<&str> = text.lines().filter(|line| !line.starts_with(&of_old)).collect();
    std::fs::write(keys(&sandbox), rest.join("\n")).unwrap();
    sandbox.ok(&["put", "acme", "k", "v"]);
    assert_eq!(sandbox.ok(&["get", "acme", "k"]), "v");
}

#[test]
fn doctor_shows_all_findings_if_tenant_keys_is_wrong() {
    let sandbox = sandbox_with(
        "encryption = { key_file = \"absent\", tenant_keys = \"redis://:s3cret@h/?nonsense=1\" }",
    );
    raw(&sandbox, &["put", "acme", "k", "v"]);
    let ran = sandbox.run(&["doctor", "--json"]);
    assert_eq!(ran.code, 6, "{ran:?}");
    let text = String::from_utf8(ran.stdout).unwrap();
    let found: Value = serde_json::from_str(&text).unwrap();
    let checks = found["checks"].as_array().unwrap();
    let problems: Vec<&Value> =
        checks.iter().filter(|check| check["verdict"] == "problem").collect();
    let names: Vec<&Value> = problems.iter().map(|check| &check["name"]).collect();
    assert_eq!(names, ["keys", "tenant keys"]);
    let finding = problems[1]["finding"].as_str().unwrap();
    assert!(finding.starts_with("redis://:***@h/?nonsense=1: "), "{finding}");
    assert!(!format!("{text}{}", ran.stderr).contains("s3cret"), "{text}");
    assert!(!ran.stderr.contains("named by"), "{}", ran.stderr);
}

#[test]
fn tenant_whose_wrapping_key_is_missing_does_not_stop_the_others() {
    let sandbox = sandbox_with(ENCRYPTED);
    sandbox.ok(&["put", "acme", "k", "v"]);
    let old = sandbox.json(&["key", "list", &keys(&sandbox)])[0]["id"].clone();
    let old = old.as_str().unwrap();
    sandbox.ok(&["key", "rotate", &keys(&sandbox)]);
    sandbox.ok(&["put", "globex", "k", "v"]);
    let text = std::fs::read_to_string(keys(&sandbox)).unwrap();
    let of_old = format!("key {old} ");
    let rest: Vec<&str> = text.lines().filter(|line| !line.starts_with(&of_old)).collect();
    std::fs::write(keys(&sandbox), rest.join("\n")).unwrap();

    let ran = sandbox.run(&["reencrypt", "--all"]);
    assert_eq!(ran.code, 6, "{ran:?}");
    assert!(ran.stderr.contains("acme: ") && ran.stderr.contains(old), "{}", ran.stderr);
    let ran = sandbox.run(&["reencrypt", "--all", "--json"]);
    let counts: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((&counts["failed_tenants"], &counts["tenants"]), (&1.into(), &1.into()));
    assert_eq!(sandbox.ok(&["get", "globex", "k"]), "v");
    let message = sandbox.fails(5, &["get", "acme", "k"]);
    assert!(message.contains(old), "{message}");
}

#[test]
fn shredding_asks_and_is_final() {
    let sandbox = sandbox_with(ENCRYPTED);
    assert_eq!(sandbox.run(&["key", "shred", "acme", "--yes"]).code, 5);
    assert!(!folder_file(&sandbox, "p.redb").exists());
    sandbox.ok(&["put", "acme:a", "k", "v"]);
    sandbox.ok(&["put", "globex", "k", "kept"]);
    let message = sandbox.fails(2, &["key", "shred", "acme"]);
    assert!(message.contains("destroy the keys of the tenant acme; repeat"), "{message}");
    assert_eq!(sandbox.ok(&["get", "acme:a", "k"]), "v");
    let shred = ["key", "shred", "acme", "--yes"];
    let shredded = &sandbox.json(&shred)[0];
    assert_eq!((&shredded["tenant"], &shredded["data_keys"]), (&"acme".into(), &1.into()));
    assert_eq!(shredded["already"], false);
    assert_eq!(sandbox.json(&shred)[0]["already"], true);
    assert!(sandbox.run(&shred).stderr.contains("already shredded"));
    assert!(sandbox.fails(6, &["get", "acme:a", "k"]).contains("shredded"));
    assert!(sandbox.fails(6, &["put", "acme", "k", "v"]).contains("shredded"));
    assert_eq!(sandbox.ok(&["get", "globex", "k"]), "kept");
    assert_eq!(sandbox.ok(&["list", "acme:a"]), "k\n");
    // A shredded tenant is skipped.
    let counts = reencrypt(&sandbox, "--all");
    assert_eq!((&counts["tenants"], &counts["shredded"]), (&1.into(), &1.into()));
    assert_eq!(sandbox.json(&["erase", "acme", "--yes"])[0]["removed"], 1);
    assert_eq!(sandbox.run(&["put", "acme", "k", "v"]).code, 6);
}

#[test]
fn shredding_leaves_no_copy_of_the_keys_in_the_file() {
    for (layers, file) in [(ENCRYPTED, "p.redb"), (APART, "tenants.redb")] {
        let sandbox = sandbox_with(layers);
        sandbox.ok(&["put", "acme", "k", "v"]);
        sandbox.ok(&["put", "globex", "k", "v"]);
        let file = folder_file(&sandbox, file);
        let store = format!("redb:{}", file.display());
        let record =
            |tenant| sandbox.run(&["get", "cubbyhole.keys", tenant, "--store", &store]).stdout;
        let records = [record("acme"), record("globex")];
        let found = || {
            let bytes = std::fs::read(&file).unwrap();
            records.each_ref().map(|record| bytes.windows(record.len()).any(|part| part == record))
        };
        assert_eq!(found(), [true, true]);
        sandbox.ok(&["key", "shred", "acme", "--yes"]);
        assert_eq!(found(), [false, true], "{layers}");
    }
}

#[test]
fn wrong_use_of_shred_and_reencrypt_is_refused() {
    let sandbox = sandbox_with(&format!("scope = \"acme\"\n{ENCRYPTED}"));
    sandbox.ok(&["put", "acme", "k", "v"]);
    let message = sandbox.fails(2, &["key", "shred", "acme:a", "--yes"]);
    assert!(message.contains("without segments"), "{message}");
    for arguments in [&["key", "shred", "globex", "--yes"][..], &["reencrypt", "globex"]] {
        let message = sandbox.fails(6, arguments);
        assert!(message.contains("outside the scope of the profile `p`, acme"), "{message}");
        let raw = [arguments, &["--profile", "raw"]].concat();
        assert!(sandbox.fails(2, &raw).contains("no layer `encryption`"));
        let url = [arguments, &["--store", "redb:x.redb"]].concat();
        assert!(sandbox.fails(2, &url).contains("no layer `encryption`"));
    }
    assert_eq!(sandbox.run(&["key", "shred", "cubbyhole.keys", "--yes"]).code, 6);
    assert_eq!(reencrypt(&sandbox, "--all")["entries"], 1);
    assert_eq!(sandbox.files(), [".config"]);
}

#[test]
fn reencryption_after_rotation_keeps_versions_and_expiries() {
    let sandbox = sandbox_with(ENCRYPTED);
    sandbox.ok(&["put", "acme:a", "k", "v", "--ttl", "1h"]);
    sandbox.ok(&["put", "acme:b", "k", "w", "--idle-ttl", "1h"]);
    sandbox.ok(&["put", "globex", "k", "x"]);
    let stable = |namespace: &str| {
        let mut entry = sandbox.json(&["get", namespace, "k"]).remove(0);
        entry.as_object_mut().unwrap().remove("updated_at");
        entry
    };
    let before = [stable("acme:a"), stable("acme:b"), stable("globex")];
    let stored = raw(&sandbox, &["export", "--all"]);
    sandbox.ok(&["key", "rotate", &keys(&sandbox)]);
    let counts = reencrypt(&sandbox, "acme");
    let expected = json!({
        "tenants": 1, "shredded": 0, "new_data_keys": 1, "entries": 2, "rewritten": 2, "changed": 0,
        "unreadable": 0, "failed_tenants": 0,
    });
    assert_eq!(counts, expected);
    let note = sandbox.run(&["reencrypt", "--all"]);
    let expected = "3 entries of 2 tenants in the store: 1 rewritten; 1 new data key\n";
    assert_eq!((note.code, note.stderr.as_str()), (0, expected));
    assert_eq!(reencrypt(&sandbox, "--all")["rewritten"], 0);
    assert_eq!([stable("acme:a"), stable("acme:b"), stable("globex")], before);
    assert_ne!(raw(&sandbox, &["export", "--all"]), stored);
    // The old key is no longer needed.
    let old = sandbox.json(&["key", "list", &keys(&sandbox)])[1]["id"].as_str().unwrap().to_owned();
    let text = std::fs::read_to_string(keys(&sandbox)).unwrap();
    let without: Vec<&str> = text.lines().filter(|line| !line.contains(&old)).collect();
    std::fs::write(keys(&sandbox), without.join("\n")).unwrap();
    assert_eq!(sandbox.ok(&["get", "acme:a", "k"]), "v");
}

#[test]
fn plain_store_is_encrypted_by_accepting_plaintext() {
    let sandbox = sandbox_with("encryption = { key_file = \"keys\", plaintext = \"accept\" }");
    raw(&sandbox, &["put", "acme", "k", "v"]);
    assert_eq!(sandbox.ok(&["get", "acme", "k"]), "v");
    assert_eq!(reencrypt(&sandbox, "--all")["rewritten"], 1);
    let config = folder_file(&sandbox, "config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("accept", "refuse")).unwrap();
    assert_eq!(sandbox.ok(&["get", "acme", "k"]), "v");
    assert_ne!(sandbox.run(&["get", "acme", "k", "--profile", "raw"]).stdout, b"v");
}

#[test]
fn unreadable_entries_are_listed_and_stay() {
    let sandbox = sandbox_with(ENCRYPTED);
    sandbox.ok(&["put", "acme", "good", "v"]);
    for number in 10..25 {
        raw(&sandbox, &["put", "acme", &format!("bad {number}"), "s3cret"]);
    }
    let ran = sandbox.run(&["reencrypt", "acme", "--json"]);
    assert_eq!(ran.code, 6, "{ran:?}");
    let counts: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((&counts["entries"], &counts["unreadable"]), (&16.into(), &15.into()));
    let ran = sandbox.run(&["reencrypt", "acme"]);
    assert_eq!(ran.stderr.matches("acme bad ").count(), 10, "{ran:?}");
    assert!(ran.stderr.contains("15 entries cannot be decrypted and stayed"), "{ran:?}");
    assert!(!ran.stderr.contains("s3cret"), "{ran:?}");
    assert_eq!(raw(&sandbox, &["get", "acme", "bad 10"]), "s3cret");
    assert_eq!(sandbox.run(&["get", "acme", "bad 10"]).code, 6);
}

#[test]
fn interrupted_reencryption_is_completed_by_repeating_it() {
    const ENTRIES: usize = 220;
    let sandbox = sandbox_with(ENCRYPTED);
    let lines: String = (0..ENTRIES).map(|number| line("acme", &number.to_string(), "1")).collect();
    assert_eq!(sandbox.run_reading(&["import"], lines.as_bytes()).code, 0);
    sandbox.ok(&["key", "rotate", &keys(&sandbox)]);
    let exported = sandbox.ok(&["export", "acme"]);
    let mut timeout = 5;
    // Each run may end anywhere. The last one completes.
    loop {
        let ran = sandbox.run(&["reencrypt", "--all", "--timeout", &format!("{timeout}ms")]);
        if ran.code == 0 {
            break;
        }
        assert_eq!(ran.code, 4, "{ran:?}");
        assert!(ran.stderr.contains("the deadline passed"), "{ran:?}");
        timeout *= 2;
    }
    assert_eq!(reencrypt(&sandbox, "--all")["rewritten"], 0);
    assert_eq!(reencrypt(&sandbox, "--all")["entries"], ENTRIES);
    let values = |text: &str| text.lines().skip(1).count();
    assert_eq!(values(&sandbox.ok(&["export", "acme"])), values(&exported));
}

#[test]
fn keys_of_tenants_can_be_in_a_separate_store() {
    let sandbox = sandbox_with(APART);
    sandbox.ok(&["put", "acme", "k", "v"]);
    sandbox.ok(&["put", "globex", "k", "v"]);
    assert_eq!(sandbox.ok(&["get", "acme", "k"]), "v");
    assert_eq!(raw(&sandbox, &["tenants"]), "acme\nglobex\n");
    let store = format!("redb:{}", folder_file(&sandbox, "tenants.redb").display());
    assert_eq!(sandbox.ok(&["list", "cubbyhole.keys", "--store", &store]), "acme\nglobex\n");
    assert_eq!(sandbox.json(&["key", "shred", "acme", "--yes"])[0]["data_keys"], 1);
    assert_eq!(sandbox.run(&["get", "acme", "k"]).code, 6);
    assert_eq!(reencrypt(&sandbox, "--all")["shredded"], 1);
    // A missing store of keys is not created by a command that reads.
    std::fs::remove_file(folder_file(&sandbox, "tenants.redb")).unwrap();
    for arguments in
        [&["get", "globex", "k"][..], &["take", "globex", "k"], &["reencrypt", "--all"]]
    {
        let message = sandbox.fails(5, arguments);
        assert!(message.contains("key `tenant_keys`, redb:"), "{message}");
        assert!(message.contains("tenants.redb"), "{message}");
        assert!(!folder_file(&sandbox, "tenants.redb").exists());
    }
}

#[test]
fn writer_locks_both_files() {
    let sandbox = sandbox_with(APART);
    sandbox.ok(&["put", "acme", "k", "v"]);
    let mut import = PipedImport::start(&sandbox, &[]);
    // The second line of a key ends the batch of the first.
    import.feed(&[line("acme", "other", "1"), line("acme", "other", "2")].concat());
    assert_ne!(import.report(), "");
    for name in ["p.redb", "tenants.redb"] {
        let store = format!("redb:{}", folder_file(&sandbox, name).display());
        let ran = sandbox.run(&["tenants", "--store", &store, "--timeout", "50ms"]);
        assert!([4, 5].contains(&ran.code), "{name}: {ran:?}");
    }
    import.signal("INT");
    import.end();
    assert_eq!(sandbox.ok(&["get", "acme", "k"]), "v");
}

/// Each attempt to open the store needs the store of the keys, which is a file.
#[test]
fn evict_service_retries_with_the_store_of_keys_open() {
    let sandbox = sandbox_with(APART);
    sandbox.ok(&["put", "acme", "k", "v"]);
    let config = folder_file(&sandbox, "config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    // No server listens on port 1.
    std::fs::write(&config, text.replace("redb:p.redb", "redis://127.0.0.1:1")).unwrap();
    let mut command = sandbox.command(&["evict", "--every", "1ms"]);
    let mut service = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(service.stderr.take().unwrap()).lines();
    for _ in 0..3 {
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains("; again in ") && !line.contains("tenant_keys"), "{line}");
    }
    signal(&service, "INT");
    assert_eq!(service.wait().unwrap().code(), Some(0));
}

#[test]
fn stores_with_a_common_store_of_keys_can_be_copied() {
    let sandbox = sandbox_with(APART);
    let config = folder_file(&sandbox, "config.toml");
    let mut text = std::fs::read_to_string(&config).unwrap();
    text.push_str(&format!(
        "[profiles.t]\nstore = \"redb:t.redb\"\n[profiles.t.layers]\n{APART}\n"
    ));
    text.push_str("[profiles.own]\nstore = \"redb:own.redb\"\n[profiles.own.layers]\n");
    text.push_str("encryption = { key_file = \"keys\", tenant_keys = \"redb:./own.redb\" }\n");
    std::fs::write(config, text).unwrap();
    sandbox.ok(&["put", "acme", "k", "v"]);
    for arguments in [&["--dry-run"][..], &["--verify"], &["--verify", "--as", "globex"]] {
        let copy = [&["copy", "acme", "--to", "t"], arguments].concat();
        assert_eq!(sandbox.json(&copy)[0]["copied"], 1);
    }
    assert_eq!(sandbox.ok(&["get", "globex", "k", "--profile", "t"]), "v");
    // The store of the keys may be named as the store itself.
    sandbox.ok(&["put", "acme", "k", "v", "--profile", "own"]);
    assert_eq!(sandbox.ok(&["get", "acme", "k", "--profile", "own"]), "v");
}
