//! Listings, usage, erasure and maintenance.

use serde_json::{Value, json};

use crate::support::{Sandbox, line};

fn sandbox_with_entries() -> Sandbox {
    let sandbox = Sandbox::new();
    let input: String = [
        line("acme", "top", "1"),
        line("acme\",\"a", "k1", "10"),
        line("acme\",\"a", "k2", "200"),
        line("acme\",\"a\",\"deep", "k", "3"),
        line("acme\",\"ab", "k", "4"),
        line("acme-2", "k", "5"),
    ]
    .concat();
    assert_eq!(sandbox.run_reading(&["import"], input.as_bytes()).code, 0);
    sandbox
}

#[test]
fn namespaces_match_by_whole_segments() {
    let sandbox = sandbox_with_entries();
    assert_eq!(sandbox.ok(&["namespaces", "acme:a"]), "acme:a\nacme:a:deep\n");
    assert_eq!(sandbox.ok(&["namespaces", "acme", "-0"]), "acme\0acme:a\0acme:a:deep\0acme:ab\0");
    assert_eq!(sandbox.ok(&["tenants"]), "acme\nacme-2\n");
    assert_eq!(sandbox.ok(&["tenants", "-0"]), "acme\0acme-2\0");
    assert_eq!(sandbox.ok(&["namespaces", "acm"]), "");
    assert_eq!(sandbox.json(&["namespaces", "acme:ab"]), [json!({"namespace": ["acme", "ab"]})]);
}

#[test]
fn long_listing_counts_each_namespace_separately() {
    let sandbox = sandbox_with_entries();
    let counted = sandbox.json(&["namespaces", "acme:a", "--long"]);
    let expected = [
        json!({"namespace": ["acme", "a"], "entries": 2, "bytes": 9}),
        json!({"namespace": ["acme", "a", "deep"], "entries": 1, "bytes": 2}),
    ];
    assert_eq!(counted, expected);
    let shown = sandbox.ok(&["namespaces", "acme:a", "--long"]);
    assert_eq!(shown.lines().next(), Some("       2             9  acme:a"));
}

#[test]
fn usage_includes_namespaces_below_the_prefix() {
    let sandbox = sandbox_with_entries();
    sandbox.ok(&["put", "acme:a:deep", "k", "3", "--ttl", "1h"]);
    let rows = sandbox.json(&["usage", "acme:a"]);
    let counted =
        |row: &Value| (row["prefix"].clone(), row["entries"].clone(), row["bytes"].clone());
    let expected = [("acme:a", 2, 9), ("acme:a:deep", 1, 2), ("acme:a", 3, 11)];
    for (row, (prefix, entries, bytes)) in rows.iter().zip(expected) {
        assert_eq!(counted(row), (json!(prefix), json!(entries), json!(bytes)));
    }
    let total = rows.last().unwrap();
    assert_eq!((rows.len(), &total["namespaces"], &total["expired"]), (3, &json!(2), &json!(0)));
    let instant = |row: &Value, name: &str| row[name].as_str().unwrap_or("none").to_owned();
    assert_eq!(instant(&rows[0], "next_expiry"), "none");
    assert_eq!(instant(total, "next_expiry"), instant(&rows[1], "next_expiry"));
    let updated =
        |namespace, key| instant(&sandbox.json(&["get", namespace, key]).remove(0), "updated_at");
    assert_eq!(instant(total, "oldest_write"), updated("acme:a", "k1"));
    assert_eq!(instant(total, "newest_write"), updated("acme:a:deep", "k"));
    assert_eq!(sandbox.json(&["usage", "nobody"])[0]["entries"], 0);
}

