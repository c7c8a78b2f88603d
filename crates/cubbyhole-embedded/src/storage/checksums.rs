//! The bytes beneath the engine, with a checksum for every block: one that is not as it was written
//! is an error when it is read, and never a wrong answer.
//!
//! The engine has checksums of its own and looks at them when it repairs a file, not when it reads
//! a page. Here every block of 4 KiB that is read is compared with its sum.
//!
//! The engine's part of the file is made of groups of 512 blocks, 2 MiB:
//!
//! | block of the group | what |
//! |---|---|
//! | 0 and 1 | the sums of the group, twice |
//! | 2 to 511 | 510 blocks of the engine |
//!
//! A block of sums is a checksum of the rest of it, a number that grows with each time it is
//! written, and 510 sums. The two copies are written in turn, before each sync, and the valid one
//! with the larger number counts: a write that tears it leaves the other, whose sums are right for
//! every block that was not written since. The engine overwrites no block that the last commit
//! refers to, so that those are the blocks that nobody will read.
//!
//! The exception is the engine's header, the first block: it is overwritten in place. Its bytes and
//! their sum stand in one sector of 512 bytes, which disks write whole.
//!
//! There is one more: the engine compacts in commits that are synced once, pages and header together,
//! and tells by its own checksums whether such a commit arrived. So where opening meets a block that is
//! not as it was written, the file is opened [leniently](Checked::leniently): the engine sees what is
//! there and verifies all of it. If it is content, so are we, and the sums are brought up to date.
//!
//! After a failed sync the system may count blocks as written that are not. A copy of sums in that
//! state is written again before anything else, for otherwise the next write would go to the other
//! copy, the only one that is certainly on disk.

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

/// How many groups are kept in memory, 4 KiB for each 2 MiB of the file: 32 GiB of it.
const MOST_GROUPS: usize = 16 * 1024;
/// How many blocks are read at once.
const BATCH: u64 = 64;

/// The error for the block at that byte of the engine's part.
fn damaged(at: u64) -> io::Error {
    Damaged::error(LOG_BYTES + at)
}

/// The groups whose sums may be on disk only as far as the system believes. It outlives the file's
/// handle, which is given up when a sync fails.
pub(crate) type UncertainGroups = Arc<Mutex<BTreeSet<u64>>>;

/// Storage whose blocks are checked. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct ChecksummedStorage(Arc<ChecksumState>);

#[derive(Debug)]
pub(crate) struct ChecksumState {
    inner: Box<dyn StorageBackend>,
    groups: Mutex<HashMap<u64, ChecksumGroup>>,
    uncertain_groups: UncertainGroups,
    are_groups_certain: AtomicBool,
    is_lenient: AtomicBool,
    /// The blocks that were not as they were written.
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

    /// The same, for an engine that verifies all that it reads: blocks are passed on as they are until
    /// they are [accepted](Shared::accept).
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
    /// Whether a block was met that is not as it was written.
    pub(crate) fn has_mismatches(&self) -> bool {
        !lock(&self.mismatches).is_empty()
    }

    /// The engine has verified what it read: the blocks are right and their sums are not.
    pub(crate) fn accept_mismatches(&self) -> io::Result<()> {
        let mut block = vec![0; BLOCK];
        for (group, slot) in std::mem::take(&mut *lock(&self.mismatches)) {
            let run = BlockRun { group, slots: slot..slot + 1 };
            self.inner.read(run.at(), &mut block)?;
            let sum = block_sum(&block, run.block(slot));
            self.with_group(group, |group| {
                group.sums[slot] = sum;
                group.is_dirty = true;
            })?;
        }
        self.is_lenient.store(false, Ordering::Release);
        Ok(())
    }

    /// Writes sums again that a failed sync left in doubt: before the first write, which comes when
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
                self.inner.write(group.slot(*number), &group.encode(*number))?;
            }
        }
        self.inner.sync_data()?;
        uncertain_groups.clear();
        self.are_groups_certain.store(true, Ordering::Release);
        Ok(())
    }

    /// Reads the sums of a group.
    fn load(&self, number: u64) -> io::Result<ChecksumGroup> {
        let start = number * GROUP_BLOCKS * BLOCK as u64;
        let mut both = vec![0; COPIES as usize * BLOCK];
        self.inner.read(start, &mut both)?;
        let copies = both.chunks_exact(BLOCK).zip(0..);
        let valid = copies.filter_map(|(copy, slot)| ChecksumGroup::decode(copy, number, slot));
        match valid.max_by_key(|group| group.sequence) {
            Some(group) => Ok(group),
            None if is_zero(&both) => Ok(ChecksumGroup::new()),
            None => Err(damaged(start)),
        }
    }

    /// Does something with the sums of a group, which are read first if need be.
    fn with_group<T>(
        &self,
        number: u64,
        work: impl FnOnce(&mut ChecksumGroup) -> T,
    ) -> io::Result<T> {
        let mut groups = lock(&self.groups);
        if !groups.contains_key(&number) {
            if groups.len() >= MOST_GROUPS {
                let clean = groups.iter().find(|(_, group)| !group.is_dirty).map(|(old, _)| *old);
                clean.map(|old| groups.remove(&old));
            }
            groups.insert(number, self.load(number)?);
        }
        // It was there, or has just been put there.
        groups.get_mut(&number).map(work).ok_or_else(|| damaged(0))
    }

    fn read_blocks(&self, first: u64, out: &mut [u8]) -> io::Result<()> {
        self.used.note(first, out.len() / BLOCK);
        let mut rest = out;
        for run in runs(first, rest.len() / BLOCK) {
            let (part, next) = rest.split_at_mut(run.slots.len() * BLOCK);
            rest = next;
            self.inner.read(run.at(), part)?;
            let expected = self.with_group(run.group, |group| group.sums[run.range()].to_vec())?;
            let blocks = part.chunks_exact(BLOCK).zip(run.range()).zip(expected);
            let wrong = blocks.filter(|((block, slot), sum)| !run.matches(block, *slot, *sum));
            let wrong: Vec<_> = wrong.map(|((_, slot), _)| (run.group, slot)).collect();
            if let Some((_, slot)) = wrong.first() {
                let at = run.at() + ((slot - run.slots.start) * BLOCK) as u64;
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
            self.inner.write(run.at(), part)?;
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

    /// Forgets the sums of blocks that are cut off: zeros come back if the file grows again.
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

    /// Begins to record which blocks are used.
    pub(crate) fn record_use(&self) {
        self.used.begin();
    }

    /// Ends the recording without overwriting anything.
    pub(crate) fn forget_use(&self) {
        self.used.end();
    }

    /// Writes the sums that have changed.
    fn write_sums(&self) -> io::Result<Vec<u64>> {
        let mut written = Vec::new();
        for (number, group) in lock(&self.groups).iter_mut().filter(|(_, group)| group.is_dirty) {
            lock(&self.uncertain_groups).insert(*number);
            group.sequence += 1;
            self.inner.write(group.slot(*number), &group.encode(*number))?;
            group.is_dirty = false;
            written.push(*number);
        }
        Ok(written)
    }
}

impl ChecksummedStorage {
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
            let mut bytes = vec![0; run.slots.len() * BLOCK];
            self.inner.read(run.at(), &mut bytes)?;
            if !is_zero(&bytes) {
                bytes.fill(0);
                self.write(next * BLOCK as u64, &bytes)?;
            }
            next += run.slots.len() as u64;
        }
        Ok(())
    }
}

/// What nobody leaves half done when it panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first block of a request, if it is one of whole blocks past the header.
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
