//! Histories: concurrent calls, checked for linearizability.

use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::{CancellationToken, EntryStore, ErrorKind};

use crate::Sample;
use crate::case::cases;
use crate::env;
use crate::history::{DEFAULT_OPERATIONS, Failure, Fault, FaultyStore, Plan, Report, run};
use crate::outcome::{Outcome, Stop, check};
use crate::world::World;

cases! {
    /// Concurrent calls are linearizable: each takes effect at one instant between its start and
    /// its end.
    #[case(store, entry)]
    async fn histories_are_linearizable<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_put_options()?;
        let operations = operations();
        let plan = Plan::new(w.tenant().clone(), seed()).with_operations(operations);
        let report = run(w.store(), &plan, &CancellationToken::new()).await;
        report.verdict().map_err(Stop::failed)?;
        no_failures(&report)?;
        let made = report.operations;
        check!(made >= operations, "the run ended after {made} of {operations} calls");
        Ok(())
    }

    /// A cancelled call takes effect at one instant after its start, or never. About one call in
    /// eight has a deadline that can end it.
    #[case(store, entry)]
    async fn cancelled_calls_take_effect_at_most_once<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_put_options()?;
        w.needs_context()?;
        let plan = Plan::new(w.tenant().clone(), seed())
            .with_operations(operations() / 4)
            .with_cancellations(8, Duration::from_millis(2));
        let report = run(w.store(), &plan, &CancellationToken::new()).await;
        report.verdict().map_err(Stop::failed)?;
        for Failure { error, .. } in &report.failures {
            let kind = error.kind();
            check!(
                kind == ErrorKind::DeadlineExceeded,
                "a call must succeed or exceed its deadline, but failed: {error:?}"
            );
        }
        check!(!report.failures.is_empty(), "no deadline ended a call, so the case proves nothing");
        Ok(())
    }

    /// The checker works on this store: it detects stale reads, lost updates, conditions that are
    /// checked in a separate step, and torn batches.
    #[case(store, entry)]
    async fn planted_faults_are_detected<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_put_options()?;
        for fault in Fault::ALL {
            let seed = seed();
            let tenant = w.tenant_with(&format!("-{fault:?}"))?;
            let plan = Plan::new(tenant, seed).with_operations(DEFAULT_OPERATIONS);
            let faulty: Arc<dyn EntryStore<V>> =
                Arc::new(FaultyStore::new(Arc::clone(w.store()), fault, seed));
            let report = run(&faulty, &plan, &CancellationToken::new()).await;
            let (found, calls) = (report.verdict().is_err(), report.operations);
            check!(found, "{fault:?} is not detected in {calls} calls (seed {seed})");
        }
        Ok(())
    }
}

fn operations() -> u64 {
    env::number("CUBBYHOLE_HISTORY_OPERATIONS").unwrap_or(DEFAULT_OPERATIONS)
}

fn seed() -> u64 {
    env::number("CUBBYHOLE_HISTORY_SEED").unwrap_or_else(|| fastrand::u64(..))
}

fn no_failures(report: &Report) -> Outcome {
    match report.failures.first() {
        None => Ok(()),
        Some(failure) => Err(failure.error.clone().into()),
    }
}
