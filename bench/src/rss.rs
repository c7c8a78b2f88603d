//! How much memory a store takes, as the operating system counts it: in a process of its own, so
//! that nobody's leavings count for another.

use std::env;
use std::fs;
use std::hint::black_box;
use std::process::{Command, Stdio};
use std::sync::Arc;

use tokio::runtime::Runtime;

use crate::Result;
use crate::data::{Layout, Names, Values};
use crate::memory;

/// The first argument of the process that fills one store.
pub const FILL: &str = "fill-memory";

/// Bytes that each of so many entries adds to a process.
pub fn of_an_entry(name: &str, entries: usize, value_bytes: usize) -> Result<f64> {
    let output = Command::new(env::current_exe()?)
        .args([FILL, name, &entries.to_string(), &value_bytes.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    let bytes: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
    Ok(bytes / entries as f64)
}

/// The process that fills the store of that name, and says how many bytes it took.
pub fn fill(runtime: &Runtime, name: &str, entries: usize, value_bytes: usize) -> Result<usize> {
    let name = memory::ALL.into_iter().find(|known| *known == name);
    let name = name.ok_or("no store of that name")?;
    let names = Arc::new(Names::of(entries, Layout::ManyTenants)?);
    let values = Arc::new(Values::of(value_bytes));
    let before = resident()?;
    let filled = memory::entrant(runtime, name, &names, &values)?;
    let after = resident()?;
    black_box(filled);
    Ok(after - before)
}

/// Bytes of memory of this process, as Linux tells.
fn resident() -> Result<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB"));
    Ok(kibibytes.ok_or("the system does not tell a process's memory")?.trim().parse::<usize>()?
        * 1024)
}
