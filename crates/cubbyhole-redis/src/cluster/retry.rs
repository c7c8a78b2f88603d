//! Retries of one call.

use std::time::Duration;

use cubbyhole_core::{ExecutionContext, Result};

/// How often a call follows redirections without a pause.
const REDIRECTIONS_AT_ONCE: u32 = 5;
/// The first pause; each is twice the one before, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// For how long a call goes on trying.
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

    /// A request of its own follows redirections of its own.
    pub(super) fn begin_request(&mut self) {
        self.redirections = 0;
    }

    /// Whether to follow a redirection without a pause.
    pub(super) fn follows_redirection(&mut self) -> bool {
        self.redirections += 1;
        self.redirections <= REDIRECTIONS_AT_ONCE
    }

    /// Whether to try again, after a pause that differs from caller to caller.
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
