//! Sweeps that remove entries.

use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::Result;
use crate::candidate::{Candidate, NamedCandidate};
use crate::harness::{Case, Settings};
use crate::measure::{Bench, Comparison, Point};

/// The pause after which the short-lived entries have certainly expired.
const UNTIL_EXPIRED: Duration = Duration::from_millis(20);

/// A case that sweeps `expired` entries. Putting them and waiting for their expiry is not measured.
pub fn case<'a, C: Candidate>(
    runtime: &'a Runtime,
    candidate: &NamedCandidate<C>,
    expired: usize,
    prepare: impl Fn(&C, usize) -> Result<()> + 'a,
) -> (String, Case<'a>) {
    let (name, store) = (candidate.name, candidate.store.clone());
    let case = Case::new(move |count, _| {
        let mut took = Duration::ZERO;
        for _ in 0..count {
            prepare(&store, expired)?;
            thread::sleep(UNTIL_EXPIRED);
            let start = Instant::now();
            let removed = runtime.block_on(store.sweep())?;
            took += start.elapsed();
            if removed.is_some_and(|removed| removed != expired) {
                return Err(format!("{name}: removed {removed:?} of {expired} entries").into());
            }
        }
        Ok(took)
    });
    (name.to_owned(), case)
}

/// Measures one sweep per case in each round.
pub fn compare(
    bench: &Bench<'_>,
    point: Point,
    expired: usize,
    cases: Vec<(String, Case<'_>)>,
) -> Result<Comparison> {
    let settings = Settings { turn: Duration::ZERO, warm_up: Duration::ZERO, ..bench.settings };
    let bench = Bench { settings, ..*bench };
    let about = format!("a sweep that removes {expired} of {} entries", point.entries);
    bench.measure("evict_expired, 1 %".to_owned(), about, point, false, cases)
}
