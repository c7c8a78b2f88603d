//! The namespaces of a store, divided among locks.
//!
//! A namespace is in one shard, by its hash, so that callers in different namespaces seldom wait
//! for each other. All of the directory is under one lock, which is taken when a namespace appears
//! or goes, or gets its first permanent entry or loses its last, and by whoever lists.
//!
//! The directory's lock is taken while a shard's is held, and never the other way round: so the
//! directory changes with what it tells of, and whoever lists lets go of it before looking into a
//! shard.

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::DefaultHashBuilder;
use hashbrown::hash_table::{Entry, HashTable};

use crate::directory::{Directory, Standing};
use crate::space::Space;
use cubbyhole_core::{Error, Namespace, Result, Timestamp};

/// Many more than cores, so that two callers seldom meet.
const SHARDS: usize = 64;
/// Past every instant.
const NEVER: u64 = u64::MAX;

pub(crate) struct Shards<V> {
    shards: Box<[Apart<RwLock<Shard<V>>>]>,
    /// When the first entry of each shard expires, in milliseconds, or [`NEVER`]. Side by side and read
    /// without a lock, so that a sweep that finds nothing looks at a few lines of memory and not at
    /// every shard's; written under the shard's.
    first_due: Box<[AtomicU64]>,
    directory: RwLock<Directory>,
    hasher: DefaultHashBuilder,
}

/// In cache lines of its own, so that taking one lock does not slow the next one.
#[repr(align(128))]
struct Apart<T>(T);

struct Shard<V> {
    spaces: HashTable<Space<V>>,
    /// Each namespace with entries that expire, by when the first of them does.
    due: BTreeSet<(Timestamp, Namespace)>,
    closed: bool,
}

impl<V> Shards<V> {
    pub(crate) fn new() -> Self {
        let shard = |_| {
            let (spaces, due) = (HashTable::new(), BTreeSet::new());
            Apart(RwLock::new(Shard { spaces, due, closed: false }))
        };
        Self {
            shards: (0..SHARDS).map(shard).collect(),
            first_due: (0..SHARDS).map(|_| AtomicU64::new(NEVER)).collect(),
            directory: RwLock::new(Directory::new()),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Looks into a namespace, if it is there.
    pub(crate) fn read<R>(
        &self,
        ns: &Namespace,
        look: impl FnOnce(Option<&Space<V>>) -> R,
    ) -> Result<R> {
        let hash = self.hasher.hash_one(ns);
        let shard = self.read_shard(shard_of(hash))?;
        Ok(look(shard.spaces.find(hash, |space| space.namespace() == ns)))
    }

    /// Changes a namespace, which need not be there, in one step for everyone else.
    ///
    /// `change` must not run code of others once it has changed anything: what the namespace holds
    /// is compared before and after, and a panic in between would leave the directory behind.
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
                self.note(found.get().namespace(), before, after, due);
                if after.standing == Standing::Absent {
                    found.remove();
                }
                Ok(answer)
            }
            Entry::Vacant(place) => {
                let mut space = Space::new(ns.clone(), self.hasher.clone());
                let before = Summary::of(&space);
                let answer = change(&mut space);
                let after = Summary::of(&space);
                self.note(ns, before, after, due);
                if after.standing != Standing::Absent {
                    place.insert(space);
                }
                Ok(answer)
            }
        }
    }

    /// Of each shard a namespace whose first entry has expired by then, as long as `change`, which
    /// is given it, says that there is more to do.
    pub(crate) fn each_due(
        &self,
        now: impl Fn() -> Timestamp,
        mut change: impl FnMut(&Namespace) -> Result<()>,
    ) -> Result<()> {
        // Any shard tells whether the store is closed.
        drop(self.read_shard(0)?);
        let began = now().as_millis();
        for (shard, first_due) in self.first_due.iter().enumerate() {
            // Whatever was written before the sweep began is seen.
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
        // Any shard tells whether the store is closed.
        drop(self.read_shard(0)?);
        Ok(self.directory.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Forgets everything, and refuses whatever comes later.
    pub(crate) fn close(&self) {
        for (Apart(shard), first_due) in self.shards.iter().zip(&self.first_due) {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            *shard = Shard { spaces: HashTable::new(), due: BTreeSet::new(), closed: true };
            first_due.store(NEVER, Ordering::Release);
        }
        *self.write_directory() = Directory::new();
    }

    /// Tells the directory and the order by expiry what changed.
    fn note(&self, ns: &Namespace, before: Summary, after: Summary, due: Due<'_>) {
        if before.first_expiry != after.first_expiry {
            due.set(ns, before.first_expiry, after.first_expiry);
        }
        if before.standing != after.standing {
            self.write_directory().set(ns, after.standing);
        }
    }

    fn write_directory(&self) -> RwLockWriteGuard<'_, Directory> {
        self.directory.write().unwrap_or_else(PoisonError::into_inner)
    }

    // The maps are changed only by code of ours that does not panic half-way, so a lock that a
    // panicking `V::clone` poisoned guards maps that are whole.
    fn read_shard(&self, shard: usize) -> Result<RwLockReadGuard<'_, Shard<V>>> {
        let shard = self.shards[shard].0.read().unwrap_or_else(PoisonError::into_inner);
        if shard.closed { Err(Error::closed()) } else { Ok(shard) }
    }

    fn write_shard(&self, shard: usize) -> Result<RwLockWriteGuard<'_, Shard<V>>> {
        let shard = self.shards[shard].0.write().unwrap_or_else(PoisonError::into_inner);
        if shard.closed { Err(Error::closed()) } else { Ok(shard) }
    }
}

