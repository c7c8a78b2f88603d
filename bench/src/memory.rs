//! Memory: the store beside other stores in memory, a cache, and maps.

use std::sync::Arc;

use cubbyhole::{Bytes, InMemoryStore};
use openkeyv::store::memory::MemoryStore;
use tokio::runtime::Runtime;

use crate::contestant::{Contestant, Entered, Entrants};
use crate::contestants::entelix::Entelix;
use crate::contestants::maps::{Dash, Locked, Moka};
use crate::contestants::openkeyv::OpenKeyv;
use crate::contestants::ours::Ours;
use crate::data::{Layout, Names, Values};
use crate::goals::{Goal, Wanted};
use crate::grid::{self, Filled};
use crate::measure::{Bench, Point};
use crate::report::{Report, Size};
use crate::workload::Workload;
use crate::{MEMORY, OURS, Plan, Result, growth, rss, sweeps};

type Own = Ours<Bytes, InMemoryStore<Bytes>>;
type Peer = Entelix<Bytes, entelix_memory::InMemoryStore<Bytes>>;

pub const ENTELIX: &str = "entelix-memory";
const OPENKEYV: &str = "openkeyv memory";
const MOKA: &str = "moka";
const DASHMAP: &str = "DashMap";
const HASHMAP: &str = "HashMap behind a lock";
/// For the memory that each takes.
pub const ALL: [&str; 6] = [OURS, ENTELIX, OPENKEYV, MOKA, DASHMAP, HASHMAP];

pub fn run(bench: &Bench<'_>, plan: &Plan, report: &mut Report) -> Result<()> {
    headline(bench, plan, report)?;
    memory_taken(plan, report)?;
    grid::run(bench, plan.scales, |entries, bytes| filled(bench.runtime, entries, bytes), report)
}

/// What is to be reached, at a million entries.
fn headline(bench: &Bench<'_>, plan: &Plan, report: &mut Report) -> Result<()> {
    let names = Arc::new(Names::of(plan.entries, Layout::ManyTenants)?);
    let values = Arc::new(Values::of(plan.value_bytes));
    let ours = Entered::new(OURS, own(bench.runtime, &names, &values)?, &names, &values);
    let entelix = Entered::new(ENTELIX, peer(bench.runtime, &names, &values)?, &names, &values);
    let openkeyv = OpenKeyv::new(MemoryStore::new(), &names);
    bench.runtime.block_on(openkeyv.fill(&values))?;
    let openkeyv = Entered::new(OPENKEYV, openkeyv, &names, &values);
    let moka = bench.runtime.block_on(Moka::filled(&names, &values));
    let mut entrants: Entrants = vec![
        Box::new(ours.clone()),
        Box::new(entelix.clone()),
        Box::new(openkeyv.clone()),
        Box::new(Entered::new(MOKA, moka, &names, &values)),
        Box::new(Entered::new(DASHMAP, Dash::filled(&names, &values), &names, &values)),
        Box::new(Entered::new(HASHMAP, Locked::filled(&names, &values), &names, &values)),
    ];
    let at = |callers| Point { entries: plan.entries, value_bytes: plan.value_bytes, callers };
    for (callers, at_least) in [(1, 1.5), (2, 2.0)] {
        let get = bench.compare(Workload::GET, at(callers), true, &entrants)?;
        let work = format!("memory get, {} entries, callers: {callers}", plan.entries);
        report.goal(
            Goal::times(work, ENTELIX, at_least, get.times(OURS, ENTELIX))
                .beside(HASHMAP, get.times(OURS, HASHMAP)),
        );
        report.compared(get);
        let hot = bench.compare(Workload::GET_HOT, at(callers), true, &entrants)?;
        let work = format!("memory get, hot keys, callers: {callers}");
        report.goal(
            Goal::times(work, MOKA, 1.0, hot.times(OURS, MOKA))
                .beside(HASHMAP, hot.times(OURS, HASHMAP)),
        );
        report.compared(hot);
        report.compared(bench.compare(Workload::PUT, at(callers), true, &entrants)?);
    }
    // The others cannot list.
    entrants.truncate(3);
    for (workload, at_least) in
        [(Workload::LIST, 1_000.0), (Workload::LIST_GROUP, 10_000.0), (Workload::SWEEP, 1_000.0)]
    {
        let comparison = bench.compare(workload, at(1), false, &entrants)?;
        let work = format!("memory {}, {} entries", workload.name, plan.entries);
        report.goal(Goal::times(work, ENTELIX, at_least, comparison.times(OURS, ENTELIX)));
        report.compared(comparison);
    }
    let expired = plan.entries / 100;
    let runtime = bench.runtime;
    let cases = vec![
        sweeps::case(runtime, &ours, expired, |store: &Own, count| {
            runtime.block_on(store.put_expiring(count, &values))
        }),
        sweeps::case(runtime, &entelix, expired, |store: &Peer, count| {
            runtime.block_on(store.put_expiring(count, &values))
        }),
        sweeps::case(runtime, &openkeyv, expired, |store: &OpenKeyv<MemoryStore>, count| {
            runtime.block_on(store.put_expiring(count, &values))
        }),
    ];
    report.compared(sweeps::compare(bench, at(1), expired, cases)?);
    let few = growth::names(Layout::ManyTenants)?;
    let small = Arc::new(own(bench.runtime, &few, &values)?);
    growth::compare(bench, (small, &few), (ours.store, &names), &values, Vec::new(), report)
}

