//! Where reads run: on the caller's thread while that is cheap, otherwise in the blocking pool.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cubbyhole_core::{Clock, Error, ExecutionContext, HighWaterClock, Result, Timestamp};
use redb::Database;

use crate::engine::{ReadMode, Snapshot};
use crate::error::Failure;
use crate::file::StoreFile;

pub(crate) struct Reader {
    file: Arc<StoreFile>,
    clock: Arc<HighWaterClock>,
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

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// How far the store's time is ahead of the clock.
    pub(crate) fn lead(&self) -> Duration {
        self.clock.lead()
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Reads on this thread if that is short and likely to be served from memory, and in the
    /// blocking pool otherwise: a hop to the pool costs several times what a point read does.
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
        // While the file is compacted or opened anew it waits here and not on a thread of the
        // pool, which others need.
        ctx.race(self.file.free()).await?;
        // The read in the pool ends with the caller's context, and with the caller's future.
        let child = ctx.child();
        let _end = child.cancellation().clone().drop_guard();
        let task = tokio::task::spawn_blocking(move || reader.read(&child, &work));
        ctx.race(task).await?.map_err(panicked)?
    }

    /// Reads on this thread, unless that turns out too much or means waiting.
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
            // The pool has the time to open the file anew.
            Err(failure) if failure.breaks_handle() => None,
            result => Some(result.map_err(Failure::into_error)),
        }
    }

    /// Reads on this thread, however long it takes.
    fn read<T>(
        &self,
        ctx: &ExecutionContext,
        work: &impl Fn(&Snapshot<'_>) -> Result<T, Failure>,
    ) -> Result<T> {
        let once = || {
            let guard = self.file.read();
            let result = match guard.database() {
                Some(database) => self.attempt(database, ReadMode::Blocking(ctx), work),
                None => Err(self.file.absent()),
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
        // The engine may panic over a file that something else wrote to.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            work(&Snapshot::open(database, || self.clock.now(), mode, &self.saw_expired)?)
        }));
        outcome.unwrap_or_else(|_| {
            Err(Error::corrupt("the engine failed over the file; it may be damaged").into())
        })
    }
}

/// What it means that a task of the pool did not answer.
pub(crate) fn panicked(error: tokio::task::JoinError) -> Error {
    if error.is_cancelled() {
        return Error::unavailable("the runtime is shutting down");
    }
    Error::internal("the work on the file failed").with_source(error)
}
