//! The retry limit of one call.

use std::time::Duration;

use cubbyhole_core::{ExecutionContext, Result};

/// The number of redirections that a request follows without a pause.
const MAX_REDIRECTIONS_WITHOUT_PAUSE: u32 = 5;
/// The first pause of the exponential backoff.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// The retry state of a call, which may send several requests.
pub(crate) struct Retry {
    timeout: Duration,
    limit: Option<ExecutionContext>,
    pause: Duration,
    redirections: u32,
}

impl Retry {
    pub(super) const fn new(timeout: Duration) -> Self {
        Self { timeout, limit: None, pause: FIRST_PAUSE, redirections: 0 }
    }

    /// Begins the next request, whose redirections are counted separately.
    pub(super) fn begin_request(&mut self) {
        self.redirections = 0;
    }

    /// Counts a redirection, and returns whether to follow it without a pause.
    pub(super) fn follows_redirection(&mut self) -> bool {
        self.redirections += 1;
        self.redirections <= MAX_REDIRECTIONS_WITHOUT_PAUSE
    }

    /// Waits for a pause with jitter and returns true, or returns false if the retry limit is
    /// exceeded.
    pub(crate) async fn wait(&mut self, ctx: &ExecutionContext) -> Result<bool> {
        if self.timeout.is_zero() {
            return Ok(false);
        }
        let timeout = self.timeout;
        let limit = self.limit.get_or_insert_with(|| ExecutionContext::new().with_timeout(timeout));
        if limit.check().is_err() {
            return Ok(false);
        }
        ctx.sleep(self.pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await?;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.redirections = 0;
        Ok(true)
    }
}
