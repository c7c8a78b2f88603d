//! The layers: the cost of each one around `InMemoryStore`, next to the bare cipher and the bare cache.

mod limits;

use std::sync::Arc;
use std::time::Duration;

use cubbyhole::layers::{
    CacheOptions, Cached, Compressed, Encrypted, Encryption, KeyRing, Layers, Limited, Limits,
    Retry, RetryOptions, Scoped, Timeout, Timeouts, TtlPolicy, TtlRule,
};
use cubbyhole::{
    Bytes, EntryStore, ExecutionContext, InMemoryStore, NamespacePrefix, ReadOnly, TenantId,
};
use tokio::runtime::Runtime;

use crate::Result;
use crate::candidate::{AnyCandidate, Candidate, Candidates, NamedCandidate};
use crate::candidates::ours::Ours;
use crate::data::{Layout, Names, TENANT, Values};
use crate::goals::{Goal, Target};
use crate::harness::Settings;
use crate::measure::{Bench, Comparison, Point};
use crate::plan::OURS;
use crate::report::Report;
use crate::workload::Workload;
use limits::{BareMoka, CipherOverMemory};

/// Few enough for the cache of the processor, so its misses do not hide the cost of a layer.
pub const ENTRIES: usize = 1000;
const VALUE_BYTES: [usize; 2] = [100, 1024];
/// Turns are shorter by this factor, and there are more of them. A layer costs less than the machine
/// varies within a long turn. Odd, so the number of rounds stays odd.
const SHORTER: usize = 31;

const READ_ONLY: &str = "ReadOnly";
/// The layers with a goal of at most this many nanoseconds for a `get`.
const POLICIES: [&str; 6] =
    ["Scoped::relative", "Scoped::within", READ_ONLY, "TtlPolicy", "Timeout", "Retry"];
const POLICY_NANOSECONDS: f64 = 60.0;
const ENCRYPTED: &str = "Encrypted";
const CIPHER: &str = "memory, bare cipher";
const CACHED: &str = "Cached, hits";
const MOKA: &str = "bare moka";

type Store = Arc<dyn EntryStore<Bytes>>;

pub fn run(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let Settings { rounds, turn, warm_up } = bench.settings;
    let settings = Settings { rounds: rounds * SHORTER, turn: turn / SHORTER as u32, warm_up };
    let bench = Bench { settings, ..*bench };
    for value_bytes in VALUE_BYTES {
        let stores = Stores::new(bench.runtime, value_bytes)?;
        let mut candidates = stores.candidates()?;
        let point = Point { entries: ENTRIES, value_bytes, callers: 1 };
        let compare = |workload, candidates: &Candidates| {
            let mut comparison = bench.compare(workload, point, false, candidates)?;
            comparison.about = format!("{}; {} short turns", comparison.about, settings.rounds);
            Result::<_>::Ok(comparison)
        };
        // First, because a `put` removes its entry from the caches.
        let get = compare(Workload::GET, &candidates)?;
        candidates.retain(|candidate| candidate.name() != READ_ONLY);
        let put = compare(Workload::PUT, &candidates)?;
        add_goals(&get, &put, report);
        report.add_comparison(get);
        report.add_comparison(put);
    }
    Ok(())
}

fn add_goals(get: &Comparison, put: &Comparison, report: &mut Report) {
    let bytes = get.point.value_bytes;
    if bytes == VALUE_BYTES[0] {
        for name in POLICIES {
            let work = format!("{name}: added to a get of {bytes} bytes");
            let target = Target::Nanoseconds(POLICY_NANOSECONDS);
            report.add_goal(Goal::new(work, "memory", target, get.added(name, OURS)));
        }
    } else {
        for comparison in [get, put] {
            let work = format!("Encrypted: {} of {bytes} bytes", comparison.work);
            let times = comparison.times(CIPHER, ENCRYPTED);
            report.add_goal(Goal::new(work, CIPHER, Target::AtMostTimes(1.2), times));
        }
    }
    let work = format!("Cached: get of {bytes} bytes, a hit");
    report.add_goal(Goal::times(work, MOKA, 0.8, get.times(CACHED, MOKA)));
}

/// Creates stores around new memory stores, and fills them.
struct Stores<'a> {
    runtime: &'a Runtime,
    names: Arc<Names>,
    values: Arc<Values>,
}

impl<'a> Stores<'a> {
    fn new(runtime: &'a Runtime, value_bytes: usize) -> Result<Self> {
        let names = Arc::new(Names::new(ENTRIES, Layout::OneTenant)?);
        Ok(Self { runtime, names, values: Arc::new(Values::new(value_bytes)) })
    }

