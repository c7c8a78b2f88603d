//! Records which blocks the engine uses, to find the unused ones.
//!
//! redb does not expose which blocks are free. So this records every block that redb reads or
//! writes while it checks all of its tables with an empty cache. All other blocks are unused.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The blocks that were read or written since the recording started.
#[derive(Debug, Default)]
pub(super) struct UsedBlocks {
    is_recording: AtomicBool,
    /// One bit for each block.
    bits: Mutex<Vec<u64>>,
}

impl UsedBlocks {
    pub(super) fn note(&self, first: u64, count: usize) {
        if !self.is_recording.load(Ordering::Acquire) {
            return;
        }
        let mut bits = self.bits();
        for block in first..first + count as u64 {
            let word = (block / 64) as usize;
            if bits.len() <= word {
                bits.resize(word + 1, 0);
            }
            bits[word] |= 1 << (block % 64);
        }
    }

    pub(super) fn begin(&self) {
        self.bits().clear();
        self.is_recording.store(true, Ordering::Release);
    }

    pub(super) fn end(&self) -> Vec<u64> {
        self.is_recording.store(false, Ordering::Release);
        std::mem::take(&mut self.bits())
    }

    fn bits(&self) -> MutexGuard<'_, Vec<u64>> {
        self.bits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn contains(bits: &[u64], block: u64) -> bool {
    bits.get((block / 64) as usize).is_some_and(|word| word & (1 << (block % 64)) != 0)
}
