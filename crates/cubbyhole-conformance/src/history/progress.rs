//! The counters that all clients of a run share.

use std::sync::atomic::{AtomicU64, Ordering};

/// The calls of a run so far, by outcome. A conflict counts as success: the store replied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Reads that succeeded.
    pub reads: u64,
    /// Calls that may change an entry, and that succeeded.
    pub writes: u64,
    /// Reads that failed.
    pub failed_reads: u64,
    /// Calls that may change an entry, and that failed.
    pub failed_writes: u64,
    /// The failed writes whose outcome is unknown.
    pub unknown: u64,
}

impl Counts {
    /// The number of failed calls.
    #[must_use]
    pub fn failures(self) -> u64 {
        self.failed_reads + self.failed_writes
    }

    pub(super) fn has_more(self, before: Self, more: u64) -> bool {
        self.reads >= before.reads + more && self.writes >= before.writes + more
    }
}

/// The counters of a run.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) clock: LogicalClock,
    /// The calls that count towards the plan.
    pub(super) operations: AtomicU64,
    pub(super) unknown: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
    failed_reads: AtomicU64,
    failed_writes: AtomicU64,
}

impl Progress {
    pub(super) fn count(&self, may_change: bool, has_reply: bool) {
        let count = match (may_change, has_reply) {
            (false, true) => &self.reads,
            (true, true) => &self.writes,
            (false, false) => &self.failed_reads,
            (true, false) => &self.failed_writes,
        };
        count.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            reads: self.reads.load(Ordering::SeqCst),
            writes: self.writes.load(Ordering::SeqCst),
            failed_reads: self.failed_reads.load(Ordering::SeqCst),
            failed_writes: self.failed_writes.load(Ordering::SeqCst),
            unknown: self.unknown.load(Ordering::SeqCst),
        }
    }
}

/// Orders the starts and ends of all calls. A call that started after another one ended has the
/// larger number.
#[derive(Debug, Default)]
pub(super) struct LogicalClock(AtomicU64);

impl LogicalClock {
    pub(super) fn tick(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}
