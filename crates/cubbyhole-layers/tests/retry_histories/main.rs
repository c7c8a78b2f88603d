//! `Retry` over a store with faults: concurrent histories, and how often each write is applied.
//!
//! `Naive` repeats puts of unknown outcome. Both kinds of test must catch it.

#![expect(clippy::unwrap_used, reason = "a panic fails the test that calls a helper")]

mod applied;
mod histories;
mod naive;

use std::sync::Arc;
use std::time::Duration;

use cubbyhole_conformance::{FaultCounts, Faults, Faulty};
use cubbyhole_core::{Bytes, EntryStore};
use cubbyhole_layers::{Retry, RetryOptions};

use naive::Naive;

type Layer = fn(&Arc<Faulty<Bytes>>) -> Arc<dyn EntryStore<Bytes>>;

/// The longest pause of a retry. A late write is applied within twice this time, so some settling
/// reads come before it and others after it.
const PAUSE: Duration = Duration::from_millis(2);

/// Every fault that leaves an outcome unknown with this probability, and refusals.
fn faults(seed: u64, unknown: f64) -> Faults {
    Faults::new(seed)
        .with_refused(0.05)
        .with_lost(unknown)
        .with_unanswered(unknown)
        .with_late(unknown, 2 * PAUSE)
        .with_delayed(0.05, PAUSE / 4)
}

/// A store whose budget does not end during a test.
fn retry(store: &Arc<Faulty<Bytes>>) -> Arc<dyn EntryStore<Bytes>> {
    let options = RetryOptions::new()
        .with_budget(1.0)
        .with_reserve(1_000_000)
        .with_base_backoff(PAUSE / 2)
        .with_max_backoff(PAUSE);
    Arc::new(Retry::new(Arc::clone(store), options).unwrap())
}

fn naive(store: &Arc<Faulty<Bytes>>) -> Arc<dyn EntryStore<Bytes>> {
    Arc::new(Naive(Arc::clone(store)))
}

fn assert_every_fault(counts: FaultCounts) {
    let FaultCounts { refused, lost, unanswered, late, delayed, .. } = counts;
    let injected = [refused, lost, unanswered, late, delayed];
    assert!(injected.iter().all(|count| *count > 0), "{counts:?}");
}
