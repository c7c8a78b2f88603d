//! [`Sweeper`]: periodic removal of expired entries.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use tokio::time::Instant;

use crate::runtime::require_timers;
use crate::{Error, ErrorKind, ExecutionContext, Result, Store};

/// Calls [`Store::evict_expired`] periodically until its context ends.
///
/// [`run`](Self::run) is a future and spawns no task. Several sweepers may run on one store.
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
/// // When the service shuts down:
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

/// The result of one sweep, as an observer receives it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Sweep {
    /// The number of removed entries, or the error.
    pub outcome: Result<usize>,
    /// The duration of the sweep.
    pub took: Duration,
    /// The wait until the next sweep. `None` if there is no next sweep.
    pub next: Option<Duration>,
}

/// The totals of a sweeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SweeperStats {
    /// Number of successful sweeps.
    pub sweeps: u64,
    /// Number of failed sweeps.
    pub failures: u64,
    /// Number of removed entries.
    pub removed: u64,
}

impl<V: Send + 'static, S: Store<V>> Sweeper<V, S> {
    /// Creates a sweeper with an interval of 60 s and a jitter of 10 %.
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

    /// Sets the wait between sweeps. The minimum is a millisecond.
    #[must_use]
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval.max(Duration::from_millis(1));
        self
    }

    /// Sets a timeout for each sweep.
    ///
    /// A sweep that exceeds it fails. The entries that it removed stay removed but are not counted.
    /// The next sweep continues after the usual wait.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the jitter: each wait varies by up to this fraction, 0 to 1. It prevents many sweepers from
    /// running in step.
    #[must_use]
    pub fn with_jitter(mut self, fraction: f64) -> Self {
        self.jitter = if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0) };
        self
    }

    /// Sets the seed of the jitter, for reproducible tests.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.random = fastrand::Rng::with_seed(seed);
        self
    }

    /// Sets a function that receives the result of every sweep, for logs and metrics.
    #[must_use]
    pub fn with_observer(mut self, observer: impl FnMut(&Sweep) + Send + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Sweeps immediately and then periodically, until the context ends.
    ///
    /// After each consecutive failure the wait doubles, up to sixteen intervals. Needs a tokio runtime
    /// with timers.
    ///
    /// # Errors
    /// - A permanent failure of a sweep, such as `Unsupported` or `PermissionDenied`.
    /// - `InvalidArgument` without a tokio runtime with timers.
    ///
    /// The end of the context is not an error.
    pub async fn run(mut self, ctx: &ExecutionContext) -> Result<SweeperStats> {
        require_timers()?;
        let mut stats = SweeperStats::default();
        let mut failures_in_a_row = 0_u32;
        while ctx.check().is_ok() {
            let started = Instant::now();
            // The sweep receives the context too, so it ends promptly.
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
                // A timed-out sweep made progress, so the next one follows after the usual wait.
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
            let continues = outcome.as_ref().err().is_none_or(is_transient);
            let wait = self.interval.saturating_mul(1 << failures_in_a_row.min(4));
            let next = (continues && !ended).then(|| self.jittered(wait));
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

fn is_transient(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unavailable
            | ErrorKind::ResourceExhausted
            | ErrorKind::RateLimited
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
