//! How a key in an index compares with its value.

use cubbyhole_core::Result;

use crate::replies;

/// How a key in the index compares with what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IndexFinding {
    Consistent,
    /// The index has no readable meta data of a live entry for the value.
    Orphaned {
        bytes: u64,
        /// In milliseconds since 1970; 0 for never.
        expires: u64,
    },
    /// The index has a live entry that has no value, or a part of one.
    MissingValue,
    /// The part of the expiring keys says something else than the meta data.
    WrongExpiry,
    /// The entry is live by its meta data, and the part of the keys does not list it. Its expiry may be
    /// lost as well.
    Unlisted,
    /// Another program wrote it.
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
