//! What the clients of a round know together: their values, the versions of these, and the calls that
//! were made.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use cubbyhole_core::{Condition, Entry, Namespace, Version};

use super::Failure;
use super::check::{Call, KEYS, Seen};
use crate::Sample;

/// What the clients of a round share.
pub(super) struct Round<V: Sample> {
    pub(super) ns: Namespace,
    /// The number of the first value; the others follow.
    base: u64,
    known: Mutex<Known<V>>,
}

pub(super) struct Known<V> {
    /// The values that were drawn.
    values: Vec<V>,
    /// Which value was written with which version.
    pub(super) by_version: HashMap<Version, u64>,
    by_number: HashMap<u64, Version>,
    /// The latest version that was seen of each key, to build conditions on.
    pub(super) latest: [Option<Version>; KEYS],
    pub(super) calls: Vec<Call>,
    pub(super) failures: Vec<Failure>,
    /// What no order of calls can explain.
    nonsense: Option<String>,
}

/// What a round leaves.
pub(super) struct Written {
    pub(super) calls: Vec<Call>,
    pub(super) failures: Vec<Failure>,
    pub(super) nonsense: Option<String>,
}

impl<V: Sample> Round<V> {
    /// A round whose values are numbered from `base` on.
    pub(super) fn new(ns: Namespace, base: u64) -> Self {
        let known = Known {
            values: Vec::new(),
            by_version: HashMap::new(),
            by_number: HashMap::new(),
            latest: [None; KEYS],
            calls: Vec::new(),
            failures: Vec::new(),
            nonsense: None,
        };
        Self { ns, base, known: Mutex::new(known) }
    }

    pub(super) fn into_written(self) -> Written {
        let known = self.known.into_inner().unwrap_or_else(PoisonError::into_inner);
        Written { calls: known.calls, failures: known.failures, nonsense: known.nonsense }
    }

    pub(super) fn known<T>(&self, with: impl FnOnce(&mut Known<V>) -> T) -> T {
        with(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A value that was not written yet, and its number.
    pub(super) fn draw(&self) -> (u64, V) {
        self.known(|known| {
            let number = self.base + known.values.len() as u64;
            let value = V::sample(number);
            known.values.push(value.clone());
            (number, value)
        })
    }

    fn number_of(&self, value: &V) -> Option<u64> {
        // Most that is read was written lately.
        let place = self.known(|known| known.values.iter().rposition(|known| known == value))?;
        Some(self.base + place as u64)
    }

    pub(super) fn nonsense(&self, text: String) {
        self.known(|known| {
            known.nonsense.get_or_insert(text);
        });
    }

    pub(super) fn seen_value(&self, value: Option<&V>) -> Seen {
        let number = value.map(|value| {
            self.number_of(value).unwrap_or_else(|| {
                self.nonsense(format!("a value that nobody wrote there: {value:?}"));
                0
            })
        });
        Seen::Is(number)
    }

    pub(super) fn seen_entry(&self, key: usize, entry: Option<&Entry<V>>) -> Seen {
        let seen = self.seen_value(entry.map(|entry| &entry.value));
        if let (Some(entry), Seen::Is(Some(number))) = (entry, seen) {
            let version = entry.meta.version;
            self.know(version, number);
            self.known(|known| known.latest[key] = Some(version));
        }
        seen
    }

    /// One version, one value.
    pub(super) fn know(&self, version: Version, number: u64) {
        let (other_number, other_version) = self.known(|known| {
            let number_then = *known.by_version.entry(version).or_insert(number);
            let version_then = *known.by_number.entry(number).or_insert(version);
            (number_then, version_then)
        });
        if other_number != number || other_version != version {
            self.nonsense(format!(
                "value {number} at {version}, but value {other_number} was at {other_version}"
            ));
        }
    }

    pub(super) fn seen_version(&self, key: usize, version: Option<Version>) -> Seen {
        let Some(version) = version else {
            return Seen::Is(None);
        };
        self.known(|known| {
            known.latest[key] = Some(version);
            match known.by_version.get(&version) {
                Some(number) => Seen::Is(Some(*number)),
                None => Seen::Something,
            }
        })
    }

    pub(super) fn guard(&self, condition: Condition) -> Option<Seen> {
        match condition {
            Condition::Always => None,
            Condition::IfAbsent => Some(Seen::Is(None)),
            Condition::IfVersion(version) => {
                let number = self.known(|known| known.by_version.get(&version).copied());
                // What is unknown was never written: the store cannot have found it.
                Some(Seen::Is(Some(number.unwrap_or(0))))
            }
        }
    }
}
