//! PostgreSQL: the store beside other stores and a plain table, on one durable server.
//!
//! The store and `entelix-persistence` log in with a role that row security binds; the others do
//! not keep tenants apart.

mod delay;
mod server;

use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{Bytes, EntryStore};
use entelix_persistence::postgres::PostgresStore as PeerStore;
use tokio::runtime::Runtime;

use crate::contestant::{Entered, Entrants};
use crate::contestants::entelix::Entelix;
use crate::contestants::openkeyv::OpenKeyv;
use crate::contestants::ours::Ours;
use crate::contestants::sql::{Lookup, PlainTable};
use crate::data::{Layout, Names, Values};
use crate::goals::Goal;
use crate::grid::{self, Filled};
use crate::measure::{Bench, Point};
use crate::report::Report;
use crate::workload::Workload;
use crate::{OURS, OURS_JSON, Plan, Result, growth, sweeps};
use server::Server;

/// A store over JSON strings, as the peer has it.
type Own = Ours<String, Arc<dyn EntryStore<String>>>;
type Peer = Entelix<String, PeerStore<String>>;

const ENTELIX: &str = "entelix-persistence";
/// As its documentation advises where the network is reliable.
const UNTESTED: &str = "entelix, connections untested";
const OPENKEYV: &str = "openkeyv PostgreSQL";
const PLAIN: &str = "a plain table, sqlx";
const LOOKUP: &str = "primary key, tokio-postgres";
const LOOKUP_ONE: &str = "primary key, one connection";
/// As the peers' pools have them.
const CONNECTIONS: u32 = 16;
const ONE_WAY: Duration = Duration::from_millis(2);

pub fn run(bench: &Bench<'_>, plan: &Plan, report: &mut Report) -> Result<()> {
    headline(bench, plan, report)?;
    grid::run(bench, plan.scales, |entries, bytes| grid(bench.runtime, entries, bytes), report)
}

/// The stores over one server.
struct Everyone {
    server: Server,
    names: Arc<Names>,
    values: Arc<Values>,
    json: Entered<Own>,
    bytes: Entered<Ours<Bytes, Arc<dyn EntryStore<Bytes>>>>,
    peer: Entered<Peer>,
    untested: Entered<Peer>,
    plain: Entered<PlainTable>,
}

impl Everyone {
    /// Over a server that is filled, at that port.
    async fn open(
        server: Server,
        port: u16,
        names: &Arc<Names>,
        values: &Arc<Values>,
    ) -> Result<Self> {
        let plain = PlainTable { pool: server.pool(port).await?, names: Arc::clone(names) };
        let enter = |name, tested| {
            let peer = server.entelix(port, tested);
            async move {
                let peer = Entelix::new(peer.await?, names);
                Result::<_>::Ok(Entered::new(name, peer, names, values))
            }
        };
        let json = Ours::new(server.json(port).await?, names);
        let bytes = Ours::new(server.bytes(port).await?, names);
        Ok(Self {
            json: Entered::new(OURS_JSON, json, names, values),
            bytes: Entered::new(OURS, bytes, names, values),
            peer: enter(ENTELIX, true).await?,
            untested: enter(UNTESTED, false).await?,
            plain: Entered::new(PLAIN, plain, names, values),
            names: Arc::clone(names),
            values: Arc::clone(values),
            server,
        })
    }

    /// The first ones have JSON strings, the others bytes.
    fn entrants(&self) -> Entrants {
        vec![
            Box::new(self.json.clone()),
            Box::new(self.peer.clone()),
            Box::new(self.untested.clone()),
            Box::new(self.bytes.clone()),
            Box::new(self.plain.clone()),
        ]
    }

    async fn lookup(&self, name: &'static str, connections: u32) -> Result<Entered<Lookup>> {
        let lookup = Lookup::connect(self.server.url(), connections as usize, &self.names);
        Ok(Entered::new(name, lookup.await?, &self.names, &self.values))
    }
}

fn prepared(
    runtime: &Runtime,
    entries: usize,
    value_bytes: usize,
) -> Result<(Server, Arc<Names>, Arc<Values>)> {
    let names = Arc::new(Names::of(entries, Layout::OneTenant)?);
    let values = Arc::new(Values::of(value_bytes));
    let server = runtime.block_on(Server::filled(&names, &values))?;
    Ok((server, names, values))
}

fn grid(runtime: &Runtime, entries: usize, value_bytes: usize) -> Result<Filled> {
    let (server, names, values) = prepared(runtime, entries, value_bytes)?;
    let port = server.port();
    let everyone = runtime.block_on(Everyone::open(server, port, &names, &values))?;
    let openkeyv = OpenKeyv::new(runtime.block_on(everyone.server.openkeyv())?, &names);
    runtime.block_on(openkeyv.fill(&values))?;
    let mut entrants = everyone.entrants();
    entrants.push(Box::new(Entered::new(OPENKEYV, openkeyv, &names, &values)));
    let tables = [
        (OURS, "cubbyhole.entries"),
        (ENTELIX, "memory_items"),
        (PLAIN, "plain"),
        (OPENKEYV, "kv_store"),
    ];
    let sizes = everyone.server.sizes(&tables, entries, value_bytes)?;
    Ok(Filled { entrants, sizes, keep: Box::new(everyone) })
}

