//! The part of a namespace that a listing covers.

use crate::keys::lex_bound;

/// Which keys of a namespace.
pub(crate) struct KeyRange {
    pub(crate) from: Vec<u8>,
    pub(crate) to: Vec<u8>,
}

impl KeyRange {
    pub(crate) fn new(prefix: &str, after: Option<&str>) -> Self {
        let from = match after {
            Some(after) if after >= prefix => lex_bound::past(after),
            _ => lex_bound::from(prefix),
        };
        let to = if prefix.is_empty() { b"+".to_vec() } else { lex_bound::to_end_of(prefix) };
        Self { from, to }
    }
}
