//! The grid: the mixes of YCSB and the typical operations, at several sizes and numbers of callers.

use std::any::Any;

use crate::Result;
use crate::candidate::Candidates;
use crate::measure::{Bench, Point};
use crate::plan::Scale;
use crate::report::{Report, Size};
use crate::workload::Workload;

/// Filled candidates, and the resources that must live as long as they do.
pub struct FilledStores {
    pub candidates: Candidates,
    pub sizes: Vec<Size>,
    pub resources: Box<dyn Any>,
}

/// Measures all workloads at each scale. `fill` creates the candidates.
pub fn run(
    bench: &Bench<'_>,
    scales: &[Scale],
    fill: impl Fn(usize, usize) -> Result<FilledStores>,
    report: &mut Report,
) -> Result<()> {
    for Scale { entries, value_bytes, callers } in scales {
        let filled = fill(*entries, *value_bytes)?;
        report.add_sizes(filled.sizes);
        for callers in *callers {
            let point = Point { entries: *entries, value_bytes: *value_bytes, callers: *callers };
            for workload in Workload::MIXES.into_iter().chain(Workload::OWN) {
                report.add_comparison(bench.compare(workload, point, true, &filled.candidates)?);
            }
        }
        drop(filled.candidates);
        drop(filled.resources);
    }
    Ok(())
}
