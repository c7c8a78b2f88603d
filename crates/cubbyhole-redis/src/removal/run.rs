//! A removal in progress.

use std::sync::atomic::{AtomicU64, Ordering};

use cubbyhole_core::{ExecutionContext, Result};
use futures_util::{StreamExt, stream};

use super::failures::Failures;
use crate::cluster::Caller;
use crate::registry::ListedName;

/// A removal in progress: its count and its failures.
pub(super) struct RemovalRun<'a> {
    pub(super) ctx: &'a ExecutionContext,
    pub(super) caller: &'a Caller,
    removed: AtomicU64,
    failures: Failures,
}

impl<'a> RemovalRun<'a> {
    pub(super) fn new(ctx: &'a ExecutionContext, caller: &'a Caller) -> Self {
        Self { ctx, caller, removed: AtomicU64::new(0), failures: Failures::default() }
    }

    /// Adds to the number of removed entries, which is reported even if the removal fails later.
    pub(super) fn count(&self, removed: u64) {
        self.removed.fetch_add(removed, Ordering::Relaxed);
    }

    /// Runs calls concurrently, each to its end even if another fails, because requests that were
    /// sent must be counted. The result of a failed call is `None`.
    pub(super) async fn each<T>(
        &self,
        concurrency: usize,
        calls: Vec<impl Future<Output = Result<T>>>,
    ) -> Result<Vec<Option<T>>> {
        let results: Vec<Result<T>> = stream::iter(calls).buffered(concurrency).collect().await;
        let mut noted = Vec::with_capacity(results.len());
        let mut ended = Ok(());
        for result in results {
            match self.failures.note(self.ctx, result) {
                Ok(value) => noted.push(value),
                Err(error) => ended = Err(error),
            }
        }
        ended.map(|()| noted)
    }

    /// Returns the result of the removal, and the number of removed entries.
    pub(super) fn conclude<T>(self, removal: Result<T>) -> (Result<T>, u64) {
        (self.failures.conclude(removal), self.removed.into_inner())
    }
}

/// Returns the names whose namespaces are empty.
pub(super) fn emptied<'a>(
    names: &[&'a ListedName],
    are_empty: &[Option<bool>],
) -> Vec<&'a ListedName> {
    let pairs = names.iter().zip(are_empty);
    pairs.filter(|(_, is_empty)| **is_empty == Some(true)).map(|(name, _)| *name).collect()
}