    /// All candidates, the bare store first.
    fn candidates(&self) -> Result<Candidates> {
        let bare = || self.fill(memory());
        let scope = NamespacePrefix::from(TenantId::new(TENANT)?);
        let ring = Arc::new(KeyRing::generate()?);
        let encrypted = Encrypted::new(memory(), Arc::<KeyRing>::clone(&ring));
        let moka = BareMoka::filled(&self.names, &self.values);
        let cipher = CipherOverMemory::new(memory(), &self.names)?;
        self.runtime.block_on(cipher.fill(&self.values))?;
        let stack = stack(scope.clone(), ring);
        let cached_stack = stack.clone().with_cache(cache_options());
        Ok(vec![
            self.named(OURS, bare()?),
            self.named(POLICIES[0], self.fill(Scoped::relative(memory(), scope.clone()))?),
            self.named(POLICIES[1], Arc::new(Scoped::within(bare()?, scope))),
            self.named(READ_ONLY, Arc::new(ReadOnly::new(bare()?))),
            self.named(POLICIES[3], Arc::new(TtlPolicy::new(bare()?, ttl_rule())?)),
            self.named(POLICIES[4], Arc::new(Timeout::new(bare()?, timeouts())?)),
            self.named(POLICIES[5], Arc::new(Retry::new(bare()?, RetryOptions::new())?)),
            self.named("Limited", Arc::new(Limited::new(bare()?, limits())?)),
            self.named("Compressed", self.fill(Compressed::new(memory()))?),
            self.named(ENCRYPTED, self.fill(encrypted)?),
            self.boxed(CIPHER, cipher),
            self.named(CACHED, self.warm(cached(bare()?)?)?),
            self.boxed(MOKA, moka),
            self.named("all layers but Cached", self.fill(stack.around(Arc::new(memory()))?)?),
            self.named(
                "all layers, hits",
                self.warm(self.fill(cached_stack.around(Arc::new(memory()))?)?)?,
            ),
        ])
    }

    fn fill(&self, store: impl EntryStore<Bytes>) -> Result<Store> {
        let store: Store = Arc::new(store);
        self.runtime.block_on(Ours::new(Arc::clone(&store), &self.names).fill(&self.values))?;
        Ok(store)
    }

    fn warm(&self, store: Store) -> Result<Store> {
        self.runtime.block_on(warm(&store, &self.names))?;
        Ok(store)
    }

    fn named(&self, name: &'static str, store: Store) -> Box<dyn AnyCandidate> {
        self.boxed(name, Ours::<Bytes, Store>::new(store, &self.names))
    }

    fn boxed<C: Candidate>(&self, name: &'static str, store: C) -> Box<dyn AnyCandidate> {
        Box::new(NamedCandidate::new(name, store, &self.names, &self.values))
    }
}

/// Reads all entries into the cache of `store`.
pub async fn warm(store: &Store, names: &Names) -> Result<()> {
    let ctx = ExecutionContext::new();
    for ns in &names.namespaces[..names.filled()] {
        for key in &names.keys {
            store.get(&ctx, ns, key).await?;
        }
    }
    Ok(())
}

/// Wraps a store in a cache that keeps its entries for the whole run.
pub fn cached(store: Store) -> Result<Store> {
    Ok(Arc::new(Cached::new(store, cache_options())?))
}

fn memory() -> InMemoryStore<Bytes> {
    // The same configuration as `open("memory:")`.
    InMemoryStore::builder().with_value_size(Bytes::len).build()
}

/// All layers but the cache and `ReadOnly`, with options that refuse nothing here.
fn stack(scope: NamespacePrefix, ring: Arc<KeyRing>) -> Layers {
    Layers::new()
        .with_relative_scope(scope)
        .with_limits(limits())
        .with_ttl_rule(ttl_rule())
        .with_timeouts(timeouts())
        .with_retry(RetryOptions::new())
        .with_compression(cubbyhole::layers::DEFAULT_COMPRESSION_LEVEL)
        .with_encryption(Encryption::new(ring))
}

fn ttl_rule() -> TtlRule {
    let day = Duration::from_secs(24 * 60 * 60);
    TtlRule::new().with_default(day).with_max(30 * day)
}

fn timeouts() -> Timeouts {
    let timeout = Duration::from_secs(30);
    Timeouts::new().with_read(timeout).with_write(timeout).with_walk(timeout)
}

fn limits() -> Limits {
    const CALLS: u32 = 1_000_000_000;
    Limits::new().with_value_bytes(1 << 20).with_rate(CALLS, Some(CALLS)).with_concurrency(64)
}

fn cache_options() -> CacheOptions {
    CacheOptions::new().with_max_stale(Duration::from_secs(24 * 60 * 60))
}
