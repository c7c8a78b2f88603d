//! The power goes, and the disk fails: what was acknowledged is there and calls are whole.
//!
//! The disk is one in memory (`support/mod.rs`). What was written since the last sync reaches it in
//! any order, torn at sectors, or not at all; a sync that failed has lost what it did not write,
//! and the next one does not say so. `kill -9`, which leaves the system's own memory of the file as
//! it is, is in `crash.rs`.
//!
//! - `CUBBYHOLE_CRASH_CYCLES`: how many times the power goes, in place of [`CUTS`].
//! - `CUBBYHOLE_CRASH_SEED`: the seed that a failure printed.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use cubbyhole_core::{Backend, EntryStore, ErrorKind, Store};
use cubbyhole_embedded::{Durability, EmbeddedStore};
use support::script::{Model, Script, check};
use support::{Disk, ctx};

const CUTS: u64 = 200;
const TASKS: u64 = 6;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// The tasks, and what each had acknowledged when it met the failure.
async fn write_until_failure(store: &EmbeddedStore, scripts: Vec<Script>) -> Vec<Script> {
    let mut tasks = tokio::task::JoinSet::new();
    for mut script in scripts {
        let store = store.clone();
        tasks.spawn(async move {
            while let Ok(answer) = script.call(&store).await {
                script.settle(answer).unwrap();
                // So that sweeps get between the calls of a store that never waits.
                tokio::task::yield_now().await;
            }
            script
        });
    }
    let sweeps = tokio::spawn({
        let store = store.clone();
        async move {
            while store.evict_expired(&ctx()).await.is_ok() {
                if fastrand::u8(0..8) == 0 && store.compact(&ctx()).await.is_err() {
                    return;
                }
                ctx().sleep(Duration::from_millis(1)).await.unwrap();
            }
        }
    });
    let mut scripts = tasks.join_all().await;
    sweeps.await.unwrap();
    scripts.sort_by_key(Script::task);
    scripts
}

fn begin(seed: u64, models: Vec<Model>) -> Vec<Script> {
    models.into_iter().zip(0..).map(|(model, task)| Script::new(seed, task, model)).collect()
}

fn due(scripts: Vec<Script>) -> Vec<Vec<Model>> {
    scripts.into_iter().map(|mut script| script.candidates()).collect()
}

/// One disk, on which the power goes again and again. How many calls were acknowledged.
async fn cut_again_and_again(
    cuts: u64,
    durability: Durability,
    lies: bool,
    random: &mut fastrand::Rng,
) -> Result<u64, String> {
    let mut disk = Disk::new();
    let mut models = vec![Model::default(); TASKS as usize];
    let mut acknowledged = 0;
    for cut in 0..cuts {
        let config = disk.config().with_durability(durability);
        if cut > 0 && random.u8(0..4) == 0 {
            // While it is opened after the last time. (A new store gets its name when it is on
            // disk; `crash.rs` kills that.)
            disk.cut_power_after(random.u64(0..40));
        }
        let mut scripts = begin(random.u64(..), models);
        if let Ok(store) = EmbeddedStore::open(&ctx(), config).await {
            disk.lies.store(lies, SeqCst);
            disk.cut_power_after(random.u64(0..2_000));
            scripts = write_until_failure(&store, scripts).await;
            acknowledged += scripts.iter().map(Script::step).sum::<u64>();
            drop(store);
        }
        disk = disk.after_power_cut(random);
        let opened = EmbeddedStore::open(&ctx(), disk.config().with_integrity_check(true)).await;
        let store = opened.map_err(|error| format!("cut {cut}: it does not open: {error:?}"))?;
        models = check(&store, due(scripts)).await.map_err(|text| format!("cut {cut}: {text}"))?;
        // Its close removes erased bytes from the file, and the power may go meanwhile.
        let nobody = "nobody".parse().unwrap();
        store.erase(&ctx(), &nobody, 1).await.map_err(|error| format!("cut {cut}: {error:?}"))?;
        let goes = random.bool();
        if goes {
            disk.cut_power_after(random.u64(0..800));
        }
        match store.close(&ctx()).await {
            Err(error) if disk.has_power() => return Err(format!("cut {cut}: {error:?}")),
            _ => drop(store),
        }
        if goes {
            disk = disk.after_power_cut(random);
        }
    }
    Ok(acknowledged)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_power_loss_what_was_acknowledged_is_there_and_calls_are_whole() {
    let seed = number("CUBBYHOLE_CRASH_SEED", fastrand::u64(..));
    let mut random = fastrand::Rng::with_seed(seed);
    let cuts = number("CUBBYHOLE_CRASH_CYCLES", CUTS);
    let mut acknowledged = 0;
    for _ in 0..cuts.div_ceil(20) {
        let cut = cut_again_and_again(20, Durability::Immediate, false, &mut random).await;
        acknowledged += cut.unwrap_or_else(|text| panic!("{text}\n  seed {seed}"));
    }
    assert!(acknowledged > cuts * 20, "{acknowledged} calls do not tell much");
}

/// The tests see what they are there for: a commit that is not synced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_without_a_sync_is_caught() {
    let mut random = fastrand::Rng::with_seed(3);
    let relaxed = cut_again_and_again(20, Durability::Relaxed, false, &mut random).await;
    assert!(relaxed.is_err_and(|text| text.contains("is due")), "by the store");
    let lying = cut_again_and_again(20, Durability::Immediate, true, &mut random).await;
    assert!(lying.is_err(), "by the disk");
}

