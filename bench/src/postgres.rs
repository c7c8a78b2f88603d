//! PostgreSQL: the store, compared with other stores and a plain table, on one durable server.
//!
//! The store and `entelix-persistence` log in as a role that is subject to row-level security. The
//! other candidates do not isolate tenants.

mod delay;
mod server;

use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{Bytes, EntryStore};
use entelix_persistence::postgres::PostgresStore as PeerStore;
use tokio::runtime::Runtime;

use crate::candidate::{Candidates, NamedCandidate};
use crate::candidates::entelix::Entelix;
use crate::candidates::openkeyv::OpenKeyv;
use crate::candidates::ours::Ours;
use crate::candidates::sql::{Lookup, PlainTable};
use crate::data::{Layout, Names, Values};
use crate::goals::Goal;
use crate::grid::{self, FilledStores};
use crate::measure::{Bench, Point};
use crate::plan::{OURS, OURS_JSON, Plan};
use crate::report::Report;
use crate::workload::Workload;
use crate::{Result, growth, layers, sweeps};
use server::Server;

/// The store over JSON strings, like the peer.
type OurStore = Ours<String, Arc<dyn EntryStore<String>>>;
type Peer = Entelix<String, PeerStore<String>>;

const ENTELIX: &str = "entelix-persistence";
/// Without the test of each connection before use, as its documentation recommends for reliable
/// networks.
const UNTESTED: &str = "entelix, connections untested";
const OPENKEYV: &str = "openkeyv PostgreSQL";
const PLAIN: &str = "a plain table, sqlx";
const LOOKUP: &str = "primary key, tokio-postgres";
const LOOKUP_ONE: &str = "primary key, one connection";
const CACHED: &str = "Cached, hits";
/// The size of each connection pool.
const CONNECTIONS: u32 = 16;
/// The added network delay in each direction.
const ONE_WAY: Duration = Duration::from_millis(2);

pub fn run(bench: &Bench<'_>, plan: &Plan, report: &mut Report) -> Result<()> {
    measure_goals(bench, plan, report)?;
    grid::run(bench, plan.scales, |entries, bytes| grid(bench.runtime, entries, bytes), report)
}

/// The stores on one server.
struct Stores {
    server: Server,
    names: Arc<Names>,
    values: Arc<Values>,
    json: NamedCandidate<OurStore>,
    bytes: NamedCandidate<Ours<Bytes, Arc<dyn EntryStore<Bytes>>>>,
    peer: NamedCandidate<Peer>,
    untested: NamedCandidate<Peer>,
    plain: NamedCandidate<PlainTable>,
}

impl Stores {
    /// Connects all stores to a filled server through `port`.
    async fn open(
        server: Server,
        port: u16,
        names: &Arc<Names>,
        values: &Arc<Values>,
    ) -> Result<Self> {
        let plain = PlainTable { pool: server.pool(port).await?, names: Arc::clone(names) };
        let entelix = |name, tested| {
            let peer = server.entelix(port, tested);
            async move {
                let peer = Entelix::new(peer.await?, names);
                Result::<_>::Ok(NamedCandidate::new(name, peer, names, values))
            }
        };
        let json = Ours::new(server.json(port).await?, names);
        let bytes = Ours::new(server.bytes(port).await?, names);
        Ok(Self {
            json: NamedCandidate::new(OURS_JSON, json, names, values),
            bytes: NamedCandidate::new(OURS, bytes, names, values),
            peer: entelix(ENTELIX, true).await?,
            untested: entelix(UNTESTED, false).await?,
            plain: NamedCandidate::new(PLAIN, plain, names, values),
            names: Arc::clone(names),
            values: Arc::clone(values),
            server,
        })
    }

    /// The first three store JSON strings, the others bytes.
    fn candidates(&self) -> Candidates {
        vec![
            Box::new(self.json.clone()),
            Box::new(self.peer.clone()),
            Box::new(self.untested.clone()),
            Box::new(self.bytes.clone()),
            Box::new(self.plain.clone()),
        ]
    }

    async fn lookup(&self, name: &'static str, connections: u32) -> Result<NamedCandidate<Lookup>> {
        let lookup = Lookup::connect(self.server.url(), connections as usize, &self.names);
        Ok(NamedCandidate::new(name, lookup.await?, &self.names, &self.values))
    }
}

