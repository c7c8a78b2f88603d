//! A store that was written with a clock that was ahead. Its time decides about expiry, and
//! `doctor` sets it back.

use std::time::Duration;

use cubbyhole::embedded::EmbeddedStore;
use cubbyhole::{
    Bytes, Clock, ExecutionContext, ManualClock, Namespace, Store, SystemClock, Timestamp, embedded,
};
use serde_json::{Value, json};

use crate::support::{Sandbox, line};

const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// Writes an entry to the default store with a clock that is ten years ahead.
fn write_ahead(sandbox: &Sandbox) {
    let clock = ManualClock::new(later(10 * YEAR));
    let config = embedded::Config::new(sandbox.path("cubbyhole.redb")).with_clock(clock);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let ctx = ExecutionContext::new();
        let store = EmbeddedStore::open(&ctx, config).await.unwrap();
        let ns = Namespace::parse("acme").unwrap();
        store.put(&ctx, &ns, "ahead", Bytes::from_static(b"1")).await.unwrap();
    });
}

fn later(by: Duration) -> Timestamp {
    SystemClock.now().checked_add(by).unwrap()
}

/// Returns a line of an import with an expiry.
fn expiring(key: &str, expires_at: Timestamp) -> String {
    let expiry = format!(",\"expires_at\":\"{expires_at}\"}}\n");
    line("acme", key, "2").replace("}\n", &expiry)
}

fn lines() -> String {
    let mut lines = line("acme", "never", "1");
    lines.push_str(&expiring("year", later(YEAR)));
    lines.push_str(&expiring("kept", later(YEAR)));
    lines.push_str(&expiring("decades", later(30 * YEAR)));
    lines
}

#[test]
fn import_counts_entries_expired_by_the_stores_clock() {
    let sandbox = Sandbox::new();
    write_ahead(&sandbox);
    sandbox.ok(&["put", "acme", "kept", "old"]);
    let ran = sandbox.run_reading(&["import", "--json", "--report-batches"], lines().as_bytes());
    assert_eq!(ran.code, 0, "{ran:?}");
    let out = String::from_utf8(ran.stdout).unwrap();
    let objects: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects[0]["entries"], 2, "{objects:?}");
    let summary = &objects[1];
    assert_eq!((&summary["entries"], &summary["expired"]), (&json!(2), &json!(2)), "{summary}");
    assert_eq!(sandbox.ok(&["list", "acme"]), "ahead\ndecades\nkept\nnever\n");
    assert_eq!(sandbox.ok(&["get", "acme", "kept"]), "old", "an expired entry replaced a live one");

    let gone = expiring("a", later(YEAR)) + &expiring("b", later(YEAR));
    let ran = sandbox.run_reading(&["import"], gone.as_bytes());
    assert!(ran.stderr.starts_with("imported 0 entries in 0 namespaces"), "{ran:?}");
    assert!(ran.stderr.contains("(0 skipped, 2 already expired)"), "{ran:?}");
}

#[test]
fn copy_counts_entries_expired_by_the_targets_clock() {
    let (source, target) = (Sandbox::new(), Sandbox::new());
    assert_eq!(source.run_reading(&["import"], lines().as_bytes()).code, 0);
    write_ahead(&target);
    let url = format!("redb:{}", target.path("cubbyhole.redb").display());
    let copy = |option| source.json(&["copy", "acme", "--to", &url, option]).remove(0);
    let tried = copy("--dry-run");
    assert_eq!((&tried["copied"], &tried["expired"]), (&json!(2), &json!(2)), "{tried}");
    assert_eq!(target.ok(&["list", "acme"]), "ahead\n");
    target.ok(&["delete", "acme", "ahead"]);
    let copied = copy("--verify");
    assert_eq!((&copied["copied"], &copied["expired"]), (&json!(2), &json!(2)), "{copied}");
    let verified = &copied["verified"];
    assert_eq!((&verified["equal"], &verified["expired"]), (&json!(true), &json!(2)), "{copied}");
    assert_eq!(target.ok(&["list", "acme"]), "decades\nnever\n");
}

#[test]
fn doctor_names_both_causes_and_repair_sets_the_time_back() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.run_reading(&["import"], lines().as_bytes()).code, 0);
    let untouched = sandbox.run(&["doctor", "--repair"]);
    assert!(untouched.stderr.contains("there was nothing to repair"), "{untouched:?}");
    write_ahead(&sandbox);
    assert_eq!(sandbox.ok(&["list", "acme"]), "ahead\ndecades\nnever\n");

    // Only this check: the verdicts of others depend on the machine.
    let clock_check = |diagnosis: &Value| {
        let checks = diagnosis["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == "clock").unwrap().clone()
    };
    let clock = clock_check(&sandbox.json(&["doctor"])[0]);
    assert_eq!(clock["verdict"], "warning", "{clock}");
    let advice = clock["advice"].as_str().unwrap();
    for part in ["doctor --repair", ": 2, in 1 namespaces"] {
        assert!(advice.contains(part), "{part}: {advice}");
    }

    // The command asks before it revives entries.
    let message = sandbox.fails(2, &["doctor", "--repair"]);
    assert!(message.contains("would revive 2 expired entries in 1 namespace (the"), "{message}");
    assert_eq!(sandbox.ok(&["list", "acme"]), "ahead\ndecades\nnever\n");

    let repaired = sandbox.json(&["doctor", "--repair", "--yes"]);
    let done = repaired[0]["repaired"][0].as_str().unwrap();
    assert!(done.contains("is set back to 20") && done.contains(": 2, in 1 namespaces"), "{done}");
    assert_eq!(clock_check(&repaired[1])["verdict"], "ok", "{repaired:?}");
    assert_eq!(sandbox.ok(&["list", "acme"]), "ahead\ndecades\nkept\nnever\nyear\n");
    let ran = sandbox.run_reading(&["import"], lines().as_bytes());
    assert!(ran.stderr.starts_with("imported 4 entries in 1 namespace "), "{ran:?}");
}
