//! Redis: the store beside other stores, and beside the bare commands that it cannot be faster
//! than, on one server that writes nothing to the disk, whose moods are not what is compared.

use std::sync::Arc;

use cubbyhole::{Bytes, EntryStore, ExecutionContext, TypedExt};
use cubbyhole_testkit::RedisServer;
use entelix_persistence::redis::{RedisPersistence, RedisStore as PeerStore};
use openkeyv::store::redis::{RedisConfig, RedisStore as OpenKeyvStore};
use tokio::runtime::Runtime;

use crate::contestant::{Entered, Entrants};
use crate::contestants::bare_redis::BareRedis;
use crate::contestants::entelix::Entelix;
use crate::contestants::openkeyv::OpenKeyv;
use crate::contestants::ours::Ours;
use crate::data::{Layout, Names, Values};
use crate::goals::Goal;
use crate::grid::{self, Filled};
use crate::measure::{Bench, Point};
use crate::report::{Report, Size};
use crate::workload::Workload;
use crate::{OURS, OURS_JSON, Plan, REDIS, Result, growth};

type Own = Ours<Bytes, Arc<dyn EntryStore<Bytes>>>;
type Peer = Entelix<String, PeerStore<String>>;

const ENTELIX: &str = "entelix-persistence";
const OPENKEYV: &str = "openkeyv Redis";
const BARE: &str = "bare GET and SET";
const SERVER: [&str; 2] = ["appendonly no", "save \"\""];

pub fn run(bench: &Bench<'_>, plan: &Plan, report: &mut Report) -> Result<()> {
    headline(bench, plan, report)?;
    grid::run(bench, plan.scales, |entries, bytes| grid(bench.runtime, entries, bytes), report)
}

/// The stores over one server.
struct Everyone {
    server: RedisServer,
    names: Arc<Names>,
    values: Arc<Values>,
    ours: Entered<Own>,
    json: Entered<Ours<String, Arc<dyn EntryStore<String>>>>,
    bare: Entered<BareRedis>,
    peer: Entered<Peer>,
    sizes: Vec<Size>,
}

impl Everyone {
    fn filled(runtime: &Runtime, entries: usize, value_bytes: usize) -> Result<Self> {
        let server = RedisServer::start_with(&SERVER)?;
        let names = Arc::new(Names::of(entries, Layout::ManyTenants)?);
        let values = Arc::new(Values::of(value_bytes));
        let mut sizes = Vec::new();
        let mut filled = |name, fill: &dyn Fn() -> Result<()>| {
            let before = used_memory(&server)?;
            fill()?;
            let bytes = (used_memory(&server)? - before) / entries as f64;
            sizes.push(Size { backend: REDIS, name, entries, value_bytes, bytes });
            Result::<_>::Ok(())
        };
        let backend = runtime.block_on(cubbyhole::open(&ExecutionContext::new(), server.url()))?;
        let store: Arc<dyn EntryStore<Bytes>> = Arc::<dyn cubbyhole::Backend>::clone(&backend);
        let ours = Own::new(store, &names);
        filled(OURS, &|| runtime.block_on(ours.fill(&values)))?;
        let bare = runtime.block_on(BareRedis::connect(server.url(), &names))?;
        filled(BARE, &|| runtime.block_on(bare.fill(&values)))?;
        let peer = RedisPersistence::builder().with_connection_string(server.url());
        let peer = Peer::new(runtime.block_on(peer.connect())?.store(), &names);
        filled(ENTELIX, &|| runtime.block_on(peer.fill(&values)))?;
        let json: Arc<dyn EntryStore<String>> = Arc::new(backend.typed::<String>());
        Ok(Self {
            ours: Entered::new(OURS, ours, &names, &values),
            json: Entered::new(OURS_JSON, Ours::new(json, &names), &names, &values),
            bare: Entered::new(BARE, bare, &names, &values),
            peer: Entered::new(ENTELIX, peer, &names, &values),
            server,
            names,
            values,
            sizes,
        })
    }

    fn entrants(&self) -> Entrants {
        vec![
            Box::new(self.ours.clone()),
            Box::new(self.bare.clone()),
            Box::new(self.json.clone()),
            Box::new(self.peer.clone()),
        ]
    }
}

fn used_memory(server: &RedisServer) -> Result<f64> {
    Ok(info(server, "memory", "used_memory")?.parse()?)
}

/// A field of what the server tells of itself.
fn info(server: &RedisServer, section: &str, field: &str) -> Result<String> {
    let info = server.cli(&["INFO", section])?;
    let mut fields = info.lines().filter_map(|line| line.split_once(':'));
    let found = fields.find_map(|(name, value)| (name == field).then(|| value.trim().to_owned()));
    found.ok_or_else(|| format!("the server does not tell {field}").into())
}

fn grid(runtime: &Runtime, entries: usize, value_bytes: usize) -> Result<Filled> {
    let mut everyone = Everyone::filled(runtime, entries, value_bytes)?;
    // Without the record of changes that it keeps by default, which no other has.
    let config = RedisConfig::default().with_change_retention(0);
    let store = OpenKeyvStore::new_with_config(everyone.server.url(), config);
    let openkeyv = OpenKeyv::new(runtime.block_on(store)?, &everyone.names);
    let before = used_memory(&everyone.server)?;
    runtime.block_on(openkeyv.fill(&everyone.values))?;
    let bytes = (used_memory(&everyone.server)? - before) / entries as f64;
    let mut sizes = std::mem::take(&mut everyone.sizes);
    sizes.push(Size { backend: REDIS, name: OPENKEYV, entries, value_bytes, bytes });
    let mut entrants = everyone.entrants();
    let (names, values) = (&everyone.names, &everyone.values);
    entrants.push(Box::new(Entered::new(OPENKEYV, openkeyv, names, values)));
    Ok(Filled { entrants, sizes, keep: Box::new(everyone) })
}

/// What is to be reached, at a million entries.
fn headline(bench: &Bench<'_>, plan: &Plan, report: &mut Report) -> Result<()> {
    let mut everyone = Everyone::filled(bench.runtime, plan.entries, plan.value_bytes)?;
    report.version("Redis", info(&everyone.server, "server", "redis_version")?);
    report.sizes(std::mem::take(&mut everyone.sizes));
    let entrants = everyone.entrants();
    let at = |callers| Point { entries: plan.entries, value_bytes: plan.value_bytes, callers };
    for (workload, at_least) in [(Workload::GET, 0.9), (Workload::PUT, 0.5)] {
        for callers in [1, 16] {
            let comparison = bench.compare(workload, at(callers), true, &entrants)?;
            if callers == 16 {
                let work = format!("Redis {}, callers: {callers}", workload.name);
                report.goal(Goal::times(work, BARE, at_least, comparison.times(OURS, BARE)));
            }
            report.compared(comparison);
        }
    }
    let list = bench.compare(Workload::LIST, at(1), false, &entrants)?;
    let work = format!("Redis list of 100 keys among {}", plan.entries);
    report.goal(Goal::times(work, ENTELIX, 100.0, list.times(OURS, ENTELIX)));
    report.compared(list);
    let few = growth::names(Layout::ManyTenants)?;
    let server = RedisServer::start_with(&SERVER)?;
    let runtime = bench.runtime;
    let small = runtime.block_on(cubbyhole::open(&ExecutionContext::new(), server.url()))?;
    let small = Own::new(small, &few);
    runtime.block_on(small.fill(&everyone.values))?;
    let large = (Arc::clone(&everyone.ours.store), &everyone.names);
    growth::compare(bench, (Arc::new(small), &few), large, &everyone.values, Vec::new(), report)
}
