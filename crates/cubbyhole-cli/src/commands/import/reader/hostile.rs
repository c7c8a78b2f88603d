//! Arbitrary input. Each line is an entry, blank, or an error with its number. Accepted entries
//! match the output of an export, and memory is bounded. `PROPTEST_CASES` sets the number of cases.

use std::time::Duration;

use cubbyhole::{Expiry, Timestamp};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::entries::record::EntryLine;

/// Failing cases are printed and not saved to a file.
fn cases() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// A valid line.
fn good() -> impl Strategy<Value = Vec<u8>> {
    let namespace = prop::sample::select(vec![r#"["a"]"#, r#"["a","b:c"]"#, r#"["\u00e4\\",""]"#]);
    let value = prop::sample::select(vec![
        r#""value":1"#,
        r#""value":{"a":[1e999,"\ud800"],"a":null}"#,
        r#""value":null"#,
        r#""value_base64":"AP8=""#,
        r#""value_base64":"""#,
        r#""value": "x\u0000" "#,
    ]);
    let more = prop::sample::select(vec![
        "",
        r#","expires_at":null"#,
        r#","expires_at":"9999-12-31T23:59:59.999Z""#,
        r#","expires_at":"1970-01-01T00:00:00Z""#,
        r#","idle_ttl":"90m""#,
        r#","idle_ttl":"1us","expires_at":"1970-01-01T00:00:00Z""#,
        r#","version":{"any":[]},"bytes":1e999,"created_at":"","updated_at":[]"#,
    ]);
    (namespace, "[a-c]{0,2}", value, more).prop_map(|(namespace, key, value, more)| {
        format!(r#"{{"namespace":{namespace},"key":"{key}",{value}{more}}}"#).into_bytes()
    })
}

/// Bytes to insert into a line or to replace a part of it.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        &b"\xef\xbb\xbf"[..],
        b"\xff",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\0",
        b"\r",
        b" ",
        b"\t",
        b"\"",
        b"\\",
        b"\\u0000",
        b"\\ud800",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"null",
        b"1e999",
        b"99999999999999999999999999",
        b"-0",
        b"\"key\":\"k\",",
        b"\"value\":1,",
        b"=",
        b"*",
        b"\"value_base64\":\"A\",",
        b"\"namespace\":[\"\"],",
        b"\"expires_at\":253402300800000,",
        b"\"expires_at\":\"10000-01-01T00:00:00Z\",",
        b"\"idle_ttl\":\"0s\",",
        b"\"idle_ttl\":\"99999999999y\",",
        b"\"idle_ttl\":\"1.5 \xc3\xa4\",",
        b"\"unknown\":1,",
    ]);
    prop_oneof![
        4 => known.prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..6),
        1 => (0..3_000_usize, prop::sample::select(vec!["[", "{\"a\":", "\u{e4}", "9"]))
            .prop_map(|(count, text)| text.repeat(count).into_bytes()),
    ]
}

/// A line without its end: valid, corrupted or arbitrary.
fn any_line() -> impl Strategy<Value = Vec<u8>> {
    let corrupted = (good(), any::<Index>(), 0..8_usize, piece(), any::<bool>()).prop_map(
        |(mut line, at, length, piece, cut)| {
            let at = at.index(line.len());
            let end = line.len().min(at + length);
            line.splice(at..end, piece);
            if cut {
                line.truncate(at);
            }
            line
        },
    );
    prop_oneof![
        3 => good(),
        4 => corrupted,
        1 => piece(),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => prop::sample::select(vec!["", " ", "\t\r", "\u{feff}", "{}", "[]", "null"])
            .prop_map(|text| text.as_bytes().to_vec()),
    ]
    .prop_map(|line| line.into_iter().filter(|byte| *byte != b'\n').collect())
}

fn exported(record: &Record) -> String {
    let line = EntryLine::new(&record.namespace, &record.key).with_value(&record.value);
    serde_json::to_string(&line.with_expiry(record.expiry)).unwrap()
}

