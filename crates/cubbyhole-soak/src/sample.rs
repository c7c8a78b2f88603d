//! Samples of the process and the backends, with their text form.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::{BackendName, Histogram};

/// The values measured at one time.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// The time since the start of the load.
    pub elapsed_seconds: f64,
    /// This process, which contains all callers.
    pub process: ProcessSample,
    /// The backends.
    pub backends: Vec<BackendSample>,
}

/// Resource use of this process. Values that the platform does not report are absent.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[expect(missing_docs, reason = "the names are self-explanatory")]
pub struct ProcessSample {
    pub memory_bytes: Option<u64>,
    pub threads: Option<u64>,
    pub descriptors: Option<u64>,
    pub tasks: u64,
}

/// One backend. Latencies are those of the last interval; errors are those of the whole run.
#[derive(Debug, Clone, Serialize)]
pub struct BackendSample {
    /// The backend.
    pub backend: BackendName,
    /// The rate of calls in the last interval.
    pub calls_per_second: f64,
    /// The median latency.
    pub p50_micros: u64,
    /// The 99th percentile of the latency.
    pub p99_micros: u64,
    /// The longest latency.
    pub max_micros: u64,
    /// Expected conflicts.
    pub conflicts: u64,
    /// Calls that were interrupted on purpose.
    pub cut_off: u64,
    /// Unexpected errors.
    pub unexpected: u64,
    /// Wrong replies.
    pub wrong: u64,
    /// The number of live entries.
    pub entries: Option<u64>,
    /// The bytes of their keys and values.
    pub bytes: Option<u64>,
    /// The number of expired entries that were not swept.
    pub expired: Option<u64>,
    /// The bytes of the file, of the tables with their indexes, or of the servers' memory.
    pub stored_bytes: Option<u64>,
    /// The number of connections, as the server counts them.
    pub connections: Option<u64>,
}

impl BackendSample {
    /// Sets the rate and the latencies.
    pub(crate) fn with_latencies(mut self, calls: &Histogram, interval: Duration) -> Self {
        let micros = |latency: Duration| latency.as_micros() as u64;
        self.calls_per_second = calls.count() as f64 / interval.as_secs_f64().max(f64::EPSILON);
        self.p50_micros = micros(calls.percentile(0.5));
        self.p99_micros = micros(calls.percentile(0.99));
        self.max_micros = micros(calls.longest());
        self
    }
}

/// The heading of the text form of a [`Sample`].
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
