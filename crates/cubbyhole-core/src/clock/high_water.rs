//! [`HighWaterClock`]: the time of a store, which never goes back and never stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use super::Clock;
use crate::Timestamp;

/// The time of a store: the later of the wall clock ([`Clock::now`]) and the high-water mark plus the
/// monotonic time since ([`Clock::elapsed`]).
///
/// The high-water mark is the latest time that the wall clock has shown, or that the store has saved
/// when it was last open. A wall clock that steps back therefore revives no expired entry, and TTLs
/// keep counting while it is behind.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use cubbyhole::{Clock, HighWaterClock, ManualClock, Timestamp};
///
/// let wall = ManualClock::default();
/// let time = HighWaterClock::new(Arc::new(wall.clone()), Timestamp::EPOCH);
/// let mark = time.now();
/// wall.set(Timestamp::EPOCH);
/// wall.advance(Duration::from_secs(2));
/// assert_eq!(time.now().saturating_since(mark), Duration::from_secs(2));
/// ```
#[derive(Debug)]
pub struct HighWaterClock {
    inner: Arc<dyn Clock>,
    is_real_time: bool,
    /// The last reading of the inner clock, in milliseconds.
    wall: AtomicU64,
    /// The latest time that was returned, in milliseconds.
    time: AtomicU64,
    /// The maximum of `now - elapsed` over all readings, in microseconds. The sum of it and `elapsed` is
    /// the high-water mark plus the monotonic time since.
    offset: AtomicI64,
}

impl HighWaterClock {
    /// Wraps `inner`. The time starts at `mark` or at the time of `inner`, if that is later.
    #[must_use]
    pub fn new(inner: Arc<dyn Clock>, mark: Timestamp) -> Self {
        let offset = offset(mark, inner.elapsed());
        Self {
            is_real_time: inner.is_real_time(),
            inner,
            // A value that no clock shows.
            wall: AtomicU64::new(u64::MAX),
            time: AtomicU64::new(mark.as_millis()),
            offset: AtomicI64::new(offset),
        }
    }

    /// Returns how far this clock is ahead of the inner clock. It is more than zero if the inner clock
    /// is behind now, or was ahead earlier.
    #[must_use]
    pub fn lead(&self) -> Duration {
        self.now().saturating_since(self.inner.now())
    }
}

#[deny(clippy::missing_trait_methods)]
impl Clock for HighWaterClock {
    fn now(&self) -> Timestamp {
        let wall = self.inner.now();
        // Fast path: the clock still shows the same millisecond. It needs one clock reading and plain
        // loads, so other cores keep the cache line.
        let millis = if self.is_real_time && self.wall.load(Ordering::Acquire) == wall.as_millis() {
            self.time.load(Ordering::Relaxed)
        } else {
            self.advance(wall)
        };
        Timestamp::from_millis(millis).unwrap_or(Timestamp::MAX)
    }

    fn elapsed(&self) -> Duration {
        self.inner.elapsed()
    }

    fn is_real_time(&self) -> bool {
        self.is_real_time
    }
}

impl HighWaterClock {
    /// Updates the high-water mark with the reading `wall`, and returns the time in milliseconds.
    fn advance(&self, wall: Timestamp) -> u64 {
        // Read after `wall`. A thread that is suspended between the two readings then underestimates
        // the offset, which is harmless. In the other order it would set the time ahead permanently.
        let elapsed = self.inner.elapsed();
        let seen = offset(wall, elapsed);
        let offset = self.offset.fetch_max(seen, Ordering::AcqRel).max(seen);
        let passed = offset.saturating_add(micros(elapsed)).max(0) as u64 / 1000;
        let time = passed.max(wall.as_millis());
        let time = self.time.fetch_max(time, Ordering::AcqRel).max(time);
        self.wall.store(wall.as_millis(), Ordering::Release);
        time
    }
}

/// Returns `instant - elapsed` in microseconds, rounded down. Rounded up, the time would run ahead of a
/// correct clock.
fn offset(instant: Timestamp, elapsed: Duration) -> i64 {
    let fraction = !elapsed.subsec_nanos().is_multiple_of(1000);
    // No overflow: the year 9999 in microseconds is far below 2^63.
    (instant.as_millis() as i64 * 1000).saturating_sub(micros(elapsed)) - i64::from(fraction)
}

