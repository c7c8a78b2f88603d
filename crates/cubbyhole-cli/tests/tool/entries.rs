//! Commands on single entries.

use crate::support::Sandbox;

#[test]
fn value_round_trips_byte_for_byte() {
    let sandbox = Sandbox::new();
    let bytes: Vec<u8> = (0..=255).collect();
    let file = sandbox.write("value.bin", &bytes);
    assert_eq!(sandbox.ok(&["put", "acme:a", "k", "--file", &file]), "");
    assert_eq!(sandbox.run(&["get", "acme:a", "k"]).stdout, bytes);
    assert_eq!(sandbox.run_reading(&["put", "acme:a", "k"], b"from stdin\n").code, 0);
    assert_eq!(sandbox.ok(&["get", "acme:a", "k"]), "from stdin\n");
    sandbox.ok(&["put", "acme:a", "k", "-v --json-ish"]);
    assert_eq!(sandbox.ok(&["get", "acme:a", "k"]), "-v --json-ish");
    sandbox.ok(&["put", "acme:a", "k", ""]);
    assert_eq!(sandbox.ok(&["get", "acme:a", "k"]), "");
}

#[test]
fn mistyped_option_is_not_taken_as_a_value() {
    let sandbox = Sandbox::new();
    let message = sandbox.fails(2, &["put", "acme", "k", "--if-absnt"]);
    assert!(message.contains("'--if-absent'") && message.contains("after `--`"), "{message}");
    sandbox.fails(2, &["put", "acme", "k", "--nothing-like-it"]);
    assert_eq!(sandbox.files(), [""; 0]);
    for value in ["-1", "-x", "-vx", "-", "---", "--1"] {
        sandbox.ok(&["put", "acme", "k", value]);
        assert_eq!(sandbox.ok(&["get", "acme", "k"]), value);
    }
    for value in ["--if-absnt", "-v"] {
        sandbox.ok(&["put", "acme", "k", "--", value]);
        assert_eq!(sandbox.ok(&["get", "acme", "k"]), value);
    }
}

#[test]
fn special_characters_in_names_are_literal() {
    let sandbox = Sandbox::new();
    let keys = ["-k", "--json", "a\nb", "👩‍👩‍👧", "%", "_", "*", "", "\u{202e}x", "a\\b", "'\""];
    for key in keys {
        sandbox.ok(&["put", "--", "acme:a", key, key]);
    }
    for key in keys {
        assert_eq!(sandbox.ok(&["get", "--", "acme:a", key]), key);
    }
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    let listed = sandbox.ok(&["list", "acme:a", "-0"]);
    assert_eq!(listed, sorted.iter().map(|key| format!("{key}\0")).collect::<String>());
    let listed = sandbox.ok(&["list", "acme:a"]);
    assert_eq!(listed.lines().count(), keys.len());
    assert!(listed.contains("a\\nb\n") && listed.contains("\\u{202e}x\n"), "{listed}");
    assert_eq!(sandbox.ok(&["list", "acme:a", "--prefix", "%"]), "%\n");
    sandbox.ok(&["put", r"a\:b:c\\d:", "k", "v"]);
    assert_eq!(sandbox.ok(&["namespaces", r"a\:b"]), "a\\:b:c\\\\d:\n");
    assert_eq!(sandbox.json(&["tenants"])[0]["tenant"], "a:b");
}

#[test]
fn failed_condition_is_exit_code_3() {
    let sandbox = Sandbox::new();
    let version = sandbox.json(&["put", "acme", "k", "1", "--if-absent"])[0]["version"].clone();
    let version = version.as_str().unwrap();
    assert!(sandbox.fails(3, &["put", "acme", "k", "2", "--if-absent"]).contains(version));
    sandbox.ok(&["put", "acme", "k", "2", "--if-version", version]);
    sandbox.fails(3, &["put", "acme", "k", "3", "--if-version", version]);
    sandbox.fails(3, &["delete", "acme", "k", "--if-version", version]);
    assert_eq!(sandbox.ok(&["get", "acme", "k"]), "2");
    let ran = sandbox.run(&["put", "acme", "k", "3", "--if-absent", "--json"]);
    assert_eq!((ran.code, ran.error_kind()), (3, "conflict".to_owned()));
    let error: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
    let current = sandbox.json(&["get", "acme", "k"])[0]["version"].clone();
    assert_eq!(error["error"]["version"], current);
    let ran = sandbox.run(&["put", "acme", "no", "3", "--if-version", version, "--json"]);
    assert!(ran.code == 3 && ran.stderr.contains(r#""version":null"#), "{ran:?}");
}

#[test]
fn missing_entry_is_exit_code_1() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["put", "acme", "k", "v"]);
    for command in ["get", "take", "delete"] {
        let message = sandbox.fails(1, &[command, "acme", "no"]);
        assert!(message.contains("`no`") && message.contains("cubbyhole list acme"), "{message}");
    }
    sandbox.fails(1, &["touch", "acme", "no", "--persist"]);
    let ran = sandbox.run(&["--json", "get", "acme", "no"]);
    assert_eq!((ran.code, ran.error_kind()), (1, "not_found".to_owned()));
    // A tenant whose name is a prefix of another name is a different tenant.
    sandbox.fails(1, &["get", "acm", "k"]);
}

