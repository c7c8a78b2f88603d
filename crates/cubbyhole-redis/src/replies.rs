//! What the servers answer, as the contract's types.

use bytes::Bytes;
use cubbyhole_core::{Entry, EntryMeta, Error, Result, Timestamp, Version};
use redis::Value;

use crate::keys::bound;

/// The meta data of an entry: version (16 bytes), `created_at`, `updated_at` and `expires_at` (6
/// each, milliseconds since 1970, 0 for never), length of the value (4); big-endian.
const META_BYTES: usize = 38;

/// What stands in the hash of meta data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) meta: EntryMeta,
    pub(crate) value_bytes: u64,
}

pub(crate) fn stored(bytes: &[u8]) -> Result<Stored> {
    let bytes: &[u8; META_BYTES] = bytes.try_into().map_err(|_| bad_meta())?;
    let (version, rest) = bytes.split_first_chunk().ok_or_else(bad_meta)?;
    let (instants, length) = rest.split_at(18);
    let expires_at = number(&instants[12..]);
    Ok(Stored {
        meta: EntryMeta {
            version: Version::from_bytes(*version),
            created_at: instant(number(&instants[..6]))?,
            updated_at: instant(number(&instants[6..12]))?,
            expires_at: if expires_at == 0 { None } else { Some(instant(expires_at)?) },
        },
        value_bytes: number(length),
    })
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn instant(millis: u64) -> Result<Timestamp> {
    Timestamp::from_millis(millis).map_err(|_| bad_meta())
}

fn bad_meta() -> Error {
    Error::corrupt("the meta data of an entry cannot be read: another program wrote it")
}

/// What a server answers that this build does not understand.
pub(crate) fn unexpected() -> Error {
    Error::internal("Redis answered what this build does not understand; run `cubbyhole doctor`")
}

pub(crate) fn integer(value: &Value) -> Result<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).map_err(|_| unexpected()),
        _ => Err(unexpected()),
    }
}

pub(crate) fn array(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(items) => Ok(items),
        _ => Err(unexpected()),
    }
}

pub(crate) fn integers<const N: usize>(value: Value) -> Result<[u64; N]> {
    let numbers: Vec<u64> = array(value)?.iter().map(integer).collect::<Result<_>>()?;
    numbers.try_into().map_err(|_| unexpected())
}

/// What `TIME` answers: seconds and microseconds.
pub(crate) fn time(value: Value) -> Result<Timestamp> {
    let mut numbers = array(value)?.into_iter().map(text);
    let mut number = || -> Result<u64> {
        let number = numbers.next().ok_or_else(unexpected)??;
        number.parse().map_err(|_| unexpected())
    };
    let (seconds, micros) = (number()?, number()?);
    let millis = seconds.checked_mul(1000).and_then(|millis| millis.checked_add(micros / 1000));
    Timestamp::from_millis(millis.unwrap_or(u64::MAX)).map_err(|_| unexpected())
}

/// Members of a sorted set from a bound on stand in order while all have one score. Those that
/// another program gave another one would have whoever goes from page to page go round in circles.
pub(crate) fn in_order<'a>(
    from: &[u8],
    members: impl IntoIterator<Item = &'a Value>,
) -> Result<()> {
    let mut last: Option<&[u8]> = None;
    for member in members {
        let Value::BulkString(member) = member else { continue };
        if !bound::admits(from, member) || last.is_some_and(|last| last >= member.as_slice()) {
            return Err(Error::corrupt("the keys are not in order: another program wrote one"));
        }
        last = Some(member);
    }
    Ok(())
}

/// Where a range goes on lies past where it began.
pub(crate) fn goes_on(from: &[u8], next: Option<&[u8]>) -> Result<()> {
    match next {
        Some(next) if next == from || !bound::admits(from, next.get(1..).unwrap_or_default()) => {
            Err(Error::corrupt("the keys are not in order: another program wrote one"))
        }
        _ => Ok(()),
    }
}

/// A string that may be missing.
pub(crate) fn bytes(value: Value) -> Result<Option<Vec<u8>>> {
    match value {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes)),
        _ => Err(unexpected()),
    }
}

pub(crate) fn text(value: Value) -> Result<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).map_err(|error| {
            Error::corrupt("a name in the store is not UTF-8: another program wrote it")
                .with_source(error)
        }),
        Value::SimpleString(text) => Ok(text),
        Value::Int(number) => Ok(number.to_string()),
        _ => Err(unexpected()),
    }
}

/// Members of a set as they are: names, unless another program wrote them.
pub(crate) fn members(value: Value) -> Result<Vec<Vec<u8>>> {
    let member = |value| bytes(value)?.ok_or_else(unexpected);
    array(value)?.into_iter().map(member).collect()
}

