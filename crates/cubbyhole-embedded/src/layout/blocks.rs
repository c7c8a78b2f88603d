//! Blocks and checksums of the engine region: offsets, lengths and the encoding of checksum blocks.
//!
//! The region consists of groups of 512 blocks (2 MiB). The first two blocks of a group each hold a
//! copy of the group's checksums, the other 510 hold bytes of the engine.

use std::ops::Range;

use twox_hash::XxHash3_64;

use super::SECTOR;

/// The size of a block in bytes.
pub(crate) const BLOCK: usize = 4096;
/// The number of checksums, and of engine blocks, in a group.
pub(crate) const SUMS: usize = 510;
/// The number of checksum blocks in a group.
pub(crate) const COPIES: u64 = 2;
pub(crate) const GROUP_BLOCKS: u64 = SUMS as u64 + COPIES;
/// The longest engine header: it shares one sector with its checksum.
pub(crate) const HEADER: usize = SECTOR - 8;
/// The offset of the engine's header in the region.
pub(crate) const HEADER_AT: u64 = COPIES * BLOCK as u64;
/// Distinguishes these checksums from other uses of XXH3.
const SEED: u64 = u64::from_be_bytes(*b"cubbyhol");

/// The state of the first blocks of the engine region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EngineStart {
    /// The region ends before the engine's header.
    Missing,
    /// A checksum block or the header is valid.
    Valid,
    Invalid,
}

/// The number of bytes of the region that [`EngineStart::of`] examines.
pub(crate) const START_BYTES: u64 = HEADER_AT + SECTOR as u64;

impl EngineStart {
    /// Examines the first [`START_BYTES`] of the region, or all bytes of a shorter one.
    pub(crate) fn of(start: &[u8]) -> Self {
        let Some(header) =
            start.get(HEADER_AT as usize..).and_then(|sector| sector.try_into().ok())
        else {
            return Self::Missing;
        };
        let copies = start.chunks_exact(BLOCK).take(COPIES as usize);
        let has_sums =
            copies.zip(0..).any(|(copy, slot)| ChecksumGroup::decode(copy, 0, slot).is_some());
        if has_sums || is_header(header) { Self::Valid } else { Self::Invalid }
    }
}

/// The checksums of one group.
#[derive(Debug)]
pub(crate) struct ChecksumGroup {
    /// Grows with each write of the checksums; 0 if they were never written.
    pub(crate) sequence: u64,
    pub(crate) sums: Box<[u64; SUMS]>,
    /// Whether the checksums changed since they were last written.
    pub(crate) is_dirty: bool,
}

impl ChecksumGroup {
    pub(crate) fn new() -> Self {
        Self { sequence: 0, sums: Box::new([0; SUMS]), is_dirty: false }
    }

    /// The offset of the copy with the current sequence number.
    pub(crate) fn offset(&self, number: u64) -> u64 {
        (number * GROUP_BLOCKS + self.sequence % COPIES) * BLOCK as u64
    }

    pub(crate) fn encode(&self, number: u64) -> Vec<u8> {
        let mut block = Vec::with_capacity(BLOCK);
        block.extend_from_slice(&[0; 8]);
        block.extend_from_slice(&self.sequence.to_le_bytes());
        for sum in self.sums.iter() {
            block.extend_from_slice(&sum.to_le_bytes());
        }
        let check = XxHash3_64::oneshot_with_seed(SEED ^ number, &block[8..]);
        block[..8].copy_from_slice(&check.to_le_bytes());
        block
    }

    /// Decodes copy number `copy` (0 or 1) of a group. Returns `None` if it is invalid.
    pub(crate) fn decode(block: &[u8], number: u64, copy: u64) -> Option<Self> {
        let (check, rest) = block.split_first_chunk::<8>()?;
        if u64::from_le_bytes(*check) != XxHash3_64::oneshot_with_seed(SEED ^ number, rest) {
            return None;
        }
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let mut group = Self { sequence: u64::from_le_bytes(*sequence), ..Self::new() };
        for (sum, bytes) in group.sums.iter_mut().zip(rest.as_chunks::<8>().0) {
            *sum = u64::from_le_bytes(*bytes);
        }
        (group.sequence % COPIES == copy).then_some(group)
    }
}

