//! What is measured at one instant, as text for people and as JSON for programs.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::{BackendName, Histogram};

/// One look at everything.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// Since the load began.
    pub elapsed_seconds: f64,
    /// Of this process, in which all stores and callers are.
    pub process: Process,
    /// Of each backend.
    pub backends: Vec<Row>,
}

/// This process. What the platform does not tell is absent.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Process {
    pub memory_bytes: Option<u64>,
    pub threads: Option<u64>,
    pub descriptors: Option<u64>,
    pub tasks: u64,
}

/// One backend. Latencies are of the calls since the sample before; errors are of the whole run.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Which.
    pub backend: BackendName,
    /// Since the sample before.
    pub calls_per_second: f64,
    /// The median latency.
    pub p50_micros: u64,
    /// What 99 of 100 calls did not take longer than.
    pub p99_micros: u64,
    /// The longest call.
    pub max_micros: u64,
    /// Conditions that did not hold.
    pub conflicts: u64,
    /// Calls that were meant to be cut off and were.
    pub cut_off: u64,
    /// Errors that should not be.
    pub unexpected: u64,
    /// Answers that should not be.
    pub wrong: u64,
    /// Live entries.
    pub entries: Option<u64>,
    /// Their keys and values.
    pub bytes: Option<u64>,
    /// Expired entries that were not swept yet.
    pub expired: Option<u64>,
    /// The file, the tables with their indexes, or the memory of the servers.
    pub stored_bytes: Option<u64>,
    /// As the server counts them.
    pub connections: Option<u64>,
}

impl Row {
    /// Puts the latencies in.
    pub(crate) fn with_latencies(mut self, calls: &Histogram, over: Duration) -> Self {
        let micros = |latency: Duration| latency.as_micros() as u64;
        self.calls_per_second = calls.count() as f64 / over.as_secs_f64().max(f64::EPSILON);
        self.p50_micros = micros(calls.percentile(0.5));
        self.p99_micros = micros(calls.percentile(0.99));
        self.max_micros = micros(calls.longest());
        self
    }
}

/// The heading of the lines that a [`Sample`] prints.
pub const HEADING: &str = "\
elapsed backend          calls/s  p50 ms  p99 ms  max ms conflict cut off unexp. wrong entries \
  data MB expired stored MB conn.";

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let elapsed = self.elapsed_seconds;
        for row in &self.backends {
            writeln!(
                f,
                "{elapsed:>6.0}s {:<14} {:>9.0} {:>7.2} {:>7.2} {:>7.1} {:>8} {:>7} {:>6} {:>5} \
                 {:>7} {:>9} {:>7} {:>9} {:>5}",
                row.backend,
                row.calls_per_second,
                millis(row.p50_micros),
                millis(row.p99_micros),
                millis(row.max_micros),
                row.conflicts,
                row.cut_off,
                row.unexpected,
                row.wrong,
                count(row.entries),
                megabytes(row.bytes),
                count(row.expired),
                megabytes(row.stored_bytes),
                count(row.connections),
            )?;
        }
        let process = self.process;
        write!(
            f,
            "{elapsed:>6.0}s process        memory {} MB, {} threads, {} descriptors, {} tasks",
            megabytes(process.memory_bytes),
            count(process.threads),
            count(process.descriptors),
            process.tasks,
        )
    }
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1e3
}

fn count(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

fn megabytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{:.1}", bytes as f64 / 1e6))
}
