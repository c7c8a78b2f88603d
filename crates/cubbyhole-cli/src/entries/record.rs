//! Entries as JSON Lines, the format of exports. An export that is imported again yields identical
//! bytes.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use cubbyhole::{Bytes, EntryMeta, Expiry, Namespace, Timestamp, Version, limits};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::args::parse::parse_duration;
use crate::output::exact_duration;

/// The first line of an export. It is optional when reading, because older exports have none.
#[derive(Debug, Serialize)]
pub(crate) struct Header {
    format: &'static str,
    version: u64,
}

/// The fields that distinguish a header from an entry.
#[derive(Deserialize)]
struct ReadHeader<'a> {
    #[serde(borrow)]
    format: Cow<'a, str>,
    #[serde(borrow)]
    version: Option<&'a RawValue>,
    namespace: Option<serde::de::IgnoredAny>,
    key: Option<serde::de::IgnoredAny>,
}

impl Header {
    const FORMAT: &'static str = "cubbyhole-export";
    const VERSION: u64 = 1;

    pub(crate) fn new() -> Self {
        Self { format: Self::FORMAT, version: Self::VERSION }
    }

    /// Whether the line is a header that this build can read. Concatenated exports have a header at
    /// any line.
    fn is_in(text: &str) -> Result<bool, Unreadable> {
        let Ok(header) = serde_json::from_str::<ReadHeader<'_>>(text) else { return Ok(false) };
        if header.namespace.is_some() || header.key.is_some() {
            return Ok(false);
        }
        let version = header.version.map(RawValue::get);
        let number = version.and_then(|version| version.parse::<u64>().ok());
        let known = Self::VERSION;
        match (header.format == Self::FORMAT, number) {
            (true, Some(Self::VERSION)) => Ok(true),
            (true, Some(number)) => Err(Unreadable::Format(format!(
                "an export of version {number}, but this build reads version {known}; use a newer \
                 cubbyhole"
            ))),
            (true, None) => Err(Unreadable::Format(format!(
                "an export of an unknown version, but this build reads version {known}; use a newer \
                 cubbyhole"
            ))),
            (false, _) if version.is_some() => Err(Unreadable::Format(format!(
                "the header of another format than {}",
                Self::FORMAT
            ))),
            (false, _) => Ok(false),
        }
    }
}

/// The reason why a line cannot be read.
#[derive(Debug, PartialEq)]
pub(crate) enum Unreadable {
    /// The line is malformed. The following lines can be read.
    Line(String),
    /// The line is the header of an unknown format. The following lines cannot be read.
    Format(String),
}

impl From<String> for Unreadable {
    fn from(reason: String) -> Self {
        Self::Line(reason)
    }
}

/// An entry as written by `export` and with `--json`.
#[derive(Debug, Serialize)]
pub(crate) struct EntryLine<'a> {
    namespace: &'a Namespace,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_ttl: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<Version>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

impl<'a> EntryLine<'a> {
    /// Creates a line with the namespace and the key.
    pub(crate) fn new(namespace: &'a Namespace, key: &'a str) -> Self {
        Self {
            namespace,
            key,
            value: None,
            value_base64: None,
            expires_at: None,
            idle_ttl: None,
            version: None,
            created_at: None,
            updated_at: None,
            bytes: None,
        }
    }

    pub(crate) fn with_value(mut self, value: &'a [u8]) -> Self {
        self.value = embeddable(value);
        self.value_base64 = self.value.is_none().then(|| BASE64.encode(value));
        self
    }

    /// Adds `expires_at` and the idle TTL of an [`Expiry::of`] an entry.
    pub(crate) fn with_expiry(mut self, expiry: Expiry) -> Self {
        self.expires_at = match expiry {
            Expiry::At(expires_at) | Expiry::IdleUntil { expires_at, .. } => Some(expires_at),
            Expiry::Never | Expiry::After(_) | Expiry::Idle(_) => None,
        };
        self.idle_ttl = expiry.idle_ttl().map(exact_duration);
        self
    }

    pub(crate) fn with_meta(mut self, meta: &EntryMeta) -> Self {
        self.version = Some(meta.version);
        self.created_at = Some(meta.created_at);
        self.updated_at = Some(meta.updated_at);
        self.with_expiry(Expiry::of(meta))
    }

    pub(crate) fn with_bytes(mut self, bytes: Option<u64>) -> Self {
        self.bytes = bytes;
        self
    }
}

/// Returns the value as JSON if it is one line of valid JSON without surrounding white space. Any
/// other value would not be read back as the same bytes.
fn embeddable(value: &[u8]) -> Option<&RawValue> {
    // A carriage return is white space in JSON, and a line end for many tools.
    if value.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return None;
    }
    let raw: &RawValue = serde_json::from_slice(value).ok()?;
    (raw.get().len() == value.len()).then_some(raw)
}