/// What is to be reached, at a million entries of one tenant.
fn headline(bench: &Bench<'_>, plan: &Plan, report: &mut Report) -> Result<()> {
    let runtime = bench.runtime;
    let (server, names, values) = prepared(runtime, plan.entries, plan.value_bytes)?;
    let port = server.port();
    report.version("PostgreSQL", server.version()?);
    let near = runtime.block_on(Everyone::open(server, port, &names, &values))?;
    points(bench, &near, &values, "", report)?;
    limits(bench, &near, report)?;
    listings(bench, &near, report)?;
    sweep(bench, &near, report)?;
    let few = growth::names(Layout::OneTenant)?;
    let little = runtime.block_on(Server::filled(&few, &values))?;
    let small = runtime.block_on(little.json(little.port()))?;
    let small = Arc::new(Ours::new(small, &few));
    let large = (Arc::clone(&near.json.store), &names);
    growth::compare(bench, (small, &few), large, &values, Vec::new(), report)?;
    drop(little);
    // Their connections count against the server's limit.
    let Everyone { server, .. } = near;
    let port = delay::before(port, ONE_WAY)?;
    let far = runtime.block_on(Everyone::open(server, port, &names, &values))?;
    points(bench, &far, &values, ", 2 ms one way", report)
}

/// `get` and `put` by one caller and by as many as there are connections.
fn points(
    bench: &Bench<'_>,
    everyone: &Everyone,
    values: &Values,
    note: &'static str,
    report: &mut Report,
) -> Result<()> {
    let entrants = everyone.entrants();
    let entries = everyone.names.entries();
    for (workload, near) in [(Workload::GET, 2.0), (Workload::PUT, 1.3)] {
        let at_least = if note.is_empty() { near } else { 3.0 };
        for callers in [1, 16] {
            let point = Point { entries, value_bytes: values.bytes(), callers };
            let mut comparison = bench.compare(workload, point, true, &entrants)?;
            comparison.work.push_str(note);
            let work = format!("PostgreSQL {}{note}, callers: {callers}", workload.name);
            for against in [ENTELIX, UNTESTED] {
                let times = comparison.times(OURS_JSON, against);
                report.goal(
                    Goal::times(work.clone(), against, at_least, times)
                        .beside(PLAIN, comparison.times(OURS_JSON, PLAIN)),
                );
            }
            report.compared(comparison);
        }
    }
    Ok(())
}

/// `get` under row security beside the bare lookup without it.
fn limits(bench: &Bench<'_>, everyone: &Everyone, report: &mut Report) -> Result<()> {
    let lookup = |name, connections| bench.runtime.block_on(everyone.lookup(name, connections));
    let entrants: Entrants = vec![
        Box::new(everyone.bytes.clone()),
        Box::new(lookup(LOOKUP, CONNECTIONS)?),
        Box::new(lookup(LOOKUP_ONE, 1)?),
    ];
    for callers in [1, 16] {
        let value_bytes = everyone.values.bytes();
        let point = Point { entries: everyone.names.entries(), value_bytes, callers };
        let mut get = bench.compare(Workload::GET, point, true, &entrants)?;
        get.work.push_str(" beside the bare lookup");
        if callers == 16 {
            let work = "PostgreSQL get with row security, callers: 16";
            report.goal(Goal::times(work, LOOKUP, 0.65, get.times(OURS, LOOKUP)));
        }
        report.compared(get);
    }
    Ok(())
}

fn listings(bench: &Bench<'_>, everyone: &Everyone, report: &mut Report) -> Result<()> {
    let entrants: Entrants = vec![Box::new(everyone.json.clone()), Box::new(everyone.peer.clone())];
    let value_bytes = everyone.values.bytes();
    let point = Point { entries: everyone.names.entries(), value_bytes, callers: 1 };
    for (workload, what, at_least) in
        [(Workload::LIST_ALL, "all", 3.0), (Workload::LIST_GROUP, "a subtree of 10", 50.0)]
    {
        let comparison = bench.compare(workload, point, false, &entrants)?;
        let namespaces = everyone.names.filled();
        let work = format!("PostgreSQL list_namespaces, {namespaces} namespaces: {what}");
        report.goal(Goal::times(work, ENTELIX, at_least, comparison.times(OURS_JSON, ENTELIX)));
        report.compared(comparison);
    }
    report.compared(bench.compare(Workload::LIST, point, false, &everyone.entrants())?);
    Ok(())
}

/// The peer's sweep runs with a role that row security does not bind, as its documentation asks.
fn sweep(bench: &Bench<'_>, everyone: &Everyone, report: &mut Report) -> Result<()> {
    let (runtime, server, entries) = (bench.runtime, &everyone.server, everyone.names.entries());
    let peer = runtime.block_on(server.entelix_unbound())?;
    let peer = Entelix::<String, _>::new(peer, &everyone.names);
    let peer = Entered::new(ENTELIX, peer, &everyone.names, &everyone.values);
    let cases = vec![
        sweeps::case(runtime, &everyone.json, entries / 100, |_, count| {
            server.put_expired("cubbyhole.entries", count)
        }),
        sweeps::case(runtime, &peer, entries / 100, |_, count| {
            server.put_expired("memory_items", count)
        }),
        sweeps::case(runtime, &everyone.plain, entries / 100, |_, count| {
            server.put_expired("plain", count)
        }),
    ];
    let point = Point { entries, value_bytes: everyone.values.bytes(), callers: 1 };
    report.compared(sweeps::compare(bench, point, entries / 100, cases)?);
    Ok(())
}