/// A shard's namespaces by when their first entry expires, and when the first of all does.
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
        // Other shards' stand in the same line of memory.
        if self.first.load(Ordering::Relaxed) != first {
            self.first.store(first, Ordering::Release);
        }
    }
}

/// What others keep of a namespace.
#[derive(Clone, Copy)]
struct Summary {
    standing: Standing,
    first_expiry: Option<Timestamp>,
}

impl Summary {
    fn of<V>(space: &Space<V>) -> Self {
        let standing = match (space.is_empty(), space.has_permanent()) {
            (true, _) => Standing::Absent,
            (false, false) => Standing::Expiring,
            (false, true) => Standing::Permanent,
        };
        Self { standing, first_expiry: space.first_expiry() }
    }
}

/// By bits that the tables within the shards look at least.
fn shard_of(hash: u64) -> usize {
    (hash >> 48) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;
    use cubbyhole_core::{NamespacePrefix, Version};

    const NAMESPACES: usize = 20;

    fn ns(index: usize) -> Namespace {
        Namespace::parse(&format!("acme:n{index}")).unwrap()
    }

    fn put(shards: &Shards<u8>, ns: &Namespace, key: &str, expires_at: Option<Timestamp>) {
        shards
            .change(ns, |space| {
                space.put(key, 0, Version::draw(), expires_at, Timestamp::EPOCH);
            })
            .unwrap();
    }

    /// What the directory and the orders by expiry say of each namespace is so.
    fn check(shards: &Shards<u8>) {
        for index in 0..NAMESPACES {
            let ns = ns(index);
            let prefix = NamespacePrefix::from(ns.clone());
            let directory = shards.directory().unwrap();
            let listed = directory.namespaces(&prefix, None).next().map(|(_, standing)| standing);
            drop(directory);
            let summary = shards.read(&ns, |space| space.map(Summary::of)).unwrap();
            assert_eq!(listed, summary.map(|summary| summary.standing), "{ns}");
            let shard = shards.read_shard(shard_of(shards.hasher.hash_one(&ns))).unwrap();
            let due = shard.due.iter().find(|(_, due)| *due == ns).map(|(instant, _)| *instant);
            assert_eq!(due, summary.and_then(|summary| summary.first_expiry), "{ns}");
            let first = shard.due.first().map_or(NEVER, |(instant, _)| instant.as_millis());
            let first_due = &shards.first_due[shard_of(shards.hasher.hash_one(&ns))];
            assert_eq!(first_due.load(Ordering::Relaxed), first, "{ns}");
        }
    }

    #[test]
    fn a_directory_is_true_however_namespaces_come_and_go() {
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
            // Whoever lists and sweeps meanwhile neither hangs nor sees what is not there.
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
    fn nothing_is_left_of_what_was_removed() {
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
        let shard = |shard: &Apart<RwLock<Shard<u8>>>| {
            let shard = shard.0.read().unwrap();
            shard.spaces.is_empty() && shard.due.is_empty()
        };
        assert!(shards.shards.iter().all(shard));
        assert_eq!(shards.directory().unwrap().tenants(None).count(), 0);
    }
}
