//! Embedded: the store in a file beside SQLite, and beside redb, its own engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cubbyhole::embedded::EmbeddedStore;
use cubbyhole::{Backend, Bytes, EntryStore, ExecutionContext, GetOptions, embedded};
use openkeyv::store::sqlite::SqliteStore;
use tokio::runtime::Runtime;

use crate::contestant::{Entered, Entrants};
use crate::contestants::openkeyv::OpenKeyv;
use crate::contestants::ours::Ours;
use crate::contestants::raw_redb::{self, RawRedb};
use crate::contestants::sqlite::{self, Sqlite};
use crate::data::{Layout, Names, Values};
use crate::goals::Goal;
use crate::grid::{self, Filled};
use crate::harness::Settings;
use crate::measure::{Bench, Point};
use crate::report::{Report, Size};
use crate::workload::Workload;
use crate::{EMBEDDED, OURS, Plan, Result, folder, growth, opening, sweeps};

/// Shared, so that it can be closed once nobody uses it any more.
pub type Own = Ours<Bytes, Arc<EmbeddedStore>>;

const REDB: &str = "redb, a commit each";
const REDB_GROUPED: &str = "redb, group commit";
const SQLITE: &str = "SQLite, a transaction each";
const SQLITE_BATCHED: &str = "SQLite, batching writer";
const OPENKEYV: &str = "openkeyv SQLite";

pub fn run(bench: &Bench<'_>, plan: &Plan, report: &mut Report) -> Result<()> {
    headline(bench, plan, report)?;
    grid::run(bench, plan.scales, |entries, bytes| grid(bench.runtime, entries, bytes), report)
}

/// Everyone's files and handles.
struct Everyone {
    files: tempfile::TempDir,
    names: Arc<Names>,
    values: Arc<Values>,
    ours: Entered<Own>,
    redb: Entered<RawRedb>,
    sqlite: Entered<Sqlite>,
    sizes: Vec<Size>,
}

impl Everyone {
    fn filled(runtime: &Runtime, entries: usize, value_bytes: usize) -> Result<Self> {
        // On the disk of the checkout, because a temporary folder may be in memory.
        std::fs::create_dir_all(folder())?;
        let files = tempfile::tempdir_in(folder())?;
        let names = Arc::new(Names::of(entries, Layout::ManyTenants)?);
        let values = Arc::new(Values::of(value_bytes));
        let path = |name: &str| files.path().join(name);
        let ours = runtime.block_on(own(&path("ours"), &names))?;
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
            ours: Entered::new(OURS, ours, &names, &values),
            redb: Entered::new(REDB, redb, &names, &values),
            sqlite: Entered::new(SQLITE, sqlite, &names, &values),
            files,
            names,
            values,
            sizes,
        })
    }

    fn entrants(&self, database: &RawRedb) -> Result<Entrants> {
        let (names, values) = (&self.names, &self.values);
        let grouped = database.with_group_commit();
        let batched = self.sqlite.store.again()?.with_batching_writer()?;
        Ok(vec![
            Box::new(self.ours.clone()),
            Box::new(self.redb.clone()),
            Box::new(Entered::new(REDB_GROUPED, grouped, names, values)),
            Box::new(self.sqlite.clone()),
            Box::new(Entered::new(SQLITE_BATCHED, batched, names, values)),
        ])
    }
}

async fn own(path: &Path, names: &Arc<Names>) -> Result<Own> {
    let store = EmbeddedStore::open(&ExecutionContext::new(), EmbeddedConfig::new(path)).await?;
    Ok(Ours::new(Arc::new(store), names))
}

pub fn grid(runtime: &Runtime, entries: usize, value_bytes: usize) -> Result<Filled> {
    let mut everyone = Everyone::filled(runtime, entries, value_bytes)?;
    let mut entrants = everyone.entrants(&everyone.redb.store)?;
    let connection = sqlite::connect(&everyone.files.path().join("openkeyv"))?;
    let openkeyv = runtime.block_on(SqliteStore::from_conn(connection, None))?;
    let openkeyv = OpenKeyv::new(openkeyv, &everyone.names);
    runtime.block_on(openkeyv.fill(&everyone.values))?;
    entrants.push(Box::new(Entered::new(OPENKEYV, openkeyv, &everyone.names, &everyone.values)));
    let sizes = std::mem::take(&mut everyone.sizes);
    Ok(Filled { entrants, sizes, keep: Box::new(everyone) })
}

