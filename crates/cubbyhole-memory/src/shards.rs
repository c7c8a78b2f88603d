//! [`Shards`]: the namespaces of a store, distributed over locks.
//!
//! The hash of a namespace selects its shard. Callers in different namespaces therefore rarely wait for
//! each other. The directory of all namespaces has one lock. A writer takes it when a namespace appears
//! or disappears, or when it gets its first or loses its last permanent entry. Listings take it too.
//!
//! Lock order: the lock of a shard, then the lock of the directory. A writer updates both under the lock
//! of the shard. A listing releases the directory before it locks a shard.

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::DefaultHashBuilder;
use hashbrown::hash_table::{Entry, HashTable};

use crate::directory::{Directory, Liveness};
use crate::space::Space;
use cubbyhole_core::{Error, Namespace, Result, Timestamp};

/// Many more than cores, so two callers rarely need the same lock.
const SHARDS: usize = 64;
/// Later than every instant.
const NEVER: u64 = u64::MAX;

pub(crate) struct Shards<V> {
    shards: Box<[CacheAligned<RwLock<Shard<V>>>]>,
    /// The earliest expiry in each shard, in milliseconds, or [`NEVER`]. Written under the lock of the
    /// shard and read without it: a sweep that finds nothing reads a few adjacent cache lines.
    first_due: Box<[AtomicU64]>,
    directory: RwLock<Directory>,
    hasher: DefaultHashBuilder,
}

/// Aligned to cache lines, so taking one lock does not slow down its neighbour (false sharing).
#[repr(align(128))]
struct CacheAligned<T>(T);

struct Shard<V> {
    spaces: HashTable<Space<V>>,
    /// The namespaces with expiring entries, ordered by their earliest expiry.
    due: BTreeSet<(Timestamp, Namespace)>,
    closed: bool,
}

