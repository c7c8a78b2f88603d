//! The format of the four tables: their keys and values.
//!
//! | table | key | value |
//! |---|---|---|
//! | `cubbyhole_meta` | `format` | u32, 1 to [`FORMAT`] |
//! | | `clock` | u64, the high-water mark in milliseconds |
//! | | `salt` | 8 bytes, the salt of the log (`wal/log.rs`) |
//! | `entries` | location | record |
//! | `values` | location | a value that is too long for the record |
//! | `expiry` | instant in milliseconds as big-endian u64, then location | nothing |
//!
//! A location is the rendered namespace, NUL and the key. No name contains NUL, so the locations of
//! one namespace are adjacent and ordered by key, and the namespaces are ordered too.
//!
//! A record is a header of 41 bytes, or of 49 with an idle TTL, followed by the value, or by 8 bytes
//! of its length if the value is in `values`. So listings and `touch` never read or copy long values.
//! Numbers are little-endian.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | 0 or 2 if the value follows, 1 or 3 if its length does; 2 and 3 have an idle TTL |
//! | 16 | version |
//! | 8 | time of the first write, in milliseconds |
//! | 8 | time of the last write |
//! | 8 | instant of expiry, or 2^64 - 1 |
//! | 8 | only in kinds 2 and 3: idle TTL in milliseconds |
//!
//! Format 2 adds the kinds 2 and 3. Records without an idle TTL are the same in both formats. A file
//! of format 1 gets format 2 in the transaction that writes its first record of these kinds
//! (`Tables::put_record`).

use std::time::Duration;

use cubbyhole_core::{EntryMeta, Error, Namespace, NamespacePrefix, Result, Timestamp, Version};
use redb::TableDefinition;

/// The newest format version that this build reads and writes, and the version of new files. It also
/// reads and writes all earlier ones.
pub(crate) const FORMAT: u32 = 2;

pub(crate) type ByteTable = TableDefinition<'static, &'static [u8], &'static [u8]>;

pub(crate) const META: TableDefinition<'static, &str, &[u8]> =
    TableDefinition::new("cubbyhole_meta");
pub(crate) const ENTRIES: ByteTable = TableDefinition::new("entries");
pub(crate) const VALUES: ByteTable = TableDefinition::new("values");
pub(crate) const EXPIRY: TableDefinition<'static, &[u8], ()> = TableDefinition::new("expiry");

pub(crate) const META_FORMAT: &str = "format";
pub(crate) const META_CLOCK: &str = "clock";
pub(crate) const META_SALT: &str = "salt";

/// The longest value that is stored in the record. Four such records fit into a page of redb.
pub(crate) const MAX_INLINE_BYTES: usize = 900;

const INLINE: u8 = 0;
const SEPARATE: u8 = 1;
/// Added to the kind of a record with an idle TTL.
const IDLE: u8 = 2;
const HEADER_BYTES: usize = 41;
const IDLE_TTL_BYTES: usize = 8;
const NEVER: u64 = u64::MAX;

/// A decoded record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryRecord<'a> {
    pub(crate) meta: EntryMeta,
    pub(crate) value: StoredValue<'a>,
}

/// The value of a record, or its length if it is stored separately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoredValue<'a> {
    Inline(&'a [u8]),
    /// The value is in `values` and has this length.
    Separate(u64),
}

impl StoredValue<'_> {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Separate(length) => *length,
        }
    }
}

/// Decodes the format version of the file.
pub(crate) fn format_number(stored: Option<&[u8]>) -> Result<u32> {
    let bytes = stored.and_then(|bytes| bytes.try_into().ok());
    let format = bytes.map(u32::from_le_bytes).filter(|format| *format > 0);
    format.ok_or_else(|| Error::corrupt("the format number of the file is damaged"))
}

