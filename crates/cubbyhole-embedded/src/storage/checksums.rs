//! Storage with a checksum for every block: a damaged block fails its read with [`Damaged`].
//!
//! redb verifies its own checksums when it repairs a file, but not when it reads a page. This layer
//! verifies the XXH3 checksum of every 4 KiB block that redb reads.
//! [`blocks`](crate::layout::blocks) describes the groups of blocks.
//!
//! **Checksum blocks.** A checksum block contains 510 checksums, a sequence number and a checksum
//! of itself. Each sync first writes the changed checksum blocks, alternating between the two
//! copies of a group. The valid copy with the higher sequence number is current. If a crash tears
//! one copy, the other one is still correct for every block that did not change since. redb never
//! overwrites a block that the last commit refers to, so it does not read the changed blocks after
//! a crash.
//!
//! **Header.** redb overwrites its header, the first block, in place. The header and its checksum
//! share one sector of 512 bytes, which a disk writes atomically.
//!
//! **Compaction.** redb compacts with commits that write pages and header in one sync, and detects
//! by its own checksums whether such a commit is complete. So after a crash only redb can tell
//! whether some blocks are complete. If opening meets a mismatch, the file is opened in
//! [lenient](ChecksummedStorage::lenient) mode: redb reads every block and verifies the file. If it
//! accepts the file, the checksums are updated.
//!
//! **Failed syncs.** After a failed sync the operating system may report blocks as written that are
//! not. Checksum blocks in this state are rewritten before any other write. Otherwise the next
//! write could overwrite the only copy that is on disk.

mod used_blocks;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::delegate_locks;
use crate::layout::blocks::{
    BLOCK, BlockRun, COPIES, ChecksumGroup, GROUP_BLOCKS, HEADER, HEADER_AT, SUMS, block_sum,
    header_sum, inner_length, is_header, is_zero, outer_length, runs,
};
use crate::layout::{Damaged, LOG_BYTES, SECTOR};

use used_blocks::{UsedBlocks, contains};

/// The number of groups in memory. Each takes 4 KiB and covers 2 MiB, so this covers 32 GiB.
const MAX_GROUPS: usize = 16 * 1024;
/// The number of blocks that [`ChecksummedStorage::zero_unused`] reads in one call.
const BATCH: u64 = 64;

/// Returns the error for damage at this offset in the engine region.
fn damaged(offset: u64) -> io::Error {
    Damaged::error(LOG_BYTES + offset)
}

/// The groups whose checksums may not be on disk although the operating system reports them as
/// written. The set outlives the file's handle, which is replaced after a failed sync.
pub(crate) type UncertainGroups = Arc<Mutex<BTreeSet<u64>>>;

/// Storage that verifies the checksum of each block. Clones share their state.
#[derive(Debug, Clone)]
pub(crate) struct ChecksummedStorage(Arc<ChecksumState>);

/// The shared state of [`ChecksummedStorage`].
#[derive(Debug)]
pub(crate) struct ChecksumState {
    inner: Box<dyn StorageBackend>,
    groups: Mutex<HashMap<u64, ChecksumGroup>>,
    uncertain_groups: UncertainGroups,
    are_groups_certain: AtomicBool,
    is_lenient: AtomicBool,
    /// The group and slot of each block that failed its checksum.
    mismatches: Mutex<BTreeSet<(u64, usize)>>,
    used: UsedBlocks,
}

impl ChecksummedStorage {
    pub(crate) fn new(inner: Box<dyn StorageBackend>, uncertain_groups: UncertainGroups) -> Self {
        Self(Arc::new(ChecksumState {
            inner,
            groups: Mutex::default(),
            uncertain_groups,
            are_groups_certain: AtomicBool::new(false),
            is_lenient: AtomicBool::new(false),
            mismatches: Mutex::default(),
            used: UsedBlocks::default(),
        }))
    }

    /// Passes on blocks that fail their checksums, for an engine that verifies the whole file
    /// itself. Ends when the mismatches are [accepted](ChecksumState::accept_mismatches).
    pub(crate) fn lenient(self) -> Self {
        self.0.is_lenient.store(true, Ordering::Release);
        self
    }
}

impl std::ops::Deref for ChecksummedStorage {
    type Target = ChecksumState;

    fn deref(&self) -> &ChecksumState {
        &self.0
    }
}

impl ChecksumState {
    /// Whether a block that was read failed its checksum.
    pub(crate) fn has_mismatches(&self) -> bool {
        !lock(&self.mismatches).is_empty()
    }

