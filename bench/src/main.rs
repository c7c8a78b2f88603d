//! The benchmarks of Cubbyhole: `cargo xtask bench`.

#![expect(
    clippy::disallowed_macros,
    reason = "a tool for the terminal: there is no caller to hand its output to"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "time is what is measured, and the network that is far away keeps others waiting"
)]

mod callers;
mod contestant;
mod data;
mod harness;
mod opening;
mod postgres;
mod redis;
mod report;
mod workloads;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole::EmbeddedConfig;
use tokio::runtime::Runtime;

use contestant::{Contestant, Ours};
use data::Names;
use harness::{Samples, Settings, interleave};
use opening::Opening;
use report::Report;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

const HELP: &str = "\
Measures in turns, and prints medians and ratios: memory and embedded at two sizes, PostgreSQL
and Redis beside a peer on servers that are started for it.

  cargo xtask bench [memory|embedded|postgres|redis|all] [--quick] [--json PATH]

  memory, …, redis   one backend; all is the default
  --quick            10,000 and 100,000 entries and fewer rounds, in place of 10,000 and 1,000,000
                     (PostgreSQL and Redis: a million, and fewer rounds)
  --json PATH        where the results go, target/bench/results.json by default
";

const MEMORY: &str = "memory";
const EMBEDDED: &str = "embedded";
const POSTGRES: &str = "postgres";
const REDIS: &str = "redis";
const ALL: [&str; 4] = [MEMORY, EMBEDDED, POSTGRES, REDIS];

/// What to measure.
struct Plan {
    stores: Vec<&'static str>,
    sizes: [usize; 2],
    redis: redis::Scale,
    settings: Settings,
    json: PathBuf,
}

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
    if let [command, entries, path] = arguments
        && command == opening::HOLD_OPEN
    {
        return opening::hold_open(&runtime, entries.parse()?, Path::new(path));
    }
    let Some(plan) = plan(arguments)? else {
        print!("{HELP}");
        return Ok(());
    };
    let mut report = Report::new(plan.settings);
    for store in &plan.stores {
        match *store {
            MEMORY => memory(&runtime, &plan, &mut report)?,
            POSTGRES => postgres::compare(&runtime, &plan.settings, &mut report)?,
            REDIS => redis::compare(&runtime, &plan.settings, &plan.redis, &mut report)?,
            _ => embedded(&runtime, &plan, &mut report)?,
        }
    }
    report.write(&plan.json)
}

