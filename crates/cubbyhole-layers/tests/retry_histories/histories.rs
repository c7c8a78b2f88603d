//! Histories are linearizable.

use std::sync::Arc;
use std::time::Duration;

use cubbyhole_conformance::Faulty;
use cubbyhole_conformance::history::{Plan, Report, run};
use cubbyhole_core::{Bytes, CancellationToken, ErrorKind, TenantId};
use cubbyhole_memory::InMemoryStore;

use crate::{Layer, assert_every_fault, faults, naive, retry};

/// No call takes this long, even on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

async fn histories(seed: u64, layer: Layer) -> (Report, Arc<Faulty<Bytes>>) {
    let memory = Arc::new(InMemoryStore::<Bytes>::new());
    let faulty = Arc::new(Faulty::new(memory, faults(seed, 0.01)));
    let plan = Plan::new(TenantId::new("histories").unwrap(), seed)
        .with_operations(3_000)
        .with_faults(TIMEOUT);
    let report = run(&layer(&faulty), &plan, &CancellationToken::new()).await;
    (report, faulty)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_with_retries_are_linearizable() {
    for seed in 1..=5 {
        let (report, faulty) = histories(seed, retry).await;
        if let Err(explanation) = report.verdict() {
            panic!("seed {seed}: {explanation}");
        }
        report.check_failures(&[ErrorKind::Unavailable], TIMEOUT).unwrap();
        assert!(report.unknown > 0, "the layer cannot settle every outcome");
        assert_every_fault(faulty.counts());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_catch_a_repeated_put_of_unknown_outcome() {
    for seed in 1..=10 {
        let (report, _) = histories(seed, naive).await;
        if report.verdict().is_err() {
            return;
        }
    }
    panic!("no history caught the broken layer");
}