fn fill_server(
    runtime: &Runtime,
    entries: usize,
    value_bytes: usize,
) -> Result<(Server, Arc<Names>, Arc<Values>)> {
    let names = Arc::new(Names::new(entries, Layout::OneTenant)?);
    let values = Arc::new(Values::new(value_bytes));
    let server = runtime.block_on(Server::filled(&names, &values))?;
    Ok((server, names, values))
}

fn grid(runtime: &Runtime, entries: usize, value_bytes: usize) -> Result<FilledStores> {
    let (server, names, values) = fill_server(runtime, entries, value_bytes)?;
    let port = server.port();
    let stores = runtime.block_on(Stores::open(server, port, &names, &values))?;
    let openkeyv = OpenKeyv::new(runtime.block_on(stores.server.openkeyv())?, &names);
    runtime.block_on(openkeyv.fill(&values))?;
    let mut candidates = stores.candidates();
    candidates.push(Box::new(NamedCandidate::new(OPENKEYV, openkeyv, &names, &values)));
    let tables = [
        (OURS, "cubbyhole.entries"),
        (ENTELIX, "memory_items"),
        (PLAIN, "plain"),
        (OPENKEYV, "kv_store"),
    ];
    let sizes = stores.server.sizes(&tables, entries, value_bytes)?;
    Ok(FilledStores { candidates, sizes, resources: Box::new(stores) })
}

/// Measures the goals, by default with a million entries of one tenant.
fn measure_goals(bench: &Bench<'_>, plan: &Plan, report: &mut Report) -> Result<()> {
    let runtime = bench.runtime;
    let (server, names, values) = fill_server(runtime, plan.entries, plan.value_bytes)?;
    let port = server.port();
    report.add_version("PostgreSQL", server.version()?);
    let near = runtime.block_on(Stores::open(server, port, &names, &values))?;
    points(bench, &near, &values, "", report)?;
    limits(bench, &near, report)?;
    cached(bench, &near, report)?;
    listings(bench, &near, report)?;
    sweep(bench, &near, report)?;
    let small_names = growth::small_names(Layout::OneTenant)?;
    let small_server = runtime.block_on(Server::filled(&small_names, &values))?;
    let small = runtime.block_on(small_server.json(small_server.port()))?;
    let small = Arc::new(Ours::new(small, &small_names));
    let large = (Arc::clone(&near.json.store), &names);
    growth::compare(bench, (small, &small_names), large, &values, Vec::new(), report)?;
    drop(small_server);
    // Closes the connections, because they count against the server's limit.
    let Stores { server, .. } = near;
    let port = delay::start_proxy(port, ONE_WAY)?;
    let far = runtime.block_on(Stores::open(server, port, &names, &values))?;
    points(bench, &far, &values, ", 2 ms one way", report)
}

/// Measures `get` and `put` with one caller and with one caller per connection.
fn points(
    bench: &Bench<'_>,
    stores: &Stores,
    values: &Values,
    note: &'static str,
    report: &mut Report,
) -> Result<()> {
    let candidates = stores.candidates();
    let entries = stores.names.entries();
    for (workload, near) in [(Workload::GET, 2.0), (Workload::PUT, 1.3)] {
        let at_least = if note.is_empty() { near } else { 3.0 };
        for callers in [1, 16] {
            let point = Point { entries, value_bytes: values.bytes(), callers };
            let mut comparison = bench.compare(workload, point, true, &candidates)?;
            comparison.work.push_str(note);
            let work = format!("PostgreSQL {}{note}, callers: {callers}", workload.name);
            for against in [ENTELIX, UNTESTED] {
                let times = comparison.times(OURS_JSON, against);
                report.add_goal(
                    Goal::times(work.clone(), against, at_least, times)
                        .with_limit(PLAIN, comparison.times(OURS_JSON, PLAIN)),
                );
            }
            report.add_comparison(comparison);
        }
    }
    Ok(())
}

