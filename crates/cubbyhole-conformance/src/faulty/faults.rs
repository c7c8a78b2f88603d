//! [`Faults`], which decides the fault of each call.

use std::time::Duration;

use cubbyhole_core::{ExecutionContext, Result, runtime};

/// The maximum number of yields of a delay.
const MAX_YIELDS: u32 = 16;

/// The faults of a [`Faulty`](super::Faulty) layer: a seed, and the probability of each fault.
///
/// Without further settings there is no fault. Probabilities are from 0 to 1; values outside count as
/// the nearest of the two. A call has at most one fault besides a delay. If the probabilities add up
/// to more than 1, the later ones in the order of the methods below are less frequent.
///
/// ```
/// use std::time::Duration;
/// use cubbyhole_conformance::Faults;
///
/// let faults = Faults::new(7)
///     .with_refused(0.1)
///     .with_unanswered(0.05)
///     .with_delayed(0.2, Duration::from_millis(1));
/// assert_eq!(faults.seed(), 7);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Faults {
    seed: u64,
    refused: f64,
    lost: f64,
    unanswered: f64,
    late: f64,
    max_late: Duration,
    delayed: f64,
    max_delay: Duration,
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Pass,
    Refused,
    Lost,
    Unanswered,
    Late(Delay),
}

/// A wait: yields, then sleeps if the runtime has timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delay {
    yields: u32,
    sleep: Duration,
}

impl Faults {
    /// Creates settings without faults. `seed` determines which calls get the faults.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            refused: 0.0,
            lost: 0.0,
            unanswered: 0.0,
            late: 0.0,
            max_late: Duration::ZERO,
            delayed: 0.0,
            max_delay: Duration::ZERO,
        }
    }

    /// Sets the probability that a call fails with a retryable `Unavailable`. The inner store does not
    /// see the call.
    #[must_use]
    pub const fn with_refused(mut self, probability: f64) -> Self {
        self.refused = probability;
        self
    }

    /// Sets the probability that a write fails with an unknown outcome and is never applied. A read
    /// is refused instead.
    #[must_use]
    pub const fn with_lost(mut self, probability: f64) -> Self {
        self.lost = probability;
        self
    }

    /// Sets the probability that a write is made and its answer is lost: it fails with an unknown
    /// outcome. A read is refused instead.
    #[must_use]
    pub const fn with_unanswered(mut self, probability: f64) -> Self {
        self.unanswered = probability;
        self
    }

    /// Sets the probability that a write fails with an unknown outcome and is made later, by a task:
    /// after a few yields, and after a random time below `max`. A read is refused instead.
    ///
    /// A late write detects a program that concludes too early that the write was not applied. Without a
    /// tokio runtime, the write is made before the call fails.
    #[must_use]
    pub const fn with_late(mut self, probability: f64, max: Duration) -> Self {
        self.late = probability;
        self.max_late = max;
        self
    }

    /// Sets the probability that a call waits before anything else: a few yields, and a random time
    /// below `max`. Without timers, the call only yields.
    #[must_use]
    pub const fn with_delayed(mut self, probability: f64, max: Duration) -> Self {
        self.delayed = probability;
        self.max_delay = max;
        self
    }

    /// Returns the seed.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn draw(&self, random: &mut fastrand::Rng) -> (Option<Delay>, Fate) {
        // Every call draws the same amount of numbers, so one fault does not shift all later ones.
        let (is_delayed, point) = (random.f64() < self.delayed, random.f64());
        let delay = Delay::draw(random, self.max_delay);
        let late = Delay::draw(random, self.max_late);
        let mut end = 0.0;
        let fates = [
            (self.refused, Fate::Refused),
            (self.lost, Fate::Lost),
            (self.unanswered, Fate::Unanswered),
            (self.late, Fate::Late(late)),
        ];
        let drawn = fates.into_iter().find(|(probability, _)| {
            end += probability.clamp(0.0, 1.0);
            point < end
        });
        (is_delayed.then_some(delay), drawn.map_or(Fate::Pass, |(_, fate)| fate))
    }
}

impl Delay {
    fn draw(random: &mut fastrand::Rng, max: Duration) -> Self {
        Self { yields: random.u32(1..=MAX_YIELDS), sleep: max.mul_f64(random.f64()) }
    }

    pub(super) async fn wait(self, ctx: &ExecutionContext) -> Result<()> {
        for _ in 0..self.yields {
            tokio::task::yield_now().await;
        }
        if self.sleep.is_zero() || runtime::require_timers().is_err() {
            return ctx.check();
        }
        ctx.sleep(self.sleep).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_draws_the_same_faults() {
        let faults = Faults::new(3)
            .with_refused(0.2)
            .with_lost(0.2)
            .with_unanswered(0.2)
            .with_late(0.2, Duration::from_millis(1))
            .with_delayed(0.5, Duration::from_millis(1));
        let draw = |seed| {
            let mut random = fastrand::Rng::with_seed(seed);
            (0..200).map(|_| faults.draw(&mut random)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        for wanted in [Fate::Pass, Fate::Refused, Fate::Lost, Fate::Unanswered] {
            let count = draw(1).iter().filter(|(_, fate)| *fate == wanted).count();
            assert!((15..=70).contains(&count), "{count} of 200 calls: {wanted:?}");
        }
    }

    #[test]
    fn without_settings_every_call_passes() {
        let mut random = fastrand::Rng::with_seed(1);
        assert!((0..200).all(|_| Faults::new(1).draw(&mut random) == (None, Fate::Pass)));
    }
}
