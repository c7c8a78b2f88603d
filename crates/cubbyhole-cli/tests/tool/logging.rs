//! The log of `-v`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{Ran, Sandbox};

/// Returns the levels of the lines on stderr, which must all be log lines.
#[track_caller]
fn levels(ran: &Ran) -> BTreeSet<String> {
    let level = |line: &str| line.split_whitespace().nth(1).unwrap().to_owned();
    ran.stderr.lines().map(level).collect()
}

#[track_caller]
fn objects(ran: &Ran) -> Vec<Value> {
    ran.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn each_v_logs_more() {
    let sandbox = Sandbox::new();
    sandbox.configure("[profiles.dev]\nstore = \"redb:dev.redb\"\n");
    let put = |option: &[&str]| {
        let ran = sandbox.run(&[&["put", "acme", "k", "v", "--profile", "dev"], option].concat());
        assert_eq!((ran.code, ran.stdout.as_slice()), (0, &b""[..]), "{ran:?}");
        ran
    };
    assert_eq!(put(&[]).stderr, "");
    assert_eq!(put(&["--log-format", "json"]).stderr, "");
    let logged = put(&["-v"]);
    assert_eq!(levels(&logged), BTreeSet::from(["INFO".to_owned()]), "{logged:?}");
    for part in ["the store is open", "dev.redb", "profile `dev`", "command=\"put\"", "took_ms="] {
        assert!(logged.stderr.contains(part), "{part}: {logged:?}");
    }
    // There are no colours without a terminal.
    assert!(!logged.stderr.contains('\u{1b}'), "{logged:?}");
    for option in [&["-vv"][..], &["-v", "-v"], &["--verbose", "--verbose"]] {
        let logged = put(option);
        assert!(levels(&logged).contains("DEBUG"), "{logged:?}");
        assert!(logged.stderr.contains("read the configuration file"), "{logged:?}");
    }
    assert!(levels(&put(&["-vvv"])).contains("DEBUG"));
    // The option also works before the command.
    let before = sandbox.run(&["-v", "get", "acme", "k", "--profile", "dev"]);
    assert_eq!((before.stdout.as_slice(), levels(&before).len()), (&b"v"[..], 1), "{before:?}");
}

#[test]
fn json_log_lines_are_objects() {
    let sandbox = Sandbox::new();
    for (options, json) in [
        (&["-v", "--log-format", "json"][..], true),
        (&["-v", "--json"], true),
        (&["-v", "--json", "--log-format", "text"], false),
        (&["-v"], false),
    ] {
        let ran = sandbox.run(&[&["put", "acme", "k", "v"], options].concat());
        assert_eq!((ran.code, ran.stderr.starts_with('{')), (0, json), "{ran:?}");
        if !json {
            continue;
        }
        let logged = objects(&ran);
        assert_eq!(logged.len(), 2, "{ran:?}");
        assert_eq!(logged[0]["fields"]["message"], "the store is open");
        assert_eq!(logged[0]["fields"]["store"], "redb:cubbyhole.redb");
        assert_eq!(logged[0]["fields"]["named_by"], "default");
        let ended = &logged[1]["fields"];
        assert_eq!((&ended["command"], &ended["exit_code"]), (&"put".into(), &0.into()));
        assert!(ended["took_ms"].is_u64(), "{ran:?}");
        for line in &logged {
            assert_eq!(line["level"], "INFO");
            assert!(line["target"].as_str().unwrap().starts_with("cubbyhole"), "{line}");
            let timestamp = line["timestamp"].as_str().unwrap();
            let instant: cubbyhole::Timestamp = timestamp.parse().unwrap();
            assert_eq!(
                instant.to_string(),
                timestamp,
                "the timestamp does not have three fractional digits"
            );
        }
    }
}

#[test]
fn error_is_logged_once_as_json() {
    let sandbox = Sandbox::new();
    let ran = sandbox.run(&[
        "get",
        "acme",
        "k",
        "--json",
        "-v",
        "--store",
        "redis://:s3cret@127.0.0.1:1",
    ]);
    assert_eq!(ran.code, 5);
    let logged = objects(&ran);
    let errors: Vec<&Value> = logged.iter().filter(|line| line["error"].is_object()).collect();
    assert_eq!(errors.len(), 1, "{ran:?}");
    assert_eq!(errors[0].as_object().unwrap().len(), 1, "{ran:?}");
    let ended = &logged.last().unwrap()["fields"];
    assert_eq!((&ended["command"], &ended["exit_code"]), (&"get".into(), &5.into()), "{ran:?}");
    assert!(!ran.stderr.contains("s3cret"), "{ran:?}");
}

#[test]
fn log_lines_have_no_control_characters() {
    let sandbox = Sandbox::new();
    let file = "a\u{1b}[31m\nb.redb";
    let ran = sandbox.run(&["put", "acme", "k", "v", "--store-file", file, "-vvv"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(!ran.stderr.contains('\u{1b}'), "{ran:?}");
    assert!(ran.stderr.lines().all(|line| line.contains(" cubbyhole")), "{ran:?}");
}

#[test]
fn unknown_log_format_is_a_usage_error() {
    let sandbox = Sandbox::new();
    assert!(sandbox.fails(2, &["tenants", "--log-format", "xml"]).contains("text, json"));
}
