//! Refusals: replies of scripts that wrote nothing.

use cubbyhole_core::{Error, Version};

/// The reason why a script wrote nothing.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The condition of the operation with this index does not hold.
    Conflict { index: usize, current: Option<Version> },
    /// The namespace or tenant must be registered first, with a token above this fence.
    Unregistered { issued: String, fence: String },
    /// The TTL or the idle TTL ends past the year 9999.
    TooLate { is_idle: bool },
    /// Another client has added a key since the caller read the keys.
    Changed,
}

impl Refusal {
    /// Returns the error for a call that cannot act on the refusal.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::TooLate { is_idle } => Error::invalid_argument(format!(
                "the {} ends past the year 9999; leave it out for an entry that never expires",
                if is_idle { "idle TTL" } else { "TTL" }
            )),
            Self::Conflict { index, current } => Error::conflict(current).at_batch_index(index),
            Self::Unregistered { .. } => {
                Error::internal("a script requested a registration that it does not need")
            }
            Self::Changed => Error::internal("a script refused keys that it does not compare"),
        }
    }
}