/// Compares `get` under row-level security with the bare lookup without it.
fn limits(bench: &Bench<'_>, stores: &Stores, report: &mut Report) -> Result<()> {
    let lookup = |name, connections| bench.runtime.block_on(stores.lookup(name, connections));
    let candidates: Candidates = vec![
        Box::new(stores.bytes.clone()),
        Box::new(lookup(LOOKUP, CONNECTIONS)?),
        Box::new(lookup(LOOKUP_ONE, 1)?),
    ];
    for callers in [1, 16] {
        let value_bytes = stores.values.bytes();
        let point = Point { entries: stores.names.entries(), value_bytes, callers };
        let mut get = bench.compare(Workload::GET, point, true, &candidates)?;
        get.work.push_str(" and bare lookup");
        if callers == 16 {
            let work = "PostgreSQL get with row security, callers: 16";
            report.add_goal(Goal::times(work, LOOKUP, 0.65, get.times(OURS, LOOKUP)));
        }
        report.add_comparison(get);
    }
    Ok(())
}

/// Compares hits of `Cached` with `get` of the store inside.
fn cached(bench: &Bench<'_>, stores: &Stores, report: &mut Report) -> Result<()> {
    // Few enough entries for the cache to hold them all.
    let names = Arc::new(Names::new(layers::ENTRIES, Layout::OneTenant)?);
    let store = layers::cached(Arc::clone(&stores.bytes.store.store))?;
    bench.runtime.block_on(layers::warm(&store, &names))?;
    let named = |name, store: &Arc<dyn EntryStore<Bytes>>| {
        let store = Ours::<Bytes, _>::new(Arc::clone(store), &names);
        Box::new(NamedCandidate::new(name, store, &names, &stores.values))
    };
    let candidates: Candidates =
        vec![named(CACHED, &store), named(OURS, &stores.bytes.store.store)];
    let point = Point { entries: layers::ENTRIES, value_bytes: stores.values.bytes(), callers: 1 };
    let mut get = bench.compare(Workload::GET, point, true, &candidates)?;
    get.work.push_str(" and Cached");
    report.add_goal(Goal::times("PostgreSQL get, cached", OURS, 20.0, get.times(CACHED, OURS)));
    report.add_comparison(get);
    Ok(())
}

fn listings(bench: &Bench<'_>, stores: &Stores, report: &mut Report) -> Result<()> {
    let candidates: Candidates = vec![Box::new(stores.json.clone()), Box::new(stores.peer.clone())];
    let value_bytes = stores.values.bytes();
    let point = Point { entries: stores.names.entries(), value_bytes, callers: 1 };
    for (workload, what, at_least) in
        [(Workload::LIST_ALL, "all", 3.0), (Workload::LIST_GROUP, "a subtree of 10", 50.0)]
    {
        let comparison = bench.compare(workload, point, false, &candidates)?;
        let namespaces = stores.names.filled();
        let work = format!("PostgreSQL list_namespaces, {namespaces} namespaces: {what}");
        report.add_goal(Goal::times(work, ENTELIX, at_least, comparison.times(OURS_JSON, ENTELIX)));
        report.add_comparison(comparison);
    }
    report.add_comparison(bench.compare(Workload::LIST, point, false, &stores.candidates())?);
    Ok(())
}

/// The sweep of `entelix-persistence` runs as a role that bypasses row-level security, as its
/// documentation requires.
fn sweep(bench: &Bench<'_>, stores: &Stores, report: &mut Report) -> Result<()> {
    let (runtime, server, entries) = (bench.runtime, &stores.server, stores.names.entries());
    let peer = runtime.block_on(server.entelix_bypassing_rls())?;
    let peer = Entelix::<String, _>::new(peer, &stores.names);
    let peer = NamedCandidate::new(ENTELIX, peer, &stores.names, &stores.values);
    let cases = vec![
        sweeps::case(runtime, &stores.json, entries / 100, |_, count| {
            server.put_expired("cubbyhole.entries", count)
        }),
        sweeps::case(runtime, &peer, entries / 100, |_, count| {
            server.put_expired("memory_items", count)
        }),
        sweeps::case(runtime, &stores.plain, entries / 100, |_, count| {
            server.put_expired("plain", count)
        }),
    ];
    let point = Point { entries, value_bytes: stores.values.bytes(), callers: 1 };
    report.add_comparison(sweeps::compare(bench, point, entries / 100, cases)?);
    Ok(())
}
