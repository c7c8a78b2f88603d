//! The result of comparing a key in an index with its value.

use cubbyhole_core::Result;

use crate::replies;

/// The result of comparing a key in the index with its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IndexFinding {
    Consistent,
    /// There is a value, but no readable metadata of a live entry.
    Orphaned {
        bytes: u64,
        /// Milliseconds since 1970; 0 for never.
        expires: u64,
    },
    /// The index lists the key, but there is no value.
    MissingValue,
    /// The expiry in the index differs from the one in the metadata.
    WrongExpiry,
    /// The metadata belongs to a live entry, but the sorted set of keys does not list the key. Its
    /// expiry may be lost as well.
    Unlisted,
    /// The value is not a string: another program wrote it.
    NotAString,
}

impl IndexFinding {
    pub(super) fn decode(numbers: &[u64]) -> Result<Self> {
        match *numbers {
            [0, ..] => Ok(Self::Consistent),
            [1, bytes, expires] => Ok(Self::Orphaned { bytes, expires }),
            [2, ..] => Ok(Self::MissingValue),
            [3, ..] => Ok(Self::WrongExpiry),
            [4, ..] => Ok(Self::NotAString),
            [5, ..] => Ok(Self::Unlisted),
            _ => Err(replies::unexpected()),
        }
    }
}