pub(crate) fn encode(meta: &EntryMeta, value: StoredValue<'_>) -> Vec<u8> {
    let (kind, tail): (u8, &[u8]) = match value {
        StoredValue::Inline(bytes) => (INLINE, bytes),
        StoredValue::Separate(length) => (SEPARATE, &length.to_le_bytes()),
    };
    let idle_ttl = meta.idle_ttl.and_then(|ttl| u64::try_from(ttl.as_millis()).ok());
    let mut record = Vec::with_capacity(HEADER_BYTES + IDLE_TTL_BYTES + tail.len());
    record.push(if idle_ttl.is_some() { kind + IDLE } else { kind });
    record.extend_from_slice(&meta.version.to_bytes());
    record.extend_from_slice(&meta.created_at.as_millis().to_le_bytes());
    record.extend_from_slice(&meta.updated_at.as_millis().to_le_bytes());
    let expires_at = meta.expires_at.map_or(NEVER, Timestamp::as_millis);
    record.extend_from_slice(&expires_at.to_le_bytes());
    if let Some(millis) = idle_ttl {
        record.extend_from_slice(&millis.to_le_bytes());
    }
    record.extend_from_slice(tail);
    record
}

pub(crate) fn decode(record: &[u8]) -> Result<EntryRecord<'_>> {
    let damaged = || Error::corrupt("an entry in the file is damaged; write it again or delete it");
    let (kind, rest) = record.split_first().ok_or_else(damaged)?;
    let (version, rest) = rest.split_first_chunk::<16>().ok_or_else(damaged)?;
    let (created_at, rest) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
    let (updated_at, rest) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
    let (expires_at, rest) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
    let instant = |bytes: &[u8; 8]| Timestamp::from_millis(u64::from_le_bytes(*bytes));
    let expires_at = match u64::from_le_bytes(*expires_at) {
        NEVER => None,
        millis => Some(Timestamp::from_millis(millis).map_err(|_| damaged())?),
    };
    let (idle_ttl, rest) = if kind & IDLE == 0 {
        (None, rest)
    } else {
        let (millis, rest) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
        let millis = u64::from_le_bytes(*millis);
        if millis == 0 || millis > Timestamp::MAX.as_millis() || expires_at.is_none() {
            return Err(damaged());
        }
        (Some(Duration::from_millis(millis)), rest)
    };
    let value = match kind & !IDLE {
        INLINE => StoredValue::Inline(rest),
        SEPARATE => {
            StoredValue::Separate(u64::from_le_bytes(rest.try_into().map_err(|_| damaged())?))
        }
        _ => return Err(damaged()),
    };
    let meta = EntryMeta {
        version: Version::from_bytes(*version),
        created_at: instant(created_at).map_err(|_| damaged())?,
        updated_at: instant(updated_at).map_err(|_| damaged())?,
        expires_at,
        idle_ttl,
    };
    Ok(EntryRecord { meta, value })
}

/// Encodes the location of a key.
pub(crate) fn location(ns: &Namespace, key: &str) -> Vec<u8> {
    let mut location = Vec::with_capacity(ns.as_str().len() + 1 + key.len());
    location.extend_from_slice(ns.as_str().as_bytes());
    location.push(0);
    location.extend_from_slice(key.as_bytes());
    location
}

/// Splits a location into the rendered namespace and the key.
pub(crate) fn split_location(location: &[u8]) -> Result<(&str, &str)> {
    let damaged = || Error::corrupt("a name in the file is damaged");
    let at = location.iter().position(|byte| *byte == 0).ok_or_else(damaged)?;
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| damaged());
    Ok((text(&location[..at])?, text(&location[at + 1..])?))
}

/// Parses the namespace of a location.
pub(crate) fn namespace(rendered: &str) -> Result<Namespace> {
    Namespace::parse(rendered).map_err(|_| Error::corrupt("a name in the file is damaged"))
}

/// Encodes a key of the expiry index.
pub(crate) fn expiry_key(expires_at: Timestamp, location: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(8 + location.len());
    key.extend_from_slice(&expires_at.as_millis().to_be_bytes());
    key.extend_from_slice(location);
    key
}

