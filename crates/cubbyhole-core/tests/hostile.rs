//! Hostile input to the types that all backends share: names, timestamps, versions, expiries, JSON and
//! codecs. Nothing panics. Accepted input round-trips. Rejected input gives an error that does not
//! quote it.
//!
//! `PROPTEST_CASES` sets the number of cases of each property.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::HashSet;
use std::fmt::Debug;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cubbyhole::InMemoryStore;
use cubbyhole_core::limits::MAX_NAMESPACE_BYTES;
use cubbyhole_core::{
    Bytes, Codec, Entry, EntryMeta, EntryStore, Error, ErrorKind, ExecutionContext, Expiry,
    GetOptions, JsonCodec, Namespace, NamespacePrefix, Page, PutOptions, ScanOptions, Store,
    TenantId, Timestamp, TypedExt, Version,
};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Represents user input. No message may contain it.
const SECRET: &str = "s3cret";

/// Failures are shrunk and printed, but not saved in the source tree.
fn cases() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// Characters with a special meaning in names, and others, of one to four bytes.
fn character() -> impl Strategy<Value = char> {
    prop_oneof![
        4 => prop::sample::select(vec![':', '\\', 'a', 'b']),
        1 => prop::sample::select(vec![
            '\0', '\n', '\r', '\t', '\u{1b}', '\u{7f}', '\u{85}', '\u{202e}', '\u{2028}', ';', '/',
            '-', '{', '}', '*', '%', 'ä', '\u{301}', '\u{feff}', '\u{10ffff}',
        ]),
        1 => any::<char>(),
    ]
}

fn text(length: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = String> {
    prop::collection::vec(character(), length).prop_map(String::from_iter)
}

/// Mostly short text. Some texts are around the maximum length.
fn rendered() -> impl Strategy<Value = String> {
    let around_the_limit = (text(0..6), 0..12_usize).prop_map(|(tail, off)| {
        let mut long = "a:".repeat(MAX_NAMESPACE_BYTES / 2);
        long.truncate(MAX_NAMESPACE_BYTES - off);
        long + &tail
    });
    prop_oneof![6 => text(0..12), 2 => any::<String>(), 1 => around_the_limit]
}

/// A part of a name, without characters that names must not contain.
fn part() -> impl Strategy<Value = String> {
    text(0..5).prop_map(|text| text.replace('\0', ""))
}

fn parts() -> impl Strategy<Value = (String, Vec<String>)> {
    let tenant = part().prop_filter("not empty", |tenant| !tenant.is_empty());
    (tenant, prop::collection::vec(part(), 0..4))
}

/// Parses a namespace by the documented rules. A second implementation, to compare with.
fn parse_by_the_rules(rendered: &str) -> Option<Vec<String>> {
    if rendered.len() > MAX_NAMESPACE_BYTES || rendered.contains('\0') {
        return None;
    }
    let mut parts = vec![String::new()];
    let mut chars = rendered.chars();
    while let Some(c) = chars.next() {
        match c {
            ':' => parts.push(String::new()),
            '\\' => match chars.next() {
                Some(escaped @ (':' | '\\')) => parts.last_mut()?.push(escaped),
                _ => return None,
            },
            c => parts.last_mut()?.push(c),
        }
    }
    (!parts.first()?.is_empty()).then_some(parts)
}

/// Asserts an `InvalidArgument` whose message is short ASCII text and does not quote the input.
fn assert_refused(error: &Error, input: &str) {
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error:?}");
    let shown = format!("{error} {error:?}");
    assert!(shown.len() < 600 && shown.is_ascii(), "{shown}");
    assert!(!shown.contains(SECRET), "{shown}");
    assert!(input.len() < 24 || !shown.contains(input), "{shown}");
}