/// What is to be reached, at a million entries.
fn headline(bench: &Bench<'_>, plan: &Plan, report: &mut Report) -> Result<()> {
    let mut everyone = Everyone::filled(bench.runtime, plan.entries, plan.value_bytes)?;
    report.sizes(std::mem::take(&mut everyone.sizes));
    let entrants = everyone.entrants(&everyone.redb.store)?;
    let at = |callers| Point { entries: plan.entries, value_bytes: plan.value_bytes, callers };
    let name = |work: &str| format!("embedded {work}, {} entries", plan.entries);
    for (callers, against, at_least) in [(1, REDB, 0.6), (2, SQLITE, 1.5)] {
        let get = bench.compare(Workload::GET, at(callers), true, &entrants)?;
        let work = format!("{}, callers: {callers}", name("get"));
        report.goal(
            Goal::times(work, against, at_least, get.times(OURS, against))
                .beside(REDB, get.times(OURS, REDB)),
        );
        report.compared(get);
    }
    let list = bench.compare(Workload::LIST, at(1), false, &entrants)?;
    report.goal(
        Goal::times(name("list of 100 keys"), SQLITE, 1.5, list.times(OURS, SQLITE))
            .beside(REDB, list.times(OURS, REDB)),
    );
    report.compared(list);
    for callers in [1, 16, 128] {
        // Long enough for the checkpoints that many callers come to, which a shorter turn has or
        // has not.
        let longer = if callers == 128 { 8 } else { 2 };
        let turn = bench.settings.turn * longer;
        let patient = Bench { settings: Settings { turn, ..bench.settings }, ..*bench };
        let put = patient.compare(Workload::PUT, at(callers), true, &entrants)?;
        if callers == 128 {
            for (against, at_least) in [(REDB_GROUPED, 0.8), (SQLITE, 5.0)] {
                let work = format!("{}, callers: {callers}", name("durable put"));
                report.goal(
                    Goal::times(work, against, at_least, put.times(OURS, against))
                        .beside(REDB_GROUPED, put.times(OURS, REDB_GROUPED)),
                );
            }
        }
        report.compared(put);
    }
    sweep(bench, at(1), &everyone, report)?;
    let few = growth::names(Layout::ManyTenants)?;
    let path = everyone.files.path().join("little");
    let small = bench.runtime.block_on(own(&path, &few))?;
    bench.runtime.block_on(small.fill(&everyone.values))?;
    let large = (Arc::clone(&everyone.ours.store), &everyone.names);
    let path = everyone.files.path().join("little redb");
    let engine = RawRedb::new(&raw_redb::filled(&path, &few, &everyone.values)?, &few);
    let engine = growth::engine(
        (engine, &few),
        (Arc::clone(&everyone.redb.store), &everyone.names),
        &everyone.values,
    );
    growth::compare(bench, (Arc::new(small), &few), large, &everyone.values, engine, report)?;
    drop(entrants);
    let Everyone { files, names, values, ours, .. } = everyone;
    bench.runtime.block_on(ours.store.store.close(&ours.store.ctx))?;
    drop(ours);
    let path = files.path().join("ours");
    opening::compare(bench, plan, &names, values.bytes(), &path, report)
}

fn sweep(bench: &Bench<'_>, point: Point, everyone: &Everyone, report: &mut Report) -> Result<()> {
    let (runtime, values, expired) = (bench.runtime, &everyone.values, point.entries / 100);
    let cases = vec![
        sweeps::case(runtime, &everyone.ours, expired, |store: &Own, count| {
            runtime.block_on(store.put_expiring(count, values))
        }),
        sweeps::case(runtime, &everyone.sqlite, expired, |store: &Sqlite, count| {
            store.put_expiring(count, values)
        }),
    ];
    report.compared(sweeps::compare(bench, point, expired, cases)?);
    Ok(())
}

/// What the file holds is there: for [`opening`].
pub async fn first_get(store: &EmbeddedStore, names: &Names) -> Result<()> {
    let (ctx, ns) = (ExecutionContext::new(), &names.namespaces[names.filled() / 2]);
    let found = store.get_entry(&ctx, ns, &names.keys[7], GetOptions::new()).await?;
    found.map(drop).ok_or_else(|| "after opening, an entry is not there".into())
}
