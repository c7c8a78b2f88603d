//! The workloads: the core mixes of YCSB, and the typical operations of a namespaced store.

use crate::Result;
use crate::data::{EntryId, KEYS, Names};
use crate::sampler::Sampler;

/// The number of entries in a batch.
pub const BATCH: usize = 10;
/// The longest page that mix E reads.
const LONGEST_SCAN: usize = 100;

/// A capability that a workload needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    Get,
    Put,
    /// Lists the keys of a namespace.
    List,
    /// Lists the namespaces of a group.
    ListGroup,
    /// Lists all namespaces.
    ListAll,
    /// Reads entries with their values in key order.
    Page,
    /// Removes expired entries.
    Sweep,
    /// Writes only if the entry is unchanged since it was read.
    Append,
    /// Writes several entries in one call.
    Batch,
}

/// One operation.
#[derive(Debug, Clone, Copy)]
pub enum Op {
    Get(EntryId),
    Put(EntryId),
    /// Writes a new entry.
    Insert,
    /// Reads the entry that was inserted this many inserts ago.
    GetLatest(usize),
    GetAndPut(EntryId),
    /// Reads a page with at most this many entries.
    Page(EntryId, usize),
    List(usize),
    ListGroup(usize),
    ListAll,
    /// A sweep that finds nothing.
    Sweep,
    Append(EntryId),
    Batch(usize),
}

impl Op {
    fn needs(self) -> &'static [Ability] {
        match self {
            Self::Get(_) | Self::GetLatest(_) => &[Ability::Get],
            Self::Put(_) | Self::Insert => &[Ability::Put],
            Self::GetAndPut(_) => &[Ability::Get, Ability::Put],
            Self::Page(..) => &[Ability::Page],
            Self::List(_) => &[Ability::List],
            Self::ListGroup(_) => &[Ability::ListGroup],
            Self::ListAll => &[Ability::ListAll],
            Self::Sweep => &[Ability::Sweep],
            Self::Append(_) => &[Ability::Append],
            Self::Batch(_) => &[Ability::Batch],
        }
    }
}

/// A random sequence of operations.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// The name in tables and files: `get`, `A`.
    pub name: &'static str,
    /// A description for the reader.
    pub about: &'static str,
    next: fn(&mut Sampler) -> Op,
}

impl Workload {
    pub const GET: Self =
        Self { name: "get", about: "any entry", next: |sampler| Op::Get(entry(sampler.uniform())) };
    pub const GET_HOT: Self = Self {
        name: "get hot keys",
        about: "entries by a zipfian distribution",
        next: |sampler| Op::Get(entry(sampler.zipfian())),
    };
    pub const PUT: Self = Self {
        name: "put",
        about: "any entry, replaced",
        next: |sampler| Op::Put(entry(sampler.uniform())),
    };
    pub const LIST: Self = Self {
        name: "list",
        about: "the keys of a namespace of 100",
        next: |sampler| Op::List(entry(sampler.uniform()).namespace),
    };
    pub const LIST_GROUP: Self = Self {
        name: "list_namespaces",
        about: "the ten namespaces of a tenant, or below a prefix",
        next: |sampler| Op::ListGroup(entry(sampler.uniform()).group()),
    };
    pub const LIST_ALL: Self =
        Self { name: "list_namespaces of all", about: "every namespace", next: |_| Op::ListAll };
    pub const PAGE: Self = Self {
        name: "scan",
        about: "a page of 100 entries with values",
        next: |sampler| Op::Page(EntryId { key: 0, ..entry(sampler.uniform()) }, KEYS),
    };
    pub const SWEEP: Self = Self {
        name: "evict_expired, none",
        about: "a sweep that finds nothing",
        next: |_| Op::Sweep,
    };
    pub const APPEND: Self = Self {
        name: "append",
        about: "an entry read and written at the version read",
        next: |sampler| Op::Append(entry(sampler.zipfian())),
    };
    pub const BATCH: Self = Self {
        name: "batch of 10",
        about: "ten entries of a namespace replaced in one call",
        next: |sampler| Op::Batch(entry(sampler.uniform()).namespace),
    };

