//! The options of a cache.

use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::{Clock, Error, Result, SystemClock};

/// The size of a [`Cached`](crate::Cached) layer, and the age up to which it serves an entry.
///
/// ```
/// use std::time::Duration;
/// use cubbyhole_layers::CacheOptions;
///
/// let options = CacheOptions::new()
///     .with_bytes(256 * 1024 * 1024)
///     .with_max_stale(Duration::from_secs(1));
/// options.check()?;
/// assert_eq!(options.max_stale(), Duration::from_secs(1));
/// # Ok::<(), cubbyhole_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct CacheOptions {
    pub(super) bytes: u64,
    pub(super) max_stale: Duration,
    pub(super) clock: Arc<dyn Clock>,
}

impl CacheOptions {
    /// The default size of a cache: 64 MiB.
    pub const DEFAULT_BYTES: u64 = 64 * 1024 * 1024;

    /// The default of [`with_max_stale`](Self::with_max_stale): 5 seconds.
    pub const DEFAULT_MAX_STALE: Duration = Duration::from_secs(5);

    /// Creates the default options: 64 MiB, 5 seconds and the system clock.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: Self::DEFAULT_BYTES,
            max_stale: Self::DEFAULT_MAX_STALE,
            clock: Arc::new(SystemClock),
        }
    }

    /// Sets the size limit of the cache in bytes.
    ///
    /// An entry counts with its key, its namespace, its value and a fixed overhead of 640 bytes. An
    /// entry that takes more than an eighth of the limit is not cached.
    #[must_use]
    pub fn with_bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// Sets how long the cache serves an entry. The time counts from the start of the read that filled
    /// the cache.
    #[must_use]
    pub fn with_max_stale(mut self, max_stale: Duration) -> Self {
        self.max_stale = max_stale;
        self
    }

    /// Replaces the system clock, for tests. The cache reads only [`Clock::elapsed`].
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Returns the size limit in bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns how long the cache serves an entry.
    #[must_use]
    pub const fn max_stale(&self) -> Duration {
        self.max_stale
    }

    /// Checks the options.
    ///
    /// # Errors
    /// `InvalidArgument` if `bytes` or `max_stale` is zero.
    pub fn check(&self) -> Result<()> {
        if self.bytes == 0 {
            return Err(Error::invalid_argument(
                "the cache option `bytes` is zero; set a size, or leave the cache out",
            ));
        }
        if self.max_stale.is_zero() {
            return Err(Error::invalid_argument(
                "the cache option `max_stale` is zero; set a duration, or leave the cache out",
            ));
        }
        Ok(())
    }
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self::new()
    }
}