/// Splits a key of the expiry index into the instant and the location.
pub(crate) fn split_expiry_key(key: &[u8]) -> Result<(Timestamp, &[u8])> {
    let damaged = || Error::corrupt("the expiry index of the file is damaged");
    let (millis, location) = key.split_first_chunk::<8>().ok_or_else(damaged)?;
    let instant = Timestamp::from_millis(u64::from_be_bytes(*millis)).map_err(|_| damaged())?;
    Ok((instant, location))
}

/// The two ranges of locations under a prefix: the namespace itself and its descendants. Between
/// them are other namespaces: `a-b` sorts between `a` and `a:`.
pub(crate) fn prefix_ranges(prefix: &NamespacePrefix) -> [(Vec<u8>, Vec<u8>); 2] {
    let text = prefix.as_str();
    let with = |tail: &str| [text.as_bytes(), tail.as_bytes()].concat();
    [(with("\0"), with("\u{1}")), (with(":"), with(";"))]
}

/// The range of locations in a namespace whose keys start with `key_prefix`.
pub(crate) fn key_range(ns: &Namespace, key_prefix: &str) -> (Vec<u8>, Vec<u8>) {
    let start = location(ns, key_prefix);
    let mut end = start.clone();
    // The last byte is NUL or belongs to UTF-8 text, so it is not 255.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    (start, end)
}

