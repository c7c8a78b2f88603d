//! The store's time: TTLs count while the machine's clock is behind, and `repair` sets the time
//! back.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed unwrap is a failed test"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::{
    Backend, Check, Clock, ClockAction, ClockAhead, EntryStore, ErrorKind, ExecutionContext,
    GetOptions, ManualClock, Namespace, PutOptions, RepairOptions, Store, Timestamp, Verdict,
};
use cubbyhole_embedded::{
    Config, Durability, EmbeddedStore, diagnose, repair, repair_with_options,
};
use support::{Disk, bytes, contents, ctx, ns};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 86_400);

fn ttl(duration: Duration) -> PutOptions {
    PutOptions::new().with_ttl(duration)
}

async fn put(store: &EmbeddedStore, key: &str, options: PutOptions) {
    store.put_with_options(&ctx(), &ns(), key, bytes("v"), options).await.unwrap();
}

async fn is_there(store: &EmbeddedStore, key: &str) -> bool {
    store.get(&ctx(), &ns(), key).await.unwrap().is_some()
}

/// Writes one entry while the clock is ahead, then corrects the clock.
async fn write_ahead(config: &Config, clock: &ManualClock, by: Duration) {
    let right = clock.now();
    clock.set(right.checked_add(by).unwrap());
    let store = EmbeddedStore::open(&ctx(), config.clone()).await.unwrap();
    put(&store, "ahead", PutOptions::new()).await;
    store.close(&ctx()).await.unwrap();
    clock.set(right);
}

/// The store's time, taken from a write.
async fn time(store: &EmbeddedStore) -> Timestamp {
    put(store, "probe", PutOptions::new()).await;
    let probe = store.get_entry(&ctx(), &ns(), "probe", GetOptions::new()).await.unwrap();
    probe.unwrap().meta.updated_at
}

async fn clock_check(config: &Config) -> Check {
    let diagnosis = diagnose(&ctx(), config).await.unwrap();
    let check = diagnosis.checks.iter().find(|check| check.name == "clock");
    check.unwrap_or_else(|| panic!("no check of the clock: {diagnosis:#?}")).clone()
}

#[tokio::test]
async fn ttl_counts_while_the_clock_is_behind() {
    for durability in [Durability::Immediate, Durability::Relaxed] {
        for ahead in [HOUR, TEN_YEARS] {
            let (folder, clock) = (tempfile::tempdir().unwrap(), ManualClock::default());
            let config = Config::new(folder.path().join("s.redb"))
                .with_clock(clock.clone())
                .with_durability(durability);
            write_ahead(&config, &clock, ahead).await;
            let store = EmbeddedStore::open(&ctx(), config).await.unwrap();
            put(&store, "k", ttl(2 * SECOND)).await;
            clock.advance(2 * SECOND - Duration::from_millis(1));
            assert!(is_there(&store, "k").await, "{ahead:?}");
            clock.advance(Duration::from_millis(1));
            assert!(!is_there(&store, "k").await, "{ahead:?}");
            assert_eq!(store.evict_expired(&ctx()).await.unwrap(), 1);
        }
    }
}

/// Closing stores the passed time, even if nothing was written.
#[tokio::test]
async fn ttl_continues_to_count_after_reopening() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), ManualClock::default());
    let config = Config::new(folder.path().join("s.redb")).with_clock(clock.clone());
    write_ahead(&config, &clock, TEN_YEARS).await;
    let open = async || EmbeddedStore::open(&ctx(), config.clone()).await.unwrap();
    let store = open().await;
    put(&store, "k", ttl(3 * SECOND)).await;
    store.close(&ctx()).await.unwrap();
    for second in 0..3 {
        let store = open().await;
        assert!(is_there(&store, "k").await, "after {second} s");
        clock.advance(SECOND);
        store.close(&ctx()).await.unwrap();
    }
    assert!(!is_there(&open().await, "k").await);
}

#[tokio::test]
async fn repair_sets_time_back_and_reports_revived_entries() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), ManualClock::default());
    let config = Config::new(folder.path().join("s.redb")).with_clock(clock.clone());
    let open = async || EmbeddedStore::open(&ctx(), config.clone()).await.unwrap();
    let store = open().await;
    put(&store, "hour", ttl(HOUR)).await;
    put(&store, "second", ttl(SECOND)).await;
    let other = Namespace::parse("other").unwrap();
    for key in ["a", "b"] {
        store.put_with_options(&ctx(), &other, key, bytes("v"), ttl(HOUR)).await.unwrap();
    }
    store.close(&ctx()).await.unwrap();
    clock.advance(SECOND);
    assert_eq!(repair(&ctx(), &config).await.unwrap(), [""; 0], "no repair is necessary");

    write_ahead(&config, &clock, TEN_YEARS).await;
    assert!(!is_there(&open().await, "hour").await);
    let found = clock_check(&config).await;
    assert_eq!(found.verdict, Verdict::Warning);
    assert!(found.finding.contains("315360000 s behind the store's time"), "{found:?}");
    let advice = found.advice.unwrap();
    for part in
        ["correct it", "it was ahead earlier", "doctor --repair", "revives", ": 3, in 2 namespaces"]
    {
        assert!(advice.contains(part), "{part}: {advice}");
    }

    let report = RepairOptions::new().with_clock(ClockAction::Report);
    let found = repair_with_options(&ctx(), &config, &report).await.unwrap();
    assert_eq!(found.repaired, [""; 0]);
    let expected = ClockAhead {
        store_time: "2011-09-07T01:46:41Z".parse().unwrap(),
        clock: clock.now(),
        revived: 3,
        revived_namespaces: 2,
        written_later: 1,
    };
    assert_eq!(found.clock_ahead, Some(expected));
    assert!(!is_there(&open().await, "hour").await, "a report changes nothing");

    let repaired = repair(&ctx(), &config).await.unwrap();
    assert_eq!(
        repaired,
        ["the clock: the store's time was 2011-09-07T01:46:41.000Z and is set back to \
          2001-09-09T01:46:41.000Z; this revives expired entries that were not swept: 3, in 2 \
          namespaces; entries written after that time keep their timestamps and expiry: 1"]
    );
    assert_eq!(clock_check(&config).await.verdict, Verdict::Ok);
    assert_eq!(repair(&ctx(), &config).await.unwrap(), [""; 0], "the second repair finds nothing");
    let store = open().await;
    assert_eq!(time(&store).await, clock.now());
    assert!(is_there(&store, "hour").await && !is_there(&store, "second").await);
    let ahead = store.get_entry(&ctx(), &ns(), "ahead", GetOptions::new()).await.unwrap();
    assert!(ahead.unwrap().meta.updated_at > clock.now(), "the entry keeps its timestamps");
    clock.advance(HOUR);
    assert!(!is_there(&store, "hour").await);
    store.verify(&ctx()).await.unwrap();
}

