//! The operations of the in-memory store. Each one holds the lock of one namespace at a time.

use std::any::Any;

use bytes::Bytes;

use crate::directory::Liveness;
use crate::shards::Shards;
use crate::space::{Displaced, Slot};
use cubbyhole_core::limits::{self, MAX_PAGE_BYTES, MAX_PAGE_ITEMS};
use cubbyhole_core::{
    Batch, Clock, Condition, Entry, Erased, Expiry, GetOptions, HighWaterClock, Namespace,
    NamespacePrefix, Operation, Page, PutOptions, Result, ScanItem, ScanOptions, TenantId,
    Timestamp, Usage, Version,
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

    fn value_bytes(&self, value: &V) -> Option<usize> {
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

    /// Reads many keys at one instant.
    pub(crate) fn lookup_many(
        &self,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Option<Entry<V>>>> {
        limits::check_keys(keys)?;
        self.shards.read(ns, |space| {
            let now = self.now();
            let live = |key: &&str| space?.slot(key).filter(|slot| slot.is_live(now));
            let slots: Vec<_> = keys.iter().map(live).collect();
            slots.iter().flatten().for_each(|slot| prefetch(slot.value()));
            slots.into_iter().map(|slot| slot.map(Slot::entry)).collect()
        })
    }

    /// Reads an entry and extends its TTL as `options` require.
    pub(crate) fn lookup_and_extend(
        &self,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<V>>> {
        limits::check_key(key)?;
        self.shards.change(ns, |space| {
            let now = self.now();
            let live = space.slot(key).filter(|slot| slot.is_live(now));
            let mut entry = live.map(Slot::entry);
            let current = entry.as_ref().and_then(|entry| entry.meta.expires_at);
            if let (Some(extended), Some(entry)) = (options.extend(now, current)?, &mut entry) {
                space.set_expiry(key, Some(extended));
                entry.meta.expires_at = Some(extended);
            }
            // The extended TTL may already have ended.
            Ok(entry.filter(|entry| entry.meta.is_live(now)))
        })?
    }

    /// Sets the expiry of a live entry. Returns whether there was one.
    pub(crate) fn set_expiry(&self, ns: &Namespace, key: &str, expiry: Expiry) -> Result<bool> {
        limits::check_key(key)?;
        self.shards.change(ns, |space| {
            let now = self.now();
            let expires_at = expiry.resolve(now)?;
            let live = space.version(key, now).is_some();
            if live {
                space.set_expiry(key, expires_at);
            }
            Ok(live)
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
            let expires_at = options.expiry().resolve(now)?;
            if condition != Condition::Always {
                condition.check(space.version(key, now))?;
            }
            space.check_room(1)?;
            Ok(space.put(key, value, version, expires_at, now))
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

    pub(crate) fn scan_page(
        &self,
        ns: &Namespace,
        options: &ScanOptions,
    ) -> Result<Page<ScanItem<V>, String>> {
        options.check()?;
        self.shards.read(ns, |space| {
            let now = self.now();
            let prefix = options.prefix().unwrap_or("");
            let slots = space.into_iter().flat_map(|space| space.slots(prefix, options.after()));
            self.page(slots.filter(|slot| slot.is_live(now)), options)
        })
    }

    fn page<'a>(
        &self,
        slots: impl Iterator<Item = &'a Slot<V>>,
        options: &ScanOptions,
    ) -> Page<ScanItem<V>, String> {
        let slots: Vec<_> = slots.take(options.limit() + 1).collect();
        if options.values() {
            slots.iter().for_each(|slot| prefetch(slot.value()));
        }
        let mut page = Page { items: Vec::with_capacity(slots.len()), next: None };
        let mut page_bytes = 0;
        for slot in slots {
            let size = self.value_bytes(slot.value());
            let value_bytes = size.filter(|_| options.values()).unwrap_or(0);
            let item_bytes = slot.key().len().saturating_add(value_bytes);
            let full = page.items.len() == options.limit()
                || (!page.items.is_empty()
                    && item_bytes.saturating_add(page_bytes) > MAX_PAGE_BYTES);
            if full {
                page.next = page.items.last().map(|item: &ScanItem<V>| item.key.clone());
                break;
            }
            page_bytes += item_bytes;
            page.items.push(ScanItem {
                key: slot.key().to_owned(),
                meta: slot.meta(),
                value_bytes: size.map(|size| size as u64),
                value: options.values().then(|| Ok(slot.value().clone())),
            });
        }
        page
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

    /// Returns at most `limit` namespaces under `prefix` that have entries, expired or not.
    fn namespaces(&self, prefix: &NamespacePrefix, limit: usize) -> Result<Vec<Namespace>> {
        let directory = self.shards.directory()?;
        Ok(directory.namespaces(prefix, None).take(limit).map(|(ns, _)| ns.clone()).collect())
    }

    pub(crate) fn erase_step(&self, prefix: &NamespacePrefix, limit: usize) -> Result<Erased> {
        limits::check_page_limit(limit)?;
        let mut removed: Vec<Displaced<V>> = Vec::new();
        let mut live = 0;
        for ns in self.namespaces(prefix, limit)? {
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
        let done = self.namespaces(prefix, 1)?.is_empty();
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
        for ns in self.namespaces(prefix, usize::MAX)? {
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

    pub(crate) fn write_all(
        &self,
        ns: &Namespace,
        batch: Batch<V>,
    ) -> Result<Vec<Option<Version>>> {
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
            let mut versions = Vec::with_capacity(batch.len());
            for (operation, expires_at) in batch.into_operations().into_iter().zip(expiries) {
                match operation {
                    Operation::Put { key, value, options, .. } => {
                        let version = options.version_or_draw();
                        displaced.push(space.put(&key, value, version, expires_at, now));
                        versions.push(Some(version));
                    }
                    Operation::Delete { key, .. } => {
                        displaced.push(space.remove(&key));
                        versions.push(None);
                    }
                }
            }
            Ok(versions)
        })?
    }
}

/// Prefetches the reference count of a value before the value is cloned.
///
/// Cloning `Bytes` increments an atomic count, and the processor waits for each increment before it
/// starts the next. Plain reads of many counts overlap. See `docs/design/memory.md`.
fn prefetch<V: 'static>(value: &V) {
    if let Some(bytes) = (value as &dyn Any).downcast_ref::<Bytes>() {
        let _ = bytes.is_unique();
    }
}
