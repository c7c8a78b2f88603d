//! The record of a tenant in the key store: its wrapped data keys, or the mark of a shredded tenant.

use std::fmt;

use cubbyhole_core::{Bytes, Error, Result};

use super::WrappedKey;
use super::cipher::{hex, random};

/// As in values, the first byte is not followed by a UTF-8 continuation byte, so no text begins so.
const MAGIC: &[u8; 4] = b"\xC8cbk";
const FORMAT: u8 = 1;
const KEYS: u8 = 0;
const SHREDDED: u8 = 1;

pub(super) const DATA_KEY_ID_BYTES: usize = 8;

/// The id of a data key: random, and part of every value that the key encrypted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct DataKeyId(pub(super) [u8; DATA_KEY_ID_BYTES]);

impl DataKeyId {
    pub(super) fn draw() -> Result<Self> {
        random().map(Self)
    }
}

impl fmt::Display for DataKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for DataKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKeyId({self})")
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// At least one key. The first one encrypts new values.
    Keys(Vec<WrappedDataKey>),
    /// The keys were destroyed.
    Shredded,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WrappedDataKey {
    pub(super) id: DataKeyId,
    pub(super) wrapped: WrappedKey,
}

impl Record {
    /// The bytes are: magic (4), format, state, and for each key its id (8), the length (1) and text of
    /// the wrapping key's id, and the length (2, little-endian) and bytes of the wrapped key.
    pub(super) fn encode(&self) -> Result<Bytes> {
        let mut out = MAGIC.to_vec();
        out.push(FORMAT);
        let Self::Keys(keys) = self else {
            out.push(SHREDDED);
            return Ok(out.into());
        };
        out.push(KEYS);
        for WrappedDataKey { id, wrapped } in keys {
            let too_long = |what| {
                Error::invalid_argument(format!("the key provider returned too long a {what}"))
            };
            let id_length =
                u8::try_from(wrapped.key_id.len()).map_err(|_| too_long("key id (255 bytes)"))?;
            let length = u16::try_from(wrapped.bytes.len())
                .map_err(|_| too_long("wrapped key (65,535 bytes)"))?;
            out.extend_from_slice(&id.0);
            out.push(id_length);
            out.extend_from_slice(wrapped.key_id.as_bytes());
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(&wrapped.bytes);
        }
        Ok(out.into())
    }

    pub(super) fn decode(stored: &Bytes) -> Result<Self> {
        let damaged = || Error::corrupt("the record of the tenant's data keys is damaged");
        let rest = stored.strip_prefix(MAGIC.as_slice()).ok_or_else(damaged)?;
        let (&format, rest) = rest.split_first().ok_or_else(damaged)?;
        if format != FORMAT {
            return Err(Error::corrupt(format!(
                "the record of the tenant's data keys has format {format}, which a newer version \
                 wrote; upgrade this program"
            )));
        }
        match rest.split_first() {
            Some((&SHREDDED, [])) => Ok(Self::Shredded),
            Some((&KEYS, keys)) if !keys.is_empty() => {
                decode_keys(keys).map(Self::Keys).ok_or_else(damaged)
            }
            _ => Err(damaged()),
        }
    }
}

fn decode_keys(mut rest: &[u8]) -> Option<Vec<WrappedDataKey>> {
    let mut keys = Vec::new();
    while !rest.is_empty() {
        let (id, after) = rest.split_first_chunk()?;
        let (&id_length, after) = after.split_first()?;
        let (key_id, after) = after.split_at_checked(usize::from(id_length))?;
        let (length, after) = after.split_first_chunk()?;
        let (bytes, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        let key_id = std::str::from_utf8(key_id).ok()?.to_owned();
        let wrapped = WrappedKey { key_id, bytes: Bytes::copy_from_slice(bytes) };
        keys.push(WrappedDataKey { id: DataKeyId(*id), wrapped });
        rest = after;
    }
    Some(keys)
}

#[cfg(test)]
mod tests {
    use cubbyhole_core::ErrorKind;

    use super::*;

    fn two_keys() -> Record {
        let key = |n: u8| WrappedDataKey {
            id: DataKeyId([n; 8]),
            wrapped: WrappedKey { key_id: format!("ring-{n}"), bytes: vec![n; 72].into() },
        };
        Record::Keys(vec![key(1), key(2)])
    }

    #[test]
    fn decode_reverses_encode() {
        for record in [two_keys(), Record::Shredded] {
            assert_eq!(Record::decode(&record.encode().unwrap()).unwrap(), record);
        }
    }

    #[test]
    fn damaged_records_are_corrupt_and_never_the_other_state() {
        for record in [two_keys(), Record::Shredded] {
            let stored = record.encode().unwrap();
            for length in 0..stored.len() {
                if let Ok(Record::Keys(keys)) = Record::decode(&stored.slice(..length)) {
                    assert_eq!(keys.len(), 1, "a record that was cut between its keys");
                }
            }
            for bit in 0..6 * 8 {
                let mut flipped = stored.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let error = Record::decode(&flipped.into()).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt);
            }
        }
    }

    #[test]
    fn ids_that_do_not_fit_are_refused() {
        let wrapped = WrappedKey { key_id: "k".repeat(256), bytes: Bytes::new() };
        let record = Record::Keys(vec![WrappedDataKey { id: DataKeyId([0; 8]), wrapped }]);
        assert_eq!(record.encode().unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}
