//! The retry budget: a token bucket that calls fill and retries empty.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One retry, in the unit of the bucket. A share of calls is exact to a millionth.
const RETRY: u64 = 1_000_000;

/// A token bucket. In any period it grants at most `reserve` retries plus a share of the calls.
#[derive(Debug)]
pub(super) struct Budget {
    share: u64,
    capacity: u64,
    level: AtomicU64,
}

impl Budget {
    /// Creates a full bucket. `share` is from 0 to 1.
    pub(super) fn new(share: f64, reserve: u32) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "the share is checked, so the product is from 0 to RETRY"
        )]
        let share = (share * RETRY as f64).round() as u64;
        let capacity = u64::from(reserve) * RETRY;
        Self { share, capacity, level: AtomicU64::new(capacity) }
    }

    /// Counts a call. A full bucket is only read, so callers on other cores do not contend for it.
    #[inline]
    pub(super) fn deposit(&self) {
        if self.level.load(Relaxed) < self.capacity {
            // Concurrent calls may overfill the bucket by their shares. These are earned as well.
            self.level.fetch_add(self.share, Relaxed);
        }
    }

    /// Takes one retry. Returns false if the bucket holds less than one.
    pub(super) fn withdraw(&self) -> bool {
        self.level.fetch_update(Relaxed, Relaxed, |level| level.checked_sub(RETRY)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retries_left(budget: &Budget) -> usize {
        std::iter::from_fn(|| budget.withdraw().then_some(())).count()
    }

    #[test]
    fn full_bucket_grants_the_reserve_only() {
        let budget = Budget::new(0.2, 3);
        for _ in 0..1_000 {
            budget.deposit();
        }
        assert_eq!(retries_left(&budget), 3);
    }

    #[test]
    fn five_calls_earn_one_retry_at_a_fifth() {
        let budget = Budget::new(0.2, 1);
        assert_eq!(retries_left(&budget), 1);
        for calls in 1..=4 {
            budget.deposit();
            assert!(!budget.withdraw(), "after {calls} calls");
        }
        budget.deposit();
        assert_eq!(retries_left(&budget), 1);
    }

    #[test]
    fn empty_reserve_grants_nothing() {
        let budget = Budget::new(1.0, 0);
        budget.deposit();
        assert_eq!(retries_left(&budget), 0);
    }
}