/// Asserts that a value round-trips through JSON.
fn round_trips<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let json = serde_json::to_string(value).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&json).unwrap(), value, "{json}");
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_text_parses_as_a_namespace_or_is_refused(text in rendered()) {
        match (Namespace::parse(&text), parse_by_the_rules(&text)) {
            (Ok(ns), Some(parts)) => {
                prop_assert_eq!(ns.as_str(), &text);
                prop_assert_eq!(ns.to_string(), text);
                prop_assert_eq!(ns.tenant().as_str().to_owned(), parts[0].clone());
                prop_assert_eq!(ns.segments().collect::<Vec<_>>(), &parts[1..]);
                prop_assert_eq!(&Namespace::from_parts(&parts[0], &parts[1..]).unwrap(), &ns);
                round_trips(&ns);
                round_trips(&NamespacePrefix::from(&ns));
                round_trips(&ns.tenant());
            }
            (Err(error), None) => assert_refused(&error, &text),
            (found, expected) => prop_assert!(false, "found {:?}, expected {:?}", found, expected),
        }
    }

    #[test]
    fn rejected_names_are_not_quoted(before in text(0..4), after in text(0..4)) {
        // Each reason for a rejection, combined with text that must not be quoted.
        for spoilt in ["\0", "\\x", &"a".repeat(MAX_NAMESPACE_BYTES)] {
            let input = format!("a{before}{SECRET}{spoilt}{after}");
            if let Err(error) = Namespace::parse(&input) {
                assert_refused(&error, &input);
            }
            if let Err(error) = TenantId::new(&input) {
                assert_refused(&error, &input);
            }
            if let Err(error) = Namespace::parse("a").unwrap().with_scope(&input) {
                assert_refused(&error, &input);
            }
        }
    }

    #[test]
    fn names_are_injective_and_ordered_by_text(one in parts(), two in parts()) {
        let name = |(tenant, segments): &(String, Vec<String>)| {
            Namespace::from_parts(tenant, segments).unwrap()
        };
        let (first, second) = (name(&one), name(&two));
        prop_assert_eq!(one == two, first == second);
        prop_assert_eq!(one == two, first.as_str() == second.as_str());
        prop_assert_eq!(first.cmp(&second), first.as_str().as_bytes().cmp(second.as_str().as_bytes()));
        prop_assert_eq!(&Namespace::parse(first.as_str()).unwrap(), &first);
        let (ours, theirs) = (first.tenant(), second.tenant());
        prop_assert_eq!(ours == theirs, one.0 == two.0);
        prop_assert_eq!(ours.cmp(&theirs), ours.as_rendered().cmp(theirs.as_rendered()));
        prop_assert_eq!(HashSet::from([ours, theirs]).len(), if one.0 == two.0 { 1 } else { 2 });
    }

    #[test]
    fn prefix_matches_names_that_start_with_its_parts(
        (tenant, segments) in parts(), more in prop::collection::vec(part(), 0..3),
        other in parts(), glued in part(),
    ) {
        let whole: Vec<&String> = segments.iter().chain(&more).collect();
        let prefix = NamespacePrefix::from(Namespace::from_parts(&tenant, &segments).unwrap());
        prop_assert!(prefix.matches(&Namespace::from_parts(&tenant, &whole).unwrap()));
        let begins = |tenant_: &str, segments_: &[String]| {
            tenant_ == tenant && segments_.starts_with(&segments)
        };
        let named = Namespace::from_parts(&other.0, &other.1).unwrap();
        prop_assert_eq!(prefix.matches(&named), begins(&other.0, &other.1));
        // The last part with a suffix is a different part.
        if let (Ok(text), false) = (Namespace::parse(&format!("{}{glued}", prefix.as_str())), glued.is_empty()) {
            prop_assert_eq!(prefix.matches(&text), glued.starts_with(':'));
        }
    }
}

/// JSON of any shape that contains names, timestamps and versions.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text(0..8).prop_map(Value::from),
        instant_text().prop_map(Value::from),
        version_text().prop_map(Value::from),
    ];
    let field = prop::sample::select(vec![
        "version",
        "created_at",
        "updated_at",
        "expires_at",
        "value",
        "items",
        "next",
        "other",
    ]);
    leaf.prop_recursive(4, 24, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((field.clone(), inner), 0..5).prop_map(|fields| {
                Value::Object(fields.into_iter().map(|(name, v)| (name.to_owned(), v)).collect())
            }),
        ]
    })
}

