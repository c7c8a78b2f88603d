//! The load makes every kind of call, accepts correct stores and detects planted faults.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

mod planted;

use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{Backend, Bytes, Clock, ExecutionContext, InMemoryStore, ManualClock, SystemClock};
use cubbyhole_soak::{BackendName, CallKind, Load, Plan, Soak, Target, Trend};
use planted::{Fault, Planted};

const CALLERS: usize = 4;
const TIMEOUT: Duration = Duration::from_secs(120);

fn ctx() -> ExecutionContext {
    ExecutionContext::new().with_timeout(TIMEOUT)
}

/// Fills a store and runs `calls` calls per caller.
async fn loaded(store: Arc<dyn Backend>, calls: u64) -> Load {
    let load = Load::new(store, CALLERS, 7, Duration::ZERO).unwrap();
    load.fill(&ctx()).await.unwrap();
    load.run(&ctx(), calls).await;
    load
}

async fn soak(name: BackendName) {
    const CALLS: u64 = 1_500;
    let target = Target::open(&ctx(), name).await.unwrap();
    let load = loaded(Arc::clone(target.store()), CALLS).await;
    let counts = load.counts();
    assert_eq!(counts.total(), CALLS * CALLERS as u64, "{:?}", counts.messages);
    for (kind, _) in CallKind::SHARES {
        assert!(counts.calls.contains_key(&kind), "{name}: no call of {kind:?}");
    }
    assert_eq!((counts.wrong, counts.unexpected_total()), (0, 0), "{name}: {:?}", counts.messages);
    assert!(counts.conflicts > 0, "{name}: no call had a conflict");
    // The in-memory store ignores the context and never waits, so it is never interrupted.
    assert_eq!(counts.cut_off > 0, name != BackendName::Memory, "{name}: {}", counts.cut_off);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_in_memory() {
    soak(BackendName::Memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_in_a_file() {
    soak(BackendName::Embedded).await;
}

#[tokio::test]
async fn second_run_remembers_writes_of_the_first() {
    let load = loaded(Arc::new(InMemoryStore::<Bytes>::new()), 1_000).await;
    load.run(&ctx(), 1_000).await;
    let counts = load.counts();
    assert_eq!(counts.total(), 2 * 1_000 * CALLERS as u64);
    assert_eq!((counts.wrong, counts.unexpected_total()), (0, 0), "{:?}", counts.messages);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_is_sampled_and_judged() {
    let plan = Plan {
        duration: TIMEOUT,
        every: Duration::from_millis(100),
        backends: vec![BackendName::Memory, BackendName::Embedded],
        seed: 3,
        callers: 2,
    };
    let mut soak = Soak::open(&plan).await.unwrap();
    let mut samples = Vec::new();
    let stop = ctx();
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

/// Runs the load on a store with `fault`. Returns the messages of the first wrong replies.
async fn detected(fault: Fault) -> Vec<String> {
    let load = loaded(Arc::new(Planted::new(fault)), 1_000).await;
    let counts = load.counts();
    assert_eq!(counts.unexpected_total(), 0, "{fault:?}: {:?}", counts.messages);
    assert_eq!(counts.wrong > 0, fault != Fault::None, "{fault:?}: {:?}", counts.messages);
    counts.messages.clone()
}

#[tokio::test]
async fn layer_without_fault_passes() {
    assert_eq!(detected(Fault::None).await, Vec::<String>::new());
}

#[tokio::test]
async fn value_of_another_key_is_detected() {
    let messages = detected(Fault::OtherKey).await;
    assert!(messages.iter().all(|text| text.contains(": OtherEntry")), "{messages:?}");
}

#[tokio::test]
async fn torn_value_is_detected() {
    let messages = detected(Fault::Torn).await;
    assert!(messages.iter().all(|text| text.contains(": Torn")), "{messages:?}");
}

#[tokio::test]
async fn lost_acknowledged_write_is_detected() {
    let messages = detected(Fault::LostWrite).await;
    assert!(messages.iter().any(|text| text.contains("UnexpectedState")), "{messages:?}");
}

#[tokio::test]
async fn ignored_condition_is_detected() {
    let messages = detected(Fault::IgnoredCondition).await;
    assert!(
        messages.iter().any(|text| text.contains("to WriteOwn: UnexpectedState")),
        "{messages:?}"
    );
}

#[tokio::test]
async fn namespace_of_another_tenant_is_detected() {
    let messages = detected(Fault::OtherTenants).await;
    assert!(messages.iter().all(|text| text.contains("of another tenant")), "{messages:?}");
}

#[tokio::test]
async fn missing_namespaces_are_detected() {
    let messages = detected(Fault::NoNamespaces).await;
    assert!(messages.iter().all(|text| text.contains("\"missing\"")), "{messages:?}");
}

/// The clock of this store is stopped, so no entry ever expires.
#[tokio::test]
async fn expired_entry_is_detected() {
    let clock = ManualClock::new(SystemClock.now());
    let store: InMemoryStore<Bytes> =
        InMemoryStore::builder().with_value_size(Bytes::len).with_clock(clock).build();
    let load = Load::new(Arc::new(store), CALLERS, 7, Duration::ZERO).unwrap();
    load.fill(&ctx()).await.unwrap();
    let start = SystemClock.now();
    // Short-lived entries expire after at most three seconds.
    while load.counts().wrong == 0 {
        let waited = SystemClock.now().saturating_since(start);
        assert!(waited < Duration::from_secs(60), "no expired entry was detected");
        load.run(&ctx(), 100).await;
    }
    let counts = load.counts();
    assert!(counts.messages.iter().all(|text| text.contains("Expired")), "{:?}", counts.messages);
}