/// Encodes a value as Base64.
pub(crate) fn to_base64(value: &[u8]) -> String {
    BASE64.encode(value)
}

/// An entry read from a line.
#[derive(Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) namespace: Namespace,
    pub(crate) key: String,
    pub(crate) value: Bytes,
    pub(crate) expiry: Expiry,
}

// Unknown fields are refused, because a misspelt `expires_at` would make an entry permanent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadLine<'a> {
    namespace: Namespace,
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "present")]
    value: Option<&'a RawValue>,
    #[serde(borrow, default)]
    value_base64: Option<Cow<'a, str>>,
    #[serde(default)]
    expires_at: Option<Timestamp>,
    #[serde(borrow, default)]
    idle_ttl: Option<Cow<'a, str>>,
    // Added by `get --json` and `list --json`, and ignored: the store sets its own.
    #[serde(default, rename = "version")]
    _version: serde::de::IgnoredAny,
    #[serde(default, rename = "created_at")]
    _created_at: serde::de::IgnoredAny,
    #[serde(default, rename = "updated_at")]
    _updated_at: serde::de::IgnoredAny,
    #[serde(default, rename = "bytes")]
    _bytes: serde::de::IgnoredAny,
}

/// Reads `"value":null` as the value `null`. `Option` alone would read it as a missing value.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Record {
    /// Parses one line, with or without its end. Returns `None` for a header and for a blank line.
    pub(crate) fn parse(line: &[u8]) -> Result<Option<Self>, Unreadable> {
        let text = std::str::from_utf8(line)
            .map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to() + 1))?;
        // With the line end, serde would report an error there on the next line.
        let text = text.trim_end_matches(['\n', '\r', ' ', '\t']);
        if text.is_empty() {
            return Ok(None);
        }
        // serde would also accept an array of the fields.
        if !text.trim_ascii_start().starts_with('{') {
            return Err("not a JSON object".to_owned().into());
        }
        let read: ReadLine<'_> = match serde_json::from_str(text) {
            Ok(read) => read,
            Err(_) if Header::is_in(text)? => return Ok(None),
            Err(error) => return Err(reason(&error).into()),
        };
        let value = match (read.value, read.value_base64) {
            (Some(raw), None) => Bytes::copy_from_slice(raw.get().as_bytes()),
            (None, Some(text)) => BASE64
                .decode(text.as_bytes())
                .map(Bytes::from)
                .map_err(|_| "`value_base64` is not base64 with padding".to_owned())?,
            (Some(_), Some(_)) => return Err("both `value` and `value_base64`".to_owned().into()),
            (None, None) => return Err("neither `value` nor `value_base64`".to_owned().into()),
        };
        let expiry = expiry(read.expires_at, read.idle_ttl.as_deref())?;
        limits::check_key(&read.key)
            .and_then(|()| limits::check_value_bytes(value.len(), limits::DEFAULT_MAX_VALUE_BYTES))
            .map_err(|error| error.message().to_owned())?;
        Ok(Some(Self { namespace: read.namespace, key: read.key.into_owned(), value, expiry }))
    }
}

/// Returns the expiry of a line. Without `expires_at`, an idle TTL begins when the line is stored.
fn expiry(expires_at: Option<Timestamp>, idle_ttl: Option<&str>) -> Result<Expiry, Unreadable> {
    let Some(text) = idle_ttl else {
        return Ok(expires_at.map_or(Expiry::Never, Expiry::At));
    };
    // humantime does not read milliseconds of more than 584 years, which `exact_duration` writes.
    let ttl = match text.strip_suffix("ms").and_then(|number| number.parse().ok()) {
        Some(millis @ 1..) => Duration::from_millis(millis),
        _ => parse_duration(text).map_err(|reason| shortened(format!("`idle_ttl`: {reason}")))?,
    };
    // In whole milliseconds, as stores keep it.
    let ttl = Expiry::Idle(ttl).idle_ttl().unwrap_or(ttl);
    let expiry = match expires_at {
        Some(expires_at) => Expiry::IdleUntil { ttl, expires_at },
        None => Expiry::Idle(ttl),
    };
    expiry.check().map_err(|error| error.message().to_owned())?;
    Ok(expiry)
}

/// Returns serde's message without its line number, which is always 1.
fn reason(error: &serde_json::Error) -> String {
    shortened(error.to_string().replace(" at line 1 column ", " at column "))
}

