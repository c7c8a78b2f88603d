//! [`Space`]: the entries of one namespace.
//!
//! The entries are in one vector, so a listing reads contiguous memory regardless of the size of the
//! store. An entry is identified by its index in the vector, its number. A hash index finds an entry by
//! key. Two more structures hold the numbers in key order and in order of expiry.

use std::hash::BuildHasher;
use std::time::Duration;

use hashbrown::DefaultHashBuilder;
use smol_str::SmolStr;

use crate::expiring::Expiring;
use crate::index::Index;
use crate::order::Order;
use cubbyhole_core::{Entry, EntryMeta, Error, Expiry, Namespace, Result, Timestamp, Version};

/// A value that a write has removed. The caller drops it after it has released the lock, because
/// dropping it runs user code.
pub(crate) type Displaced<V> = Option<Entry<V>>;

/// The fields that `get` reads come first.
#[repr(C)]
pub(crate) struct Space<V> {
    ns: Namespace,
    index: Index,
    slots: Vec<Slot<V>>,
    hasher: DefaultHashBuilder,
    order: Order,
    expiring: Expiring,
}

/// An entry and its key. Short keys are stored inline. The fields that `get` reads come first, so they
/// span few cache lines.
#[repr(C)]
pub(crate) struct Slot<V> {
    key: SmolStr,
    expires_at: ExpiresAt,
    value: V,
    version: Version,
    created_at: Timestamp,
    updated_at: Timestamp,
    idle_ttl: IdleTtl,
}

/// When an entry expires.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lifetime {
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) idle_ttl: Option<Duration>,
}

impl Lifetime {
    /// The lifetime of an entry that is written with `expiry` at `now`.
    pub(crate) fn of(expiry: Expiry, now: Timestamp) -> Result<Self> {
        Ok(Self { expires_at: expiry.resolve(now)?, idle_ttl: expiry.idle_ttl() })
    }
}

/// An idle TTL in milliseconds; 0 for none. Half the size of an `Option<Duration>`.
#[derive(Clone, Copy)]
struct IdleTtl(u64);

impl From<Option<Duration>> for IdleTtl {
    fn from(ttl: Option<Duration>) -> Self {
        // A valid TTL ends before the year 10000, so its milliseconds fit.
        Self(ttl.map_or(0, |ttl| ttl.as_millis() as u64))
    }
}

impl IdleTtl {
    fn get(self) -> Option<Duration> {
        (self.0 > 0).then(|| Duration::from_millis(self.0))
    }
}

/// An instant in milliseconds, or [`NEVER`]. Half the size of an `Option<Timestamp>`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct ExpiresAt(u64);

/// Later than every instant.
const NEVER: ExpiresAt = ExpiresAt(u64::MAX);

impl From<Option<Timestamp>> for ExpiresAt {
    fn from(instant: Option<Timestamp>) -> Self {
        instant.map_or(NEVER, |instant| Self(instant.as_millis()))
    }
}

impl ExpiresAt {
    fn get(self) -> Option<Timestamp> {
        if self == NEVER { None } else { Timestamp::from_millis(self.0).ok() }
    }
}

impl<V> Slot<V> {
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn value(&self) -> &V {
        &self.value
    }

    pub(crate) fn meta(&self) -> EntryMeta {
        EntryMeta {
            version: self.version,
            created_at: self.created_at,
            updated_at: self.updated_at,
            expires_at: self.expires_at.get(),
            idle_ttl: self.idle_ttl.get(),
        }
    }

    pub(crate) fn is_live(&self, now: Timestamp) -> bool {
        now.as_millis() < self.expires_at.0
    }

    /// Returns true if the entry is live. Calls `now` only if the entry has an expiry.
    pub(crate) fn is_live_at(&self, now: impl FnOnce() -> Timestamp) -> bool {
        self.expires_at == NEVER || self.is_live(now())
    }

    fn into_entry(self) -> Entry<V> {
        let meta = self.meta();
        Entry { value: self.value, meta }
    }
}

impl<V: Clone> Slot<V> {
    pub(crate) fn entry(&self) -> Entry<V> {
        Entry { value: self.value.clone(), meta: self.meta() }
    }
}

