//! Latencies in a fixed number of buckets.

use std::time::Duration;

/// The number of buckets per octave. The error of a percentile is at most 1/16.
const STEPS: usize = 16;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// The number of octaves of microseconds. The last bucket counts durations above 19 hours.
const OCTAVES: usize = 32;

/// Durations of calls. The memory use does not depend on the number of calls.
#[derive(Debug, Clone)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    longest: Duration,
}

impl Histogram {
    /// Creates an empty histogram.
    #[must_use]
    pub fn new() -> Self {
        Self { buckets: vec![0; STEPS * (OCTAVES + 1)], count: 0, longest: Duration::ZERO }
    }

    /// Adds a duration.
    pub fn record(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let last = self.buckets.len() - 1;
        self.buckets[bucket(micros).min(last)] += 1;
        self.count += 1;
        self.longest = self.longest.max(duration);
    }

    /// The number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest duration.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// The duration that `fraction` of the calls did not exceed: the upper edge of its bucket.
    #[must_use]
    pub fn percentile(&self, fraction: f64) -> Duration {
        let rank = (fraction * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= rank {
                return Duration::from_micros(upper_edge(index)).min(self.longest);
            }
        }
        self.longest
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// Durations below [`STEPS`] have one bucket each. Each octave above has [`STEPS`] buckets.
fn bucket(micros: u64) -> usize {
    if micros < STEPS as u64 {
        return micros as usize;
    }
    let octave = micros.ilog2() - STEP_BITS;
    let step = (micros >> octave) as usize - STEPS;
    STEPS * (octave as usize + 1) + step
}

fn upper_edge(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let octave = bucket / STEPS - 1;
    let step = bucket % STEPS;
    (((STEPS + step + 1) as u64) << octave) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_accurate_within_one_bucket() {
        let mut histogram = Histogram::new();
        for micros in 1..=10_000 {
            histogram.record(Duration::from_micros(micros));
        }
        for (fraction, exact) in [(0.5, 5_000.0), (0.99, 9_900.0), (0.001, 10.0)] {
            let actual = histogram.percentile(fraction).as_micros() as f64;
            assert!(
                actual >= exact && actual <= exact * (1.0 + 1.0 / 16.0),
                "{fraction}: {actual}"
            );
        }
        assert_eq!(histogram.percentile(1.0), Duration::from_micros(10_000));
        assert_eq!(histogram.count(), 10_000);
    }

    #[test]
    fn buckets_have_no_gaps() {
        for bucket_number in 0..STEPS * OCTAVES {
            let edge = upper_edge(bucket_number);
            assert_eq!(bucket(edge), bucket_number);
            assert_eq!(bucket(edge + 1), bucket_number + 1);
        }
        let mut histogram = Histogram::new();
        histogram.record(Duration::MAX);
        assert_eq!(histogram.longest(), Duration::MAX);
        assert_eq!(Histogram::new().percentile(0.5), Duration::ZERO);
    }
}
