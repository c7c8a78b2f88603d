//! The encoding of a log record: the changes of one transaction.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | checksum of all following bytes, seeded with the salt |
//! | 8 | salt |
//! | 4 | record number, from 0 |
//! | 4 | length of the changes in bytes |
//! | 8 | high-water mark of the clock, in milliseconds |
//! | … | changes |
//!
//! A change consists of one byte for the table, the lengths of key and value in 4 bytes each, the
//! key and the value. Numbers are little-endian.

use cubbyhole_core::{Error, Result, Timestamp, Version};
use twox_hash::XxHash3_64;

use crate::layout::{LOG_BYTES, SECTOR};

/// The most changes in the log. It bounds the time to replay them when a file is opened.
pub(super) const MAX_CHANGES: usize = 1024;
/// The space for records: all sectors but the first.
pub(super) const RECORD_BYTES: usize = LOG_BYTES as usize - SECTOR;
/// The length of a record's fields before the changes.
pub(super) const HEADER: usize = 32;
/// Distinguishes these checksums from other uses of XXH3.
const SEED: u64 = u64::from_be_bytes(*b"cubbylog");
/// In place of a value's length: the key is removed.
const REMOVED: u32 = u32::MAX;

/// Distinguishes the records of one log from those of any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Salt(u64);

impl Salt {
    /// Draws a salt that no log had before.
    pub(crate) fn draw() -> Self {
        // The second half of a UUID v7 is random except for two bits.
        Self(u128::from_be_bytes(Version::draw().to_bytes()) as u64)
    }

    pub(crate) fn to_bytes(self) -> [u8; 8] {
        self.0.to_le_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_le_bytes(bytes))
    }
}

/// The tables whose changes are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableId {
    Entries,
    Values,
    Expiry,
}

impl TableId {
    const ALL: [Self; 3] = [Self::Entries, Self::Values, Self::Expiry];
}

/// Collects the changes of a transaction in the encoding of the log.
#[derive(Debug, Default)]
pub(crate) struct RedoBuffer {
    /// Space for the header, then the changes. `None` if they are not recorded or exceed the log.
    record: Option<Vec<u8>>,
    pub(super) changes: usize,
}

impl RedoBuffer {
    /// A buffer that records changes.
    pub(crate) fn recording() -> Self {
        Self { record: Some(vec![0; HEADER]), changes: 0 }
    }

    /// A buffer that ignores changes.
    pub(crate) fn disabled() -> Self {
        Self::default()
    }

    /// Records that `key` was set to `value`, or removed if `value` is `None`.
    pub(crate) fn push(&mut self, table: TableId, key: &[u8], value: Option<&[u8]>) {
        let Some(record) = &mut self.record else { return };
        let length = key.len() + value.map_or(0, <[u8]>::len);
        let room = RECORD_BYTES.saturating_sub(record.len() + 9);
        if length > room || self.changes == MAX_CHANGES {
            self.record = None;
            return;
        }
        self.changes += 1;
        // Both lengths fit in a u32: they are less than the log's.
        record.push(table as u8);
        record.extend_from_slice(&(key.len() as u32).to_le_bytes());
        record.extend_from_slice(&value.map_or(REMOVED, |value| value.len() as u32).to_le_bytes());
        record.extend_from_slice(key);
        record.extend_from_slice(value.unwrap_or_default());
    }

    /// The length of the record in whole sectors, or `None` if it does not fit into any log.
    pub(super) fn length(&self) -> Option<usize> {
        self.record.as_ref().map(|record| record.len().next_multiple_of(SECTOR))
    }

    /// Encodes the record, padded to whole sectors.
    pub(super) fn encode(self, salt: Salt, number: u32, clock: Timestamp) -> Option<Vec<u8>> {
        let mut record = self.record?;
        // The length fits in a u32: it is less than the log's.
        let length = (record.len() - HEADER) as u32;
        record[8..16].copy_from_slice(&salt.to_bytes());
        record[16..20].copy_from_slice(&number.to_le_bytes());
        record[20..24].copy_from_slice(&length.to_le_bytes());
        record[24..HEADER].copy_from_slice(&clock.as_millis().to_le_bytes());
        let check = check(&record[8..], salt);
        record[..8].copy_from_slice(&check.to_le_bytes());
        record.resize(record.len().next_multiple_of(SECTOR), 0);
        Some(record)
    }
}

/// A change that replay applies.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change<'a> {
    pub(crate) table: TableId,
    pub(crate) key: &'a [u8],
    pub(crate) value: Option<&'a [u8]>,
}

/// The changes of one transaction, read from the log.
#[derive(Debug)]
pub(crate) struct LogRecord {
    /// The high-water mark of the clock.
    pub(crate) clock: Timestamp,
    changes: Vec<u8>,
}

impl LogRecord {
    /// Decodes the record at offset `at`, and returns it with its length in the log. Returns `None`
    /// if it is incomplete or belongs to another log.
    pub(super) fn decode(log: &[u8], at: usize, salt: Salt, number: u32) -> Option<(Self, usize)> {
        let (expected, rest) = log.get(at..)?.split_first_chunk::<8>()?;
        let mut header = rest.get(..HEADER - 8)?;
        let mut take = |length: usize| header.split_off(..length);
        if take(8)? != salt.to_bytes() || take(4)? != number.to_le_bytes() {
            return None;
        }
        let length = u32::from_le_bytes(take(4)?.try_into().ok()?) as usize;
        let clock = u64::from_le_bytes(take(8)?.try_into().ok()?);
        let checked = rest.get(..HEADER - 8 + length)?;
        if check(checked, salt).to_le_bytes() != *expected {
            return None;
        }
        let clock = Timestamp::from_millis(clock).ok()?;
        let record = Self { clock, changes: checked[HEADER - 8..].to_vec() };
        Some((record, (HEADER + length).next_multiple_of(SECTOR)))
    }

    /// The changes in order. Ends after the first error.
    pub(crate) fn changes(&self) -> impl Iterator<Item = Result<Change<'_>>> {
        let mut rest = &self.changes[..];
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let change = split_change(rest);
            rest = change.as_ref().map_or(&[], |(_, rest)| rest);
            let damaged = || Error::corrupt("the log of the file is damaged");
            Some(change.map(|(change, _)| change).ok_or_else(damaged))
        })
    }
}

fn split_change(bytes: &[u8]) -> Option<(Change<'_>, &[u8])> {
    let (table, rest) = bytes.split_first()?;
    let table = *TableId::ALL.get(usize::from(*table))?;
    let (key_length, rest) = rest.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*key_length) as usize)?;
    Some(match u32::from_le_bytes(*length) {
        REMOVED => (Change { table, key, value: None }, rest),
        length => {
            let (value, rest) = rest.split_at_checked(length as usize)?;
            (Change { table, key, value: Some(value) }, rest)
        }
    })
}

fn check(bytes: &[u8], salt: Salt) -> u64 {
    XxHash3_64::oneshot_with_seed(SEED ^ salt.0, bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn arbitrary_changes_are_decoded_or_refused(
            changes in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let record = LogRecord { clock: Timestamp::EPOCH, changes };
            let read: Vec<_> = record.changes().collect();
            let bytes: usize = read.iter().flatten().map(|change| {
                9 + change.key.len() + change.value.map_or(0, <[u8]>::len)
            }).sum();
            let refused = read.iter().any(Result::is_err);
            prop_assert!(refused || bytes == record.changes.len());
            prop_assert!(read.iter().rev().skip(1).all(Result::is_ok), "continues after an error");
        }
    }
}
