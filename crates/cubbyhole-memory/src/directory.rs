//! [`Directory`]: the namespaces and tenants of a store, in order.

use std::collections::BTreeMap;
use std::ops::Bound;

use cubbyhole_core::{Namespace, NamespacePrefix, TenantId};

/// Whether a namespace has live entries, as far as the directory knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// The namespace has no entries.
    Absent,
    /// All entries have an expiry: the clock decides which are live.
    Expiring,
    /// At least one entry never expires.
    Permanent,
}

/// The namespaces with entries, expired or not.
pub(crate) struct Directory {
    namespaces: BTreeMap<Namespace, Liveness>,
    /// The number of namespaces of each tenant.
    tenants: BTreeMap<TenantId, usize>,
}

impl Directory {
    pub(crate) const fn new() -> Self {
        Self { namespaces: BTreeMap::new(), tenants: BTreeMap::new() }
    }

    pub(crate) fn set(&mut self, ns: &Namespace, liveness: Liveness) {
        if liveness == Liveness::Absent {
            if self.namespaces.remove(ns).is_some() {
                self.count_down(&ns.tenant());
            }
        } else if self.namespaces.insert(ns.clone(), liveness).is_none() {
            *self.tenants.entry(ns.tenant()).or_default() += 1;
        }
    }

    /// Returns the namespaces under `prefix` after `after`, in order.
    pub(crate) fn namespaces<'a>(
        &'a self,
        prefix: &NamespacePrefix,
        after: Option<&Namespace>,
    ) -> impl Iterator<Item = (&'a Namespace, Liveness)> + use<'a> {
        let exact = self.namespaces.get_key_value(prefix.as_namespace());
        let exact = exact.filter(|(ns, _)| after.is_none_or(|after| *ns > after));
        let low = format!("{prefix}:");
        let high = format!("{prefix};");
        let start = match after {
            Some(after) if after.as_str() >= low.as_str() => Bound::Excluded(after.as_str()),
            _ => Bound::Included(low.as_str()),
        };
        // An `after` beyond the range would invert it, and `range` panics on that.
        let empty = after.is_some_and(|after| after.as_str() >= high.as_str());
        let below = (!empty)
            .then(|| self.namespaces.range::<str, _>((start, Bound::Excluded(high.as_str()))));
        let all = exact.into_iter().chain(below.into_iter().flatten());
        all.map(|(ns, liveness)| (ns, *liveness))
    }

    /// Returns the tenants after `after`, in order.
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