/// The smallest location after all keys of a namespace.
pub(crate) fn past_namespace(rendered: &str) -> Vec<u8> {
    [rendered.as_bytes(), &[1]].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Failures are printed after shrinking; no regression file is written.
    fn cases() -> ProptestConfig {
        ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
    }

    fn idle_millis() -> impl Strategy<Value = u64> {
        prop_oneof![Just(1), Just(Timestamp::MAX.as_millis()), 1..=Timestamp::MAX.as_millis()]
    }

    fn any_meta() -> impl Strategy<Value = EntryMeta> {
        let instant =
            || (0..=Timestamp::MAX.as_millis()).prop_map(|at| Timestamp::from_millis(at).unwrap());
        let expiry = prop::option::of((instant(), prop::option::of(idle_millis())));
        (any::<[u8; 16]>(), instant(), instant(), expiry).prop_map(
            |(version, created_at, updated_at, expiry)| EntryMeta {
                version: Version::from_bytes(version),
                created_at,
                updated_at,
                expires_at: expiry.map(|(instant, _)| instant),
                idle_ttl: expiry.and_then(|(_, millis)| millis).map(Duration::from_millis),
            },
        )
    }

    /// Encoded bytes, unchanged or with some of them changed, removed or added.
    fn altered(whole: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
        let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
        let more = prop::collection::vec(any::<u8>(), 0..10);
        (whole, changes, any::<prop::sample::Index>(), more, 0..4_u8).prop_map(
            |(mut bytes, changes, length, more, how)| {
                for (at, byte) in changes {
                    if let Some(target) = bytes.get_mut(at.index(HEADER_BYTES + IDLE_TTL_BYTES)) {
                        *target = byte;
                    }
                }
                match how {
                    0 => bytes.truncate(length.index(bytes.len() + 1)),
                    1 => bytes.extend(more),
                    _ => {}
                }
                bytes
            },
        )
    }

    fn any_record() -> impl Strategy<Value = Vec<u8>> {
        let value = prop::collection::vec(any::<u8>(), 0..20);
        (any_meta(), value, prop::option::of(any::<u64>())).prop_map(|(meta, value, separate)| {
            encode(&meta, separate.map_or(StoredValue::Inline(&value), StoredValue::Separate))
        })
    }

    /// The error is `Corrupt` and its message does not contain the bytes.
    fn assert_corrupt(error: &Error) {
        assert_eq!(error.kind(), cubbyhole_core::ErrorKind::Corrupt, "{error:?}");
        assert!(error.message().is_ascii() && error.message().len() < 100, "{error:?}");
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn arbitrary_bytes_decode_to_their_only_record_or_corrupt(
            bytes in prop_oneof![altered(any_record()), prop::collection::vec(any::<u8>(), 0..90)],
        ) {
            match decode(&bytes) {
                Ok(record) => prop_assert_eq!(encode(&record.meta, record.value), bytes),
                Err(error) => assert_corrupt(&error),
            }
        }

        #[test]
        fn every_record_round_trips(
            meta in any_meta(),
            value in prop::collection::vec(any::<u8>(), 0..MAX_INLINE_BYTES + 1),
            length in any::<u64>(),
        ) {
            for value in [StoredValue::Inline(&value), StoredValue::Separate(length)] {
                let bytes = encode(&meta, value);
                prop_assert_eq!(decode(&bytes).unwrap(), EntryRecord { meta, value });
                prop_assert_eq!(decode(&bytes).unwrap().value.len(), value.len());
            }
        }

        #[test]
        fn arbitrary_bytes_split_as_a_location_or_corrupt(
            bytes in prop_oneof![
                prop::collection::vec(prop_oneof![Just(0), Just(b':'), Just(b'\\'), Just(b'a'), any::<u8>()], 0..12),
                "[a:\\\\ä]{0,4}\0\\PC{0,4}".prop_map(String::into_bytes),
            ],
        ) {
            match split_location(&bytes) {
                Ok((rendered, key)) => {
                    prop_assert_eq!([rendered.as_bytes(), key.as_bytes()].join(&0), &bytes[..]);
                    match namespace(rendered) {
                        Ok(ns) => prop_assert_eq!(location(&ns, key), &bytes[..]),
                        Err(error) => assert_corrupt(&error),
                    }
                }
                Err(error) => assert_corrupt(&error),
            }
            match split_expiry_key(&bytes) {
                Ok((instant, rest)) => prop_assert_eq!(expiry_key(instant, rest), bytes),
                Err(error) => assert_corrupt(&error),
            }
        }

        #[test]
        fn location_and_expiry_key_round_trip(
            tenant in "[^\0]{1,4}", segments in prop::collection::vec("[^\0]{0,3}", 0..3),
            key in "[^\0]{0,6}", millis in 0..=Timestamp::MAX.as_millis(),
        ) {
            let ns = Namespace::from_parts(tenant, segments).unwrap();
            let location = location(&ns, &key);
            let (rendered, read) = split_location(&location).unwrap();
            prop_assert_eq!((namespace(rendered).unwrap(), read), (ns, key.as_str()));
            let instant = Timestamp::from_millis(millis).unwrap();
            let indexed = expiry_key(instant, &location);
            prop_assert_eq!(split_expiry_key(&indexed).unwrap(), (instant, &location[..]));
        }
    }

    fn meta(expires_at: Option<Timestamp>) -> EntryMeta {
        EntryMeta {
            version: Version::draw(),
            created_at: Timestamp::from_millis(1).unwrap(),
            updated_at: Timestamp::from_millis(2).unwrap(),
            expires_at,
            idle_ttl: None,
        }
    }

    #[test]
    fn edge_case_records_round_trip() {
        for expires_at in [None, Some(Timestamp::EPOCH), Some(Timestamp::MAX)] {
            for value in [
                StoredValue::Inline(b""),
                StoredValue::Inline(b"\0x"),
                StoredValue::Separate(1 << 40),
            ] {
                let meta = meta(expires_at);
                let bytes = encode(&meta, value);
                assert_eq!(decode(&bytes).unwrap(), EntryRecord { meta, value });
            }
        }
    }

    fn idle_meta() -> EntryMeta {
        EntryMeta {
            idle_ttl: Some(Duration::from_millis(1500)),
            ..meta(Some(Timestamp::from_millis(3).unwrap()))
        }
    }

    #[test]
    fn record_without_idle_ttl_has_the_bytes_of_format_1() {
        let value = StoredValue::Inline(b"v");
        let (idle, plain) = (idle_meta(), EntryMeta { idle_ttl: None, ..idle_meta() });
        let mut format_1 = vec![0];
        format_1.extend(plain.version.to_bytes());
        for millis in [1_u64, 2, 3] {
            format_1.extend(millis.to_le_bytes());
        }
        format_1.push(b'v');
        let bytes = encode(&plain, value);
        assert_eq!(bytes[1..17], plain.version.to_bytes());
        assert_eq!(bytes, format_1);
        let long = encode(&plain, StoredValue::Separate(7));
        assert_eq!(
            (long[0], &long[1..41], &long[41..]),
            (1, &bytes[1..41], &[7, 0, 0, 0, 0, 0, 0, 0][..])
        );

        let with_idle = encode(&idle, value);
        let ttl = 1500_u64.to_le_bytes();
        let version = idle.version.to_bytes();
        assert_eq!(with_idle, [&[2][..], &version[..], &bytes[17..41], &ttl[..], b"v"].concat());
        assert_eq!(encode(&idle, StoredValue::Separate(7))[0], 3);
    }

    #[test]
    fn idle_record_with_impossible_fields_is_corrupt() {
        let whole = encode(&idle_meta(), StoredValue::Inline(b"v"));
        assert!(decode(&whole).is_ok());
        for length in 0..HEADER_BYTES + IDLE_TTL_BYTES {
            assert!(decode(&whole[..length]).is_err(), "{length} bytes");
        }
        let with = |range: std::ops::Range<usize>, bytes: [u8; 8]| {
            let mut changed = whole.clone();
            changed[range].copy_from_slice(&bytes);
            changed
        };
        assert!(decode(&with(33..41, [0xff; 8])).is_err(), "an idle TTL without an expiry");
        assert!(decode(&with(41..49, [0; 8])).is_err(), "an idle TTL of zero");
        let late = (Timestamp::MAX.as_millis() + 1).to_le_bytes();
        assert!(decode(&with(41..49, late)).is_err(), "an idle TTL past the year 9999");
    }

    #[test]
    fn key_range_ends_right_after_the_prefix() {
        let ns = Namespace::parse("a").unwrap();
        for prefix in ["", "k", "k\u{7f}", "k\u{80}", "\u{7ff}", "\u{ffff}", "\u{10ffff}"] {
            let (start, end) = key_range(&ns, prefix);
            assert!(start < end, "{prefix:?}");
            for tail in ["", "\u{1}", "z", "\u{10ffff}\u{10ffff}"] {
                let within = location(&ns, &format!("{prefix}{tail}"));
                assert!(start <= within && within < end, "{prefix:?} {tail:?}");
            }
        }
        let below = location(&Namespace::parse("a:b").unwrap(), "");
        assert!(key_range(&ns, "").1 <= below);
        assert!(key_range(&ns, "k").1 <= location(&ns, "l"));
        assert!(key_range(&ns, "l").0 > location(&ns, "k\u{10ffff}"));
    }

    #[test]
    fn damaged_header_is_an_error_without_panic() {
        let whole = encode(&meta(None), StoredValue::Separate(7));
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_err(), "{length} bytes");
        }
        for kind in [4, 5, 8, 9, 255] {
            let mut unknown = whole.clone();
            unknown[0] = kind;
            assert!(decode(&unknown).is_err(), "{kind}");
        }
        let mut late = whole;
        late[17..25].fill(0xff);
        assert!(decode(&late).is_err());
    }

    #[test]
    fn locations_sort_by_namespace_then_key() {
        let ns = |text| Namespace::parse(text).unwrap();
        let mut sorted = ["a", "a-b", "a:b", "a:b:c", "a;", "ab"]
            .map(|text| location(&ns(text), "\u{10ffff}"))
            .to_vec();
        let ordered = sorted.clone();
        sorted.sort();
        assert_eq!(sorted, ordered);
        assert_eq!(split_location(&location(&ns(r"a\:b"), "k:v")).unwrap(), (r"a\:b", "k:v"));
    }
}