impl<V> Space<V> {
    pub(crate) fn new(ns: Namespace, hasher: DefaultHashBuilder) -> Self {
        Self {
            ns,
            slots: Vec::new(),
            index: Index::new(),
            order: Order::new(),
            expiring: Expiring::new(),
            hasher,
        }
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.ns
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Returns the number of entries, expired or not.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns true if any entry never expires.
    pub(crate) fn has_permanent(&self) -> bool {
        self.slots.len() > self.expiring.len()
    }

    pub(crate) fn has_live(&self, now: Timestamp) -> bool {
        self.has_permanent() || self.expiring.last().is_some_and(|instant| now < instant)
    }

    /// Returns the earliest expiry.
    pub(crate) fn first_expiry(&self) -> Option<Timestamp> {
        self.expiring.first()
    }

    /// Returns the entry, expired or not.
    pub(crate) fn slot(&self, key: &str) -> Option<&Slot<V>> {
        self.number(key).map(|number| self.at(number))
    }

    /// Returns the version of the entry if it is live.
    pub(crate) fn version(&self, key: &str, now: Timestamp) -> Option<Version> {
        self.slot(key).filter(|slot| slot.is_live(now)).map(|slot| slot.version)
    }

    /// Returns the entries whose keys start with `prefix` and come after `after`, in key order, expired or
    /// not.
    pub(crate) fn slots<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&str>,
    ) -> impl Iterator<Item = &'a Slot<V>> + use<'a, V> {
        let (from, behind) = match after {
            Some(after) if after >= prefix => (after, true),
            _ => (prefix, false),
        };
        let slots = self.order.from(from, behind, |number| self.at(number).key());
        slots.map(|number| self.at(number)).take_while(move |slot| slot.key.starts_with(prefix))
    }

    /// Returns the entries whose keys start with `prefix` and come before `after`, in descending key
    /// order, expired or not.
    pub(crate) fn slots_descending<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Slot<V>> {
        let is_below = move |key: &str| {
            (key < prefix || key.starts_with(prefix)) && after.is_none_or(|after| key < after)
        };
        let slots = self.order.descending(is_below, |number| self.at(number).key());
        slots.map(|number| self.at(number)).take_while(move |slot| slot.key.starts_with(prefix))
    }

    /// Returns an error if `new` more entries would overflow the entry numbers.
    pub(crate) fn check_room(&self, new: usize) -> Result<()> {
        match self.slots.len().checked_add(new) {
            Some(count) if count <= u32::MAX as usize => Ok(()),
            _ => Err(Error::resource_exhausted(
                "a namespace in memory holds at most 4,294,967,295 entries; delete some",
            )),
        }
    }

    /// Inserts or replaces an entry. The caller has called [`check_room`](Self::check_room).
    pub(crate) fn put(
        &mut self,
        key: &str,
        value: V,
        version: Version,
        lifetime: Lifetime,
        now: Timestamp,
    ) -> Displaced<V> {
        let Some(number) = self.number(key) else {
            let slot = Slot {
                key: key.into(),
                version,
                created_at: now,
                updated_at: now,
                expires_at: lifetime.expires_at.into(),
                idle_ttl: lifetime.idle_ttl.into(),
                value,
            };
            self.push(slot);
            return None;
        };
        self.set_expiry_at(number, lifetime.expires_at, Some(now));
        let slot = &mut self.slots[number as usize];
        slot.idle_ttl = lifetime.idle_ttl.into();
        let meta = slot.meta();
        slot.version = version;
        slot.updated_at = now;
        Some(Entry { value: std::mem::replace(&mut slot.value, value), meta })
    }

    pub(crate) fn set_lifetime(&mut self, key: &str, lifetime: Lifetime) {
        if let Some(number) = self.number(key) {
            self.set_expiry_at(number, lifetime.expires_at, None);
            self.slots[number as usize].idle_ttl = lifetime.idle_ttl.into();
        }
    }

    /// Sets the expiry and keeps the idle TTL.
    pub(crate) fn extend(&mut self, key: &str, expires_at: Timestamp) {
        if let Some(number) = self.number(key) {
            self.set_expiry_at(number, Some(expires_at), None);
        }
    }

