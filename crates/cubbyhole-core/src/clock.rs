//! Clocks that decide expiry in the memory and embedded stores.

mod high_water;

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use crate::Timestamp;

pub use high_water::HighWaterClock;

/// The clock of a memory or embedded store. Remote backends use the clock of their server.
///
/// A store derives its time from both methods: see [`HighWaterClock`].
pub trait Clock: Debug + Send + Sync + 'static {
    /// Returns the current wall-clock time. It may step forward and back.
    fn now(&self) -> Timestamp;

    /// Returns the monotonic time since a fixed instant. It never goes back.
    ///
    /// The default is the operating system's monotonic clock. A manual clock overrides it and advances
    /// it together with `now`; otherwise its stores also count real time.
    fn elapsed(&self) -> Duration {
        system_elapsed()
    }

    /// Returns true if `now` advances with real time.
    ///
    /// A store then treats two readings of the same millisecond as equal, and reads `elapsed` once a
    /// millisecond. With the default, `false`, a store reads both methods for each operation.
    fn is_real_time(&self) -> bool {
        false
    }
}

#[deny(clippy::missing_trait_methods)]
impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }

    fn elapsed(&self) -> Duration {
        (**self).elapsed()
    }

    fn is_real_time(&self) -> bool {
        (**self).is_real_time()
    }
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[deny(clippy::missing_trait_methods)]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "the injected clock itself")]
        let now = SystemTime::now();
        // A clock before 1970 or after 9999 is broken: the nearest valid instant replaces its time.
        now.try_into().unwrap_or(if now < SystemTime::UNIX_EPOCH {
            Timestamp::EPOCH
        } else {
            Timestamp::MAX
        })
    }

    fn elapsed(&self) -> Duration {
        system_elapsed()
    }

    fn is_real_time(&self) -> bool {
        true
    }
}

/// Returns the monotonic time since the first call in this process.
fn system_elapsed() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "the injected clock itself")]
    fn instant() -> Instant {
        Instant::now()
    }
    static START: LazyLock<Instant> = LazyLock::new(instant);
    let start = *START;
    instant().saturating_duration_since(start)
}

/// A clock for tests that advances only on request. Clones share the same time.
///
/// ```
/// use std::time::Duration;
/// use cubbyhole::{Clock, ManualClock};
///
/// let clock = ManualClock::default();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(1));
/// assert_eq!(clock.now().saturating_since(before), Duration::from_secs(1));
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<ManualTime>);

/// Both times in milliseconds.
#[derive(Debug)]
struct ManualTime {
    now: AtomicU64,
    elapsed: AtomicU64,
}

impl ManualClock {
    /// Creates a clock that shows `start`.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        let (now, elapsed) = (AtomicU64::new(start.as_millis()), AtomicU64::new(0));
        Self(Arc::new(ManualTime { now, elapsed }))
    }

    /// Advances the clock by `duration`. A fraction of a millisecond rounds up. `now` stops at
    /// [`Timestamp::MAX`].
    pub fn advance(&self, duration: Duration) {
        let passed = Timestamp::EPOCH.checked_add(duration).unwrap_or(Timestamp::MAX).as_millis();
        let later = |most: u64| move |millis: u64| Some(millis.saturating_add(passed).min(most));
        // `elapsed` first: a store that sees the new `now` then sees the new `elapsed` too.
        let ManualTime { now, elapsed } = &*self.0;
        let order = Ordering::SeqCst;
        // Both are always `Some`.
        let _ = elapsed.fetch_update(order, order, later(u64::MAX));
        let _ = now.fetch_update(order, order, later(Timestamp::MAX.as_millis()));
    }

    /// Sets the wall clock forward or back, as an administrator or NTP does. `elapsed` is unchanged.
    pub fn set(&self, instant: Timestamp) {
        self.0.now.store(instant.as_millis(), Ordering::SeqCst);
    }

    /// Sets the wall clock back by `duration`, at most to [`Timestamp::EPOCH`]. `elapsed` is unchanged.
    pub fn set_back(&self, duration: Duration) {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let earlier = |now: u64| Some(now.saturating_sub(millis));
        // It is always `Some`.
        let _ = self.0.now.fetch_update(Ordering::SeqCst, Ordering::SeqCst, earlier);
    }
}

impl Default for ManualClock {
    /// Shows 2001-09-09T01:46:40Z, far from both ends of the range.
    fn default() -> Self {
        Self::new(Timestamp::from_millis(1_000_000_000_000).unwrap_or(Timestamp::EPOCH))
    }
}

#[deny(clippy::missing_trait_methods)]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        let millis = self.0.now.load(Ordering::SeqCst);
        Timestamp::from_millis(millis).unwrap_or(Timestamp::MAX)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.elapsed.load(Ordering::SeqCst))
    }

    fn is_real_time(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advance_moves_both_clocks_and_set_only_the_wall_clock() {
        let clock = ManualClock::default();
        let start = clock.now();
        clock.advance(Duration::from_micros(1_500));
        assert_eq!(clock.now().saturating_since(start), Duration::from_millis(2));
        assert_eq!(clock.elapsed(), Duration::from_millis(2));
        clock.set_back(Duration::from_millis(1));
        assert_eq!(clock.now().saturating_since(start), Duration::from_millis(1));
        clock.set(Timestamp::EPOCH);
        clock.set_back(Duration::MAX);
        assert_eq!((clock.now(), clock.elapsed()), (Timestamp::EPOCH, Duration::from_millis(2)));
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), Timestamp::MAX);
    }
}
