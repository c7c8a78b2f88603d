//! An upper bound of the backend's time, without this machine's wall clock.

use std::time::Duration;

use cubbyhole_core::{Bytes, Clock, EntryStore, ErrorKind, ExecutionContext, Namespace, Timestamp};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

/// How long a sample is used. It limits how far the two clocks can drift apart.
const SAMPLE_LIFETIME: Duration = Duration::from_secs(60);

/// The backend reports whole milliseconds: its time may be almost this much later than it says.
const RESOLUTION: Duration = Duration::from_millis(1);

/// The number of namespaces whose samples are kept, about a megabyte.
const MAX_SAMPLES: u64 = 4096;

/// The last samples of the backend's time. There is one for each namespace, because the namespaces of
/// a Redis Cluster are on servers with different clocks.
pub(super) struct BackendTimes {
    samples: Cache<Namespace, Sample>,
}

#[derive(Clone, Copy)]
struct Sample {
    /// The monotonic time before the request was sent.
    asked_at: Duration,
    /// `None` if the store does not report its time.
    answer: Option<Timestamp>,
}

impl BackendTimes {
    pub(super) fn new() -> Self {
        let samples = Cache::builder().max_capacity(MAX_SAMPLES);
        Self { samples: samples.eviction_policy(EvictionPolicy::lru()).build() }
    }

    /// Returns the monotonic time before which the entry has certainly not expired, or `None` if the
    /// backend's time is unknown.
    pub(super) async fn expires_after(
        &self,
        inner: &impl EntryStore<Bytes>,
        ctx: &ExecutionContext,
        ns: &Namespace,
        clock: &dyn Clock,
        expires_at: Timestamp,
    ) -> Option<Duration> {
        let now = clock.elapsed();
        let known = self.samples.get(ns);
        let known = known.filter(|sample| now.saturating_sub(sample.asked_at) < SAMPLE_LIFETIME);
        let sample = match known {
            Some(sample) => sample,
            None => {
                let answer = match inner.current_time(ctx, ns).await {
                    Ok(time) => Some(time),
                    Err(error) if error.kind() == ErrorKind::Unsupported => None,
                    Err(_) => return None,
                };
                let sample = Sample { asked_at: now, answer };
                self.samples.insert(ns.clone(), sample);
                sample
            }
        };
        sample.expires_after(expires_at)
    }
}

impl Sample {
    /// The backend read its clock after `asked_at`. At the monotonic time `t`, its time is therefore at
    /// most `answer + (t - asked_at)`. A thousandth is subtracted for clocks of different rates.
    fn expires_after(self, expires_at: Timestamp) -> Option<Duration> {
        let remaining = expires_at.saturating_since(self.answer?).saturating_sub(RESOLUTION);
        Some(self.asked_at.saturating_add(remaining - remaining / 1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_counts_from_the_request_and_subtracts_the_margins() {
        let at = |millis| Timestamp::from_millis(millis).unwrap();
        let millis = Duration::from_millis;
        let sample = Sample { asked_at: millis(500), answer: Some(at(10_000)) };
        assert_eq!(sample.expires_after(at(12_001)), Some(millis(500 + 2_000 - 2)));
        assert_eq!(sample.expires_after(at(10_001)), Some(millis(500)));
        assert_eq!(sample.expires_after(at(9_000)), Some(millis(500)));
        let unknown = Sample { answer: None, ..sample };
        assert_eq!(unknown.expires_after(at(12_001)), None);
    }
}
