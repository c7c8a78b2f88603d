//! Sweeps that find something.

use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::Result;
use crate::contestant::{Contestant, Entered};
use crate::harness::{Case, Settings};
use crate::measure::{Bench, Comparison, Point};

/// How long what was put to expire at once is left alone.
const UNTIL_EXPIRED: Duration = Duration::from_millis(20);

/// A sweep after so many entries were put and have expired, which is not measured.
pub fn case<'a, C: Contestant>(
    runtime: &'a Runtime,
    entered: &Entered<C>,
    expired: usize,
    prepare: impl Fn(&C, usize) -> Result<()> + 'a,
) -> (String, Case<'a>) {
    let (name, store) = (entered.name, entered.store.clone());
    let case = Case::new(move |count, _| {
        let mut took = Duration::ZERO;
        for _ in 0..count {
            prepare(&store, expired)?;
            thread::sleep(UNTIL_EXPIRED);
            let start = Instant::now();
            let removed = runtime.block_on(store.sweep())?;
            took += start.elapsed();
            if removed.is_some_and(|removed| removed != expired) {
                return Err(format!("{name}: {removed:?} removed of {expired}").into());
            }
        }
        Ok(took)
    });
    (name.to_owned(), case)
}

/// A few sweeps of each.
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
