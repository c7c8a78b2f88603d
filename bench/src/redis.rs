//! Redis: the store, compared with other stores and with bare commands, which are the limit.
//!
//! The server has no persistence, so the speed of the disk does not affect the results.

use std::sync::Arc;

use cubbyhole::{Bytes, EntryStore, ExecutionContext, TypedExt};
use cubbyhole_testkit::RedisServer;
use entelix_persistence::redis::{RedisPersistence, RedisStore as PeerStore};
use openkeyv::store::redis::{RedisConfig, RedisStore as OpenKeyvStore};
use tokio::runtime::Runtime;

use crate::candidate::{Candidates, NamedCandidate};
use crate::candidates::bare_redis::BareRedis;
use crate::candidates::entelix::Entelix;
use crate::candidates::openkeyv::OpenKeyv;
use crate::candidates::ours::Ours;
use crate::data::{Layout, Names, Values};
use crate::goals::Goal;
use crate::grid::{self, FilledStores};
use crate::measure::{Bench, Point};
use crate::plan::{OURS, OURS_JSON, Plan, REDIS};
use crate::report::{Report, Size};
use crate::workload::Workload;
use crate::{Result, growth};

type OurStore = Ours<Bytes, Arc<dyn EntryStore<Bytes>>>;
type Peer = Entelix<String, PeerStore<String>>;

const ENTELIX: &str = "entelix-persistence";
const OPENKEYV: &str = "openkeyv Redis";
const BARE: &str = "bare GET and SET";
const SETTINGS: [&str; 2] = ["appendonly no", "save \"\""];

pub fn run(bench: &Bench<'_>, plan: &Plan, report: &mut Report) -> Result<()> {
    measure_goals(bench, plan, report)?;
    grid::run(bench, plan.scales, |entries, bytes| grid(bench.runtime, entries, bytes), report)
}

/// The stores on one server.
struct Stores {
    server: RedisServer,
    names: Arc<Names>,
    values: Arc<Values>,
    ours: NamedCandidate<OurStore>,
    json: NamedCandidate<Ours<String, Arc<dyn EntryStore<String>>>>,
    bare: NamedCandidate<BareRedis>,
    peer: NamedCandidate<Peer>,
    sizes: Vec<Size>,
}

impl Stores {
    fn filled(runtime: &Runtime, entries: usize, value_bytes: usize) -> Result<Self> {
        let server = RedisServer::start_with(&SETTINGS)?;
        let names = Arc::new(Names::new(entries, Layout::ManyTenants)?);
        let values = Arc::new(Values::new(value_bytes));
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
        let ours = OurStore::new(store, &names);
        filled(OURS, &|| runtime.block_on(ours.fill(&values)))?;
        let bare = runtime.block_on(BareRedis::connect(server.url(), &names))?;
        filled(BARE, &|| runtime.block_on(bare.fill(&values)))?;
        let peer = RedisPersistence::builder().with_connection_string(server.url());
        let peer = Peer::new(runtime.block_on(peer.connect())?.store(), &names);
        filled(ENTELIX, &|| runtime.block_on(peer.fill(&values)))?;
        let json: Arc<dyn EntryStore<String>> = Arc::new(backend.typed::<String>());
        Ok(Self {
            ours: NamedCandidate::new(OURS, ours, &names, &values),
            json: NamedCandidate::new(OURS_JSON, Ours::new(json, &names), &names, &values),
            bare: NamedCandidate::new(BARE, bare, &names, &values),
            peer: NamedCandidate::new(ENTELIX, peer, &names, &values),
            server,
            names,
            values,
            sizes,
        })
    }

    fn candidates(&self) -> Candidates {
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

/// Returns a field of the server's `INFO`.
fn info(server: &RedisServer, section: &str, field: &str) -> Result<String> {
    let info = server.cli(&["INFO", section])?;
    let mut fields = info.lines().filter_map(|line| line.split_once(':'));
    let found = fields.find_map(|(name, value)| (name == field).then(|| value.trim().to_owned()));
    found.ok_or_else(|| format!("INFO {section} has no {field}").into())
}

fn grid(runtime: &Runtime, entries: usize, value_bytes: usize) -> Result<FilledStores> {
    let mut stores = Stores::filled(runtime, entries, value_bytes)?;
    // Without its change log, which no other candidate has.
    let config = RedisConfig::default().with_change_retention(0);
    let store = OpenKeyvStore::new_with_config(stores.server.url(), config);
    let openkeyv = OpenKeyv::new(runtime.block_on(store)?, &stores.names);
    let before = used_memory(&stores.server)?;
    runtime.block_on(openkeyv.fill(&stores.values))?;
    let bytes = (used_memory(&stores.server)? - before) / entries as f64;
    let mut sizes = std::mem::take(&mut stores.sizes);
    sizes.push(Size { backend: REDIS, name: OPENKEYV, entries, value_bytes, bytes });
    let mut candidates = stores.candidates();
    let (names, values) = (&stores.names, &stores.values);
    candidates.push(Box::new(NamedCandidate::new(OPENKEYV, openkeyv, names, values)));
    Ok(FilledStores { candidates, sizes, resources: Box::new(stores) })
}

/// Measures the goals, by default with a million entries.
fn measure_goals(bench: &Bench<'_>, plan: &Plan, report: &mut Report) -> Result<()> {
    let mut stores = Stores::filled(bench.runtime, plan.entries, plan.value_bytes)?;
    report.add_version("Redis", info(&stores.server, "server", "redis_version")?);
    report.add_sizes(std::mem::take(&mut stores.sizes));
    let candidates = stores.candidates();
    let at = |callers| Point { entries: plan.entries, value_bytes: plan.value_bytes, callers };
    for (workload, at_least) in [(Workload::GET, 0.9), (Workload::PUT, 0.5)] {
        for callers in [1, 16] {
            let comparison = bench.compare(workload, at(callers), true, &candidates)?;
            if callers == 16 {
                let work = format!("Redis {}, callers: {callers}", workload.name);
                report.add_goal(Goal::times(work, BARE, at_least, comparison.times(OURS, BARE)));
            }
            report.add_comparison(comparison);
        }
    }
    let list = bench.compare(Workload::LIST, at(1), false, &candidates)?;
    let work = format!("Redis list of 100 keys among {}", plan.entries);
    report.add_goal(Goal::times(work, ENTELIX, 100.0, list.times(OURS, ENTELIX)));
    report.add_comparison(list);
    let small_names = growth::small_names(Layout::ManyTenants)?;
    let server = RedisServer::start_with(&SETTINGS)?;
    let runtime = bench.runtime;
    let small = runtime.block_on(cubbyhole::open(&ExecutionContext::new(), server.url()))?;
    let small = OurStore::new(small, &small_names);
    runtime.block_on(small.fill(&stores.values))?;
    let large = (Arc::clone(&stores.ours.store), &stores.names);
    growth::compare(
        bench,
        (Arc::new(small), &small_names),
        large,
        &stores.values,
        Vec::new(),
        report,
    )
}
