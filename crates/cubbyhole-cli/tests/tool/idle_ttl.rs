//! Idle TTLs and conditional writes.

use serde_json::{Value, json};

use crate::support::{Sandbox, line};

/// The metadata of an entry, as `get --json` shows it.
fn entry(sandbox: &Sandbox, key: &str) -> Value {
    sandbox.json(&["get", "acme", key]).remove(0)
}

#[test]
fn idle_ttl_is_put_shown_touched_and_removed() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["put", "acme", "k", "v", "--idle-ttl", "1h30m"]);
    let put = entry(&sandbox, "k");
    assert_eq!(put["idle_ttl"], "90m");
    assert!(put["expires_at"].is_string(), "{put}");
    let shown = sandbox.ok(&["get", "acme", "k", "--entry"]);
    assert!(shown.contains("\nidle_ttl    90m\nbytes       1\n"), "{shown}");
    assert_eq!(sandbox.json(&["list", "acme"])[0]["idle_ttl"], "90m");
    let long = sandbox.ok(&["list", "acme", "--long"]);
    assert_eq!(long.split_whitespace().nth(2), Some("90m"), "{long}");

    sandbox.ok(&["touch", "acme", "k", "--idle-ttl", "2d"]);
    let touched = entry(&sandbox, "k");
    assert_eq!((&touched["idle_ttl"], &touched["version"]), (&json!("2d"), &put["version"]));
    assert!(touched["expires_at"].as_str() > put["expires_at"].as_str(), "{touched}");
    // Any other expiry replaces it.
    for expiry in [&["--ttl", "1h"][..], &["--persist"]] {
        sandbox.ok(&["touch", "acme", "k", "--idle-ttl", "30m"]);
        sandbox.ok(&[&["touch", "acme", "k"], expiry].concat());
        assert_eq!(entry(&sandbox, "k").get("idle_ttl"), None);
    }
    assert!(!sandbox.ok(&["get", "acme", "k", "--entry"]).contains("idle_ttl"));
    sandbox.ok(&["touch", "acme", "k", "--idle-ttl", "30m"]);
    assert_eq!(sandbox.json(&["take", "acme", "k"])[0]["idle_ttl"], "30m");
}

#[test]
fn conflicting_or_invalid_idle_ttl_is_refused() {
    let sandbox = Sandbox::new();
    for arguments in [
        &["put", "acme", "k", "v", "--ttl", "1h", "--idle-ttl", "1h"][..],
        &["put", "acme", "k", "v", "--idle-ttl", "0s"],
        &["put", "acme", "k", "v", "--idle-ttl", "1M"],
        &["put", "acme", "k", "v", "--idle-ttl", "9999999d"],
        &["put", "acme", "k", "v", "--if-present", "--if-absent"],
        &["touch", "acme", "k", "--ttl", "1h", "--idle-ttl", "1h"],
        &["touch", "acme", "k", "--persist", "--idle-ttl", "1h"],
        &["touch", "acme", "k", "--idle-ttl", "0s"],
    ] {
        sandbox.fails(2, arguments);
    }
    assert_eq!(sandbox.files(), [""; 0]);
}

#[test]
fn refreshing_get_restarts_only_an_idle_ttl() {
    let sandbox = Sandbox::new();
    // Half of the TTL has passed, so a refresh writes.
    let soon = cubbyhole::Clock::now(&cubbyhole::SystemClock)
        .checked_add(std::time::Duration::from_secs(1800))
        .unwrap();
    let idle = format!(",\"expires_at\":\"{soon}\",\"idle_ttl\":\"1h\"}}\n");
    let fixed = format!(",\"expires_at\":\"{soon}\"}}\n");
    let input = [
        line("acme", "fixed", "1").replace("}\n", &fixed),
        line("acme", "idle", "1").replace("}\n", &idle),
        line("acme", "never", "1"),
    ];
    assert_eq!(sandbox.run_reading(&["import"], input.concat().as_bytes()).code, 0);
    let before = ["fixed", "idle", "never"].map(|key| entry(&sandbox, key));
    assert_eq!(entry(&sandbox, "idle"), before[1], "a plain read refreshed the entry");
    for (key, before) in ["fixed", "idle", "never"].iter().zip(&before) {
        let read = sandbox.json(&["get", "acme", key, "--refresh"]).remove(0);
        assert_eq!(read["version"], before["version"]);
        assert_eq!(read["updated_at"], before["updated_at"]);
        assert_eq!(entry(&sandbox, key), read, "the shown expiry is not the stored one");
        let later = read["expires_at"].as_str() > before["expires_at"].as_str();
        assert_eq!(later, *key == "idle", "{read}");
    }
    sandbox.fails(1, &["get", "acme", "none", "--refresh"]);
    // A store that is open read-only refuses it.
    let url = "redb:cubbyhole.redb?read_only=true";
    sandbox.fails(6, &["get", "acme", "idle", "--refresh", "--store", url]);
}