/// Shortens a message, which may quote any part of a line.
fn shortened(mut text: String) -> String {
    const LONGEST: usize = 200;
    if let Some((at, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(at);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &[u8]) -> String {
        let namespace = Namespace::parse("acme:a").unwrap();
        serde_json::to_string(&EntryLine::new(&namespace, "k").with_value(value)).unwrap()
    }

    fn refused(line: &str) -> String {
        match Record::parse(line.as_bytes()) {
            Err(Unreadable::Line(reason)) => reason,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn any_bytes_round_trip() {
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        let values: &[&[u8]] = &[
            b"null",
            b"{\"a\" :  [1,2.50,1e999]}",
            b"\"\\ud800\"",
            b" 1",
            b"1 ",
            b"{\n}",
            b"[1,\r2]",
            b"",
            b"\xff\x00",
            b"text",
            b"\xef\xbb\xbf1",
            b"{\"a\":1,\"a\":2}",
            b"1 2",
            deep.as_bytes(),
        ];
        for value in values {
            let line = written(value);
            assert!(!line.contains('\n'));
            let record = Record::parse(line.as_bytes()).unwrap().unwrap();
            assert_eq!(record.value, value, "{line:.100}");
        }
    }

    #[test]
    fn only_single_line_json_is_embedded() {
        for value in ["null", "1.50", "\"a\"", "{ \"a\": 1 }"] {
            assert!(written(value.as_bytes()).contains(&format!("\"value\":{value}")), "{value}");
        }
        for value in [" 1", "1\t", "[\n]", "[\r]", "text", ""] {
            assert!(written(value.as_bytes()).contains("value_base64"), "{value}");
        }
    }

    #[test]
    fn white_space_around_a_value_is_not_stored() {
        let line = "{ \"namespace\" : [\"a\"], \"key\":\"k\",\t\"value\" :  [ 1 ]  }\r";
        let record = Record::parse(line.as_bytes()).unwrap().unwrap();
        assert_eq!(&record.value[..], b"[ 1 ]");
    }

    #[test]
    fn only_headers_of_the_known_version_are_skipped() {
        let header = serde_json::to_string(&Header::new()).unwrap();
        assert_eq!(header, r#"{"format":"cubbyhole-export","version":1}"#);
        assert_eq!(Record::parse(header.as_bytes()), Ok(None));
        let more = r#" {"version":1,"made_by":"x","format":"cubbyhole-export"} "#;
        assert_eq!(Record::parse(more.as_bytes()), Ok(None));
        for (line, part) in [
            (r#"{"format":"cubbyhole-export","version":2}"#, "version 2"),
            (r#"{"format":"cubbyhole-export","version":2,"compression":{}}"#, "version 2"),
            (r#"{"format":"cubbyhole-export","version":0}"#, "version 0"),
            (r#"{"format":"cubbyhole-export","version":"2"}"#, "unknown version"),
            (r#"{"format":"cubbyhole-export","version":1.5}"#, "unknown version"),
            (r#"{"format":"cubbyhole-export"}"#, "unknown version"),
            (r#"{"format":"other-export","version":1}"#, "another format"),
        ] {
            match Record::parse(line.as_bytes()) {
                Err(Unreadable::Format(reason)) => assert!(reason.contains(part), "{reason}"),
                other => panic!("{line}: {other:?}"),
            }
        }
        for line in [
            r#"{"format":"png"}"#,
            r#"{"format":7,"version":2}"#,
            r#"{"format":"cubbyhole-export","version":1,"namespace":["a"],"key":"k","value":1}"#,
        ] {
            assert!(refused(line).contains("unknown field `format`"));
        }
    }

    #[test]
    fn null_is_a_value_and_blank_lines_are_skipped() {
        let line = br#"{"namespace":["a",""],"key":"","value":null,"expires_at":null}"#;
        let record = Record::parse(line).unwrap().unwrap();
        assert_eq!((record.namespace.as_str(), &record.value[..]), ("a:", &b"null"[..]));
        for blank in ["", " ", "\r", "\t \r"] {
            assert_eq!(Record::parse(blank.as_bytes()), Ok(None));
        }
    }

    #[test]
    fn output_of_get_json_can_be_imported() {
        let namespace = Namespace::parse("a").unwrap();
        let meta = EntryMeta {
            version: Version::draw(),
            created_at: Timestamp::EPOCH,
            updated_at: Timestamp::EPOCH,
            expires_at: Some(Timestamp::MAX),
            idle_ttl: Some(Duration::from_secs(90 * 60)),
        };
        let line = EntryLine::new(&namespace, "k").with_value(b"1").with_meta(&meta);
        let text = serde_json::to_string(&line.with_bytes(Some(1))).unwrap();
        let record = Record::parse(text.as_bytes()).unwrap().unwrap();
        let ttl = Duration::from_secs(90 * 60);
        assert_eq!(record.expiry, Expiry::IdleUntil { ttl, expires_at: Timestamp::MAX });
    }

    #[test]
    fn idle_ttl_has_the_form_of_entry_metadata() {
        let namespace = Namespace::parse("a").unwrap();
        let mut meta = EntryMeta {
            version: Version::draw(),
            created_at: Timestamp::EPOCH,
            updated_at: Timestamp::EPOCH,
            expires_at: Some(Timestamp::MAX),
            idle_ttl: None,
        };
        let bare = r#"{"namespace":["a"],"key":"k","expires_at":"9999-12-31T23:59:59.999Z"}"#;
        let line =
            serde_json::to_string(&EntryLine::new(&namespace, "k").with_expiry(Expiry::of(&meta)));
        assert_eq!(line.unwrap(), bare);
        let long = 7000 * 365 * 86_400_000;
        for millis in [1, 999, 1_500, 60_000, 5_400_000, 86_400_000, 90_000_000, long + 1] {
            meta.idle_ttl = Some(Duration::from_millis(millis));
            let line =
                EntryLine::new(&namespace, "k").with_value(b"1").with_expiry(Expiry::of(&meta));
            let line = serde_json::to_value(&line).unwrap();
            assert_eq!(line["idle_ttl"], serde_json::to_value(meta).unwrap()["idle_ttl"]);
            let record = Record::parse(line.to_string().as_bytes()).unwrap().unwrap();
            assert_eq!(record.expiry, Expiry::of(&meta));
        }
    }

    #[test]
    fn idle_ttl_without_an_expiry_begins_when_the_line_is_stored() {
        let line = br#"{"namespace":["a"],"key":"k","value":1,"idle_ttl":"1h 30m"}"#;
        let record = Record::parse(line).unwrap().unwrap();
        assert_eq!(record.expiry, Expiry::Idle(Duration::from_secs(90 * 60)));
    }

    #[test]
    fn malformed_line_is_refused_with_a_reason() {
        for (line, reason) in [
            ("{", "EOF"),
            (r#"[["a"],"k",1]"#, "not a JSON object"),
            (r#"{"namespace":["a"],"value":1}"#, "missing field `key`"),
            (r#"{"namespace":["a"],"key":"k"}"#, "neither `value`"),
            (r#"{"namespace":["a"],"key":"k","value":1,"value_base64":""}"#, "both `value`"),
            (r#"{"namespace":["a"],"key":"k","value":1,"value":2}"#, "duplicate field `value`"),
            (
                r#"{"namespace":["a"],"key":"k","value":1,"expire_at":1}"#,
                "unknown field `expire_at`",
            ),
            (r#"{"namespace":["a"],"key":"k","value":1,"expires_at":"soon"}"#, "RFC 3339"),
            (
                r#"{"namespace":["a"],"key":"k","value":1,"idle_ttl":"soon"}"#,
                "`idle_ttl`: expected",
            ),
            (r#"{"namespace":["a"],"key":"k","value":1,"idle_ttl":"0s"}"#, "greater than zero"),
            (r#"{"namespace":["a"],"key":"k","value":1,"idle_ttl":"1M"}"#, "no fixed length"),
            (r#"{"namespace":["a"],"key":"k","value":1,"idle_ttl":"9999999d"}"#, "year 9999"),
            (r#"{"namespace":["a"],"key":"k","value":1,"idle_ttl":60}"#, "invalid type"),
            (r#"{"namespace":["a"],"key":"k","value_base64":"*"}"#, "not base64"),
            (r#"{"namespace":[],"key":"k","value":1}"#, "tenant"),
            (r#"{"namespace":[""],"key":"k","value":1}"#, "tenant is empty"),
            (r#"{"namespace":"a","key":"k","value":1}"#, "invalid type"),
            (r#"{"namespace":["a"],"key":"\u0000","value":1}"#, "NUL"),
            (r#"{"namespace":["a"],"key":"\ud800","value":1}"#, "hex escape"),
            (r#"{"namespace":["a"],"key":"k","value":1} x"#, "trailing"),
            (r#"{"namespace":["a"],"key":"k","value":01}"#, "column"),
        ] {
            let found = refused(line);
            assert!(found.contains(reason), "{line}: {found}");
            assert!(!found.contains("line 1"), "{found}");
        }
        let not_text = Unreadable::Line("not UTF-8 at byte 9".to_owned());
        assert_eq!(Record::parse(b"{\"key\":\"\xff\"}"), Err(not_text));
    }
}
