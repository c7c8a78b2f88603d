//! The cached entries, and the rules for when they are served.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cubbyhole_core::{Bytes, Clock, Entry, EntryStore, ExecutionContext, Namespace, Result};
use hashbrown::DefaultHashBuilder;
use moka::sync::Cache;

use super::backend_time::BackendTimes;
use super::location::{AsLocation, BuildStoredHash, Location, OwnedLocation};
use super::options::CacheOptions;
use super::writes::{GRACE_PERIOD, Permit, Writes};

/// Memory of an entry besides its names and its value: both allocations' headers, the metadata and
/// the bookkeeping of moka. Measured with a million entries.
const OVERHEAD: usize = 640;

/// The largest share of the cache that one entry may take.
const LARGEST_SHARE: u64 = 8;

/// Moka evicts in batches. A batch begins at the latest when this share of the cache was inserted.
const MAINTENANCE_SHARE: u64 = 16;

pub(super) struct Entries {
    items: Cache<OwnedLocation, Item, BuildStoredHash>,
    /// Seeded at random. Not SipHash, which takes a tenth of a hit.
    hasher: DefaultHashBuilder,
    writes: Writes,
    backend_times: BackendTimes,
    clock: Arc<dyn Clock>,
    max_stale: Duration,
    bytes: u64,
    /// Bytes that were inserted since the last eviction.
    inserted: AtomicU64,
}

/// The answer of the inner store for a key.
#[derive(Clone)]
struct Item {
    /// `None` if there is no such entry.
    entry: Option<Entry<Bytes>>,
    /// The monotonic time from which the item is not served.
    until: Duration,
    /// The epoch in which the item was read.
    epoch: u64,
}

/// A read that the cache did not answer.
pub(super) struct Miss {
    began_at: Duration,
    permit: Option<Permit>,
}

impl Entries {
    pub(super) fn new(options: CacheOptions) -> Self {
        let items = Cache::builder()
            .max_capacity(options.bytes())
            .weigher(|location: &OwnedLocation, item: &Item| {
                let weight = weight(location.name_bytes(), item.entry.as_ref());
                u32::try_from(weight).unwrap_or(u32::MAX)
            })
            .build_with_hasher(BuildStoredHash::default());
        Self {
            items,
            hasher: DefaultHashBuilder::default(),
            writes: Writes::new(),
            backend_times: BackendTimes::new(),
            clock: options.clock,
            max_stale: options.max_stale,
            bytes: options.bytes,
            inserted: AtomicU64::new(0),
        }
    }

    pub(super) fn location<'a>(&self, ns: &'a Namespace, key: &'a str) -> Location<'a> {
        let mut hasher = self.hasher.build_hasher();
        ns.hash(&mut hasher);
        key.hash(&mut hasher);
        Location { hash: hasher.finish(), ns, key }
    }

    /// Returns the cached entry or its absence.
    ///
    /// A hit needs no lock. A write removes the item before it begins, and nothing is inserted until
    /// it has ended. An item that is found was therefore current when it was found.
    pub(super) fn find(&self, location: Location<'_>) -> Result<Option<Entry<Bytes>>, Miss> {
        let now = self.clock.elapsed();
        match self.items.get(borrowed(&location)) {
            // The epoch is read after the item: no bulk write had begun when the item was found.
            Some(item) if now < item.until && item.epoch == self.writes.epoch() => Ok(item.entry),
            _ => Err(Miss { began_at: now, permit: self.writes.permit(location.hash, now) }),
        }
    }

    /// Inserts the answer of the inner store after a miss, if it is still current.
    pub(super) async fn fill(
        &self,
        inner: &impl EntryStore<Bytes>,
        ctx: &ExecutionContext,
        location: Location<'_>,
        miss: Miss,
        entry: Option<&Entry<Bytes>>,
    ) {
        let Some(permit) = miss.permit else { return };
        let weight = weight(location.name_bytes(), entry);
        if weight > (self.bytes / LARGEST_SHARE).min(u64::from(u32::MAX)) {
            return;
        }
        let mut until = miss.began_at.saturating_add(self.max_stale);
        if let Some(expires_at) = entry.and_then(|entry| entry.meta.expires_at) {
            let times = &self.backend_times;
            let expires_after =
                times.expires_after(inner, ctx, location.ns, &*self.clock, expires_at).await;
            // The backend's time is unknown.
            let Some(expires_after) = expires_after else { return };
            until = until.min(expires_after);
        }
        // A value may be a slice of a much larger buffer, which a clone would keep in memory.
        let entry = entry
            .map(|entry| Entry { value: Bytes::copy_from_slice(&entry.value), meta: entry.meta });
        let item = Item { entry, until, epoch: permit.epoch };
        self.writes.insert_with(location.hash, permit, || {
            self.items.insert(location.to_owned(), item);
        });
        self.evict_if_due(weight);
    }

