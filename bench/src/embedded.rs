//! Embedded: the store in a file, compared with SQLite and with redb, its engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cubbyhole::embedded::EmbeddedStore;
use cubbyhole::{Backend, Bytes, ExecutionContext, embedded};
use openkeyv::store::sqlite::SqliteStore;
use tokio::runtime::Runtime;

use crate::candidate::{Candidates, NamedCandidate};
use crate::candidates::openkeyv::OpenKeyv;
use crate::candidates::ours::Ours;
use crate::candidates::raw_redb::{self, RawRedb};
use crate::candidates::sqlite::{self, Sqlite};
use crate::data::{Layout, Names, Values};
use crate::goals::Goal;
use crate::grid::{self, FilledStores};
use crate::harness::Settings;
use crate::measure::{Bench, Point};
use crate::plan::{EMBEDDED, OURS, Plan, folder};
use crate::report::{Report, Size};
use crate::workload::Workload;
use crate::{Result, growth, opening, sweeps};

/// The store is shared, so it can be closed after the last use.
type OurStore = Ours<Bytes, Arc<EmbeddedStore>>;

const REDB: &str = "redb, a commit each";
const REDB_GROUPED: &str = "redb, group commit";
const SQLITE: &str = "SQLite, a transaction each";
const SQLITE_BATCHED: &str = "SQLite, batching writer";
const OPENKEYV: &str = "openkeyv SQLite";

pub fn run(bench: &Bench<'_>, plan: &Plan, report: &mut Report) -> Result<()> {
    measure_goals(bench, plan, report)?;
    grid::run(bench, plan.scales, |entries, bytes| grid(bench.runtime, entries, bytes), report)
}

/// The files and handles of all candidates.
struct Stores {
    files: tempfile::TempDir,
    names: Arc<Names>,
    values: Arc<Values>,
    ours: NamedCandidate<OurStore>,
    redb: NamedCandidate<RawRedb>,
    sqlite: NamedCandidate<Sqlite>,
    sizes: Vec<Size>,
}

impl Stores {
    fn filled(runtime: &Runtime, entries: usize, value_bytes: usize) -> Result<Self> {
        // In the checkout, because a temporary folder can be in memory.
        std::fs::create_dir_all(folder())?;
        let files = tempfile::tempdir_in(folder())?;
        let names = Arc::new(Names::new(entries, Layout::ManyTenants)?);
        let values = Arc::new(Values::new(value_bytes));
        let path = |name: &str| files.path().join(name);
        let ours = runtime.block_on(open_ours(&path("ours"), &names))?;
        runtime.block_on(ours.fill(&values))?;
        let database = raw_redb::filled(&path("redb"), &names, &values)?;
        let redb = RawRedb::new(&database, &names);
        let sqlite = Sqlite::filled(&path("sqlite"), &names, &values)?;
        let size = |name, path: PathBuf| -> Result<Size> {
            let bytes = std::fs::metadata(path)?.len() as f64 / entries as f64;
            Ok(Size { backend: EMBEDDED, name, entries, value_bytes, bytes })
        };
        let sizes = vec![
            size(OURS, path("ours"))?,
            size(REDB, path("redb"))?,
            size(SQLITE, path("sqlite"))?,
        ];
        Ok(Self {
            ours: NamedCandidate::new(OURS, ours, &names, &values),
            redb: NamedCandidate::new(REDB, redb, &names, &values),
            sqlite: NamedCandidate::new(SQLITE, sqlite, &names, &values),
            files,
            names,
            values,
            sizes,
        })
    }

    fn candidates(&self, database: &RawRedb) -> Result<Candidates> {
        let (names, values) = (&self.names, &self.values);
        let grouped = database.with_group_commit();
        let batched = self.sqlite.store.reopen()?.with_group_commit()?;
        Ok(vec![
            Box::new(self.ours.clone()),
            Box::new(self.redb.clone()),
            Box::new(NamedCandidate::new(REDB_GROUPED, grouped, names, values)),
            Box::new(self.sqlite.clone()),
            Box::new(NamedCandidate::new(SQLITE_BATCHED, batched, names, values)),
        ])
    }
}

async fn open_ours(path: &Path, names: &Arc<Names>) -> Result<OurStore> {
    let store = EmbeddedStore::open(&ExecutionContext::new(), embedded::Config::new(path)).await?;
    Ok(Ours::new(Arc::new(store), names))
}

