//! The memory use of a store, as the operating system counts it. Each store is filled in its own
//! subprocess, so the memory of one does not affect another.

use std::env;
use std::fs;
use std::process::{Command, Stdio};

use crate::Result;

/// The first argument of the subprocess that fills one store and prints its size in bytes.
pub const FILL: &str = "fill-memory";

/// Runs the subprocess for the store `name`. Returns the bytes of memory per entry.
pub fn bytes_per_entry(name: &str, entries: usize, value_bytes: usize) -> Result<f64> {
    let output = Command::new(env::current_exe()?)
        .args([FILL, name, &entries.to_string(), &value_bytes.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    let bytes: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
    Ok(bytes / entries as f64)
}

/// The resident memory of this process in bytes. Works on Linux only.
pub fn resident() -> Result<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB"));
    Ok(kibibytes.ok_or("/proc/self/status has no VmRSS")?.trim().parse::<usize>()? * 1024)
}
