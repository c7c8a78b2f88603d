//! Runs reads: on the caller's thread if they are cheap, otherwise in the blocking pool.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cubbyhole_core::{Clock, Error, ExecutionContext, HighWaterClock, Result, Timestamp};
use redb::Database;

use crate::engine::{ReadMode, Snapshot};
use crate::error::{ENGINE_PANIC, Failure};
use crate::file::StoreFile;

/// The read side of a store.
pub(crate) struct Reader {
    file: Arc<StoreFile>,
    clock: Arc<HighWaterClock>,
    /// Set when a read treats an entry as expired.
    saw_expired: Arc<AtomicBool>,
}

impl Reader {
    pub(crate) fn new(
        file: Arc<StoreFile>,
        clock: Arc<HighWaterClock>,
        saw_expired: Arc<AtomicBool>,
    ) -> Self {
        Self { file, clock, saw_expired }
    }

    /// The store's time.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The time by which the store's time is ahead of the clock.
    pub(crate) fn lead(&self) -> Duration {
        self.clock.lead()
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Runs a read on this thread if it is short and likely to be served from memory, and in the
    /// blocking pool otherwise. Moving a read to the pool costs several times as much as a point
    /// read.
    pub(crate) async fn run<T, F>(self: &Arc<Self>, ctx: &ExecutionContext, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&Snapshot<'_>) -> Result<T, Failure> + Send + 'static,
    {
        ctx.check()?;
        if let Some(result) = self.try_inline(ctx, &work) {
            return result;
        }
        let reader = Arc::clone(self);
        // While the file is compacted or reopened, the read waits here and does not block a thread
        // of the pool.
        ctx.race(self.file.wait_until_free()).await?;
        // The read in the pool ends when the caller's context ends or its future is dropped.
        let child = ctx.child();
        let _end = child.cancellation().clone().drop_guard();
        let task = tokio::task::spawn_blocking(move || reader.read(&child, &work));
        ctx.race(task).await?.map_err(task_error)?
    }

    /// Runs a read on this thread. Returns `None` if it would wait or exceeds its budget.
    fn try_inline<T>(
        &self,
        ctx: &ExecutionContext,
        work: &impl Fn(&Snapshot<'_>) -> Result<T, Failure>,
    ) -> Option<Result<T>> {
        let latency = self.file.latency();
        if !latency.is_low() {
            return None;
        }
        let guard = self.file.try_read()?;
        match self.attempt(guard.database()?, ReadMode::Inline(ctx, latency), work) {
            Err(Failure::OverBudget) => None,
            // The read in the pool will reopen the file, which blocks.
            Err(failure) if failure.breaks_handle() => None,
            result => Some(result.map_err(Failure::into_error)),
        }
    }

    /// Runs a read on this thread without a budget, and reopens the file if its handle has failed.
    fn read<T>(
        &self,
        ctx: &ExecutionContext,
        work: &impl Fn(&Snapshot<'_>) -> Result<T, Failure>,
    ) -> Result<T> {
        let once = || {
            let guard = self.file.read();
            let result = match guard.database() {
                Some(database) => self.attempt(database, ReadMode::Blocking(ctx), work),
                None => Err(self.file.no_handle()),
            };
            (result, guard.generation)
        };
        let result = match once() {
            (Err(failure), seen) if failure.breaks_handle() => {
                self.file.reopen(seen)?;
                once().0
            }
            (result, _) => result,
        };
        result.map_err(Failure::into_error)
    }

    fn attempt<T>(
        &self,
        database: &Database,
        mode: ReadMode<'_>,
        work: &impl Fn(&Snapshot<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        // redb may panic if another program changed the file.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            work(&Snapshot::open(database, || self.clock.now(), mode, &self.saw_expired)?)
        }));
        outcome.unwrap_or_else(|_| Err(Error::corrupt(ENGINE_PANIC).into()))
    }
}

/// Translates the error of a task in the blocking pool.
pub(crate) fn task_error(error: tokio::task::JoinError) -> Error {
    if error.is_cancelled() {
        return Error::unavailable("the runtime is shutting down");
    }
    Error::internal("a task on the file panicked").with_source(error)
}
