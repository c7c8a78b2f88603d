//! The benchmarks of Cubbyhole: `cargo xtask bench`.

#![expect(
    clippy::disallowed_macros,
    reason = "a tool for the terminal: there is no caller to hand its output to"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "the benchmarks measure real time, and the network delay proxy blocks its threads"
)]

mod candidate;
mod candidates;
mod data;
mod embedded;
mod goals;
mod grid;
mod growth;
mod harness;
mod layers;
mod measure;
mod memory;
mod opening;
mod plan;
mod postgres;
mod redis;
mod report;
mod rss;
mod sampler;
mod sweeps;
mod workload;

use std::env;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use tokio::runtime::Runtime;

use measure::Bench;
use plan::{EMBEDDED, HELP, LAYERS, MEMORY, POSTGRES, Plan};
use report::Report;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

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
            println!("{}", memory::fill(&runtime, name, entries.parse()?, bytes.parse()?)?);
            return Ok(());
        }
        _ => {}
    }
    let Some(plan) = plan::parse(arguments)? else {
        print!("{HELP}");
        return Ok(());
    };
    let start = Instant::now();
    let mut report = Report::new(plan.settings);
    for backend in &plan.backends {
        measure(&runtime, backend, &plan, &mut report)?;
        // Written after each backend, so an aborted run keeps the results so far.
        report.write(&plan.out)?;
    }
    println!("took {:.0} s", start.elapsed().as_secs_f64());
    report.print_summary(&plan.out);
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
        LAYERS => layers::run(&bench, report),
        POSTGRES => postgres::run(&bench, plan, report),
        _ => redis::run(&bench, plan, report),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::harness::Settings;
    use crate::plan::{ALL, REDIS, Scale};

    const SMALL: &[Scale] = &[Scale { entries: 1000, value_bytes: 100, callers: &[1, 2] }];

    #[test]
    fn all_backends_run_at_small_scale() {
        let settings = Settings { rounds: 1, turn: Duration::ZERO, warm_up: Duration::ZERO };
        let out = tempfile::tempdir().unwrap();
        let plan = Plan {
            backends: ALL.to_vec(),
            settings,
            entries: 10_000,
            value_bytes: 100,
            scales: SMALL,
            out: out.path().to_owned(),
        };
        let runtime = Runtime::new().unwrap();
        let mut report = Report::new(settings);
        // Not the memory backend: it runs this program as a subprocess, and a test binary is
        // another one.
        for backend in [EMBEDDED, LAYERS, POSTGRES, REDIS] {
            let bench = Bench { runtime: &runtime, settings, backend };
            match backend {
                EMBEDDED => grid::run(
                    &bench,
                    SMALL,
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
