//! Sweeping on a timer.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use tokio::time::Instant;

use crate::runtime::require_timers;
use crate::{Error, ErrorKind, ExecutionContext, Result, Store};

/// Calls [`Store::evict_expired`] again and again until its context ends.
///
/// [`run`](Self::run) is a future: it never spawns. Several sweepers may run on one store at once.
///
/// ```
/// use std::time::Duration;
/// use cubbyhole::{ExecutionContext, InMemoryStore, Sweeper};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let store = InMemoryStore::<String>::new();
/// let shutdown = ExecutionContext::new();
/// let sweeper = Sweeper::new(store.clone()).with_interval(Duration::from_secs(60));
///
/// let ctx = shutdown.clone();
/// let task = tokio::spawn(async move { sweeper.run(&ctx).await });
/// // … and when the service ends:
/// shutdown.cancel();
/// task.await.unwrap().unwrap();
/// # }
/// ```
pub struct Sweeper<V, S> {
    store: S,
    interval: Duration,
    timeout: Option<Duration>,
    jitter: f64,
    random: fastrand::Rng,
    observer: Option<Observer>,
    value: PhantomData<fn() -> V>,
}

type Observer = Box<dyn FnMut(&Sweep) + Send>;

/// One sweep, as an observer sees it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Sweep {
    /// How many entries were removed, or what went wrong.
    pub outcome: Result<usize>,
    /// How long it took.
    pub took: Duration,
    /// How long the wait for the next one is; `None` if there is none.
    pub next: Option<Duration>,
}

/// What a sweeper did in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SweeperStats {
    /// Sweeps that succeeded.
    pub sweeps: u64,
    /// Sweeps that failed.
    pub failures: u64,
    /// Entries removed.
    pub removed: u64,
}

impl<V: Send + 'static, S: Store<V>> Sweeper<V, S> {
    /// A sweeper that sweeps every 60 seconds, give or take a tenth.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self {
            store,
            interval: Duration::from_secs(60),
            timeout: None,
            jitter: 0.1,
            random: fastrand::Rng::new(),
            observer: None,
            value: PhantomData,
        }
    }

    /// Waits that long between sweeps, and at least a millisecond.
    #[must_use]
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval.max(Duration::from_millis(1));
        self
    }

    /// Gives each sweep that long. One that takes longer has failed, also if it removed entries, which
    /// nobody then counts; the next goes on from there, after the usual wait.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Varies each wait by up to this fraction, 0 to 1, so that many sweepers do not keep step.
    #[must_use]
    pub fn with_jitter(mut self, fraction: f64) -> Self {
        self.jitter = if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0) };
        self
    }

    /// Draws the jitter from this seed, so that a test can be repeated.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.random = fastrand::Rng::with_seed(seed);
        self
    }

    /// Tells of every sweep: for logs and metrics.
    #[must_use]
    pub fn with_observer(mut self, observer: impl FnMut(&Sweep) + Send + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Sweeps at once and then on the timer, until the context ends. While the backend is
    /// unavailable it waits longer and longer, up to sixteen intervals.
    ///
    /// Needs a tokio runtime with time enabled.
    ///
    /// # Errors
    /// A failure that waiting does not mend: `Unsupported`, `PermissionDenied` and the like.
    /// `InvalidArgument` without a tokio runtime with timers. The end of the context is no error.
    pub async fn run(mut self, ctx: &ExecutionContext) -> Result<SweeperStats> {
        require_timers()?;
        let mut stats = SweeperStats::default();
        let mut failures_in_a_row = 0_u32;
        while ctx.check().is_ok() {
            let started = Instant::now();
            // The sweep gets the context too, and ends promptly by itself.
            let outcome = match self.timeout {
                Some(timeout) => self.store.evict_expired(&ctx.clone().with_timeout(timeout)).await,
                None => self.store.evict_expired(ctx).await,
            };
            let took = started.elapsed();
            let ended = ctx.check().is_err();
            match &outcome {
                Ok(removed) => {
                    stats.sweeps += 1;
                    stats.removed += *removed as u64;
                    failures_in_a_row = 0;
                }
                Err(_) if ended => {}
                // It was at work: the next one goes on from there, and soon.
                Err(error)
                    if self.timeout.is_some() && error.kind() == ErrorKind::DeadlineExceeded =>
                {
                    stats.failures += 1;
                    failures_in_a_row = 0;
                }
                Err(_) => {
                    stats.failures += 1;
                    failures_in_a_row += 1;
                }
            }
            let goes_on = outcome.as_ref().err().is_none_or(mends_itself);
            let wait = self.interval.saturating_mul(1 << failures_in_a_row.min(4));
            let next = (goes_on && !ended).then(|| self.jittered(wait));
            if let Some(observer) = &mut self.observer {
                observer(&Sweep { outcome: outcome.clone(), took, next });
            }
            match (next, outcome) {
                (Some(wait), _) if ctx.sleep(wait).await.is_ok() => {}
                (None, Err(error)) if !ended => return Err(error),
                _ => break,
            }
        }
        Ok(stats)
    }

    fn jittered(&mut self, wait: Duration) -> Duration {
        let factor = 1.0 + self.jitter * (2.0 * self.random.f64() - 1.0);
        Duration::try_from_secs_f64(wait.as_secs_f64() * factor).unwrap_or(wait)
    }
}

fn mends_itself(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unavailable
            | ErrorKind::ResourceExhausted
            | ErrorKind::DeadlineExceeded
            | ErrorKind::Conflict
    )
}

impl<V, S: fmt::Debug> fmt::Debug for Sweeper<V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sweeper")
            .field("store", &self.store)
            .field("interval", &self.interval)
            .field("jitter", &self.jitter)
            .finish_non_exhaustive()
    }
}