/// Text that resembles a timestamp.
fn instant_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{0,12})?(Z|z|[+-][0-9]{2}:[0-9]{2})?",
        (0..4_000_u32, 0..14_u32, 0..33_u32, 0..25_u32, -25..26_i32).prop_map(
            |(y, m, d, h, off)| {
                format!("{:04}-{m:02}-{d:02}T{h:02}:59:60.9999999Z{off:+03}:00", 8_000 + y)
            }
        ),
        Just("9999-12-31T23:59:59.9999999-23:59".to_owned()),
        Just("0000-01-01T00:00:00+23:59".to_owned()),
        Just("1969-12-31T23:59:59.999999999Z".to_owned()),
        text(0..30),
    ]
}

/// Text that resembles a version.
fn version_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<[u8; 16]>().prop_map(|bytes| Version::from_bytes(bytes).to_string()),
        "[{(]?[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{11,13}[})]?",
        "(urn:uuid:)?[0-9a-f-]{30,40}",
        text(0..40),
    ]
}

/// Asserts that JSON either fails to parse or round-trips.
fn parses_or_refuses<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &Value) {
    if let Ok(read) = serde_json::from_value::<T>(value.clone()) {
        round_trips(&read);
    }
    // Text and values use different deserializers, which must agree.
    let (text, parsed) = (value.to_string(), serde_json::from_value::<T>(value.clone()).is_ok());
    assert_eq!(serde_json::from_str::<T>(&text).is_ok(), parsed, "{text}");
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_json_parses_as_our_types_or_is_refused(value in json()) {
        parses_or_refuses::<TenantId>(&value);
        parses_or_refuses::<Namespace>(&value);
        parses_or_refuses::<NamespacePrefix>(&value);
        parses_or_refuses::<Version>(&value);
        parses_or_refuses::<Timestamp>(&value);
        parses_or_refuses::<EntryMeta>(&value);
        parses_or_refuses::<Entry<Value>>(&value);
        parses_or_refuses::<Page<Namespace>>(&value);
    }

    #[test]
    fn invalid_namespace_json_is_refused_with_the_reason(
        parts in prop::collection::vec(text(0..6), 0..5),
    ) {
        let read = serde_json::from_value::<Namespace>(Value::from(parts.clone()));
        let good = parts.first().is_some_and(|tenant| !tenant.is_empty())
            && parts.iter().all(|part| !part.contains('\0'));
        prop_assert_eq!(read.is_ok(), good);
        if let Ok(ns) = read {
            let [tenant, segments @ ..] = &parts[..] else { return Ok(()) };
            prop_assert_eq!(ns, Namespace::from_parts(tenant, segments).unwrap());
        }
    }

    #[test]
    fn any_text_round_trips_as_a_timestamp_or_is_refused(text in instant_text()) {
        match text.parse::<Timestamp>() {
            Ok(instant) => {
                prop_assert!(instant <= Timestamp::MAX);
                prop_assert_eq!(instant.to_string().parse::<Timestamp>().unwrap(), instant);
                prop_assert_eq!(Timestamp::from_millis(instant.as_millis()).unwrap(), instant);
                round_trips(&instant);
            }
            Err(error) => assert_refused(&error, &text),
        }
    }

    #[test]
    fn any_text_parses_as_a_version_or_is_refused(text in version_text()) {
        match text.parse::<Version>() {
            Ok(version) => {
                prop_assert_eq!(version.to_string().parse::<Version>().unwrap(), version);
                prop_assert_eq!(Version::from_bytes(version.to_bytes()), version);
                round_trips(&version);
            }
            Err(error) => prop_assert_eq!(error.kind(), ErrorKind::InvalidArgument),
        }
    }

    #[test]
    fn every_millisecond_up_to_the_maximum_is_a_timestamp(
        millis in prop_oneof![any::<u64>(), 0..=Timestamp::MAX.as_millis()],
    ) {
        let instant = Timestamp::from_millis(millis);
        prop_assert_eq!(instant.is_ok(), millis <= Timestamp::MAX.as_millis());
        if let Ok(instant) = instant {
            prop_assert_eq!(instant.to_string().parse::<Timestamp>().unwrap(), instant);
            prop_assert_eq!(Timestamp::try_from(SystemTime::from(instant)).unwrap(), instant);
        }
        // The system clock can show any value of its range.
        let shown = UNIX_EPOCH.checked_add(Duration::from_millis(millis));
        if let Some(read) = shown.map(Timestamp::try_from) {
            prop_assert_eq!(read.is_ok(), millis <= Timestamp::MAX.as_millis());
        }
        let before = UNIX_EPOCH.checked_sub(Duration::from_millis(millis.max(1)));
        prop_assert!(before.is_none_or(|before| Timestamp::try_from(before).is_err()));
    }
}

