//! Values that say where they belong, and show whether they are whole.
//!
//! A value is at least ten bytes: namespace, key and serial number, two bytes each, then eight for
//! the expiry if the entry is mortal, filling, and four of checksum over all before it.

use cubbyhole::{Bytes, Timestamp};

use crate::checks::Wrong;
use crate::{Place, Population};

const HEAD_BYTES: usize = 6;
const EXPIRY_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 4;

/// A value for `place`, of about `length` bytes; `expires_at` is for mortal entries.
pub(crate) fn make(
    place: Place,
    serial: u16,
    expires_at: Option<Timestamp>,
    length: usize,
) -> Bytes {
    let mut value = Vec::with_capacity(length.max(HEAD_BYTES + EXPIRY_BYTES + CHECKSUM_BYTES));
    value.extend(place.namespace.to_be_bytes());
    value.extend(place.key.to_be_bytes());
    value.extend(serial.to_be_bytes());
    if let Some(expires_at) = expires_at {
        value.extend(expires_at.as_millis().to_be_bytes());
    }
    let mut filling = fastrand::Rng::with_seed(u64::from(serial));
    let head = value.len();
    value.resize(head.max(length.saturating_sub(CHECKSUM_BYTES)), 0);
    filling.fill(&mut value[head..]);
    let sum = checksum(&value);
    value.extend(sum.to_be_bytes());
    Bytes::from(value)
}

/// The serial number of a value that was read at `place` by a call that began at `began`.
pub(crate) fn check(
    population: &Population,
    place: Place,
    value: &[u8],
    began: Timestamp,
) -> Result<u16, Wrong> {
    let torn = || Wrong::Torn { length: value.len() };
    let (body, sum) = value.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(torn)?;
    if checksum(body) != u32::from_be_bytes(*sum) {
        return Err(torn());
    }
    let (numbers, rest) = body.split_first_chunk::<HEAD_BYTES>().ok_or_else(torn)?;
    let [n0, n1, k0, k1, s0, s1] = *numbers;
    let found =
        Place { namespace: u16::from_be_bytes([n0, n1]), key: u16::from_be_bytes([k0, k1]) };
    if found != place {
        return Err(Wrong::OfAnother { asked: place, found });
    }
    if population.is_mortal(place) {
        let millis = rest.first_chunk::<EXPIRY_BYTES>().ok_or_else(torn)?;
        let expires_at = Timestamp::from_millis(u64::from_be_bytes(*millis)).map_err(|_| torn())?;
        crate::checks::is_live(Some(expires_at), began)?;
    }
    Ok(u16::from_be_bytes([s0, s1]))
}

/// FNV-1a over words of eight bytes and the length, folded to half its width: for accidents, not
/// for adversaries.
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

    const PLACE: Place = Place { namespace: 3, key: 8 };
    const NOW: u64 = 1_000_000;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis).unwrap()
    }

    #[test]
    fn a_value_is_read_back_where_it_was_written_and_nowhere_else() {
        let population = Population::new(1).unwrap();
        let plain = Place { key: 7, ..PLACE };
        for length in [10, 11, 500, 65_536] {
            let value = make(plain, 77, None, length);
            assert_eq!(value.len(), length);
            assert_eq!(check(&population, plain, &value, at(NOW)), Ok(77));
            let other = Place { namespace: 4, ..plain };
            let wrong = check(&population, other, &value, at(NOW)).unwrap_err();
            assert_eq!(wrong, Wrong::OfAnother { asked: other, found: plain });
        }
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_noticed() {
        let population = Population::new(1).unwrap();
        let value = make(PLACE, 1, Some(at(NOW)), 40);
        assert_eq!(value.len(), 40);
        for length in 0..value.len() {
            let wrong = check(&population, PLACE, &value[..length], at(0)).unwrap_err();
            assert_eq!(wrong, Wrong::Torn { length });
        }
        for index in 0..value.len() {
            let mut flipped = value.to_vec();
            flipped[index] ^= 0x10;
            assert!(check(&population, PLACE, &flipped, at(0)).is_err(), "byte {index}");
        }
    }

    #[test]
    fn a_mortal_value_past_its_expiry_is_noticed() {
        let population = Population::new(1).unwrap();
        let value = make(PLACE, 1, Some(at(NOW)), 10);
        assert_eq!(check(&population, PLACE, &value, at(NOW - 1)), Ok(1));
        let wrong = check(&population, PLACE, &value, at(NOW + 60_000)).unwrap_err();
        assert!(matches!(wrong, Wrong::Expired { .. }), "{wrong:?}");
    }
}
