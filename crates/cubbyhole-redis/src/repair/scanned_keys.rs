//! The keys of the store in a page of `SCAN`.

use std::collections::{BTreeMap, BTreeSet};

use cubbyhole_core::limits::check_key;
use cubbyhole_core::{Namespace, TenantId};

use crate::index::IndexPart;
use crate::keys::ParsedKey;

/// The keys of the store in a page of `SCAN`.
#[derive(Default)]
pub(super) struct ScannedKeys {
    /// Sets, because `SCAN` may return a key twice in a page, and a script would count it twice.
    pub(super) values: BTreeMap<Namespace, BTreeSet<String>>,
    pub(super) parts: BTreeSet<(Namespace, IndexPart)>,
    pub(super) tenants: BTreeSet<TenantId>,
}

impl ScannedKeys {
    pub(super) fn add(&mut self, prefix: &str, name: &[u8]) {
        match ParsedKey::parse(prefix, name) {
            Some(ParsedKey::Keys(ns)) => drop(self.parts.insert((ns, IndexPart::Keys))),
            Some(ParsedKey::Metas(ns)) => drop(self.parts.insert((ns, IndexPart::Metas))),
            Some(ParsedKey::Expiries(ns)) => drop(self.parts.insert((ns, IndexPart::Expiries))),
            Some(ParsedKey::Names(tenant)) => drop(self.tenants.insert(tenant)),
            // A key that a put would reject belongs to another program.
            Some(ParsedKey::Value(ns, key)) if check_key(key).is_ok() => {
                self.values.entry(ns).or_default().insert(key.to_owned());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_returned_twice_by_scan_is_kept_once() {
        let mut named = ScannedKeys::default();
        for name in ["p:{acme}va", "p:{acme}vb", "p:{acme}va"] {
            named.add("p:", name.as_bytes());
        }
        let keys: Vec<_> = named.values.into_values().flatten().collect();
        assert_eq!(keys, ["a", "b"]);
    }
}