/// Adjacent engine blocks of one group.
pub(crate) struct BlockRun {
    pub(crate) group: u64,
    /// Their positions among the group's engine blocks.
    pub(crate) slots: Range<usize>,
}

impl BlockRun {
    /// The offset of the first block in the region.
    pub(crate) fn offset(&self) -> u64 {
        (self.group * GROUP_BLOCKS + COPIES + self.slots.start as u64) * BLOCK as u64
    }

    pub(crate) fn range(&self) -> Range<usize> {
        self.slots.clone()
    }

    /// The engine's number of the block in a slot.
    pub(crate) fn block(&self, slot: usize) -> u64 {
        self.group * SUMS as u64 + slot as u64
    }

    /// Whether a block matches its checksum. A block that was never written consists of zeros.
    pub(crate) fn matches(&self, block: &[u8], slot: usize, expected: u64) -> bool {
        if expected == 0 { is_zero(block) } else { block_sum(block, self.block(slot)) == expected }
    }
}

/// Divides `count` engine blocks from `first` on into runs within one group.
pub(crate) fn runs(first: u64, count: usize) -> impl Iterator<Item = BlockRun> {
    let mut next = first;
    let end = first + count as u64;
    std::iter::from_fn(move || {
        let (group, start) = (next / SUMS as u64, (next % SUMS as u64) as usize);
        let length = (SUMS - start).min(end.checked_sub(next)? as usize);
        next += length as u64;
        (length > 0).then_some(BlockRun { group, slots: start..start + length })
    })
}

/// The checksum of a block; never 0, which marks a block that was not written.
pub(crate) fn block_sum(block: &[u8], number: u64) -> u64 {
    XxHash3_64::oneshot_with_seed(SEED ^ number, block).max(1)
}

pub(crate) fn header_sum(sector: &[u8; SECTOR]) -> u64 {
    XxHash3_64::oneshot_with_seed(!SEED, &sector[..HEADER])
}

pub(crate) fn is_header(sector: &[u8; SECTOR]) -> bool {
    sector[HEADER..] == header_sum(sector).to_le_bytes()
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// The length of the region for `length` bytes of the engine.
pub(crate) fn outer_length(length: u64) -> u64 {
    match length.div_ceil(BLOCK as u64) {
        0 => 0,
        blocks => (blocks + (blocks - 1) / SUMS as u64 * COPIES + COPIES) * BLOCK as u64,
    }
}

/// The number of engine bytes in a region of `length` bytes.
pub(crate) fn inner_length(length: u64) -> u64 {
    let blocks = length / BLOCK as u64;
    let (groups, rest) = (blocks / GROUP_BLOCKS, blocks % GROUP_BLOCKS);
    (groups * SUMS as u64 + rest.saturating_sub(COPIES)) * BLOCK as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_length_inverts_outer_length() {
        let block = BLOCK as u64;
        for blocks in [0, 1, 2, 509, 510, 511, 1019, 1020, 1021, 100_000] {
            let length = blocks * block;
            assert_eq!(inner_length(outer_length(length)), length, "{blocks} blocks");
        }
        assert_eq!(outer_length(block), 3 * block);
        assert_eq!(outer_length(510 * block), 512 * block);
        assert_eq!(outer_length(511 * block), 515 * block);
    }

    #[test]
    fn runs_end_at_group_boundaries() {
        let all: Vec<_> = runs(508, 600).map(|run| (run.group, run.slots)).collect();
        assert_eq!(all, [(0, 508..510), (1, 0..510), (2, 0..88)]);
        assert_eq!(runs(7, 0).count(), 0);
    }

    #[test]
    fn torn_or_misplaced_checksum_copy_is_invalid() {
        let group = ChecksumGroup { sequence: 7, ..ChecksumGroup::new() };
        let block = group.encode(3);
        assert_eq!(block.len(), BLOCK);
        assert_eq!(ChecksumGroup::decode(&block, 3, 1).map(|group| group.sequence), Some(7));
        assert!(ChecksumGroup::decode(&block, 3, 0).is_none(), "the position of the other copy");
        assert!(ChecksumGroup::decode(&block, 4, 1).is_none(), "another group");
        for at in [0, 9, 100, BLOCK - 1] {
            let mut torn = block.clone();
            torn[at] ^= 1;
            assert!(ChecksumGroup::decode(&torn, 3, 1).is_none(), "{at}");
        }
    }
}
