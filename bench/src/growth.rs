//! What a store that holds much needs for the same work, beside one that holds little.

use std::sync::Arc;

use crate::Result;
use crate::contestant::{Contestant, Entered, Entrants};
use crate::data::{Layout, Names, Values};
use crate::goals::{Goal, Wanted};
use crate::measure::{Bench, Point};
use crate::report::Report;
use crate::workload::Workload;

/// How many entries the store has that holds little.
pub const LITTLE: usize = 10_000;
const SMALL: &str = "among 10,000";
const LARGE: &str = "among 1,000,000";
/// What is not to become slower than so many times.
const AT_MOST: f64 = 1.5;
const WORK: [Workload; 4] = [Workload::LIST, Workload::LIST_GROUP, Workload::PAGE, Workload::SWEEP];

/// Names for the store that holds little.
pub fn names(layout: Layout) -> Result<Arc<Names>> {
    Ok(Arc::new(Names::of(LITTLE, layout)?))
}

/// Compares the two, anywhere in what each holds.
pub fn compare<C: Contestant>(
    bench: &Bench<'_>,
    (small, small_names): (Arc<C>, &Arc<Names>),
    (large, large_names): (Arc<C>, &Arc<Names>),
    values: &Arc<Values>,
    report: &mut Report,
) -> Result<()> {
    let entrants: Entrants = vec![
        Box::new(Entered::<C>::new(SMALL, small, small_names, values)),
        Box::new(Entered::<C>::new(LARGE, large, large_names, values)),
    ];
    let point = Point { entries: large_names.entries(), value_bytes: values.bytes(), callers: 1 };
    for workload in WORK {
        let comparison = bench.compare(workload, point, false, &entrants)?;
        let grown = comparison.times(SMALL, LARGE);
        report.goal(Goal::new(
            format!("{} {}, {} entries", bench.backend, workload.name, point.entries),
            "itself at 10,000",
            Wanted::AtMostTimes(AT_MOST),
            grown,
        ));
        report.compared(comparison);
    }
    Ok(())
}
