//! The operations of a sequence, and the strategy that draws them.

use cubbyhole_core::ScanOptions;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};

/// The namespaces of the model. The name of one tenant is a prefix of the other, and the scopes are
/// easy to confuse.
pub(super) const NAMESPACES: [(usize, &[&str]); 8] = [
    (0, &[]),
    (0, &["a"]),
    (0, &["a", "b"]),
    (0, &["ab"]),
    (0, &["a-b"]),
    (0, &["a:b", ""]),
    (1, &[]),
    (1, &["a"]),
];

/// The keys of the model. They are few, so operations often use the same one. Some are prefixes of
/// others, and some look like patterns.
pub(super) const KEYS: [&str; 7] = ["", "a", "a%", "ab", "b", "\u{10ffff}", "_"];

/// Returns the namespaces without scope segments. As prefixes, they match all data of a tenant.
pub(super) fn bare_tenants() -> impl Iterator<Item = usize> {
    (0..NAMESPACES.len()).filter(|ns| NAMESPACES[*ns].1.is_empty())
}

/// A key in a namespace, as indexes into the tables of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// The namespace, 0 to 7.
    pub namespace: usize,
    /// The key, 0 to 6.
    pub key: usize,
}

/// The expiry of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// The entry never expires.
    Unlimited,
    /// A TTL of a day, which is longer than any sequence.
    Day,
    /// A TTL of this number of milliseconds.
    Millis(u64),
    /// An instant in the past: the entry is absent immediately.
    Expired,
}

/// The condition of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteCondition {
    /// No condition.
    Always,
    /// The entry must be absent.
    IfAbsent,
    /// The entry must have its current version. The condition holds if there is an entry.
    IfCurrentVersion,
    /// The entry must have its previous version. The condition never holds.
    IfPreviousVersion,
    /// The entry must have a version that was never written. The condition never holds.
    IfUnknownVersion,
}

/// One write of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: usize,
    /// The number of the value to put and its lifetime, or `None` to delete the entry.
    pub put: Option<(u64, Lifetime)>,
    /// The condition.
    pub condition: WriteCondition,
}

/// One operation of a sequence. The numbers are indexes into the tables of namespaces and keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// `put_with_options`. [`Lifetime::Expired`] counts as unlimited.
    Put(Location, u64, Lifetime),
    /// `put_entry`.
    PutEntry(Location, u64, Lifetime, WriteCondition),
    /// `get` and `get_entry`.
    Get(Location),
    /// `get_entry` that extends the TTL.
    Slide(Location, Lifetime),
    /// `get_many` of these keys.
    GetMany(usize, Vec<usize>),
    /// `delete`.
    Delete(Location),
    /// `delete_entry`.
    DeleteEntry(Location, WriteCondition),
    /// `take`.
    Take(Location),
    /// `touch`.
    Touch(Location, Lifetime),
    /// `write`. Only the first change of each key counts.
    Write(usize, Vec<Change>),
    /// `list`, with an optional key as the prefix.
    List(usize, Option<usize>),
    /// `scan` with a prefix, an `after`, a limit, and values if true.
    Scan(usize, Option<usize>, Option<usize>, usize, bool),
    /// `list_namespaces`, and `scan_namespaces` with pages of this size.
    Namespaces(usize, usize),
    /// `usage`.
    Usage(usize),
    /// `erase` in steps of this size, until it is done.
    Erase(usize, usize),
    /// `evict_expired`.
    Evict,
    /// Advances the clock by this number of milliseconds.
    Advance(u64),
}

pub(super) fn any_operation() -> impl Strategy<Value = Operation> {
    let ns = || 0..NAMESPACES.len();
    let key = || 0..KEYS.len();
    let number = || 0..100_u64;
    let page = || 1..6_usize;
    prop_oneof![
        6 => (location(), number(), lifetime()).prop_map(|(at, n, ttl)| Operation::Put(at, n, ttl)),
        8 => (location(), number(), lifetime(), condition())
            .prop_map(|(at, n, ttl, when)| Operation::PutEntry(at, n, ttl, when)),
        3 => location().prop_map(Operation::Get),
        3 => (location(), lifetime()).prop_map(|(at, lifetime)| Operation::Slide(at, lifetime)),
        1 => (ns(), vec(key(), 0..6)).prop_map(|(ns, keys)| Operation::GetMany(ns, keys)),
        3 => location().prop_map(Operation::Delete),
        3 => (location(), condition()).prop_map(|(at, when)| Operation::DeleteEntry(at, when)),
        3 => location().prop_map(Operation::Take),
        4 => (location(), lifetime()).prop_map(|(at, lifetime)| Operation::Touch(at, lifetime)),
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

fn location() -> impl Strategy<Value = Location> {
    (0..NAMESPACES.len(), 0..KEYS.len()).prop_map(|(namespace, key)| Location { namespace, key })
}

fn lifetime() -> impl Strategy<Value = Lifetime> {
    prop_oneof![
        3 => Just(Lifetime::Unlimited),
        1 => Just(Lifetime::Day),
        4 => (1..60_u64).prop_map(Lifetime::Millis),
        1 => Just(Lifetime::Expired),
    ]
}

fn condition() -> impl Strategy<Value = WriteCondition> {
    prop_oneof![
        3 => Just(WriteCondition::Always),
        2 => Just(WriteCondition::IfAbsent),
        3 => Just(WriteCondition::IfCurrentVersion),
        1 => Just(WriteCondition::IfPreviousVersion),
        1 => Just(WriteCondition::IfUnknownVersion),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let put = maybe((0..100_u64, lifetime()));
    (0..KEYS.len(), put, condition()).prop_map(|(key, put, condition)| Change {
        key,
        put,
        condition,
    })
}

/// Draws `None` with a probability of one in four.
fn maybe<T: std::fmt::Debug + Clone>(
    some: impl Strategy<Value = T>,
) -> impl Strategy<Value = Option<T>> {
    proptest::option::weighted(0.75, some)
}

/// Returns the options of an [`Operation::Scan`].
pub(super) fn scan_options(
    prefix: Option<usize>,
    after: Option<usize>,
    limit: usize,
    values: bool,
) -> ScanOptions {
    let mut options = ScanOptions::new().with_limit(limit);
    if let Some(prefix) = prefix {
        options = options.with_prefix(KEYS[prefix]);
    }
    if let Some(after) = after {
        options = options.with_after(KEYS[after]);
    }
    if values { options } else { options.keys_only() }
}
