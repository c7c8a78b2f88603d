//! One comparison: some work, at some size, by some callers, by everyone who can do it.

use serde::Serialize;
use tokio::runtime::Runtime;

use crate::Result;
use crate::contestant::Entrants;
use crate::harness::{Case, Latencies, Samples, Settings, interleave};
use crate::workload::Workload;

/// Where the work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Point {
    pub entries: usize,
    pub value_bytes: usize,
    pub callers: u64,
}

/// What everyone needed for the same work.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    pub backend: &'static str,
    pub work: String,
    /// For the reader.
    pub about: String,
    pub point: Point,
    pub results: Vec<Measured>,
}

/// What one needed.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    pub name: String,
    /// Nanoseconds for each operation of all callers together.
    pub time: Samples,
    pub latencies: Option<Latencies>,
}

impl Comparison {
    pub fn of(&self, name: &str) -> Option<&Measured> {
        self.results.iter().find(|measured| measured.name == name)
    }

    /// How many times as fast `ours` was as `other`, round by round.
    pub fn times(&self, ours: &str, other: &str) -> Option<Samples> {
        Some(self.of(other)?.time.ratio(&self.of(ours)?.time))
    }
}

/// Measures with the same settings what is asked for.
pub struct Bench<'a> {
    pub runtime: &'a Runtime,
    pub settings: Settings,
    pub backend: &'static str,
}

impl Bench<'_> {
    /// Everyone who can do this work.
    pub fn compare(
        &self,
        workload: Workload,
        point: Point,
        with_latencies: bool,
        entrants: &Entrants,
    ) -> Result<Comparison> {
        let able: Vec<_> = entrants.iter().filter(|entrant| entrant.is_able(&workload)).collect();
        let cases = able.iter().map(|entrant| {
            let case = entrant.case(self.runtime, workload, point.callers);
            (entrant.name().to_owned(), case)
        });
        let (work, about) = (workload.name.to_owned(), workload.about.to_owned());
        self.measure(work, about, point, with_latencies, cases.collect())
    }

    /// Any cases, under their names.
    pub fn measure(
        &self,
        work: String,
        about: String,
        point: Point,
        with_latencies: bool,
        cases: Vec<(String, Case<'_>)>,
    ) -> Result<Comparison> {
        let (names, mut cases): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
        // A turn of many callers takes no longer than a turn of one; but thrice the usual, because
        // a scheduler has moods that last longer than that.
        let callers = u32::try_from(point.callers)?;
        let settings = match callers {
            1 => self.settings,
            _ => Settings { turn: 3 * self.settings.turn / callers, ..self.settings },
        };
        let outcomes = interleave(&settings, with_latencies, &mut cases)
            .map_err(|error| format!("{}: {work}: {error}", self.backend))?;
        let results = names.into_iter().zip(outcomes).map(|(name, outcome)| Measured {
            name,
            time: outcome.time,
            latencies: outcome.latencies,
        });
        let results = results.collect();
        Ok(Comparison { backend: self.backend, work, about, point, results })
    }
}
