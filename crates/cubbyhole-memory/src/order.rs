//! [`Order`]: the slots of a namespace in key order.

/// Maximum number of slots in a chunk. Small enough that inserting is cheap; large enough that a typical
/// namespace is one chunk.
const MAX_CHUNK: usize = 512;

/// Slot numbers in the order of their keys. The caller supplies the keys, which are stored in the slots.
///
/// Sorted chunks of numbers take four bytes per entry. A B-tree of keys would store each key twice.
pub(crate) struct Order {
    /// No chunk is empty.
    chunks: Vec<Vec<u32>>,
}

/// The position of a key, or its insertion point.
#[derive(Clone, Copy)]
struct Position {
    chunk: usize,
    index: usize,
}

impl Order {
    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new() }
    }

    /// Adds the slot of a new key.
    pub(crate) fn insert<'a>(&mut self, key: &str, slot: u32, key_of: impl Fn(u32) -> &'a str) {
        let at = match self.find(key, key_of) {
            Ok(at) | Err(at) => at,
        };
        let last = self.chunks.len().checked_sub(1);
        let Some(chunk) = self.chunks.get_mut(at.chunk) else {
            return self.chunks.push(vec![slot]);
        };
        if chunk.len() < MAX_CHUNK {
            return chunk.insert(at.index, slot);
        }
        if at.index == chunk.len() && Some(at.chunk) == last {
            // Keys that arrive in order fill chunks completely.
            return self.chunks.push(vec![slot]);
        }
        let middle = chunk.len() / 2;
        let mut second = chunk.split_off(middle);
        match at.index.checked_sub(middle) {
            Some(index) => second.insert(index, slot),
            None => chunk.insert(at.index, slot),
        }
        self.chunks.insert(at.chunk + 1, second);
    }

    /// Removes the slot of a key.
    pub(crate) fn remove<'a>(&mut self, key: &str, key_of: impl Fn(u32) -> &'a str) {
        let Ok(at) = self.find(key, key_of) else { return };
        let chunk = &mut self.chunks[at.chunk];
        chunk.remove(at.index);
        if chunk.is_empty() {
            self.chunks.remove(at.chunk);
        } else if chunk.len() * 4 < chunk.capacity() {
            chunk.shrink_to(chunk.len() * 2);
        }
    }

    /// Changes the slot number of a key. `key_of` must still know the old number.
    pub(crate) fn replace<'a>(&mut self, key: &str, slot: u32, key_of: impl Fn(u32) -> &'a str) {
        if let Ok(at) = self.find(key, key_of) {
            self.chunks[at.chunk][at.index] = slot;
        }
    }

    /// Returns the slots from `key` on, or after `key` if `behind` is set.
    pub(crate) fn from<'a, 'b, F: Fn(u32) -> &'b str>(
        &'a self,
        key: &str,
        behind: bool,
        key_of: F,
    ) -> impl Iterator<Item = u32> + use<'a, 'b, F> {
        let at = if key.is_empty() && !behind {
            // No key comes before the empty one, so none need be compared.
            Position { chunk: 0, index: 0 }
        } else {
            match self.find(key, key_of) {
                Ok(Position { chunk, index }) => {
                    Position { chunk, index: index + usize::from(behind) }
                }
                Err(at) => at,
            }
        };
        let first = self.chunks.get(at.chunk).map_or(&[][..], |chunk| &chunk[at.index..]);
        let rest = self.chunks.get(at.chunk + 1..).unwrap_or_default();
        first.iter().chain(rest.iter().flatten()).copied()
    }

    /// Returns, in descending order, the slots of the keys for which `is_below` returns true. It must
    /// be true for all keys below a bound and false for all others.
    pub(crate) fn descending<'b>(
        &self,
        is_below: impl Fn(&str) -> bool,
        key_of: impl Fn(u32) -> &'b str,
    ) -> impl Iterator<Item = u32> {
        let is_below = |slot: &u32| is_below(key_of(*slot));
        // Every slot of the chunks before this one is below the bound.
        let whole = self.chunks.partition_point(|chunk| chunk.last().is_some_and(is_below));
        let part = self.chunks.get(whole).map_or(&[][..], |chunk| {
            let end = chunk.partition_point(is_below);
            &chunk[..end]
        });
        part.iter()
            .rev()
            .chain(self.chunks[..whole].iter().rev().flat_map(|c| c.iter().rev()))
            .copied()
    }

    /// Returns the slot of the first key.
    pub(crate) fn first(&self) -> Option<u32> {
        self.chunks.first()?.first().copied()
    }

    /// Returns the position of the key, or its insertion point: within a chunk or at the end of the last.
    fn find<'a>(&self, key: &str, key_of: impl Fn(u32) -> &'a str) -> Result<Position, Position> {
        let is_before = |chunk: &Vec<u32>| chunk.last().is_some_and(|slot| key_of(*slot) < key);
        let found = self.chunks.partition_point(is_before);
        // A key after all chunks belongs at the end of the last chunk.
        let chunk = found.min(self.chunks.len().saturating_sub(1));
        let Some(slots) = self.chunks.get(chunk) else {
            return Err(Position { chunk, index: 0 });
        };
        slots
            .binary_search_by(|slot| key_of(*slot).cmp(key))
            .map(|index| Position { chunk, index })
            .map_err(|index| Position { chunk, index })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Compares with a map. There are enough keys for several chunks.
    #[test]
    fn order_matches_a_map() {
        let keys: Vec<String> = (0..4000).map(|key| format!("{:04}", key * 7919 % 4000)).collect();
        let key_of = |slot: u32| keys[slot as usize].as_str();
        let (mut order, mut map) = (Order::new(), BTreeMap::new());
        let mut random = fastrand::Rng::with_seed(5);
        for step in 0..40_000 {
            let slot = random.u32(..4000);
            let key = key_of(slot);
            // More inserts than removals, then the reverse.
            if random.u32(..3) == 0 || step > 20_000 {
                order.remove(key, key_of);
                map.remove(key);
            } else if map.insert(key, slot).is_none() {
                order.insert(key, slot, key_of);
            }
            if step % 1000 == 0 {
                assert!(order.from("", false, key_of).eq(map.values().copied()), "step {step}");
                let behind = map.range("2000"..).map(|(_, slot)| *slot);
                assert!(order.from("2000", false, key_of).eq(behind));
                let below = map.range(.."2000").rev().map(|(_, slot)| *slot);
                assert!(order.descending(|key| key < "2000", key_of).eq(below));
                assert!(order.descending(|_| true, key_of).eq(map.values().rev().copied()));
                assert_eq!(order.first(), map.values().next().copied());
            }
        }
    }

    #[test]
    fn ascending_keys_fill_chunks_completely() {
        let keys: Vec<String> = (0..2000).map(|key| format!("{key:04}")).collect();
        let key_of = |slot: u32| keys[slot as usize].as_str();
        let mut order = Order::new();
        for slot in 0..2000 {
            order.insert(key_of(slot), slot, key_of);
        }
        assert_eq!(order.chunks.len(), 4);
        assert!(order.from("1999", true, key_of).next().is_none());
        assert!(order.from("0511", true, key_of).eq(512..2000));
    }
}
