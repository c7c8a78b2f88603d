//! Opening an embedded file again: after it was closed, and after its process was killed.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cubbyhole::EmbeddedConfig;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::Result;
use crate::contestant::{Contestant, Ours};
use crate::data::{self, Names, Place, VALUE_BYTES};

/// The first argument of the process that is to be killed.
pub const HOLD_OPEN: &str = "hold-open";

/// How long it took to open the file, and to open it and get an entry.
pub struct Opening {
    pub open: Duration,
    pub with_first_get: Duration,
}

/// Opens the file, gets an entry, and closes it.
pub fn open(runtime: &Runtime, names: &Arc<Names>, path: &Path) -> Result<Opening> {
    let place = Place::anywhere(&mut fastrand::Rng::with_seed(7), names);
    runtime.block_on(async {
        let config = EmbeddedConfig::new(path).with_create(false);
        let start = Instant::now();
        let store = Ours::embedded(Arc::clone(names), config).await?;
        let open = start.elapsed();
        let length = store.get(place).await?;
        let with_first_get = start.elapsed();
        store.close().await?;
        if length != Some(VALUE_BYTES) {
            return Err(format!("after opening, {place:?} has a value of {length:?} bytes").into());
        }
        Ok(Opening { open, with_first_get })
    })
}

/// Has another process open the file and write, and kills it at some instant.
pub fn kill_a_writer(entries: usize, path: &Path) -> Result<()> {
    let mut child = Command::new(env::current_exe()?)
        .arg(HOLD_OPEN)
        .arg(entries.to_string())
        .arg(path)
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().ok_or("the child has no stdout")?;
    let ready = BufReader::new(stdout).lines().next();
    thread::sleep(Duration::from_millis(fastrand::u64(10..100)));
    child.kill()?;
    child.wait()?;
    match ready {
        Some(line) => Ok(line.map(drop)?),
        None => Err("the writer ended before it was killed".into()),
    }
}

/// The process that is to be killed: writes without end, and says a line once it is well at work.
pub fn hold_open(runtime: &Runtime, entries: usize, path: &Path) -> Result<()> {
    const WRITERS: u64 = 16;
    const AT_WORK: u64 = 1000;
    let names = Arc::new(Names::of(entries)?);
    let config = EmbeddedConfig::new(path).with_create(false);
    let store = Arc::new(runtime.block_on(Ours::embedded(names, config))?);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut writers: JoinSet<Result<()>> = JoinSet::new();
    for writer in 0..WRITERS {
        let (store, acknowledged) = (Arc::clone(&store), Arc::clone(&acknowledged));
        let mut random = fastrand::Rng::with_seed(writer);
        let write = async move {
            loop {
                let place = Place::anywhere(&mut random, store.names());
                store.put(place, data::value(&mut random)).await?;
                if acknowledged.fetch_add(1, Ordering::Relaxed) + 1 == AT_WORK {
                    println!("at work");
                }
            }
        };
        writers.spawn_on(write, runtime.handle());
    }
    // None of them ends but by an error.
    match runtime.block_on(writers.join_next()) {
        Some(ended) => ended?,
        None => Ok(()),
    }
}
