//! No write is applied twice, and the outcome of every write is reported correctly.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use cubbyhole_conformance::{FaultCounts, Faults, Faulty};
use cubbyhole_core::{
    Batch, Bytes, Condition, EntryStore, ExecutionContext, GetOptions, Namespace, Operation,
    PutOptions, Result, Store, Version, Written, async_trait, delegate,
};
use cubbyhole_layers::{Retry, RetryOptions};
use cubbyhole_memory::InMemoryStore;
use tokio::task::JoinSet;

use crate::{Layer, assert_every_fault, faults, naive, retry};

const CLIENTS: u64 = 6;
const CALLS: u32 = 300;
const KEYS: [&str; 3] = ["a", "b", "c"];

/// A store in memory that counts how often each version was written.
#[derive(Default)]
struct Recording {
    memory: InMemoryStore<Bytes>,
    applied: Mutex<HashMap<Version, u32>>,
}

impl Recording {
    fn record(&self, versions: impl IntoIterator<Item = Version>) {
        let mut applied = self.applied.lock().unwrap();
        for version in versions {
            *applied.entry(version).or_default() += 1;
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store<Bytes> for Recording {
    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
        options: PutOptions,
    ) -> Result<()> {
        self.memory.put_with_options(ctx, ns, key, value, options).await?;
        self.record(options.version());
        Ok(())
    }

    delegate!(Bytes, |store| store.memory =>
        get, delete, list, put, list_namespaces, evict_expired
    );
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl EntryStore<Bytes> for Recording {
    async fn put_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
        options: PutOptions,
        condition: Condition,
    ) -> Result<Version> {
        let version = self.memory.put_entry(ctx, ns, key, value, options, condition).await?;
        self.record([version]);
        Ok(version)
    }

    async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        batch: Batch<Bytes>,
    ) -> Result<Vec<Written>> {
        let written = self.memory.write(ctx, ns, batch).await?;
        self.record(written.iter().filter_map(|written| written.version()));
        Ok(written)
    }

    delegate!(Bytes, |store| store.memory =>
        get_entry, get_many, stat, delete_entry, scan, scan_recursive, scan_namespaces,
        scan_tenants, touch, take, delete_prefix, erase, usage, current_time, max_value_bytes
    );
}

/// The outcome of a write, as its client knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Applied,
    NotApplied,
    Unknown,
}

impl Outcome {
    fn of<T>(answer: &Result<T>) -> Self {
        match answer {
            Ok(_) => Self::Applied,
            Err(error) if error.may_have_been_applied() => Self::Unknown,
            Err(_) => Self::NotApplied,
        }
    }
}

struct Client {
    store: Arc<dyn EntryStore<Bytes>>,
    random: fastrand::Rng,
    ctx: ExecutionContext,
    ns: Namespace,
    outcomes: Vec<(Version, Outcome)>,
}

impl Client {
    fn new(store: &Arc<dyn EntryStore<Bytes>>, seed: u64) -> Self {
        Self {
            store: Arc::clone(store),
            random: fastrand::Rng::with_seed(seed),
            ctx: ExecutionContext::new(),
            ns: Namespace::parse("acme:agent-7").unwrap(),
            outcomes: Vec::new(),
        }
    }

    async fn run(mut self) -> Vec<(Version, Outcome)> {
        for _ in 0..CALLS {
            let key = KEYS[self.random.usize(..KEYS.len())];
            match self.random.u32(..10) {
                0..=2 => self.put(key).await,
                3..=5 => self.put_at_current_version(key).await,
                6 => self.put_if(key, Condition::IfAbsent).await,
                7 => self.write(key).await,
                // A failed delete changes nothing that this test checks.
                _ => drop(self.store.delete(&self.ctx, &self.ns, key).await),
            }
        }
        self.outcomes
    }

    fn draw(&self) -> (Version, PutOptions, Bytes) {
        let version = Version::draw();
        let value = Bytes::from(version.to_string());
        (version, PutOptions::new().with_version(version), value)
    }

