//! `cubbyhole-soak`: runs the soak and prints what it sees.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_macros,
    reason = "a tool for the terminal: there is no caller to hand its output to"
)]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use cubbyhole::ExecutionContext;
use cubbyhole_soak::{BackendName, HEADING, Plan, Soak};

/// Runs all backends under mixed load for a given time, prints how they fare, and fails if an
/// answer was wrong, an error unexpected, or something grows.
///
/// Each backend has callers of its own, all at the same time. They put, get, scan, take, erase and
/// whatever else a store can do, on a fixed set of 20 tenants with 10 namespaces of 100 keys each,
/// with TTLs, conditions, deadlines that are too short, and cancellations. Every value says where it
/// belongs, so that an answer from another key or tenant, a torn one, one that has expired or one
/// that was overwritten is noticed. A sweeper runs on each store; the embedded file is compacted
/// 16 times in a run.
///
/// At every interval it prints one line for each backend and one for the process. Latencies and
/// calls are those of the interval; conflicts, cut-off calls, unexpected errors and wrong answers
/// are those since the beginning. "stored" is the embedded file, the tables and indexes of
/// PostgreSQL, or the memory that the Redis masters use.
///
/// At the end the third and the last quarter of the run are compared, by median and mean, for memory,
/// threads, descriptors, tasks, and for each backend what it stores, its connections and the
/// expired entries that were not swept: 10 percent more and a small fixed slack is too much. Less
/// than 12 samples are not judged: --for should be at least 12 times --every.
///
/// `cargo xtask soak` starts private servers for it. Run by itself it needs
/// CUBBYHOLE_TEST_POSTGRES_URL (an administrator's; it makes a schema and roles of its own),
/// CUBBYHOLE_TEST_REDIS_URL and CUBBYHOLE_TEST_REDIS_CLUSTER_URL for those backends, uses names of
/// its own there, and removes them at the end. Clocks of servers on other machines must agree with
/// this one's to a quarter of a second.
///
/// Exit codes: 0 if all is well, 1 if something is wrong, 2 for wrong usage.
#[derive(Parser)]
#[command(name = "cubbyhole-soak", bin_name = "cargo xtask soak", verbatim_doc_comment)]
struct Arguments {
    /// How long to run, such as 90s, 10m or 2h.
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// How often to print.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    every: Duration,
    /// Which backends, with commas between them.
    #[arg(
        long,
        value_enum,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "memory,embedded,postgres,redis,redis-cluster"
    )]
    backends: Vec<BackendName>,
    /// Draws the same calls again; how they meet is the machine's choice.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How many callers each backend has.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    callers: u16,
    /// Print one JSON object a line: a sample at every interval, the outcome at the end.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut backends = arguments.backends.clone();
    backends.sort_unstable();
    backends.dedup();
    let plan = Plan {
        duration: arguments.duration,
        every: arguments.every.max(Duration::from_millis(100)),
        backends,
        seed: arguments.seed,
        callers: usize::from(arguments.callers),
    };
    match run(&plan, arguments.json).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(plan: &Plan, json: bool) -> Result<bool, String> {
    let stop = ExecutionContext::new();
    let interrupted = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.cancel();
        }
    });
    if !json {
        println!("seed {}, {} callers for each backend", plan.seed, plan.callers);
    }
    let mut soak = Soak::open(plan).await?;
    let mut lines = 0_u32;
    soak.run(plan, &stop, |sample| {
        if json {
            println!("{}", as_json(sample));
            return;
        }
        if lines.is_multiple_of(10) {
            println!("{HEADING}");
        }
        lines += 1;
        println!("{sample}");
    })
    .await;
    let outcome = soak.conclude().await;
    if json {
        println!("{}", as_json(&outcome));
    } else {
        println!("\n{outcome}");
    }
    Ok(outcome.passed())
}

fn as_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
}
