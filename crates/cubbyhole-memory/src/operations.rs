//! The operations of the in-memory store. Each one holds the lock of one namespace at a time.

use std::any::Any;

use bytes::Bytes;

use crate::directory::Liveness;
use crate::shards::Shards;
use crate::space::{Displaced, Lifetime, Slot, Space};
use cubbyhole_core::limits::{self, MAX_PAGE_ITEMS};
use cubbyhole_core::{
    Batch, Clock, Condition, Entry, EntryStat, Erased, Expiry, GetOptions, HighWaterClock,
    Namespace, NamespacePrefix, Operation, PutOptions, Result, TenantId, Timestamp, Usage, Version,
    Written,
};

/// The encoded length of a value in bytes.
pub(crate) type ValueSize<V> = Box<dyn Fn(&V) -> usize + Send + Sync>;

/// The shared state of a store and of its clones.
pub(crate) struct Operations<V> {
    pub(crate) shards: Shards<V>,
    pub(crate) clock: HighWaterClock,
    pub(crate) max_value_bytes: usize,
    pub(crate) value_size: Option<ValueSize<V>>,
}

impl<V: Clone + Send + Sync + 'static> Operations<V> {
    // Called while a namespace's lock is held, so time never goes back between two lock holders.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn value_bytes(&self, value: &V) -> Option<usize> {
        self.value_size.as_ref().map(|size| size(value))
    }

    fn check_value(&self, value: &V) -> Result<()> {
        self.value_bytes(value)
            .map_or(Ok(()), |bytes| limits::check_value_bytes(bytes, self.max_value_bytes))
    }

    pub(crate) fn lookup<R>(
        &self,
        ns: &Namespace,
        key: &str,
        answer: impl FnOnce(&Slot<V>) -> R,
    ) -> Result<Option<R>> {
        limits::check_key(key)?;
        self.shards.read(ns, |space| {
            let slot = space?.slot(key)?;
            // Reads the clock only if the entry has an expiry.
            slot.is_live_at(|| self.now()).then(|| answer(slot))
        })
    }

    /// Reads an entry and extends its TTL as `options` require. Takes the write lock only if the expiry
    /// changes.
    pub(crate) fn lookup_entry(
        &self,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<V>>> {
        if !options.may_write() {
            return self.lookup(ns, key, Slot::entry);
        }
        let mut entries = self.lookup_many(ns, &[key], options)?;
        Ok(entries.pop().flatten())
    }

    /// Reads many keys at one instant, and extends their TTLs as `options` require.
    pub(crate) fn lookup_many(
        &self,
        ns: &Namespace,
        keys: &[&str],
        options: GetOptions,
    ) -> Result<Vec<Option<Entry<V>>>> {
        limits::check_keys(keys)?;
        options.check()?;
        let read = self.shards.read(ns, |space| {
            let now = self.now();
            let entries = live_entries(space, keys, now);
            let is_due = extensions(&entries, options, now)?.iter().any(Option::is_some);
            Ok((!is_due).then_some(entries))
        })??;
        if let Some(entries) = read {
            return Ok(entries);
        }
        self.shards.change(ns, |space| {
            let now = self.now();
            let mut entries = live_entries(Some(space), keys, now);
            let extensions = extensions(&entries, options, now)?;
            for ((key, entry), extended) in keys.iter().zip(&mut entries).zip(extensions) {
                if let (Some(entry), Some(extended)) = (entry, extended) {
                    space.extend(key, extended);
                    entry.meta.expires_at = Some(extended);
                }
            }
            Ok(entries)
        })?
    }

    /// Returns the metadata and sizes of many entries at one instant.
    pub(crate) fn stats(&self, ns: &Namespace, keys: &[&str]) -> Result<Vec<Option<EntryStat>>> {
        limits::check_keys(keys)?;
        self.shards.read(ns, |space| {
            let now = self.now();
            let stat = |key: &&str| {
                let slot = space?.slot(key).filter(|slot| slot.is_live(now))?;
                let value_bytes = self.value_bytes(slot.value()).map(|bytes| bytes as u64);
                Some(EntryStat { meta: slot.meta(), value_bytes })
            };
            keys.iter().map(stat).collect()
        })
    }

    /// Sets the expiry of a live entry if the condition holds. Returns whether there was one.
    pub(crate) fn set_expiry(
        &self,
        ns: &Namespace,
        key: &str,
        expiry: Expiry,
        condition: Condition,
    ) -> Result<bool> {
        limits::check_key(key)?;
        self.shards.change(ns, |space| {
            let now = self.now();
            let lifetime = Lifetime::of(expiry, now)?;
            let current = space.version(key, now);
            condition.check(current)?;
            if current.is_some() {
                space.set_lifetime(key, lifetime);
            }
            Ok(current.is_some())
        })?
    }

    pub(crate) fn insert(
        &self,
        ns: &Namespace,
        key: &str,
        value: V,
        options: PutOptions,
        condition: Condition,
    ) -> Result<Version> {
        limits::check_key(key)?;
        self.check_value(&value)?;
        let version = options.version_or_draw();
        // The replaced value is dropped after the lock is released.
        let put = self.shards.change(ns, |space| {
            let now = self.now();
            let lifetime = Lifetime::of(options.expiry(), now)?;
            if condition != Condition::Always {
                condition.check(space.version(key, now))?;
            }
            space.check_room(1)?;
            Ok(space.put(key, value, version, lifetime, now))
        })?;
        put.map(|_| version)
    }

    pub(crate) fn remove_live(
        &self,
        ns: &Namespace,
        key: &str,
        condition: Condition,
    ) -> Result<Option<Entry<V>>> {
        limits::check_key(key)?;
        self.shards.change(ns, |space| {
            let now = self.now();
            condition.check(space.version(key, now))?;
            Ok(space.remove(key).filter(|entry| entry.meta.is_live(now)))
        })?
    }

    pub(crate) fn keys(&self, ns: &Namespace, prefix: Option<&str>) -> Result<Vec<String>> {
        limits::check_prefix(prefix)?;
        self.shards.read(ns, |space| {
            let now = self.now();
            let slots = space.into_iter().flat_map(|space| space.slots(prefix.unwrap_or(""), None));
            slots.filter(|slot| slot.is_live(now)).map(|slot| slot.key().to_owned()).collect()
        })
    }

    /// Returns at most `limit` namespaces under `prefix` after `after` that have a live entry, in order.
    pub(crate) fn live_namespaces(
        &self,
        prefix: &NamespacePrefix,
        after: Option<&Namespace>,
        limit: usize,
    ) -> Result<Vec<Namespace>> {
        let mut live = Vec::new();
        let mut after = after.cloned();
        while live.len() < limit {
            // Releases the directory before it locks a shard.
            let wanted = limit - live.len();
            let directory = self.shards.directory()?;
            let listed = directory.namespaces(prefix, after.as_ref()).take(wanted);
            let listed: Vec<_> = listed.map(|(ns, liveness)| (ns.clone(), liveness)).collect();
            drop(directory);
            let was_last = listed.len() < wanted;
            after = listed.last().map(|(ns, _)| ns.clone());
            for (ns, liveness) in listed {
                if liveness == Liveness::Permanent || self.is_live(&ns)? {
                    live.push(ns);
                }
            }
            if was_last {
                break;
            }
        }
        Ok(live)
    }

    /// Returns at most `limit` tenants after `after` that have a live entry, in order.
    pub(crate) fn live_tenants(
        &self,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<Vec<TenantId>> {
        let mut live = Vec::new();
        let mut after = after.cloned();
        while live.len() < limit {
            let wanted = limit - live.len();
            let directory = self.shards.directory()?;
            let listed: Vec<_> = directory.tenants(after.as_ref()).take(wanted).cloned().collect();
            drop(directory);
            let was_last = listed.len() < wanted;
            after = listed.last().cloned();
            for tenant in listed {
                let prefix = NamespacePrefix::from(tenant.clone());
                if !self.live_namespaces(&prefix, None, 1)?.is_empty() {
                    live.push(tenant);
                }
            }
            if was_last {
                break;
            }
        }
        Ok(live)
    }

    fn is_live(&self, ns: &Namespace) -> Result<bool> {
        self.shards.read(ns, |space| space.is_some_and(|space| space.has_live(self.now())))
    }

    /// Returns at most `limit` namespaces under `prefix` after `after` that have entries, expired or
    /// not.
    pub(crate) fn namespaces(
        &self,
        prefix: &NamespacePrefix,
        after: Option<&Namespace>,
        limit: usize,
    ) -> Result<Vec<Namespace>> {
        let directory = self.shards.directory()?;
        Ok(directory.namespaces(prefix, after).take(limit).map(|(ns, _)| ns.clone()).collect())
    }

    /// Removes at most `limit` entries of one namespace whose keys start with `prefix`.
    pub(crate) fn delete_prefix_step(
        &self,
        ns: &Namespace,
        prefix: &str,
        limit: usize,
    ) -> Result<Erased> {
        limits::check_prefix(Some(prefix))?;
        limits::check_page_limit(limit)?;
        // The removed values are dropped after the lock is released.
        let (removed, live, done) = self.shards.change(ns, |space| {
            let now = self.now();
            let removed = space.remove_prefix(prefix, limit);
            let live = removed.iter().flatten().filter(|entry| entry.meta.is_live(now)).count();
            (removed, live as u64, space.slots(prefix, None).next().is_none())
        })?;
        drop(removed);
        Ok(Erased { removed: live, done })
    }

    pub(crate) fn erase_step(&self, prefix: &NamespacePrefix, limit: usize) -> Result<Erased> {
        limits::check_page_limit(limit)?;
        let mut removed: Vec<Displaced<V>> = Vec::new();
        let mut live = 0;
        for ns in self.namespaces(prefix, None, limit)? {
            let room = limit - removed.len();
            self.shards.change(&ns, |space| {
                let now = self.now();
                let before = removed.len();
                removed.extend((0..room).map_while(|_| space.remove_first().map(Some)));
                let doomed = removed[before..].iter().flatten();
                live += doomed.filter(|entry| entry.meta.is_live(now)).count() as u64;
            })?;
            if removed.len() == limit {
                break;
            }
        }
        let done = self.namespaces(prefix, None, 1)?.is_empty();
        Ok(Erased { removed: live, done })
    }

    pub(crate) fn evict(&self) -> Result<usize> {
        let mut count = 0;
        self.shards.each_due(
            || self.now(),
            |ns| {
                // Bounded steps, so a long sweep does not block other callers.
                let mut removed: Vec<Displaced<V>> = Vec::new();
                self.shards.change(ns, |space| {
                    let now = self.now();
                    let expired = (0..MAX_PAGE_ITEMS).map_while(|_| space.remove_expired(now));
                    removed.extend(expired.map(Some));
                })?;
                count += removed.len();
                Ok(())
            },
        )?;
        Ok(count)
    }

    pub(crate) fn count(&self, prefix: &NamespacePrefix) -> Result<Usage> {
        let mut usage = Usage { bytes: self.value_size.as_ref().map(|_| 0), ..Usage::default() };
        for ns in self.namespaces(prefix, None, usize::MAX)? {
            self.shards.read(&ns, |space| {
                let now = self.now();
                let entries_before = usage.entries;
                for slot in space.into_iter().flat_map(|space| space.slots("", None)) {
                    if !slot.is_live(now) {
                        usage.expired += 1;
                        continue;
                    }
                    usage.entries += 1;
                    if let (Some(total), Some(size)) = (&mut usage.bytes, &self.value_size) {
                        let bytes = slot.key().len().saturating_add(size(slot.value()));
                        *total = total.saturating_add(bytes as u64);
                    }
                }
                usage.namespaces += u64::from(usage.entries > entries_before);
            })?;
        }
        Ok(usage)
    }

    pub(crate) fn write_all(&self, ns: &Namespace, batch: Batch<V>) -> Result<Vec<Written>> {
        batch.check(self.max_value_bytes, |value| self.value_bytes(value))?;
        let mut displaced = Vec::with_capacity(batch.len());
        // Replaced values are dropped after the lock is released.
        self.shards.change(ns, |space| {
            let now = self.now();
            // All checks come before the first change, and checks of the batch itself before any
            // condition.
            let expiries = batch.expiries(now)?;
            for (index, operation) in batch.operations().iter().enumerate() {
                let condition = operation.condition();
                if condition != Condition::Always {
                    let current = space.version(operation.key(), now);
                    condition.check(current).map_err(|error| error.at_batch_index(index))?;
                }
            }
            space.check_room(batch.len())?;
            let mut written = Vec::with_capacity(batch.len());
            for (operation, expires_at) in batch.into_operations().into_iter().zip(expiries) {
                match operation {
                    Operation::Put { key, value, options, .. } => {
                        let version = options.version_or_draw();
                        let idle_ttl = options.expiry().idle_ttl();
                        let lifetime = Lifetime { expires_at, idle_ttl };
                        displaced.push(space.put(&key, value, version, lifetime, now));
                        written.push(Written::Put(version));
                    }
                    Operation::Delete { key, .. } => {
                        let removed = space.remove(&key);
                        let was_live =
                            removed.as_ref().is_some_and(|entry| entry.meta.is_live(now));
                        displaced.push(removed);
                        written.push(Written::Deleted(was_live));
                    }
                }
            }
            Ok(written)
        })?
    }
}

/// The live entries of the keys, in their order.
fn live_entries<V: Clone + 'static>(
    space: Option<&Space<V>>,
    keys: &[&str],
    now: Timestamp,
) -> Vec<Option<Entry<V>>> {
    let live = |key: &&str| space?.slot(key).filter(|slot| slot.is_live(now));
    let slots: Vec<_> = keys.iter().map(live).collect();
    slots.iter().flatten().for_each(|slot| prefetch(slot.value()));
    slots.into_iter().map(|slot| slot.map(Slot::entry)).collect()
}

/// The new expiry of each entry whose expiry the read changes. An invalid TTL is an error even if no
/// entry is live.
fn extensions<V>(
    entries: &[Option<Entry<V>>],
    options: GetOptions,
    now: Timestamp,
) -> Result<Vec<Option<Timestamp>>> {
    if let Some(ttl) = options.extended_ttl() {
        Expiry::After(ttl).resolve(now)?;
    }
    let extension = |entry: &Option<Entry<V>>| match entry {
        Some(entry) => options.extend(now, &entry.meta),
        None => Ok(None),
    };
    entries.iter().map(extension).collect()
}

/// Prefetches the reference count of a value before the value is cloned.
///
/// Cloning `Bytes` increments an atomic count, and the processor waits for each increment before it
/// starts the next. Plain reads of many counts overlap. See `docs/design/memory.md`.
pub(crate) fn prefetch<V: 'static>(value: &V) {
    if let Some(bytes) = (value as &dyn Any).downcast_ref::<Bytes>() {
        let _ = bytes.is_unique();
    }
}
