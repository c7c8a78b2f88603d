//! The metrics of one store and their cached keys.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cubbyhole_core::ErrorKind;
use metrics::{
    Key, Label, Level, Metadata, Unit, describe_counter, describe_histogram, with_recorder,
};

use crate::metric_names::{ERRORS, OPERATION_DURATION, OPERATIONS, SWEEPS, SWEPT_ENTRIES};
use crate::operation::Operation;
use crate::outcome::{KIND_COUNT, Outcome, kind_index};

static METADATA: Metadata<'static> = Metadata::new("cubbyhole", Level::INFO, Some(module_path!()));

/// Gives the units and help texts of the metrics to the installed recorder.
///
/// Wrapping a store does the same. Call this function if you install a recorder later; repeated
/// calls are harmless.
///
/// ```
/// // After the recorder is installed:
/// cubbyhole_telemetry::describe_metrics();
/// ```
pub fn describe_metrics() {
    describe_counter!(
        OPERATIONS,
        Unit::Count,
        "Finished calls of a store, by backend, operation and outcome."
    );
    describe_histogram!(
        OPERATION_DURATION,
        Unit::Seconds,
        "Duration of calls of a store, for any outcome."
    );
    describe_counter!(
        ERRORS,
        Unit::Count,
        "Failed calls of a store and unreadable values, by kind of error."
    );
    describe_counter!(SWEEPS, Unit::Count, "Successful sweeps of expired entries.");
    describe_counter!(SWEPT_ENTRIES, Unit::Count, "Expired entries that sweeps removed.");
}

/// The metrics of one store.
///
/// Keys are created at their first use and cached, because creating one costs more than a `get` in
/// memory. The recorder is looked up at each call, so it may be installed at any time.
pub(crate) struct Signals {
    backend: Arc<str>,
    operations: Box<[OperationKeys]>,
    sweeps: Key,
    swept_entries: Key,
}

#[derive(Default)]
struct OperationKeys {
    duration: OnceLock<Key>,
    ended: [OnceLock<Key>; Outcome::COUNT],
    errors: [OnceLock<Key>; KIND_COUNT],
}

impl Signals {
    pub(crate) fn new(backend: Arc<str>) -> Self {
        let backend_key =
            |name| Key::from_parts(name, vec![Label::new("backend", backend.clone())]);
        Self {
            sweeps: backend_key(SWEEPS),
            swept_entries: backend_key(SWEPT_ENTRIES),
            operations: (0..Operation::COUNT).map(|_| OperationKeys::default()).collect(),
            backend,
        }
    }

    pub(crate) fn backend(&self) -> &str {
        &self.backend
    }

    pub(crate) fn ended(&self, operation: Operation, outcome: Outcome, took: Duration) {
        let keys = &self.operations[operation as usize];
        let duration = keys.duration.get_or_init(|| self.key(OPERATION_DURATION, operation, None));
        let slot = outcome.index().map(|index| &keys.ended[index]);
        let label = ("outcome", outcome.as_str());
        self.with_key(slot, OPERATIONS, operation, label, |ended| {
            with_recorder(|recorder| {
                recorder.register_histogram(duration, &METADATA).record(took);
                recorder.register_counter(ended, &METADATA).increment(1);
            });
        });
    }

    pub(crate) fn error(&self, operation: Operation, kind: ErrorKind) {
        let slot = kind_index(kind).map(|index| &self.operations[operation as usize].errors[index]);
        self.with_key(slot, ERRORS, operation, ("kind", kind.as_str()), |key| count(key, 1));
    }

    pub(crate) fn swept(&self, removed: u64) {
        count(&self.sweeps, 1);
        count(&self.swept_entries, removed);
    }

    /// Calls `f` with the key cached in `slot`, or with a temporary key if there is no slot.
    fn with_key(
        &self,
        slot: Option<&OnceLock<Key>>,
        name: &'static str,
        operation: Operation,
        label: (&'static str, &'static str),
        f: impl FnOnce(&Key),
    ) {
        let make = || self.key(name, operation, Some(label));
        match slot {
            Some(slot) => f(slot.get_or_init(make)),
            None => f(&make()),
        }
    }

    fn key(
        &self,
        name: &'static str,
        operation: Operation,
        third: Option<(&'static str, &'static str)>,
    ) -> Key {
        let mut labels = vec![
            Label::new("backend", Arc::clone(&self.backend)),
            Label::from_static_parts("operation", operation.as_str()),
        ];
        labels.extend(third.map(|(name, value)| Label::from_static_parts(name, value)));
        Key::from_parts(name, labels)
    }
}

fn count(key: &Key, by: u64) {
    with_recorder(|recorder| recorder.register_counter(key, &METADATA).increment(by));
}
