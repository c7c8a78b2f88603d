//! Memory: `InMemoryStore`, compared with other in-memory stores, a cache and maps.

use std::hint::black_box;
use std::sync::Arc;

use cubbyhole::{Bytes, InMemoryStore};
use openkeyv::store::memory::MemoryStore;
use tokio::runtime::Runtime;

use crate::candidate::{AnyCandidate, Candidate, Candidates, NamedCandidate};
use crate::candidates::entelix::Entelix;
use crate::candidates::maps::{DashMapStore, LockedHashMap, MokaCache};
use crate::candidates::openkeyv::OpenKeyv;
use crate::candidates::ours::Ours;
use crate::data::{Layout, Names, Values};
use crate::goals::{Goal, Target};
use crate::grid::{self, FilledStores};
use crate::harness::Samples;
use crate::measure::{Bench, Point};
use crate::plan::{MEMORY, OURS, Plan};
use crate::report::{Report, Size};
use crate::workload::Workload;
use crate::{Result, growth, rss, sweeps};

type OurStore = Ours<Bytes, InMemoryStore<Bytes>>;
type Peer = Entelix<Bytes, entelix_memory::InMemoryStore<Bytes>>;

const ENTELIX: &str = "entelix-memory";
const OPENKEYV: &str = "openkeyv memory";
const MOKA: &str = "moka";
const DASHMAP: &str = "DashMap";
const HASHMAP: &str = "HashMap behind a lock";
/// All candidates.
const ALL: [&str; 6] = [OURS, ENTELIX, OPENKEYV, MOKA, DASHMAP, HASHMAP];

pub fn run(bench: &Bench<'_>, plan: &Plan, report: &mut Report) -> Result<()> {
    measure_goals(bench, plan, report)?;
    measure_sizes(plan, report)?;
    grid::run(bench, plan.scales, |entries, bytes| grid(bench.runtime, entries, bytes), report)
}

/// Measures the goals, by default with a million entries.
fn measure_goals(bench: &Bench<'_>, plan: &Plan, report: &mut Report) -> Result<()> {
    let names = Arc::new(Names::new(plan.entries, Layout::ManyTenants)?);
    let values = Arc::new(Values::new(plan.value_bytes));
    let ours =
        NamedCandidate::new(OURS, fill_ours(bench.runtime, &names, &values)?, &names, &values);
    let entelix = NamedCandidate::new(
        ENTELIX,
        fill_entelix(bench.runtime, &names, &values)?,
        &names,
        &values,
    );
    let openkeyv = OpenKeyv::new(MemoryStore::new(), &names);
    bench.runtime.block_on(openkeyv.fill(&values))?;
    let openkeyv = NamedCandidate::new(OPENKEYV, openkeyv, &names, &values);
    let moka = bench.runtime.block_on(MokaCache::filled(&names, &values));
    let mut candidates: Candidates = vec![
        Box::new(ours.clone()),
        Box::new(entelix.clone()),
        Box::new(openkeyv.clone()),
        Box::new(NamedCandidate::new(MOKA, moka, &names, &values)),
        Box::new(NamedCandidate::new(
            DASHMAP,
            DashMapStore::filled(&names, &values),
            &names,
            &values,
        )),
        Box::new(NamedCandidate::new(
            HASHMAP,
            LockedHashMap::filled(&names, &values),
            &names,
            &values,
        )),
    ];
    let at = |callers| Point { entries: plan.entries, value_bytes: plan.value_bytes, callers };
    for (callers, at_least) in [(1, 1.5), (2, 2.0)] {
        let get = bench.compare(Workload::GET, at(callers), true, &candidates)?;
        let work = format!("memory get, {} entries, callers: {callers}", plan.entries);
        report.add_goal(
            Goal::times(work, ENTELIX, at_least, get.times(OURS, ENTELIX))
                .with_limit(HASHMAP, get.times(OURS, HASHMAP)),
        );
        report.add_comparison(get);
        let hot = bench.compare(Workload::GET_HOT, at(callers), true, &candidates)?;
        let work = format!("memory get, hot keys, callers: {callers}");
        report.add_goal(
            Goal::times(work, MOKA, 1.0, hot.times(OURS, MOKA))
                .with_limit(HASHMAP, hot.times(OURS, HASHMAP)),
        );
        report.add_comparison(hot);
        report.add_comparison(bench.compare(Workload::PUT, at(callers), true, &candidates)?);
    }
    // The other candidates cannot list.
    candidates.truncate(3);
    for (workload, at_least) in
        [(Workload::LIST, 1_000.0), (Workload::LIST_GROUP, 10_000.0), (Workload::SWEEP, 1_000.0)]
    {
        let comparison = bench.compare(workload, at(1), false, &candidates)?;
        let work = format!("memory {}, {} entries", workload.name, plan.entries);
        report.add_goal(Goal::times(work, ENTELIX, at_least, comparison.times(OURS, ENTELIX)));
        report.add_comparison(comparison);
    }
    let expired = plan.entries / 100;
    let runtime = bench.runtime;
    let cases = vec![
        sweeps::case(runtime, &ours, expired, |store: &OurStore, count| {
            runtime.block_on(store.put_expiring(count, &values))
        }),
        sweeps::case(runtime, &entelix, expired, |store: &Peer, count| {
            runtime.block_on(store.put_expiring(count, &values))
        }),
        sweeps::case(runtime, &openkeyv, expired, |store: &OpenKeyv<MemoryStore>, count| {
            runtime.block_on(store.put_expiring(count, &values))
        }),
    ];
    report.add_comparison(sweeps::compare(bench, at(1), expired, cases)?);
    let small_names = growth::small_names(Layout::ManyTenants)?;
    let small = Arc::new(fill_ours(bench.runtime, &small_names, &values)?);
    growth::compare(bench, (small, &small_names), (ours.store, &names), &values, Vec::new(), report)
}

