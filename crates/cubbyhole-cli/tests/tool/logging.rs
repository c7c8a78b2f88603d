//! `-v`: what is told on stderr, and how.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{Place, Ran};

/// The levels of the lines on stderr, each of which is a line of the log.
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
fn more_is_told_the_more_it_is_asked_for() {
    let place = Place::new();
    place.configure("[profiles.dev]\nstore = \"redb:dev.redb\"\n");
    let put = |option: &[&str]| {
        let ran = place.run(&[&["put", "acme", "k", "v", "--profile", "dev"], option].concat());
        assert_eq!((ran.code, ran.stdout.as_slice()), (0, &b""[..]), "{ran:?}");
        ran
    };
    assert_eq!(put(&[]).stderr, "");
    assert_eq!(put(&["--log-format", "json"]).stderr, "");
    let told = put(&["-v"]);
    assert_eq!(levels(&told), BTreeSet::from(["INFO".to_owned()]), "{told:?}");
    for part in ["the store is open", "dev.redb", "profile `dev`", "command=\"put\"", "took_ms="] {
        assert!(told.stderr.contains(part), "{part}: {told:?}");
    }
    // Nothing is coloured but on a terminal.
    assert!(!told.stderr.contains('\u{1b}'), "{told:?}");
    for option in [&["-vv"][..], &["-v", "-v"], &["--verbose", "--verbose"]] {
        let told = put(option);
        assert!(levels(&told).contains("DEBUG"), "{told:?}");
        assert!(told.stderr.contains("read the configuration file"), "{told:?}");
    }
    assert!(levels(&put(&["-vvv"])).contains("DEBUG"));
    // Before the command too.
    let before = place.run(&["-v", "get", "acme", "k", "--profile", "dev"]);
    assert_eq!((before.stdout.as_slice(), levels(&before).len()), (&b"v"[..], 1), "{before:?}");
}

#[test]
fn json_lines_are_objects() {
    let place = Place::new();
    for (options, json) in [
        (&["-v", "--log-format", "json"][..], true),
        (&["-v", "--json"], true),
        (&["-v", "--json", "--log-format", "text"], false),
        (&["-v"], false),
    ] {
        let ran = place.run(&[&["put", "acme", "k", "v"], options].concat());
        assert_eq!((ran.code, ran.stderr.starts_with('{')), (0, json), "{ran:?}");
        if !json {
            continue;
        }
        let told = objects(&ran);
        assert_eq!(told.len(), 2, "{ran:?}");
        assert_eq!(told[0]["fields"]["message"], "the store is open");
        assert_eq!(told[0]["fields"]["store"], "redb:cubbyhole.redb");
        assert_eq!(told[0]["fields"]["named_by"], "default");
        let ended = &told[1]["fields"];
        assert_eq!((&ended["command"], &ended["exit_code"]), (&"put".into(), &0.into()));
        assert!(ended["took_ms"].is_u64(), "{ran:?}");
        for line in &told {
            assert_eq!(line["level"], "INFO");
            assert!(line["target"].as_str().unwrap().starts_with("cubbyhole"), "{line}");
            let timestamp = line["timestamp"].as_str().unwrap();
            let instant: cubbyhole::Timestamp = timestamp.parse().unwrap();
            assert_eq!(instant.to_string(), timestamp, "it has three digits of the second");
        }
    }
}

#[test]
fn an_error_is_told_once_and_stays_json() {
    let place = Place::new();
    let ran =
        place.run(&["get", "acme", "k", "--json", "-v", "--store", "redis://:s3cret@127.0.0.1:1"]);
    assert_eq!(ran.code, 5);
    let told = objects(&ran);
    let errors: Vec<&Value> = told.iter().filter(|line| line["error"].is_object()).collect();
    assert_eq!(errors.len(), 1, "{ran:?}");
    assert_eq!(errors[0].as_object().unwrap().len(), 1, "{ran:?}");
    let ended = &told.last().unwrap()["fields"];
    assert_eq!((&ended["command"], &ended["exit_code"]), (&"get".into(), &5.into()), "{ran:?}");
    assert!(!ran.stderr.contains("s3cret"), "{ran:?}");
}

#[test]
fn what_is_told_has_no_secret_and_stays_in_its_lines() {
    let place = Place::new();
    let file = "a\u{1b}[31m\nb.redb";
    let ran = place.run(&["put", "acme", "k", "v", "--store-file", file, "-vvv"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(!ran.stderr.contains('\u{1b}'), "{ran:?}");
    assert!(ran.stderr.lines().all(|line| line.contains(" cubbyhole")), "{ran:?}");
}

#[test]
fn a_format_that_is_none_is_a_mistake() {
    let place = Place::new();
    assert!(place.fails(2, &["tenants", "--log-format", "xml"]).contains("text, json"));
}
