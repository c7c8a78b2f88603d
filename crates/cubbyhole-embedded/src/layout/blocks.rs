//! Where blocks and their sums stand in the engine's part of the file, and what a block of sums holds.

use std::ops::Range;

use twox_hash::XxHash3_64;

use super::SECTOR;

pub(crate) const BLOCK: usize = 4096;
pub(crate) const SUMS: usize = 510;
pub(crate) const COPIES: u64 = 2;
pub(crate) const GROUP_BLOCKS: u64 = SUMS as u64 + COPIES;
pub(crate) const HEADER: usize = SECTOR - 8;
/// Where the header stands.
pub(crate) const HEADER_AT: u64 = COPIES * BLOCK as u64;
/// Makes sums of this format unlike any others.
pub(crate) const SEED: u64 = u64::from_be_bytes(*b"cubbyhol");
/// What the beginning of the engine's part tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EngineStart {
    /// It ends before the first block behind the sums.
    Absent,
    /// The sums or the header are ours and whole.
    Sound,
    Other,
}

/// How much of the engine's part tells what it is.
pub(crate) const START_BYTES: u64 = HEADER_AT + SECTOR as u64;

impl EngineStart {
    /// What the first [`START_BYTES`] tell, or fewer of a part that is shorter.
    pub(crate) fn of(start: &[u8]) -> Self {
        let Some(header) =
            start.get(HEADER_AT as usize..).and_then(|sector| sector.try_into().ok())
        else {
            return Self::Absent;
        };
        let copies = start.chunks_exact(BLOCK).take(COPIES as usize);
        let has_sums =
            copies.zip(0..).any(|(copy, slot)| ChecksumGroup::decode(copy, 0, slot).is_some());
        if has_sums || is_header(header) { Self::Sound } else { Self::Other }
    }
}

#[derive(Debug)]
pub(crate) struct ChecksumGroup {
    pub(crate) sequence: u64,
    pub(crate) sums: Box<[u64; SUMS]>,
    pub(crate) is_dirty: bool,
}

impl ChecksumGroup {
    pub(crate) fn new() -> Self {
        Self { sequence: 0, sums: Box::new([0; SUMS]), is_dirty: false }
    }

    /// Where its next copy stands.
    pub(crate) fn slot(&self, number: u64) -> u64 {
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

    /// The copy that stands at that place, if it is whole.
    pub(crate) fn decode(block: &[u8], number: u64, slot: u64) -> Option<Self> {
        let (check, rest) = block.split_first_chunk::<8>()?;
        if u64::from_le_bytes(*check) != XxHash3_64::oneshot_with_seed(SEED ^ number, rest) {
            return None;
        }
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let mut group = Self { sequence: u64::from_le_bytes(*sequence), ..Self::new() };
        for (sum, bytes) in group.sums.iter_mut().zip(rest.as_chunks::<8>().0) {
            *sum = u64::from_le_bytes(*bytes);
        }
        (group.sequence % COPIES == slot).then_some(group)
    }
}

/// Blocks that stand side by side in one group.
pub(crate) struct BlockRun {
    pub(crate) group: u64,
    pub(crate) slots: Range<usize>,
}

impl BlockRun {
    /// Where it begins.
    pub(crate) fn at(&self) -> u64 {
        (self.group * GROUP_BLOCKS + COPIES + self.slots.start as u64) * BLOCK as u64
    }

    pub(crate) fn range(&self) -> Range<usize> {
        self.slots.clone()
    }

    /// The engine's number of a block.
    pub(crate) fn block(&self, slot: usize) -> u64 {
        self.group * SUMS as u64 + slot as u64
    }

    /// Whether a block is as it was written; one that never was is zeros.
    pub(crate) fn matches(&self, block: &[u8], slot: usize, expected: u64) -> bool {
        if expected == 0 { is_zero(block) } else { block_sum(block, self.block(slot)) == expected }
    }
}

/// So many of the engine's blocks, group by group.
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

/// Never 0, which stands for a block that was not written.
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

/// How long the file is for so much of the engine's.
pub(crate) fn outer_length(length: u64) -> u64 {
    match length.div_ceil(BLOCK as u64) {
        0 => 0,
        blocks => (blocks + (blocks - 1) / SUMS as u64 * COPIES + COPIES) * BLOCK as u64,
    }
}

/// How much of the engine's is in a file of that length.
pub(crate) fn inner_length(length: u64) -> u64 {
    let blocks = length / BLOCK as u64;
    let (groups, rest) = (blocks / GROUP_BLOCKS, blocks % GROUP_BLOCKS);
    (groups * SUMS as u64 + rest.saturating_sub(COPIES)) * BLOCK as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_go_there_and_back() {
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
    fn runs_end_where_groups_end() {
        let all: Vec<_> = runs(508, 600).map(|run| (run.group, run.slots)).collect();
        assert_eq!(all, [(0, 508..510), (1, 0..510), (2, 0..88)]);
        assert_eq!(runs(7, 0).count(), 0);
    }

    #[test]
    fn a_copy_of_sums_counts_only_whole_and_in_its_place() {
        let group = ChecksumGroup { sequence: 7, ..ChecksumGroup::new() };
        let block = group.encode(3);
        assert_eq!(block.len(), BLOCK);
        assert_eq!(ChecksumGroup::decode(&block, 3, 1).map(|group| group.sequence), Some(7));
        assert!(ChecksumGroup::decode(&block, 3, 0).is_none(), "the place of the other copy");
        assert!(ChecksumGroup::decode(&block, 4, 1).is_none(), "another group's");
        for at in [0, 9, 100, BLOCK - 1] {
            let mut torn = block.clone();
            torn[at] ^= 1;
            assert!(ChecksumGroup::decode(&torn, 3, 1).is_none(), "{at}");
        }
    }
}
