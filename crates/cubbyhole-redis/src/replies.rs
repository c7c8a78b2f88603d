//! What the servers answer, as the contract's types.

use bytes::Bytes;
use cubbyhole_core::{Entry, EntryMeta, Error, Result, Timestamp, Version};
use redis::Value;

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
    use super::*;

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