fn micros(duration: Duration) -> i64 {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    seconds.saturating_mul(1_000_000).saturating_add(i64::from(duration.subsec_micros()))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;
    use crate::{ManualClock, SystemClock};

    const HOUR: Duration = Duration::from_secs(3600);

    fn later(instant: Timestamp, by: Duration) -> Timestamp {
        instant.checked_add(by).unwrap()
    }

    #[test]
    fn the_high_water_mark_never_goes_back() {
        let manual = ManualClock::default();
        let clock = HighWaterClock::new(Arc::new(manual.clone()), Timestamp::EPOCH);
        let before = clock.now();
        manual.set(Timestamp::EPOCH);
        assert_eq!(clock.now(), before);
        manual.set(later(before, Duration::from_millis(5)));
        assert_eq!(clock.now().saturating_since(before), Duration::from_millis(5));
    }

    #[test]
    fn time_passes_from_a_mark_that_is_ahead_of_the_clock() {
        let manual = ManualClock::default();
        let mark = later(manual.now(), 24 * HOUR);
        let clock = HighWaterClock::new(Arc::new(manual.clone()), mark);
        assert_eq!((clock.now(), clock.lead()), (mark, 24 * HOUR));
        manual.advance(Duration::from_millis(2));
        assert_eq!(clock.now().saturating_since(mark), Duration::from_millis(2));
        // A clock that catches up is not counted twice.
        manual.set(later(mark, HOUR));
        assert_eq!((clock.now(), clock.lead()), (later(mark, HOUR), Duration::ZERO));
    }

    /// The clock steps back and advances between two readings.
    #[test]
    fn time_advances_between_readings() {
        let manual = ManualClock::default();
        let clock = HighWaterClock::new(Arc::new(manual.clone()), Timestamp::EPOCH);
        let start = manual.now();
        manual.set(later(start, HOUR));
        let mark = clock.now();
        manual.set(start);
        // The clock shows the same time as at its last reading.
        manual.advance(HOUR);
        assert_eq!(clock.now().saturating_since(mark), HOUR);
    }

    /// A wall clock that a test sets, while real time passes.
    #[derive(Debug)]
    struct Stepping(Mutex<i64>);

    impl Clock for Stepping {
        fn now(&self) -> Timestamp {
            let millis = SystemClock.now().as_millis() as i64 + *self.0.lock().unwrap();
            Timestamp::from_millis(millis as u64).unwrap()
        }
    }

    #[test]
    fn default_elapsed_is_the_system_monotonic_clock() {
        let wall = Arc::new(Stepping(Mutex::new(3_600_000)));
        let clock = HighWaterClock::new(wall.clone(), Timestamp::EPOCH);
        let mark = clock.now();
        *wall.0.lock().unwrap() = 0;
        let began = wall.elapsed();
        while wall.elapsed() - began < Duration::from_millis(20) {
            std::thread::yield_now();
        }
        assert!(clock.now().saturating_since(mark) >= Duration::from_millis(10));
    }

    #[test]
    fn system_clock_time_is_unchanged() {
        let clock = HighWaterClock::new(Arc::new(SystemClock), Timestamp::EPOCH);
        let mut last = clock.now();
        let mut shown = SystemClock.now();
        for _ in 0..100_000 {
            let (before, now, after) = (SystemClock.now(), clock.now(), SystemClock.now());
            assert!(last <= now, "it went back");
            if before < shown || after < before {
                // The machine's clock was set back during the test.
                return;
            }
            assert!(before <= now && now <= after, "{before} {now} {after}");
            (last, shown) = (now, after);
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Advance(u64),
        Set(u64),
        Read,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u64..5_000).prop_map(Step::Advance),
            (0_u64..20_000).prop_map(Step::Set),
            Just(Step::Read),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// The time is the later of the clock and the latest mark plus the time since.
        #[test]
        fn time_matches_its_definition(
            mark in 0_u64..20_000,
            steps in prop::collection::vec(step(), 0..40),
        ) {
            let at = |millis| Timestamp::from_millis(millis).unwrap();
            let manual = ManualClock::new(at(10_000));
            let clock = HighWaterClock::new(Arc::new(manual.clone()), at(mark));
            let (mut time, mut since) = (mark, 0);
            for step in steps {
                match step {
                    Step::Advance(millis) => {
                        manual.advance(Duration::from_millis(millis));
                        since += millis;
                    }
                    Step::Set(millis) => manual.set(at(millis)),
                    Step::Read => {
                        time = (time + since).max(manual.now().as_millis());
                        since = 0;
                        prop_assert_eq!(clock.now(), at(time));
                    }
                }
            }
        }
    }

    #[test]
    fn the_time_stops_at_the_end_of_the_year_9999() {
        let manual = ManualClock::new(Timestamp::EPOCH);
        let clock = HighWaterClock::new(Arc::new(manual.clone()), Timestamp::MAX);
        manual.advance(Duration::MAX);
        assert_eq!(clock.now(), Timestamp::MAX);
    }
}
