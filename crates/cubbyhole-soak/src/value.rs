//! Values that contain their entry's id and a checksum.
//!
//! A value has at least 10 bytes: namespace, key and serial number (2 bytes each), the expiry of a
//! short-lived entry (8 bytes), padding, and a checksum of all bytes before it (4 bytes).

use cubbyhole::{Bytes, Timestamp};

use crate::checks::WrongReply;
use crate::{DataSet, EntryId};

const HEAD_BYTES: usize = 6;
const EXPIRY_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 4;

/// Creates a value for `id` of about `length` bytes. `expires_at` is for short-lived entries.
pub(crate) fn make(
    id: EntryId,
    serial: u16,
    expires_at: Option<Timestamp>,
    length: usize,
) -> Bytes {
    let mut value = Vec::with_capacity(length.max(HEAD_BYTES + EXPIRY_BYTES + CHECKSUM_BYTES));
    value.extend(id.namespace.to_be_bytes());
    value.extend(id.key.to_be_bytes());
    value.extend(serial.to_be_bytes());
    if let Some(expires_at) = expires_at {
        value.extend(expires_at.as_millis().to_be_bytes());
    }
    let mut padding = fastrand::Rng::with_seed(u64::from(serial));
    let head = value.len();
    value.resize(head.max(length.saturating_sub(CHECKSUM_BYTES)), 0);
    padding.fill(&mut value[head..]);
    let sum = checksum(&value);
    value.extend(sum.to_be_bytes());
    Bytes::from(value)
}

/// Checks a value that was read at `id` and returns its serial number. The call started at `began`.
pub(crate) fn check(
    data_set: &DataSet,
    id: EntryId,
    value: &[u8],
    began: Timestamp,
) -> Result<u16, WrongReply> {
    let torn = || WrongReply::Torn { length: value.len() };
    let (body, sum) = value.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(torn)?;
    if checksum(body) != u32::from_be_bytes(*sum) {
        return Err(torn());
    }
    let (numbers, rest) = body.split_first_chunk::<HEAD_BYTES>().ok_or_else(torn)?;
    let [n0, n1, k0, k1, s0, s1] = *numbers;
    let found =
        EntryId { namespace: u16::from_be_bytes([n0, n1]), key: u16::from_be_bytes([k0, k1]) };
    if found != id {
        return Err(WrongReply::OtherEntry { asked: id, found });
    }
    if data_set.is_short_lived(id) {
        let millis = rest.first_chunk::<EXPIRY_BYTES>().ok_or_else(torn)?;
        let expires_at = Timestamp::from_millis(u64::from_be_bytes(*millis)).map_err(|_| torn())?;
        crate::checks::check_live(Some(expires_at), began)?;
    }
    Ok(u16::from_be_bytes([s0, s1]))
}

/// FNV-1a over words of 8 bytes and the length, folded to 32 bits. Detects accidental damage only.
fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64 ^ bytes.len() as u64;
    for part in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..part.len()].copy_from_slice(part);
        sum = (sum ^ u64::from_be_bytes(word)).wrapping_mul(0x0100_0000_01b3);
    }
    ((sum >> 32) ^ sum) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: EntryId = EntryId { namespace: 3, key: 8 };
    const NOW: u64 = 1_000_000;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis).unwrap()
    }

    #[test]
    fn value_is_valid_only_for_its_own_entry() {
        let data_set = DataSet::new(1).unwrap();
        let plain = EntryId { key: 7, ..ID };
        for length in [10, 11, 500, 65_536] {
            let value = make(plain, 77, None, length);
            assert_eq!(value.len(), length);
            assert_eq!(check(&data_set, plain, &value, at(NOW)), Ok(77));
            let other = EntryId { namespace: 4, ..plain };
            let wrong = check(&data_set, other, &value, at(NOW)).unwrap_err();
            assert_eq!(wrong, WrongReply::OtherEntry { asked: other, found: plain });
        }
    }

    #[test]
    fn truncation_and_flipped_bytes_are_detected() {
        let data_set = DataSet::new(1).unwrap();
        let value = make(ID, 1, Some(at(NOW)), 40);
        assert_eq!(value.len(), 40);
        for length in 0..value.len() {
            let wrong = check(&data_set, ID, &value[..length], at(0)).unwrap_err();
            assert_eq!(wrong, WrongReply::Torn { length });
        }
        for index in 0..value.len() {
            let mut flipped = value.to_vec();
            flipped[index] ^= 0x10;
            assert!(check(&data_set, ID, &flipped, at(0)).is_err(), "byte {index}");
        }
    }

    #[test]
    fn expired_value_is_detected() {
        let data_set = DataSet::new(1).unwrap();
        let value = make(ID, 1, Some(at(NOW)), 10);
        assert_eq!(check(&data_set, ID, &value, at(NOW - 1)), Ok(1));
        let wrong = check(&data_set, ID, &value, at(NOW + 60_000)).unwrap_err();
        assert!(matches!(wrong, WrongReply::Expired { .. }), "{wrong:?}");
    }
}
