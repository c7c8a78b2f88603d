//! The operations of a sequence, and the strategy that draws them.

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
    /// An idle TTL of this number of milliseconds.
    Idle(u64),
    /// An idle TTL, and the milliseconds until the first instant of expiry.
    IdleUntil(u64, u64),
}

/// The condition of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteCondition {
    /// No condition.
    Always,
    /// The entry must be absent.
    IfAbsent,
    /// The entry must exist.
    IfPresent,
    /// The entry must have its current version. The condition holds if there is an entry.
    IfCurrentVersion,
    /// The entry must have its previous version. The condition never holds.
    IfPreviousVersion,
    /// The entry must have a version that was never written. The condition never holds.
    IfUnknownVersion,
}

/// The options of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadMode {
    /// No options.
    Plain,
    /// Restarts idle TTLs.
    Refresh,
    /// Extends TTLs.
    Extend(Lifetime),
}

/// A `scan` of one namespace, page by page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageScan {
    /// The namespace.
    pub namespace: usize,
    /// The key that is the prefix.
    pub prefix: Option<usize>,
    /// The key after which the first page starts.
    pub after: Option<usize>,
    /// The maximum number of items of a page.
    pub limit: usize,
    /// Whether the scan returns values.
    pub values: bool,
    /// Whether the scan is in descending order.
    pub reversed: bool,
    /// Whether the scan restarts idle TTLs.
    pub refresh: bool,
}

/// A `scan_recursive`, page by page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeepScan {
    /// The namespace that is the prefix.
    pub prefix: usize,
    /// The location after which the first page starts. The scan must reject one outside the prefix.
    pub after: Option<Location>,
    /// The maximum number of items of a page.
    pub limit: usize,
    /// Whether the scan returns values.
    pub values: bool,
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
    /// `get_entry` with options.
    GetEntry(Location, ReadMode),
    /// `get_many` of these keys.
    GetMany(usize, Vec<usize>, ReadMode),
    /// `stat` of these keys.
    Stat(usize, Vec<usize>),
    /// `delete`.
    Delete(Location),
    /// `delete_entry`.
    DeleteEntry(Location, WriteCondition),
    /// `take`.
    Take(Location),
    /// `touch`.
    Touch(Location, Lifetime, WriteCondition),
    /// `write`. Only the first change of each key counts.
    Write(usize, Vec<Change>),
    /// `list`, with an optional key as the prefix.
    List(usize, Option<usize>),
    /// `scan`.
    Scan(PageScan),
    /// `scan_recursive`.
    ScanRecursive(DeepScan),
    /// `list_namespaces`, and `scan_namespaces` with pages of this size.
    Namespaces(usize, usize),
    /// `usage`.
    Usage(usize),
    /// `delete_prefix` of an optional key, in steps of this size, until it is done.
    DeletePrefix(usize, Option<usize>, usize),
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
        6 => (location(), read_mode()).prop_map(|(at, mode)| Operation::GetEntry(at, mode)),
        2 => (ns(), vec(key(), 0..6), read_mode())
            .prop_map(|(ns, keys, mode)| Operation::GetMany(ns, keys, mode)),
        1 => (ns(), vec(key(), 0..6)).prop_map(|(ns, keys)| Operation::Stat(ns, keys)),
        3 => location().prop_map(Operation::Delete),
        3 => (location(), condition()).prop_map(|(at, when)| Operation::DeleteEntry(at, when)),
        3 => location().prop_map(Operation::Take),
        4 => (location(), lifetime(), condition())
            .prop_map(|(at, lifetime, when)| Operation::Touch(at, lifetime, when)),
        4 => (ns(), vec(change(), 0..5)).prop_map(|(ns, batch)| Operation::Write(ns, batch)),
        2 => (ns(), maybe(key())).prop_map(|(ns, prefix)| Operation::List(ns, prefix)),
        4 => page_scan().prop_map(Operation::Scan),
        3 => deep_scan().prop_map(Operation::ScanRecursive),
        2 => (ns(), page()).prop_map(|(ns, limit)| Operation::Namespaces(ns, limit)),
        2 => ns().prop_map(Operation::Usage),
        2 => (ns(), maybe(key()), page())
            .prop_map(|(ns, prefix, limit)| Operation::DeletePrefix(ns, prefix, limit)),
        1 => (ns(), page()).prop_map(|(ns, limit)| Operation::Erase(ns, limit)),
        1 => Just(Operation::Evict),
        4 => (1..40_u64).prop_map(Operation::Advance),
    ]
}

/// Draws a location. Two of them are drawn often, so operations meet the effects of others.
fn location() -> impl Strategy<Value = Location> {
    let location = |(namespace, key)| Location { namespace, key };
    prop_oneof![
        3 => (0..NAMESPACES.len(), 0..KEYS.len()).prop_map(location),
        2 => (1..2_usize, 1..3_usize).prop_map(location),
    ]
}

fn lifetime() -> impl Strategy<Value = Lifetime> {
    prop_oneof![
        3 => Just(Lifetime::Unlimited),
        1 => Just(Lifetime::Day),
        4 => (1..60_u64).prop_map(Lifetime::Millis),
        1 => Just(Lifetime::Expired),
        3 => (1..200_u64).prop_map(Lifetime::Idle),
        1 => (1..200_u64, 1..60_u64).prop_map(|(ttl, until)| Lifetime::IdleUntil(ttl, until)),
    ]
}

fn condition() -> impl Strategy<Value = WriteCondition> {
    prop_oneof![
        3 => Just(WriteCondition::Always),
        2 => Just(WriteCondition::IfAbsent),
        2 => Just(WriteCondition::IfPresent),
        3 => Just(WriteCondition::IfCurrentVersion),
        1 => Just(WriteCondition::IfPreviousVersion),
        1 => Just(WriteCondition::IfUnknownVersion),
    ]
}

fn read_mode() -> impl Strategy<Value = ReadMode> {
    prop_oneof![
        1 => Just(ReadMode::Plain),
        3 => Just(ReadMode::Refresh),
        3 => lifetime().prop_map(ReadMode::Extend),
    ]
}

fn page_scan() -> impl Strategy<Value = PageScan> {
    let key = || maybe(0..KEYS.len());
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (0..NAMESPACES.len(), key(), key(), 1..6_usize, flags).prop_map(
        |(namespace, prefix, after, limit, (values, reversed, refresh))| PageScan {
            namespace,
            prefix,
            after,
            limit,
            values,
            reversed,
            refresh,
        },
    )
}

fn deep_scan() -> impl Strategy<Value = DeepScan> {
    (0..NAMESPACES.len(), maybe(location()), 1..6_usize, any::<bool>())
        .prop_map(|(prefix, after, limit, values)| DeepScan { prefix, after, limit, values })
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
