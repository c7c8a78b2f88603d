//! Which namespaces there are, in order.

use std::collections::BTreeMap;
use std::ops::Bound;

use cubbyhole_core::{Namespace, NamespacePrefix, TenantId};

/// What is known of a namespace without looking into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It holds no entries.
    Absent,
    /// All of its entries expire: which are live, only the clock tells.
    Expiring,
    /// It holds an entry that never expires.
    Permanent,
}

/// The namespaces that hold entries, expired or not.
pub(crate) struct Directory {
    namespaces: BTreeMap<Namespace, Standing>,
    /// How many namespaces each tenant has.
    tenants: BTreeMap<TenantId, usize>,
}

impl Directory {
    pub(crate) const fn new() -> Self {
        Self { namespaces: BTreeMap::new(), tenants: BTreeMap::new() }
    }

    pub(crate) fn set(&mut self, ns: &Namespace, standing: Standing) {
        if standing == Standing::Absent {
            if self.namespaces.remove(ns).is_some() {
                self.count_down(&ns.tenant());
            }
        } else if self.namespaces.insert(ns.clone(), standing).is_none() {
            *self.tenants.entry(ns.tenant()).or_default() += 1;
        }
    }

    /// The namespaces under a prefix, in order, past `after`.
    pub(crate) fn namespaces<'a>(
        &'a self,
        prefix: &NamespacePrefix,
        after: Option<&Namespace>,
    ) -> impl Iterator<Item = (&'a Namespace, Standing)> + use<'a> {
        let exact = self.namespaces.get_key_value(prefix.as_namespace());
        let exact = exact.filter(|(ns, _)| after.is_none_or(|after| *ns > after));
        let low = format!("{prefix}:");
        let high = format!("{prefix};");
        let start = match after {
            Some(after) if after.as_str() >= low.as_str() => Bound::Excluded(after.as_str()),
            _ => Bound::Included(low.as_str()),
        };
        // An `after` past the end would make an inverted range, which panics.
        let empty = after.is_some_and(|after| after.as_str() >= high.as_str());
        let below = (!empty)
            .then(|| self.namespaces.range::<str, _>((start, Bound::Excluded(high.as_str()))));
        let all = exact.into_iter().chain(below.into_iter().flatten());
        all.map(|(ns, standing)| (ns, *standing))
    }

    /// The tenants in order, past `after`.
    pub(crate) fn tenants(&self, after: Option<&TenantId>) -> impl Iterator<Item = &TenantId> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.tenants.range((start, Bound::Unbounded)).map(|(tenant, _)| tenant)
    }

    fn count_down(&mut self, tenant: &TenantId) {
        if let Some(count) = self.tenants.get_mut(tenant) {
            *count -= 1;
            if *count == 0 {
                self.tenants.remove(tenant);
            }
        }
    }
}
