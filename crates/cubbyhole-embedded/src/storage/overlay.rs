//! A read-only file beneath an engine that writes: what it writes is kept in memory.
//!
//! Opening a file writes to it. The engine marks it as open, repairs it after a crash, and the log's
//! changes are applied to it. Over this storage all of that happens in memory, block by block, and
//! the file keeps every byte. Memory holds the blocks that opening changes: those of a log of 1 MiB
//! and of the at most 1,024 changes in it, and the engine's list of free pages.
//!
//! Every lock on the file is shared. Readers exclude a writer and not each other; a writer, whose
//! locks on the same ranges are exclusive, excludes readers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use redb::StorageBackend;

use super::delegate_locks;

/// The unit in which changes are kept: what the engine and its checksums write.
const BLOCK: usize = 4096;

/// Storage that keeps all changes in memory.
#[derive(Debug)]
pub(crate) struct Overlay {
    file: Box<dyn StorageBackend>,
    changes: RwLock<ChangedBlocks>,
}

#[derive(Debug, Default)]
struct ChangedBlocks {
    /// The blocks that differ from the file's, by their number.
    blocks: HashMap<u64, Box<[u8; BLOCK]>>,
    length: Option<OverlayLength>,
}

/// The length once it was set. Before that it is the file's, which may still change: the engine sets
/// no length before it has locked the file.
#[derive(Debug, Clone, Copy)]
struct OverlayLength {
    current: u64,
    /// Up to where the file's bytes count. Past it are zeros: they were cut off, or never there.
    of_file: u64,
}

impl Overlay {
    pub(crate) fn new(file: Box<dyn StorageBackend>) -> Self {
        Self { file, changes: RwLock::default() }
    }

    // No caller leaves the changes half made when it panics: a block is changed in place.
    fn changes(&self) -> RwLockReadGuard<'_, ChangedBlocks> {
        self.changes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn changes_mut(&self) -> RwLockWriteGuard<'_, ChangedBlocks> {
        self.changes.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn length(&self, changes: &ChangedBlocks) -> io::Result<OverlayLength> {
        match changes.length {
            Some(length) => Ok(length),
            None => {
                self.file.len().map(|length| OverlayLength { current: length, of_file: length })
            }
        }
    }

    /// Fills `out` from the file, and with zeros past where its bytes count.
    fn read_file(&self, offset: u64, out: &mut [u8], length: OverlayLength) -> io::Result<()> {
        let there = length.of_file.saturating_sub(offset).min(out.len() as u64) as usize;
        let (there, beyond) = out.split_at_mut(there);
        beyond.fill(0);
        if there.is_empty() { Ok(()) } else { self.file.read(offset, there) }
    }
}

/// A part of one block: its number, where in the block the part begins, and where in the request.
struct BlockPart {
    block: u64,
    within: std::ops::Range<usize>,
    of_request: std::ops::Range<usize>,
}

/// The parts of a request, block by block.
fn block_parts(offset: u64, length: usize) -> impl Iterator<Item = BlockPart> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let start = (at % BLOCK as u64) as usize;
        let part = (BLOCK - start).min(length - done);
        let of_request = done..done + part;
        done += part;
        (part > 0).then_some(BlockPart {
            block: at / BLOCK as u64,
            within: start..start + part,
            of_request,
        })
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        self.length(&self.changes()).map(|length| length.current)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let changes = self.changes();
        let Some(length) = changes.length else {
            return self.file.read(offset, out);
        };
        if offset + out.len() as u64 > length.current {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_file(offset, out, length)?;
        for BlockPart { block, within, of_request } in block_parts(offset, out.len()) {
            if let Some(changed) = changes.blocks.get(&block) {
                out[of_request].copy_from_slice(&changed[within]);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut changes = self.changes_mut();
        let before = self.length(&changes)?;
        let of_file = before.of_file.min(len);
        changes.length = Some(OverlayLength { current: len, of_file });
        if len < before.current {
            let (last, kept) = (len / BLOCK as u64, (len % BLOCK as u64) as usize);
            changes.blocks.retain(|block, _| *block < last || (*block == last && kept > 0));
            if let Some(block) = changes.blocks.get_mut(&last) {
                block[kept..].fill(0);
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changes = self.changes_mut();
        let before = self.length(&changes)?;
        let current = before.current.max(offset + data.len() as u64);
        let length = OverlayLength { current, ..before };
        changes.length = Some(length);
        for BlockPart { block, within, of_request } in block_parts(offset, data.len()) {
            let changed = match changes.blocks.entry(block) {
                Entry::Occupied(changed) => changed.into_mut(),
                Entry::Vacant(unchanged) => {
                    let mut whole = Box::new([0; BLOCK]);
                    if within.len() < BLOCK {
                        self.read_file(block * BLOCK as u64, &mut *whole, length)?;
                    }
                    unchanged.insert(whole)
                }
            };
            changed[within].copy_from_slice(&data[of_request]);
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    // A file that is open for reading takes shared locks alone, and so every lock is one.

    delegate_locks!(self => self.file, try_lock_shared_range, lock_shared_range);
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;

    /// A file of that many bytes, all different from zero.
    fn file(length: usize) -> (Vec<u8>, Box<InMemoryBackend>) {
        let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8 + 1).collect();
        let file = InMemoryBackend::new();
        file.set_len(length as u64).unwrap();
        file.write(0, &bytes).unwrap();
        (bytes, Box::new(file))
    }

    #[derive(Debug)]
    enum Call {
        Write(usize, Vec<u8>),
        OverlayLength(usize),
    }

    fn draw(random: &mut fastrand::Rng, length: usize) -> Call {
        if random.u8(0..4) == 0 {
            return Call::OverlayLength(random.usize(0..length + 2 * BLOCK));
        }
        let from = random.usize(0..=length);
        let data = vec![random.u8(..); random.usize(0..=2 * BLOCK)];
        Call::Write(from, data)
    }

    #[test]
    fn reads_match_a_file_that_took_the_same_writes() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut expected, file) = file(random.usize(1..4 * BLOCK));
            let overlay = Overlay::new(file);
            for _ in 0..20 {
                let call = draw(&mut random, expected.len());
                match &call {
                    Call::Write(from, data) => {
                        expected.resize(expected.len().max(from + data.len()), 0);
                        expected[*from..from + data.len()].copy_from_slice(data);
                        overlay.write(*from as u64, data).unwrap();
                    }
                    Call::OverlayLength(length) => {
                        expected.resize(*length, 0);
                        overlay.set_len(*length as u64).unwrap();
                    }
                }
                assert_eq!(overlay.len().unwrap(), expected.len() as u64, "seed {seed}: {call:?}");
                let from = random.usize(0..=expected.len());
                let mut read = vec![0; expected.len() - from];
                overlay.read(from as u64, &mut read).unwrap();
                assert!(read == expected[from..], "seed {seed}: from {from} after {call:?}");
                let mut past = vec![0; read.len() + 1];
                let error = overlay.read(from as u64, &mut past).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "seed {seed}");
            }
        }
    }

    #[test]
    fn the_file_keeps_its_bytes() {
        let (bytes, file) = file(3 * BLOCK);
        let overlay = Overlay::new(file);
        overlay.write(100, &[0; BLOCK]).unwrap();
        overlay.set_len(10).unwrap();
        overlay.sync_data().unwrap();
        let mut found = vec![0; bytes.len()];
        overlay.file.read(0, &mut found).unwrap();
        assert_eq!((overlay.file.len().unwrap(), found), (3 * BLOCK as u64, bytes));
    }
}