/// What a script found of an entry: meta data and value, nothing, or meta data alone of a value
/// that was too much to be read with others.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) meta: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
}

impl Found {
    pub(crate) const fn is_left_out(&self) -> bool {
        self.meta.is_some() && self.value.is_none()
    }

    pub(crate) fn into_entry(self) -> Result<Option<Entry<Bytes>>> {
        let (Some(meta), Some(value)) = (self.meta, self.value) else {
            return Ok(None);
        };
        Ok(Some(Entry { value: Bytes::from(value), meta: stored(&meta)?.meta }))
    }
}

/// The entry of an answer of one.
pub(crate) fn only_entry(answer: Value) -> Result<Option<Entry<Bytes>>> {
    let [meta, value] = array(answer)?.try_into().map_err(|_| unexpected())?;
    Found { meta: bytes(meta)?, value: bytes(value)? }.into_entry()
}

#[cfg(test)]
mod tests {
    use cubbyhole_core::ErrorKind;
    use proptest::prelude::*;

    use super::*;

    /// A failure is printed, shrunk, and leaves no file in the sources.
    fn cases() -> ProptestConfig {
        ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
    }

    /// An answer of any kind that the protocol has, nested.
    fn any_value() -> impl Strategy<Value = Value> {
        let bulk = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..50),
            prop::collection::vec(0..3_u8, META_BYTES..=META_BYTES),
        ];
        let leaf = prop_oneof![
            Just(Value::Nil),
            Just(Value::Okay),
            any::<i64>().prop_map(Value::Int),
            any::<f64>().prop_map(Value::Double),
            any::<bool>().prop_map(Value::Boolean),
            ".{0,8}".prop_map(Value::SimpleString),
            bulk.prop_map(Value::BulkString),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            let two = prop::collection::vec((inner.clone(), inner.clone()), 0..3);
            prop_oneof![
                2 => prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                1 => prop::collection::vec(inner, 0..3).prop_map(Value::Set),
                1 => two.prop_map(Value::Map),
            ]
        })
    }

    /// What is not understood is a defect or another program's, and never the caller's mistake.
    fn assert_refused<T: std::fmt::Debug>(result: Result<T>) {
        if let Err(error) = result {
            assert!([ErrorKind::Corrupt, ErrorKind::Internal].contains(&error.kind()), "{error:?}");
            assert!(error.message().is_ascii() && error.message().len() < 120, "{error:?}");
        }
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn any_answer_is_read_or_refused(value in any_value()) {
            assert_refused(integer(&value));
            assert_refused(integers::<2>(value.clone()));
            assert_refused(bytes(value.clone()));
            assert_refused(text(value.clone()));
            assert_refused(only_entry(value.clone()));
            if let Ok(items) = array(value.clone()) {
                prop_assert_eq!(Value::Array(items), value);
            }
        }

        #[test]
        fn any_bytes_are_the_meta_data_that_they_are_or_corrupt(
            bytes in prop::collection::vec(prop_oneof![Just(0), any::<u8>()], 34..42),
        ) {
            match stored(&bytes) {
                Ok(stored) => {
                    let meta = stored.meta;
                    let mut again = meta.version.to_bytes().to_vec();
                    let expires_at = meta.expires_at.map_or(0, Timestamp::as_millis);
                    for millis in [meta.created_at.as_millis(), meta.updated_at.as_millis(), expires_at] {
                        again.extend(&millis.to_be_bytes()[2..]);
                    }
                    again.extend(&stored.value_bytes.to_be_bytes()[4..]);
                    prop_assert_eq!(again, bytes);
                }
                Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Corrupt),
            }
        }
    }

    #[test]
    fn meta_data_is_read_as_it_is_written() {
        let version = Version::draw();
        let mut bytes = version.to_bytes().to_vec();
        for instant in [1_795_000_000_000_u64, 1_795_000_000_001, 253_402_300_799_999] {
            bytes.extend(&instant.to_be_bytes()[2..]);
        }
        bytes.extend(7_u32.to_be_bytes());
        let stored = stored(&bytes).unwrap();
        assert_eq!(stored.meta.version, version);
        assert_eq!(stored.meta.created_at.as_millis(), 1_795_000_000_000);
        assert_eq!(stored.meta.updated_at.as_millis(), 1_795_000_000_001);
        assert_eq!(stored.meta.expires_at, Some(Timestamp::MAX));
        assert_eq!(stored.value_bytes, 7);
    }

    #[test]
    fn any_other_bytes_are_an_error() {
        for length in 0..60 {
            let result = stored(&vec![0xff; length]);
            assert!(result.is_err(), "{length}: {result:?}");
        }
    }
}