#[test]
fn export_and_import_keep_idle_ttls() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["put", "acme", "idle", "1", "--idle-ttl", "1500ms"]);
    sandbox.ok(&["touch", "acme", "idle", "--idle-ttl", "30m"]);
    sandbox.ok(&["put", "acme", "never", "1"]);
    sandbox.ok(&["put", "acme", "ttl", "1", "--ttl", "1h"]);
    let exported = sandbox.ok(&["export", "acme"]);
    let lines: Vec<&str> = exported.lines().collect();
    assert_eq!(lines[0], r#"{"format":"cubbyhole-export","version":1}"#);
    assert!(lines[1].ends_with(r#"Z","idle_ttl":"30m"}"#), "{}", lines[1]);
    // Other lines have the form of earlier versions.
    assert_eq!(lines[2], r#"{"namespace":["acme"],"key":"never","value":1}"#);
    assert!(!lines[3].contains("idle_ttl") && lines[3].contains("expires_at"), "{}", lines[3]);
    let copy = ["--store", "redb:copy.redb"];
    for _ in 0..2 {
        let ran = sandbox.run_reading(&[&["import"], &copy[..]].concat(), exported.as_bytes());
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(sandbox.ok(&[&["export", "--all"], &copy[..]].concat()), exported);
    }
    // An expired idle entry is skipped, like any other.
    let gone = r#"{"namespace":["acme"],"key":"gone","value":1,"expires_at":"2001-01-01T00:00:00Z","idle_ttl":"30m"}"#;
    let ran = sandbox.run_reading(&["import"], gone.as_bytes());
    assert!(ran.stderr.contains("1 already expired"), "{ran:?}");
    // Without `expires_at`, the idle TTL begins with the import.
    let new = r#"{"namespace":["acme"],"key":"new","value":1,"idle_ttl":"30m"}"#;
    assert_eq!(sandbox.run_reading(&["import"], new.as_bytes()).code, 0);
    let new = entry(&sandbox, "new");
    assert!(new["idle_ttl"] == "30m" && new["expires_at"].is_string(), "{new}");
}

#[test]
fn copy_keeps_and_compares_idle_ttls() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["put", "acme", "idle", "1", "--idle-ttl", "30m"]);
    sandbox.ok(&["put", "acme", "never", "1"]);
    let copy = |option| sandbox.json(&["copy", "acme", "--to", "redb:copy.redb", option]).remove(0);
    let digest = |copied: &Value| copied["verified"]["source"]["sha256"].clone();
    let copied = copy("--verify");
    assert_eq!((&copied["copied"], &copied["verified"]["equal"]), (&json!(2), &json!(true)));
    let there = |key| sandbox.json(&["get", "acme", key, "--store", "redb:copy.redb"]).remove(0);
    let here = entry(&sandbox, "idle");
    assert_eq!(there("idle")["idle_ttl"], "30m");
    assert_eq!(there("idle")["expires_at"], here["expires_at"]);
    assert_eq!(copy("--dry-run")["skipped"], 2);

    // The same instant without an idle TTL is a difference.
    let at = here["expires_at"].as_str().unwrap();
    let fixed = line("acme", "idle", "1").replace("}\n", &format!(",\"expires_at\":\"{at}\"}}\n"));
    let ran = sandbox.run_reading(&["import", "--store", "redb:copy.redb"], fixed.as_bytes());
    assert_eq!(ran.code, 0, "{ran:?}");
    let kept =
        sandbox.run(&["copy", "acme", "--to", "redb:copy.redb", "--keep-existing", "--verify"]);
    assert_eq!(kept.code, 6, "{kept:?}");
    assert!(kept.stderr.contains("different in the target: `idle` in acme"), "{kept:?}");
    let again = copy("--verify");
    assert_eq!((&again["copied"], &again["skipped"]), (&json!(1), &json!(1)), "{again}");
    assert_eq!(digest(&again), digest(&copied));
    assert_eq!(there("idle")["idle_ttl"], "30m");
    // The digest is that of the lines of an export.
    let exported = sandbox.ok(&["export", "acme"]);
    assert!(exported.contains("idle_ttl"), "{exported}");
}

#[test]
fn conditional_touch_extends_a_lease_only_while_it_is_held() {
    let sandbox = Sandbox::new();
    let lease = |holder, condition: &[&str]| {
        let put = ["put", "acme", "lease", holder, "--ttl", "1h"];
        sandbox.json(&[&put, condition].concat())[0]["version"].as_str().unwrap().to_owned()
    };
    let mine = lease("me", &["--if-absent"]);
    let before = entry(&sandbox, "lease");
    sandbox.ok(&["touch", "acme", "lease", "--ttl", "2h", "--if-version", &mine]);
    let extended = entry(&sandbox, "lease");
    assert!(extended["expires_at"].as_str() > before["expires_at"].as_str(), "{extended}");

    let other = lease("other", &["--if-present"]);
    let taken = entry(&sandbox, "lease");
    let touch = ["touch", "acme", "lease", "--ttl", "9h", "--if-version", &mine];
    assert!(sandbox.fails(3, &touch).contains(&other));
    let ran = sandbox.run(&[&touch[..], &["--json"]].concat());
    assert_eq!((ran.code, ran.error_kind()), (3, "conflict".to_owned()));
    assert_eq!(entry(&sandbox, "lease"), taken, "a refused touch changed the entry");
    sandbox.ok(&["delete", "acme", "lease"]);
    sandbox.fails(3, &touch);
    // Without a condition, a missing entry is not a conflict.
    sandbox.fails(1, &["touch", "acme", "lease", "--ttl", "9h"]);
}

#[test]
fn if_present_needs_an_entry() {
    let sandbox = Sandbox::new();
    // It creates no store.
    sandbox.fails(5, &["put", "acme", "k", "v", "--if-present"]);
    assert_eq!(sandbox.files(), [""; 0]);
    sandbox.ok(&["put", "acme", "other", "v"]);
    sandbox.fails(3, &["put", "acme", "k", "v", "--if-present"]);
    sandbox.fails(3, &["delete", "acme", "k", "--if-present"]);
    sandbox.fails(1, &["delete", "acme", "k"]);
    sandbox.ok(&["put", "acme", "k", "1"]);
    sandbox.ok(&["put", "acme", "k", "2", "--if-present"]);
    assert_eq!(sandbox.ok(&["get", "acme", "k"]), "2");
    sandbox.ok(&["delete", "acme", "k", "--if-present"]);
    assert_eq!(sandbox.ok(&["list", "acme"]), "other\n");
}