    /// Removes the entry, expired or not.
    pub(crate) fn remove(&mut self, key: &str) -> Displaced<V> {
        let number = self.number(key)?;
        Some(self.remove_at(number))
    }

    /// Removes the entry with the earliest expiry if it has expired.
    pub(crate) fn remove_expired(&mut self, now: Timestamp) -> Displaced<V> {
        let number = self.expiring.first_expired(now)?;
        Some(self.remove_at(number))
    }

    /// Removes the first `limit` entries whose keys start with `prefix`, expired or not.
    pub(crate) fn remove_prefix(&mut self, prefix: &str, limit: usize) -> Vec<Displaced<V>> {
        // Removing an entry changes numbers, so the entries are identified by key.
        let keys: Vec<SmolStr> =
            self.slots(prefix, None).take(limit).map(|slot| slot.key.clone()).collect();
        keys.iter().map(|key| self.remove(key)).collect()
    }

    /// Removes the entry with the first key, expired or not.
    pub(crate) fn remove_first(&mut self) -> Displaced<V> {
        let number = self.order.first()?;
        Some(self.remove_at(number))
    }

    fn at(&self, number: u32) -> &Slot<V> {
        &self.slots[number as usize]
    }

    fn number(&self, key: &str) -> Option<u32> {
        let is_it = |number| self.at(number).key == key;
        self.index.find(self.hasher.hash_one(key), is_it)
    }

    fn push(&mut self, slot: Slot<V>) {
        // No truncation, because `check_room` was called.
        let number = self.slots.len() as u32;
        if self.slots.len() == self.slots.capacity() {
            // Grows by a quarter instead of doubling: most namespaces are small and stop growing.
            self.slots.reserve_exact(self.slots.len() / 4 + 1);
        }
        if let Some(instant) = slot.expires_at.get() {
            self.expiring.insert(instant, number);
        }
        let Self { slots, index, order, hasher, .. } = self;
        index.insert(hasher.hash_one(&*slot.key), number);
        order.insert(&slot.key, number, |number| slots[number as usize].key());
        slots.push(slot);
    }

    /// Sets the expiry. If the entry is rewritten and had expired, also resets `created_at`.
    fn set_expiry_at(
        &mut self,
        number: u32,
        expires_at: Option<Timestamp>,
        rewritten: Option<Timestamp>,
    ) {
        let slot = &mut self.slots[number as usize];
        if let Some(now) = rewritten.filter(|now| !slot.is_live(*now)) {
            slot.created_at = now;
        }
        let old = std::mem::replace(&mut slot.expires_at, expires_at.into()).get();
        if old == expires_at {
            return;
        }
        if let Some(instant) = old {
            self.expiring.remove(instant, number);
        }
        if let Some(instant) = expires_at {
            self.expiring.insert(instant, number);
        }
    }

    fn remove_at(&mut self, number: u32) -> Entry<V> {
        let Self { slots, index, order, expiring, hasher, .. } = self;
        let key_of = |number: u32| slots[number as usize].key();
        order.remove(key_of(number), key_of);
        index.remove(hasher.hash_one(key_of(number)), number);
        if let Some(instant) = slots[number as usize].expires_at.get() {
            expiring.remove(instant, number);
        }
        // The last entry moves into the gap.
        let last = slots.len() as u32 - 1;
        if last != number {
            let moved = &slots[last as usize];
            order.replace(&moved.key, number, key_of);
            index.replace(hasher.hash_one(&*moved.key), last, number);
            if let Some(instant) = moved.expires_at.get() {
                expiring.remove(instant, last);
                expiring.insert(instant, number);
            }
        }
        let removed = slots.swap_remove(number as usize);
        self.shrink();
        removed.into_entry()
    }

    /// Releases memory if most of it is unused.
    fn shrink(&mut self) {
        if self.slots.len() * 4 < self.slots.capacity() {
            self.slots.shrink_to(self.slots.len() * 2);
            self.index.shrink();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis).unwrap()
    }

    fn lifetime(expires_at: Option<Timestamp>) -> Lifetime {
        Lifetime { expires_at, idle_ttl: None }
    }

