//! [`FaultCounts`].

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The number of faults that a [`Faulty`](super::Faulty) layer has injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct FaultCounts {
    /// Calls that failed without effect.
    pub refused: u64,
    /// Writes of unknown outcome that are never applied.
    pub lost: u64,
    /// Writes that were made and whose answer was lost.
    pub unanswered: u64,
    /// Writes of unknown outcome that were made later, or will be.
    pub late: u64,
    /// Calls that waited.
    pub delayed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    refused: AtomicU64,
    lost: AtomicU64,
    unanswered: AtomicU64,
    late: AtomicU64,
    delayed: AtomicU64,
}

impl Counters {
    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn lost(&self) {
        self.lost.fetch_add(1, Relaxed);
    }

    pub(super) fn unanswered(&self) {
        self.unanswered.fetch_add(1, Relaxed);
    }

    pub(super) fn late(&self) {
        self.late.fetch_add(1, Relaxed);
    }

    pub(super) fn delayed(&self) {
        self.delayed.fetch_add(1, Relaxed);
    }

    pub(super) fn read(&self) -> FaultCounts {
        FaultCounts {
            refused: self.refused.load(Relaxed),
            lost: self.lost.load(Relaxed),
            unanswered: self.unanswered.load(Relaxed),
            late: self.late.load(Relaxed),
            delayed: self.delayed.load(Relaxed),
        }
    }
}
