//! Comparisons: one workload at one size, on all candidates that support it.

use serde::Serialize;
use tokio::runtime::Runtime;

use crate::Result;
use crate::candidate::Candidates;
use crate::harness::{Case, Latencies, Samples, Settings, interleave};
use crate::workload::Workload;

/// Store size and number of callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Point {
    pub entries: usize,
    pub value_bytes: usize,
    pub callers: u64,
}

/// The results of all candidates for the same work.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    pub backend: &'static str,
    pub work: String,
    /// A description for the reader.
    pub about: String,
    pub point: Point,
    pub results: Vec<Measurement>,
}

/// The result of one candidate.
#[derive(Debug, Clone, Serialize)]
pub struct Measurement {
    pub name: String,
    /// Nanoseconds per operation, all callers together.
    pub time: Samples,
    pub latencies: Option<Latencies>,
}

impl Comparison {
    pub fn result(&self, name: &str) -> Option<&Measurement> {
        self.results.iter().find(|measured| measured.name == name)
    }

    /// The speed of `ours` relative to `other`, within each round.
    pub fn times(&self, ours: &str, other: &str) -> Option<Samples> {
        Some(self.result(other)?.time.ratio(&self.result(ours)?.time))
    }

    /// The nanoseconds by which `ours` is slower than `other`, within each round.
    pub fn added(&self, ours: &str, other: &str) -> Option<Samples> {
        Some(self.result(ours)?.time.minus(&self.result(other)?.time))
    }
}

/// Runs comparisons on one backend with the same settings.
pub struct Bench<'a> {
    pub runtime: &'a Runtime,
    pub settings: Settings,
    pub backend: &'static str,
}

impl Bench<'_> {
    /// Compares all candidates that support the workload.
    pub fn compare(
        &self,
        workload: Workload,
        point: Point,
        with_latencies: bool,
        candidates: &Candidates,
    ) -> Result<Comparison> {
        let supporting: Vec<_> =
            candidates.iter().filter(|candidate| candidate.supports(&workload)).collect();
        let cases = supporting.iter().map(|candidate| {
            let case = candidate.case(self.runtime, workload, point.callers);
            (candidate.name().to_owned(), case)
        });
        let (work, about) = (workload.name.to_owned(), workload.about.to_owned());
        self.measure(work, about, point, with_latencies, cases.collect())
    }

    /// Compares arbitrary cases, given with their names.
    pub fn measure(
        &self,
        work: String,
        about: String,
        point: Point,
        with_latencies: bool,
        cases: Vec<(String, Case<'_>)>,
    ) -> Result<Comparison> {
        let (names, mut cases): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
        // A case divides its time by the number of callers. This makes a turn of several callers
        // three times as long as usual, because effects of the scheduler last longer than a usual
        // turn.
        let callers = u32::try_from(point.callers)?;
        let settings = match callers {
            1 => self.settings,
            _ => Settings { turn: 3 * self.settings.turn / callers, ..self.settings },
        };
        let outcomes = interleave(&settings, with_latencies, &mut cases)
            .map_err(|error| format!("{}: {work}: {error}", self.backend))?;
        let results = names.into_iter().zip(outcomes).map(|(name, outcome)| Measurement {
            name,
            time: outcome.time,
            latencies: outcome.latencies,
        });
        let results = results.collect();
        Ok(Comparison { backend: self.backend, work, about, point, results })
    }
}
