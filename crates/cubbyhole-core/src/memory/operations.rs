//! What the methods of the store in memory do, each under one lock.

use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLockReadGuard, RwLockWriteGuard};

use super::InMemoryStore;
use super::state::{Displaced, State, is_live};
use crate::limits::{self, MAX_PAGE_BYTES, MAX_PAGE_ITEMS};
use crate::{
    Batch, Clock, Condition, Entry, Erased, Error, Expiry, GetOptions, Namespace, NamespacePrefix,
    Operation, Page, PutOptions, Result, ScanItem, ScanOptions, Timestamp, Usage, Version,
};

impl<V: Clone + Send + Sync + 'static> InMemoryStore<V> {
    // The maps are changed only by code of ours that does not panic half-way, so a lock that a
    // panicking `V::clone` poisoned guards maps that are whole.
    pub(super) fn read(&self) -> Result<RwLockReadGuard<'_, State<V>>> {
        let state = self.shared.state.read().unwrap_or_else(PoisonError::into_inner);
        if state.closed { Err(closed()) } else { Ok(state) }
    }

    pub(super) fn write_lock(&self) -> Result<RwLockWriteGuard<'_, State<V>>> {
        let state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.closed { Err(closed()) } else { Ok(state) }
    }

    // Asked for while the lock is held: time never goes back between two holders.
    pub(super) fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    pub(super) fn value_bytes(&self, value: &V) -> Option<usize> {
        self.shared.value_size.as_ref().map(|size| size(value))
    }

    pub(super) fn check_value(&self, value: &V) -> Result<()> {
        self.value_bytes(value)
            .map_or(Ok(()), |bytes| limits::check_value_bytes(bytes, self.shared.max_value_bytes))
    }

    pub(super) fn lookup(&self, ns: &Namespace, key: &str) -> Result<Option<Entry<V>>> {
        limits::check_key(key)?;
        let state = self.read()?;
        let entry = state.slot(ns, key).filter(|entry| {
            // The clock is asked only where there is an expiry to judge.
            entry.meta.expires_at.is_none_or(|instant| self.now() < instant)
        });
        Ok(entry.cloned())
    }

    /// Reads an entry and extends its TTL, as `options` say.
    pub(super) fn lookup_and_extend(
        &self,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<V>>> {
        limits::check_key(key)?;
        let mut state = self.write_lock()?;
        let now = self.now();
        let live = state.slot(ns, key).filter(|entry| entry.meta.is_live(now));
        let current = live.and_then(|entry| entry.meta.expires_at);
        if let Some(extended) = options.extend(now, current)? {
            state.set_expiry(ns, key, Some(extended));
        }
        Ok(state.slot(ns, key).filter(|entry| entry.meta.is_live(now)).cloned())
    }

    /// Sets the expiry of a live entry; tells whether there was one.
    pub(super) fn set_expiry(&self, ns: &Namespace, key: &str, expiry: Expiry) -> Result<bool> {
        limits::check_key(key)?;
        let mut state = self.write_lock()?;
        let now = self.now();
        let expires_at = expiry.resolve(now)?;
        let live = state.version(ns, key, now).is_some();
        if live {
            state.set_expiry(ns, key, expires_at);
        }
        Ok(live)
    }

    pub(super) fn insert(
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
        let mut state = self.write_lock()?;
        let now = self.now();
        let expires_at = options.expiry().resolve(now)?;
        condition.check(state.version(ns, key, now))?;
        let displaced = state.put(ns, key, value, version, expires_at, now);
        drop(state);
        drop(displaced);
        Ok(version)
    }

    pub(super) fn remove_live(
        &self,
        ns: &Namespace,
        key: &str,
        condition: Condition,
    ) -> Result<Option<Entry<V>>> {
        limits::check_key(key)?;
        let mut state = self.write_lock()?;
        let now = self.now();
        condition.check(state.version(ns, key, now))?;
        let removed = state.remove(ns, key);
        drop(state);
        Ok(removed.filter(|entry| entry.meta.is_live(now)))
    }

    pub(super) fn scan_page(
        &self,
        ns: &Namespace,
        options: &ScanOptions,
    ) -> Result<Page<ScanItem<V>, String>> {
        options.check()?;
        let state = self.read()?;
        let now = self.now();
        let mut page = Page { items: Vec::new(), next: None };
        let mut page_bytes = 0;
        for key in live_keys(&state, ns, options.prefix(), options.after(), now) {
            let Some(entry) = state.slot(ns, key) else {
                continue;
            };
            let size = self.value_bytes(&entry.value);
            let value_bytes = size.filter(|_| options.values()).unwrap_or(0);
            let item_bytes = key.len().saturating_add(value_bytes);
            let full = page.items.len() == options.limit()
                || (!page.items.is_empty()
                    && item_bytes.saturating_add(page_bytes) > MAX_PAGE_BYTES);
            if full {
                page.next = page.items.last().map(|item: &ScanItem<V>| item.key.clone());
                break;
            }
            page_bytes += item_bytes;
            page.items.push(ScanItem {
                key: key.to_owned(),
                meta: entry.meta,
                value_bytes: size.map(|size| size as u64),
                value: options.values().then(|| Ok(entry.value.clone())),
            });
        }
        Ok(page)
    }

    pub(super) fn erase_step(&self, prefix: &NamespacePrefix, limit: usize) -> Result<Erased> {
        limits::check_page_limit(limit)?;
        let mut state = self.write_lock()?;
        let now = self.now();
        let mut doomed = Vec::new();
        let mut done = true;
        'all: for ns in state.namespaces(prefix, None) {
            for key in state.keys(ns).into_iter().flatten().map(|(key, _)| key) {
                if doomed.len() == limit {
                    done = false;
                    break 'all;
                }
                doomed.push((ns.clone(), Arc::clone(key)));
            }
        }
        let removed: Vec<Displaced<V>> =
            doomed.iter().map(|(ns, key)| state.remove(ns, key)).collect();
        drop(state);
        let live = removed.iter().flatten().filter(|entry| entry.meta.is_live(now)).count();
        Ok(Erased { removed: live as u64, done })
    }

    pub(super) fn evict_step(&self) -> Result<usize> {
        let mut removed = Vec::new();
        let mut state = self.write_lock()?;
        let now = self.now();
        while removed.len() < MAX_PAGE_ITEMS {
            let Some((ns, key)) = state.first_expired(now) else {
                break;
            };
            removed.push(state.remove(&ns, &key));
        }
        drop(state);
        Ok(removed.len())
    }

    pub(super) fn count(&self, prefix: &NamespacePrefix) -> Result<Usage> {
        let state = self.read()?;
        let now = self.now();
        let mut usage =
            Usage { bytes: self.shared.value_size.as_ref().map(|_| 0), ..Usage::default() };
        for ns in state.namespaces(prefix, None) {
            let entries_before = usage.entries;
            for (key, expires_at) in state.keys(ns).into_iter().flatten() {
                if !is_live(*expires_at, now) {
                    usage.expired += 1;
                    continue;
                }
                usage.entries += 1;
                if let (Some(total), Some(size), Some(entry)) =
                    (&mut usage.bytes, &self.shared.value_size, state.slot(ns, key))
                {
                    *total =
                        total.saturating_add(key.len().saturating_add(size(&entry.value)) as u64);
                }
            }
            usage.namespaces += u64::from(usage.entries > entries_before);
        }
        Ok(usage)
    }

    pub(super) fn write_all(
        &self,
        ns: &Namespace,
        batch: Batch<V>,
    ) -> Result<Vec<Option<Version>>> {
        batch.check(self.shared.max_value_bytes, |value| self.value_bytes(value))?;
        let mut state = self.write_lock()?;
        let now = self.now();
        // Everything that can refuse the batch comes before the first change.
        let mut expiries = Vec::with_capacity(batch.len());
        for (index, operation) in batch.operations().iter().enumerate() {
            let current = state.version(ns, operation.key(), now);
            operation.condition().check(current).map_err(|error| error.at_batch_index(index))?;
            expiries.push(match operation {
                Operation::Put { options, .. } => options.expiry().resolve(now)?,
                Operation::Delete { .. } => None,
            });
        }
        let mut versions = Vec::with_capacity(batch.len());
        let mut displaced = Vec::with_capacity(batch.len());
        for (operation, expires_at) in batch.into_operations().into_iter().zip(expiries) {
            match operation {
                Operation::Put { key, value, options, .. } => {
                    let version = options.version_or_draw();
                    displaced.push(state.put(ns, &key, value, version, expires_at, now));
                    versions.push(Some(version));
                }
                Operation::Delete { key, .. } => {
                    displaced.push(state.remove(ns, &key));
                    versions.push(None);
                }
            }
        }
        drop(state);
        drop(displaced);
        Ok(versions)
    }
}

pub(super) fn live_keys<'a, V>(
    state: &'a State<V>,
    ns: &Namespace,
    prefix: Option<&'a str>,
    after: Option<&'a str>,
    now: Timestamp,
) -> impl Iterator<Item = &'a str> {
    let prefix = prefix.unwrap_or("");
    let start = match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    };
    state
        .keys(ns)
        .into_iter()
        .flat_map(move |keys| keys.range::<str, _>((start, Bound::Unbounded)))
        .take_while(move |(key, _)| key.starts_with(prefix))
        .filter(move |(_, expires_at)| is_live(**expires_at, now))
        .map(|(key, _)| &**key)
}

/// A page of at most `limit` of `items`, with a next one if there are more.
pub(super) fn page_of<T: Clone>(
    mut items: impl Iterator<Item = T>,
    limit: usize,
) -> Result<Page<T>> {
    limits::check_page_limit(limit)?;
    let page: Vec<T> = items.by_ref().take(limit).collect();
    let next = items.next().and_then(|_| page.last().cloned());
    Ok(Page { items: page, next })
}

fn closed() -> Error {
    Error::invalid_argument("the store was closed; open it again")
}
