//! Whether something grows without bound.
//!
//! The third and the last quarter of a run are compared. The first half is for warming up: caches
//! fill, tables get their free space, pools their connections. Something grows if its median and its
//! mean do, and its upper decile over that of the middle half: a median does not see single peaks,
//! the mean of a saw-tooth with some teeth in each quarter is the same wherever the quarter begins,
//! and an upper decile does not see how many dips the samples met, nor what was given back for a
//! while and taken again, as PostgreSQL does with the ends of its tables.

use serde::Serialize;

/// Fewer samples than this are no run that could be judged: a quarter would have less than three.
const FEWEST_SAMPLES: usize = 12;

/// How much larger the later median may be: a share of the earlier one, and so much besides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Allowance {
    /// Of the earlier median. What grows with time has grown by a fifth from the third quarter to
    /// the last if all of it came since the beginning: half of that is the limit.
    pub share: f64,
    /// For what is small and goes in steps.
    pub slack: f64,
}

impl Allowance {
    const SHARE: f64 = 0.1;
    const MIB: f64 = 1024.0 * 1024.0;

    const fn with_slack(slack: f64) -> Self {
        Self { share: Self::SHARE, slack }
    }

    /// Resident memory: an allocator keeps and gives back whole arenas.
    pub const MEMORY: Self = Self::with_slack(8.0 * Self::MIB);
    /// A file, tables, or a server's memory: they are extended by some MiB at once, and values of
    /// 64 KiB come and go.
    pub const STORED: Self = Self::with_slack(4.0 * Self::MIB);
    /// Connections: one that was cut off is replaced before it is gone, and each caller may do so.
    pub const CONNECTIONS: Self = Self::with_slack(4.0);
    /// Threads for blocking work come and go with how many callers need one at once.
    pub const THREADS: Self = Self::with_slack(4.0);
    /// Open files and sockets: as connections, of all backends.
    pub const DESCRIPTORS: Self = Self::with_slack(8.0);
    /// Tasks: as connections; calls that were cut off may leave one that winds up.
    pub const TASKS: Self = Self::with_slack(16.0);
    /// Expired entries that wait for a sweep: how many there are depends on the instant between
    /// two sweeps; all mortal entries at once is the most that can be.
    pub const EXPIRED: Self = Self::with_slack(1_000.0);
}

/// A figure over time.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// What it is a figure of.
    pub what: String,
    /// One for each sample.
    pub values: Vec<f64>,
    /// How much it may grow.
    pub allowance: Allowance,
}

/// The medians of the two quarters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Growth {
    /// Of the third quarter.
    pub third: f64,
    /// Of the last quarter.
    pub last: f64,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "trend", rename_all = "snake_case")]
pub enum Trend {
    /// There are too few samples.
    NotJudged,
    /// It stays within what is allowed.
    Steady(Growth),
    /// It does not.
    Grows(Growth),
}

