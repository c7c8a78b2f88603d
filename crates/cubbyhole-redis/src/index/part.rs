//! The parts of the index of a namespace.

/// A part of the index of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum IndexPart {
    /// The sorted set of all keys.
    Keys,
    /// The hash of metadata of all keys.
    Metas,
    /// The sorted set of the keys that expire.
    Expiries,
}
