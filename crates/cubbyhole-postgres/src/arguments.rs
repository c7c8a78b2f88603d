//! What a call is about, as the arguments of its function.

use std::time::Duration;

use cubbyhole_core::{Batch, Bytes, Condition, Expiry, Namespace, Operation, Version};
use uuid::Uuid;

use crate::functions::{Name, Param, Tenant, Value, param};

/// The arguments that say where an entry is.
pub(crate) fn location(ns: &Namespace, key: &str) -> Vec<Param> {
    let mut params = Vec::with_capacity(8);
    params.extend([param(Tenant(ns.tenant())), param(Name(ns.clone())), param(key.to_owned())]);
    params
}

/// A TTL or an instant, in milliseconds.
pub(crate) fn expiry(expiry: Expiry) -> (Option<i64>, Option<i64>) {
    match expiry {
        Expiry::Never => (None, None),
        Expiry::After(ttl) => (Some(ttl_millis(ttl)), None),
        Expiry::At(instant) => (None, i64::try_from(instant.as_millis()).ok()),
    }
}

/// A fraction rounds up. What is too much for the server's clock, it says itself.
pub(crate) fn ttl_millis(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

/// What must stand there: `None` for no condition, `Some(None)` for nothing.
pub(crate) fn expected(condition: Condition) -> Option<Option<Uuid>> {
    match condition {
        Condition::Always => None,
        Condition::IfAbsent => Some(None),
        Condition::IfVersion(version) => Some(Some(Uuid::from_bytes(version.to_bytes()))),
    }
}

/// One more than asked for: it tells whether there is more.
pub(crate) fn at_most(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
}

/// The least text past all that begin with `prefix`, in the order of code points, which is that of
/// UTF-8; `None` if there is none.
pub(crate) fn past_prefix(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        if let Some(next) = (last..=char::MAX).nth(1) {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

/// The operations column by column, in key order, in which rows are locked.
#[derive(Default)]
struct Columns {
    keys: Vec<String>,
    places: Vec<i32>,
    conditions: Vec<i32>,
    expected: Vec<Option<Uuid>>,
    versions: Vec<Option<Uuid>>,
    ttls: Vec<Option<i64>>,
    instants: Vec<Option<i64>>,
    values: Vec<Option<Value>>,
}

/// The arguments of a checked batch, and the version of each of its operations.
pub(crate) fn batch(ns: &Namespace, batch: Batch<Bytes>) -> (Vec<Param>, Vec<Option<Version>>) {
    let mut versions = vec![None; batch.len()];
    let mut operations: Vec<(usize, Operation<Bytes>)> =
        batch.into_operations().into_iter().enumerate().collect();
    operations.sort_unstable_by(|(_, one), (_, other)| one.key().cmp(other.key()));
    let mut columns = Columns::default();
    for (place, operation) in operations {
        // A batch has at most a thousand operations.
        columns.places.push(i32::try_from(place).unwrap_or(i32::MAX));
        let (condition, expected) = match operation.condition() {
            Condition::Always => (0, None),
            Condition::IfAbsent => (1, None),
            Condition::IfVersion(version) => (2, Some(Uuid::from_bytes(version.to_bytes()))),
        };
        columns.conditions.push(condition);
        columns.expected.push(expected);
        match operation {
            Operation::Put { key, value, options, .. } => {
                let version = options.version_or_draw();
                let (ttl, instant) = expiry(options.expiry());
                versions[place] = Some(version);
                columns.keys.push(key);
                columns.versions.push(Some(Uuid::from_bytes(version.to_bytes())));
                columns.ttls.push(ttl);
                columns.instants.push(instant);
                columns.values.push(Some(Value(value)));
            }
            Operation::Delete { key, .. } => {
                columns.keys.push(key);
                columns.versions.push(None);
                columns.ttls.push(None);
                columns.instants.push(None);
                columns.values.push(None);
            }
        }
    }
    let params = vec![
        param(Tenant(ns.tenant())),
        param(Name(ns.clone())),
        param(columns.keys),
        param(columns.places),
        param(columns.conditions),
        param(columns.expected),
        param(columns.versions),
        param(columns.ttls),
        param(columns.instants),
        param(columns.values),
    ];
    (params, versions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_a_prefix_is_past_all_that_begin_with_it() {
        assert_eq!(past_prefix("").as_deref(), None);
        assert_eq!(past_prefix("a").as_deref(), Some("b"));
        assert_eq!(past_prefix("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(past_prefix("\u{10ffff}\u{10ffff}"), None);
        // Between these two stand the surrogates, which are no characters.
        assert_eq!(past_prefix("\u{d7ff}").as_deref(), Some("\u{e000}"));
        for prefix in ["a", "ab\u{7f}", "ü", "\u{d7ff}", "x\u{ffff}"] {
            let past = past_prefix(prefix).unwrap();
            assert!(past.as_str() > prefix && !past.starts_with(prefix));
            assert!(format!("{prefix}\u{10ffff}") < past);
        }
    }
}
