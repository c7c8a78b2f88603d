//! The metadata record of an entry.

use std::time::Duration;

use cubbyhole_core::{EntryMeta, EntryStat, Error, Result, Timestamp, Version};

/// The length of the record: version (16 bytes), `created_at`, `updated_at` and `expires_at` (6
/// each, milliseconds since 1970, 0 for never), length of the value (4); big-endian.
pub(crate) const META_BYTES: usize = 38;
/// The length of the idle TTL in milliseconds, which follows in the record of an entry that has one.
const IDLE_TTL_BYTES: usize = 6;

/// The metadata of an entry, decoded from the hash of metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredMeta {
    pub(crate) meta: EntryMeta,
    pub(crate) value_bytes: u64,
}

impl StoredMeta {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let (record, idle_ttl) = bytes.split_first_chunk::<META_BYTES>().ok_or_else(bad_meta)?;
        let (version, rest) = record.split_first_chunk().ok_or_else(bad_meta)?;
        let (instants, length) = rest.split_at(18);
        let expires_at = number(&instants[12..]);
        let idle_ttl = match idle_ttl.len() {
            0 => None,
            IDLE_TTL_BYTES => Some(idle(number(idle_ttl))?),
            _ => return Err(bad_meta()),
        };
        Ok(Self {
            meta: EntryMeta {
                version: Version::from_bytes(*version),
                created_at: instant(number(&instants[..6]))?,
                updated_at: instant(number(&instants[6..12]))?,
                expires_at: if expires_at == 0 { None } else { Some(instant(expires_at)?) },
                // A build that does not know idle TTLs keeps one in the record when it removes the
                // expiry.
                idle_ttl: idle_ttl.filter(|_| expires_at != 0),
            },
            value_bytes: number(length),
        })
    }

    /// Returns the metadata and the length of the value, for a call that reads no value.
    pub(crate) const fn into_stat(self) -> EntryStat {
        EntryStat { meta: self.meta, value_bytes: Some(self.value_bytes) }
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn instant(millis: u64) -> Result<Timestamp> {
    Timestamp::from_millis(millis).map_err(|_| bad_meta())
}

/// An idle TTL is at least a millisecond, and ends by the year 9999 if it starts in 1970.
fn idle(millis: u64) -> Result<Duration> {
    if millis == 0 {
        return Err(bad_meta());
    }
    instant(millis).map(|_| Duration::from_millis(millis))
}

fn bad_meta() -> Error {
    Error::corrupt("the metadata of an entry is malformed: another program wrote it")
}

#[cfg(test)]
mod tests {
    use cubbyhole_core::ErrorKind;
    use proptest::prelude::*;

    use super::*;

    /// Prints a shrunk failure, and writes no regression file.
    fn cases() -> ProptestConfig {
        ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn any_bytes_decode_and_encode_equally_or_are_corrupt(
            bytes in prop::collection::vec(prop_oneof![Just(0), any::<u8>()], 34..48),
        ) {
            match StoredMeta::decode(&bytes) {
                Ok(stored) => {
                    let meta = stored.meta;
                    let mut again = meta.version.to_bytes().to_vec();
                    let expires_at = meta.expires_at.map_or(0, Timestamp::as_millis);
                    let (created_at, updated_at) = (meta.created_at, meta.updated_at);
                    for millis in [created_at.as_millis(), updated_at.as_millis(), expires_at] {
                        again.extend(&millis.to_be_bytes()[2..]);
                    }
                    again.extend(&stored.value_bytes.to_be_bytes()[4..]);
                    if let Some(idle_ttl) = meta.idle_ttl {
                        let millis = u64::try_from(idle_ttl.as_millis()).unwrap();
                        again.extend(&millis.to_be_bytes()[2..]);
                    }
                    // Without an expiry, an idle TTL is ignored.
                    let length = if expires_at == 0 { META_BYTES } else { bytes.len() };
                    prop_assert_eq!(again, &bytes[..length]);
                }
                Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Corrupt),
            }
        }
    }

    #[test]
    fn record_decodes_to_its_fields() {
        let version = Version::draw();
        let mut bytes = version.to_bytes().to_vec();
        for instant in [1_795_000_000_000_u64, 1_795_000_000_001, 253_402_300_799_999] {
            bytes.extend(&instant.to_be_bytes()[2..]);
        }
        bytes.extend(7_u32.to_be_bytes());
        let stored = StoredMeta::decode(&bytes).unwrap();
        assert_eq!(stored.meta.version, version);
        assert_eq!(stored.meta.created_at.as_millis(), 1_795_000_000_000);
        assert_eq!(stored.meta.updated_at.as_millis(), 1_795_000_000_001);
        assert_eq!(stored.meta.expires_at, Some(Timestamp::MAX));
        assert_eq!(stored.meta.idle_ttl, None);
        assert_eq!(stored.value_bytes, 7);

        bytes.extend(&1_800_000_u64.to_be_bytes()[2..]);
        let idle = StoredMeta::decode(&bytes).unwrap();
        assert_eq!(idle.meta.idle_ttl, Some(Duration::from_secs(1800)));
        assert_eq!(EntryMeta { idle_ttl: None, ..idle.meta }, stored.meta);
        assert_eq!(idle.value_bytes, 7);

        // The form that an older build leaves behind when it removes the expiry.
        bytes[28..34].fill(0);
        let touched = StoredMeta::decode(&bytes).unwrap().meta;
        assert_eq!((touched.expires_at, touched.idle_ttl), (None, None));
    }

    #[test]
    fn malformed_record_is_an_error() {
        for length in 0..60 {
            let result = StoredMeta::decode(&vec![0xff; length]);
            assert!(result.is_err(), "{length}: {result:?}");
        }
    }
}