    /// The core mixes of YCSB.
    pub const MIXES: [Self; 6] = [
        Self {
            name: "A",
            about: "50 % get, 50 % put, zipfian",
            next: |sampler| either(sampler, 50, Op::Get, Op::Put),
        },
        Self {
            name: "B",
            about: "95 % get, 5 % put, zipfian",
            next: |sampler| either(sampler, 95, Op::Get, Op::Put),
        },
        Self {
            name: "C",
            about: "get, zipfian",
            next: |sampler| Op::Get(entry(sampler.zipfian())),
        },
        Self {
            name: "D",
            about: "95 % get of the latest, 5 % insert",
            next: |sampler| match sampler.percent() {
                ..95 => Op::GetLatest(sampler.age()),
                _ => Op::Insert,
            },
        },
        Self {
            name: "E",
            about: "95 % page of 1 to 100 entries, zipfian, 5 % insert",
            next: |sampler| match sampler.percent() {
                ..95 => Op::Page(entry(sampler.zipfian()), sampler.up_to(LONGEST_SCAN)),
                _ => Op::Insert,
            },
        },
        Self {
            name: "F",
            about: "50 % get, 50 % get and put, zipfian",
            next: |sampler| either(sampler, 50, Op::Get, Op::GetAndPut),
        },
    ];

    /// The typical operations of a namespaced store.
    pub const OWN: [Self; 5] =
        [Self::LIST, Self::LIST_GROUP, Self::PAGE, Self::APPEND, Self::BATCH];

    /// Draws `count` operations. The same seed gives the same operations.
    pub fn operations(&self, names: &Names, count: u64, seed: u64) -> Result<Vec<Op>> {
        let mut sampler = Sampler::new(names.entries(), seed)?;
        Ok((0..count).map(|_| (self.next)(&mut sampler)).collect())
    }

    /// Whether a store with these abilities supports the workload.
    pub fn is_supported_by(&self, abilities: &[Ability]) -> bool {
        let Ok(mut sampler) = Sampler::new(KEYS, 0) else { return false };
        // Enough operations to contain each kind of a mix.
        let mut operations = (0..1000).map(|_| (self.next)(&mut sampler));
        operations.all(|op| op.needs().iter().all(|need| abilities.contains(need)))
    }
}

fn entry(index: usize) -> EntryId {
    EntryId::nth(index)
}

/// Draws `first` with the given probability, else `second`.
fn either(
    sampler: &mut Sampler,
    percent: u32,
    first: fn(EntryId) -> Op,
    second: fn(EntryId) -> Op,
) -> Op {
    let id = entry(sampler.zipfian());
    if sampler.percent() < percent { first(id) } else { second(id) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Layout;

    #[test]
    fn mixes_have_their_documented_shares() {
        let names = Names::new(1000, Layout::ManyTenants).unwrap();
        let share = |mix: &Workload, is: fn(&Op) -> bool| {
            let operations = mix.operations(&names, 10_000, 3).unwrap();
            operations.iter().filter(|op| is(op)).count() / 100
        };
        let [a, b, c, d, e, f] = &Workload::MIXES;
        assert!((48..=52).contains(&share(a, |op| matches!(op, Op::Put(_)))));
        assert!((4..=6).contains(&share(b, |op| matches!(op, Op::Put(_)))));
        assert_eq!(share(c, |op| matches!(op, Op::Get(_))), 100);
        assert!((4..=6).contains(&share(d, |op| matches!(op, Op::Insert))));
        assert!((94..=96).contains(&share(e, |op| matches!(op, Op::Page(..)))));
        assert!((48..=52).contains(&share(f, |op| matches!(op, Op::GetAndPut(_)))));
    }

    #[test]
    fn store_without_pages_does_not_support_mix_e() {
        let able = [Ability::Get, Ability::Put];
        let supported: Vec<_> = Workload::MIXES
            .iter()
            .filter(|mix| mix.is_supported_by(&able))
            .map(|mix| mix.name)
            .collect();
        assert_eq!(supported, ["A", "B", "C", "D", "F"]);
    }
}
