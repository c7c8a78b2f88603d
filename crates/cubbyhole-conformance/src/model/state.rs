//! The model: a map and a counter of milliseconds.

use std::collections::BTreeMap;

use cubbyhole_core::Version;

use super::operation::{KEYS, PLACES, Place};

/// When an entry expires, in milliseconds since the sequence began.
pub(super) type Instant = i64;

/// Long before any sequence began.
pub(super) const LONG_AGO: Instant = i64::MIN;

/// What stands at a place.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) number: u64,
    pub(super) version: Version,
    pub(super) created: Instant,
    pub(super) updated: Instant,
    pub(super) expires: Option<Instant>,
    /// It was named after it had expired: the store may have removed it then, or not.
    doubtful: bool,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) now: Instant,
    rows: BTreeMap<(usize, &'static str), Row>,
    previous: BTreeMap<(usize, &'static str), Version>,
}

impl Model {
    fn at(place: Place) -> (usize, &'static str) {
        (place.namespace, KEYS[place.key])
    }

    fn is_live(&self, row: &Row) -> bool {
        row.expires.is_none_or(|expires| self.now < expires)
    }

    /// The live row, for an operation that names the place.
    pub(super) fn live(&mut self, place: Place) -> Option<Row> {
        let now = self.now;
        let row = self.rows.get_mut(&Self::at(place))?;
        if row.expires.is_some_and(|expires| expires <= now) {
            row.doubtful = true;
            return None;
        }
        Some(row.clone())
    }

    /// The version that stood at the place before the one of now.
    pub(super) fn previous(&self, place: Place) -> Option<Version> {
        self.previous.get(&Self::at(place)).copied()
    }

    pub(super) fn put(
        &mut self,
        place: Place,
        number: u64,
        version: Version,
        expires: Option<Instant>,
    ) {
        let old = self.live(place);
        if let Some(old) = &old {
            self.previous.insert(Self::at(place), old.version);
        }
        let row = Row {
            number,
            version,
            created: old.map_or(self.now, |old| old.created),
            updated: self.now,
            expires,
            doubtful: false,
        };
        self.rows.insert(Self::at(place), row);
    }

    pub(super) fn set_expiry(&mut self, place: Place, expires: Option<Instant>) {
        if let Some(row) = self.rows.get_mut(&Self::at(place)) {
            row.expires = expires;
        }
    }

    /// Removes the live row; an expired one stays, as one that may be gone.
    pub(super) fn remove(&mut self, place: Place) {
        if let Some(row) = self.live(place) {
            self.previous.insert(Self::at(place), row.version);
            self.rows.remove(&Self::at(place));
        }
    }

    /// The live keys of a namespace, in order.
    pub(super) fn keys(&self, namespace: usize) -> Vec<(&'static str, Row)> {
        self.rows
            .iter()
            .filter(|((ns, _), row)| *ns == namespace && self.is_live(row))
            .map(|((_, key), row)| (*key, row.clone()))
            .collect()
    }

    /// The namespaces under a prefix that hold something live, in the order of their texts, which
    /// begin with the tenant's.
    pub(super) fn namespaces(&self, prefix: usize, tenants: &[String; 2]) -> Vec<usize> {
        let live = |ns: &usize| !self.keys(*ns).is_empty();
        let mut found: Vec<usize> =
            (0..PLACES.len()).filter(|ns| beneath(*ns, prefix)).filter(live).collect();
        found.sort_by_key(|ns| rendered(*ns, tenants));
        found
    }

    /// How many live entries lie under a prefix.
    pub(super) fn live_under(&self, prefix: usize) -> u64 {
        let namespaces = (0..PLACES.len()).filter(|ns| beneath(*ns, prefix));
        namespaces.map(|ns| self.keys(ns).len() as u64).sum()
    }

    /// How many expired entries lie under a prefix (everywhere without one): at least and at most.
    pub(super) fn expired_under(&self, prefix: Option<usize>) -> (u64, u64) {
        let expired = self.rows.iter().filter(|((ns, _), row)| {
            prefix.is_none_or(|prefix| beneath(*ns, prefix)) && !self.is_live(row)
        });
        expired.fold((0, 0), |(least, most), (_, row)| (least + u64::from(!row.doubtful), most + 1))
    }

    pub(super) fn erase(&mut self, prefix: usize) {
        self.rows.retain(|(ns, _), _| !beneath(*ns, prefix));
    }

    pub(super) fn evict(&mut self) {
        let now = self.now;
        self.rows.retain(|_, row| row.expires.is_none_or(|expires| now < expires));
    }
}

/// Whether a namespace is the prefix or lies beneath it, by tenants and whole segments.
fn beneath(namespace: usize, prefix: usize) -> bool {
    let ((tenant, segments), (owner, prefix)) = (PLACES[namespace], PLACES[prefix]);
    tenant == owner && segments.starts_with(prefix)
}

/// The text of a namespace, by the rule and not by the library: segments with `\` and `:` escaped,
/// joined by `:`.
pub(super) fn rendered(namespace: usize, tenants: &[String; 2]) -> String {
    let (tenant, segments) = PLACES[namespace];
    let parts = std::iter::once(tenants[tenant].as_str()).chain(segments.iter().copied());
    let escaped = parts.map(|part| part.replace('\\', "\\\\").replace(':', "\\:"));
    escaped.collect::<Vec<_>>().join(":")
}