#[test]
fn usage_is_grouped_sorted_and_limited() {
    let sandbox = sandbox_with_entries();
    let names = |arguments: &[&str]| -> Vec<Value> {
        let rows = sandbox.json(&[&["usage"], arguments].concat());
        rows.into_iter().map(|row| row["prefix"].clone()).collect()
    };
    assert_eq!(names(&["acme", "--depth", "0"]), [json!("acme")]);
    let rolled = ["acme", "acme:a", "acme:ab", "acme"];
    assert_eq!(names(&["acme", "--depth", "1"]), rolled.map(Value::from));
    let largest = names(&["acme", "--sort", "bytes", "--limit", "1"]);
    assert_eq!(largest, [json!("acme:a"), json!("acme")]);
    let tenants = sandbox.json(&["usage", "--all", "--depth", "1"]);
    let total = tenants.last().unwrap();
    assert_eq!((&total["prefix"], tenants[0]["prefix"].as_str()), (&Value::Null, Some("acme")));
    let sum: u64 =
        tenants.split_last().unwrap().1.iter().map(|row| row["entries"].as_u64().unwrap()).sum();
    assert_eq!(total["entries"], sum);
    let piped = sandbox.ok(&["usage", "acme:a"]);
    let fields: Vec<&str> = piped.lines().last().unwrap().split('\t').collect();
    assert_eq!((fields[..3].to_vec(), fields[5]), (vec!["3", "11", "-"], "total"));
    sandbox.fails(2, &["usage"]);
    sandbox.fails(2, &["usage", "acme", "--all"]);
}

#[test]
fn list_options_select_keys() {
    let sandbox = Sandbox::new();
    let keys: Vec<String> = (0..2500).map(|number| format!("key-{number:04}")).collect();
    let input: String = keys.iter().map(|key| line("acme", key, "1")).collect();
    assert_eq!(sandbox.run_reading(&["import"], input.as_bytes()).code, 0);
    let listed = sandbox.ok(&["list", "acme"]);
    assert_eq!(listed.lines().collect::<Vec<_>>(), keys);
    let cut = sandbox.ok(&["list", "acme", "--after", "key-0099", "--limit", "1200"]);
    assert_eq!(cut.lines().collect::<Vec<_>>(), keys[100..1300]);
    let cut = sandbox.ok(&["list", "acme", "--prefix", "key-24", "--values", "--limit", "2"]);
    assert_eq!(cut, "key-2400\t1\nkey-2401\t1\n");
    assert_eq!(sandbox.ok(&["list", "acme", "--values"]).lines().count(), 2500);
}

#[test]
fn list_options_select_columns() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["put", "acme", "k", "a\tb\n"]);
    assert_eq!(sandbox.ok(&["list", "acme", "--values"]), "k\ta\\tb\\n\n");
    let bare = sandbox.json(&["list", "acme"]).remove(0);
    assert_eq!((bare.get("value"), bare.get("bytes")), (None, None));
    let full = sandbox.json(&["list", "acme", "--long", "--values"]).remove(0);
    assert_eq!((&full["value_base64"], &full["bytes"]), (&json!("YQliCg=="), &json!(4)));
    assert_eq!(full["version"], bare["version"]);
    let long = sandbox.ok(&["list", "acme", "--long"]);
    let fields: Vec<&str> = long.split_whitespace().collect();
    assert_eq!(fields[1..4], ["never", "-", "4"]);
    assert_eq!(fields[4..], [bare["version"].as_str().unwrap(), "k"]);
}

#[test]
fn erase_asks_first_and_keeps_other_entries() {
    let sandbox = sandbox_with_entries();
    let asked = sandbox.fails(2, &["erase", "acme:a"]);
    assert!(
        asked.contains("3 entries (11 B) in 2 namespaces") && asked.contains("--yes"),
        "{asked}"
    );
    assert_eq!(sandbox.json(&["erase", "acme:a", "--dry-run", "--yes"])[0]["entries"], 3);
    assert_eq!(sandbox.json(&["usage", "acme:a", "--depth", "0"])[0]["entries"], 3);
    let ran = sandbox.run(&["erase", "acme:a", "--yes"]);
    let message = ran.stderr.as_str();
    assert!(
        message.starts_with("erased 3 entries in 2 namespaces under acme:a, from 20"),
        "{ran:?}"
    );
    assert!(message.ends_with("Z; no entry is left there\n") && ran.code == 0, "{ran:?}");
    assert_eq!(sandbox.ok(&["namespaces", "acme"]), "acme\nacme:ab\n");
    let again = sandbox.json(&["erase", "acme:a", "--yes"]).remove(0);
    let names: Vec<&String> = again.as_object().unwrap().keys().collect();
    assert_eq!(again["store"], "redb:cubbyhole.redb");
    let expected = ["prefix", "removed", "namespaces", "started_at", "finished_at", "left"];
    assert!(expected.iter().all(|name| names.contains(&&(*name).to_owned())), "{again}");
    assert_eq!((&again["prefix"], &again["removed"]), (&json!("acme:a"), &json!(0)));
}

