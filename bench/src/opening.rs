//! Opening an embedded file again: after it was closed, and after its process was killed; and the
//! engine's own.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cubbyhole::embedded::EmbeddedStore;
use cubbyhole::{Backend, ExecutionContext, embedded};
use rand::RngExt;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::contestant::Contestant;
use crate::contestants::ours::Ours;
use crate::contestants::raw_redb;
use crate::data::{Layout, Names, Place, Values};
use crate::embedded::first_get;
use crate::goals::{Goal, Wanted};
use crate::harness::Samples;
use crate::measure::{Bench, Comparison, Measured, Point};
use crate::report::Report;
use crate::{EMBEDDED, Plan, Result};

/// The first argument of the process that is to be killed.
pub const HOLD_OPEN: &str = "hold-open";
const CLOSED: &str = "after closing";
const KILLED: &str = "after kill -9";
const REDB_CLOSED: &str = "redb, after closing";
const AT_MOST_MS: f64 = 20.0;

/// Opens the file of a million entries in turns.
pub fn compare(
    bench: &Bench<'_>,
    plan: &Plan,
    names: &Arc<Names>,
    value_bytes: usize,
    path: &Path,
    report: &mut Report,
) -> Result<()> {
    // Its own file, of as many entries; a repair that is not quick would take it most of a second.
    let engine = path.with_extension("engine");
    drop(raw_redb::filled(&engine, names, &Values::of(value_bytes))?);
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..plan.settings.rounds {
        times[0].push(open(bench.runtime, names, path)?.as_nanos() as f64);
        kill_a_writer(names.entries(), path)?;
        times[1].push(open(bench.runtime, names, path)?.as_nanos() as f64);
        let start = Instant::now();
        drop(redb::Database::open(&engine)?);
        times[2].push(start.elapsed().as_nanos() as f64);
    }
    let names_of = [CLOSED, KILLED, REDB_CLOSED];
    let results: Vec<Measured> = names_of
        .into_iter()
        .zip(times.map(Samples::new))
        .map(|(name, time)| Measured { name: name.to_owned(), time, latencies: None })
        .collect();
    for measured in &results[..2] {
        let work = format!("embedded open, {} entries, {}", names.entries(), measured.name);
        let milliseconds = measured.time.map(|nanoseconds| nanoseconds / 1e6);
        let wanted = Wanted::Milliseconds(AT_MOST_MS);
        let beside = results[2].time.ratio(&measured.time);
        report.goal(
            Goal::new(work, "the clock", wanted, Some(milliseconds))
                .beside(REDB_CLOSED, Some(beside)),
        );
    }
    report.compared(Comparison {
        backend: EMBEDDED,
        work: "open".to_owned(),
        about: "opening the file and getting an entry; redb: opening".to_owned(),
        point: Point { entries: names.entries(), value_bytes, callers: 1 },
        results,
    });
    Ok(())
}

/// Opens the file, gets an entry, and closes it; how long it took until the entry was there.
fn open(runtime: &Runtime, names: &Names, path: &Path) -> Result<Duration> {
    runtime.block_on(async {
        let config = embedded::Config::new(path).with_create(false);
        let ctx = ExecutionContext::new();
        let start = Instant::now();
        let store = EmbeddedStore::open(&ctx, config).await?;
        first_get(&store, names).await?;
        let took = start.elapsed();
        store.close(&ctx).await?;
        Ok(took)
    })
}

/// Has another process open the file and write, and kills it at some instant.
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
        None => Err("the writer ended before it was killed".into()),
    }
}

/// The process that is to be killed: writes without end, and says a line once it is well at work.
pub fn hold_open(runtime: &Runtime, entries: usize, path: &Path) -> Result<()> {
    const WRITERS: usize = 16;
    const AT_WORK: u64 = 1000;
    let names = Arc::new(Names::of(entries, Layout::ManyTenants)?);
    let values = Arc::new(Values::of(256));
    let config = embedded::Config::new(path).with_create(false);
    let store = runtime.block_on(EmbeddedStore::open(&ExecutionContext::new(), config))?;
    let store = Arc::new(Ours::<cubbyhole::Bytes, _>::new(Arc::new(store), &names));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut writers: JoinSet<Result<()>> = JoinSet::new();
    for writer in 0..WRITERS {
        let (store, acknowledged) = (Arc::clone(&store), Arc::clone(&acknowledged));
        let (names, values) = (Arc::clone(&names), Arc::clone(&values));
        let write = async move {
            // Each through all entries in another order.
            for index in (0..).map(|step: usize| step.wrapping_mul(7919 + writer)) {
                store.put(Place::nth(index % names.entries()), values.nth(index)).await?;
                if acknowledged.fetch_add(1, Ordering::Relaxed) + 1 == AT_WORK {
                    println!("at work");
                }
            }
            Ok(())
        };
        writers.spawn_on(write, runtime.handle());
    }
    // None of them ends but by an error.
    match runtime.block_on(writers.join_next()) {
        Some(ended) => ended?,
        None => Ok(()),
    }
}
