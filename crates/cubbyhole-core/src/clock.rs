//! The clock that decides expiry where the engine has none of its own.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::Timestamp;

/// Tells the time to the stores that judge expiry themselves: memory and embedded. Remote backends
/// use their server's clock.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The instant it is now. It may step back: stores keep a high-water mark.
    fn now(&self) -> Timestamp;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

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
}

/// A clock that moves only when told, for tests. Clones share the same time.
///
/// ```
/// use std::time::Duration;
/// use cubbyhole_core::{Clock, ManualClock};
///
/// let clock = ManualClock::default();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(1));
/// assert_eq!(clock.now().saturating_since(before), Duration::from_secs(1));
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock that stands at `start`.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self(Arc::new(AtomicU64::new(start.as_millis())))
    }

    /// Moves the clock on; a fraction of a millisecond rounds up, and it stops at
    /// [`Timestamp::MAX`].
    pub fn advance(&self, duration: Duration) {
        self.set(self.now().checked_add(duration).unwrap_or(Timestamp::MAX));
    }

    /// Sets the clock, also backwards.
    pub fn set(&self, instant: Timestamp) {
        self.0.store(instant.as_millis(), Ordering::SeqCst);
    }
}

impl Default for ManualClock {
    /// Stands at 2001-09-09T01:46:40Z, far from either end.
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(1_000_000_000_000)))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst)).unwrap_or(Timestamp::MAX)
    }
}

/// A clock that never goes back: the latest instant that the inner clock has shown.
///
/// A store that judges expiry by it never revives an entry when the clock steps back.
#[derive(Debug)]
pub struct HighWaterClock {
    inner: Arc<dyn Clock>,
    mark: AtomicU64,
}

impl HighWaterClock {
    /// Wraps `inner`; it starts no earlier than `mark`.
    #[must_use]
    pub fn new(inner: Arc<dyn Clock>, mark: Timestamp) -> Self {
        Self { inner, mark: AtomicU64::new(mark.as_millis()) }
    }
}

impl Clock for HighWaterClock {
    fn now(&self) -> Timestamp {
        let now = self.inner.now().as_millis();
        // Usually the clock has not moved within the millisecond: a plain load then suffices and
        // readers on other cores keep the cache line.
        let mark = self.mark.load(Ordering::Acquire);
        let latest =
            if now > mark { self.mark.fetch_max(now, Ordering::AcqRel).max(now) } else { mark };
        Timestamp::from_millis(latest).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_water_mark_never_goes_back() {
        let manual = ManualClock::default();
        let clock = HighWaterClock::new(Arc::new(manual.clone()), Timestamp::EPOCH);
        let before = clock.now();
        manual.set(Timestamp::EPOCH);
        assert_eq!(clock.now(), before);
        manual.set(before.checked_add(Duration::from_millis(5)).unwrap());
        assert_eq!(clock.now().saturating_since(before), Duration::from_millis(5));
    }
}
