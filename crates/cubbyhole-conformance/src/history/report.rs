//! The result of a run.

use std::time::Duration;

use cubbyhole_core::{Error, ErrorKind};

/// A call that returned an error other than a conflict.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The error.
    pub error: Error,
    /// The duration of the call.
    pub took: Duration,
}

/// The result of a [`run`](super::run).
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// The number of calls in the histories.
    pub operations: u64,
    /// The number of these calls whose outcome is unknown.
    pub unknown: u64,
    /// The calls that failed, including those whose outcome is unknown.
    pub failures: Vec<Failure>,
    pub(super) violation: Option<String>,
}

impl Report {
    /// Returns `Ok` if the histories are linearizable.
    ///
    /// # Errors
    /// The longest order of calls that the checker found, and the calls that cannot follow it.
    pub fn verdict(&self) -> Result<(), String> {
        self.violation.clone().map_or(Ok(()), Err)
    }

    /// Counts the failures of a kind.
    #[must_use]
    pub fn failures_of(&self, kind: ErrorKind) -> usize {
        self.failures.iter().filter(|failure| failure.error.kind() == kind).count()
    }

    /// Checks that every failure is one of those that a store under faults may return.
    ///
    /// Its kind is one of `kinds`, and the call took at most `latest`. The error is not both
    /// retryable and possibly applied. An `Unavailable` error is one of the two, because the caller
    /// must know whether to repeat the call.
    ///
    /// # Errors
    /// The first failure that breaks a rule.
    pub fn check_failures(&self, kinds: &[ErrorKind], latest: Duration) -> Result<(), String> {
        for Failure { error, took } in &self.failures {
            let is_late = *took > latest;
            let (retryable, uncertain) = (error.is_retryable(), error.may_have_been_applied());
            let contradicts = retryable && uncertain
                || error.kind() == ErrorKind::Unavailable && !retryable && !uncertain;
            if is_late || contradicts || !kinds.contains(&error.kind()) {
                return Err(format!("a call failed after {took:?}: {error:?}"));
            }
        }
        Ok(())
    }

    /// Adds the report of a group of clients. The first violation stays.
    pub(super) fn add_group(&mut self, group: Self) {
        self.operations += group.operations;
        self.unknown += group.unknown;
        self.failures.extend(group.failures);
        self.violation = self.violation.take().or(group.violation);
    }
}
