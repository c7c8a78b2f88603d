//! The layers of a profile.

use serde_json::Value;

use crate::support::{Ran, Sandbox, line};

/// A sandbox whose default profile `p` has these layers. The profile `raw` is the same store without
/// them. The key file `keys` is next to the configuration file.
pub(crate) fn sandbox_with(layers: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.configure(&format!(
        "default_profile = \"p\"\n[profiles.raw]\nstore = \"redb:p.redb\"\n\
         [profiles.p]\nstore = \"redb:p.redb\"\n[profiles.p.layers]\n{layers}\n"
    ));
    sandbox.ok(&["key", "generate", &sandbox.path(".config/cubbyhole/keys").display().to_string()]);
    sandbox
}

pub(crate) const ENCRYPTED: &str = "encryption = { key_file = \"keys\" }";

/// Runs a command through the profile `raw`.
#[track_caller]
pub(crate) fn raw(sandbox: &Sandbox, arguments: &[&str]) -> String {
    sandbox.ok(&[arguments, &["--profile", "raw"]].concat())
}

#[track_caller]
fn entry(sandbox: &Sandbox, namespace: &str, key: &str) -> Value {
    sandbox.json(&["get", namespace, key]).remove(0)
}

#[test]
fn mistake_in_a_layer_names_the_line_and_no_value() {
    let sandbox = Sandbox::new();
    for (layers, expected) in [
        ("ttl = { default = \"2d\", max = \"1d\" }", "line 4: `ttl` is wrong: "),
        ("encryption = { key_env = \"s3cret!\" }", "line 4: `key_env` must be the name of"),
        ("\ncache = 1", "line 5: `cache` must be written cache = true, or "),
    ] {
        sandbox
            .configure(&format!("[profiles.p]\nstore = \"redb:p\"\n[profiles.p.layers]\n{layers}"));
        let message = sandbox.fails(2, &["get", "acme", "k", "--profile", "p"]);
        assert!(message.contains(expected) && !message.contains("s3cret"), "{message}");
        assert_eq!(sandbox.files(), [".config"]);
    }
}

