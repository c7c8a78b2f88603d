//! What a request changes.

/// What a call changes, and so whether it may be sent again when its outcome is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    Read,
    /// The books of what is registered, which the caller does not see: twice does no harm.
    Registration,
    /// Entries.
    Write,
}
