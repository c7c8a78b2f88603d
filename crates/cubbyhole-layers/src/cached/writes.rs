//! Which entries may be cached: generations and writes in flight.
//!
//! A read that misses the cache takes a [`Permit`] before it asks the inner store. It may insert its
//! result only if no write has begun since, and none was in flight then. Otherwise a slow read would
//! put the value from before a write back after the write.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A power of two. Writes to one stripe prevent inserts of all its keys while they are in flight.
const STRIPES: usize = 1024;

/// How long a stripe stays out of the cache after a write of unknown outcome. The write may still be
/// applied within that time.
pub(super) const GRACE_PERIOD: Duration = Duration::from_secs(10);

pub(super) struct Writes {
    stripes: Box<[Mutex<Stripe>]>,
    /// Writes to many keys, such as `erase`.
    bulk: Mutex<Stripe>,
    /// The generation of `bulk`, for hits. They must not take a lock that all keys share.
    epoch: AtomicU64,
}

#[derive(Default)]
struct Stripe {
    /// Changes when a write begins or ends.
    generation: u64,
    in_flight: u64,
    /// Until when writes of unknown outcome may still be applied.
    uncertain_until: Duration,
}

impl Stripe {
    fn begin(&mut self) {
        self.generation += 1;
        self.in_flight += 1;
    }

    fn end(&mut self, uncertain_until: Option<Duration>) {
        self.generation += 1;
        self.in_flight -= 1;
        self.uncertain_until = self.uncertain_until.max(uncertain_until.unwrap_or_default());
    }

    /// The generation, unless a write may be applied at any moment.
    fn stable_generation(&self, now: Duration) -> Option<u64> {
        (self.in_flight == 0 && self.uncertain_until <= now).then_some(self.generation)
    }
}

/// The permission to insert the result of a read.
#[derive(Clone, Copy)]
pub(super) struct Permit {
    generation: u64,
    /// Belongs into the inserted item: an item of another epoch is never served.
    pub(super) epoch: u64,
}

impl Writes {
    pub(super) fn new() -> Self {
        Self {
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            bulk: Mutex::default(),
            epoch: AtomicU64::new(0),
        }
    }

    /// The number of writes to many keys that have begun or ended.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Returns a permit for a read that begins at `now`, or `None` if a write is in flight.
    pub(super) fn permit(&self, hash: u64, now: Duration) -> Option<Permit> {
        let epoch = locked(&self.bulk).stable_generation(now)?;
        let generation = self.stripe(hash).stable_generation(now)?;
        Some(Permit { generation, epoch })
    }

    /// Runs `insert` if no write has begun since the permit was given.
    ///
    /// The lock of the stripe is held, so a write that begins now removes the item afterwards. A bulk
    /// write needs no lock: it changes the epoch, and the item is not served.
    pub(super) fn insert_with(&self, hash: u64, permit: Permit, insert: impl FnOnce()) {
        let stripe = self.stripe(hash);
        if stripe.generation == permit.generation && self.epoch() == permit.epoch {
            insert();
        }
    }

    pub(super) fn begin(&self, hash: u64) {
        self.stripe(hash).begin();
    }

    pub(super) fn end(&self, hash: u64, uncertain_until: Option<Duration>) {
        self.stripe(hash).end(uncertain_until);
    }

    pub(super) fn begin_bulk(&self) {
        self.change_bulk(Stripe::begin);
    }

    pub(super) fn end_bulk(&self, uncertain_until: Option<Duration>) {
        self.change_bulk(|bulk| bulk.end(uncertain_until));
    }

    fn change_bulk(&self, change: impl FnOnce(&mut Stripe)) {
        let mut bulk = locked(&self.bulk);
        change(&mut bulk);
        self.epoch.store(bulk.generation, Ordering::Release);
    }

    fn stripe(&self, hash: u64) -> MutexGuard<'_, Stripe> {
        locked(&self.stripes[hash as usize % STRIPES])
    }
}

fn locked(stripe: &Mutex<Stripe>) -> MutexGuard<'_, Stripe> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}
