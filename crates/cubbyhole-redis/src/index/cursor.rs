//! The position of a walk over a part of an index.

use super::part::IndexPart;

/// How far a part of an index was read.
pub(crate) struct IndexCursor {
    pub(super) part: IndexPart,
    /// `None` at the end.
    pub(super) position: Option<String>,
}

impl IndexCursor {
    pub(crate) fn new(part: IndexPart) -> Self {
        Self { part, position: Some("0".to_owned()) }
    }
}