    /// Recomputes the checksums of mismatched blocks, after the engine has verified these blocks.
    pub(crate) fn accept_mismatches(&self) -> io::Result<()> {
        let mut block = vec![0; BLOCK];
        for (group, slot) in std::mem::take(&mut *lock(&self.mismatches)) {
            let run = BlockRun { group, slots: slot..slot + 1 };
            self.inner.read(run.offset(), &mut block)?;
            let sum = block_sum(&block, run.block(slot));
            self.with_group(group, |group| {
                group.sums[slot] = sum;
                group.is_dirty = true;
            })?;
        }
        self.is_lenient.store(false, Ordering::Release);
        Ok(())
    }

    /// Rewrites the checksums that a failed sync left uncertain. Runs before the first write, when
    /// the engine has locked the file.
    fn rewrite_uncertain(&self) -> io::Result<()> {
        if self.are_groups_certain.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut uncertain_groups = lock(&self.uncertain_groups);
        if uncertain_groups.is_empty() {
            self.are_groups_certain.store(true, Ordering::Release);
            return Ok(());
        }
        let groups = self.inner.len()?.div_ceil(GROUP_BLOCKS * BLOCK as u64);
        for number in uncertain_groups.range(..groups) {
            let group = self.load(*number)?;
            if group.sequence > 0 {
                self.inner.write(group.offset(*number), &group.encode(*number))?;
            }
        }
        self.inner.sync_data()?;
        uncertain_groups.clear();
        self.are_groups_certain.store(true, Ordering::Release);
        Ok(())
    }

    /// Reads the checksums of a group.
    fn load(&self, number: u64) -> io::Result<ChecksumGroup> {
        let start = number * GROUP_BLOCKS * BLOCK as u64;
        let mut both = vec![0; COPIES as usize * BLOCK];
        self.inner.read(start, &mut both)?;
        let copies = both.chunks_exact(BLOCK).zip(0..);
        let valid = copies.filter_map(|(block, copy)| ChecksumGroup::decode(block, number, copy));
        match valid.max_by_key(|group| group.sequence) {
            Some(group) => Ok(group),
            None if is_zero(&both) => Ok(ChecksumGroup::new()),
            None => Err(damaged(start)),
        }
    }

    /// Calls `work` with the checksums of a group, reading them first if they are not in memory.
    fn with_group<T>(
        &self,
        number: u64,
        work: impl FnOnce(&mut ChecksumGroup) -> T,
    ) -> io::Result<T> {
        let mut groups = lock(&self.groups);
        if !groups.contains_key(&number) {
            if groups.len() >= MAX_GROUPS {
                let clean = groups.iter().find(|(_, group)| !group.is_dirty).map(|(old, _)| *old);
                clean.map(|old| groups.remove(&old));
            }
            groups.insert(number, self.load(number)?);
        }
        // The entry exists: it was there before or was inserted above.
        groups.get_mut(&number).map(work).ok_or_else(|| damaged(0))
    }

    fn read_blocks(&self, first: u64, out: &mut [u8]) -> io::Result<()> {
        self.used.note(first, out.len() / BLOCK);
        let mut rest = out;
        for run in runs(first, rest.len() / BLOCK) {
            let (part, next) = rest.split_at_mut(run.slots.len() * BLOCK);
            rest = next;
            self.inner.read(run.offset(), part)?;
            let expected = self.with_group(run.group, |group| group.sums[run.range()].to_vec())?;
            let blocks = part.chunks_exact(BLOCK).zip(run.range()).zip(expected);
            let wrong = blocks.filter(|((block, slot), sum)| !run.matches(block, *slot, *sum));
            let wrong: Vec<_> = wrong.map(|((_, slot), _)| (run.group, slot)).collect();
            if let Some((_, slot)) = wrong.first() {
                let at = run.offset() + ((slot - run.slots.start) * BLOCK) as u64;
                lock(&self.mismatches).extend(&wrong);
                if !self.is_lenient.load(Ordering::Acquire) {
                    return Err(damaged(at));
                }
            }
        }
        Ok(())
    }

    fn write_blocks(&self, first: u64, data: &[u8]) -> io::Result<()> {
        self.used.note(first, data.len() / BLOCK);
        let mut rest = data;
        for run in runs(first, rest.len() / BLOCK) {
            let (part, next) = rest.split_at(run.slots.len() * BLOCK);
            rest = next;
            self.inner.write(run.offset(), part)?;
            lock(&self.mismatches)
                .retain(|(group, at)| *group != run.group || !run.slots.contains(at));
            let blocks = part.chunks_exact(BLOCK).zip(run.range());
            let sums: Vec<u64> =
                blocks.map(|(block, at)| block_sum(block, run.block(at))).collect();
            self.with_group(run.group, |group| {
                group.sums[run.range()].copy_from_slice(&sums);
                group.is_dirty = true;
            })?;
        }
        Ok(())
    }