#[test]
fn compact_migrate_and_doctor_work() {
    let sandbox = sandbox_with_entries();
    let value = format!("\"{}\"", "x".repeat(1000));
    let input: String = (0..2000).map(|n| line("gone", &n.to_string(), &value)).collect();
    assert_eq!(sandbox.run_reading(&["import"], input.as_bytes()).code, 0);
    let length = || std::fs::metadata(sandbox.path("cubbyhole.redb")).unwrap().len();
    let full = length();
    // Closing the file after an erasure rewrites it.
    sandbox.ok(&["erase", "gone", "--yes"]);
    let erased = length();
    assert!(erased < full / 2, "{erased} of {full} bytes");
    let compaction = sandbox.json(&["compact"]).remove(0);
    assert_eq!(compaction["bytes_before"], erased);
    assert!(compaction["bytes_after"].as_u64().unwrap() <= erased, "{compaction}");
    assert_eq!(sandbox.ok(&["get", "acme", "top"]), "1");
    assert!(sandbox.run(&["compact"]).stderr.starts_with("compacted from "));
    assert_eq!(sandbox.json(&["migrate"]), [json!({"done": []})]);
    let diagnosis = sandbox.json(&["doctor"]).remove(0);
    assert_eq!(diagnosis["verdict"], "ok");
    assert!(diagnosis["checks"].as_array().is_some_and(|checks| !checks.is_empty()));
    assert!(sandbox.ok(&["doctor"]).starts_with("ok "));
}

/// Expands a file of format 1 that the embedded backend's tests have recorded. The README there
/// describes the form.
fn recorded_file(name: &str) -> Vec<u8> {
    const SECTOR: usize = 512;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../cubbyhole-embedded/tests/fixtures");
    let sectors = std::fs::read(format!("{folder}/{name}")).unwrap();
    let (length, mut rest) = sectors.split_first_chunk::<8>().unwrap();
    let mut file = vec![0; u64::from_le_bytes(*length) as usize];
    while let Some((number, more)) = rest.split_first_chunk::<4>() {
        let at = u32::from_le_bytes(*number) as usize * SECTOR;
        file[at..at + SECTOR].copy_from_slice(&more[..SECTOR]);
        rest = &more[SECTOR..];
    }
    file
}

#[test]
fn file_of_format_1_is_read_and_migrated() {
    for name in ["format-1-closed.sectors", "format-1-killed.sectors"] {
        let sandbox = Sandbox::new();
        std::fs::write(sandbox.path("cubbyhole.redb"), recorded_file(name)).unwrap();
        let before = sandbox.ok(&["export", "acme"]);
        assert!(before.contains("\"root\"") && before.contains("overwritten"), "{before}");
        let migration = sandbox.json(&["migrate"]).remove(0);
        let done = migration["done"].as_array().unwrap();
        assert!(done[0].as_str().unwrap().ends_with("format 1 to 2"), "{migration}");
        assert_eq!(sandbox.json(&["migrate"]), [json!({"done": []})]);
        assert_eq!(sandbox.ok(&["export", "acme"]), before);
        sandbox.ok(&["put", "acme", "session", "x", "--idle-ttl", "30m"]);
        assert_eq!(sandbox.json(&["get", "acme", "session", "--entry"])[0]["idle_ttl"], "30m");
    }
}

#[test]
fn doctor_reports_a_file_that_is_not_a_store() {
    let sandbox = Sandbox::new();
    sandbox.write("cubbyhole.redb", "not a store at all");
    assert_ne!(sandbox.run(&["list", "acme"]).code, 0);
    let ran = sandbox.run(&["doctor"]);
    assert_ne!(ran.code, 0, "{ran:?}");
    assert!(String::from_utf8(ran.stdout).unwrap().contains("problem"));
}
