//! The bytes beneath the engine, watched: reads that had to wait for the disk are noticed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redb::StorageBackend;

use super::delegate_locks;

/// A read of the file that takes longer than this waited for the disk in a way that the runtime
/// feels. One that the operating system serves from memory takes a few microseconds; and a hop to
/// the blocking pool costs ten to thirty, so that shorter waits are not worth one.
const SLOW_READ: Duration = Duration::from_micros(500);

/// For how long after a slow read further reads are kept off the async runtime's threads. Short,
/// because on a busy machine a read is also slow when its thread had to wait for the processor.
const SLOW_PERIOD: Duration = Duration::from_millis(50);

/// Whether reads of the file have lately had to wait for the disk.
#[derive(Debug)]
pub(crate) struct ReadLatency {
    started: Instant,
    /// Until when the file counts as cold, in microseconds since `started`; 0 for warm.
    slow_until: AtomicU64,
    /// Whether the file is being made longer. Until that is synced the engine keeps a lock that
    /// every read needs.
    is_growing: AtomicBool,
}

impl ReadLatency {
    pub(crate) fn new() -> Self {
        Self { started: now(), slow_until: AtomicU64::new(0), is_growing: AtomicBool::new(false) }
    }

    /// Whether a read is likely to be served from memory.
    pub(crate) fn is_low(&self) -> bool {
        if self.is_growing.load(Ordering::Relaxed) {
            return false;
        }
        let slow_until = self.slow_until.load(Ordering::Relaxed);
        if slow_until == 0 {
            return true;
        }
        let warm = self.micros(now()) >= slow_until;
        if warm {
            self.slow_until.store(0, Ordering::Relaxed);
        }
        warm
    }

    fn note(&self, began: Instant) {
        let ended = now();
        if ended.duration_since(began) > SLOW_READ {
            self.slow_until.store(self.micros(ended + SLOW_PERIOD), Ordering::Relaxed);
        }
    }

    fn micros(&self, instant: Instant) -> u64 {
        u64::try_from(instant.duration_since(self.started).as_micros()).unwrap_or(u64::MAX)
    }
}

#[expect(clippy::disallowed_methods, reason = "it times reads of the file; no deadline is judged")]
fn now() -> Instant {
    Instant::now()
}

/// Storage whose reads are timed.
#[derive(Debug)]
pub(crate) struct TimedStorage {
    inner: Box<dyn StorageBackend>,
    latency: Arc<ReadLatency>,
}

impl TimedStorage {
    pub(crate) fn new(inner: Box<dyn StorageBackend>, latency: Arc<ReadLatency>) -> Self {
        Self { inner, latency }
    }
}

impl StorageBackend for TimedStorage {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let began = now();
        let result = self.inner.read(offset, out);
        self.latency.note(began);
        result
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.latency.is_growing.store(true, Ordering::Relaxed);
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let result = self.inner.sync_data();
        self.latency.is_growing.store(false, Ordering::Relaxed);
        result
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    delegate_locks!(self => self.inner);
}
