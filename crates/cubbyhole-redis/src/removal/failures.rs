//! The failures of a removal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use cubbyhole_core::{Error, ExecutionContext, Result};

/// What failed on the way. A removal goes on with what is left, so that one namespace that cannot
/// be worked on keeps no other from being tidied, and then tells the first failure.
#[derive(Default)]
pub(super) struct Failures {
    first: Mutex<Option<Error>>,
    /// Some call may have removed what it did not count.
    unknown: AtomicBool,
}

impl Failures {
    /// Takes note of a failure. What ends the whole call is passed on.
    pub(super) fn note<T>(&self, ctx: &ExecutionContext, result: Result<T>) -> Result<Option<T>> {
        let error = match result {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        };
        self.unknown.fetch_or(error.may_have_been_applied(), Ordering::Relaxed);
        ctx.check()?;
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(error);
        Ok(None)
    }

    /// What a removal comes to in the end.
    pub(super) fn conclude<T>(self, removal: Result<T>) -> Result<T> {
        let first = self.first.into_inner().unwrap_or_else(PoisonError::into_inner);
        let result = match (removal, first) {
            (Ok(_), Some(error)) => Err(error),
            (removal, _) => removal,
        };
        let unknown = self.unknown.into_inner();
        result.map_err(|error| if unknown { error.with_unknown_outcome() } else { error })
    }
}
