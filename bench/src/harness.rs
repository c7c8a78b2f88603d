//! Measures cases against each other in alternating turns, so a temporary slowdown of the machine
//! affects all of them.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

use crate::Result;

/// The number and length of the measurements.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Settings {
    /// The number of rounds; odd, so the median is the value of one round.
    pub rounds: usize,
    /// The approximate length of a turn.
    #[serde(serialize_with = "seconds")]
    pub turn: Duration,
    /// The time that each case runs before the first round.
    #[serde(serialize_with = "seconds")]
    pub warm_up: Duration,
}

fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

/// A measured operation.
pub struct Case<'a> {
    /// Performs the given number of operations and returns their total time. With a histogram, it
    /// also times each operation and records it in nanoseconds.
    run: Run<'a>,
}

type Run<'a> = Box<dyn FnMut(u64, Option<&mut Histogram<u64>>) -> Result<Duration> + 'a>;

impl<'a> Case<'a> {
    pub fn new(run: impl FnMut(u64, Option<&mut Histogram<u64>>) -> Result<Duration> + 'a) -> Self {
        Self { run: Box::new(run) }
    }

    /// Runs turns of increasing length until the warm-up time is over. Returns the number of
    /// operations in a turn.
    fn warm_up(&mut self, settings: &Settings) -> Result<u64> {
        let start = Instant::now();
        let mut operations = 1;
        loop {
            let took = (self.run)(operations, None)?.max(Duration::from_nanos(1));
            let fitting = operations as f64 * settings.turn.as_secs_f64() / took.as_secs_f64();
            if start.elapsed() >= settings.warm_up && took * 2 >= settings.turn {
                return Ok((fitting as u64).max(1));
            }
            // At most tenfold, because the first turns are slower than later ones.
            operations = (fitting as u64).clamp(1, operations * 10);
        }
    }
}

/// One value for each round, with median and quartiles.
#[derive(Debug, Clone, Serialize)]
pub struct Samples {
    /// In the order of the rounds.
    rounds: Vec<f64>,
    pub median: f64,
    pub lower_quartile: f64,
    pub upper_quartile: f64,
}

impl Samples {
    pub fn new(rounds: Vec<f64>) -> Self {
        let mut sorted = rounds.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| {
            let last = sorted.len().saturating_sub(1) as f64;
            sorted.get((last * share).round() as usize).copied().unwrap_or(f64::NAN)
        };
        Self { median: at(0.5), lower_quartile: at(0.25), upper_quartile: at(0.75), rounds }
    }

    /// The ratio to `base` within each round. A slowdown of a whole round cancels out.
    pub fn ratio(&self, base: &Self) -> Self {
        let pairs = self.rounds.iter().zip(&base.rounds);
        Self::new(pairs.map(|(own, base)| own / base).collect())
    }

    /// The difference to `base` within each round.
    pub fn minus(&self, base: &Self) -> Self {
        let pairs = self.rounds.iter().zip(&base.rounds);
        Self::new(pairs.map(|(own, base)| own - base).collect())
    }

    /// Converts to another unit.
    pub fn map(&self, unit: impl Fn(f64) -> f64) -> Self {
        Self::new(self.rounds.iter().map(|round| unit(*round)).collect())
    }

    /// Half the interquartile range, relative to the median.
    pub fn spread(&self) -> f64 {
        (self.upper_quartile - self.lower_quartile) / 2.0 / self.median
    }
}

/// Percentiles of the time of single operations, in nanoseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latencies {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
    /// The number of timed operations.
    pub operations: u64,
}

impl Latencies {
    fn from_histogram(histogram: &Histogram<u64>) -> Self {
        let at = |percent| histogram.value_at_quantile(percent);
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
            operations: histogram.len(),
        }
    }
}

/// The result of a case.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Nanoseconds per operation.
    pub time: Samples,
    pub latencies: Option<Latencies>,
}

/// Measures the cases in alternating turns. Latencies are measured in separate turns, because
/// reading the clock twice costs as much as a fast operation.
pub fn interleave(
    settings: &Settings,
    with_latencies: bool,
    cases: &mut [Case<'_>],
) -> Result<Vec<Outcome>> {
    let mut operations = Vec::with_capacity(cases.len());
    for case in cases.iter_mut() {
        operations.push(case.warm_up(settings)?);
    }
    let mut rounds = vec![vec![0.0; settings.rounds]; cases.len()];
    let mut histograms = vec![Histogram::<u64>::new(3)?; cases.len()];
    for round in 0..settings.rounds {
        for turn in 0..cases.len() {
            // Each round starts with another case, so no case always runs after the same one.
            let index = (round + turn) % cases.len();
            let took = (cases[index].run)(operations[index], None)?;
            rounds[index][round] = took.as_nanos() as f64 / operations[index] as f64;
        }
        for (index, case) in cases.iter_mut().enumerate().filter(|_| with_latencies) {
            (case.run)(operations[index], Some(&mut histograms[index]))?;
        }
    }
    let outcomes = rounds.into_iter().zip(&histograms).map(|(rounds, histogram)| Outcome {
        time: Samples::new(rounds),
        latencies: with_latencies.then(|| Latencies::from_histogram(histogram)),
    });
    Ok(outcomes.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_quartiles_and_ratios() {
        let samples = Samples::new(vec![5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!((samples.lower_quartile, samples.median, samples.upper_quartile), (2., 3., 4.));
        let double = Samples::new(vec![10.0, 2.0, 8.0, 4.0, 6.0]);
        assert_eq!(double.ratio(&samples).median, 2.0);
        assert_eq!(double.ratio(&samples).spread(), 0.0);
    }

    #[test]
    fn cases_are_measured_in_turns() {
        let settings = Settings {
            rounds: 3,
            turn: Duration::from_micros(100),
            warm_up: Duration::from_millis(1),
        };
        // These cases do no work and return a fixed time.
        let fixed = |nanos: u64| {
            Case::new(move |count, latencies| {
                if let Some(histogram) = latencies {
                    histogram.record(nanos)?;
                }
                Ok(Duration::from_nanos(nanos * count))
            })
        };
        let outcomes = interleave(&settings, true, &mut [fixed(10), fixed(25)]).unwrap();
        assert_eq!(outcomes[0].time.median, 10.0);
        assert_eq!(outcomes[1].time.ratio(&outcomes[0].time).median, 2.5);
        let latencies = outcomes[1].latencies.unwrap();
        assert_eq!((latencies.p999, latencies.operations), (25, 3));
    }
}
