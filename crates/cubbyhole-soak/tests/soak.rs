//! The load makes every kind of call and finds nothing wrong on stores that are right, and what is
//! wrong on stores that are not.

#![expect(clippy::unwrap_used, reason = "without a store a test cannot begin")]

mod planted;

use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{Backend, Bytes, Clock, ExecutionContext, InMemoryStore, ManualClock, SystemClock};
use cubbyhole_soak::{BackendName, Kind, Load, Plan, Soak, Target, Trend};
use planted::{Fault, Planted};

const CALLERS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(120);

fn patience() -> ExecutionContext {
    ExecutionContext::new().with_timeout(PATIENCE)
}

/// A filled store after `calls` calls of each caller.
async fn loaded(store: Arc<dyn Backend>, calls: u64) -> Load {
    let load = Load::new(store, CALLERS, 7, Duration::ZERO).unwrap();
    load.fill(&patience()).await.unwrap();
    load.run(&patience(), calls).await;
    load
}

async fn soak(name: BackendName) {
    const CALLS: u64 = 1_500;
    let target = Target::open(&patience(), name).await.unwrap();
    let load = loaded(Arc::clone(target.store()), CALLS).await;
    let tally = load.tally();
    assert_eq!(tally.total(), CALLS * CALLERS as u64, "{:?}", tally.kept);
    for (kind, _) in Kind::SHARES {
        assert!(tally.calls.contains_key(&kind), "{name}: no call of {kind:?}");
    }
    assert_eq!((tally.wrong, tally.unexpected_total()), (0, 0), "{name}: {:?}", tally.kept);
    assert!(tally.conflicts > 0, "{name}: no condition failed");
    // The store in memory ignores the context, and never waits.
    assert_eq!(tally.cut_off > 0, name != BackendName::Memory, "{name}: {}", tally.cut_off);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_in_memory() {
    soak(BackendName::Memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_in_a_file() {
    soak(BackendName::Embedded).await;
}

/// A load that runs again remembers what it wrote.
#[tokio::test]
async fn callers_know_in_a_second_run_what_they_wrote_in_the_first() {
    let load = loaded(Arc::new(InMemoryStore::<Bytes>::new()), 1_000).await;
    load.run(&patience(), 1_000).await;
    let tally = load.tally();
    assert_eq!(tally.total(), 2 * 1_000 * CALLERS as u64);
    assert_eq!((tally.wrong, tally.unexpected_total()), (0, 0), "{:?}", tally.kept);
}

/// Samples are taken and judged, and nothing is left open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_run_is_sampled_and_judged() {
    let plan = Plan {
        duration: PATIENCE,
        every: Duration::from_millis(100),
        backends: vec![BackendName::Memory, BackendName::Embedded],
        seed: 3,
        callers: 2,
    };
    let mut soak = Soak::open(&plan).await.unwrap();
    let mut samples = Vec::new();
    let stop = patience();
    soak.run(&plan, &stop, |sample| {
        samples.push(sample.clone());
        if samples.len() == 12 {
            stop.cancel();
        }
    })
    .await;
    let outcome = soak.conclude().await;
    assert_eq!(samples.len(), 12);
    for sample in &samples {
        let [memory, embedded] = sample.backends.as_slice() else { panic!("{sample:?}") };
        assert!(memory.entries > Some(0) && memory.stored_bytes.is_none(), "{memory:?}");
        assert!(embedded.stored_bytes > embedded.bytes, "{embedded:?}");
    }
    assert!(samples.iter().any(|sample| sample.backends.iter().all(|row| row.max_micros > 0)));
    assert!(outcome.calls > 0);
    assert_eq!(outcome.failures, Vec::<String>::new());
    assert!(outcome.trends.iter().any(|(what, _)| what == "embedded: stored"));
    assert!(outcome.trends.iter().all(|(_, trend)| *trend != Trend::NotJudged), "{outcome}");
}

/// The first wrong answers, word for word, of a store with `fault`.
async fn noticed(fault: Fault) -> Vec<String> {
    let load = loaded(Arc::new(Planted::new(fault)), 1_000).await;
    let tally = load.tally();
    assert_eq!(tally.unexpected_total(), 0, "{fault:?}: {:?}", tally.kept);
    assert_eq!(tally.wrong > 0, fault != Fault::None, "{fault:?}: {:?}", tally.kept);
    tally.kept.clone()
}

#[tokio::test]
async fn a_layer_without_a_fault_is_not_blamed() {
    assert_eq!(noticed(Fault::None).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_value_of_another_key_is_noticed() {
    let kept = noticed(Fault::OtherKey).await;
    assert!(kept.iter().all(|text| text.contains(": OfAnother")), "{kept:?}");
}

#[tokio::test]
async fn a_torn_value_is_noticed() {
    let kept = noticed(Fault::Torn).await;
    assert!(kept.iter().all(|text| text.contains(": Torn")), "{kept:?}");
}

#[tokio::test]
async fn a_write_that_was_acknowledged_and_lost_is_noticed() {
    let kept = noticed(Fault::LostWrite).await;
    assert!(kept.iter().any(|text| text.contains("NotAsWritten")), "{kept:?}");
}

#[tokio::test]
async fn a_condition_that_is_ignored_is_noticed() {
    let kept = noticed(Fault::IgnoredCondition).await;
    assert!(kept.iter().any(|text| text.contains("to WriteOwn: NotAsWritten")), "{kept:?}");
}

#[tokio::test]
async fn namespaces_of_other_tenants_are_noticed() {
    let kept = noticed(Fault::OtherTenants).await;
    assert!(kept.iter().all(|text| text.contains("of another tenant")), "{kept:?}");
}

#[tokio::test]
async fn namespaces_that_are_not_listed_are_noticed() {
    let kept = noticed(Fault::NoNamespaces).await;
    assert!(kept.iter().all(|text| text.contains("\"missing\"")), "{kept:?}");
}

/// The clock of this store stands still, so that nothing in it ever expires.
#[tokio::test]
async fn an_expired_entry_that_is_still_seen_is_noticed() {
    let clock = ManualClock::new(SystemClock.now());
    let store: InMemoryStore<Bytes> =
        InMemoryStore::builder().with_value_size(Bytes::len).with_clock(clock).build();
    let load = Load::new(Arc::new(store), CALLERS, 7, Duration::ZERO).unwrap();
    load.fill(&patience()).await.unwrap();
    let began = SystemClock.now();
    // What is mortal lives for three seconds at most.
    while load.tally().wrong == 0 {
        let waited = SystemClock.now().saturating_since(began);
        assert!(waited < Duration::from_secs(60), "nothing was noticed");
        load.run(&patience(), 100).await;
    }
    let tally = load.tally();
    assert!(tally.kept.iter().all(|text| text.contains("Expired")), "{:?}", tally.kept);
}