#[test]
fn take_and_delete_remove_the_entry() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["put", "acme", "a", "1"]);
    sandbox.ok(&["put", "acme", "b", "2"]);
    assert_eq!(sandbox.ok(&["take", "acme", "a"]), "1");
    sandbox.fails(1, &["take", "acme", "a"]);
    assert_eq!(sandbox.json(&["delete", "acme", "b"])[0].to_string(), r#"{"deleted":true}"#);
    assert_eq!(sandbox.ok(&["list", "acme"]), "");
}

#[test]
fn get_entry_shows_version_and_times() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["put", "acme:a", "k", "{\"n\": 1.50}", "--ttl", "1h30m", "--json-value"]);
    let entry = sandbox.json(&["get", "acme:a", "k"]).remove(0);
    let fields: Vec<&String> = entry.as_object().unwrap().keys().collect();
    let expected =
        ["created_at", "expires_at", "key", "namespace", "updated_at", "value", "version"];
    assert_eq!(fields, expected);
    assert_eq!(entry["namespace"], serde_json::json!(["acme", "a"]));
    assert!(sandbox.ok(&["get", "acme:a", "k", "--json"]).contains("\"value\":{\"n\": 1.50},"));
    let shown = sandbox.ok(&["get", "acme:a", "k", "--entry"]);
    for part in [
        format!("version     {}\n", entry["version"].as_str().unwrap()),
        format!("created_at  {}\n", entry["created_at"].as_str().unwrap()),
        format!("expires_at  {}\n", entry["expires_at"].as_str().unwrap()),
        "bytes       11\nvalue       {\"n\": 1.50}\n".to_owned(),
    ] {
        assert!(shown.contains(&part), "{shown}");
    }
    sandbox.ok(&["touch", "acme:a", "k", "--persist"]);
    let after = sandbox.json(&["get", "acme:a", "k"]).remove(0);
    assert_eq!(after.get("expires_at"), None);
    assert_eq!(after["version"], entry["version"]);
    assert_eq!(sandbox.json(&["touch", "acme:a", "k", "--ttl", "7d"])[0]["touched"], true);
    assert!(sandbox.json(&["get", "acme:a", "k"])[0].get("expires_at").is_some());
}

#[test]
fn expired_entries_are_absent_and_are_swept() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["put", "acme", "k", "v", "--ttl", "1ms"]);
    sandbox.ok(&["put", "acme", "stays", "v"]);
    // Starting a process and opening the file takes more than the millisecond.
    sandbox.fails(1, &["get", "acme", "k"]);
    assert_eq!(sandbox.ok(&["list", "acme"]), "stays\n");
    assert_eq!(sandbox.json(&["usage", "acme", "--depth", "0"])[0]["expired"], 1);
    assert_eq!(sandbox.json(&["evict"])[0].to_string(), r#"{"evicted":1}"#);
    assert_eq!(sandbox.json(&["usage", "acme", "--depth", "0"])[0]["expired"], 0);
    assert_eq!(sandbox.run(&["evict"]).stderr, "swept 0 expired entries\n");
}

#[test]
fn json_value_option_checks_the_value() {
    let sandbox = Sandbox::new();
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for bad in ["{", "nope", "NaN", "1 2", "", deep.as_str()] {
        sandbox.fails(2, &["put", "acme", "k", bad, "--json-value"]);
    }
    assert_eq!(sandbox.files(), [""; 0], "an invalid value created a file");
    sandbox.ok(&["put", "acme", "k", " [1] ", "--json-value"]);
    assert_eq!(sandbox.ok(&["get", "acme", "k"]), " [1] ");
}

#[test]
fn durations_in_months_or_years_are_refused() {
    let sandbox = Sandbox::new();
    sandbox.configure("[profiles.p]\nstore = \"redb:p.redb\"\ntimeout = \"1M\"\n");
    for arguments in [
        &["put", "acme", "k", "v", "--ttl", "1M"][..],
        &["put", "acme", "k", "v", "--ttl", "1 month"],
        &["touch", "acme", "k", "--ttl", "1y"],
        &["evict", "--every", "1M"],
        &["tenants", "--timeout", "2years"],
    ] {
        let message = sandbox.fails(2, arguments);
        assert!(message.contains("30d") && message.contains("60m"), "{message}");
    }
    let message = sandbox.fails(2, &["tenants", "--profile", "p"]);
    assert!(message.contains("line 3") && message.contains("30d"), "{message}");
    assert_eq!(sandbox.files(), [".config"]);
}