pub fn grid(runtime: &Runtime, entries: usize, value_bytes: usize) -> Result<FilledStores> {
    let mut stores = Stores::filled(runtime, entries, value_bytes)?;
    let mut candidates = stores.candidates(&stores.redb.store)?;
    let connection = sqlite::connect(&stores.files.path().join("openkeyv"))?;
    let openkeyv = runtime.block_on(SqliteStore::from_conn(connection, None))?;
    let openkeyv = OpenKeyv::new(openkeyv, &stores.names);
    runtime.block_on(openkeyv.fill(&stores.values))?;
    candidates.push(Box::new(NamedCandidate::new(
        OPENKEYV,
        openkeyv,
        &stores.names,
        &stores.values,
    )));
    let sizes = std::mem::take(&mut stores.sizes);
    Ok(FilledStores { candidates, sizes, resources: Box::new(stores) })
}

/// Measures the goals, by default with a million entries.
fn measure_goals(bench: &Bench<'_>, plan: &Plan, report: &mut Report) -> Result<()> {
    let mut stores = Stores::filled(bench.runtime, plan.entries, plan.value_bytes)?;
    report.add_sizes(std::mem::take(&mut stores.sizes));
    let candidates = stores.candidates(&stores.redb.store)?;
    let at = |callers| Point { entries: plan.entries, value_bytes: plan.value_bytes, callers };
    let name = |work: &str| format!("embedded {work}, {} entries", plan.entries);
    for (callers, against, at_least) in [(1, REDB, 0.6), (2, SQLITE, 1.5)] {
        let get = bench.compare(Workload::GET, at(callers), true, &candidates)?;
        let work = format!("{}, callers: {callers}", name("get"));
        report.add_goal(
            Goal::times(work, against, at_least, get.times(OURS, against))
                .with_limit(REDB, get.times(OURS, REDB)),
        );
        report.add_comparison(get);
    }
    let list = bench.compare(Workload::LIST, at(1), false, &candidates)?;
    report.add_goal(
        Goal::times(name("list of 100 keys"), SQLITE, 1.5, list.times(OURS, SQLITE))
            .with_limit(REDB, list.times(OURS, REDB)),
    );
    report.add_comparison(list);
    for callers in [1, 16, 128] {
        // With many callers, a turn must be long enough to contain a checkpoint. Shorter turns
        // would contain one only by chance.
        let factor = if callers == 128 { 8 } else { 2 };
        let turn = bench.settings.turn * factor;
        let longer_bench = Bench { settings: Settings { turn, ..bench.settings }, ..*bench };
        let put = longer_bench.compare(Workload::PUT, at(callers), true, &candidates)?;
        if callers == 128 {
            for (against, at_least) in [(REDB_GROUPED, 0.8), (SQLITE, 5.0)] {
                let work = format!("{}, callers: {callers}", name("durable put"));
                report.add_goal(
                    Goal::times(work, against, at_least, put.times(OURS, against))
                        .with_limit(REDB_GROUPED, put.times(OURS, REDB_GROUPED)),
                );
            }
        }
        report.add_comparison(put);
    }
    sweep(bench, at(1), &stores, report)?;
    let small_names = growth::small_names(Layout::ManyTenants)?;
    let path = stores.files.path().join("small");
    let small = bench.runtime.block_on(open_ours(&path, &small_names))?;
    bench.runtime.block_on(small.fill(&stores.values))?;
    let large = (Arc::clone(&stores.ours.store), &stores.names);
    let path = stores.files.path().join("small redb");
    let engine =
        RawRedb::new(&raw_redb::filled(&path, &small_names, &stores.values)?, &small_names);
    let engine = growth::engine(
        (engine, &small_names),
        (Arc::clone(&stores.redb.store), &stores.names),
        &stores.values,
    );
    growth::compare(bench, (Arc::new(small), &small_names), large, &stores.values, engine, report)?;
    drop(candidates);
    let Stores { files, names, values, ours, .. } = stores;
    bench.runtime.block_on(ours.store.store.close(&ours.store.ctx))?;
    drop(ours);
    let path = files.path().join("ours");
    opening::compare(bench, plan, &names, values.bytes(), &path, report)
}

fn sweep(bench: &Bench<'_>, point: Point, stores: &Stores, report: &mut Report) -> Result<()> {
    let (runtime, values, expired) = (bench.runtime, &stores.values, point.entries / 100);
    let cases = vec![
        sweeps::case(runtime, &stores.ours, expired, |store: &OurStore, count| {
            runtime.block_on(store.put_expiring(count, values))
        }),
        sweeps::case(runtime, &stores.sqlite, expired, |store: &Sqlite, count| {
            store.put_expiring(count, values)
        }),
    ];
    report.add_comparison(sweeps::compare(bench, point, expired, cases)?);
    Ok(())
}
