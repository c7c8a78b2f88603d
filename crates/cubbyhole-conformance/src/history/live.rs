//! Histories that go on while a test harms the store, and a look at them meanwhile.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cubbyhole_core::{CancellationToken, EntryStore, ExecutionContext};
use tokio::task::JoinHandle;

use super::{Plan, Progress, Report, run_counted};
use crate::Sample;

/// How long something may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(2);

/// What became of the calls so far. A conflict is an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Calls that change nothing, answered.
    pub reads: u64,
    /// Calls that may change something, answered.
    pub writes: u64,
    /// Calls that change nothing and failed.
    pub failed_reads: u64,
    /// Calls that may change something and failed.
    pub failed_writes: u64,
    /// Those of them whose outcome is unknown.
    pub unknown: u64,
}

impl Counts {
    /// All that failed.
    #[must_use]
    pub fn failures(self) -> u64 {
        self.failed_reads + self.failed_writes
    }

    fn has_more(self, before: Self, more: u64) -> bool {
        self.reads >= before.reads + more && self.writes >= before.writes + more
    }
}

/// A run of histories that goes on by itself until it is finished. Dropped, it ends and nothing is
/// said of what it showed.
///
/// ```
/// # use std::sync::Arc;
/// use cubbyhole_conformance::history::{Live, Plan};
/// use cubbyhole_core::{Bytes, EntryStore, TenantId};
/// use cubbyhole_memory::InMemoryStore;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store: Arc<dyn EntryStore<Bytes>> = Arc::new(InMemoryStore::new());
/// let histories = Live::start(&store, Plan::new(TenantId::new("histories")?, 7));
/// histories.until_sound(100).await?;
/// // Here the server would be stopped, and started again.
/// histories.until_sound(100).await?;
/// histories.finish().await?.verdict()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Live {
    progress: Arc<Progress>,
    stop: CancellationToken,
    running: JoinHandle<Report>,
}

impl Live {
    /// Begins the plan, however many calls it says: it ends when it is finished. Within a runtime of
    /// tokio.
    #[must_use]
    pub fn start<V: Sample>(store: &Arc<dyn EntryStore<V>>, plan: Plan) -> Self {
        let (progress, stop) = (Arc::<Progress>::default(), CancellationToken::new());
        let plan = plan.with_operations(u64::MAX);
        let (store, until, shared) = (Arc::clone(store), stop.clone(), Arc::clone(&progress));
        let running =
            tokio::spawn(async move { run_counted(&store, &plan, &until, &shared).await });
        Self { progress, stop, running }
    }

    /// What became of the calls so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            reads: self.progress.reads.load(Ordering::SeqCst),
            writes: self.progress.writes.load(Ordering::SeqCst),
            failed_reads: self.progress.failed_reads.load(Ordering::SeqCst),
            failed_writes: self.progress.failed_writes.load(Ordering::SeqCst),
            unknown: self.progress.unknown.load(Ordering::SeqCst),
        }
    }

    /// Waits for so many more reads and so many more writes that are answered, whatever fails.
    ///
    /// # Errors
    /// If it does not come within a minute, or the histories have ended: they have no order.
    pub async fn until_more(&self, more: u64) -> Result<(), String> {
        let before = self.counts();
        self.until("more calls", || self.counts().has_more(before, more)).await
    }

    /// Waits until so many reads and so many writes were answered and none failed between them.
    ///
    /// # Errors
    /// As [`until_more`](Self::until_more).
    pub async fn until_sound(&self, more: u64) -> Result<(), String> {
        let since = Cell::new(self.counts());
        self.until("calls that are all answered", || {
            let now = self.counts();
            if now.failures() != since.get().failures() {
                since.set(now);
            }
            now.has_more(since.get(), more)
        })
        .await
    }

    /// Waits for so many more calls that fail. They may all be reads: a client that does not know
    /// what became of its write looks before it writes again.
    ///
    /// # Errors
    /// As [`until_more`](Self::until_more).
    pub async fn until_failures(&self, more: u64) -> Result<(), String> {
        let before = self.counts().failures();
        self.until("failures", || self.counts().failures() >= before + more).await
    }

    /// Waits for something that `what` names.
    ///
    /// # Errors
    /// As [`until_more`](Self::until_more).
    pub async fn until(&self, what: &str, is_so: impl Fn() -> bool) -> Result<(), String> {
        let limit = ExecutionContext::new().with_timeout(PATIENCE);
        while !is_so() {
            if self.running.is_finished() {
                return Err(format!("the histories ended before there were {what}"));
            }
            let waited = limit.sleep(PAUSE).await;
            waited.map_err(|_| format!("it never came: {what}, after {:?}", self.counts()))?;
        }
        Ok(())
    }

    /// Ends them. What they show is in the report's [`verdict`](Report::verdict).
    ///
    /// # Errors
    /// If they died.
    pub async fn finish(mut self) -> Result<Report, String> {
        self.stop.cancel();
        (&mut self.running).await.map_err(|error| format!("the histories died: {error}"))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
