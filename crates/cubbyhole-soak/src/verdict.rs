//! Decides whether a measured value grows without bound.
//!
//! The last quarter of a run is compared with the third. The first half is the warm-up: caches
//! fill, tables get their free space, pools open their connections. A value grows if all of these
//! grow:
//!
//! - the median, which ignores single peaks,
//! - the mean, which for a sawtooth with several teeth per quarter does not depend on the phase,
//! - the upper decile, compared with that of the middle half. It ignores dips, and space that is
//!   released for a while and used again, as at the ends of PostgreSQL tables.

use serde::Serialize;

/// The smallest number of samples that is judged. With fewer, a quarter has less than three.
const MIN_SAMPLES: usize = 12;

/// The allowed growth from the third to the last quarter: a share of the earlier value, and a
/// constant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Allowance {
    /// The allowed share. Between the medians of the two quarters, a value that grows linearly from
    /// zero grows by 40 %, and one that doubles during the run by 15 %.
    pub share: f64,
    /// The allowed constant, for small values that change in steps.
    pub slack: f64,
}

impl Allowance {
    const SHARE: f64 = 0.1;
    const MIB: f64 = 1024.0 * 1024.0;

    const fn with_slack(slack: f64) -> Self {
        Self { share: Self::SHARE, slack }
    }

    /// Resident memory. Allocators keep and release whole arenas.
    pub const MEMORY: Self = Self::with_slack(8.0 * Self::MIB);
    /// A file, tables, or a server's memory. They grow in steps of several MiB, and values of 64
    /// KiB are added and removed.
    pub const STORED: Self = Self::with_slack(4.0 * Self::MIB);
    /// Connections. Each caller can replace an interrupted connection before the old one is closed.
    pub const CONNECTIONS: Self = Self::with_slack(4.0);
    /// Threads. The number of threads for blocking work follows the number of concurrent callers.
    pub const THREADS: Self = Self::with_slack(4.0);
    /// Open files and sockets. They vary like the connections of all backends.
    pub const DESCRIPTORS: Self = Self::with_slack(8.0);
    /// Tasks. They vary like connections, and an interrupted call can leave a task that finishes
    /// later.
    pub const TASKS: Self = Self::with_slack(16.0);
    /// Expired entries that were not swept. Their number depends on the time since the last sweep
    /// and is at most the number of short-lived entries.
    pub const EXPIRED: Self = Self::with_slack(1_000.0);
}

/// A measured value over time.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// The name of the value.
    pub what: String,
    /// One value per sample.
    pub values: Vec<f64>,
    /// The allowed growth.
    pub allowance: Allowance,
}

/// The medians of the two quarters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Growth {
    /// The median of the third quarter.
    pub third: f64,
    /// The median of the last quarter.
    pub last: f64,
}

/// The judgement of a series.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "trend", rename_all = "snake_case")]
pub enum Trend {
    /// There are too few samples to judge.
    NotJudged,
    /// The growth is within the allowance.
    Steady(Growth),
    /// The growth exceeds the allowance.
    Grows(Growth),
}

/// Judges one series.
#[must_use]
pub fn judge(values: &[f64], allowance: Allowance) -> Trend {
    if values.len() < MIN_SAMPLES {
        return Trend::NotJudged;
    }
    let quarter = values.len() / 4;
    let (rest, last) = values.split_at(values.len() - quarter);
    let (before, third) = rest.split_at(rest.len() - quarter);
    let (_, middle) = rest.split_at(before.len().saturating_sub(quarter));
    let growth = Growth { third: median(third), last: median(last) };
    let exceeds = |before, after| after > before * (1.0 + allowance.share) + allowance.slack;
    let grows = |statistic: fn(&[f64]) -> f64| exceeds(statistic(third), statistic(last));
    if grows(median) && grows(mean) && exceeds(upper_decile(middle), upper_decile(last)) {
        return Trend::Grows(growth);
    }
    Trend::Steady(growth)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The 90th percentile. For a sawtooth, it is the height of the teeth, regardless of the dips.
fn upper_decile(values: &[f64]) -> f64 {
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
    fn linear_growth_is_detected() {
        for length in [12, 13, 60, 600] {
            assert!(grows(&series(length, |index| index), NONE), "{length}");
        }
        // From 100 to 200 MiB.
        let leak = series(60, |index| (100.0 + index * 100.0 / 60.0) * MIB);
        assert!(grows(&leak, Allowance::MEMORY));
        // One more connection per sample.
        assert!(grows(&series(60, |index| 16.0 + index), Allowance::CONNECTIONS));
    }

    #[test]
    fn growth_of_a_sawtooth_is_detected() {
        let file = series(120, |index| (20.0 + index + (index * 7.0) % 10.0) * MIB);
        assert!(grows(&file, Allowance::STORED));
    }

    #[test]
    fn noise_and_peaks_are_not_growth() {
        let mut random = fastrand::Rng::with_seed(1);
        let noise: Vec<f64> = (0..60).map(|_| (100.0 + 20.0 * random.f64()) * MIB).collect();
        assert!(!grows(&noise, NONE));
        let spike = series(60, |index| if index == 55.0 { 900.0 } else { 100.0 });
        assert!(!grows(&spike, NONE));
        assert!(!grows(&series(12, |_| 0.0), NONE));
    }

    #[test]
    fn sawtooth_is_not_growth() {
        // 60 samples of a file that is compacted at least 16 times in the run.
        for period in [2.0, 3.0, 60.0 / 16.0, 5.0] {
            let file = series(60, |index| (20.0 + 8.0 * (index % period)) * MIB);
            assert!(!grows(&file, Allowance::STORED), "{period}");
        }
    }

    /// A measured file size in MB, with 16 compactions.
    #[test]
    fn dips_in_samples_are_not_growth() {
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

    /// Measured table sizes in MB, in a run of 10 minutes. Vacuum truncated empty pages at the ends
    /// of the tables, and the tables grew again later.
    #[test]
    fn reused_space_is_not_growth() {
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
    fn growth_during_warm_up_is_ignored() {
        let cache = series(60, |index| (100.0 * (index / 30.0).min(1.0)) * MIB);
        assert!(!grows(&cache, NONE));
    }

    #[test]
    fn short_run_is_not_judged() {
        assert_eq!(judge(&series(11, |index| index), NONE), Trend::NotJudged);
        assert_ne!(judge(&series(12, |index| index), NONE), Trend::NotJudged);
    }
}
