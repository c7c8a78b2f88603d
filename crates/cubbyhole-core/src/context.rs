//! The caller's cancellation and deadline.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::{Error, Result, runtime};

/// The caller's cancellation and deadline. Every call of a store takes one.
///
/// A call with a context that has ended is refused before it does any work. If the context ends
/// during a call, the call returns promptly. A write is then applied completely or not at all, and
/// [`Error::may_have_been_applied`] is false if it certainly had no effect. `InMemoryStore` ignores
/// its context, because its calls do not wait.
///
/// Clones share the cancellation and are cheap. A context with a deadline needs a tokio runtime with
/// timers; elsewhere, waiting returns `InvalidArgument`. Cancellation alone needs no runtime.
///
/// ```
/// use std::time::Duration;
/// use cubbyhole::{ErrorKind, ExecutionContext};
///
/// let request = ExecutionContext::new().with_timeout(Duration::from_secs(30));
/// let step = request.child().with_timeout(Duration::from_secs(5));
/// assert!(step.remaining() <= request.remaining());
///
/// request.cancel();
/// assert_eq!(step.check().unwrap_err().kind(), ErrorKind::Cancelled);
/// ```
#[derive(Debug, Clone, Default)]
pub struct ExecutionContext {
    /// In an `Arc`, because cloning a token takes its lock, and a layer can clone the context of every
    /// call.
    token: Arc<CancellationToken>,
    deadline: Option<Instant>,
}

impl ExecutionContext {
    /// Creates a context without a deadline.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the cancellation token.
    #[must_use]
    pub fn with_cancellation(mut self, token: CancellationToken) -> Self {
        self.token = Arc::new(token);
        self
    }

