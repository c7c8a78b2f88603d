//! How the time of an operation grows with the size of the store.

use std::sync::Arc;

use crate::Result;
use crate::candidate::{Candidate, Candidates, NamedCandidate};
use crate::data::{Layout, Names, Values};
use crate::goals::{Goal, Target};
use crate::measure::{Bench, Point};
use crate::report::Report;
use crate::workload::Workload;

/// The number of entries in the small store.
const SMALL_ENTRIES: usize = 10_000;
const SMALL: &str = "among 10,000";
const LARGE: &str = "among 1,000,000";
const ENGINE_SMALL: &str = "the engine, among 10,000";
const ENGINE_LARGE: &str = "the engine, among 1,000,000";
/// The largest allowed ratio of the times in the large and the small store.
const AT_MOST: f64 = 1.5;
const WORK: [Workload; 4] = [Workload::LIST, Workload::LIST_GROUP, Workload::PAGE, Workload::SWEEP];

/// The names of the small store.
pub fn small_names(layout: Layout) -> Result<Arc<Names>> {
    Ok(Arc::new(Names::new(SMALL_ENTRIES, layout)?))
}

/// The bare engine in both sizes, for [`compare`].
pub fn engine<C: Candidate>(
    (small, small_names): (C, &Arc<Names>),
    (large, large_names): (Arc<C>, &Arc<Names>),
    values: &Arc<Values>,
) -> Candidates {
    vec![
        Box::new(NamedCandidate::<C>::new(ENGINE_SMALL, small, small_names, values)),
        Box::new(NamedCandidate::<C>::new(ENGINE_LARGE, large, large_names, values)),
    ]
}

/// Compares the small and the large store. `engine` has the bare engine in both sizes, or is empty.
pub fn compare<C: Candidate>(
    bench: &Bench<'_>,
    (small, small_names): (Arc<C>, &Arc<Names>),
    (large, large_names): (Arc<C>, &Arc<Names>),
    values: &Arc<Values>,
    engine: Candidates,
    report: &mut Report,
) -> Result<()> {
    let mut candidates: Candidates = vec![
        Box::new(NamedCandidate::<C>::new(SMALL, small, small_names, values)),
        Box::new(NamedCandidate::<C>::new(LARGE, large, large_names, values)),
    ];
    candidates.extend(engine);
    let point = Point { entries: large_names.entries(), value_bytes: values.bytes(), callers: 1 };
    for workload in WORK {
        let comparison = bench.compare(workload, point, false, &candidates)?;
        let grown = comparison.times(SMALL, LARGE);
        let work = format!("{} {}, {} entries", bench.backend, workload.name, point.entries);
        let goal = Goal::new(work, "itself at 10,000", Target::AtMostTimes(AT_MOST), grown);
        let engine = comparison.times(ENGINE_SMALL, ENGINE_LARGE);
        report.add_goal(goal.with_limit("the engine, itself", engine));
        report.add_comparison(comparison);
    }
    Ok(())
}
