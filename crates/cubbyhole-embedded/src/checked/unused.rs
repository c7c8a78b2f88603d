//! Overwrites the blocks that the engine does not use.
//!
//! The engine does not say which blocks are free. So the blocks that it reads or writes are recorded
//! while it walks all of its tables with an empty cache: every other block is unused.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;

use super::layout::{BLOCK, is_zero, runs};
use super::{Checked, Shared, lock};

/// How many blocks are read at once.
const BATCH: u64 = 64;

/// The blocks that were read or written since recording began.
#[derive(Debug, Default)]
pub(super) struct UsedBlocks {
    is_recording: AtomicBool,
    /// A bit for each block.
    bits: Mutex<Vec<u64>>,
}

impl UsedBlocks {
    pub(super) fn note(&self, first: u64, count: usize) {
        if !self.is_recording.load(Ordering::Acquire) {
            return;
        }
        let mut bits = lock(&self.bits);
        for block in first..first + count as u64 {
            let word = (block / 64) as usize;
            if bits.len() <= word {
                bits.resize(word + 1, 0);
            }
            bits[word] |= 1 << (block % 64);
        }
    }

    fn begin(&self) {
        lock(&self.bits).clear();
        self.is_recording.store(true, Ordering::Release);
    }

    fn end(&self) -> Vec<u64> {
        self.is_recording.store(false, Ordering::Release);
        std::mem::take(&mut lock(&self.bits))
    }
}

fn contains(bits: &[u64], block: u64) -> bool {
    bits.get((block / 64) as usize).is_some_and(|word| word & (1 << (block % 64)) != 0)
}

impl Shared {
    /// Begins to record which blocks are used.
    pub(crate) fn record_use(&self) {
        self.used.begin();
    }

    /// Ends the recording without overwriting anything.
    pub(crate) fn forget_use(&self) {
        self.used.end();
    }
}

impl Checked {
    /// Overwrites with zeros, and syncs, every block that was not used while it was recorded. Neither
    /// commit of the engine refers to them: a crash in between does no harm.
    pub(crate) fn zero_unused(&self) -> io::Result<()> {
        let used = self.used.end();
        let blocks = self.len()? / BLOCK as u64;
        // The first block is the header.
        let mut next = 1;
        while next < blocks {
            if contains(&used, next) {
                next += 1;
                continue;
            }
            let most = blocks.min(next + BATCH);
            let end = (next..most).find(|block| contains(&used, *block)).unwrap_or(most);
            self.zero_blocks(next, (end - next) as usize)?;
            next = end;
        }
        self.sync_data()
    }

    /// The blocks are read without their sums: a crash may have torn them.
    fn zero_blocks(&self, first: u64, count: usize) -> io::Result<()> {
        let mut next = first;
        for run in runs(first, count) {
            let mut bytes = vec![0; run.places.len() * BLOCK];
            self.inner.read(run.at(), &mut bytes)?;
            if !is_zero(&bytes) {
                bytes.fill(0);
                self.write(next * BLOCK as u64, &bytes)?;
            }
            next += run.places.len() as u64;
        }
        Ok(())
    }
}