    /// Compares a space with a map of values and expiries.
    fn compare(space: &Space<u64>, map: &BTreeMap<String, (u64, Option<Timestamp>)>) {
        let slots = space.slots("", None);
        let own = slots.map(|slot| (slot.key(), *slot.value(), slot.meta().expires_at));
        assert!(own.eq(map.iter().map(|(key, (value, expiry))| (key.as_str(), *value, *expiry))));
        let expiries = map.values().filter_map(|(_, expiry)| *expiry);
        assert_eq!(space.first_expiry(), expiries.clone().min());
        assert_eq!(space.has_permanent(), expiries.count() < map.len());
        assert_eq!(space.is_empty(), map.is_empty());
        let reversed = space.slots_descending("key-1", None).map(Slot::key);
        let expected = map.keys().rev().map(String::as_str);
        assert!(reversed.eq(expected.filter(|key| key.starts_with("key-1"))));
        let reversed = space.slots_descending("", Some("key-2")).map(Slot::key);
        assert!(reversed.eq(map.range(.."key-2".to_owned()).rev().map(|(key, _)| key.as_str())));
        assert_eq!(space.index.len(), map.len());
        for key in map.keys() {
            assert_eq!(space.slot(key).unwrap().key(), key);
        }
    }

    #[test]
    fn space_matches_a_map() {
        let mut random = fastrand::Rng::with_seed(11);
        let hasher = DefaultHashBuilder::default();
        let mut space = Space::new("acme".parse().unwrap(), hasher);
        let mut map = BTreeMap::new();
        for step in 0..20_000_u64 {
            // Short and long keys. Few entries at first, then many, then few again.
            let range = if (5_000..10_000).contains(&step) { 3_000 } else { 40 };
            let number = random.u32(..range);
            let key = format!("key-{number}-{}", "x".repeat(number as usize % 30));
            let expiry = random.bool().then(|| at(random.u64(1..100)));
            match random.u32(..if step < 10_000 { 5 } else { 9 }) {
                0..3 => {
                    let _ = space.put(&key, step, Version::draw(), lifetime(expiry), at(0));
                    map.insert(key, (step, expiry));
                }
                3 => {
                    space.set_lifetime(&key, lifetime(expiry));
                    map.entry(key).and_modify(|entry| entry.1 = expiry);
                }
                4 => {
                    let removed = space.remove(&key).map(|entry| entry.value);
                    assert_eq!(removed, map.remove(&key).map(|(value, _)| value));
                }
                5 => {
                    let removed = space.remove_first().map(|entry| entry.value);
                    assert_eq!(removed, map.pop_first().map(|(_, (value, _))| value));
                }
                _ => {
                    let removed = space.remove_expired(at(20));
                    let removed = removed.and_then(|entry| entry.meta.expires_at);
                    let first = map.values().filter_map(|(_, expiry)| *expiry).min();
                    assert_eq!(removed, first.filter(|first| *first <= at(20)));
                    if removed.is_some() {
                        let gone = map.keys().find(|key| space.slot(key).is_none()).cloned();
                        map.remove(&gone.unwrap());
                    }
                }
            }
            if step % 100 == 0 {
                compare(&space, &map);
            }
        }
        assert!(map.len() > 500);
        while map.len() > 10 {
            let removed = space.remove_first().map(|entry| entry.value);
            assert_eq!(removed, map.pop_first().map(|(_, (value, _))| value));
        }
        compare(&space, &map);
        assert!(space.slots.capacity() < 100, "{}", space.slots.capacity());
    }

    #[test]
    fn rewriting_an_expired_entry_resets_created_at() {
        let mut space = Space::new("acme".parse().unwrap(), DefaultHashBuilder::default());
        let _ = space.put("k", 1, Version::draw(), lifetime(Some(at(10))), at(5));
        let _ = space.put("k", 2, Version::draw(), lifetime(Some(at(20))), at(9));
        assert_eq!(space.slot("k").unwrap().meta().created_at, at(5));
        let _ = space.put("k", 3, Version::draw(), lifetime(None), at(20));
        assert_eq!(space.slot("k").unwrap().meta().created_at, at(20));
    }
}
