//! The command line itself: mistakes, help, and which store it is.

use crate::support::{Place, Ran};

#[test]
fn a_mistake_is_code_2_and_one_line() {
    let place = Place::new();
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
        place.fails(2, arguments);
    }
    assert_eq!(place.files(), [""; 0], "a mistake created a file");
}

#[test]
fn mistakes_are_json_when_asked() {
    let place = Place::new();
    for arguments in [
        &["--json", "get", "acme"][..],
        &["get", "--json"],
        &["--json"],
        &["list", "acme", "-0", "--json"],
        &["demo", "--json"],
    ] {
        let ran = place.run(arguments);
        assert_eq!((ran.code, ran.error_kind()), (2, "invalid_argument".to_owned()));
    }
}

#[test]
fn globals_stand_before_or_after() {
    let place = Place::new();
    place.ok(&["--store", "redb:a.redb", "put", "acme", "k", "v"]);
    assert_eq!(place.ok(&["get", "acme", "k", "--store", "redb:a.redb", "--timeout", "1m"]), "v");
    assert_eq!(place.files(), ["a.redb"]);
}

#[test]
fn the_environment_names_the_store_and_the_option_wins() {
    let place = Place::new();
    let run = |url: &str, arguments: &[&str]| {
        Ran::of(place.command(arguments).env("CUBBYHOLE_STORE", url).output().unwrap())
    };
    assert_eq!(run("redb:env.redb", &["put", "acme", "k", "v"]).code, 0);
    assert_eq!(run("redb:env.redb", &["get", "acme", "k"]).stdout, b"v");
    assert_eq!(run("redb:x.redb", &["get", "acme", "k", "--store", "redb:env.redb"]).stdout, b"v");
    assert_eq!(place.files(), ["env.redb"]);
    // Empty is as if it were not set.
    assert!(run("", &["get", "acme", "k"]).stderr.contains("cubbyhole.redb"));
    // Not there.
    for url in ["redis://u:s3cret@127.0.0.1:1/0", "postgres://u:s3cret@127.0.0.1:1/db"] {
        let ran = run(url, &["get", "acme", "k"]);
        assert_eq!(ran.code, 5, "{ran:?}");
        assert!(!ran.stderr.contains("s3cret"), "{ran:?}");
    }
    assert!(!run("redis://:s3cret@h", &["--help"]).stdout.windows(6).any(|w| w == b"s3cret"));
}

#[test]
fn only_what_writes_creates_the_store() {
    let place = Place::new();
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
        let message = place.fails(5, arguments);
        assert!(message.contains("there is no store at cubbyhole.redb"), "{message}");
        assert!(message.contains("--store"), "{message}");
    }
    assert_eq!(place.run(&["doctor"]).code, 5);
    assert_eq!(place.run(&["--json", "tenants"]).error_kind(), "unavailable");
    assert_eq!(place.files(), [""; 0]);
    place.ok(&["put", "acme", "k", "v"]);
    assert_eq!(place.files(), ["cubbyhole.redb"]);
}

#[test]
fn help_and_version_are_no_errors() {
    let place = Place::new();
    assert!(place.ok(&["--version"]).starts_with("cubbyhole 0."));
    assert!(place.ok(&["--help"]).contains("Exit codes"));
    assert!(place.ok(&["import", "--help"]).contains("Examples:"));
    let bare = place.run(&[]);
    assert!(bare.code == 2 && bare.stdout.is_empty() && bare.stderr.contains("Usage"), "{bare:?}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(place.ok(&["completions", shell]).contains("cubbyhole"));
    }
}

#[test]
fn hints_lead_somewhere() {
    let place = Place::new();
    for (arguments, parts) in [
        (&["touch", "acme", "k", "--ttl", "0s"][..], &["--persist"][..]),
        (&["touch", "acme", "k"], &["--ttl", "--persist"]),
        (&["export"], &["--all"]),
        (&["tenants", "--store", "./state.redb"], &["by --store", "write redb:./state.redb"]),
    ] {
        let message = place.fails(2, arguments);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    let run = |url: &str| {
        Ran::of(place.command(&["tenants"]).env("CUBBYHOLE_STORE", url).output().unwrap()).stderr
    };
    let message = run("state.redb");
    assert!(message.contains("by CUBBYHOLE_STORE") && message.contains("redb:state.redb"));
    for secret in ["nope://u:s3cret@h/db", "u:s3cret@h/db.x"] {
        assert!(!run(secret).contains("s3cret"), "{}", run(secret));
    }
}

#[test]
fn doctor_ends_with_the_code_that_its_help_tells() {
    let place = Place::new();
    assert_eq!(place.run(&["doctor"]).code, 5);
    place
        .write("text.redb", "this is no store, and it is long enough to be read as one".repeat(99));
    assert_eq!(place.run(&["doctor", "--store", "redb:text.redb"]).code, 2);
    place.ok(&["put", "acme", "k", "v"]);
    place.ok(&["doctor"]);
    assert!(place.ok(&["doctor", "--help"]).contains("5 (there is no"));
}

#[test]
fn a_damaged_store_is_told_of_in_one_line() {
    let place = Place::new();
    place.ok(&["put", "acme", "k", "v"]);
    let whole = std::fs::read(place.path("cubbyhole.redb")).unwrap();
    for at in (0..whole.len().min(64 * 1024)).step_by(3554) {
        let mut damaged = whole.clone();
        let end = damaged.len().min(at + 600);
        damaged[at.max(9)..end].fill(0xa5);
        place.write("damaged.redb", damaged);
        let ran = place.run(&["list", "acme", "--store", "redb:damaged.redb"]);
        assert!(!ran.stderr.contains("panicked at"), "{at}: {ran:?}");
    }
}