/// Durations at relevant boundaries: zero, less than a millisecond, and the limits of `u64`.
fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::MAX),
        (0..3_000_000_u64).prop_map(Duration::from_nanos),
        (u64::MAX - 3..=u64::MAX).prop_map(Duration::from_millis),
        (0..1_000_000_u64).prop_map(|less| {
            Duration::from_millis(Timestamp::MAX.as_millis())
                .saturating_sub(Duration::from_nanos(less))
        }),
        (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
    ]
}

/// The expiry that the contract defines for a TTL at `now`, in numbers that cannot overflow.
fn expected_end(now: Timestamp, ttl: Duration) -> Option<u128> {
    let end = u128::from(now.as_millis()) + ttl.as_nanos().div_ceil(1_000_000);
    (!ttl.is_zero() && end <= u128::from(Timestamp::MAX.as_millis())).then_some(end)
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_ttl_ends_as_defined_or_is_refused(
        ttl in duration(), now in 0..=Timestamp::MAX.as_millis(),
    ) {
        let now = Timestamp::from_millis(now).unwrap();
        match (Expiry::After(ttl).resolve(now), expected_end(now, ttl)) {
            (Ok(Some(end)), Some(expected)) => prop_assert_eq!(u128::from(end.as_millis()), expected),
            (Err(error), None) => prop_assert_eq!(error.kind(), ErrorKind::InvalidArgument),
            (found, expected) => prop_assert!(false, "found {:?}, expected {:?}", found, expected),
        }
        let options = PutOptions::new().with_ttl(ttl);
        let fits = expected_end(Timestamp::EPOCH, ttl).is_some();
        prop_assert_eq!(Expiry::After(ttl).check().is_ok(), fits);
        prop_assert_eq!(options.ttl_only().is_ok(), fits);
        let slide = GetOptions::new().with_extended_ttl(ttl);
        let meta = EntryMeta {
            version: Version::draw(),
            created_at: Timestamp::EPOCH,
            updated_at: Timestamp::EPOCH,
            expires_at: Some(Timestamp::EPOCH),
            idle_ttl: None,
        };
        prop_assert_eq!(slide.extend(now, &meta).is_ok(), expected_end(now, ttl).is_some());
        let since = Timestamp::MAX.saturating_since(now) + now.saturating_since(Timestamp::MAX);
        prop_assert_eq!(since.as_millis(), u128::from(Timestamp::MAX.as_millis() - now.as_millis()));
    }

    #[test]
    fn any_timeout_creates_a_context_without_panic(timeout in duration()) {
        let ctx = ExecutionContext::new().with_timeout(timeout);
        prop_assert!(ctx.remaining().is_none_or(|left| left <= timeout));
        prop_assert_eq!(timeout.is_zero(), ctx.check().is_err() && timeout < Duration::from_nanos(1));
    }

    #[test]
    fn in_memory_store_accepts_or_refuses_any_ttl(ttl in duration(), text in text(0..6)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (store, ctx) = (InMemoryStore::<String>::new(), ExecutionContext::new());
            let ns = Namespace::parse("acme").unwrap();
            let options = PutOptions::new().with_ttl(ttl);
            let put = store.put_with_options(&ctx, &ns, &text, "v".to_owned(), options).await;
            match put {
                Ok(()) => {
                    let page = store.scan(&ctx, &ns, ScanOptions::new()).await.unwrap();
                    assert!(page.items.iter().all(|item| item.key == text && item.meta.expires_at.is_some()));
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
                    assert!(ttl.is_zero() || ttl.as_secs() > 200_000_000_000 || text.contains('\0'));
                    assert_eq!(store.list(&ctx, &ns, None).await.unwrap(), Vec::<String>::new());
                }
            }
        });
    }
}