    /// Begins a write to `locations`. Its end must be reported with [`WriteGuard::finish`].
    pub(super) fn write<'a>(&'a self, locations: &'a [Location<'a>]) -> WriteGuard<'a> {
        for location in locations {
            self.writes.begin(location.hash);
            self.items.invalidate(borrowed(location));
        }
        WriteGuard { entries: self, scope: WriteScope::Keys(locations), settled: false }
    }

    /// Begins a write whose keys are unknown.
    pub(super) fn write_bulk(&self) -> WriteGuard<'_> {
        self.writes.begin_bulk();
        self.items.invalidate_all();
        WriteGuard { entries: self, scope: WriteScope::All, settled: false }
    }

    /// Serves and inserts nothing from now on.
    pub(super) fn close(&self) {
        // A bulk write that never ends.
        self.writes.begin_bulk();
        self.items.invalidate_all();
        self.items.run_pending_tasks();
    }

    /// Evicts when enough was inserted. Moka waits for 64 inserts, which may be a multiple of the
    /// cache's size.
    fn evict_if_due(&self, weight: u64) {
        let inserted = self.inserted.fetch_add(weight, Ordering::Relaxed) + weight;
        if inserted >= self.bytes / MAINTENANCE_SHARE {
            self.inserted.store(0, Ordering::Relaxed);
            self.items.run_pending_tasks();
        }
    }

    pub(super) fn limit_bytes(&self) -> u64 {
        self.bytes
    }

    /// The bytes and the number of the cached entries, without the latest inserts.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.items.weighted_size(), self.items.entry_count())
    }

    #[cfg(test)]
    pub(super) fn evict(&self) {
        self.items.run_pending_tasks();
    }
}

pub(super) fn borrowed<'a>(location: &'a Location<'a>) -> &'a (dyn AsLocation + 'a) {
    location
}

fn weight(name_bytes: usize, entry: Option<&Entry<Bytes>>) -> u64 {
    let value_bytes = entry.map_or(0, |entry| entry.value.len());
    (OVERHEAD + name_bytes + value_bytes) as u64
}

/// A write in flight. Dropped without [`finish`](Self::finish), its outcome is unknown.
pub(super) struct WriteGuard<'a> {
    entries: &'a Entries,
    scope: WriteScope<'a>,
    settled: bool,
}

enum WriteScope<'a> {
    Keys(&'a [Location<'a>]),
    All,
}

impl WriteGuard<'_> {
    /// Ends the write with its result.
    pub(super) fn finish<T>(mut self, result: Result<T>) -> Result<T> {
        self.settled =
            result.as_ref().map_or_else(|error| !error.may_have_been_applied(), |_| true);
        result
    }
}

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        let Entries { items, writes, clock, .. } = self.entries;
        let uncertain_until = (!self.settled).then(|| clock.elapsed().saturating_add(GRACE_PERIOD));
        // Nothing was inserted since the write began. Each item is removed again nevertheless: a mistake
        // in these rules or in moka then has a smaller effect.
        match self.scope {
            WriteScope::Keys(locations) => {
                for location in locations {
                    items.invalidate(borrowed(location));
                    writes.end(location.hash, uncertain_until);
                }
            }
            WriteScope::All => {
                items.invalidate_all();
                writes.end_bulk(uncertain_until);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cubbyhole_core::Error;

    use super::*;

    fn entries(bytes: u64) -> (Entries, Namespace) {
        let options = CacheOptions::new().with_bytes(bytes).with_max_stale(Duration::MAX);
        (Entries::new(options), Namespace::parse("acme").unwrap())
    }

    fn insert(entries: &Entries, location: Location<'_>, epoch: u64) {
        let item = Item { entry: None, until: Duration::MAX, epoch };
        entries.items.insert(location.to_owned(), item);
    }

    /// Moka compares times in `invalidate_all`, which may be equal.
    #[test]
    fn item_of_an_earlier_epoch_is_not_served() {
        let (entries, ns) = entries(1 << 20);
        let location = entries.location(&ns, "k");
        insert(&entries, location, entries.writes.epoch());
        assert!(entries.find(location).is_ok());
        let before = entries.writes.epoch();
        entries.write_bulk().finish(Ok(())).unwrap();
        insert(&entries, location, before);
        assert!(entries.find(location).is_err());
        insert(&entries, location, entries.writes.epoch());
        assert!(entries.find(location).is_ok());
        entries.close();
        assert!(entries.find(location).is_err_and(|miss| miss.permit.is_none()));
    }

    #[test]
    fn bulk_write_of_unknown_outcome_keeps_all_keys_out() {
        let (entries, ns) = entries(1 << 20);
        let location = entries.location(&ns, "k");
        let permit = |entries: &Entries| entries.find(location).err().unwrap().permit;
        assert!(permit(&entries).is_some());
        let write = entries.write_bulk();
        assert!(permit(&entries).is_none());
        write.finish(Ok(())).unwrap();
        assert!(permit(&entries).is_some());
        let unknown = Error::unavailable("the connection broke").with_unknown_outcome();
        entries.write_bulk().finish(Err::<(), _>(unknown)).unwrap_err();
        assert!(permit(&entries).is_none());
    }

    #[tokio::test]
    async fn large_values_are_evicted_promptly() {
        use cubbyhole_core::{EntryMeta, Timestamp, Version};

        let limit = 16 << 20;
        let (entries, ns) = entries(limit);
        let inner = cubbyhole_memory::InMemoryStore::<Bytes>::new();
        let meta = EntryMeta {
            version: Version::draw(),
            created_at: Timestamp::EPOCH,
            updated_at: Timestamp::EPOCH,
            expires_at: None,
            idle_ttl: None,
        };
        let entry = Entry { value: Bytes::from(vec![1; 2_000_000]), meta };
        for n in 0..40 {
            let key = n.to_string();
            let location = entries.location(&ns, &key);
            let miss = entries.find(location).err().unwrap();
            entries.fill(&inner, &ExecutionContext::new(), location, miss, Some(&entry)).await;
            let stored = entries.items.iter().count() * entry.value.len();
            assert!(stored as u64 <= limit, "{stored} bytes after {n} inserts");
        }
    }
}
