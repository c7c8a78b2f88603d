//! [`Expiring`]: the entries of a namespace that expire, in order of expiry.

use std::collections::BTreeSet;

use cubbyhole_core::Timestamp;

/// Slot numbers in order of expiry. Every write reads the earliest expiry before and after. It is a
/// separate field, so a write that changes no expiry does not read the set.
pub(crate) struct Expiring {
    first: Option<Timestamp>,
    set: BTreeSet<(Timestamp, u32)>,
}

impl Expiring {
    pub(crate) const fn new() -> Self {
        Self { first: None, set: BTreeSet::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.set.len()
    }

    pub(crate) const fn first(&self) -> Option<Timestamp> {
        self.first
    }

    pub(crate) fn last(&self) -> Option<Timestamp> {
        self.set.last().map(|(instant, _)| *instant)
    }

    /// Returns the entry with the earliest expiry if it has expired at `now`.
    pub(crate) fn first_expired(&self, now: Timestamp) -> Option<u32> {
        if self.first? > now {
            return None;
        }
        self.set.first().map(|(_, number)| *number)
    }

    pub(crate) fn insert(&mut self, instant: Timestamp, number: u32) {
        self.set.insert((instant, number));
        self.first = Some(self.first.map_or(instant, |first| first.min(instant)));
    }

    pub(crate) fn remove(&mut self, instant: Timestamp, number: u32) {
        self.set.remove(&(instant, number));
        if self.first == Some(instant) {
            self.first = self.set.first().map(|(instant, _)| *instant);
        }
    }
}
