//! What is done: the mixes of YCSB, and what a store of namespaces is for.

use crate::Result;
use crate::data::{KEYS, Names, Place};
use crate::draw::Draw;

/// How many entries a batch has.
pub const BATCH: usize = 10;
/// The longest page that mix E reads.
const LONGEST_SCAN: usize = 100;

/// What a store must be able to do to take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    Get,
    Put,
    /// The keys of a namespace.
    List,
    /// The namespaces of a group.
    ListGroup,
    /// All namespaces.
    ListAll,
    /// Entries with their values in the order of their keys.
    Page,
    /// Removing what has expired.
    Sweep,
    /// Writing only if nobody else has written since one's read.
    Append,
    /// Writing several entries at once.
    Batch,
}

/// One operation.
#[derive(Debug, Clone, Copy)]
pub enum Op {
    Get(Place),
    Put(Place),
    /// Of an entry that is not there yet.
    Insert,
    /// Of the entry that was inserted so many inserts ago.
    GetLatest(usize),
    GetAndPut(Place),
    /// A page of so many entries.
    Page(Place, usize),
    List(usize),
    ListGroup(usize),
    ListAll,
    /// A sweep that finds nothing.
    Sweep,
    Append(Place),
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

/// Operations, drawn one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// For tables and files: `get`, `A`.
    pub name: &'static str,
    /// For the reader.
    pub about: &'static str,
    draw: fn(&mut Draw) -> Op,
}

impl Workload {
    pub const GET: Self =
        Self { name: "get", about: "any entry", draw: |draw| Op::Get(place(draw.uniform())) };
    pub const GET_HOT: Self = Self {
        name: "get hot keys",
        about: "entries by a zipfian distribution",
        draw: |draw| Op::Get(place(draw.zipfian())),
    };
    pub const PUT: Self = Self {
        name: "put",
        about: "any entry, replaced",
        draw: |draw| Op::Put(place(draw.uniform())),
    };
    pub const LIST: Self = Self {
        name: "list",
        about: "the keys of a namespace of 100",
        draw: |draw| Op::List(place(draw.uniform()).namespace),
    };
    pub const LIST_GROUP: Self = Self {
        name: "list_namespaces",
        about: "the ten namespaces of a tenant, or below a prefix",
        draw: |draw| Op::ListGroup(place(draw.uniform()).group()),
    };
    pub const LIST_ALL: Self =
        Self { name: "list_namespaces of all", about: "every namespace", draw: |_| Op::ListAll };
    pub const PAGE: Self = Self {
        name: "scan",
        about: "a page of 100 entries with values",
        draw: |draw| Op::Page(Place { key: 0, ..place(draw.uniform()) }, KEYS),
    };
    pub const SWEEP: Self = Self {
        name: "evict_expired, none",
        about: "a sweep that finds nothing",
        draw: |_| Op::Sweep,
    };
    pub const APPEND: Self = Self {
        name: "append",
        about: "an entry read and written at the version read",
        draw: |draw| Op::Append(place(draw.zipfian())),
    };
    pub const BATCH: Self = Self {
        name: "batch of 10",
        about: "ten entries of a namespace replaced in one call",
        draw: |draw| Op::Batch(place(draw.uniform()).namespace),
    };

    /// The core mixes of YCSB.
    pub const MIXES: [Self; 6] = [
        Self {
            name: "A",
            about: "50 % get, 50 % put, zipfian",
            draw: |draw| either(draw, 50, Op::Get, Op::Put),
        },
        Self {
            name: "B",
            about: "95 % get, 5 % put, zipfian",
            draw: |draw| either(draw, 95, Op::Get, Op::Put),
        },
        Self { name: "C", about: "get, zipfian", draw: |draw| Op::Get(place(draw.zipfian())) },
        Self {
            name: "D",
            about: "95 % get of the latest, 5 % insert",
            draw: |draw| match draw.percent() {
                ..95 => Op::GetLatest(draw.age()),
                _ => Op::Insert,
            },
        },
        Self {
            name: "E",
            about: "95 % page of 1 to 100 entries, zipfian, 5 % insert",
            draw: |draw| match draw.percent() {
                ..95 => Op::Page(place(draw.zipfian()), draw.up_to(LONGEST_SCAN)),
                _ => Op::Insert,
            },
        },
        Self {
            name: "F",
            about: "50 % get, 50 % get and put, zipfian",
            draw: |draw| either(draw, 50, Op::Get, Op::GetAndPut),
        },
    ];

    /// What this store is for beside them.
    pub const OWN: [Self; 5] =
        [Self::LIST, Self::LIST_GROUP, Self::PAGE, Self::APPEND, Self::BATCH];

    /// So many operations, the same for the same seed.
    pub fn operations(&self, names: &Names, count: u64, seed: u64) -> Result<Vec<Op>> {
        let mut draw = Draw::new(names.entries(), seed)?;
        Ok((0..count).map(|_| (self.draw)(&mut draw)).collect())
    }

    /// Whether a store that is able to do that much can take part.
    pub fn is_for(&self, abilities: &[Ability]) -> bool {
        let Ok(mut draw) = Draw::new(KEYS, 0) else { return false };
        // More than enough to meet each kind of a mix.
        let mut drawn = (0..1000).map(|_| (self.draw)(&mut draw));
        drawn.all(|op| op.needs().iter().all(|need| abilities.contains(need)))
    }
}

fn place(index: usize) -> Place {
    Place::nth(index)
}

fn either(draw: &mut Draw, percent: u32, often: fn(Place) -> Op, else_: fn(Place) -> Op) -> Op {
    let place = place(draw.zipfian());
    if draw.percent() < percent { often(place) } else { else_(place) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Layout;

    #[test]
    fn mixes_are_mixed_as_they_say() {
        let names = Names::of(1000, Layout::ManyTenants).unwrap();
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
    fn who_cannot_page_does_not_take_part_in_e() {
        let able = [Ability::Get, Ability::Put];
        let taking_part: Vec<_> =
            Workload::MIXES.iter().filter(|mix| mix.is_for(&able)).map(|mix| mix.name).collect();
        assert_eq!(taking_part, ["A", "B", "C", "D", "F"]);
    }
}
