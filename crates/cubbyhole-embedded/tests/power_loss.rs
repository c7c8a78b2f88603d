//! Power loss and disk failures: acknowledged calls are kept, and every call is atomic.
//!
//! The disk is simulated in memory (`support/mod.rs`). A write since the last sync reaches it in
//! any order, torn at sector boundaries, or not at all. A failed sync loses the writes that it did
//! not complete, and the next sync does not report this. `crash.rs` tests `kill -9`, which keeps
//! the page cache.
//!
//! - `CUBBYHOLE_CRASH_CYCLES`: the number of power cuts; [`CUTS`] by default.
//! - `CUBBYHOLE_CRASH_SEED`: the seed that a failed test printed.
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

/// About one power cut in seven shows that commits were not synced: sweeps sync the file every few
/// milliseconds. With this many, the harness overlooks it less than once in 10^26 runs.
const CUTS_UNTIL_DETECTED: u64 = 400;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Runs each script until one of its calls fails. Returns the scripts with their acknowledgements.
async fn write_until_failure(store: &EmbeddedStore, scripts: Vec<Script>) -> Vec<Script> {
    let mut tasks = tokio::task::JoinSet::new();
    for mut script in scripts {
        let store = store.clone();
        tasks.spawn(async move {
            while let Ok(answer) = script.call(&store).await {
                script.settle(answer).unwrap();
                // Lets sweeps run between calls that never wait.
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

fn scripts_for(seed: u64, models: Vec<Model>) -> Vec<Script> {
    models.into_iter().zip(0..).map(|(model, task)| Script::new(seed, task, model)).collect()
}

fn all_candidates(scripts: Vec<Script>) -> Vec<Vec<Model>> {
    scripts.into_iter().map(|mut script| script.candidates()).collect()
}

/// Cuts the power of one disk repeatedly. Returns the number of acknowledged calls.
async fn cut_repeatedly(
    cuts: u64,
    durability: Durability,
    ignores_syncs: bool,
    random: &mut fastrand::Rng,
) -> Result<u64, String> {
    let mut disk = Disk::new();
    let mut models = vec![Model::default(); TASKS as usize];
    let mut acknowledged = 0;
    for cut in 0..cuts {
        let config = disk.config().with_durability(durability);
        if cut > 0 && random.u8(0..4) == 0 {
            // Cuts the power while the file is opened again. `crash.rs` interrupts its creation.
            disk.cut_power_after(random.u64(0..40));
        }
        let mut scripts = scripts_for(random.u64(..), models);
        if let Ok(store) = EmbeddedStore::open(&ctx(), config).await {
            disk.ignores_syncs.store(ignores_syncs, SeqCst);
            disk.cut_power_after(random.u64(0..2_000));
            scripts = write_until_failure(&store, scripts).await;
            acknowledged += scripts.iter().map(Script::step).sum::<u64>();
            drop(store);
        }
        disk = disk.after_power_cut(random);
        let opened = EmbeddedStore::open(&ctx(), disk.config().with_integrity_check(true)).await;
        let store = opened.map_err(|error| format!("cut {cut}: cannot open: {error:?}"))?;
        models = check(&store, all_candidates(scripts))
            .await
            .map_err(|text| format!("cut {cut}: {text}"))?;
        // Closing after an erasure purges the file. The power may be cut during the purge.
        let no_tenant = "nobody".parse().unwrap();
        store
            .erase(&ctx(), &no_tenant, 1)
            .await
            .map_err(|error| format!("cut {cut}: {error:?}"))?;
        let cuts_close = random.bool();
        if cuts_close {
            disk.cut_power_after(random.u64(0..800));
        }
        match store.close(&ctx()).await {
            Err(error) if disk.has_power() => return Err(format!("cut {cut}: {error:?}")),
            _ => drop(store),
        }
        if cuts_close {
            disk = disk.after_power_cut(random);
        }
    }
    Ok(acknowledged)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_loss_keeps_acknowledged_calls_and_atomicity() {
    let seed = number("CUBBYHOLE_CRASH_SEED", fastrand::u64(..));
    let mut random = fastrand::Rng::with_seed(seed);
    let cuts = number("CUBBYHOLE_CRASH_CYCLES", CUTS);
    let mut acknowledged = 0;
    for _ in 0..cuts.div_ceil(20) {
        let cut = cut_repeatedly(20, Durability::Immediate, false, &mut random).await;
        acknowledged += cut.unwrap_or_else(|text| panic!("{text}\n  seed {seed}"));
    }
    assert!(acknowledged > cuts * 20, "only {acknowledged} calls were acknowledged");
}

/// The harness must fail for commits that are not synced, by the store or by the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn harness_detects_commits_without_sync() {
    let mut random = fastrand::Rng::with_seed(3);
    let relaxed =
        cut_repeatedly(CUTS_UNTIL_DETECTED, Durability::Relaxed, false, &mut random).await;
    assert!(relaxed.is_err_and(|text| text.contains("expected one of")), "store without syncs");
    let lying = cut_repeatedly(CUTS_UNTIL_DETECTED, Durability::Immediate, true, &mut random).await;
    assert!(lying.is_err(), "disk that ignores syncs");
}

/// With short writes, a temporarily full disk and failing syncs, calls fail and report whether they
/// had an effect. The same store continues, and a power loss at the end keeps all acknowledged
/// calls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn intermittent_disk_errors_lose_no_acknowledged_call() {
    let seed = number("CUBBYHOLE_CRASH_SEED", fastrand::u64(..));
    let mut counts = CallCounts::default();
    let rounds = number("CUBBYHOLE_CRASH_CYCLES", CUTS).div_ceil(8);
    for round in 0..rounds {
        let seed = seed.wrapping_add(round);
        let part = run_with_intermittent_errors(&mut fastrand::Rng::with_seed(seed)).await;
        let part = part.unwrap_or_else(|text| panic!("{text}\n  seed {seed}"));
        counts.succeeded += part.succeeded;
        counts.failed += part.failed;
    }
    assert!(counts.failed > rounds * 10 && counts.succeeded > rounds * 100, "{counts:?}");
}

/// The number of calls by their result.
#[derive(Debug, Default)]
struct CallCounts {
    succeeded: u64,
    failed: u64,
}

async fn run_with_intermittent_errors(random: &mut fastrand::Rng) -> Result<CallCounts, String> {
    let disk = Disk::new();
    // With a small cache, reads access the disk.
    let config = disk.config().with_cache_bytes(64 * 1024);
    let store = EmbeddedStore::open(&ctx(), config).await.map_err(|error| format!("{error:?}"))?;
    *disk.random.lock().unwrap() = fastrand::Rng::with_seed(random.u64(..));
    let one_in = [30, 100, 400][random.usize(0..3)];
    disk.fails_one_in.store(one_in, SeqCst);
    if random.bool() {
        disk.cut_power_after(random.u64(1_000..10_000));
    }
    let mut tasks = tokio::task::JoinSet::new();
    for script in scripts_for(random.u64(..), vec![Model::default(); TASKS as usize]) {
        tasks.spawn(call_despite_failures(
            store.clone(),
            script.without_expiry(),
            Arc::clone(&disk),
        ));
    }
    let mut counts = CallCounts::default();
    let mut scripts = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        let (script, part) = ended.map_err(|error| error.to_string())??;
        counts.succeeded += part.succeeded;
        counts.failed += part.failed;
        scripts.push(script);
    }
    scripts.sort_by_key(Script::task);
    disk.fails_one_in.store(0, SeqCst);
    let after = EmbeddedStore::open(&ctx(), disk.after_power_cut(random).config()).await;
    let after = after.map_err(|error| format!("cannot open after the power cut: {error:?}"))?;
    check(&after, all_candidates(scripts.clone()))
        .await
        .map_err(|text| format!("after the power cut: {text}"))?;
    // The store itself also continues.
    if disk.has_power() {
        disk.keep_power();
        check(&store, all_candidates(scripts)).await?;
    }
    Ok(counts)
}

/// Makes calls, some of which fail. After an unknown outcome, reads the state to find the actual
/// one.
async fn call_despite_failures(
    store: EmbeddedStore,
    mut script: Script,
    disk: Arc<Disk>,
) -> Result<(Script, CallCounts), String> {
    let mut counts = CallCounts::default();
    while counts.succeeded < 150 {
        match script.call(&store).await {
            Ok(answer) => {
                script.settle(answer)?;
                counts.succeeded += 1;
            }
            Err(_) if !disk.has_power() => break,
            Err(error) => {
                counts.failed += 1;
                let expected = [ErrorKind::Unavailable, ErrorKind::ResourceExhausted];
                if !expected.contains(&error.kind()) {
                    return Err(format!("unexpected kind of error: {error:?}"));
                }
                let mut possible = script.candidates();
                if !error.may_have_been_applied() {
                    possible.truncate(1);
                }
                let Some(found) = read_state(&store, script.task(), &disk).await? else { break };
                if !possible.contains(&found) {
                    let possible: Vec<_> = possible.iter().map(Model::brief).collect();
                    let expected = possible.join("\n  or ");
                    return Err(format!(
                        "found {}\n  expected {expected}\n  after {error:?}",
                        found.brief()
                    ));
                }
                script.resolve(found);
            }
        }
    }
    Ok((script, counts))
}

/// The number of failed reads after which the disk works for a while. Reopening a file takes
/// hundreds of operations, so it hardly ever succeeds if one in thirty fails.
const MAX_FAILED_READS: u32 = 20;

/// Reads a task's entries, retrying on errors. Returns `None` if the power is cut.
async fn read_state(
    store: &EmbeddedStore,
    task: u64,
    disk: &Disk,
) -> Result<Option<Model>, String> {
    let time_limit = ctx().with_timeout(Duration::from_secs(60));
    let (mut failed_reads, mut failing) = (0, 0);
    let found = loop {
        match Model::read(store, task).await {
            Ok(model) => break Ok(Some(model)),
            Err(_) if !disk.has_power() => break Ok(None),
            Err(error) => {
                failed_reads += 1;
                if failed_reads % MAX_FAILED_READS == 0 {
                    // The value is 0 if another task has switched the failures off.
                    failing = disk.fails_one_in.swap(0, SeqCst).max(failing);
                }
                if time_limit.sleep(Duration::from_millis(1)).await.is_err() {
                    break Err(format!("reads keep failing: {error:?}"));
                }
            }
        }
    };
    if failing != 0 {
        disk.fails_one_in.store(failing, SeqCst);
    }
    found
}
