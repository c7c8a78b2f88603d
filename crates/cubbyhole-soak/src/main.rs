//! `cubbyhole-soak`: runs the soak test and prints samples and the result.

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

/// Run a mixed load on all backends for a given time, and check replies and resource growth.
///
/// The run fails if a reply is wrong, if an error is unexpected, or if a resource grows.
///
/// Each backend has its own callers. All backends run at the same time. The callers use every
/// operation of a store on a fixed set of 20 tenants with 10 namespaces of 100 keys each, with
/// TTLs, conditions, short deadlines and cancellations. Every value contains its key, so a reply
/// with the value of another key or tenant is detected, and so is a torn, expired or overwritten
/// value. A sweeper runs on each store. The embedded file is compacted 16 times in a run.
///
/// At each interval, the command prints one line for each backend and one for the process. Calls
/// and latencies are those of the interval. Conflicts, interrupted calls ("cut off"), unexpected
/// errors and wrong replies are counted from the start. "stored" is the size of the embedded file,
/// of the PostgreSQL tables and indexes, or of the memory of the Redis masters.
///
/// At the end, the command compares the third and the last quarter of the run by median and mean:
/// memory, threads, descriptors and tasks of the process, and for each backend the stored bytes,
/// the connections and the expired entries that were not swept. Growth by more than 10 percent and
/// a small fixed slack is an error. At least 12 samples are needed: --for should be at least 12
/// times --every.
///
/// `cargo xtask soak` starts private servers. Without it, set CUBBYHOLE_TEST_POSTGRES_URL (as a
/// role that can create schemas and roles), CUBBYHOLE_TEST_REDIS_URL and
/// CUBBYHOLE_TEST_REDIS_CLUSTER_URL for those backends. The command uses a separate schema and key
/// prefix and removes them at the end. The clocks of servers on other machines must agree with this
/// machine's within 250 ms.
///
/// Exit codes: 0 if the run passed, 1 if it failed, 2 for a usage error.
#[derive(Parser)]
#[command(name = "cubbyhole-soak", bin_name = "cargo xtask soak", verbatim_doc_comment)]
struct Arguments {
    /// Duration of the run, such as 90s, 10m or 2h
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Interval between samples
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    every: Duration,
    /// Backends, separated by commas
    #[arg(
        long,
        value_enum,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "memory,embedded,postgres,redis,redis-cluster"
    )]
    backends: Vec<BackendName>,
    /// Seed of the random calls. The interleaving of concurrent calls is not reproducible
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Callers per backend
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    callers: u16,
    /// Print one JSON object per line: a sample at each interval, and the result at the end
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
