//! The command line: usage errors, help, and the choice of the store.

use crate::support::{Ran, Sandbox};

#[test]
fn usage_error_is_one_line_with_exit_code_2() {
    let sandbox = Sandbox::new();
    for arguments in [
        &["get", "acme"][..],
        &["get", "", "k"],
        &["get", ":a", "k"],
        &["get", r"a\x", "k"],
        &["get", "acme", "k", "--nonsense"],
        &["nonsense"],
        &["put", "acme", "k", "v", "--ttl", "0s"],
        &["put", "acme", "k", "v", "--ttl", "soon"],
        &["put", "acme", "k", "v", "--ttl", "9000y"],
        &["put", "acme", "k", "v", "--file", "f"],
        &["put", "acme", "k", "v", "--if-absent", "--if-version", "x"],
        &["put", "acme", "k", "--file", "no-such-file"],
        &["touch", "acme", "k"],
        &["touch", "acme", "k", "--ttl", "1s", "--persist"],
        &["list", "acme", "--limit", "0"],
        &["export"],
        &["export", "--all", "a", "b"],
        &["import", "no-such-file"],
        &["import", "."],
        &["completions", "tcl"],
        &["--timeout", "0s", "tenants"],
        &["tenants", "--store", "nonsense"],
        &["tenants", "--store", ""],
        &["demo", "--store", "memory:"],
        &["get", "acme", &"k".repeat(1025)],
    ] {
        sandbox.fails(2, arguments);
    }
    assert_eq!(sandbox.files(), [""; 0], "a usage error created a file");
}

#[test]
fn usage_errors_are_json_with_json() {
    let sandbox = Sandbox::new();
    for arguments in [
        &["--json", "get", "acme"][..],
        &["get", "--json"],
        &["--json"],
        &["list", "acme", "-0", "--json"],
        &["demo", "--json"],
    ] {
        let ran = sandbox.run(arguments);
        assert_eq!((ran.code, ran.error_kind()), (2, "invalid_argument".to_owned()));
    }
}

#[test]
fn global_options_are_accepted_before_and_after_the_command() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["--store", "redb:a.redb", "put", "acme", "k", "v"]);
    assert_eq!(sandbox.ok(&["get", "acme", "k", "--store", "redb:a.redb", "--timeout", "1m"]), "v");
    assert_eq!(sandbox.files(), ["a.redb"]);
}

#[test]
fn store_option_takes_precedence_over_the_environment() {
    let sandbox = Sandbox::new();
    let run = |url: &str, arguments: &[&str]| {
        Ran::of(sandbox.command(arguments).env("CUBBYHOLE_STORE", url).output().unwrap())
    };
    assert_eq!(run("redb:env.redb", &["put", "acme", "k", "v"]).code, 0);
    assert_eq!(run("redb:env.redb", &["get", "acme", "k"]).stdout, b"v");
    assert_eq!(run("redb:x.redb", &["get", "acme", "k", "--store", "redb:env.redb"]).stdout, b"v");
    assert_eq!(sandbox.files(), ["env.redb"]);
    // An empty variable counts as unset.
    assert!(run("", &["get", "acme", "k"]).stderr.contains("cubbyhole.redb"));
    // Unreachable servers.
    for url in ["redis://u:s3cret@127.0.0.1:1/0", "postgres://u:s3cret@127.0.0.1:1/db"] {
        let ran = run(url, &["get", "acme", "k"]);
        assert_eq!(ran.code, 5, "{ran:?}");
        assert!(!ran.stderr.contains("s3cret"), "{ran:?}");
    }
    assert!(!run("redis://:s3cret@h", &["--help"]).stdout.windows(6).any(|w| w == b"s3cret"));
}

#[test]
fn only_writing_commands_create_the_store() {
    let sandbox = Sandbox::new();
    for arguments in [
        &["get", "acme", "k"][..],
        &["take", "acme", "k"],
        &["delete", "acme", "k"],
        &["touch", "acme", "k", "--persist"],
        &["list", "acme"],
        &["tenants"],
        &["namespaces", "acme"],
        &["usage", "acme"],
        &["erase", "acme", "--yes"],
        &["evict"],
        &["export", "acme"],
        &["export", "--all", "out.jsonl"],
        &["migrate"],
        &["compact"],
        &["put", "acme", "k", "v", "--if-version", "01890000-0000-7000-8000-000000000000"],
    ] {
        let message = sandbox.fails(5, arguments);
        assert!(message.contains("there is no store at cubbyhole.redb"), "{message}");
        assert!(message.contains("--store"), "{message}");
    }
    assert_eq!(sandbox.run(&["doctor"]).code, 5);
    assert_eq!(sandbox.run(&["--json", "tenants"]).error_kind(), "unavailable");
    assert_eq!(sandbox.files(), [""; 0]);
    sandbox.ok(&["put", "acme", "k", "v"]);
    assert_eq!(sandbox.files(), ["cubbyhole.redb"]);
}

#[test]
fn help_and_version_succeed() {
    let sandbox = Sandbox::new();
    assert!(sandbox.ok(&["--version"]).starts_with("cubbyhole 0."));
    assert!(sandbox.ok(&["--help"]).contains("Exit codes"));
    assert!(sandbox.ok(&["import", "--help"]).contains("Examples:"));
    let bare = sandbox.run(&[]);
    assert!(bare.code == 2 && bare.stdout.is_empty() && bare.stderr.contains("Usage"), "{bare:?}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(sandbox.ok(&["completions", shell]).contains("cubbyhole"));
    }
}

#[test]
fn usage_errors_suggest_the_right_option() {
    let sandbox = Sandbox::new();
    for (arguments, parts) in [
        (&["touch", "acme", "k", "--ttl", "0s"][..], &["--persist"][..]),
        (&["touch", "acme", "k"], &["--ttl", "--persist"]),
        (&["export"], &["--all"]),
        (&["tenants", "--store", "./state.redb"], &["by --store", "write redb:./state.redb"]),
    ] {
        let message = sandbox.fails(2, arguments);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    let run = |url: &str| {
        Ran::of(sandbox.command(&["tenants"]).env("CUBBYHOLE_STORE", url).output().unwrap()).stderr
    };
    let message = run("state.redb");
    assert!(message.contains("by CUBBYHOLE_STORE") && message.contains("redb:state.redb"));
    for secret in ["nope://u:s3cret@h/db", "u:s3cret@h/db.x"] {
        assert!(!run(secret).contains("s3cret"), "{}", run(secret));
    }
}

#[test]
fn doctor_exit_codes_match_its_help() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.run(&["doctor"]).code, 5);
    sandbox
        .write("text.redb", "this is no store, and it is long enough to be read as one".repeat(99));
    assert_eq!(sandbox.run(&["doctor", "--store", "redb:text.redb"]).code, 2);
    sandbox.ok(&["put", "acme", "k", "v"]);
    sandbox.ok(&["doctor"]);
    assert!(sandbox.ok(&["doctor", "--help"]).contains("5 if the store is missing"));
}

#[test]
fn damaged_store_is_reported_in_one_line() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["put", "acme", "k", "v"]);
    let whole = std::fs::read(sandbox.path("cubbyhole.redb")).unwrap();
    for at in (0..whole.len().min(64 * 1024)).step_by(3554) {
        let mut damaged = whole.clone();
        let end = damaged.len().min(at + 600);
        damaged[at.max(9)..end].fill(0xa5);
        sandbox.write("damaged.redb", damaged);
        let ran = sandbox.run(&["list", "acme", "--store", "redb:damaged.redb"]);
        assert!(!ran.stderr.contains("panicked at"), "{at}: {ran:?}");
    }
}
