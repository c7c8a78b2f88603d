//! `Retry` over a store without faults, and over one that refuses and delays calls.

#![expect(clippy::unwrap_used, reason = "a panic fails the suite")]

use std::sync::Arc;
use std::time::Duration;

use cubbyhole_conformance::libtest_mimic::Trial;
use cubbyhole_conformance::{Faults, Faulty};
use cubbyhole_core::{Bytes, EntryStore, ManualClock};
use cubbyhole_layers::{Retry, RetryOptions};

use crate::layer::{Inner, Layer, trials};

pub(crate) struct Plain;

impl Layer for Plain {
    fn around(inner: Inner, _: &ManualClock) -> Arc<dyn EntryStore<Bytes>> {
        Arc::new(Retry::new(inner, RetryOptions::new()).unwrap())
    }
}

/// Without unknown outcomes, which the layer may have to return.
struct OverFaults;

impl Layer for OverFaults {
    fn around(inner: Inner, _: &ManualClock) -> Arc<dyn EntryStore<Bytes>> {
        let short = Duration::from_micros(100);
        let faults = Faults::new(7).with_refused(0.1).with_delayed(0.1, short);
        let faulty = Faulty::new(Arc::new(inner), faults);
        // A call fails if 30 attempts in a row are refused.
        let options = RetryOptions::new()
            .with_budget(1.0)
            .with_reserve(1_000_000)
            .with_max_attempts(30)
            .with_base_backoff(short)
            .with_max_backoff(short);
        Arc::new(Retry::new(Arc::new(faulty), options).unwrap())
    }
}

/// Returns the cases over faults, without those in which calls are not repeated: without a runtime, and
/// with a context that has ended.
pub(crate) fn trials_over_faults() -> std::io::Result<Vec<Trial>> {
    let is_repeated = |trial: &Trial| {
        let name = trial.name();
        !name.contains("::no_runtime::") && !name.ends_with("ended_context")
    };
    let trials = trials::<OverFaults>("retry_over_faults")?;
    Ok(trials.into_iter().filter(is_repeated).collect())
}

pub(crate) struct NoFaults;

impl Layer for NoFaults {
    fn around(inner: Inner, _: &ManualClock) -> Arc<dyn EntryStore<Bytes>> {
        Arc::new(Faulty::new(Arc::new(inner), Faults::new(7)))
    }
}
