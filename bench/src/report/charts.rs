//! Charts of operations per second, as SVG that follows the reader's light or dark scheme.
//!
//! The SVG is written without a chart library, because such libraries need fonts for the layout.

use std::fmt::Write;

use super::tables::per_second;
use crate::measure::{Comparison, Point};
use crate::plan::{OURS, OURS_JSON};
use crate::workload::Workload;

const WIDTH: f64 = 860.0;
const LABELS: f64 = 230.0;
const FIGURES: f64 = 90.0;
const BAR: f64 = 16.0;
const GAP: f64 = 22.0;
/// The number of powers of ten that the longest bar spans.
const DECADES: f64 = 4.0;
const CAPTION: &str = "Operations per second, on a logarithmic scale: a quarter of the longest bar is a factor of ten.";
const COLOURS: [&str; 6] = ["#2563eb", "#d97706", "#9333ea", "#059669", "#dc2626", "#64748b"];

/// The file names and contents of the charts: one for each backend and point of the mixes.
pub fn all(comparisons: &[Comparison]) -> Vec<(String, String)> {
    let mut charts = Vec::new();
    let is_mix = |row: &&Comparison| Workload::MIXES.iter().any(|mix| mix.name == row.work);
    let mut points: Vec<(&str, Point)> =
        comparisons.iter().filter(is_mix).map(|row| (row.backend, row.point)).collect();
    points.dedup();
    for (backend, point) in points {
        let rows: Vec<&Comparison> = comparisons
            .iter()
            .filter(|row| row.backend == backend && row.point == point)
            .filter(|row| grid_workloads().any(|work| work == row.work))
            .collect();
        let Point { entries, value_bytes, callers } = point;
        let name = format!("{backend}-{entries}x{value_bytes}-{callers}.svg");
        charts.push((name, chart(&rows)));
    }
    charts
}

fn grid_workloads() -> impl Iterator<Item = &'static str> {
    Workload::MIXES.into_iter().chain(Workload::OWN).map(|workload| workload.name)
}

/// Draws the bars of each workload on a logarithmic scale.
fn chart(rows: &[&Comparison]) -> String {
    let bars: usize = rows.iter().map(|row| row.results.len()).sum();
    let height = bars as f64 * BAR + rows.len() as f64 * (GAP + BAR) + GAP;
    let mut body = format!("<text class=\"about\" x=\"0\" y=\"12\">{CAPTION}</text>\n");
    let mut y = GAP;
    for row in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(
            body,
            r#"<text class="work" x="0" y="{:.0}">{} <tspan class="about">{}</tspan></text>"#,
            y + BAR * 0.75,
            escaped(&row.work),
            escaped(&row.about)
        );
        y += BAR + 4.0;
        let most = row.results.iter().map(|of| 1e9 / of.time.median).fold(0.0, f64::max);
        for measured in &row.results {
            bar(&mut body, &measured.name, 1e9 / measured.time.median, most, y);
            y += BAR;
        }
        y += GAP - 4.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<style>text {{ fill: #334155 }} \
         .work {{ font-weight: bold }} .about {{ font-weight: normal; fill: #64748b }} \
         @media (prefers-color-scheme: dark) {{ text {{ fill: #e2e8f0 }} \
         .about {{ fill: #94a3b8 }} }}</style>\n{body}</svg>\n"
    )
}

fn bar(body: &mut String, name: &str, rate: f64, most: f64, y: f64) {
    let share = (1.0 + (rate / most).log10() / DECADES).clamp(0.01, 1.0);
    let width = share * (WIDTH - LABELS - FIGURES);
    let (middle, end) = (y + BAR * 0.7, LABELS + width + 6.0);
    let _ = writeln!(
        body,
        r#"<text x="{:.0}" y="{middle:.0}" text-anchor="end">{}</text><rect x="{LABELS}" y="{:.0}" width="{width:.0}" height="{:.0}" rx="2" fill="{}"/><text x="{end:.0}" y="{middle:.0}">{}</text>"#,
        LABELS - 8.0,
        escaped(name),
        y + 1.0,
        BAR - 3.0,
        colour(name),
        per_second(1e9 / rate)
    );
}

/// The colour of a candidate, which is the same in every chart.
fn colour(name: &str) -> &'static str {
    let ours = [OURS, OURS_JSON];
    if ours.contains(&name) {
        return COLOURS[0];
    }
    let sum: usize = name.bytes().map(usize::from).sum();
    COLOURS[1 + sum % (COLOURS.len() - 1)]
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::Samples;
    use crate::measure::Measurement;

    #[test]
    fn chart_has_a_bar_for_each_candidate() {
        let measured = |name: &str, time| Measurement {
            name: name.to_owned(),
            time: Samples::new(vec![time]),
            latencies: None,
        };
        let comparison = Comparison {
            backend: "memory",
            work: "A".to_owned(),
            about: "half & half".to_owned(),
            point: Point { entries: 1000, value_bytes: 100, callers: 16 },
            results: vec![measured("cubbyhole", 100.0), measured("other", 1e6)],
        };
        let charts = all(&[comparison]);
        assert_eq!(charts[0].0, "memory-1000x100-16.svg");
        let chart = &charts[0].1;
        assert_eq!(chart.matches("<rect").count(), 2);
        assert!(chart.contains("half &amp; half") && chart.contains("10.00 M"), "{chart}");
    }
}