fn fill_ours(runtime: &Runtime, names: &Arc<Names>, values: &Arc<Values>) -> Result<OurStore> {
    // The same configuration as `open("memory:")`.
    let store = InMemoryStore::builder().with_value_size(Bytes::len).build();
    let own = Ours::new(store, names);
    runtime.block_on(own.fill(values))?;
    Ok(own)
}

fn fill_entelix(runtime: &Runtime, names: &Arc<Names>, values: &Arc<Values>) -> Result<Peer> {
    let peer = Entelix::new(entelix_memory::InMemoryStore::new(), names);
    runtime.block_on(peer.fill(values))?;
    Ok(peer)
}

fn grid(runtime: &Runtime, entries: usize, value_bytes: usize) -> Result<FilledStores> {
    let names = Arc::new(Names::new(entries, Layout::ManyTenants)?);
    let values = Arc::new(Values::new(value_bytes));
    let candidates = ALL.map(|name| candidate(runtime, name, &names, &values));
    Ok(FilledStores {
        candidates: candidates.into_iter().collect::<Result<_>>()?,
        sizes: Vec::new(),
        resources: Box::new(()),
    })
}

/// Creates and fills the candidate `name`.
fn candidate(
    runtime: &Runtime,
    name: &'static str,
    names: &Arc<Names>,
    values: &Arc<Values>,
) -> Result<Box<dyn AnyCandidate>> {
    fn boxed<C: Candidate>(
        name: &'static str,
        store: C,
        names: &Arc<Names>,
        values: &Arc<Values>,
    ) -> Box<dyn AnyCandidate> {
        Box::new(NamedCandidate::new(name, store, names, values))
    }
    Ok(match name {
        OURS => boxed(name, fill_ours(runtime, names, values)?, names, values),
        ENTELIX => boxed(name, fill_entelix(runtime, names, values)?, names, values),
        OPENKEYV => {
            let store = OpenKeyv::new(MemoryStore::new(), names);
            runtime.block_on(store.fill(values))?;
            boxed(name, store, names, values)
        }
        MOKA => boxed(name, runtime.block_on(MokaCache::filled(names, values)), names, values),
        DASHMAP => boxed(name, DashMapStore::filled(names, values), names, values),
        _ => boxed(name, LockedHashMap::filled(names, values), names, values),
    })
}

/// Fills the candidate `name` and returns the bytes that it takes. Runs in a subprocess.
pub fn fill(runtime: &Runtime, name: &str, entries: usize, value_bytes: usize) -> Result<usize> {
    let name = ALL.into_iter().find(|known| *known == name);
    let name = name.ok_or("unknown store name")?;
    let names = Arc::new(Names::new(entries, Layout::ManyTenants)?);
    let values = Arc::new(Values::new(value_bytes));
    let before = rss::resident()?;
    let filled = candidate(runtime, name, &names, &values)?;
    let after = rss::resident()?;
    black_box(filled);
    Ok(after - before)
}

/// Measures the memory per entry. Each candidate is filled in its own subprocess.
fn measure_sizes(plan: &Plan, report: &mut Report) -> Result<()> {
    let mut sizes = Vec::new();
    for name in ALL {
        let bytes = rss::bytes_per_entry(name, plan.entries, plan.value_bytes)?;
        sizes.push(Size {
            backend: MEMORY,
            name,
            entries: plan.entries,
            value_bytes: plan.value_bytes,
            bytes,
        });
    }
    let overhead = |size: &Size| size.bytes - size.value_bytes as f64;
    let ratio = overhead(&sizes[0]) / overhead(&sizes[1]);
    report.add_goal(Goal::new(
        "memory, bytes of overhead per entry",
        ENTELIX,
        Target::AtMostTimes(1.0),
        Some(Samples::new(vec![ratio])),
    ));
    report.add_sizes(sizes);
    Ok(())
}
