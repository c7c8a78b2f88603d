//! The benchmarks of Cubbyhole: `cargo xtask bench`.

#![expect(
    clippy::disallowed_macros,
    reason = "a tool for the terminal: there is no caller to hand its output to"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "time is what is measured, and the network that is far away keeps others waiting"
)]

mod contestant;
mod contestants;
mod data;
mod draw;
mod embedded;
mod goals;
mod grid;
mod growth;
mod harness;
mod measure;
mod memory;
mod opening;
mod postgres;
mod redis;
mod report;
mod rss;
mod sweeps;
mod workload;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use grid::Scale;
use harness::Settings;
use measure::Bench;
use report::Report;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

const HELP: &str = "\
Measures the stores beside their peers and their engines, in turns, and prints medians, ratios,
and what of the goals was reached. The servers it needs are started for it.

  cargo xtask bench [memory|embedded|postgres|redis|all] [--quick] [--out FOLDER]

  memory, …, redis   one backend; all is the default
  --quick            fewer rounds, and the mixes at one size; at most a quarter of an hour
  --out FOLDER       where results.md, results.json and the charts go; target/bench by default
";

const MEMORY: &str = "memory";
const EMBEDDED: &str = "embedded";
const POSTGRES: &str = "postgres";
const REDIS: &str = "redis";
const ALL: [&str; 4] = [MEMORY, EMBEDDED, POSTGRES, REDIS];

/// The store over bytes.
const OURS: &str = "cubbyhole";
/// The store over strings, which are encoded as JSON, as the peers' are.
const OURS_JSON: &str = "cubbyhole, JSON";

/// What to measure.
struct Plan {
    backends: Vec<&'static str>,
    settings: Settings,
    /// How much the stores hold in which the goals are measured.
    entries: usize,
    value_bytes: usize,
    /// Of the mixes.
    scales: &'static [Scale],
    out: PathBuf,
}

const QUICK: &[Scale] = &[Scale { entries: 10_000, value_bytes: 1024, callers: &[1, 16] }];
const FULL: &[Scale] = &[
    Scale { entries: 10_000, value_bytes: 10 * 1024, callers: &[16] },
    Scale { entries: 100_000, value_bytes: 1024, callers: &[1, 2, 16, 128] },
    // By one, because a peer that looks through all of Redis for a listing takes seconds for each.
    Scale { entries: 1_000_000, value_bytes: 100, callers: &[1] },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let runtime = Runtime::new()?;
    match arguments {
        [command, entries, path] if command == opening::HOLD_OPEN => {
            return opening::hold_open(&runtime, entries.parse()?, Path::new(path));
        }
        [command, name, entries, bytes] if command == rss::FILL => {
            println!("{}", rss::fill(&runtime, name, entries.parse()?, bytes.parse()?)?);
            return Ok(());
        }
        _ => {}
    }
    let Some(plan) = plan(arguments)? else {
        print!("{HELP}");
        return Ok(());
    };
    let start = Instant::now();
    let mut report = Report::new(plan.settings);
    for backend in &plan.backends {
        measure(&runtime, backend, &plan, &mut report)?;
        // What was measured is kept if the rest is not waited for.
        report.write(&plan.out)?;
    }
    println!("took {:.0} s", start.elapsed().as_secs_f64());
    report.conclude(&plan.out);
    Ok(())
}

fn measure(
    runtime: &Runtime,
    backend: &'static str,
    plan: &Plan,
    report: &mut Report,
) -> Result<()> {
    let bench = Bench { runtime, settings: plan.settings, backend };
    match backend {
        MEMORY => memory::run(&bench, plan, report),
        EMBEDDED => embedded::run(&bench, plan, report),
        POSTGRES => postgres::run(&bench, plan, report),
        _ => redis::run(&bench, plan, report),
    }
}

/// `None` if help was asked for.
fn plan(arguments: &[String]) -> Result<Option<Plan>> {
    let milliseconds = Duration::from_millis;
    let mut plan = Plan {
        backends: ALL.to_vec(),
        settings: Settings { rounds: 7, turn: milliseconds(50), warm_up: milliseconds(150) },
        entries: 1_000_000,
        value_bytes: 256,
        scales: FULL,
        out: folder(),
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "all" => plan.backends = ALL.to_vec(),
            "--quick" => {
                plan.scales = QUICK;
                plan.settings =
                    Settings { rounds: 5, turn: milliseconds(30), warm_up: milliseconds(100) };
            }
            "--out" => plan.out = arguments.next().ok_or("--out takes a folder")?.into(),
            "--help" | "-h" => return Ok(None),
            name => {
                let known = ALL.into_iter().find(|known| *known == name);
                let unknown = || format!("not understood: {name}\n\n{HELP}");
                plan.backends = vec![known.ok_or_else(unknown)?];
            }
        }
    }
    Ok(Some(plan))
}

/// For results and for the files that are measured: on the disk of the checkout, because a
/// temporary folder may be in memory.
fn folder() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).join("target/bench")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LITTLE: &[Scale] = &[Scale { entries: 1000, value_bytes: 100, callers: &[1, 2] }];

    #[test]
    fn everything_runs_on_a_little() {
        let settings = Settings { rounds: 1, turn: Duration::ZERO, warm_up: Duration::ZERO };
        let out = tempfile::tempdir().unwrap();
        let plan = Plan {
            backends: ALL.to_vec(),
            settings,
            entries: 10_000,
            value_bytes: 100,
            scales: LITTLE,
            out: out.path().to_owned(),
        };
        let runtime = Runtime::new().unwrap();
        let mut report = Report::new(settings);
        // The store in memory starts processes of this program, which tests are not.
        for backend in [EMBEDDED, POSTGRES, REDIS] {
            let bench = Bench { runtime: &runtime, settings, backend };
            match backend {
                EMBEDDED => grid::run(
                    &bench,
                    LITTLE,
                    |entries, bytes| embedded::grid(&runtime, entries, bytes),
                    &mut report,
                )
                .unwrap(),
                _ => measure(&runtime, backend, &plan, &mut report).unwrap(),
            }
        }
        report.write(&plan.out).unwrap();
        let works: Vec<&str> = report.comparisons().iter().map(|row| &*row.work).collect();
        for name in ["A", "E", "list", "append", "put, 2 ms one way", "list_namespaces of all"] {
            assert!(works.contains(&name), "{name}: {works:?}");
        }
        assert!(out.path().join("redis-1000x100-2.svg").exists());
    }
}
