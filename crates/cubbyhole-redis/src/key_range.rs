//! The range of keys that a listing covers.

use crate::keys::lex_bound;

/// A range of keys of a namespace, as bounds of `ZRANGE BYLEX`.
pub(crate) struct KeyRange {
    pub(crate) from: Vec<u8>,
    pub(crate) to: Vec<u8>,
}

impl KeyRange {
    /// The keys that start with `prefix` and are above `after`.
    pub(crate) fn new(prefix: &str, after: Option<&str>) -> Self {
        let from = match after {
            Some(after) if after >= prefix => lex_bound::past(after),
            _ => lex_bound::from(prefix),
        };
        let to = if prefix.is_empty() { b"+".to_vec() } else { lex_bound::to_end_of(prefix) };
        Self { from, to }
    }
}
