//! Kills a writing process with `kill -9` at random instants, repeatedly. Acknowledged calls are
//! kept, every call is atomic, the indexes match the entries, and redb's own check passes.
//!
//! This program is also the child process. If [`CHILD`] is set, it opens the file, runs the load of
//! `support/script.rs`, and prints each acknowledgement until it is killed.
//!
//! - `CUBBYHOLE_CRASH_CYCLES`: the number of kills; [`CYCLES`] by default.
//! - `CUBBYHOLE_CRASH_SEED`: the seed that a failed test printed. It reproduces the calls, but not
//!   the instants of the kills.
#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use cubbyhole_conformance::libtest_mimic::{Arguments, Trial};
use cubbyhole_core::{Backend, Store, Verdict};
use cubbyhole_embedded::{Config, Durability, EmbeddedStore, diagnose};
use support::ctx;
use support::script::{Answer, Model, Script, check};

/// The total number of kills.
const CYCLES: u64 = 60;
/// The number of kills of each file.
const CYCLES_PER_FILE: u64 = 12;
const TASKS: u64 = 8;
/// The environment variable with the arguments of the child process.
const CHILD: &str = "CUBBYHOLE_CRASH_CHILD";

fn main() -> ExitCode {
    if let Ok(arguments) = std::env::var(CHILD) {
        return child(&arguments);
    }
    let trials = vec![
        trial("kill_9_keeps_acknowledged_calls_and_atomicity", || {
            kill_repeatedly(Durability::Immediate, number("CUBBYHOLE_CRASH_CYCLES", CYCLES))
        }),
        trial("kill_9_of_relaxed_store_loses_only_the_latest_writes", || {
            kill_repeatedly(Durability::Relaxed, CYCLES_PER_FILE)
        }),
        trial("harness_detects_a_lost_acknowledged_write", lost_writes_are_detected),
    ];
    cubbyhole_conformance::libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(name: &str, test: impl FnOnce() -> Result<(), String> + Send + 'static) -> Trial {
    Trial::test(name, move || test().map_err(Into::into))
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

// The child.

/// Writes until it is killed. Prints a line with task and answer for each acknowledgement.
fn child(arguments: &str) -> ExitCode {
    let arguments: Vec<&str> = arguments.splitn(3, ' ').collect();
    let (seed, is_relaxed, path) =
        (arguments[0].parse().unwrap(), arguments[1] == "relaxed", arguments[2]);
    let durability = if is_relaxed { Durability::Relaxed } else { Durability::Immediate };
    let ended: Result<(), String> = runtime().block_on(async {
        let config = Config::new(path).with_durability(durability);
        let store = EmbeddedStore::open(&ctx(), config).await.map_err(|e| format!("{e:?}"))?;
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..TASKS {
            let model = Model::read(&store, task).await.map_err(|error| format!("{error:?}"))?;
            tasks.spawn(write(store.clone(), Script::new(seed, task, model), task));
        }
        tasks.spawn(maintain(store, seed));
        // The tasks only end with an error.
        tasks.join_next().await.unwrap().map_err(|error| error.to_string())?
    });
    report(&format!("failed: {ended:?}"));
    ExitCode::FAILURE
}

async fn write(store: EmbeddedStore, mut script: Script, task: u64) -> Result<(), String> {
    loop {
        let answer = script.call(&store).await.map_err(|error| format!("{error:?}"))?;
        script.settle(answer)?;
        report(&format!("{task} {answer:?}"));
    }
}

/// Sweeps continuously and compacts occasionally.
async fn maintain(store: EmbeddedStore, seed: u64) -> Result<(), String> {
    let mut random = fastrand::Rng::with_seed(seed);
    loop {
        store.evict_expired(&ctx()).await.map_err(|error| format!("{error:?}"))?;
        if random.u8(0..64) == 0 {
            store.compact(&ctx()).await.map_err(|error| format!("{error:?}"))?;
        }
        ctx().sleep(Duration::from_millis(2)).await.map_err(|error| format!("{error:?}"))?;
    }
}

/// Prints a line with one write, which is atomic because the line is shorter than `PIPE_BUF`.
fn report(line: &str) {
    std::io::stdout().lock().write_all(format!("{line}\n").as_bytes()).unwrap();
}

// The parent.

fn kill_repeatedly(durability: Durability, cycles: u64) -> Result<(), String> {
    let seed = number("CUBBYHOLE_CRASH_SEED", fastrand::u64(..));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut totals = Totals::default();
    for file in 0..cycles.div_ceil(CYCLES_PER_FILE) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.redb");
        let mut models = vec![Model::default(); TASKS as usize];
        for cycle in 0..CYCLES_PER_FILE.min(cycles - file * CYCLES_PER_FILE) {
            let drawn = random.u64(..);
            // A fixed share of early kills, because a random share could be too large.
            let wanted = if cycle % 6 == 5 { 0 } else { random.usize(1..600) };
            let acknowledged = run_and_kill(&path, drawn, durability, wanted, &mut random)?;
            totals.kills += 1;
            totals.acknowledged += acknowledged.len() as u64;
            totals.early += u64::from(acknowledged.is_empty());
            let checked =
                runtime().block_on(examine(&path, models, drawn, &acknowledged, durability));
            models = checked.map_err(|text| {
                format!("file {file}, kill {cycle}: {text}\n  again: CUBBYHOLE_CRASH_SEED={seed}")
            })?;
        }
    }
    // Too few acknowledged calls would make the test meaningless.
    let enough = totals.acknowledged > totals.kills * 20 && totals.early < totals.kills / 2;
    if enough { Ok(()) } else { Err(format!("too few calls were acknowledged: {totals:?}")) }
}

#[derive(Debug, Default)]
struct Totals {
    kills: u64,
    acknowledged: u64,
    /// Kills before any acknowledgement, while the file is created or opened.
    early: u64,
}

/// A task and the answer that it received.
type Acknowledged = (u64, Answer);

/// Runs the load in a child process and kills it a few milliseconds after `wanted` answers, or at
/// any time after its start if `wanted` is 0.
fn run_and_kill(
    path: &Path,
    seed: u64,
    durability: Durability,
    wanted: usize,
    random: &mut fastrand::Rng,
) -> Result<Vec<Acknowledged>, String> {
    let mode = if durability == Durability::Relaxed { "relaxed" } else { "immediate" };
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env(CHILD, format!("{seed} {mode} {}", path.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = lines_of(&mut child);
    let mut acknowledged = Vec::new();
    while acknowledged.len() < wanted {
        match lines.recv_timeout(Duration::from_secs(60)) {
            Ok(line) => acknowledged.push(read_line(&line)?),
            Err(_) => {
                let _ = child.kill();
                return Err(format!("the child stopped after {} answers", acknowledged.len()));
            }
        }
    }
    // This timeout only determines the instant of the kill.
    let longest = if wanted == 0 { 60_000 } else { 4_000 };
    let _ = lines.recv_timeout(Duration::from_micros(random.u64(0..longest))).map(|line| {
        acknowledged.push(read_line(&line)?);
        Ok::<_, String>(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    for line in lines {
        acknowledged.push(read_line(&line)?);
    }
    Ok(acknowledged)
}

fn lines_of(child: &mut Child) -> Receiver<String> {
    let (sender, receiver) = channel();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || {
        let mut line = String::new();
        while output.read_line(&mut line).is_ok_and(|length| length > 0) {
            let _ = sender.send(std::mem::take(&mut line));
        }
    });
    receiver
}

fn read_line(line: &str) -> Result<Acknowledged, String> {
    let (task, answer) = line.trim_end().split_once(' ').ok_or(line)?;
    let answer = match answer {
        "Done" => Answer::Done,
        "Refused" => Answer::Refused,
        _ => return Err(line.to_owned()),
    };
    Ok((task.parse().map_err(|_| line)?, answer))
}

/// Opens the file and compares it with the acknowledged calls. Returns the entries of each task.
async fn examine(
    path: &Path,
    models: Vec<Model>,
    seed: u64,
    acknowledged: &[Acknowledged],
    durability: Durability,
) -> Result<Vec<Model>, String> {
    let candidates = candidates(models, seed, acknowledged, durability)?;
    let config = Config::new(path);
    let opened = EmbeddedStore::open(&ctx(), config.clone()).await;
    let store = opened.map_err(|error| format!("cannot open: {error:?}"))?;
    let found = check(&store, candidates).await?;
    store.close(&ctx()).await.map_err(|error| format!("{error:?}"))?;
    let diagnosis = diagnose(&ctx(), &config).await.map_err(|error| format!("{error:?}"))?;
    if diagnosis.verdict() != Verdict::Ok {
        return Err(format!("{diagnosis:?}"));
    }
    Ok(found)
}

/// The possible entries of each task: all acknowledged calls, with or without the call in flight.
/// In relaxed mode, also the entries after each earlier call.
fn candidates(
    models: Vec<Model>,
    seed: u64,
    acknowledged: &[Acknowledged],
    durability: Durability,
) -> Result<Vec<Vec<Model>>, String> {
    let mut candidates = Vec::new();
    for (task, model) in models.into_iter().enumerate() {
        let task = task as u64;
        let mut script = Script::new(seed, task, model);
        let mut possible = Vec::new();
        for (_, answer) in acknowledged.iter().filter(|(by, _)| *by == task) {
            if durability == Durability::Relaxed {
                possible.extend(script.candidates());
            }
            script.settle(*answer)?;
        }
        possible.extend(script.candidates());
        candidates.push(possible);
    }
    Ok(candidates)
}

/// The harness must reject a file that lacks acknowledged calls.
fn lost_writes_are_detected() -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let mut random = fastrand::Rng::with_seed(1);
    let models = vec![Model::default(); TASKS as usize];
    let mut acknowledged = run_and_kill(&path, 7, Durability::Immediate, 300, &mut random)?;
    // These calls were never made.
    let last = Script::new(7, 0, Model::default());
    acknowledged.extend(next_answers(last, &acknowledged, 40)?);
    let examined = examine(&path, models, 7, &acknowledged, Durability::Immediate);
    match runtime().block_on(examined) {
        Err(text) if text.starts_with("task 0 found") => Ok(()),
        other => Err(format!("forty lost calls were not detected: {other:?}")),
    }
}

/// The next answers that task 0 would have received.
fn next_answers(
    mut script: Script,
    acknowledged: &[Acknowledged],
    count: usize,
) -> Result<Vec<Acknowledged>, String> {
    for (_, answer) in acknowledged.iter().filter(|(by, _)| *by == 0) {
        script.settle(*answer)?;
    }
    let mut answers = Vec::new();
    for _ in 0..count {
        let answer = if script.settle(Answer::Done).is_ok() {
            Answer::Done
        } else {
            script.settle(Answer::Refused)?;
            Answer::Refused
        };
        answers.push((0, answer));
    }
    Ok(answers)
}
