//! Malformed lines of an import.

use serde_json::Value;

use crate::support::{Sandbox, line};

const BAD: &[(&[u8], &str)] = &[
    (b"{", "EOF"),
    (b"not json", "not a JSON object"),
    (br#"[["a"],"k",1]"#, "not a JSON object"),
    (br#"{"namespace":["a"],"key":"k"}"#, "neither `value` nor `value_base64`"),
    (br#"{"namespace":["a"],"key":"k","value":1,"value_base64":"MQ=="}"#, "both"),
    (br#"{"namespace":["a"],"key":"k","key":"l","value":1}"#, "duplicate field `key`"),
    (br#"{"namespace":["a"],"key":"k","value":1,"ttl":5}"#, "unknown field `ttl`"),
    (br#"{"namespace":["a"],"key":"k","value_base64":"%"}"#, "base64"),
    (br#"{"namespace":[""],"key":"k","value":1}"#, "tenant is empty"),
    (br#"{"namespace":["a"],"key":"k","value":1,"expires_at":"soon"}"#, "RFC 3339"),
    (b"{\"namespace\":[\"a\"],\"key\":\"\xff\",\"value\":1}", "not UTF-8 at byte 27"),
];

#[test]
fn malformed_lines_are_skipped_and_reported() {
    let sandbox = Sandbox::new();
    let mut input = line("a", "first", "1").into_bytes();
    for (bad, _) in BAD {
        input.extend_from_slice(bad);
        input.push(b'\n');
    }
    input.extend_from_slice(line("a", "last", "2").as_bytes());
    let ran = sandbox.run_reading(&["import", "--on-error", "skip"], &input);
    assert_eq!((ran.code, ran.stdout.as_slice()), (6, &b""[..]));
    let reported: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(reported.len(), BAD.len() + 2, "{ran:?}");
    for (at, (_, reason)) in BAD.iter().enumerate() {
        let start = format!("cubbyhole: line {}: ", at + 2);
        assert!(reported[at].starts_with(&start) && reported[at].contains(reason), "{reported:?}");
    }
    assert!(reported[BAD.len()].contains(&format!("({} skipped,", BAD.len())), "{reported:?}");
    assert_eq!(sandbox.ok(&["list", "a"]), "first\nlast\n");
}

#[test]
fn malformed_line_stops_the_import_after_storing_earlier_lines() {
    for (bad, reason) in BAD {
        let sandbox = Sandbox::new();
        let mut input = [line("a", "1", "1"), line("b", "2", "1")].concat().into_bytes();
        input.extend_from_slice(bad);
        input.extend_from_slice(format!("\n{}", line("a", "after", "1")).as_bytes());
        let file = sandbox.write("in.jsonl", &input);
        let message = sandbox.fails(6, &["import", &file]);
        assert!(message.contains("line 3: ") && message.contains(reason), "{message}");
        assert!(message.contains("2 entries stored"), "{message}");
        assert_eq!(sandbox.ok(&["list", "a"]), "1\n");
        assert_eq!(sandbox.ok(&["list", "b"]), "2\n");
    }
}

#[test]
fn malformed_lines_are_json_errors_with_json() {
    let sandbox = Sandbox::new();
    let ran = sandbox.run_reading(&["import", "--json", "--on-error", "skip"], b"{\n");
    assert_eq!(ran.code, 6);
    let summary: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((&summary["skipped"], &summary["entries"]), (&1.into(), &0.into()));
    let kinds: Vec<Value> = ran
        .stderr
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["error"]["kind"].clone())
        .collect();
    assert_eq!(kinds, ["invalid_argument", "incomplete"]);
}

#[test]
fn byte_order_mark_blank_lines_and_crlf_are_accepted() {
    let sandbox = Sandbox::new();
    let lines = [line("a", "1", "[1, 2]"), line("a", "2", "2")].concat();
    let input = format!("\u{feff}{}\r\n \r\n{}", lines.replace('\n', "\r\n"), line("a", "3", "3"));
    let ran = sandbox.run_reading(&["import"], input.trim_end().as_bytes());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(sandbox.ok(&["list", "a", "--values"]), "1\t[1, 2]\n2\t2\n3\t3\n");
}

#[test]
fn very_long_line_is_skipped_in_bounded_memory() {
    let sandbox = Sandbox::new();
    let mut input = vec![b'x'; 65 * 1024 * 1024];
    input.push(b'\n');
    input.extend_from_slice(line("a", "k", "1").as_bytes());
    let ran = sandbox.run_reading(&["import", "--on-error", "skip"], &input);
    assert_eq!(ran.code, 6);
    assert!(ran.stderr.starts_with("cubbyhole: line 1: longer than "), "{}", ran.stderr);
    assert_eq!(sandbox.ok(&["list", "a"]), "k\n");
}

#[test]
fn value_above_the_limit_is_a_malformed_line() {
    let sandbox = Sandbox::new();
    let value = format!("\"{}\"", "x".repeat(16 * 1024 * 1024));
    let input = [line("a", "1", "1"), line("a", "2", &value), line("a", "3", "1")].concat();
    let ran = sandbox.run_reading(&["import", "--on-error", "skip"], input.as_bytes());
    assert_eq!(ran.code, 6);
    assert!(ran.stderr.starts_with("cubbyhole: line 2: the value has "), "{}", ran.stderr);
    assert_eq!(sandbox.ok(&["list", "a"]), "1\n3\n");
}

#[test]
fn empty_import_succeeds() {
    let sandbox = Sandbox::new();
    let ran = sandbox.run_reading(&["import"], b"\n\n");
    assert_eq!(ran.code, 0);
    assert!(ran.stderr.starts_with("imported 0 entries in 0 namespaces in "), "{ran:?}");
}
