//! [`Index`]: a hash index from keys to slot numbers.
//!
//! Each cell contains the slot number and half of the hash, so a lookup reads one cache line before it
//! reads the slot. A general hash table keeps its control bytes separately and reads two.

/// Marks a free cell. No slot has this number, because a namespace has fewer entries.
const EMPTY: u64 = u64::MAX;
const MIN_CELLS: usize = 4;

/// An open-addressing hash table with linear probing. The number of cells is a power of two.
pub(crate) struct Index {
    cells: Box<[u64]>,
    length: usize,
}

impl Index {
    pub(crate) fn new() -> Self {
        Self { cells: Box::default(), length: 0 }
    }

    /// Returns the slot with this hash for which `is_it` returns true.
    pub(crate) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        self.position(hash, is_it).map(|position| number_of(self.cells[position]))
    }

    /// Adds a slot that is not in the index.
    pub(crate) fn insert(&mut self, hash: u64, number: u32) {
        // Keeps an eighth of the cells free, so searches are short.
        if (self.length + 1) * 8 > self.cells.len() * 7 {
            self.resize((self.cells.len() * 2).max(MIN_CELLS));
        }
        self.place(cell(hash, number));
        self.length += 1;
    }

    /// Removes a slot.
    pub(crate) fn remove(&mut self, hash: u64, number: u32) {
        let Some(mut free) = self.position(hash, |other| other == number) else { return };
        let mask = self.cells.len() - 1;
        // Backward-shift deletion: moves up the following cells that a free cell would hide.
        let mut next = (free + 1) & mask;
        while self.cells[next] != EMPTY {
            let home = home_of(self.cells[next], mask);
            if (next.wrapping_sub(home) & mask) >= (next.wrapping_sub(free) & mask) {
                self.cells[free] = self.cells[next];
                free = next;
            }
            next = (next + 1) & mask;
        }
        self.cells[free] = EMPTY;
        self.length -= 1;
    }

    /// Changes the number of a slot.
    pub(crate) fn replace(&mut self, hash: u64, old: u32, new: u32) {
        if let Some(position) = self.position(hash, |other| other == old) {
            self.cells[position] = cell(hash, new);
        }
    }

    /// Releases memory if most of it is unused.
    pub(crate) fn shrink(&mut self) {
        if self.cells.len() > MIN_CELLS && self.length * 8 < self.cells.len() {
            self.resize(self.cells.len() / 4);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    fn position(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<usize> {
        let mask = self.cells.len().checked_sub(1)?;
        let wanted = cell(hash, 0) >> 32;
        let mut position = home_of(cell(hash, 0), mask);
        loop {
            let cell = self.cells[position];
            if cell == EMPTY {
                return None;
            }
            if cell >> 32 == wanted && is_it(number_of(cell)) {
                return Some(position);
            }
            position = (position + 1) & mask;
        }
    }

    fn place(&mut self, cell: u64) {
        let mask = self.cells.len() - 1;
        let mut position = home_of(cell, mask);
        while self.cells[position] != EMPTY {
            position = (position + 1) & mask;
        }
        self.cells[position] = cell;
    }

    fn resize(&mut self, cells: usize) {
        let cells = vec![EMPTY; cells.max(MIN_CELLS)].into_boxed_slice();
        let old = std::mem::replace(&mut self.cells, cells);
        for cell in old.into_iter().filter(|cell| *cell != EMPTY) {
            self.place(cell);
        }
    }
}

/// Combines the upper half of the hash and the slot number.
fn cell(hash: u64, number: u32) -> u64 {
    hash >> 32 << 32 | u64::from(number)
}

fn number_of(cell: u64) -> u32 {
    // The lower half.
    cell as u32
}

/// Returns the preferred position of a cell.
fn home_of(cell: u64, mask: usize) -> usize {
    (cell >> 32) as usize & mask
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// A hash with few bits, so many keys collide.
    fn hash(key: u32, bits: u32) -> u64 {
        let mixed = u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed >> (64 - bits) << 32
    }

    #[test]
    fn index_matches_a_map() {
        let mut random = fastrand::Rng::with_seed(9);
        for bits in [1, 4, 30] {
            let keys = if bits == 1 { 50 } else { 2000 };
            let (mut index, mut map) = (Index::new(), HashMap::new());
            for step in 0..30_000_u32 {
                let key = random.u32(..keys);
                let hash = hash(key, bits);
                let is_growing = step < 15_000;
                match map.get(&key).copied() {
                    None if is_growing || random.u32(..4) == 0 => {
                        index.insert(hash, key);
                        map.insert(key, key);
                    }
                    Some(number) if random.bool() => {
                        index.replace(hash, number, number + keys);
                        map.insert(key, number + keys);
                    }
                    Some(number) if !is_growing || random.u32(..3) == 0 => {
                        index.remove(hash, number);
                        map.remove(&key);
                        index.shrink();
                    }
                    found => {
                        let own = index.find(hash, |number| number % keys == key);
                        assert_eq!(own, found, "step {step}");
                    }
                }
                assert_eq!(index.len(), map.len());
            }
            for key in 0..keys {
                let own = index.find(hash(key, bits), |number| number % keys == key);
                assert_eq!(own, map.get(&key).copied());
            }
        }
    }

    #[test]
    fn index_releases_memory() {
        let mut index = Index::new();
        (0..10_000).for_each(|key| index.insert(hash(key, 30), key));
        assert!(index.cells.len() <= 16_384);
        for key in 0..9_990 {
            index.remove(hash(key, 30), key);
            index.shrink();
        }
        assert!(index.cells.len() <= 128, "{}", index.cells.len());
        assert!((9_990..10_000).all(|key| index.find(hash(key, 30), |it| it == key) == Some(key)));
    }
}