    /// Sets a deadline. An earlier deadline that is already set stays.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(self.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
        self
    }

    /// Sets a deadline `timeout` from now. An earlier deadline that is already set stays. A timeout
    /// that overflows the clock sets no deadline.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        match now().checked_add(timeout) {
            Some(deadline) => self.with_deadline(deadline),
            None => self,
        }
    }

    /// Returns a context that ends with this one. It can also be cancelled, or get an earlier
    /// deadline, separately.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { token: Arc::new(self.token.child_token()), deadline: self.deadline }
    }

    /// Returns the token that cancels this context.
    #[must_use]
    pub fn cancellation(&self) -> &CancellationToken {
        &self.token
    }

    /// Cancels this context, its clones and its children.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Returns the deadline.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns the time until the deadline: zero if it has passed, `None` without a deadline.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(now()))
    }

    /// Returns an error if the context has ended.
    ///
    /// # Errors
    /// `Cancelled` or `DeadlineExceeded`.
    pub fn check(&self) -> Result<()> {
        if self.token.is_cancelled() {
            return Err(Error::cancelled());
        }
        match self.deadline {
            Some(deadline) if now() >= deadline => Err(Error::deadline_exceeded()),
            _ => Ok(()),
        }
    }

    /// Begins a call: cooperates with the scheduler, as [`runtime::cooperate`] does, then returns an
    /// error if the context has ended.
    ///
    /// A store awaits this first in every method. A loop over calls can then be timed out and lets
    /// other tasks run. Needs no runtime.
    ///
    /// # Errors
    /// `Cancelled` or `DeadlineExceeded`.
    pub async fn begin(&self) -> Result<()> {
        runtime::cooperate().await;
        self.check()
    }

    /// Begins a call as [`begin`](Self::begin) does, for a store that needs a tokio runtime with
    /// timers.
    ///
    /// # Errors
    /// `InvalidArgument` without a runtime or without timers; `Cancelled` or `DeadlineExceeded`.
    pub async fn begin_in_runtime(&self) -> Result<()> {
        runtime::cooperate().await;
        runtime::require_timers()?;
        self.check()
    }

    /// Waits until this context ends, and returns the error of its end.
    ///
    /// Waits indefinitely if the context never ends. A context with a deadline needs a tokio runtime
    /// with timers; without one the method returns `InvalidArgument` immediately.
    pub async fn ended(&self) -> Error {
        let Some(deadline) = self.deadline else {
            self.token.cancelled().await;
            return Error::cancelled();
        };
        if let Err(error) = runtime::require_timers() {
            return error;
        }
        tokio::select! {
            biased;
            () = self.token.cancelled() => Error::cancelled(),
            () = tokio::time::sleep_until(deadline.into()) => Error::deadline_exceeded(),
        }
    }

    /// Runs `future` until it is ready or this context ends.
    ///
    /// If the context has already ended, the future is not polled. When the context ends, the future
    /// is dropped.
    ///
    /// # Errors
    /// - `Cancelled` or `DeadlineExceeded`: the context ended. The future may have had effects.
    /// - `InvalidArgument`: the future is not ready immediately, the context has a deadline, and there
    ///   is no tokio runtime with timers.
    pub async fn race<F: Future>(&self, future: F) -> Result<F::Output> {
        self.check()?;
        let mut future = pin!(future);
        tokio::select! {
            biased;
            output = &mut future => Ok(output),
            error = self.ended() => Err(error),
        }
    }

    /// Sleeps for `duration`, or until this context ends.
    ///
    /// # Errors
    /// `Cancelled` or `DeadlineExceeded`; `InvalidArgument` without a tokio runtime with timers.
    pub async fn sleep(&self, duration: Duration) -> Result<()> {
        runtime::require_timers()?;
        #[expect(clippy::disallowed_methods, reason = "the one sleep that a context can interrupt")]
        self.race(tokio::time::sleep(duration)).await
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that evaluates deadlines")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn the_earlier_deadline_wins() {
        let ctx = ExecutionContext::new().with_timeout(Duration::from_secs(1));
        let deadline = ctx.deadline();
        assert_eq!(ctx.with_timeout(Duration::from_secs(60)).deadline(), deadline);
    }

    #[test]
    fn overflowing_timeout_sets_no_deadline() {
        assert_eq!(ExecutionContext::new().with_timeout(Duration::MAX).deadline(), None);
    }

    #[test]
    fn a_child_ends_with_its_parent_and_not_the_reverse() {
        let parent = ExecutionContext::new();
        let first = parent.child();
        let second = parent.child();
        first.cancel();
        assert!(parent.check().is_ok());
        assert!(second.check().is_ok());
        parent.cancel();
        assert_eq!(second.check().unwrap_err().kind(), ErrorKind::Cancelled);
    }

    #[tokio::test(start_paused = true)]
    async fn a_race_ends_at_the_deadline() {
        let ctx = ExecutionContext::new().with_timeout(Duration::from_millis(20));
        let error = ctx.race(std::future::pending::<()>()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    }

    #[test]
    fn waiting_without_timers_is_an_error() {
        let forever = ExecutionContext::new();
        let limited = forever.child().with_timeout(Duration::from_secs(3600));
        let wait = || async {
            let pending = std::future::pending::<()>;
            let errors = [
                forever.sleep(Duration::from_millis(1)).await.unwrap_err(),
                limited.sleep(Duration::from_millis(1)).await.unwrap_err(),
                limited.race(pending()).await.unwrap_err(),
                limited.ended().await,
            ];
            for error in errors {
                assert_eq!(error.kind(), ErrorKind::InvalidArgument);
                assert!(error.message().contains("tokio runtime"), "{error}");
            }
            assert_eq!(limited.race(async { 1 }).await.unwrap(), 1);
            limited.begin().await.unwrap();
        };
        // None of these futures waits, so one poll without a runtime completes them.
        let mut without = pin!(wait());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(without.as_mut().poll(&mut context).is_ready());
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(wait());
    }

    #[tokio::test]
    async fn race_of_an_ended_context_polls_nothing() {
        let ctx = ExecutionContext::new();
        ctx.cancel();
        let mut polled = false;
        let error = ctx.race(async { polled = true }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert!(!polled);
    }
}