/// Judges one figure.
#[must_use]
pub fn judge(values: &[f64], allowance: Allowance) -> Trend {
    if values.len() < FEWEST_SAMPLES {
        return Trend::NotJudged;
    }
    let quarter = values.len() / 4;
    let (rest, last) = values.split_at(values.len() - quarter);
    let (before, third) = rest.split_at(rest.len() - quarter);
    let (_, middle) = rest.split_at(before.len().saturating_sub(quarter));
    let growth = Growth { third: median(third), last: median(last) };
    let too_much = |before, after| after > before * (1.0 + allowance.share) + allowance.slack;
    let has_grown = |of: fn(&[f64]) -> f64| too_much(of(third), of(last));
    if has_grown(median) && has_grown(mean) && too_much(upper(middle), upper(last)) {
        return Trend::Grows(growth);
    }
    Trend::Steady(growth)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// What a tenth of the values is not below: of teeth, how high they are, however many dips
/// between them were met.
fn upper(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    sorted.get(sorted.len() * 9 / 10).copied().unwrap_or(0.0)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        length if length % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Allowance = Allowance { share: 0.1, slack: 0.0 };
    const MIB: f64 = 1024.0 * 1024.0;

    fn series(length: u32, figure: impl Fn(f64) -> f64) -> Vec<f64> {
        (0..length).map(|index| figure(f64::from(index))).collect()
    }

    fn grows(values: &[f64], allowance: Allowance) -> bool {
        match judge(values, allowance) {
            Trend::NotJudged => panic!("{} samples were not judged", values.len()),
            Trend::Steady(_) => false,
            Trend::Grows(_) => true,
        }
    }

    #[test]
    fn what_grows_with_time_is_noticed() {
        for length in [12, 13, 60, 600] {
            assert!(grows(&series(length, |index| index), NONE), "{length}");
        }
        // From 100 to 200 MiB.
        let leak = series(60, |index| (100.0 + index * 100.0 / 60.0) * MIB);
        assert!(grows(&leak, Allowance::MEMORY));
        // A connection a sample.
        assert!(grows(&series(60, |index| 16.0 + index), Allowance::CONNECTIONS));
    }

    #[test]
    fn what_grows_within_its_teeth_is_noticed() {
        let file = series(120, |index| (20.0 + index + (index * 7.0) % 10.0) * MIB);
        assert!(grows(&file, Allowance::STORED));
    }

    #[test]
    fn what_is_flat_and_noisy_is_not() {
        let mut random = fastrand::Rng::with_seed(1);
        let noise: Vec<f64> = (0..60).map(|_| (100.0 + 20.0 * random.f64()) * MIB).collect();
        assert!(!grows(&noise, NONE));
        let spike = series(60, |index| if index == 55.0 { 900.0 } else { 100.0 });
        assert!(!grows(&spike, NONE));
        assert!(!grows(&series(12, |_| 0.0), NONE));
    }

    #[test]
    fn a_saw_tooth_is_not() {
        // Sixty samples; the file is compacted sixteen times in a run, or more often.
        for period in [2.0, 3.0, 60.0 / 16.0, 5.0] {
            let file = series(60, |index| (20.0 + 8.0 * (index % period)) * MIB);
            assert!(!grows(&file, Allowance::STORED), "{period}");
        }
    }

    /// A file that was compacted sixteen times, in MB, as it was measured.
    #[test]
    fn dips_that_the_samples_met_by_chance_are_no_growth() {
        let file = [
            51.6, 41.2, 41.2, 36.2, 36.2, 37.0, 37.0, 36.5, 36.5, 25.0, 25.0, 34.4, 34.4, 35.0,
            35.0, 25.8, 17.2, 34.5, 26.3, 26.3, 17.0, 34.0, 34.7, 34.7, 35.4, 35.4, 36.2, 36.2,
            35.8, 35.8,
        ];
        let bytes: Vec<f64> = file.iter().map(|size| size * 1e6).collect();
        assert!(!grows(&bytes, Allowance::STORED));
        let grown: Vec<f64> =
            (0_i32..).zip(&bytes).map(|(at, size)| size + f64::from(at) * 2e6).collect();
        assert!(grows(&grown, Allowance::STORED));
    }

    /// Tables under ten minutes of load, in MB, as they were measured: vacuum cut off what was empty
    /// at their ends, and later they needed it again.
    #[test]
    fn what_was_given_back_and_taken_again_is_no_growth() {
        let steps = [
            (33.2, 1),
            (40.3, 1),
            (48.1, 1),
            (50.2, 4),
            (63.1, 1),
            (70.8, 1),
            (73.0, 12),
            (65.9, 6),
            (66.1, 16),
            (68.0, 1),
            (77.2, 1),
            (81.5, 15),
        ];
        let tables: Vec<f64> =
            steps.iter().flat_map(|(size, samples)| vec![size * 1e6; *samples]).collect();
        assert_eq!(tables.len(), 60);
        assert!(!grows(&tables, Allowance::STORED));
        let grown: Vec<f64> =
            (0_i32..).zip(&tables).map(|(at, size)| size + f64::from(at) * 1e6).collect();
        assert!(grows(&grown, Allowance::STORED));
    }

    #[test]
    fn what_grew_while_it_warmed_up_is_not() {
        let cache = series(60, |index| (100.0 * (index / 30.0).min(1.0)) * MIB);
        assert!(!grows(&cache, NONE));
    }

    #[test]
    fn a_short_run_is_not_judged() {
        assert_eq!(judge(&series(11, |index| index), NONE), Trend::NotJudged);
        assert_ne!(judge(&series(12, |index| index), NONE), Trend::NotJudged);
    }
}
