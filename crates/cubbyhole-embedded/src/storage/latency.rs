//! Measures read latency, to detect reads that wait for the disk.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redb::StorageBackend;

use super::delegate_locks;

/// A read that takes longer than this waited for the disk. A read from the page cache takes a few
/// microseconds, and moving a read to the blocking pool takes tens of them.
const SLOW_READ: Duration = Duration::from_micros(500);

/// How long reads stay off the async runtime's threads after a slow read. The period is short
/// because a read on a busy machine is also slow if its thread had to wait for a processor.
const SLOW_PERIOD: Duration = Duration::from_millis(50);

/// Whether recent reads of the file had to wait for the disk.
#[derive(Debug)]
pub(crate) struct ReadLatency {
    started: Instant,
    /// The end of the slow period in microseconds since `started`; 0 if there is none.
    slow_until: AtomicU64,
    /// Whether the file is being extended. Until the next sync the engine holds a lock that every
    /// read needs.
    is_growing: AtomicBool,
}

impl ReadLatency {
    pub(crate) fn new() -> Self {
        Self { started: now(), slow_until: AtomicU64::new(0), is_growing: AtomicBool::new(false) }
    }

    /// Whether a read is likely to return without waiting for the disk.
    pub(crate) fn is_low(&self) -> bool {
        if self.is_growing.load(Ordering::Relaxed) {
            return false;
        }
        let slow_until = self.slow_until.load(Ordering::Relaxed);
        if slow_until == 0 {
            return true;
        }
        let is_over = self.micros(now()) >= slow_until;
        if is_over {
            self.slow_until.store(0, Ordering::Relaxed);
        }
        is_over
    }

    fn record(&self, started: Instant) {
        let ended = now();
        if ended.duration_since(started) > SLOW_READ {
            self.slow_until.store(self.micros(ended + SLOW_PERIOD), Ordering::Relaxed);
        }
    }

    fn micros(&self, instant: Instant) -> u64 {
        u64::try_from(instant.duration_since(self.started).as_micros()).unwrap_or(u64::MAX)
    }
}

#[expect(clippy::disallowed_methods, reason = "measures reads of the file; decides no deadline")]
fn now() -> Instant {
    Instant::now()
}

/// Storage that measures its reads.
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
        let started = now();
        let result = self.inner.read(offset, out);
        self.latency.record(started);
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
