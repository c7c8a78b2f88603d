//! The data that the clients of a round share: values, versions, and the recorded calls.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use cubbyhole_core::{Condition, Entry, Namespace, Version};

use super::check::{KEYS, Observation, RecordedCall};
use super::report::Failure;
use crate::Sample;

/// A round: one namespace with [`KEYS`] keys, and the clients that use it.
pub(super) struct Round<V: Sample> {
    pub(super) ns: Namespace,
    /// The number of the first value. The others follow.
    base: u64,
    shared: Mutex<RoundState<V>>,
}

pub(super) struct RoundState<V> {
    /// The values so far, in the order of their numbers.
    values: Vec<V>,
    /// The value that was written with each version.
    pub(super) by_version: HashMap<Version, u64>,
    by_number: HashMap<u64, Version>,
    /// The latest version that a client saw of each key. Clients build conditions from it.
    pub(super) latest: [Option<Version>; KEYS],
    pub(super) calls: Vec<RecordedCall>,
    pub(super) failures: Vec<Failure>,
    /// The first reply that no order of calls can explain.
    contradiction: Option<String>,
}

/// The calls of a finished round.
pub(super) struct RoundRecord {
    pub(super) calls: Vec<RecordedCall>,
    pub(super) failures: Vec<Failure>,
    pub(super) contradiction: Option<String>,
}

impl<V: Sample> Round<V> {
    /// Creates a round whose values have the numbers from `base` on.
    pub(super) fn new(ns: Namespace, base: u64) -> Self {
        let shared = RoundState {
            values: Vec::new(),
            by_version: HashMap::new(),
            by_number: HashMap::new(),
            latest: [None; KEYS],
            calls: Vec::new(),
            failures: Vec::new(),
            contradiction: None,
        };
        Self { ns, base, shared: Mutex::new(shared) }
    }

    pub(super) fn into_record(self) -> RoundRecord {
        let shared = self.shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        RoundRecord {
            calls: shared.calls,
            failures: shared.failures,
            contradiction: shared.contradiction,
        }
    }

    pub(super) fn shared<T>(&self, with: impl FnOnce(&mut RoundState<V>) -> T) -> T {
        with(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Creates a new value, and returns its number.
    pub(super) fn new_value(&self) -> (u64, V) {
        self.shared(|shared| {
            let number = self.base + shared.values.len() as u64;
            let value = V::sample(number);
            shared.values.push(value.clone());
            (number, value)
        })
    }

    fn number_of(&self, value: &V) -> Option<u64> {
        // Most reads return a recent value, so the search starts at the end.
        let index = self.shared(|shared| shared.values.iter().rposition(|other| other == value))?;
        Some(self.base + index as u64)
    }

    /// Records a reply that no order of calls can explain.
    pub(super) fn contradiction(&self, text: String) {
        self.shared(|shared| {
            shared.contradiction.get_or_insert(text);
        });
    }

    pub(super) fn observe_value(&self, value: Option<&V>) -> Observation {
        let number = value.map(|value| {
            self.number_of(value).unwrap_or_else(|| {
                self.contradiction(format!(
                    "a read returns a value that no client wrote: {value:?}"
                ));
                0
            })
        });
        Observation::Is(number)
    }

    pub(super) fn observe_entry(&self, key: usize, entry: Option<&Entry<V>>) -> Observation {
        let observed = self.observe_value(entry.map(|entry| &entry.value));
        if let (Some(entry), Observation::Is(Some(number))) = (entry, observed) {
            let version = entry.meta.version;
            self.learn(version, number);
            self.shared(|shared| shared.latest[key] = Some(version));
        }
        observed
    }

    /// Records that a value has a version. A value that appears with two versions is a
    /// contradiction, and so is a version that appears with two values.
    pub(super) fn learn(&self, version: Version, number: u64) {
        let (known_number, known_version) = self.shared(|shared| {
            let known_number = *shared.by_version.entry(version).or_insert(number);
            let known_version = *shared.by_number.entry(number).or_insert(version);
            (known_number, known_version)
        });
        if known_number != number || known_version != version {
            self.contradiction(format!(
                "value {number} has version {version}, but value {known_number} had version \
                 {known_version}"
            ));
        }
    }

    pub(super) fn observe_version(&self, key: usize, version: Option<Version>) -> Observation {
        let Some(version) = version else {
            return Observation::Is(None);
        };
        self.shared(|shared| {
            shared.latest[key] = Some(version);
            match shared.by_version.get(&version) {
                Some(number) => Observation::Is(Some(*number)),
                None => Observation::Present,
            }
        })
    }

    /// Returns the state of the key that a condition requires.
    pub(super) fn required_by(&self, condition: Condition) -> Option<Observation> {
        match condition {
            Condition::Always => None,
            Condition::IfAbsent => Some(Observation::Is(None)),
            Condition::IfPresent => Some(Observation::Present),
            Condition::IfVersion(version) => {
                let number = self.shared(|shared| shared.by_version.get(&version).copied());
                // No value has the number 0: a version that no client wrote can never match.
                Some(Observation::Is(Some(number.unwrap_or(0))))
            }
        }
    }
}
