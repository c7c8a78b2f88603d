//! Why a script wrote nothing.

use cubbyhole_core::{Error, Version};

/// A script's own way to say that it wrote nothing.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The condition of this operation does not hold.
    Conflict { index: usize, current: Option<Version> },
    /// The place is not listed in its index: register it, above this fence.
    Unregistered { issued: String, fence: String },
    /// The expiry is past the year 9999.
    TooLate,
}

impl Refusal {
    /// The error of a call that cannot act on the refusal.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::TooLate => Error::invalid_argument(
                "the TTL ends past the year 9999; leave it out for an entry that never expires",
            ),
            Self::Conflict { index, current } => Error::conflict(current).at_batch_index(index),
            Self::Unregistered { .. } => {
                Error::internal("a script asked for a registration that it does not need")
            }
        }
    }
}
