//! Backoff between attempts that failed with a conflict.

use std::time::{Duration, Instant};

use crate::context::now;
use crate::{ExecutionContext, Result, runtime};

/// The minimum unit: about the time of an attempt on a fast store.
const MIN_UNIT: Duration = Duration::from_millis(1);
/// The maximum number of units.
const MAX_UNITS: u32 = 50;
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Exponential backoff with full jitter.
///
/// Each pause is random between zero and a limit that doubles from 1 to 50 units. The unit is the time
/// of the failed attempt, but at least a millisecond. On a slow store, pauses shorter than an attempt
/// would not separate the callers.
///
/// [`EntryStoreExt::update`](crate::EntryStoreExt::update) uses it. Use it in a loop of your own that
/// repeats a conditional write.
///
/// ```
/// use cubbyhole::{Backoff, ExecutionContext};
///
/// # #[tokio::main] async fn main() -> cubbyhole::Result<()> {
/// let ctx = ExecutionContext::new();
/// let mut backoff = Backoff::new();
/// // The first attempt failed with a conflict.
/// backoff.pause(&ctx).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Backoff {
    lost: u32,
    began: Instant,
}

impl Backoff {
    /// Starts measuring the first attempt.
    #[must_use]
    pub fn new() -> Self {
        Self { lost: 0, began: now() }
    }

    /// Pauses after a failed attempt, or until the context ends. Without timers, which the in-memory
    /// store does not need, it yields instead.
    ///
    /// # Errors
    /// `Cancelled` or `DeadlineExceeded`: the context ended.
    pub async fn pause(&mut self, ctx: &ExecutionContext) -> Result<()> {
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

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the maximum pause after `lost` failed attempts, the last of which took `took`.
fn limit(lost: u32, took: Duration) -> Duration {
    let units = 1_u32.checked_shl(lost).unwrap_or(MAX_UNITS).min(MAX_UNITS);
    took.max(MIN_UNIT).saturating_mul(units).min(MAX_PAUSE)
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
        assert_eq!(limit(0, Duration::MAX), MAX_PAUSE);
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