/// Each log record contains the old time, so the repair must invalidate them.
#[tokio::test(flavor = "multi_thread")]
async fn repaired_time_survives_a_kill() {
    for durability in [Durability::Immediate, Durability::Relaxed] {
        let (disk, clock) = (Disk::new(), ManualClock::default());
        let config =
            |disk: &Arc<Disk>| disk.config().with_clock(clock.clone()).with_durability(durability);
        let right = clock.now();
        clock.set(right.checked_add(TEN_YEARS).unwrap());
        // Always durable, because unflushed writes would not be on the disk.
        let durable = config(&disk).with_durability(Durability::Immediate);
        let store = EmbeddedStore::open(&ctx(), durable).await.unwrap();
        for key in ["a", "b", "c"] {
            put(&store, key, PutOptions::new()).await;
        }
        clock.set(right);
        // The process is killed with records in the log. After the repair it is killed again.
        let killed = Disk::holding(disk.image());
        assert_eq!(repair(&ctx(), &config(&killed)).await.unwrap().len(), 1);
        let again = Disk::holding(killed.image());
        let store = EmbeddedStore::open(&ctx(), config(&again)).await.unwrap();
        assert_eq!(time(&store).await, right);
        assert_eq!(contents(&store).await.len(), 4, "nothing is lost");
        let killed = Disk::holding(again.image());
        let store = EmbeddedStore::open(&ctx(), config(&killed)).await.unwrap();
        assert_eq!(time(&store).await, right);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn repair_is_atomic_under_power_loss() {
    let (disk, clock) = (Disk::new(), ManualClock::default());
    let right = clock.now();
    let ahead = right.checked_add(TEN_YEARS).unwrap();
    clock.set(ahead);
    let store = EmbeddedStore::open(&ctx(), disk.config().with_clock(clock.clone())).await.unwrap();
    for key in ["a", "b", "c"] {
        put(&store, key, PutOptions::new()).await;
    }
    clock.set(right);
    let image = disk.image();
    let mut random = fastrand::Rng::with_seed(5);
    let mut outcomes = Vec::new();
    for operations in 0.. {
        let cut = Disk::holding(image.clone());
        cut.cut_power_after(operations);
        let repaired = repair(&ctx(), &cut.config().with_clock(clock.clone())).await;
        let had_power = cut.has_power();
        let after = cut.after_power_cut(&mut random);
        let rescued = after.config().with_clock(clock.clone());
        let store = EmbeddedStore::open(&ctx(), rescued).await.unwrap();
        let time = time(&store).await;
        assert!(time == right || time == ahead, "{time}");
        if repaired.is_ok() {
            assert_eq!(time, right, "after {operations} operations");
        }
        assert_eq!(contents(&store).await.len(), 4);
        store.verify(&ctx()).await.unwrap();
        outcomes.push(time);
        if had_power {
            break;
        }
    }
    assert!(outcomes.contains(&ahead) && outcomes.contains(&right), "{outcomes:?}");
}

#[tokio::test]
async fn repair_refuses_missing_open_or_read_only_files() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), ManualClock::default());
    let config = Config::new(folder.path().join("s.redb")).with_clock(clock.clone());
    let missing = repair(&ctx(), &config).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Unavailable);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file was created");

    write_ahead(&config, &clock, HOUR).await;
    let store = EmbeddedStore::open(&ctx(), config.clone()).await.unwrap();
    let before = time(&store).await;
    let refused = repair(&ctx(), &config).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.message().contains("open in another process"), "{refused}");
    assert_eq!(time(&store).await, before);
    store.close(&ctx()).await.unwrap();

    let read_only = repair(&ctx(), &config.clone().with_read_only(true)).await.unwrap_err();
    assert_eq!(read_only.kind(), ErrorKind::PermissionDenied, "{read_only}");

    let ended = ExecutionContext::new();
    ended.cancel();
    assert_eq!(repair(&ended, &config).await.unwrap_err().kind(), ErrorKind::Cancelled);
    let store = EmbeddedStore::open(&ctx(), config).await.unwrap();
    assert_eq!(time(&store).await, before);
}
