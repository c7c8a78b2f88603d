//! The clock that decides expiry where the engine has none of its own.

mod high_water;

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use crate::Timestamp;

pub use high_water::HighWaterClock;

/// Tells the time to the stores that judge expiry themselves: memory and embedded. Remote backends
/// use their server's clock.
///
/// A store's time is the later of [`now`](Self::now) and its high-water mark plus the time that has
/// [`elapsed`](Self::elapsed) since: see [`HighWaterClock`].
pub trait Clock: Debug + Send + Sync + 'static {
    /// The instant it is now. It may step, forward and back.
    fn now(&self) -> Timestamp;

    /// How much time has passed since a fixed moment. It never goes back, also where `now` does.
    ///
    /// The default is the operating system's monotonic clock. A clock that is moved manually
    /// overrides it, and moves it together with `now`; otherwise its stores also count the time
    /// that passes in reality.
    fn elapsed(&self) -> Duration {
        system_elapsed()
    }

    /// Whether `now` moves on automatically. If so, a store takes two readings within one millisecond
    /// for the same moment, and reads `elapsed` once a millisecond. The default is `false`: a store
    /// then reads both each time.
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
        #[expect(clippy::disallowed_methods, reason = "this is the clock that others inject")]
        let now = SystemTime::now();
        // A clock before 1970 or past 9999 is broken; the nearest instant that can be kept serves.
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

/// The operating system's monotonic clock, since this process first read it.
fn system_elapsed() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that others inject")]
    fn instant() -> Instant {
        Instant::now()
    }
    static START: LazyLock<Instant> = LazyLock::new(instant);
    let start = *START;
    instant().saturating_duration_since(start)
}

/// A clock that moves only when told, for tests. Clones share the same time.
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
pub struct ManualClock(Arc<Hands>);

/// Both in milliseconds.
#[derive(Debug)]
struct Hands {
    now: AtomicU64,
    elapsed: AtomicU64,
}

impl ManualClock {
    /// A clock that stands at `start`.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        let (now, elapsed) = (AtomicU64::new(start.as_millis()), AtomicU64::new(0));
        Self(Arc::new(Hands { now, elapsed }))
    }

    /// Lets time pass; a fraction of a millisecond rounds up, and `now` stops at
    /// [`Timestamp::MAX`].
    pub fn advance(&self, duration: Duration) {
        let passed = Timestamp::EPOCH.checked_add(duration).unwrap_or(Timestamp::MAX).as_millis();
        let later = |most: u64| move |millis: u64| Some(millis.saturating_add(passed).min(most));
        // In this order: a store that sees the later `now` sees the later `elapsed` too.
        let Hands { now, elapsed } = &*self.0;
        let order = Ordering::SeqCst;
        // Both are always `Some`.
        let _ = elapsed.fetch_update(order, order, later(u64::MAX));
        let _ = now.fetch_update(order, order, later(Timestamp::MAX.as_millis()));
    }

    /// Sets the clock, also backwards, as an administrator or NTP does: no time passes.
    pub fn set(&self, instant: Timestamp) {
        self.0.now.store(instant.as_millis(), Ordering::SeqCst);
    }

    /// Sets the clock back by `duration`, to [`Timestamp::EPOCH`] at the earliest: no time passes.
    pub fn set_back(&self, duration: Duration) {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let earlier = |now: u64| Some(now.saturating_sub(millis));
        // It is always `Some`.
        let _ = self.0.now.fetch_update(Ordering::SeqCst, Ordering::SeqCst, earlier);
    }
}

impl Default for ManualClock {
    /// Stands at 2001-09-09T01:46:40Z, far from either end.
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
    fn advancing_moves_both_and_setting_moves_the_wall_clock_alone() {
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
