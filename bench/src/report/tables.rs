//! Tables in Markdown, which are also readable in a terminal.

use std::fmt::Write;

use super::{Report, Size};
use crate::goals::{Goal, Limit, count};
use crate::harness::Samples;
use crate::measure::{Comparison, Measurement, Point};
use crate::plan::{EMBEDDED, LAYERS, MEMORY, POSTGRES};

pub fn heading(report: &Report) -> String {
    let machine = &report.machine;
    let versions: Vec<String> =
        report.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    format!(
        "{}, {} cores, {} GiB, {}.\n{}.\n\nMedians of {} alternating rounds, ± half the \
         interquartile range.\n\n",
        machine.processor,
        machine.cores,
        machine.memory_gib,
        machine.system,
        versions.join(", "),
        report.settings.rounds
    )
}

/// The page with all results.
pub fn page(report: &Report) -> String {
    let mut page = format!(
        "# Results\n\n`cargo xtask bench` generates this page. [README.md](README.md) explains \
         it.\n\n{}## Goals\n\n{}",
        heading(report),
        goals(&report.goals)
    );
    let mut backends: Vec<&str> = report.comparisons.iter().map(|row| row.backend).collect();
    backends.dedup();
    for backend in backends {
        // Writing to a string cannot fail.
        let _ = write!(page, "\n## {}\n", title(backend));
        let backend_sizes: Vec<Size> =
            report.sizes.iter().filter(|size| size.backend == backend).cloned().collect();
        for same in backend_sizes.chunk_by(|a, b| a.entries == b.entries) {
            let _ = write!(page, "\n{}", sizes(same));
        }
        for row in report.comparisons.iter().filter(|row| row.backend == backend) {
            let _ = write!(page, "\n{}", comparison(row));
        }
    }
    page
}

fn title(backend: &str) -> &str {
    match backend {
        MEMORY => "Memory",
        LAYERS => "Layers",
        EMBEDDED => "Embedded",
        POSTGRES => "PostgreSQL",
        _ => "Redis",
    }
}

