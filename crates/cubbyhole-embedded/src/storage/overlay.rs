//! A copy-on-write overlay over a read-only file: writes stay in memory.
//!
//! Opening a store writes to its file: redb marks the file as open and repairs it after a crash,
//! and the log is replayed. With this overlay these writes go to blocks in memory, and the file
//! does not change. The blocks that opening changes are those of the log (1 MiB), of the at most
//! 1,024 replayed changes, and of redb's list of free pages.
//!
//! All locks on the file are shared. So several readers can open the file at the same time, and
//! readers and a writer, whose locks are exclusive, exclude each other.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use redb::StorageBackend;

use super::delegate_locks;

/// The unit of copying. The engine and the checksum layer write blocks of this size.
const BLOCK: usize = 4096;

/// Storage that keeps all changes in memory.
#[derive(Debug)]
pub(crate) struct Overlay {
    file: Box<dyn StorageBackend>,
    changes: RwLock<ChangedBlocks>,
}

#[derive(Debug, Default)]
struct ChangedBlocks {
    /// The blocks that differ from the file, by their number.
    blocks: HashMap<u64, Box<[u8; BLOCK]>>,
    length: Option<OverlayLength>,
}

/// The length after the first write or resize. Before that the length of the file counts, which
/// another process can change until the engine has locked the file.
#[derive(Debug, Clone, Copy)]
struct OverlayLength {
    current: u64,
    /// The number of bytes that still come from the file. The bytes after it are zero.
    of_file: u64,
}

impl Overlay {
    pub(crate) fn new(file: Box<dyn StorageBackend>) -> Self {
        Self { file, changes: RwLock::default() }
    }

    // Ignores poisoning: no panic leaves a change half made.
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

    /// Fills `out` from the file, and with zeros after `length.of_file`.
    fn read_file(&self, offset: u64, out: &mut [u8], length: OverlayLength) -> io::Result<()> {
        let available = length.of_file.saturating_sub(offset).min(out.len() as u64) as usize;
        let (available, rest) = out.split_at_mut(available);
        rest.fill(0);
        if available.is_empty() { Ok(()) } else { self.file.read(offset, available) }
    }
}

/// The part of a request that falls into one block.
struct BlockPart {
    block: u64,
    within: std::ops::Range<usize>,
    of_request: std::ops::Range<usize>,
}

/// Divides a request at block boundaries.
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

    // A file that is open for reading can only be locked shared.

    delegate_locks!(self => self.file, try_lock_shared_range, lock_shared_range);
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;

    /// A file of `length` bytes, none of them zero.
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
    fn reads_match_a_plain_file_after_the_same_writes() {
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
    fn file_is_unchanged_by_writes() {
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
