//! The range of keys that a listing covers.

use std::cmp::Ordering;

use crate::keys::lex_bound;

/// A range of keys of a namespace, as bounds of `ZRANGE BYLEX` in the direction of the listing.
pub(crate) struct KeyRange {
    pub(crate) from: Vec<u8>,
    pub(crate) to: Vec<u8>,
    /// The order of a key that comes later in the listing.
    pub(crate) onward: Ordering,
}

impl KeyRange {
    /// The keys that start with `prefix` and are above `after`, ascending.
    pub(crate) fn new(prefix: &str, after: Option<&str>) -> Self {
        let from = match after {
            Some(after) if after >= prefix => lex_bound::past(after),
            _ => lex_bound::from(prefix),
        };
        Self { from, to: upper_bound(prefix), onward: Ordering::Greater }
    }

    /// The keys that start with `prefix` and are below `after`, descending.
    pub(crate) fn reversed(prefix: &str, after: Option<&str>) -> Self {
        let from = match after {
            // A greater `after` is above all keys with the prefix.
            Some(after) if after < prefix || after.starts_with(prefix) => lex_bound::past(after),
            _ => upper_bound(prefix),
        };
        Self { from, to: lex_bound::from(prefix), onward: Ordering::Less }
    }

    pub(crate) const fn is_reversed(&self) -> bool {
        self.onward.is_lt()
    }
}

/// The bound after all keys that start with `prefix`.
fn upper_bound(prefix: &str) -> Vec<u8> {
    if prefix.is_empty() { b"+".to_vec() } else { lex_bound::to_end_of(prefix) }
}
