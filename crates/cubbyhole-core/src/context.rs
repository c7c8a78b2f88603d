//! The caller's cancellation and deadline.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::{Error, Result, runtime};

/// Cancellation and deadline of the caller; every call of a store takes one.
///
/// A context that has ended is refused before any work is done. One that ends while a call is in
/// flight makes the call return promptly: the write is then applied whole or not at all, and
/// [`Error::may_have_been_applied`] tells whether it certainly had no effect.
/// (`InMemoryStore` ignores its context: its calls never wait for I/O.)
///
/// Cloning is cheap and shares the cancellation. Waiting for a deadline needs a tokio runtime with
/// timers, and answers `InvalidArgument` elsewhere; waiting for cancellation alone needs no runtime.
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
    token: CancellationToken,
    deadline: Option<Instant>,
}

impl ExecutionContext {
    /// A context that never ends by itself.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends when `token` is cancelled, in place of the context's own token.
    #[must_use]
    pub fn with_cancellation(mut self, token: CancellationToken) -> Self {
        self.token = token;
        self
    }

    /// Ends at `deadline`, or at the deadline that it already had if that is earlier.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(self.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
        self
    }

    /// Ends `timeout` from now, or at the deadline that it already had if that is earlier. A
    /// timeout beyond what the clock can count sets no deadline.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        match now().checked_add(timeout) {
            Some(deadline) => self.with_deadline(deadline),
            None => self,
        }
    }

    /// A context that ends with this one and can be cancelled or given a deadline by itself.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token(), deadline: self.deadline }
    }

    /// The token that cancels this context.
    #[must_use]
    pub fn cancellation(&self) -> &CancellationToken {
        &self.token
    }

    /// Cancels this context, its clones and its children.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// When this context ends by itself.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How long until the deadline: zero once it has passed, `None` without one.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(now()))
    }

    /// Refuses a context that has ended.
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

    /// Begins a call: takes part in the runtime's cooperative scheduling, as
    /// [`runtime::cooperate`] does, then refuses a context that has ended.
    ///
    /// A store that honours its context awaits this first in every method, so that a loop over
    /// calls can be timed out and lets other tasks run. It needs no runtime.
    ///
    /// # Errors
    /// `Cancelled` or `DeadlineExceeded`.
    pub async fn begin(&self) -> Result<()> {
        runtime::cooperate().await;
        self.check()
    }

    /// As [`begin`](Self::begin), for a store that needs a tokio runtime with timers.
    ///
    /// # Errors
    /// `InvalidArgument` without one; `Cancelled` or `DeadlineExceeded`.
    pub async fn begin_in_runtime(&self) -> Result<()> {
        runtime::cooperate().await;
        runtime::require_timers()?;
        self.check()
    }

    /// Waits until this context ends, and returns how it ended. Waits indefinitely if it never
    /// does. With a deadline it needs a tokio runtime with timers, and returns an
    /// `InvalidArgument` without waiting where there is none.
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

    /// Runs `future` until it is ready or this context ends, whichever comes first. The future is
    /// not polled at all if the context has already ended, and is dropped when it ends.
    ///
    /// # Errors
    /// `Cancelled` or `DeadlineExceeded`, without any claim about what the future did.
    /// `InvalidArgument` for a future that is not ready immediately, a context with a deadline, and
    /// no tokio runtime with timers.
    pub async fn race<F: Future>(&self, future: F) -> Result<F::Output> {
        self.check()?;
        let mut future = pin!(future);
        tokio::select! {
            biased;
            output = &mut future => Ok(output),
            error = self.ended() => Err(error),
        }
    }

    /// Sleeps for `duration`, or less if this context ends.
    ///
    /// # Errors
    /// `Cancelled` or `DeadlineExceeded`; `InvalidArgument` without a tokio runtime with timers.
    pub async fn sleep(&self, duration: Duration) -> Result<()> {
        runtime::require_timers()?;
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the sleep that ends with its context"
        )]
        self.race(tokio::time::sleep(duration)).await
    }
}

#[expect(clippy::disallowed_methods, reason = "deadlines are judged here and nowhere else")]
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
    fn a_timeout_past_the_clock_sets_no_deadline() {
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
        // None of these futures waits, so that one poll without a runtime answers.
        let mut without = pin!(wait());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(without.as_mut().poll(&mut context).is_ready());
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(wait());
    }

    #[tokio::test]
    async fn a_race_that_has_ended_polls_nothing() {
        let ctx = ExecutionContext::new();
        ctx.cancel();
        let mut polled = false;
        let error = ctx.race(async { polled = true }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert!(!polled);
    }
}
