//! The cursor of a scan over a part of an index.

use super::part::IndexPart;

/// The cursor of a scan over a part of an index.
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