pub fn goals(goals: &[Goal]) -> String {
    let heads = ["work", "against", "goal", "reached", "", "relative to the limit"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for goal in goals {
        let [target, reached] = goal.texts();
        let spread = goal.spread.filter(|spread| *spread > 0.005);
        let spread = spread.map_or(String::new(), |spread| format!(" ± {:.0} %", spread * 100.0));
        let verdict = if goal.is_met() { "met" } else { "**not met**" };
        let relative = |limit: &Limit| format!("{}× {}", count(limit.times), limit.name);
        rows.push(vec![
            goal.work.clone(),
            goal.against.clone(),
            target,
            reached + &spread,
            verdict.to_owned(),
            goal.limit.as_ref().map(relative).unwrap_or_default(),
        ]);
    }
    table(&rows, 2)
}

pub fn sizes(sizes: &[Size]) -> String {
    let Some(Size { backend, entries, value_bytes, .. }) = sizes.first() else {
        return String::new();
    };
    let mut rows = vec![["", "bytes per entry", "without the value"].map(str::to_owned).to_vec()];
    for size in sizes {
        let overhead = size.bytes - size.value_bytes as f64;
        rows.push(vec![
            size.name.to_owned(),
            format!("{:.0}", size.bytes),
            format!("{overhead:.0}"),
        ]);
    }
    let title = title(backend);
    format!(
        "### {title}: bytes per entry, {entries} entries of {value_bytes} bytes\n\n{}",
        table(&rows, 1)
    )
}

pub fn comparison(comparison: &Comparison) -> String {
    let Comparison { backend, work, about, point, results } = comparison;
    // The goals of layers limit the time that they add to the inner store.
    let is_layer = *backend == LAYERS;
    let mut heads = vec!["", "per second", "each", if is_layer { "added" } else { "first is" }];
    let has_latencies = results.iter().any(|row| row.latencies.is_some());
    if has_latencies {
        heads.extend(["p50", "p90", "p99", "p99.9"]);
    }
    let mut rows = vec![heads.into_iter().map(str::to_owned).collect()];
    for (index, measured) in results.iter().enumerate() {
        let Measurement { name, time, latencies } = measured;
        let first = &results[0].time;
        let beside_first = match index {
            0 => String::new(),
            _ if is_layer => added(&time.minus(first)),
            _ => format!("{}×", count(time.ratio(first).median)),
        };
        let mut row = vec![name.clone(), per_second(time.median), with_spread(time), beside_first];
        if let Some(latencies) = latencies {
            let shares = [latencies.p50, latencies.p90, latencies.p99, latencies.p999];
            row.extend(shares.map(|time| nanoseconds(time as f64)));
        } else if has_latencies {
            row.extend([const { String::new() }; 4]);
        }
        rows.push(row);
    }
    let title = title(backend);
    let Point { entries, value_bytes, callers } = point;
    let callers = match callers {
        1 => "1 caller".to_owned(),
        many => format!("{many} callers"),
    };
    format!(
        "### {title}: {work}\n\n{about}; {entries} entries of {value_bytes} bytes, {callers}\n\n{}",
        table(&rows, 1)
    )
}

/// The time of an operation. With several callers, it is the time between two completions.
fn with_spread(time: &Samples) -> String {
    format!("{} ± {:.0} %", nanoseconds(time.median), time.spread() * 100.0)
}

/// The nanoseconds that a layer adds, and half their interquartile range.
fn added(difference: &Samples) -> String {
    let spread = (difference.upper_quartile - difference.lower_quartile) / 2.0;
    format!("{:+.0} ± {spread:.0} ns", difference.median)
}

/// Formats the rate of an operation that takes `time` nanoseconds.
pub fn per_second(time: f64) -> String {
    let rate = 1e9 / time;
    match rate {
        ..10.0 => format!("{rate:.1}"),
        10.0..10_000.0 => format!("{rate:.0}"),
        10_000.0..1e6 => format!("{:.1} k", rate / 1e3),
        _ => format!("{:.2} M", rate / 1e6),
    }
}

fn nanoseconds(time: f64) -> String {
    match time {
        ..1e3 => format!("{time:.0} ns"),
        1e3..1e6 => format!("{:.1} µs", time / 1e3),
        1e6..1e9 => format!("{:.1} ms", time / 1e6),
        _ => format!("{:.2} s", time / 1e9),
    }
}

/// Lays out a table. The first row is the head, and the first `left` columns are left-aligned.
fn table(rows: &[Vec<String>], left: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
    let width = |column| rows.iter().map(|row| cell(row, column).chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0).max(3)).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (column, width) in widths.iter().enumerate() {
            let cell = cell(row, column);
            // Writing to a string cannot fail.
            let _ = if column < left {
                write!(text, "| {cell:<width$} ")
            } else {
                write!(text, "| {cell:>width$} ")
            };
        }
        text.push_str("|\n");
        if index == 0 {
            for (column, width) in widths.iter().enumerate() {
                let end = if column < left { '-' } else { ':' };
                let _ = write!(text, "|{}{end}", "-".repeat(width + 1));
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goals::Target;

    #[test]
    fn missed_goal_is_marked_in_the_table() {
        let goal = |reached| {
            Goal::new("get", "peer", Target::Times(2.0), Some(Samples::new(vec![reached])))
        };
        let table = goals(&[goal(2.5), goal(1.5)]);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[2].contains("2.50") && lines[2].contains(" met"), "{table}");
        assert!(lines[3].contains("1.50") && lines[3].contains("**not met**"), "{table}");
        assert_eq!(lines[0].chars().count(), lines[3].chars().count());
    }

    #[test]
    fn units_fit_the_magnitude() {
        assert_eq!(
            [per_second(250.0), per_second(2e5), per_second(2e9)],
            ["4.00 M", "5000", "0.5"]
        );
        assert_eq!([nanoseconds(420.0), nanoseconds(1.5e6)], ["420 ns", "1.5 ms"]);
    }
}
