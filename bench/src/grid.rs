//! The mixes of YCSB, and what a store of namespaces is for, at several sizes and by several
//! callers.

use std::any::Any;

use crate::Result;
use crate::contestant::Entrants;
use crate::measure::{Bench, Point};
use crate::report::{Report, Size};
use crate::workload::Workload;

/// Those who take part, filled, with what has to live as long as they do.
pub struct Filled {
    pub entrants: Entrants,
    pub sizes: Vec<Size>,
    pub keep: Box<dyn Any>,
}

/// How much is stored, and by how many it is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    pub entries: usize,
    pub value_bytes: usize,
    pub callers: &'static [u64],
}

/// Measures everything at each scale; `fill` makes those who take part.
pub fn run(
    bench: &Bench<'_>,
    scales: &[Scale],
    fill: impl Fn(usize, usize) -> Result<Filled>,
    report: &mut Report,
) -> Result<()> {
    for Scale { entries, value_bytes, callers } in scales {
        let filled = fill(*entries, *value_bytes)?;
        report.sizes(filled.sizes);
        for callers in *callers {
            let point = Point { entries: *entries, value_bytes: *value_bytes, callers: *callers };
            for workload in Workload::MIXES.into_iter().chain(Workload::OWN) {
                report.compared(bench.compare(workload, point, true, &filled.entrants)?);
            }
        }
        drop(filled.entrants);
        drop(filled.keep);
    }
    Ok(())
}