    async fn put(&mut self, key: &str) {
        let (version, options, value) = self.draw();
        let put = self.store.put_with_options(&self.ctx, &self.ns, key, value, options).await;
        self.outcomes.push((version, Outcome::of(&put)));
    }

    async fn put_if(&mut self, key: &str, condition: Condition) {
        let (version, options, value) = self.draw();
        let put = self.store.put_entry(&self.ctx, &self.ns, key, value, options, condition).await;
        self.outcomes.push((version, Outcome::of(&put)));
    }

    async fn put_at_current_version(&mut self, key: &str) {
        let read = self.store.get_entry(&self.ctx, &self.ns, key, GetOptions::new()).await;
        if let Ok(Some(entry)) = read {
            self.put_if(key, Condition::IfVersion(entry.meta.version)).await;
        }
    }

    async fn write(&mut self, key: &str) {
        let mut batch = Batch::new();
        let mut versions = Vec::new();
        for other in KEYS {
            let (version, options, value) = self.draw();
            if other == key {
                batch = batch.delete(other);
            } else {
                versions.push(version);
                let condition = Condition::Always;
                let key = other.to_owned();
                batch.push(Operation::Put { key, value, options, condition });
            }
        }
        let outcome = Outcome::of(&self.store.write(&self.ctx, &self.ns, batch).await);
        self.outcomes.extend(versions.into_iter().map(|version| (version, outcome)));
    }
}

/// Runs clients over a layer, and compares their outcomes with the applied versions.
async fn load(layer: Layer, seed: u64) -> Result<FaultCounts, String> {
    let recording = Arc::<Recording>::default();
    let faulty = Arc::new(Faulty::new(recording.clone(), faults(seed, 0.05)));
    let store = layer(&faulty);
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(Client::new(&store, seed * CLIENTS + number).run());
    }
    let outcomes = clients.join_all().await.concat();
    faulty.until_applied().await;
    let applied = recording.applied.lock().unwrap();
    if let Some(count) = applied.values().find(|count| **count > 1) {
        return Err(format!("a write was applied {count} times"));
    }
    for (version, outcome) in outcomes {
        let count = applied.get(&version).copied().unwrap_or(0);
        let is_true = match outcome {
            Outcome::Applied => count == 1,
            Outcome::NotApplied => count == 0,
            Outcome::Unknown => true,
        };
        if !is_true {
            return Err(format!("a write was reported as {outcome:?} and applied {count} times"));
        }
    }
    Ok(faulty.counts())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_is_applied_twice_and_outcomes_are_true() {
    for seed in 1..=3 {
        assert_every_fault(load(retry, seed).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_put_of_unknown_outcome_is_caught() {
    let error = load(naive, 1).await.unwrap_err();
    assert!(error.starts_with("a write was applied"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn conditional_puts_of_one_writer_always_succeed() {
    let faults = Faults::new(7).with_refused(0.2).with_lost(0.2).with_unanswered(0.2);
    let recording = Arc::<Recording>::default();
    let faulty = Arc::new(Faulty::new(recording.clone(), faults));
    let options =
        RetryOptions::new().with_budget(1.0).with_reserve(1_000_000).with_max_attempts(1_000);
    let store = Retry::new(Arc::clone(&faulty), options).unwrap();
    let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme:agent-7").unwrap());
    let (always, plain) = (Condition::Always, PutOptions::new());
    let memory = &recording.memory;
    let mut version = memory.put_entry(&ctx, &ns, "k", Bytes::new(), plain, always).await.unwrap();
    for number in 0..500_u32 {
        let (value, held) = (Bytes::from(number.to_string()), Condition::IfVersion(version));
        version = store.put_entry(&ctx, &ns, "k", value, plain, held).await.unwrap();
    }
    let counts = faulty.counts();
    assert!(counts.lost > 0 && counts.unanswered > 0, "{counts:?}");
    let applied = recording.applied.lock().unwrap();
    assert_eq!((applied.len(), applied.values().max()), (500, Some(&1)));
}
