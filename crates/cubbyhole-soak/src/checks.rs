//! The checks of replies, and the ways in which a reply can be wrong.

use std::fmt;
use std::time::Duration;

use cubbyhole::{Timestamp, Version};

use crate::EntryId;

/// How long after its expiry an entry may still be returned. The backend's clock decides, and it
/// can differ slightly from the callers' clock, even on one machine while the clock is adjusted. A
/// store that returns expired entries would return them for seconds, until a sweep.
pub(crate) const CLOCK_SLACK: Duration = Duration::from_millis(250);

/// A wrong reply.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WrongReply {
    /// The checksum of a value is wrong.
    Torn {
        /// The length of the value.
        length: usize,
    },
    /// A value that was written to another entry.
    OtherEntry {
        /// The entry that was read.
        asked: EntryId,
        /// The entry that the value was written to.
        found: EntryId,
    },
    /// An entry that had expired before the call started.
    Expired {
        /// The time since its expiry.
        since: Duration,
    },
    /// An entry that only one caller writes has another state than that caller left.
    UnexpectedState {
        /// The entry.
        id: EntryId,
        /// The state that the caller left.
        expected: EntryState,
        /// The state that was read.
        found: EntryState,
    },
    /// A conflict was reported although the condition held.
    FalseConflict {
        /// The entry.
        id: EntryId,
    },
    /// A name in a listing is unexpected, out of order, duplicated or missing.
    Listing {
        /// The defect.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The number of results is wrong.
    ResultCount {
        /// The expected number.
        expected: usize,
        /// The number in the reply.
        found: usize,
    },
}

impl fmt::Display for WrongReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// The state of an entry that only one caller writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryState {
    /// The entry does not exist.
    Absent,
    /// The entry has the value with this serial number and this version.
    Written(u16, Version),
    /// A write was interrupted, so the state is unknown.
    Unknown,
}

impl EntryState {
    /// Checks the state `found` against this expected state.
    ///
    /// # Errors
    /// The states differ, and this state is not `Unknown`.
    pub fn check(self, id: EntryId, found: Self) -> Result<(), WrongReply> {
        if self == Self::Unknown || self == found {
            return Ok(());
        }
        Err(WrongReply::UnexpectedState { id, expected: self, found })
    }
}

/// Checks that an entry had not expired when the call started at `began`.
pub(crate) fn check_live(
    expires_at: Option<Timestamp>,
    began: Timestamp,
) -> Result<(), WrongReply> {
    let since = expires_at.map_or(Duration::ZERO, |instant| began.saturating_since(instant));
    if since > CLOCK_SLACK { Err(WrongReply::Expired { since }) } else { Ok(()) }
}

/// Checks that `names` are in order and have no duplicates.
pub(crate) fn check_ascending<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), WrongReply> {
    let mut before: Option<&str> = None;
    for name in names {
        if before.is_some_and(|before| before >= name) {
            return Err(WrongReply::Listing { what: "out of order", name: name.to_owned() });
        }
        before = Some(name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_must_return_the_state_that_was_written() {
        let id = EntryId { namespace: 0, key: 100 };
        let version = Version::draw();
        let expected = EntryState::Written(7, version);
        assert_eq!(expected.check(id, expected), Ok(()));
        assert_eq!(EntryState::Unknown.check(id, expected), Ok(()));
        for found in [
            EntryState::Absent,
            EntryState::Written(6, version),
            EntryState::Written(7, Version::draw()),
        ] {
            assert!(expected.check(id, found).is_err(), "{found:?}");
            assert!(EntryState::Absent.check(id, expected).is_err());
        }
    }

    #[test]
    fn duplicates_and_wrong_order_are_detected() {
        assert_eq!(check_ascending(["a", "b"].into_iter()), Ok(()));
        assert!(check_ascending(["a", "a"].into_iter()).is_err());
        assert!(check_ascending(["b", "a"].into_iter()).is_err());
    }
}
