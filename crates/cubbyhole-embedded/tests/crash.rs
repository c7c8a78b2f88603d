//! `kill -9` of a process that writes to a file, at random instants, again and again: what was
//! acknowledged is there, calls are whole, the index fits the entries, the engine's own check
//! passes.
//!
//! This program is its own child: told so by [`CHILD`] it opens the file, runs the load of
//! `support/script.rs` and reports each acknowledgement on its standard output, until it is killed.
//!
//! - `CUBBYHOLE_CRASH_CYCLES`: how many kills, in place of [`CYCLES`].
//! - `CUBBYHOLE_CRASH_SEED`: the seed that a failure printed. It draws the same calls; where the
//!   kill falls is the machine's choice.
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

/// How many kills, together.
const CYCLES: u64 = 60;
/// How many kills a file sees, one after the other.
const CYCLES_A_FILE: u64 = 12;
const TASKS: u64 = 8;
/// Holds what the child is to do.
const CHILD: &str = "CUBBYHOLE_CRASH_CHILD";

fn main() -> ExitCode {
    if let Ok(orders) = std::env::var(CHILD) {
        return child(&orders);
    }
    let trials = vec![
        trial("after_kill_9_what_was_acknowledged_is_there_and_calls_are_whole", || {
            kill_again_and_again(Durability::Immediate, number("CUBBYHOLE_CRASH_CYCLES", CYCLES))
        }),
        trial("after_kill_9_a_relaxed_store_has_lost_the_latest_writes_alone", || {
            kill_again_and_again(Durability::Relaxed, CYCLES_A_FILE)
        }),
        trial("a_store_that_forgets_an_acknowledged_write_is_caught", forgetting_is_caught),
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

/// Writes until it is killed. Each line that it prints is an acknowledgement: task, answer.
fn child(orders: &str) -> ExitCode {
    let orders: Vec<&str> = orders.splitn(3, ' ').collect();
    let (seed, is_relaxed, path) = (orders[0].parse().unwrap(), orders[1] == "relaxed", orders[2]);
    let durability = if is_relaxed { Durability::Relaxed } else { Durability::Immediate };
    let ended: Result<(), String> = runtime().block_on(async {
        let config = Config::new(path).with_durability(durability);
        let store = EmbeddedStore::open(&ctx(), config).await.map_err(|e| format!("{e:?}"))?;
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..TASKS {
            let model = Model::read(&store, task).await.map_err(|error| format!("{error:?}"))?;
            tasks.spawn(write(store.clone(), Script::new(seed, task, model), task));
        }
        tasks.spawn(look_after(store, seed));
        // None of them ends but by an error.
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

/// Sweeps all the time, and now and then gives space back.
async fn look_after(store: EmbeddedStore, seed: u64) -> Result<(), String> {
    let mut random = fastrand::Rng::with_seed(seed);
    loop {
        store.evict_expired(&ctx()).await.map_err(|error| format!("{error:?}"))?;
        if random.u8(0..64) == 0 {
            store.compact(&ctx()).await.map_err(|error| format!("{error:?}"))?;
        }
        ctx().sleep(Duration::from_millis(2)).await.map_err(|error| format!("{error:?}"))?;
    }
}

/// One write to the pipe, which is whole or not made: the line is shorter than a pipe's atom.
fn report(line: &str) {
    std::io::stdout().lock().write_all(format!("{line}\n").as_bytes()).unwrap();
}

// The parent.

fn kill_again_and_again(durability: Durability, cycles: u64) -> Result<(), String> {
    let seed = number("CUBBYHOLE_CRASH_SEED", fastrand::u64(..));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut totals = Totals::default();
    for file in 0..cycles.div_ceil(CYCLES_A_FILE) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.redb");
        let mut models = vec![Model::default(); TASKS as usize];
        for cycle in 0..CYCLES_A_FILE.min(cycles - file * CYCLES_A_FILE) {
            let drawn = random.u64(..);
            // Not by chance: at times most kills would come early.
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
    // Where the load hardly began nothing was shown.
    let enough = totals.acknowledged > totals.kills * 20 && totals.early < totals.kills / 2;
    if enough { Ok(()) } else { Err(format!("too little was written to tell: {totals:?}")) }
}

#[derive(Debug, Default)]
struct Totals {
    kills: u64,
    acknowledged: u64,
    /// Kills before anything was acknowledged: while the file is created, or opened.
    early: u64,
}

/// What a task was answered.
type Acknowledged = (u64, Answer);

/// Runs the load in a separate process and kills it: after `wanted` answers and then anywhere in
/// the next milliseconds, or at any time after its start if none are wanted.
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
    // Not a wait for anything: it only decides where the kill falls.
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

/// Opens the file and holds it against what was acknowledged. The entries of each task.
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
    let store = opened.map_err(|error| format!("it does not open: {error:?}"))?;
    let found = check(&store, candidates).await?;
    store.close(&ctx()).await.map_err(|error| format!("{error:?}"))?;
    let diagnosis = diagnose(&ctx(), &config).await.map_err(|error| format!("{error:?}"))?;
    if diagnosis.verdict() != Verdict::Ok {
        return Err(format!("{diagnosis:?}"));
    }
    Ok(found)
}

/// What each task may find: all that was acknowledged, with the call under way or without it; of a
/// relaxed store, what there was after any of its calls.
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

/// The harness sees what it is there for: a file that lacks one acknowledged call is not accepted.
fn forgetting_is_caught() -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let mut random = fastrand::Rng::with_seed(1);
    let models = vec![Model::default(); TASKS as usize];
    let mut acknowledged = run_and_kill(&path, 7, Durability::Immediate, 300, &mut random)?;
    // Calls that nobody made.
    let last = Script::new(7, 0, Model::default());
    acknowledged.extend(first_answers(last, &acknowledged, 40)?);
    let examined = examine(&path, models, 7, &acknowledged, Durability::Immediate);
    match runtime().block_on(examined) {
        Err(text) if text.starts_with("task 0 finds") => Ok(()),
        other => Err(format!("forty lost calls were not noticed: {other:?}")),
    }
}

/// The answers that the first task would have had next.
fn first_answers(
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
