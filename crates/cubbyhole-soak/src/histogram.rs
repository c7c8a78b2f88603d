//! Latencies in a fixed number of buckets.

use std::time::Duration;

/// Buckets to an octave: a percentile is told within 1/16 of itself.
const STEPS: usize = 16;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Octaves of microseconds that have steps; the last bucket takes what is longer than 19 hours.
const OCTAVES: usize = 32;

/// How many calls took how long. Its memory does not depend on how many there were.
#[derive(Debug, Clone)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    longest: Duration,
}

impl Histogram {
    /// Without any.
    #[must_use]
    pub fn new() -> Self {
        Self { buckets: vec![0; STEPS * (OCTAVES + 1)], count: 0, longest: Duration::ZERO }
    }

    /// Counts one.
    pub fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let last = self.buckets.len() - 1;
        self.buckets[bucket(micros).min(last)] += 1;
        self.count += 1;
        self.longest = self.longest.max(took);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// What `fraction` of them did not take longer than: the upper edge of its bucket.
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

/// The first two octaves and a half are exact; each above has [`STEPS`] buckets.
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
    fn percentiles_are_right_within_a_bucket() {
        let mut histogram = Histogram::new();
        for micros in 1..=10_000 {
            histogram.record(Duration::from_micros(micros));
        }
        for (fraction, exact) in [(0.5, 5_000.0), (0.99, 9_900.0), (0.001, 10.0)] {
            let told = histogram.percentile(fraction).as_micros() as f64;
            assert!(told >= exact && told <= exact * (1.0 + 1.0 / 16.0), "{fraction}: {told}");
        }
        assert_eq!(histogram.percentile(1.0), Duration::from_micros(10_000));
        assert_eq!(histogram.count(), 10_000);
    }

    #[test]
    fn buckets_leave_no_gap_and_hold_their_edges() {
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
