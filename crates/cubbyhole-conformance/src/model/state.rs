//! The model: a map and a counter of milliseconds.

use std::collections::BTreeMap;

use cubbyhole_core::Version;

use super::operation::{KEYS, Location, NAMESPACES};

/// An instant, in milliseconds since the start of the sequence.
pub(super) type ModelMillis = i64;

/// An instant long before the start of any sequence.
pub(super) const LONG_AGO: ModelMillis = i64::MIN;

/// The expiry of an entry of the model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ModelExpiry {
    /// The instant from which the entry is absent.
    pub(super) at: Option<ModelMillis>,
    /// The idle TTL.
    pub(super) idle: Option<ModelMillis>,
}

/// An entry of the model, live or expired.
#[derive(Debug, Clone)]
pub(super) struct ModelEntry {
    pub(super) number: u64,
    pub(super) version: Version,
    pub(super) created: ModelMillis,
    pub(super) updated: ModelMillis,
    pub(super) expiry: ModelExpiry,
    /// An operation named the key after the expiry. The store may have removed the entry then.
    may_be_removed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) now: ModelMillis,
    entries: BTreeMap<(usize, &'static str), ModelEntry>,
    previous: BTreeMap<(usize, &'static str), Version>,
}

impl Model {
    fn at(location: Location) -> (usize, &'static str) {
        (location.namespace, KEYS[location.key])
    }

    fn is_live(&self, entry: &ModelEntry) -> bool {
        entry.expiry.at.is_none_or(|expires| self.now < expires)
    }

    /// Returns the live entry, for an operation that names the key.
    pub(super) fn live(&mut self, location: Location) -> Option<ModelEntry> {
        let now = self.now;
        let entry = self.entries.get_mut(&Self::at(location))?;
        if entry.expiry.at.is_some_and(|expires| expires <= now) {
            entry.may_be_removed = true;
            return None;
        }
        Some(entry.clone())
    }

    /// Returns the version before the current one.
    pub(super) fn previous(&self, location: Location) -> Option<Version> {
        self.previous.get(&Self::at(location)).copied()
    }

    pub(super) fn put(
        &mut self,
        location: Location,
        number: u64,
        version: Version,
        expiry: ModelExpiry,
    ) {
        let old = self.live(location);
        if let Some(old) = &old {
            self.previous.insert(Self::at(location), old.version);
        }
        let entry = ModelEntry {
            number,
            version,
            created: old.map_or(self.now, |old| old.created),
            updated: self.now,
            expiry,
            may_be_removed: false,
        };
        self.entries.insert(Self::at(location), entry);
    }

    pub(super) fn set_expiry(&mut self, location: Location, expiry: ModelExpiry) {
        if let Some(entry) = self.entries.get_mut(&Self::at(location)) {
            entry.expiry = expiry;
        }
    }

    /// Extends the TTL of a live entry to at least `millis` from now.
    pub(super) fn extend(&mut self, location: Location, millis: ModelMillis) {
        let Some(ModelEntry { expiry, .. }) = self.live(location) else { return };
        if let Some(at) = expiry.at {
            let at = Some(at.max(self.now + millis));
            self.set_expiry(location, ModelExpiry { at, ..expiry });
        }
    }

    /// Restarts the idle TTL of a live entry, unless less than a tenth of it has passed.
    pub(super) fn refresh(&mut self, location: Location) {
        let Some(ModelEntry { expiry, .. }) = self.live(location) else { return };
        if let (Some(at), Some(idle)) = (expiry.at, expiry.idle) {
            let restarted = self.now + idle;
            let passed = restarted - at;
            if passed > 0 && 10 * passed >= idle {
                self.set_expiry(location, ModelExpiry { at: Some(restarted), ..expiry });
            }
        }
    }

    /// Removes the entry if it is live. An expired entry stays, marked as possibly removed.
    pub(super) fn remove(&mut self, location: Location) {
        if let Some(entry) = self.live(location) {
            self.previous.insert(Self::at(location), entry.version);
            self.entries.remove(&Self::at(location));
        }
    }

    /// Returns the live entries of a namespace, in the order of their keys.
    pub(super) fn keys(&self, namespace: usize) -> Vec<(&'static str, ModelEntry)> {
        self.entries
            .iter()
            .filter(|((ns, _), entry)| *ns == namespace && self.is_live(entry))
            .map(|((_, key), entry)| (*key, entry.clone()))
            .collect()
    }

    /// Returns the namespaces under a prefix that hold live entries, in the order of their rendered
    /// form.
    pub(super) fn namespaces(&self, prefix: usize, tenants: &[String; 2]) -> Vec<usize> {
        let live = |ns: &usize| !self.keys(*ns).is_empty();
        let mut found: Vec<usize> =
            (0..NAMESPACES.len()).filter(|ns| is_under(*ns, prefix)).filter(live).collect();
        found.sort_by_key(|ns| rendered(*ns, tenants));
        found
    }

    /// Counts the live entries under a prefix.
    pub(super) fn live_under(&self, prefix: usize) -> u64 {
        let namespaces = (0..NAMESPACES.len()).filter(|ns| is_under(*ns, prefix));
        namespaces.map(|ns| self.keys(ns).len() as u64).sum()
    }

    /// Counts the expired entries under a prefix, or in all namespaces: the minimum and the maximum
    /// that the store may still hold.
    pub(super) fn expired_under(&self, prefix: Option<usize>) -> (u64, u64) {
        let expired = self.entries.iter().filter(|((ns, _), entry)| {
            prefix.is_none_or(|prefix| is_under(*ns, prefix)) && !self.is_live(entry)
        });
        expired.fold((0, 0), |(least, most), (_, entry)| {
            (least + u64::from(!entry.may_be_removed), most + 1)
        })
    }

    pub(super) fn erase(&mut self, prefix: usize) {
        self.entries.retain(|(ns, _), _| !is_under(*ns, prefix));
    }

    /// Removes the entries of a namespace whose keys start with `prefix`, live or expired.
    pub(super) fn delete_prefix(&mut self, namespace: usize, prefix: &str) {
        self.entries.retain(|(ns, key), _| *ns != namespace || !key.starts_with(prefix));
    }

    pub(super) fn evict(&mut self) {
        let now = self.now;
        self.entries.retain(|_, entry| entry.expiry.at.is_none_or(|expires| now < expires));
    }
}

/// Returns true if a namespace is the prefix or is under it, by tenant and whole segments.
pub(super) fn is_under(namespace: usize, prefix: usize) -> bool {
    let ((tenant, segments), (owner, prefix)) = (NAMESPACES[namespace], NAMESPACES[prefix]);
    tenant == owner && segments.starts_with(prefix)
}

/// Renders a namespace without the code of the library: the parts, with `\` and `:` escaped, joined
/// by `:`.
pub(super) fn rendered(namespace: usize, tenants: &[String; 2]) -> String {
    let (tenant, segments) = NAMESPACES[namespace];
    let parts = std::iter::once(tenants[tenant].as_str()).chain(segments.iter().copied());
    let escaped = parts.map(|part| part.replace('\\', "\\\\").replace(':', "\\:"));
    escaped.collect::<Vec<_>>().join(":")
}
