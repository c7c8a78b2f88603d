//! What an answer must not be.

use std::fmt;
use std::time::Duration;

use cubbyhole::{Timestamp, Version};

use crate::Place;

/// How long after its expiry an entry may still be seen. The backend's clock decides, and the
/// servers' are read by other processes than the callers': on one machine they differ by what a
/// clock that is being adjusted differs between two readings. A store that shows what has expired
/// shows it for seconds, until a sweep.
pub(crate) const CLOCK_SLACK: Duration = Duration::from_millis(250);

/// An answer that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wrong {
    /// A value whose checksum does not fit.
    Torn {
        /// How long it is.
        length: usize,
    },
    /// A value that was written elsewhere.
    OfAnother {
        /// Where it was read.
        asked: Place,
        /// Where it was written.
        found: Place,
    },
    /// An entry that had expired when the call began.
    Expired {
        /// For how long.
        since: Duration,
    },
    /// An entry that one caller alone writes is not as it left it.
    NotAsWritten {
        /// Where.
        place: Place,
        /// As it was left.
        known: Known,
        /// As it was read.
        found: Known,
    },
    /// A conflict about a condition that held.
    NoConflict {
        /// Where.
        place: Place,
    },
    /// A listing with a name that is not asked for, out of order, twice, or missing.
    Listing {
        /// What is wrong with it.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// More, or fewer, answers than questions.
    Answers {
        /// How many were asked for.
        asked: usize,
        /// How many there are.
        found: usize,
    },
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// What is known of an entry that belongs to a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It is not there.
    Absent,
    /// It holds the value with this serial number, at this version.
    Written(u16, Version),
    /// A write of it was cut off: the next answer tells.
    Unknown,
}

impl Known {
    /// Whether `found` may be read where this is known.
    ///
    /// # Errors
    /// If it may not.
    pub fn check(self, place: Place, found: Self) -> Result<(), Wrong> {
        if self == Self::Unknown || self == found {
            return Ok(());
        }
        Err(Wrong::NotAsWritten { place, known: self, found })
    }
}

/// Whether an entry that a call saw which began at `began` may be seen.
pub(crate) fn is_live(expires_at: Option<Timestamp>, began: Timestamp) -> Result<(), Wrong> {
    let since = expires_at.map_or(Duration::ZERO, |instant| began.saturating_since(instant));
    if since > CLOCK_SLACK { Err(Wrong::Expired { since }) } else { Ok(()) }
}

/// Whether `names` are in order, without one twice.
pub(crate) fn ascending<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), Wrong> {
    let mut before: Option<&str> = None;
    for name in names {
        if before.is_some_and(|before| before >= name) {
            return Err(Wrong::Listing { what: "out of order", name: name.to_owned() });
        }
        before = Some(name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_wrote_must_be_read() {
        let place = Place { namespace: 0, key: 100 };
        let version = Version::draw();
        let known = Known::Written(7, version);
        assert_eq!(known.check(place, known), Ok(()));
        assert_eq!(Known::Unknown.check(place, known), Ok(()));
        for found in [Known::Absent, Known::Written(6, version), Known::Written(7, Version::draw())]
        {
            assert!(known.check(place, found).is_err(), "{found:?}");
            assert!(Known::Absent.check(place, known).is_err());
        }
    }

    #[test]
    fn a_name_twice_and_a_wrong_order_are_noticed() {
        assert_eq!(ascending(["a", "b"].into_iter()), Ok(()));
        assert!(ascending(["a", "a"].into_iter()).is_err());
        assert!(ascending(["b", "a"].into_iter()).is_err());
    }
}
