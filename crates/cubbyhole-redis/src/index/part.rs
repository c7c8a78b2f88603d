//! The parts of the index of a namespace.

/// A part of the index of a namespace. Each has the keys that the others have, unless it was lost or
/// is of the expiring keys alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum IndexPart {
    Keys,
    Metas,
    Expiries,
}
