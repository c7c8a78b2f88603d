//! The operations of a sequence, and how they are drawn.

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};

/// Two tenants, one name the beginning of the other, and scopes that are easily mixed up.
pub(super) const PLACES: [(usize, &[&str]); 8] = [
    (0, &[]),
    (0, &["a"]),
    (0, &["a", "b"]),
    (0, &["ab"]),
    (0, &["a-b"]),
    (0, &["a:b", ""]),
    (1, &[]),
    (1, &["a"]),
];

/// Few keys, so that operations meet; some are the beginning of others or look like patterns.
pub(super) const KEYS: [&str; 7] = ["", "a", "a%", "ab", "b", "\u{10ffff}", "_"];

/// A key in a namespace, by their numbers in the tables of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which namespace, 0 to 7.
    pub namespace: usize,
    /// Which key, 0 to 6.
    pub key: usize,
}

/// How long an entry is to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Without end.
    Never,
    /// A day: longer than any sequence.
    Day,
    /// That many milliseconds.
    Millis(u64),
    /// It has expired long ago.
    Past,
}

/// The condition of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// None.
    Always,
    /// There must be no entry.
    Absent,
    /// At the version that stands there.
    Current,
    /// At the version that stood there last, before the one of now.
    Previous,
    /// At a version that never was.
    Foreign,
}

/// One write of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Which key.
    pub key: usize,
    /// The number of the value to put, and its life; `None` deletes.
    pub put: Option<(u64, Life)>,
    /// The condition.
    pub when: When,
}

/// One operation of a sequence. Numbers stand for namespaces and keys of the model's tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// `put_with_options`; a life that is past counts as `Never`.
    Put(Place, u64, Life),
    /// `put_entry`.
    PutEntry(Place, u64, Life, When),
    /// `get`, `get_entry`.
    Get(Place),
    /// `get_entry` that extends the TTL.
    Slide(Place, Life),
    /// `get_many` of these keys.
    GetMany(usize, Vec<usize>),
    /// `delete`.
    Delete(Place),
    /// `delete_entry`.
    DeleteEntry(Place, When),
    /// `take`.
    Take(Place),
    /// `touch`.
    Touch(Place, Life),
    /// `write`; of changes to one key the first counts.
    Write(usize, Vec<Change>),
    /// `list` of keys that start with this one.
    List(usize, Option<usize>),
    /// `scan` with a prefix, an `after`, a limit, and values or not.
    Scan(usize, Option<usize>, Option<usize>, usize, bool),
    /// `list_namespaces`, and `scan_namespaces` on pages of that size.
    Namespaces(usize, usize),
    /// `usage`.
    Usage(usize),
    /// `erase` in steps of that size, until it is done.
    Erase(usize, usize),
    /// `evict_expired`.
    Evict,
    /// Time passes: that many milliseconds.
    Advance(u64),
}

pub(super) fn any_operation() -> impl Strategy<Value = Operation> {
    let ns = || 0..PLACES.len();
    let key = || 0..KEYS.len();
    let number = || 0..100_u64;
    let page = || 1..6_usize;
    prop_oneof![
        6 => (place(), number(), life()).prop_map(|(at, n, life)| Operation::Put(at, n, life)),
        8 => (place(), number(), life(), when())
            .prop_map(|(at, n, life, when)| Operation::PutEntry(at, n, life, when)),
        3 => place().prop_map(Operation::Get),
        3 => (place(), life()).prop_map(|(at, life)| Operation::Slide(at, life)),
        1 => (ns(), vec(key(), 0..6)).prop_map(|(ns, keys)| Operation::GetMany(ns, keys)),
        3 => place().prop_map(Operation::Delete),
        3 => (place(), when()).prop_map(|(at, when)| Operation::DeleteEntry(at, when)),
        3 => place().prop_map(Operation::Take),
        4 => (place(), life()).prop_map(|(at, life)| Operation::Touch(at, life)),
        4 => (ns(), vec(change(), 0..5)).prop_map(|(ns, batch)| Operation::Write(ns, batch)),
        2 => (ns(), maybe(key())).prop_map(|(ns, prefix)| Operation::List(ns, prefix)),
        3 => (ns(), maybe(key()), maybe(key()), page(), any::<bool>()).prop_map(
            |(ns, prefix, after, limit, values)| Operation::Scan(ns, prefix, after, limit, values),
        ),
        2 => (ns(), page()).prop_map(|(ns, limit)| Operation::Namespaces(ns, limit)),
        2 => ns().prop_map(Operation::Usage),
        1 => (ns(), page()).prop_map(|(ns, limit)| Operation::Erase(ns, limit)),
        1 => Just(Operation::Evict),
        4 => (1..40_u64).prop_map(Operation::Advance),
    ]
}

fn place() -> impl Strategy<Value = Place> {
    (0..PLACES.len(), 0..KEYS.len()).prop_map(|(namespace, key)| Place { namespace, key })
}

fn life() -> impl Strategy<Value = Life> {
    prop_oneof![
        3 => Just(Life::Never),
        1 => Just(Life::Day),
        4 => (1..60_u64).prop_map(Life::Millis),
        1 => Just(Life::Past),
    ]
}

fn when() -> impl Strategy<Value = When> {
    prop_oneof![
        3 => Just(When::Always),
        2 => Just(When::Absent),
        3 => Just(When::Current),
        1 => Just(When::Previous),
        1 => Just(When::Foreign),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let put = maybe((0..100_u64, life()));
    (0..KEYS.len(), put, when()).prop_map(|(key, put, when)| Change { key, put, when })
}

/// `None` in one of four.
fn maybe<T: std::fmt::Debug + Clone>(
    some: impl Strategy<Value = T>,
) -> impl Strategy<Value = Option<T>> {
    proptest::option::weighted(0.75, some)
}