/// Returns the reason why a line is malformed.
fn bad(line: &[u8]) -> String {
    match Record::parse(line) {
        Err(Unreadable::Line(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

/// Asserts that a reason is short, regardless of the line.
fn assert_readable(reason: &str) {
    assert!(!reason.is_empty() && reason.chars().count() < 260, "{reason}");
    assert!(!reason.contains("line 1 "), "{reason}");
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_line_is_an_exportable_entry_or_an_error(line in any_line()) {
        match Record::parse(&line) {
            Ok(Some(record)) => {
                let written = exported(&record);
                prop_assert!(!written.contains(['\n', '\r']), "{}", written);
                let again = Record::parse(written.as_bytes()).unwrap().unwrap();
                prop_assert_eq!(exported(&again), written);
                prop_assert_eq!(again, record);
            }
            Ok(None) => prop_assert!(line.iter().all(|byte| b" \t\r".contains(byte)), "{:?}", line),
            Err(Unreadable::Line(reason) | Unreadable::Format(reason)) => assert_readable(&reason),
        }
    }

    #[test]
    fn any_exported_entry_is_accepted(
        parts in prop::collection::vec("[^\\x00]{0,5}", 0..3), tenant in "[^\\x00]{1,5}",
        key in "[^\\x00]{0,9}", value in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..30),
            "[\\[\\]{}\":,0-9a-z \\\\\r\n]{0,12}".prop_map(String::into_bytes),
        ],
        expires_at in prop::option::of(0..=Timestamp::MAX.as_millis()),
        idle_ttl in prop::option::of(1..=Timestamp::MAX.as_millis()),
    ) {
        let expires_at = expires_at.map(|at| Timestamp::from_millis(at).unwrap());
        let record = Record {
            namespace: Namespace::from_parts(tenant, parts).unwrap(),
            key,
            value: value.into(),
            expiry: match (expires_at, idle_ttl.map(Duration::from_millis)) {
                (None, None) => Expiry::Never,
                (Some(at), None) => Expiry::At(at),
                (None, Some(ttl)) => Expiry::Idle(ttl),
                (Some(expires_at), Some(ttl)) => Expiry::IdleUntil { ttl, expires_at },
            },
        };
        let written = exported(&record);
        prop_assert_eq!(Record::parse(written.as_bytes()).unwrap().unwrap(), record, "{}", written);
    }

    #[test]
    fn every_line_is_batched_blank_or_reported_by_number(
        lines in prop::collection::vec(any_line(), 0..12), mark: bool, ended: bool, windows: bool,
    ) {
        let end: &[u8] = if windows { b"\r\n" } else { b"\n" };
        let mut input = if mark { BYTE_ORDER_MARK.to_vec() } else { Vec::new() };
        input.extend(lines.join(end));
        if ended && !lines.is_empty() {
            input.extend(end);
        }
        // Parses the lines independently of the reader.
        let (mut entries, mut bad) = (Vec::new(), Vec::new());
        for (index, line) in input.split(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_prefix(BYTE_ORDER_MARK).filter(|_| index == 0).unwrap_or(line);
            match Record::parse(line) {
                Ok(Some(record)) => entries.push((record.namespace, record.key, record.value)),
                Ok(None) => {}
                Err(_) => bad.push(index as u64 + 1),
            }
        }
        let found = ReadInput::of(&input, false);
        prop_assert_eq!(&found.bad, &bad);
        // The last entry of a key wins, and no entry is lost.
        prop_assert_eq!(last_of_each(found.entries.clone()), last_of_each(entries.clone()));
        prop_assert_eq!(found.entries.len(), entries.len());
        prop_assert!(found.position <= input.len() as u64);
        let stopped = ReadInput::of(&input, true);
        prop_assert_eq!(stopped.bad, bad.into_iter().take(1).collect::<Vec<_>>());
    }
}

type Triple = (Namespace, String, Bytes);

/// The output of the reader, with the batches in order.
#[derive(Default)]
struct ReadInput {
    entries: Vec<Triple>,
    bad: Vec<u64>,
    position: u64,
}

impl ReadInput {
    fn of(input: &[u8], stop: bool) -> Self {
        let (sender, mut receiver) = mpsc::channel(100);
        // A small buffer splits the lines.
        Reader::new(sender, stop).run(io::BufReader::with_capacity(7, input));
        let mut found = Self::default();
        while let Ok(read) = receiver.try_recv() {
            match read {
                ReaderEvent::Batch(pending) => {
                    assert!(pending.first_line <= pending.last_line);
                    found.position = found.position.max(pending.position);
                    found.entries.extend(pending.batch.into_operations().into_iter().map(
                        |operation| {
                            let cubbyhole::Operation::Put { key, value, .. } = operation else {
                                panic!("the batch has a delete: {operation:?}");
                            };
                            (pending.namespace.clone(), key, value)
                        },
                    ));
                }
                ReaderEvent::Bad { line, reason } | ReaderEvent::UnknownFormat { line, reason } => {
                    assert_readable(&reason);
                    found.bad.push(line);
                }
                ReaderEvent::Failed(error) => panic!("{error}"),
            }
        }
        found
    }
}

fn last_of_each(entries: Vec<Triple>) -> HashMap<(Namespace, String), Bytes> {
    entries.into_iter().map(|(namespace, key, value)| ((namespace, key), value)).collect()
}

/// An input of the given length without a line end, which is not held in memory.
struct Endless {
    left: usize,
}

static CHUNK: [u8; 64 * 1024] = [b'['; 64 * 1024];

impl io::Read for Endless {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("use `fill_buf`"))
    }
}

impl BufRead for Endless {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(&CHUNK[..self.left.min(CHUNK.len())])
    }

    fn consume(&mut self, amount: usize) {
        self.left -= amount;
    }
}

#[test]
fn memory_of_a_long_line_is_bounded() {
    let (most, length) = (256 * 1024, 32 * 1024 * 1024);
    let mut buffer = Vec::new();
    let line = read_line(&mut Endless { left: length }, &mut buffer, most).unwrap();
    assert_eq!(line, ReadLine::TooLong(length as u64));
    assert!(buffer.capacity() <= 2 * most, "{} bytes", buffer.capacity());
}

#[test]
fn line_above_the_limit_is_reported_by_number() {
    let (sender, mut receiver) = mpsc::channel(10);
    let input = io::Read::chain(&b"\n"[..], Endless { left: MAX_LINE_BYTES + 1 });
    Reader::new(sender, false).run(input);
    let Ok(ReaderEvent::Bad { line: 2, reason }) = receiver.try_recv() else {
        panic!("the line was accepted")
    };
    assert_readable(&reason);
    assert!(receiver.try_recv().is_err());
}

#[test]
fn deep_nesting_does_not_overflow_the_stack() {
    for open in ["[", "{\"a\":"] {
        let value = open.repeat(2_000_000);
        let line = format!(r#"{{"namespace":["a"],"key":"k","value":{value}"#);
        assert_readable(&bad(line.as_bytes()));
        let line = format!(r#"{{"namespace":{value}"#);
        assert_readable(&bad(line.as_bytes()));
        let line = format!(r#"{{"namespace":["a"],"key":"k","value":1,"version":{value}"#);
        assert_readable(&bad(line.as_bytes()));
    }
}
