//! The failures of a removal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use cubbyhole_core::{Error, ExecutionContext, Result};

/// The failures of a removal. A removal continues after a failure, so one damaged namespace does
/// not block the others, and reports the first failure at the end.
#[derive(Default)]
pub(super) struct Failures {
    first: Mutex<Option<Error>>,
    /// Whether a failed call may have removed entries that are not counted.
    unknown: AtomicBool,
}

impl Failures {
    /// Records a failure and returns `None`. Returns an error if the context has ended.
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

    /// Returns the result of the removal: its own error, or else the first failure.
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