impl<V> Shards<V> {
    pub(crate) fn new() -> Self {
        let shard = |_| {
            let (spaces, due) = (HashTable::new(), BTreeSet::new());
            CacheAligned(RwLock::new(Shard { spaces, due, closed: false }))
        };
        Self {
            shards: (0..SHARDS).map(shard).collect(),
            first_due: (0..SHARDS).map(|_| AtomicU64::new(NEVER)).collect(),
            directory: RwLock::new(Directory::new()),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Calls `look` with the namespace, or with `None` if it has no entries.
    pub(crate) fn read<R>(
        &self,
        ns: &Namespace,
        look: impl FnOnce(Option<&Space<V>>) -> R,
    ) -> Result<R> {
        let hash = self.hasher.hash_one(ns);
        let shard = self.read_shard(shard_of(hash))?;
        Ok(look(shard.spaces.find(hash, |space| space.namespace() == ns)))
    }

    /// Changes a namespace atomically, creating it if necessary.
    ///
    /// `change` must not call user code after its first modification. The directory is updated from a
    /// comparison of before and after, which a panic in user code would skip.
    pub(crate) fn change<R>(
        &self,
        ns: &Namespace,
        change: impl FnOnce(&mut Space<V>) -> R,
    ) -> Result<R> {
        let hash = self.hasher.hash_one(ns);
        let number = shard_of(hash);
        let mut shard = self.write_shard(number)?;
        let Shard { spaces, due, .. } = &mut *shard;
        let due = Due { order: due, first: &self.first_due[number] };
        let entry = spaces.entry(
            hash,
            |space| space.namespace() == ns,
            |space| self.hasher.hash_one(space.namespace()),
        );
        match entry {
            Entry::Occupied(mut found) => {
                let before = Summary::of(found.get());
                let answer = change(found.get_mut());
                let after = Summary::of(found.get());
                self.record(found.get().namespace(), before, after, due);
                if after.liveness == Liveness::Absent {
                    found.remove();
                }
                Ok(answer)
            }
            Entry::Vacant(place) => {
                let mut space = Space::new(ns.clone(), self.hasher.clone());
                let before = Summary::of(&space);
                let answer = change(&mut space);
                let after = Summary::of(&space);
                self.record(ns, before, after, due);
                if after.liveness != Liveness::Absent {
                    place.insert(space);
                }
                Ok(answer)
            }
        }
    }

    /// Calls `change` with namespaces that have expired entries, until no such namespace is left.
    pub(crate) fn each_due(
        &self,
        now: impl Fn() -> Timestamp,
        mut change: impl FnMut(&Namespace) -> Result<()>,
    ) -> Result<()> {
        // Every shard records whether the store is closed.
        drop(self.read_shard(0)?);
        let began = now().as_millis();
        for (shard, first_due) in self.first_due.iter().enumerate() {
            // Sees all writes that completed before the sweep began.
            while first_due.load(Ordering::Acquire) <= began {
                let due = self.read_shard(shard)?.due.first().cloned();
                match due {
                    Some((instant, ns)) if instant <= now() => change(&ns)?,
                    _ => break,
                }
            }
        }
        Ok(())
    }

    pub(crate) fn directory(&self) -> Result<RwLockReadGuard<'_, Directory>> {
        // Every shard records whether the store is closed.
        drop(self.read_shard(0)?);
        Ok(self.directory.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Drops all entries and makes every later call fail.
    pub(crate) fn close(&self) {
        for (CacheAligned(shard), first_due) in self.shards.iter().zip(&self.first_due) {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            *shard = Shard { spaces: HashTable::new(), due: BTreeSet::new(), closed: true };
            first_due.store(NEVER, Ordering::Release);
        }
        *self.write_directory() = Directory::new();
    }

    /// Updates the directory and the order by expiry after a change.
    fn record(&self, ns: &Namespace, before: Summary, after: Summary, due: Due<'_>) {
        if before.first_expiry != after.first_expiry {
            due.set(ns, before.first_expiry, after.first_expiry);
        }
        if before.liveness != after.liveness {
            self.write_directory().set(ns, after.liveness);
        }
    }

    fn write_directory(&self) -> RwLockWriteGuard<'_, Directory> {
        self.directory.write().unwrap_or_else(PoisonError::into_inner)
    }

    // A poisoned lock is safe to use: only a panic of user code such as `V::clone` poisons it, and user
    // code does not run while the maps are inconsistent.
    fn read_shard(&self, shard: usize) -> Result<RwLockReadGuard<'_, Shard<V>>> {
        let shard = self.shards[shard].0.read().unwrap_or_else(PoisonError::into_inner);
        if shard.closed { Err(Error::closed()) } else { Ok(shard) }
    }

    fn write_shard(&self, shard: usize) -> Result<RwLockWriteGuard<'_, Shard<V>>> {
        let shard = self.shards[shard].0.write().unwrap_or_else(PoisonError::into_inner);
        if shard.closed { Err(Error::closed()) } else { Ok(shard) }
    }
}

/// The order by expiry of one shard, and the earliest expiry in it.
struct Due<'a> {
    order: &'a mut BTreeSet<(Timestamp, Namespace)>,
    first: &'a AtomicU64,
}

impl Due<'_> {
    fn set(self, ns: &Namespace, before: Option<Timestamp>, after: Option<Timestamp>) {
        if let Some(instant) = before {
            self.order.remove(&(instant, ns.clone()));
        }
        if let Some(instant) = after {
            self.order.insert((instant, ns.clone()));
        }
        let first = self.order.first().map_or(NEVER, |(instant, _)| instant.as_millis());
        // Skips needless stores: other shards share the cache line.
        if self.first.load(Ordering::Relaxed) != first {
            self.first.store(first, Ordering::Release);
        }
    }
}

/// The properties of a namespace that are stored outside of it.
#[derive(Clone, Copy)]
struct Summary {
    liveness: Liveness,
    first_expiry: Option<Timestamp>,
}

impl Summary {
    fn of<V>(space: &Space<V>) -> Self {
        let liveness = match (space.is_empty(), space.has_permanent()) {
            (true, _) => Liveness::Absent,
            (false, false) => Liveness::Expiring,
            (false, true) => Liveness::Permanent,
        };
        Self { liveness, first_expiry: space.first_expiry() }
    }
}

