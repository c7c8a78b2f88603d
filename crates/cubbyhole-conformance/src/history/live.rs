//! A run in the background, for tests that break the store during the run.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cubbyhole_core::{CancellationToken, EntryStore, ExecutionContext};
use tokio::task::JoinHandle;

use super::plan::Plan;
use super::progress::{Counts, Progress};
use super::report::Report;
use super::run::run_counted;
use crate::Sample;

/// The time limit of each wait.
const WAIT_LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(2);

/// A run in the background, which continues until [`finish`](Self::finish). Dropping it stops the
/// run and discards the report.
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
/// // A real test stops the server here, and starts it again.
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
    /// Why the run ended, if its history is not linearizable.
    explanation: Arc<OnceLock<String>>,
}

impl Live {
    /// Starts the clients of `plan`, and ignores its number of calls. Call it within a tokio
    /// runtime.
    #[must_use]
    pub fn start<V: Sample>(store: &Arc<dyn EntryStore<V>>, plan: Plan) -> Self {
        let (progress, stop) = (Arc::<Progress>::default(), CancellationToken::new());
        let plan = plan.with_operations(u64::MAX);
        let (store, until, shared) = (Arc::clone(store), stop.clone(), Arc::clone(&progress));
        let explanation = Arc::<OnceLock<String>>::default();
        let explained = Arc::clone(&explanation);
        let running = tokio::spawn(async move {
            let report = run_counted(&store, &plan, &until, &shared).await;
            if let Err(text) = report.verdict() {
                explained.get_or_init(|| text);
            }
            report
        });
        Self { progress, stop, running, explanation }
    }

    /// Returns the calls so far, by outcome.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.progress.counts()
    }

    /// Waits until `more` further reads and `more` further writes have succeeded. Other calls may
    /// fail.
    ///
    /// # Errors
    /// Fails after a minute, or if the run has ended because its history is not linearizable.
    pub async fn until_more(&self, more: u64) -> Result<(), String> {
        let before = self.counts();
        self.until("more calls", || self.counts().has_more(before, more)).await
    }

    /// Waits until `more` reads and `more` writes in a row have succeeded, without a failed call
    /// between them.
    ///
    /// # Errors
    /// The same errors as [`until_more`](Self::until_more).
    pub async fn until_sound(&self, more: u64) -> Result<(), String> {
        let since = Cell::new(self.counts());
        self.until("calls without a failure", || {
            let now = self.counts();
            if now.failures() != since.get().failures() {
                since.set(now);
            }
            now.has_more(since.get(), more)
        })
        .await
    }

    /// Waits until `more` further calls have failed. All of them may be reads: a client whose write
    /// has an unknown outcome reads before it writes again.
    ///
    /// # Errors
    /// The same errors as [`until_more`](Self::until_more).
    pub async fn until_failures(&self, more: u64) -> Result<(), String> {
        let before = self.counts().failures();
        self.until("failures", || self.counts().failures() >= before + more).await
    }

    /// Waits until `is_so` returns true. `what` names the condition in the error.
    ///
    /// # Errors
    /// The same errors as [`until_more`](Self::until_more).
    pub async fn until(&self, what: &str, is_so: impl Fn() -> bool) -> Result<(), String> {
        let limit = ExecutionContext::new().with_timeout(WAIT_LIMIT);
        while !is_so() {
            if self.running.is_finished() {
                let explanation = self.explanation.get().map_or("", String::as_str);
                return Err(format!(
                    "the run ended while the test waited for {what}: {explanation}"
                ));
            }
            let waited = limit.sleep(PAUSE).await;
            waited.map_err(|_| {
                format!("waited {WAIT_LIMIT:?} for {what}, after {:?}", self.counts())
            })?;
        }
        Ok(())
    }

    /// Stops the run, and returns its report. Check its [`verdict`](Report::verdict).
    ///
    /// # Errors
    /// If the run panicked.
    pub async fn finish(mut self) -> Result<Report, String> {
        self.stop.cancel();
        (&mut self.running).await.map_err(|error| format!("the run panicked: {error}"))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