/// `None` if help was asked for.
fn plan(arguments: &[String]) -> Result<Option<Plan>> {
    let milliseconds = Duration::from_millis;
    let mut plan = Plan {
        stores: ALL.to_vec(),
        sizes: [10_000, 1_000_000],
        redis: redis::Scale::FULL,
        settings: Settings { rounds: 15, turn: milliseconds(100), warm_up: milliseconds(500) },
        json: folder().join("results.json"),
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "all" => plan.stores = ALL.to_vec(),
            "memory" => plan.stores = vec![MEMORY],
            "embedded" => plan.stores = vec![EMBEDDED],
            "postgres" => plan.stores = vec![POSTGRES],
            "redis" => plan.stores = vec![REDIS],
            "--quick" => {
                plan.sizes = [10_000, 100_000];
                plan.redis = redis::Scale::QUICK;
                plan.settings =
                    Settings { rounds: 7, turn: milliseconds(30), warm_up: milliseconds(100) };
            }
            "--json" => plan.json = arguments.next().ok_or("--json takes a path")?.into(),
            "--help" | "-h" => return Ok(None),
            _ => return Err(format!("not understood: {argument}\n\n{HELP}").into()),
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

fn memory(runtime: &Runtime, plan: &Plan, report: &mut Report) -> Result<()> {
    let mut stores = Vec::new();
    for entries in plan.sizes {
        stores.push(Arc::new(Ours::in_memory(Arc::new(Names::of(entries)?))));
    }
    for store in &stores {
        load(runtime, MEMORY, store, report)?;
    }
    reads(runtime, plan, MEMORY, [&*stores[0], &*stores[1]], report)
}

fn embedded(runtime: &Runtime, plan: &Plan, report: &mut Report) -> Result<()> {
    println!();
    std::fs::create_dir_all(folder())?;
    let files = tempfile::tempdir_in(folder())?;
    let path = |entries: usize| files.path().join(format!("{entries}.redb"));
    let mut stores = Vec::new();
    for entries in plan.sizes {
        let names = Arc::new(Names::of(entries)?);
        let config = EmbeddedConfig::new(path(entries));
        stores.push(Arc::new(runtime.block_on(Ours::embedded(names, config))?));
    }
    for store in &stores {
        load(runtime, EMBEDDED, store, report)?;
    }
    reads(runtime, plan, EMBEDDED, [&*stores[0], &*stores[1]], report)?;
    puts(runtime, plan, EMBEDDED, &stores[1], report)?;
    for store in stores {
        runtime.block_on(store.close())?;
    }
    let [small, large] = plan.sizes;
    opens(runtime, plan, [(small, &path(small)), (large, &path(large))], report)
}

fn load<C: Contestant>(
    runtime: &Runtime,
    store: &'static str,
    contestant: &Arc<C>,
    report: &mut Report,
) -> Result<()> {
    let seconds = workloads::load(runtime, contestant, data::value)?.as_secs_f64();
    report.load(report::Load { store, entries: contestant.names().entries(), seconds });
    Ok(())
}

/// Each kind of read on the small and the large one in turns.
///
/// First in as many tenants of the large one as the small one has, so that both touch equally much
/// data: the ratio is what the size of the store costs. Then anywhere: the ratio is that and what
/// it costs that the caches of the processor hold the small one and not the large one.
fn reads<C: Contestant>(
    runtime: &Runtime,
    plan: &Plan,
    store: &'static str,
    [small, large]: [&C; 2],
    report: &mut Report,
) -> Result<()> {
    let [few, all] = [small, large].map(|store| store.names().tenants.len());
    for tenants in [few, all] {
        let mut results = Vec::new();
        for read in workloads::Read::ALL {
            let mut cases = [read.case(runtime, small, few), read.case(runtime, large, tenants)];
            let [in_small, in_large] = interleave(&plan.settings, &mut cases)?
                .try_into()
                .map_err(|_| "as many samples as cases")?;
            results.push(report::Read {
                store,
                operation: read.name(),
                small_entries: small.names().entries(),
                large_entries: large.names().entries(),
                large_tenants_read: tenants,
                ratio: in_large.ratio(&in_small),
                small: in_small,
                large: in_large,
            });
        }
        report.reads(results);
    }
    Ok(())
}

/// Durable puts by few and by many callers, in turns.
fn puts<C: Contestant>(
    runtime: &Runtime,
    plan: &Plan,
    store: &'static str,
    contestant: &Arc<C>,
    report: &mut Report,
) -> Result<()> {
    const CALLERS: [u64; 3] = [1, 16, 128];
    // A turn of puts takes longer: a commit waits for the disk, which has moods.
    let time = 5 * plan.settings.turn;
    let (mut per_second, mut per_commit) = ([const { Vec::new() }; 3], [const { Vec::new() }; 3]);
    for round in 0..=plan.settings.rounds {
        for (index, callers) in CALLERS.into_iter().enumerate() {
            let puts = workloads::put(runtime, contestant, callers, time)?;
            // The first round warms up.
            if round > 0 {
                per_second[index].push(puts.per_second);
                per_commit[index].extend(puts.per_commit);
            }
        }
    }
    let rows = CALLERS.into_iter().zip(per_second.into_iter().zip(per_commit));
    let rows = rows.map(|(callers, (per_second, per_commit))| report::Puts {
        store,
        entries: contestant.names().entries(),
        callers,
        per_second: Samples::new(per_second),
        per_commit: (!per_commit.is_empty()).then(|| Samples::new(per_commit)),
    });
    report.puts(rows.collect());
    Ok(())
}

/// Opening each file after it was closed and after its process was killed, in turns.
fn opens(
    runtime: &Runtime,
    plan: &Plan,
    files: [(usize, &Path); 2],
    report: &mut Report,
) -> Result<()> {
    const CLOSED: &str = "closed";
    const KILLED: &str = "killed";
    let mut rows = Vec::new();
    for (entries, path) in files {
        let names = Arc::new(Names::of(entries)?);
        for after in [CLOSED, KILLED] {
            rows.push((entries, path, Arc::clone(&names), after, Vec::new()));
        }
    }
    for _ in 0..plan.settings.rounds {
        for (entries, path, names, after, openings) in &mut rows {
            if *after == KILLED {
                opening::kill_a_writer(*entries, path)?;
            }
            openings.push(opening::open(runtime, names, path)?);
        }
    }
    let samples = |openings: &[Opening], time: fn(&Opening) -> Duration| {
        Samples::new(openings.iter().map(|opening| time(opening).as_nanos() as f64).collect())
    };
    let rows = rows.into_iter().map(|(entries, _, _, after, openings)| report::Open {
        store: EMBEDDED,
        entries,
        after,
        open: samples(&openings, |opening| opening.open),
        with_first_get: samples(&openings, |opening| opening.with_first_get),
    });
    report.opens(rows.collect());
    Ok(())
}
