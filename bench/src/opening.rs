//! The time to open an embedded file after it was closed and after its process was killed, compared
//! with redb alone.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cubbyhole::embedded::EmbeddedStore;
use cubbyhole::{Backend, EntryStore, ExecutionContext, GetOptions, embedded};
use rand::RngExt;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::Result;
use crate::candidate::Candidate;
use crate::candidates::ours::Ours;
use crate::candidates::raw_redb;
use crate::data::{EntryId, Layout, Names, Values};
use crate::goals::{Goal, Target};
use crate::harness::Samples;
use crate::measure::{Bench, Comparison, Measurement, Point};
use crate::plan::{EMBEDDED, Plan};
use crate::report::Report;

/// The first argument of the subprocess that is killed.
pub const HOLD_OPEN: &str = "hold-open";
const CLOSED: &str = "after closing";
const KILLED: &str = "after kill -9";
const REDB_CLOSED: &str = "redb, after closing";
const AT_MOST_MS: f64 = 20.0;

/// Opens the file in alternating rounds.
pub fn compare(
    bench: &Bench<'_>,
    plan: &Plan,
    names: &Arc<Names>,
    value_bytes: usize,
    path: &Path,
    report: &mut Report,
) -> Result<()> {
    // A redb file with the same number of entries.
    let engine = path.with_extension("engine");
    drop(raw_redb::filled(&engine, names, &Values::new(value_bytes))?);
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..plan.settings.rounds {
        times[0].push(open(bench.runtime, names, path)?.as_nanos() as f64);
        kill_a_writer(names.entries(), path)?;
        times[1].push(open(bench.runtime, names, path)?.as_nanos() as f64);
        let start = Instant::now();
        drop(redb::Database::open(&engine)?);
        times[2].push(start.elapsed().as_nanos() as f64);
    }
    let row_names = [CLOSED, KILLED, REDB_CLOSED];
    let results: Vec<Measurement> = row_names
        .into_iter()
        .zip(times.map(Samples::new))
        .map(|(name, time)| Measurement { name: name.to_owned(), time, latencies: None })
        .collect();
    for measured in &results[..2] {
        let work = format!("embedded open, {} entries, {}", names.entries(), measured.name);
        let milliseconds = measured.time.map(|nanoseconds| nanoseconds / 1e6);
        let target = Target::Milliseconds(AT_MOST_MS);
        let relative_to_redb = results[2].time.ratio(&measured.time);
        report.add_goal(
            Goal::new(work, "the clock", target, Some(milliseconds))
                .with_limit(REDB_CLOSED, Some(relative_to_redb)),
        );
    }
    report.add_comparison(Comparison {
        backend: EMBEDDED,
        work: "open".to_owned(),
        about: "opening the file and getting an entry; redb: opening".to_owned(),
        point: Point { entries: names.entries(), value_bytes, callers: 1 },
        results,
    });
    Ok(())
}

/// Opens the file, reads an entry and closes the file. Returns the time until the entry was read.
fn open(runtime: &Runtime, names: &Names, path: &Path) -> Result<Duration> {
    runtime.block_on(async {
        let config = embedded::Config::new(path).with_create(false);
        let ctx = ExecutionContext::new();
        let start = Instant::now();
        let store = EmbeddedStore::open(&ctx, config).await?;
        read_entry(&store, names).await?;
        let took = start.elapsed();
        store.close(&ctx).await?;
        Ok(took)
    })
}

/// Fails if the opened file does not contain its entries.
async fn read_entry(store: &EmbeddedStore, names: &Names) -> Result<()> {
    let (ctx, ns) = (ExecutionContext::new(), &names.namespaces[names.filled() / 2]);
    let found = store.get_entry(&ctx, ns, &names.keys[7], GetOptions::new()).await?;
    found.map(drop).ok_or_else(|| "an entry is missing after opening".into())
}

/// Starts a subprocess that opens the file and writes, and kills it at a random time.
fn kill_a_writer(entries: usize, path: &Path) -> Result<()> {
    let mut child = Command::new(env::current_exe()?)
        .arg(HOLD_OPEN)
        .arg(entries.to_string())
        .arg(path)
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().ok_or("the child has no stdout")?;
    let ready = BufReader::new(stdout).lines().next();
    thread::sleep(Duration::from_millis(rand::rng().random_range(10..100)));
    child.kill()?;
    child.wait()?;
    match ready {
        Some(line) => Ok(line.map(drop)?),
        None => Err("the writer exited before it was killed".into()),
    }
}

/// Runs in the subprocess that is killed. Writes forever, and prints a line after 1,000 writes.
pub fn hold_open(runtime: &Runtime, entries: usize, path: &Path) -> Result<()> {
    const WRITERS: usize = 16;
    const READY_AFTER: u64 = 1000;
    let names = Arc::new(Names::new(entries, Layout::ManyTenants)?);
    let values = Arc::new(Values::new(256));
    let config = embedded::Config::new(path).with_create(false);
    let store = runtime.block_on(EmbeddedStore::open(&ExecutionContext::new(), config))?;
    let store = Arc::new(Ours::<cubbyhole::Bytes, _>::new(Arc::new(store), &names));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut writers: JoinSet<Result<()>> = JoinSet::new();
    for writer in 0..WRITERS {
        let (store, acknowledged) = (Arc::clone(&store), Arc::clone(&acknowledged));
        let (names, values) = (Arc::clone(&names), Arc::clone(&values));
        let write = async move {
            // Each writer has another order.
            for index in (0..).map(|step: usize| step.wrapping_mul(7919 + writer)) {
                store.put(EntryId::nth(index % names.entries()), values.nth(index)).await?;
                if acknowledged.fetch_add(1, Ordering::Relaxed) + 1 == READY_AFTER {
                    println!("ready");
                }
            }
            Ok(())
        };
        writers.spawn_on(write, runtime.handle());
    }
    // A writer ends only with an error.
    match runtime.block_on(writers.join_next()) {
        Some(result) => result?,
        None => Ok(()),
    }
}
