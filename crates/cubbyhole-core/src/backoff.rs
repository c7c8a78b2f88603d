//! Pauses between attempts that lost against other callers.

use std::time::{Duration, Instant};

use crate::context::now;
use crate::{ExecutionContext, Result, runtime};

/// The least unit: what an attempt takes at a fast store.
const LEAST_UNIT: Duration = Duration::from_millis(1);
/// How many units the limit grows to.
const MOST_UNITS: u32 = 50;
const LONGEST: Duration = Duration::from_secs(1);

/// Exponential backoff with full jitter. Each pause is drawn between nothing and a limit that
/// doubles from one unit to 50. The unit is a millisecond, or the time that the lost attempt took if
/// that is longer: at a slow store, pauses shorter than an attempt would not keep callers apart.
pub(crate) struct Backoff {
    lost: u32,
    began: Instant,
}

impl Backoff {
    /// Before the first attempt.
    pub(crate) fn new() -> Self {
        Self { lost: 0, began: now() }
    }

    /// Pauses after a lost attempt, within the context. Without timers, which the store in memory
    /// does not need, it yields instead.
    pub(crate) async fn pause(&mut self, ctx: &ExecutionContext) -> Result<()> {
        let pause = limit(self.lost, now() - self.began).mul_f64(fastrand::f64());
        self.lost = self.lost.saturating_add(1);
        if runtime::require_timers().is_ok() {
            ctx.sleep(pause).await?;
        } else {
            tokio::task::yield_now().await;
            ctx.check()?;
        }
        self.began = now();
        Ok(())
    }
}

/// The longest pause after so many lost attempts, the last of which took that long.
fn limit(lost: u32, took: Duration) -> Duration {
    let units = 1_u32.checked_shl(lost).unwrap_or(MOST_UNITS).min(MOST_UNITS);
    took.max(LEAST_UNIT).saturating_mul(units).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn the_limit_doubles_from_one_unit_to_fifty() {
        for (unit, took) in [(1, 0), (1, 1), (3, 3)] {
            let limits = [1, 2, 4, 8, 16, 32, 50, 50, 50].map(|n| Duration::from_millis(n * unit));
            let took = Duration::from_millis(took);
            assert_eq!([0, 1, 2, 3, 4, 5, 6, 31, u32::MAX].map(|lost| limit(lost, took)), limits);
        }
        assert_eq!(limit(0, Duration::MAX), LONGEST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_ends_with_its_context() {
        let ctx = ExecutionContext::new().with_timeout(Duration::from_secs(3_600));
        let mut backoff = Backoff::new();
        for _ in 0..20 {
            backoff.pause(&ctx).await.unwrap();
        }
        ctx.cancel();
        assert_eq!(backoff.pause(&ctx).await.unwrap_err().kind(), ErrorKind::Cancelled);
        let late = ExecutionContext::new().with_timeout(Duration::ZERO);
        assert_eq!(backoff.pause(&late).await.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    }
}