/// Values that JSON can represent.
fn deep_value() -> impl Strategy<Value = Value> {
    (json(), 0..300_usize, any::<bool>()).prop_map(|(leaf, depth, as_object)| {
        (0..depth).fold(leaf, |inner, _| match as_object {
            true => Value::Object([("k".to_owned(), inner)].into_iter().collect()),
            false => Value::Array(vec![inner]),
        })
    })
}

/// Bytes that are JSON, resemble JSON, or are arbitrary.
fn json_bytes() -> impl Strategy<Value = Vec<u8>> {
    let mutated = (json(), any::<prop::sample::Index>(), any::<u8>(), 0..4_u8).prop_map(
        |(value, at, byte, how)| {
            let mut bytes = value.to_string().into_bytes();
            let at = at.index(bytes.len());
            match how {
                0 => bytes.truncate(at),
                1 => bytes[at] = byte,
                2 => bytes.insert(at, byte),
                _ => {}
            }
            bytes
        },
    );
    prop_oneof![
        3 => mutated,
        1 => prop::collection::vec(any::<u8>(), 0..64),
        1 => (0..100_000_usize, prop::sample::select(vec!["[", "{\"a\":", "[[]", "\"", "-", "1e"]))
            .prop_map(|(count, text)| text.repeat(count % 20_000).into_bytes()),
    ]
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn values_that_the_json_codec_accepts_round_trip(value in deep_value()) {
        match JsonCodec.encode(&value) {
            Ok(bytes) => {
                let back: Value = JsonCodec.decode(&bytes).unwrap();
                prop_assert_eq!(back, value);
            }
            Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Codec),
        }
    }

    #[test]
    fn undecodable_bytes_are_a_codec_error_without_quotes(bytes in json_bytes()) {
        fn decode<V: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &Bytes) {
            match Codec::<V>::decode(&JsonCodec, bytes) {
                Ok(value) => drop(JsonCodec.encode(&value)),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Codec);
                    let shown = format!("{error} {error:?}");
                    assert!(shown.is_ascii() && shown.len() < 400, "{shown}");
                }
            }
        }
        let bytes = Bytes::from(bytes);
        decode::<Value>(&bytes);
        decode::<String>(&bytes);
        decode::<Vec<u32>>(&bytes);
        decode::<Option<Entry<Value>>>(&bytes);
        decode::<(f64, i128)>(&bytes);
    }

    #[test]
    fn undecodable_value_does_not_hide_others_in_a_listing(
        values in prop::collection::vec(json_bytes(), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let raw = std::sync::Arc::new(InMemoryStore::<Bytes>::new());
            let typed = std::sync::Arc::clone(&raw).typed::<Vec<u32>>();
            let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme").unwrap());
            typed.put(&ctx, &ns, "good", vec![7]).await.unwrap();
            for (number, value) in values.iter().enumerate() {
                raw.put(&ctx, &ns, &format!("k{number}"), value.clone().into()).await.unwrap();
            }
            let page = typed.scan(&ctx, &ns, ScanOptions::new()).await.unwrap();
            assert_eq!(page.items.len(), values.len() + 1);
            for item in &page.items {
                let readable = item.value.as_ref().unwrap().as_ref();
                let one = typed.get(&ctx, &ns, &item.key).await;
                match (readable, one) {
                    (Ok(listed), Ok(read)) => assert_eq!(Some(listed), read.as_ref()),
                    (Err(listed), Err(read)) => {
                        assert_eq!((listed.kind(), read.kind()), (ErrorKind::Codec, ErrorKind::Codec));
                    }
                    other => panic!("{}: {other:?}", item.key),
                }
            }
            assert_eq!(page.items[0].value.as_ref().unwrap().as_ref().unwrap(), &[7]);
            assert_eq!(typed.list(&ctx, &ns, None).await.unwrap().len(), values.len() + 1);
        });
    }
}

/// Deep enough to overflow any stack of a recursive parser.
#[test]
fn json_nested_a_million_levels_deep_is_a_codec_error() {
    for open in ["[", "{\"a\":", "[{\"a\":["] {
        let bytes = Bytes::from(open.repeat(1_000_000));
        let decoded: Result<Value, Error> = JsonCodec.decode(&bytes);
        assert_eq!(decoded.unwrap_err().kind(), ErrorKind::Codec);
        assert!(serde_json::from_slice::<Namespace>(&bytes).is_err());
    }
}