#[test]
fn scope_limits_every_command() {
    let sandbox = sandbox_with("scope = \"acme:app\"");
    for (namespace, key) in
        [("acme:app", "in"), ("acme:app:chat", "in"), ("acme:x", "out"), ("z", "out")]
    {
        raw(&sandbox, &["put", namespace, key, "1"]);
    }
    let before = raw(&sandbox, &["export", "--all"]);
    assert_eq!(sandbox.ok(&["get", "acme:app", "in"]), "1");
    let z = sandbox.write("z.jsonl", line("z", "k", "1"));
    for arguments in [
        &["get", "acme:x", "out"][..],
        &["put", "z", "k", "v"],
        &["list", "acme"],
        &["namespaces", "acme"],
        &["usage", "acme"],
        &["export", "acme"],
        &["erase", "z", "--yes"],
        &["copy", "acme", "--to", "redb:t.redb"],
        &["import", &z],
        &["demo"],
    ] {
        let ran = sandbox.run(arguments);
        assert_eq!(ran.code, 6, "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains("outside the scope"), "{arguments:?}: {ran:?}");
    }
    for arguments in [
        &["tenants"][..],
        &["evict"],
        &["evict", "--every", "1s"],
        &["compact"],
        &["doctor", "--repair"],
        &["migrate"],
    ] {
        let message = sandbox.fails(6, arguments);
        assert!(message.contains("the profile `p` has the scope acme:app"), "{message}");
    }
    assert_eq!(raw(&sandbox, &["export", "--all"]), before);
    assert!(!sandbox.path("t.redb").exists());
    // `--all` is the scope.
    let usage = sandbox.json(&["usage", "--all"]);
    let total = usage.last().unwrap();
    assert_eq!((&total["prefix"], &total["entries"]), (&"acme:app".into(), &2.into()));
    let exported = sandbox.ok(&["export", "--all"]);
    assert!(exported.contains("in") && !exported.contains("out"), "{exported}");
    let copied = &sandbox.json(&["copy", "--all", "--to", "redb:t.redb", "--verify"])[0];
    assert_eq!((&copied["copied"], &copied["verified"]["equal"]), (&2.into(), &true.into()));
    assert_eq!(sandbox.ok(&["tenants", "--store", "redb:t.redb"]), "acme\n");
    assert_eq!(sandbox.json(&["doctor"])[0]["verdict"], "ok");
    assert_eq!(sandbox.json(&["erase", "acme:app", "--yes"])[0]["removed"], 2);
}

#[test]
fn read_only_profile_refuses_every_write_and_creates_nothing() {
    let sandbox = sandbox_with(&format!("read_only = true\n{ENCRYPTED}"));
    let folder = sandbox.path(".config/cubbyhole");
    sandbox.write("data.jsonl", line("acme", "k", "1"));
    let writes = [
        &["put", "acme", "k", "v"][..],
        &["edit", "acme", "k", "--create"],
        &["import", "data.jsonl"],
        &["demo"],
        &["edit", "acme", "k"],
        &["take", "acme", "k"],
        &["delete", "acme", "k"],
        &["touch", "acme", "k", "--persist"],
        &["get", "acme", "k", "--refresh"],
        &["erase", "acme", "--yes"],
        &["evict"],
        &["compact"],
        &["migrate"],
        &["doctor", "--repair"],
        &["reencrypt", "--all"],
        &["key", "shred", "acme", "--yes"],
    ];
    let refuse = |writes: &[&[&str]]| {
        for arguments in writes {
            let mut command = sandbox.command(arguments);
            let ran = Ran::of(command.env("EDITOR", "touch edited").output().unwrap());
            assert_eq!(ran.code, 6, "{arguments:?}: {ran:?}");
            assert!(ran.stderr.contains("layer `read_only`"), "{arguments:?}: {ran:?}");
        }
    };
    refuse(&writes[..4]);
    assert!(!folder.join("p.redb").exists());
    let config = std::fs::read_to_string(folder.join("config.toml")).unwrap();
    sandbox.configure(&format!(
        "{config}\n[profiles.writer]\nstore = \"redb:p.redb\"\n[profiles.writer.layers]\n{ENCRYPTED}"
    ));
    sandbox.ok(&["put", "acme", "k", "v", "--profile", "writer"]);
    let before = std::fs::read(folder.join("p.redb")).unwrap();
    refuse(&writes);
    // The same store with other layers is no target of a copy.
    let copy = ["copy", "acme", "--to", "p", "--as", "globex", "--profile", "writer"];
    let message = sandbox.fails(2, &copy);
    assert!(message.contains("same store, perhaps with other layers"), "{message}");
    assert_eq!(std::fs::read(folder.join("p.redb")).unwrap(), before);
    let mut permissions = std::fs::metadata(folder.join("p.redb")).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(folder.join("p.redb"), permissions).unwrap();
    assert_eq!(sandbox.ok(&["get", "acme", "k"]), "v");
    assert_eq!(sandbox.ok(&["tenants"]), "acme\n");
    assert!(!sandbox.path("edited").exists());
}

#[test]
fn target_of_a_copy_must_be_writable() {
    let sandbox = sandbox_with("read_only = true");
    sandbox.ok(&["put", "acme", "k", "v", "--store", "redb:a.redb"]);
    let copy = ["copy", "acme", "--store", "redb:a.redb", "--to", "p"];
    let message = sandbox.fails(6, &copy);
    assert!(message.contains("layer `read_only`"), "{message}");
    assert!(!sandbox.path(".config/cubbyhole/p.redb").exists());
}

#[test]
fn ttl_rules_apply_to_entries_of_the_tool() {
    let sandbox = sandbox_with(
        "ttl = { default = \"1h\", max = \"2h\" }\n\
         ttl_by_prefix = [{ prefix = \"acme:short\", max = \"1m\", too_long = \"refuse\" }]",
    );
    sandbox.ok(&["put", "acme", "default", "v"]);
    assert!(sandbox.ok(&["get", "acme", "default", "--entry"]).contains("expires_at  2"));
    sandbox.ok(&["put", "acme", "long", "v", "--idle-ttl", "30d"]);
    assert_eq!(entry(&sandbox, "acme", "long")["idle_ttl"], "2h");
    sandbox.ok(&["touch", "acme", "long", "--persist"]);
    assert_ne!(entry(&sandbox, "acme", "long")["expires_at"], Value::Null);
    let message = sandbox.fails(2, &["put", "acme:short", "k", "v", "--ttl", "1h"]);
    assert!(message.contains("longer than the maximum"), "{message}");
    sandbox.ok(&["put", "acme:short", "k", "v", "--idle-ttl", "1m"]);
    assert_eq!(entry(&sandbox, "acme:short", "k")["idle_ttl"], "1m");
}

#[test]
fn value_above_the_limit_is_refused() {
    let sandbox = sandbox_with("limit = { value_bytes = 5 }");
    sandbox.ok(&["put", "acme", "k", "12345"]);
    let message = sandbox.fails(2, &["put", "acme", "k", "123456"]);
    assert!(message.contains('5'), "{message}");
    assert_eq!(sandbox.ok(&["get", "acme", "k"]), "12345");
}

#[test]
fn compression_shrinks_stored_values() {
    let sandbox = sandbox_with("compression = { level = 19 }");
    let value = "again and ".repeat(1000);
    sandbox.ok(&["put", "acme", "k", &value]);
    assert_eq!(sandbox.ok(&["get", "acme", "k"]), value);
    let stored =
        Ran::of(sandbox.command(&["get", "acme", "k", "--profile", "raw"]).output().unwrap());
    assert!(stored.stdout.len() < 200, "{}", stored.stdout.len());
}

#[test]
fn all_layers_together_store_no_plaintext() {
    let sandbox = sandbox_with(&format!(
        "scope = \"acme\"\nlimit = {{ value_bytes = \"64KiB\", rate = 100, concurrency = 8 }}\n\
         ttl = {{ default = \"30d\" }}\ncache = true\ntimeout = {{ read = \"10s\", write = \"10s\" }}\n\
         retry = true\ncompression = true\n{ENCRYPTED}"
    ));
    sandbox.ok(&["put", "acme:a", "k", "very s3cret text"]);
    assert_eq!(sandbox.ok(&["get", "acme:a", "k"]), "very s3cret text");
    let edited = Ran::of(
        sandbox
            .command(&["edit", "acme:a", "k"])
            .env_remove("VISUAL")
            .env("EDITOR", "sed -i s/very/another/")
            .output()
            .unwrap(),
    );
    assert_eq!(edited.code, 0, "{edited:?}");
    sandbox.run_reading(&["import"], line("acme", "other", "\"s3cret\"").as_bytes());
    let exported = sandbox.ok(&["export", "acme"]);
    // The text is not JSON, so it is exported as Base64.
    assert!(exported.contains("\"s3cret\"") && exported.contains("YW5vdGhlciBzM2Ny"), "{exported}");
    let data = std::fs::read(sandbox.path(".config/cubbyhole/p.redb")).unwrap();
    assert!(!String::from_utf8_lossy(&data).contains("s3cret"));
    sandbox.ok(&["compact", "--profile", "raw"]);
    assert_eq!(sandbox.ok(&["get", "acme:a", "k"]), "another s3cret text");
    assert_eq!(sandbox.ok(&["take", "acme", "other"]), "\"s3cret\"");
}

#[test]
fn copy_decrypts_and_encrypts() {
    let sandbox = sandbox_with(&format!("compression = true\n{ENCRYPTED}"));
    let value = "s3cret ".repeat(30);
    sandbox.ok(&["put", "acme", "k", &value, "--ttl", "1h"]);
    let copy = |arguments: &[&str]| sandbox.json(arguments).remove(0);
    let copied = copy(&["copy", "--all", "--to", "redb:plain.redb", "--verify"]);
    assert_eq!((&copied["copied"], &copied["verified"]["equal"]), (&1.into(), &true.into()));
    let plain = ["--store", "redb:plain.redb"];
    assert_eq!(sandbox.ok(&[&["get", "acme", "k"], &plain[..]].concat()), value);
    assert_eq!(sandbox.ok(&[&["tenants"], &plain[..]].concat()), "acme\n");
    sandbox.ok(&["erase", "acme", "--yes"]);
    let back = copy(&[&["copy", "--all", "--to", "p", "--verify"], &plain[..]].concat());
    assert_eq!((&back["copied"], &back["verified"]["equal"]), (&1.into(), &true.into()));
    assert_eq!(back["verified"]["source"]["sha256"], copied["verified"]["source"]["sha256"]);
    assert_eq!(sandbox.ok(&["get", "acme", "k"]), value);
    assert_ne!(sandbox.run(&["get", "acme", "k", "--profile", "raw"]).stdout, value.as_bytes());
    // A copy within the store.
    let within = copy(&["copy", "acme", "--to", "p", "--as", "globex", "--verify"]);
    assert_eq!((&within["copied"], &within["verified"]["equal"]), (&1.into(), &true.into()));
    assert_eq!(sandbox.ok(&["get", "globex", "k"]), value);
}

#[test]
fn doctor_migrate_and_compact_work_with_layers() {
    let sandbox =
        sandbox_with(&format!("cache = true\nretry = true\ncompression = true\n{ENCRYPTED}"));
    sandbox.ok(&["put", "acme", "k", "v"]);
    sandbox.ok(&["doctor"]);
    sandbox.ok(&["doctor", "--repair"]);
    sandbox.ok(&["migrate"]);
    sandbox.ok(&["compact"]);
    assert_eq!(sandbox.ok(&["get", "acme", "k"]), "v");
    assert_eq!(sandbox.ok(&["tenants"]), "acme\n");
}

#[test]
fn store_named_by_url_has_no_layers() {
    let sandbox = sandbox_with("scope = \"acme\"\nread_only = true");
    sandbox.ok(&["put", "globex", "k", "v", "--store", "redb:x.redb"]);
    let show =
        |arguments: &[&str]| sandbox.json(&[&["config", "show"], arguments].concat()).remove(0);
    assert_eq!(show(&["--store", "redb:x.redb"])["layers"], serde_json::json!([]));
    let shown = show(&[]);
    assert_eq!(shown["layers"], serde_json::json!(["scope", "read_only"]));
    assert_eq!(shown["profiles"][0]["layers"], shown["layers"]);
    assert!(sandbox.ok(&["config", "show"]).contains("layers    scope, read_only\n"));
}

#[test]
fn completion_hides_what_the_layers_hide() {
    let sandbox = sandbox_with(&format!("scope = \"acme:app\"\n{ENCRYPTED}"));
    let file = sandbox.path(".config/cubbyhole/config.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    let wide = format!(
        "{config}[profiles.wide]\nstore = \"redb:p.redb\"\n[profiles.wide.layers]\n{ENCRYPTED}"
    );
    std::fs::write(file, wide).unwrap();
    for namespace in ["acme:app", "acme:app:chat", "acme:x", "aaa", "globex"] {
        sandbox.ok(&["put", namespace, "k-1", "v", "--profile", "wide"]);
    }
    let complete = |words: &[&str]| {
        let words = [&["complete-words", "zsh", "--", "cubbyhole"], words].concat();
        let mut answer = String::new();
        // The tool may time out on a busy machine.
        for _ in 0..10 {
            answer = sandbox.ok(&words);
            if answer.lines().count() > 1 {
                break;
            }
        }
        answer.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete(&["get", ""]), ["acme:"]);
    assert_eq!(complete(&["get", "acme:"]), ["acme:app", "acme:app:"]);
    assert_eq!(complete(&["usage", "acme:app:"]), ["acme:app:chat"]);
    assert_eq!(complete(&["get", "acme:app", ""]), ["k-1"]);
    let all = ["aaa", "acme", "globex"];
    assert_eq!(complete(&["key", "shred", "--profile", "wide", ""]), all);
    let keys = complete(&["key", ""]);
    assert!(
        keys[..4]
            .iter()
            .zip(["generate", "list", "rotate", "shred"])
            .all(|(a, b)| a.starts_with(b)),
        "{keys:?}"
    );
    assert_eq!(
        sandbox.ok(&["complete-words", "zsh", "--", "cubbyhole", "key", "list", ""]),
        "files\n"
    );
    assert_eq!(
        sandbox.ok(&["complete-words", "zsh", "--", "cubbyhole", "get", "globex", ""]),
        "names\n"
    );
}
