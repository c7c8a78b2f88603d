//! [`RetryOptions`].

use std::time::Duration;

use cubbyhole_core::{Error, Result};

/// The options of a [`Retry`](super::Retry) layer: its budget, its pauses, and its attempts.
///
/// ```
/// use std::time::Duration;
/// use cubbyhole_layers::RetryOptions;
///
/// let options = RetryOptions::new().with_budget(0.1).with_max_backoff(Duration::from_millis(500));
/// assert!(options.check().is_ok());
/// assert!(options.with_budget(1.5).check().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryOptions {
    pub(super) budget: f64,
    pub(super) reserve: u32,
    pub(super) max_attempts: u32,
    pub(super) base_backoff: Duration,
    pub(super) max_backoff: Duration,
}

impl RetryOptions {
    /// Creates the default options: a budget of 0.2 with a reserve of 100, 10 attempts, and backoff
    /// from 10 ms to 1 s.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            budget: 0.2,
            reserve: 100,
            max_attempts: 10,
            base_backoff: Duration::from_millis(10),
            max_backoff: Duration::from_secs(1),
        }
    }

    /// Sets the share of calls that may be retried, from 0 to 1. The default is 0.2.
    ///
    /// In any period, the layer makes at most `share` retries for each call, plus the
    /// [reserve](Self::with_reserve). With 0, only the reserve is left.
    #[must_use]
    pub const fn with_budget(mut self, share: f64) -> Self {
        self.budget = share;
        self
    }

    /// Sets how many retries the budget holds when it is full. The default is 100.
    ///
    /// The budget is full at the start, and calls refill it up to this number. The reserve lets a
    /// program with few calls retry. It also serves the calls in flight when a server fails over. With
    /// 0, the layer retries nothing.
    #[must_use]
    pub const fn with_reserve(mut self, retries: u32) -> Self {
        self.reserve = retries;
        self
    }

    /// Sets how many calls of the inner store one call may cost, at least 1. The default is 10.
    ///
    /// The first attempt counts, and so do the reads that settle an unknown outcome.
    #[must_use]
    pub const fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Sets the limit of the first pause. The default is 10 ms.
    ///
    /// The limit doubles with each pause, up to [`max_backoff`](Self::with_max_backoff). Each pause is
    /// random between zero and the limit.
    #[must_use]
    pub const fn with_base_backoff(mut self, pause: Duration) -> Self {
        self.base_backoff = pause;
        self
    }

    /// Sets the limit of every pause. The default is 1 s. A longer
    /// [`retry_after`](cubbyhole_core::Error::retry_after) is honoured nevertheless.
    #[must_use]
    pub const fn with_max_backoff(mut self, pause: Duration) -> Self {
        self.max_backoff = pause;
        self
    }

    /// Checks the options.
    ///
    /// # Errors
    /// `InvalidArgument` for a budget outside 0 to 1, for zero attempts, and for a base backoff that is
    /// zero or longer than the maximum.
    pub fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.budget) {
            let budget = self.budget;
            return Err(Error::invalid_argument(format!(
                "the retry budget {budget} is not a share of calls: set it from 0 to 1"
            )));
        }
        if self.max_attempts == 0 {
            return Err(Error::invalid_argument(
                "a retry layer needs at least 1 attempt (max_attempts)",
            ));
        }
        let (base, max) = (self.base_backoff, self.max_backoff);
        if base.is_zero() || base > max {
            return Err(Error::invalid_argument(format!(
                "the base backoff {base:?} must be more than zero and at most the maximum {max:?}"
            )));
        }
        Ok(())
    }
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self::new()
    }
}
