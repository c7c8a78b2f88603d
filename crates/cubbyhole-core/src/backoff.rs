//! Pauses between attempts that lost against other callers.

use std::time::Duration;

use crate::{ExecutionContext, Result, runtime};

const FIRST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(50);

/// Exponential backoff with full jitter: each pause is drawn between nothing and a limit that
/// doubles from 1 ms to 50 ms.
pub(crate) struct Backoff {
    limit: Duration,
}

impl Backoff {
    pub(crate) const fn new() -> Self {
        Self { limit: FIRST }
    }

    /// Pauses within the context. Without timers, which the store in memory does not need, it
    /// yields instead.
    pub(crate) async fn pause(&mut self, ctx: &ExecutionContext) -> Result<()> {
        let pause = self.limit.mul_f64(fastrand::f64());
        self.limit = (self.limit * 2).min(LONGEST);
        if runtime::require_timers().is_ok() {
            return ctx.sleep(pause).await;
        }
        tokio::task::yield_now().await;
        ctx.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[tokio::test(start_paused = true)]
    async fn a_pause_has_a_limit_that_doubles() {
        let (mut backoff, ctx) = (Backoff::new(), ExecutionContext::new());
        let limits = [1, 2, 4, 8, 16, 32, 50, 50].map(Duration::from_millis);
        for limit in limits {
            assert_eq!(backoff.limit, limit);
            let began = tokio::time::Instant::now();
            backoff.pause(&ctx).await.unwrap();
            // The runtime's timers round up to their millisecond.
            assert!(began.elapsed() <= limit + Duration::from_millis(1), "{limit:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_ends_with_its_context() {
        let mut backoff = Backoff { limit: Duration::from_secs(3600) };
        let ctx = ExecutionContext::new().with_timeout(Duration::from_millis(5));
        let error = backoff.pause(&ctx).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    }
}