    fn read_header(&self, out: &mut [u8]) -> io::Result<()> {
        let mut sector = [0; SECTOR];
        self.inner.read(HEADER_AT, &mut sector)?;
        if !is_header(&sector) && !is_zero(&sector) {
            return Err(damaged(HEADER_AT));
        }
        out.copy_from_slice(&sector[..out.len()]);
        Ok(())
    }

    fn write_header(&self, data: &[u8]) -> io::Result<()> {
        let mut sector = [0; SECTOR];
        sector[..data.len()].copy_from_slice(data);
        let sum = header_sum(&sector);
        sector[HEADER..].copy_from_slice(&sum.to_le_bytes());
        self.inner.write(HEADER_AT, &sector)
    }

    /// Forgets the checksums of blocks that are cut off: they are zeros if the file grows again.
    fn forget_from(&self, blocks: u64) -> io::Result<()> {
        let (last, kept) = (blocks / SUMS as u64, (blocks % SUMS as u64) as usize);
        lock(&self.groups).retain(|number, _| *number <= last);
        if kept > 0 {
            self.with_group(last, |group| {
                let cut = &mut group.sums[kept..];
                group.is_dirty |= cut.iter().any(|sum| *sum != 0);
                cut.fill(0);
            })?;
        } else {
            lock(&self.groups).remove(&last);
        }
        Ok(())
    }

    /// Starts recording which blocks the engine reads and writes.
    pub(crate) fn record_use(&self) {
        self.used.begin();
    }

    /// Stops recording without overwriting anything.
    pub(crate) fn forget_use(&self) {
        self.used.end();
    }

    /// Writes the changed checksum blocks and returns the numbers of their groups.
    fn write_sums(&self) -> io::Result<Vec<u64>> {
        let mut written = Vec::new();
        for (number, group) in lock(&self.groups).iter_mut().filter(|(_, group)| group.is_dirty) {
            lock(&self.uncertain_groups).insert(*number);
            group.sequence += 1;
            self.inner.write(group.offset(*number), &group.encode(*number))?;
            group.is_dirty = false;
            written.push(*number);
        }
        Ok(written)
    }
}

impl ChecksummedStorage {
    /// Overwrites every block that was not used during the recording with zeros, and syncs. No
    /// commit of the engine refers to these blocks, so a crash at any point is harmless.
    pub(crate) fn zero_unused(&self) -> io::Result<()> {
        let used = self.used.end();
        let blocks = self.len()? / BLOCK as u64;
        // Block 0 is the header.
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

    /// Reads the blocks without verifying them, because a crash may have torn unused blocks.
    fn zero_blocks(&self, first: u64, count: usize) -> io::Result<()> {
        let mut next = first;
        for run in runs(first, count) {
            let mut bytes = vec![0; run.slots.len() * BLOCK];
            self.inner.read(run.offset(), &mut bytes)?;
            if !is_zero(&bytes) {
                bytes.fill(0);
                self.write(next * BLOCK as u64, &bytes)?;
            }
            next += run.slots.len() as u64;
        }
        Ok(())
    }
}

/// Locks a mutex and ignores poisoning: no panic leaves its data half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the first block of a request that covers whole blocks after the header.
fn whole_blocks(offset: u64, length: usize) -> io::Result<u64> {
    let block = BLOCK as u64;
    if offset < block || !offset.is_multiple_of(block) || !length.is_multiple_of(BLOCK) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a whole number of blocks"));
    }
    Ok(offset / block)
}

impl StorageBackend for ChecksummedStorage {
    fn len(&self) -> io::Result<u64> {
        self.inner.len().map(inner_length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset == 0 && out.len() <= HEADER {
            return self.read_header(out);
        }
        self.read_blocks(whole_blocks(offset, out.len())?, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.rewrite_uncertain()?;
        if len < self.len()? {
            self.forget_from(len / BLOCK as u64)?;
        }
        self.inner.set_len(outer_length(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.rewrite_uncertain()?;
        let written = self.write_sums()?;
        self.inner.sync_data()?;
        let mut uncertain_groups = lock(&self.uncertain_groups);
        for number in written {
            uncertain_groups.remove(&number);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.rewrite_uncertain()?;
        if offset == 0 && data.len() <= HEADER {
            return self.write_header(data);
        }
        self.write_blocks(whole_blocks(offset, data.len())?, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    delegate_locks!(self => self.inner);
}
