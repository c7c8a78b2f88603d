//! The maps of the store in memory.
//!
//! A hash index over (namespace, key) serves `get`; each namespace has its keys in order, with
//! their expiry beside them, so that a listing reads no slot; the namespaces and tenants are in
//! order; and an index by expiry makes a sweep cost what it removes.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::ops::Bound;
use std::sync::Arc;

use hashbrown::{Equivalent, HashMap};

use crate::{Entry, EntryMeta, Namespace, NamespacePrefix, TenantId, Timestamp, Version};

pub(super) type Keys = BTreeMap<Arc<str>, Option<Timestamp>>;

pub(super) struct State<V> {
    slots: HashMap<Location, Entry<V>>,
    keys: HashMap<Namespace, Keys>,
    namespaces: BTreeSet<Namespace>,
    /// How many namespaces each tenant has.
    tenants: BTreeMap<TenantId, usize>,
    expiry: BTreeSet<(Timestamp, Namespace, Arc<str>)>,
    pub(super) closed: bool,
}

/// A value that a write took out of the maps, to be dropped by the caller once the lock is free:
/// dropping it runs code that is not ours.
pub(super) type Displaced<V> = Option<Entry<V>>;

#[derive(PartialEq, Eq)]
struct Location {
    ns: Namespace,
    key: Arc<str>,
}

impl Hash for Location {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Borrowed { ns: &self.ns, key: &self.key }.hash(state);
    }
}

/// A location that is looked up without allocating.
#[derive(Hash)]
struct Borrowed<'a> {
    ns: &'a Namespace,
    key: &'a str,
}

impl Equivalent<Location> for Borrowed<'_> {
    fn equivalent(&self, location: &Location) -> bool {
        *self.ns == location.ns && *self.key == *location.key
    }
}

impl<V> State<V> {
    pub(super) fn new() -> Self {
        Self {
            slots: HashMap::new(),
            keys: HashMap::new(),
            namespaces: BTreeSet::new(),
            tenants: BTreeMap::new(),
            expiry: BTreeSet::new(),
            closed: false,
        }
    }

    /// The entry that stands there, expired or not.
    pub(super) fn slot(&self, ns: &Namespace, key: &str) -> Option<&Entry<V>> {
        self.slots.get(&Borrowed { ns, key })
    }

    /// The version of the live entry.
    pub(super) fn version(&self, ns: &Namespace, key: &str, now: Timestamp) -> Option<Version> {
        self.slot(ns, key).filter(|entry| entry.meta.is_live(now)).map(|entry| entry.meta.version)
    }

    pub(super) fn put(
        &mut self,
        ns: &Namespace,
        key: &str,
        value: V,
        version: Version,
        expires_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Displaced<V> {
        let mut meta = EntryMeta { version, created_at: now, updated_at: now, expires_at };
        if let Some(slot) = self.slots.get_mut(&Borrowed { ns, key }) {
            if slot.meta.is_live(now) {
                meta.created_at = slot.meta.created_at;
            }
            let old = std::mem::replace(slot, Entry { value, meta });
            self.reindex_expiry(ns, key, old.meta.expires_at, expires_at);
            return Some(old);
        }
        let key: Arc<str> = key.into();
        let keys = match self.keys.get_mut(ns) {
            Some(keys) => keys,
            None => {
                self.namespaces.insert(ns.clone());
                *self.tenants.entry(ns.tenant()).or_default() += 1;
                self.keys.entry(ns.clone()).or_default()
            }
        };
        keys.insert(Arc::clone(&key), expires_at);
        if let Some(instant) = expires_at {
            self.expiry.insert((instant, ns.clone(), Arc::clone(&key)));
        }
        self.slots.insert(Location { ns: ns.clone(), key }, Entry { value, meta });
        None
    }

    /// Removes the entry that stands there, expired or not.
    pub(super) fn remove(&mut self, ns: &Namespace, key: &str) -> Displaced<V> {
        let (location, entry) = self.slots.remove_entry(&Borrowed { ns, key })?;
        if let Some(instant) = entry.meta.expires_at {
            self.expiry.remove(&(instant, ns.clone(), location.key));
        }
        let emptied = self.keys.get_mut(ns).is_some_and(|keys| {
            keys.remove(key);
            keys.is_empty()
        });
        if emptied {
            self.forget_namespace(ns);
        }
        Some(entry)
    }

    pub(super) fn set_expiry(&mut self, ns: &Namespace, key: &str, expires_at: Option<Timestamp>) {
        if let Some(slot) = self.slots.get_mut(&Borrowed { ns, key }) {
            let old = std::mem::replace(&mut slot.meta.expires_at, expires_at);
            self.reindex_expiry(ns, key, old, expires_at);
        }
    }

    /// The keys of a namespace in order, with their expiry.
    pub(super) fn keys(&self, ns: &Namespace) -> Option<&Keys> {
        self.keys.get(ns)
    }

    /// The namespaces under a prefix, in order, past `after`, expired entries or not.
    pub(super) fn namespaces<'a>(
        &'a self,
        prefix: &NamespacePrefix,
        after: Option<&Namespace>,
    ) -> impl Iterator<Item = &'a Namespace> + use<'a, V> {
        let exact = self.namespaces.get(prefix.as_namespace());
        let exact = exact.filter(|ns| after.is_none_or(|after| *ns > after));
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
        exact.into_iter().chain(below.into_iter().flatten())
    }

    /// The tenants in order, past `after`, expired entries or not.
    pub(super) fn tenants(&self, after: Option<&TenantId>) -> impl Iterator<Item = &TenantId> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.tenants.range((start, Bound::Unbounded)).map(|(tenant, _)| tenant)
    }

    /// Whether a namespace holds a live entry.
    pub(super) fn is_live(&self, ns: &Namespace, now: Timestamp) -> bool {
        self.keys(ns).is_some_and(|keys| keys.values().any(|expires_at| is_live(*expires_at, now)))
    }

    /// The entry that expires first, if it has expired.
    pub(super) fn first_expired(&self, now: Timestamp) -> Option<(Namespace, Arc<str>)> {
        let (instant, ns, key) = self.expiry.first()?;
        (*instant <= now).then(|| (ns.clone(), Arc::clone(key)))
    }

    fn reindex_expiry(
        &mut self,
        ns: &Namespace,
        key: &str,
        old: Option<Timestamp>,
        new: Option<Timestamp>,
    ) {
        if old == new {
            return;
        }
        let Some(keys) = self.keys.get_mut(ns) else {
            return;
        };
        let Some((key, _)) = keys.get_key_value(key) else {
            return;
        };
        let key = Arc::clone(key);
        if let Some(instant) = old {
            self.expiry.remove(&(instant, ns.clone(), Arc::clone(&key)));
        }
        if let Some(instant) = new {
            self.expiry.insert((instant, ns.clone(), Arc::clone(&key)));
        }
        keys.insert(key, new);
    }

    fn forget_namespace(&mut self, ns: &Namespace) {
        self.keys.remove(ns);
        self.namespaces.remove(ns);
        let tenant = ns.tenant();
        if let Some(count) = self.tenants.get_mut(&tenant) {
            *count -= 1;
            if *count == 0 {
                self.tenants.remove(&tenant);
            }
        }
    }
}

pub(super) fn is_live(expires_at: Option<Timestamp>, now: Timestamp) -> bool {
    expires_at.is_none_or(|instant| now < instant)
}
