//! The attempts of one call after the first one failed: how many, and the pauses between them.

use std::time::Duration;

use cubbyhole_core::{Error, ExecutionContext, runtime};

use super::budget::Budget;
use super::options::RetryOptions;

/// Decides whether a call may go on, and pauses.
pub(super) struct Attempts<'a> {
    ctx: &'a ExecutionContext,
    budget: &'a Budget,
    options: &'a RetryOptions,
    /// Calls of the inner store so far.
    made: u32,
    pauses: u32,
}

impl<'a> Attempts<'a> {
    /// Starts after the first attempt has failed.
    pub(super) const fn after_first(
        ctx: &'a ExecutionContext,
        budget: &'a Budget,
        options: &'a RetryOptions,
    ) -> Self {
        Self { ctx, budget, options, made: 1, pauses: 0 }
    }

    /// Pauses after `error`. Returns whether another call of the inner store may follow.
    ///
    /// Returns false immediately if the context has no time left for the pause, if attempts or budget
    /// are used up, or if the runtime has no timers.
    pub(super) async fn pause(&mut self, error: &Error) -> bool {
        if self.made >= self.options.max_attempts || runtime::require_timers().is_err() {
            return false;
        }
        let pause = self.draw_pause(error.retry_after());
        let has_time = self.ctx.remaining().is_none_or(|remaining| pause < remaining);
        if !has_time || self.ctx.check().is_err() || !self.take() {
            return false;
        }
        self.pauses = self.pauses.saturating_add(1);
        self.ctx.sleep(pause).await.is_ok()
    }

    /// Takes another call of the inner store, without a pause. Returns false if attempts or
    /// budget are used up.
    pub(super) fn take(&mut self) -> bool {
        let granted = self.made < self.options.max_attempts && self.budget.withdraw();
        self.made += u32::from(granted);
        granted
    }

    /// Draws a pause with full jitter. A pause that the server asks for is extended by it, so callers
    /// that were refused together do not return together.
    fn draw_pause(&self, retry_after: Option<Duration>) -> Duration {
        let factor = 1_u32.checked_shl(self.pauses).unwrap_or(u32::MAX);
        let limit = self.options.base_backoff.saturating_mul(factor).min(self.options.max_backoff);
        limit.mul_f64(fastrand::f64()).saturating_add(retry_after.unwrap_or_default())
    }
}
