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
const ENGINE_SMALL: &str = "the engine, among 10,000";
const ENGINE_LARGE: &str = "the engine, among 1,000,000";
/// What is not to become slower than so many times.
const AT_MOST: f64 = 1.5;
const WORK: [Workload; 4] = [Workload::LIST, Workload::LIST_GROUP, Workload::PAGE, Workload::SWEEP];

/// Names for the store that holds little.
pub fn names(layout: Layout) -> Result<Arc<Names>> {
    Ok(Arc::new(Names::of(LITTLE, layout)?))
}

/// The engine by itself, for [`compare`].
pub fn engine<C: Contestant>(
    (small, small_names): (C, &Arc<Names>),
    (large, large_names): (Arc<C>, &Arc<Names>),
    values: &Arc<Values>,
) -> Entrants {
    vec![
        Box::new(Entered::<C>::new(ENGINE_SMALL, small, small_names, values)),
        Box::new(Entered::<C>::new(ENGINE_LARGE, large, large_names, values)),
    ]
}

/// Compares the two, anywhere in what each holds, beside what the engine needs by itself.
pub fn compare<C: Contestant>(
    bench: &Bench<'_>,
    (small, small_names): (Arc<C>, &Arc<Names>),
    (large, large_names): (Arc<C>, &Arc<Names>),
    values: &Arc<Values>,
    engine: Entrants,
    report: &mut Report,
) -> Result<()> {
    let mut entrants: Entrants = vec![
        Box::new(Entered::<C>::new(SMALL, small, small_names, values)),
        Box::new(Entered::<C>::new(LARGE, large, large_names, values)),
    ];
    entrants.extend(engine);
    let point = Point { entries: large_names.entries(), value_bytes: values.bytes(), callers: 1 };
    for workload in WORK {
        let comparison = bench.compare(workload, point, false, &entrants)?;
        let grown = comparison.times(SMALL, LARGE);
        let work = format!("{} {}, {} entries", bench.backend, workload.name, point.entries);
        let goal = Goal::new(work, "itself at 10,000", Wanted::AtMostTimes(AT_MOST), grown);
        let engine = comparison.times(ENGINE_SMALL, ENGINE_LARGE);
        report.goal(goal.beside("the engine, itself", engine));
        report.compared(comparison);
    }
    Ok(())
}