fn own(runtime: &Runtime, names: &Arc<Names>, values: &Arc<Values>) -> Result<Own> {
    // As `open("memory:")` makes it.
    let store = InMemoryStore::builder().with_value_size(Bytes::len).build();
    let own = Ours::new(store, names);
    runtime.block_on(own.fill(values))?;
    Ok(own)
}

fn peer(runtime: &Runtime, names: &Arc<Names>, values: &Arc<Values>) -> Result<Peer> {
    let peer = Entelix::new(entelix_memory::InMemoryStore::new(), names);
    runtime.block_on(peer.fill(values))?;
    Ok(peer)
}

fn filled(runtime: &Runtime, entries: usize, value_bytes: usize) -> Result<Filled> {
    let names = Arc::new(Names::of(entries, Layout::ManyTenants)?);
    let values = Arc::new(Values::of(value_bytes));
    let entrants = ALL.map(|name| entrant(runtime, name, &names, &values));
    Ok(Filled {
        entrants: entrants.into_iter().collect::<Result<_>>()?,
        sizes: Vec::new(),
        keep: Box::new(()),
    })
}

/// The one of that name, filled.
pub fn entrant(
    runtime: &Runtime,
    name: &'static str,
    names: &Arc<Names>,
    values: &Arc<Values>,
) -> Result<Box<dyn crate::contestant::Entrant>> {
    fn boxed<C: Contestant>(
        name: &'static str,
        store: C,
        names: &Arc<Names>,
        values: &Arc<Values>,
    ) -> Box<dyn crate::contestant::Entrant> {
        Box::new(Entered::new(name, store, names, values))
    }
    Ok(match name {
        OURS => boxed(name, own(runtime, names, values)?, names, values),
        ENTELIX => boxed(name, peer(runtime, names, values)?, names, values),
        OPENKEYV => {
            let store = OpenKeyv::new(MemoryStore::new(), names);
            runtime.block_on(store.fill(values))?;
            boxed(name, store, names, values)
        }
        MOKA => boxed(name, runtime.block_on(Moka::filled(names, values)), names, values),
        DASHMAP => boxed(name, Dash::filled(names, values), names, values),
        _ => boxed(name, Locked::filled(names, values), names, values),
    })
}

/// How much memory an entry takes beside its value, in a process of its own each.
fn memory_taken(plan: &Plan, report: &mut Report) -> Result<()> {
    let mut sizes = Vec::new();
    for name in ALL {
        let bytes = rss::of_an_entry(name, plan.entries, plan.value_bytes)?;
        sizes.push(Size {
            backend: MEMORY,
            name,
            entries: plan.entries,
            value_bytes: plan.value_bytes,
            bytes,
        });
    }
    let beside = |size: &Size| size.bytes - size.value_bytes as f64;
    let ratio = beside(&sizes[0]) / beside(&sizes[1]);
    report.goal(Goal::new(
        "memory, bytes of overhead per entry",
        ENTELIX,
        Wanted::AtMostTimes(1.0),
        Some(crate::harness::Samples::new(vec![ratio])),
    ));
    report.sizes(sizes);
    Ok(())
}
