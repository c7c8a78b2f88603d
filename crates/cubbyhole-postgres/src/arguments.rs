//! Converts the contract's types into arguments of the SQL functions.

use std::time::Duration;

use cubbyhole_core::{
    Batch, Bytes, Condition, Expiry, Namespace, NamespacePrefix, Operation, Version, Written,
};
use uuid::Uuid;

use crate::functions::{NamespaceParam, Param, TenantParam, ValueParam, param};

/// Tenant, namespace and key. Callers append further arguments.
pub(crate) fn location(ns: &Namespace, key: &str) -> Vec<Param> {
    // Most functions take at most ten arguments.
    let mut params = Vec::with_capacity(10);
    params.extend(namespace(ns));
    params.push(param(key.to_owned()));
    params
}

/// Tenant and namespace.
pub(crate) fn namespace(ns: &Namespace) -> [Param; 2] {
    [param(TenantParam(ns.tenant())), param(NamespaceParam(ns.clone()))]
}

/// Tenant and namespace of a prefix. Callers append further arguments.
pub(crate) fn prefix(prefix: &NamespacePrefix) -> Vec<Param> {
    let mut params = Vec::with_capacity(7);
    params.push(param(TenantParam(prefix.tenant())));
    params.push(param(NamespaceParam(prefix.as_namespace().clone())));
    params
}

/// An expiry in milliseconds.
#[derive(Clone, Copy)]
pub(crate) struct ExpiryColumns {
    /// The time from the write to the expiry.
    ttl: Option<i64>,
    /// The instant of expiry. Not set together with `ttl`.
    instant: Option<i64>,
    /// The idle TTL that is stored.
    idle_ttl: Option<i64>,
}

impl ExpiryColumns {
    pub(crate) fn new(expiry: Expiry) -> Self {
        let (ttl, instant) = match expiry {
            Expiry::Never => (None, None),
            Expiry::After(ttl) | Expiry::Idle(ttl) => (Some(ttl_millis(ttl)), None),
            Expiry::At(instant) | Expiry::IdleUntil { expires_at: instant, .. } => {
                (None, i64::try_from(instant.as_millis()).ok())
            }
        };
        Self { ttl, instant, idle_ttl: expiry.idle_ttl().map(ttl_millis) }
    }

    pub(crate) fn params(self) -> [Param; 3] {
        [param(self.ttl), param(self.instant), param(self.idle_ttl)]
    }
}

/// Rounds up to whole milliseconds. The server rejects a TTL that ends past the year 9999.
pub(crate) fn ttl_millis(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

pub(crate) fn version_uuid(version: Version) -> Uuid {
    Uuid::from_bytes(version.to_bytes())
}

/// The number of a condition in SQL, and the version that it expects.
fn condition_columns(condition: Condition) -> (i32, Option<Uuid>) {
    match condition {
        Condition::Always => (0, None),
        Condition::IfAbsent => (1, None),
        Condition::IfVersion(version) => (2, Some(version_uuid(version))),
        Condition::IfPresent => (3, None),
    }
}

/// The last two arguments of the functions with a condition.
pub(crate) fn condition(condition: Condition) -> [Param; 2] {
    let (number, expected) = condition_columns(condition);
    [param(number), param(expected)]
}

/// Tenant, namespace and keys. The keys are distinct and in order if the call may lock rows, because
/// rows are locked in that order.
pub(crate) fn keys(ns: &Namespace, keys: &[&str], may_lock: bool) -> Vec<Param> {
    let mut owned: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
    if may_lock {
        owned.sort_unstable();
        owned.dedup();
    }
    let mut params = Vec::with_capacity(5);
    params.extend(namespace(ns));
    params.push(param(owned));
    params
}

/// The limit of a page plus one: the extra row shows that there are more.
pub(crate) fn limit_plus_one(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
}

/// The exclusive upper bound of all strings that start with `prefix`, in code point order, which
/// equals the byte order of UTF-8. `None` if there is no such bound.
pub(crate) fn prefix_end(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        if let Some(next) = (last..=char::MAX).nth(1) {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

/// The operations of a batch as columns, in key order, because rows are locked in that order.
#[derive(Default)]
struct BatchColumns {
    keys: Vec<String>,
    /// Indices of the operations in the caller's batch.
    indices: Vec<i32>,
    conditions: Vec<i32>,
    expected: Vec<Option<Uuid>>,
    versions: Vec<Option<Uuid>>,
    ttls: Vec<Option<i64>>,
    instants: Vec<Option<i64>>,
    idle_ttls: Vec<Option<i64>>,
    values: Vec<Option<ValueParam>>,
}

impl BatchColumns {
    fn push_expiry(&mut self, expiry: ExpiryColumns) {
        self.ttls.push(expiry.ttl);
        self.instants.push(expiry.instant);
        self.idle_ttls.push(expiry.idle_ttl);
    }
}

/// The arguments of a checked batch, and its results in the caller's order as if no delete found an
/// entry.
pub(crate) fn batch(ns: &Namespace, batch: Batch<Bytes>) -> (Vec<Param>, Vec<Written>) {
    let mut written = vec![Written::Deleted(false); batch.len()];
    let mut operations: Vec<(usize, Operation<Bytes>)> =
        batch.into_operations().into_iter().enumerate().collect();
    operations.sort_unstable_by(|(_, one), (_, other)| one.key().cmp(other.key()));
    let mut columns = BatchColumns::default();
    for (index, operation) in operations {
        // The conversion cannot fail: a batch has at most 1,000 operations.
        columns.indices.push(i32::try_from(index).unwrap_or(i32::MAX));
        let (condition, expected) = condition_columns(operation.condition());
        columns.conditions.push(condition);
        columns.expected.push(expected);
        match operation {
            Operation::Put { key, value, options, .. } => {
                let version = options.version_or_draw();
                written[index] = Written::Put(version);
                columns.keys.push(key);
                columns.versions.push(Some(version_uuid(version)));
                columns.push_expiry(ExpiryColumns::new(options.expiry()));
                columns.values.push(Some(ValueParam(value)));
            }
            Operation::Delete { key, .. } => {
                columns.keys.push(key);
                columns.versions.push(None);
                columns.push_expiry(ExpiryColumns::new(Expiry::Never));
                columns.values.push(None);
            }
        }
    }
    let mut params = Vec::with_capacity(11);
    params.extend(namespace(ns));
    params.extend([
        param(columns.keys),
        param(columns.indices),
        param(columns.conditions),
        param(columns.expected),
        param(columns.versions),
        param(columns.ttls),
        param(columns.instants),
        param(columns.idle_ttls),
        param(columns.values),
    ]);
    (params, written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_end_is_greater_than_all_strings_with_the_prefix() {
        assert_eq!(prefix_end("").as_deref(), None);
        assert_eq!(prefix_end("a").as_deref(), Some("b"));
        assert_eq!(prefix_end("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(prefix_end("\u{10ffff}\u{10ffff}"), None);
        // The code points between these two are surrogates, which are not characters.
        assert_eq!(prefix_end("\u{d7ff}").as_deref(), Some("\u{e000}"));
        for prefix in ["a", "ab\u{7f}", "ü", "\u{d7ff}", "x\u{ffff}"] {
            let end = prefix_end(prefix).unwrap();
            assert!(end.as_str() > prefix && !end.starts_with(prefix));
            assert!(format!("{prefix}\u{10ffff}") < end);
        }
    }
}