/// Selects a shard by hash bits that the hash tables inside the shards hardly use.
fn shard_of(hash: u64) -> usize {
    (hash >> 48) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;
    use crate::space::Lifetime;
    use cubbyhole_core::{NamespacePrefix, Version};

    const NAMESPACES: usize = 20;

    fn ns(index: usize) -> Namespace {
        Namespace::parse(&format!("acme:n{index}")).unwrap()
    }

    fn put(shards: &Shards<u8>, ns: &Namespace, key: &str, expires_at: Option<Timestamp>) {
        shards
            .change(ns, |space| {
                let lifetime = Lifetime { expires_at, idle_ttl: None };
                space.put(key, 0, Version::draw(), lifetime, Timestamp::EPOCH);
            })
            .unwrap();
    }

    /// Asserts that the directory and the orders by expiry match the namespaces.
    fn check(shards: &Shards<u8>) {
        for index in 0..NAMESPACES {
            let ns = ns(index);
            let prefix = NamespacePrefix::from(ns.clone());
            let directory = shards.directory().unwrap();
            let listed = directory.namespaces(&prefix, None).next().map(|(_, liveness)| liveness);
            drop(directory);
            let summary = shards.read(&ns, |space| space.map(Summary::of)).unwrap();
            assert_eq!(listed, summary.map(|summary| summary.liveness), "{ns}");
            let shard = shards.read_shard(shard_of(shards.hasher.hash_one(&ns))).unwrap();
            let due = shard.due.iter().find(|(_, due)| *due == ns).map(|(instant, _)| *instant);
            assert_eq!(due, summary.and_then(|summary| summary.first_expiry), "{ns}");
            let first = shard.due.first().map_or(NEVER, |(instant, _)| instant.as_millis());
            let first_due = &shards.first_due[shard_of(shards.hasher.hash_one(&ns))];
            assert_eq!(first_due.load(Ordering::Relaxed), first, "{ns}");
        }
    }

    #[test]
    fn directory_matches_namespaces_under_concurrent_changes() {
        let shards = Shards::new();
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|writer| {
                    let shards = &shards;
                    scope.spawn(move || {
                        let mut random = fastrand::Rng::with_seed(writer);
                        for _ in 0..20_000 {
                            let ns = ns(random.usize(..NAMESPACES));
                            let key = ["a", "b"][random.usize(..2)];
                            let instant = Timestamp::from_millis(random.u64(1..5)).unwrap();
                            match random.u32(..3) {
                                0 => put(shards, &ns, key, random.bool().then_some(instant)),
                                _ => {
                                    let _ = shards.change(&ns, |space| space.remove(key)).unwrap();
                                }
                            }
                        }
                    })
                })
                .collect();
            // Concurrent listings and sweeps neither deadlock nor see absent namespaces.
            let lister = scope.spawn(|| {
                let all = NamespacePrefix::parse("acme").unwrap();
                while !ended.load(Ordering::Relaxed) {
                    assert!(
                        shards.directory().unwrap().namespaces(&all, None).count() <= NAMESPACES
                    );
                    let now = || Timestamp::from_millis(2).unwrap();
                    let sweep = |ns: &Namespace| {
                        shards.change(ns, |space| space.remove_expired(now())).map(drop)
                    };
                    shards.each_due(now, sweep).unwrap();
                }
            });
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            ended.store(true, Ordering::Relaxed);
            lister.join().unwrap();
        });
        check(&shards);
    }

    #[test]
    fn removing_all_entries_leaves_no_bookkeeping() {
        let shards = Shards::new();
        for index in 0..NAMESPACES {
            put(&shards, &ns(index), "k", Some(Timestamp::EPOCH));
            put(&shards, &ns(index), "l", None);
        }
        check(&shards);
        for index in 0..NAMESPACES {
            for key in ["l", "k"] {
                let removed = shards.change(&ns(index), |space| space.remove(key)).unwrap();
                assert!(removed.is_some());
                check(&shards);
            }
        }
        let shard = |shard: &CacheAligned<RwLock<Shard<u8>>>| {
            let shard = shard.0.read().unwrap();
            shard.spaces.is_empty() && shard.due.is_empty()
        };
        assert!(shards.shards.iter().all(shard));
        assert_eq!(shards.directory().unwrap().tenants(None).count(), 0);
    }
}