/// Writes that are short, a disk that is full for a moment, syncs that fail: calls fail and say
/// whether they had an effect, the same store goes on, and a power loss at the end finds it all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_now_and_then_loses_no_acknowledged_call() {
    let seed = number("CUBBYHOLE_CRASH_SEED", fastrand::u64(..));
    let mut told = Told::default();
    let rounds = number("CUBBYHOLE_CRASH_CYCLES", CUTS).div_ceil(8);
    for round in 0..rounds {
        let seed = seed.wrapping_add(round);
        let part = fail_now_and_then(&mut fastrand::Rng::with_seed(seed)).await;
        let part = part.unwrap_or_else(|text| panic!("{text}\n  seed {seed}"));
        told.done += part.done;
        told.failed += part.failed;
    }
    assert!(told.failed > rounds * 10 && told.done > rounds * 100, "{told:?}");
}

#[derive(Debug, Default)]
struct Told {
    done: u64,
    failed: u64,
}

async fn fail_now_and_then(random: &mut fastrand::Rng) -> Result<Told, String> {
    let disk = Disk::new();
    // A small cache, so that reads meet the disk too.
    let config = disk.config().with_cache_bytes(64 * 1024);
    let store = EmbeddedStore::open(&ctx(), config).await.map_err(|error| format!("{error:?}"))?;
    *disk.random.lock().unwrap() = fastrand::Rng::with_seed(random.u64(..));
    let one_in = [30, 100, 400][random.usize(0..3)];
    disk.fails_one_in.store(one_in, SeqCst);
    if random.bool() {
        disk.cut_power_after(random.u64(1_000..10_000));
    }
    let mut tasks = tokio::task::JoinSet::new();
    for script in begin(random.u64(..), vec![Model::default(); TASKS as usize]) {
        tasks.spawn(go_on(store.clone(), script.without_expiry(), Arc::clone(&disk)));
    }
    let mut told = Told::default();
    let mut scripts = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        let (script, part) = ended.map_err(|error| error.to_string())??;
        told.done += part.done;
        told.failed += part.failed;
        scripts.push(script);
    }
    scripts.sort_by_key(Script::task);
    disk.fails_one_in.store(0, SeqCst);
    let after = EmbeddedStore::open(&ctx(), disk.after_power_cut(random).config()).await;
    let after = after.map_err(|error| format!("after the power it does not open: {error:?}"))?;
    check(&after, due(scripts.clone())).await.map_err(|text| format!("after the power: {text}"))?;
    // And the store itself goes on.
    if disk.has_power() {
        disk.keep_power();
        check(&store, due(scripts)).await?;
    }
    Ok(told)
}

/// Calls that fail, and others in between. What is unknown is found out by looking.
async fn go_on(
    store: EmbeddedStore,
    mut script: Script,
    disk: Arc<Disk>,
) -> Result<(Script, Told), String> {
    let mut told = Told::default();
    while told.done < 150 {
        match script.call(&store).await {
            Ok(answer) => {
                script.settle(answer)?;
                told.done += 1;
            }
            Err(_) if !disk.has_power() => break,
            Err(error) => {
                told.failed += 1;
                let due = [ErrorKind::Unavailable, ErrorKind::ResourceExhausted];
                if !due.contains(&error.kind()) {
                    return Err(format!("an error of another kind: {error:?}"));
                }
                let mut possible = script.candidates();
                if !error.may_have_been_applied() {
                    possible.truncate(1);
                }
                let Some(found) = look(&store, script.task(), &disk).await? else { break };
                if !possible.contains(&found) {
                    let possible: Vec<_> = possible.iter().map(Model::brief).collect();
                    let due = possible.join("\n  or ");
                    return Err(format!("found {}\n  due {due}\n  after {error:?}", found.brief()));
                }
                script.resolve(found);
            }
        }
    }
    Ok((script, told))
}

/// How often a look may fail. Opening a file anew takes hundreds of operations, and one in thirty
/// that fails lets them hardly ever come to their end.
const MOST_LOOKS: u32 = 20;

/// What a task finds, once the disk lets it; nothing if the power goes first. The disk is well for
/// a while, if that takes long.
async fn look(store: &EmbeddedStore, task: u64, disk: &Disk) -> Result<Option<Model>, String> {
    let patience = ctx().with_timeout(Duration::from_secs(60));
    let (mut looks, mut failing) = (0, 0);
    let found = loop {
        match Model::read(store, task).await {
            Ok(model) => break Ok(Some(model)),
            Err(_) if !disk.has_power() => break Ok(None),
            Err(error) => {
                looks += 1;
                if looks % MOST_LOOKS == 0 {
                    // Zero where another task has had it well meanwhile.
                    failing = disk.fails_one_in.swap(0, SeqCst).max(failing);
                }
                if patience.sleep(Duration::from_millis(1)).await.is_err() {
                    break Err(format!("no end of it: {error:?}"));
                }
            }
        }
    };
    if failing != 0 {
        disk.fails_one_in.store(failing, SeqCst);
    }
    found
}
