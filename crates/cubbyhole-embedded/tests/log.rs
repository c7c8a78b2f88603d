//! The write-ahead log: its records survive a crash, and later records are not disturbed by older
//! ones.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cubbyhole_core::{
    Backend, Batch, Bytes, EntryStore, ErrorKind, ManualClock, NamespacePrefix, PutOptions, Store,
    Timestamp,
};
use cubbyhole_embedded::{Durability, EmbeddedStore};
use support::{Disk, bytes, contents, ctx, ns};

const LOG: usize = 1024 * 1024;
const SECTOR: usize = 512;

/// The disk after the process was killed, which keeps the page cache.
fn killed(disk: &Disk) -> Arc<Disk> {
    Disk::holding(disk.image())
}

async fn put(store: &EmbeddedStore, key: &str, value: &str) {
    store.put(&ctx(), &ns(), key, bytes(value)).await.unwrap();
}

/// The end of the last log sector that is not zero.
fn end_of_log(image: &[u8]) -> usize {
    let mut sectors = image[..LOG].chunks(SECTOR);
    SECTOR * sectors.rposition(|sector| sector.iter().any(|byte| *byte != 0)).unwrap() + SECTOR
}

#[tokio::test(flavor = "multi_thread")]
async fn put_takes_one_sync_and_one_sector() {
    let disk = Disk::new();
    let store = disk.open().await;
    for _ in 0..20 {
        // The first put makes a checkpoint, and some extend the file.
        put(&store, "a", "u").await;
    }
    let (syncs, before) = (disk.syncs.load(Ordering::SeqCst), disk.image());
    put(&store, "a", "v").await;
    assert_eq!(disk.syncs.load(Ordering::SeqCst), syncs + 1);
    let after = disk.image();
    assert_eq!(before.len(), after.len());
    let changed = before.chunks(SECTOR).zip(after.chunks(SECTOR)).filter(|(a, b)| a != b).count();
    assert_eq!(changed, 1, "sectors");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_store_keeps_writes_over_repeated_opens() {
    let disk = Disk::new();
    let store = disk.open().await;
    let long = "long ".repeat(1_000);
    for n in 0..100 {
        let value = if n % 4 == 0 { long.as_str() } else { "short" };
        put(&store, &format!("{}", n % 30), value).await;
        if n % 7 == 0 {
            store.delete(&ctx(), &ns(), &format!("{}", n % 20)).await.unwrap();
        }
        if n % 5 == 0 {
            let hour = PutOptions::new().with_ttl(Duration::from_secs(3_600));
            store.put_with_options(&ctx(), &ns(), "ttl", bytes("v"), hour).await.unwrap();
        }
    }
    let expected = contents(&store).await;
    let once = killed(&disk);
    let first = once.open().await;
    assert_eq!(contents(&first).await, expected);
    first.verify(&ctx()).await.unwrap();
    let twice = killed(&once).open().await;
    assert_eq!(contents(&twice).await, expected);
    put(&twice, "more", "v").await;
    drop(twice);
    // An image that is taken after `first` was closed has the same contents.
    drop(first);
    assert_eq!(contents(&killed(&once).open().await).await, expected);
}

/// Writes several times the size of the log, with values of all sizes up to more than the log.
#[tokio::test(flavor = "multi_thread")]
async fn writes_beyond_the_log_size_survive_power_loss() {
    let disk = Disk::new();
    let store = disk.open().await;
    let mut expected = contents(&store).await;
    for (n, length) in [10, 900, 901, 70_000, 400_000, 1_040_000, 1_100_000, 3_000_000, 10]
        .into_iter()
        .cycle()
        .take(40)
        .enumerate()
    {
        let (key, value) = (format!("{}", n % 7), Bytes::from(vec![n as u8; length]));
        store.put(&ctx(), &ns(), &key, value.clone()).await.unwrap();
        expected.insert(key, value);
        let rescued = disk.after_power_loss().open().await;
        assert!(contents(&rescued).await == expected, "after {length} bytes");
    }
    let removals = (0..500).fold(Batch::new(), |batch, n| batch.delete(format!("{n}")));
    for _ in 0..6 {
        store.write(&ctx(), &ns(), removals.clone()).await.unwrap();
        let fill = (0..500).fold(Batch::new(), |batch, n| batch.put(format!("{n}"), bytes("v")));
        store.write(&ctx(), &ns(), fill).await.unwrap();
    }
    let rescued = disk.after_power_loss().open().await;
    assert_eq!(contents(&rescued).await.len(), 500);
    rescued.verify(&ctx()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn erasure_and_sweep_are_replayed() {
    let disk = Disk::new();
    let clock = ManualClock::new(Timestamp::from_millis(1_000_000).unwrap());
    let config = disk.config().with_clock(clock.clone());
    let store = EmbeddedStore::open(&ctx(), config).await.unwrap();
    let second = PutOptions::new().with_ttl(Duration::from_secs(1));
    for n in 0..20 {
        store.put_with_options(&ctx(), &ns(), &n.to_string(), bytes("v"), second).await.unwrap();
    }
    put(&store, "stays", "v").await;
    let gone = cubbyhole_core::Namespace::parse("acme:gone").unwrap();
    store.put(&ctx(), &gone, "a", bytes(&"x".repeat(2_000))).await.unwrap();
    clock.advance(Duration::from_secs(2));
    assert_eq!(store.evict_expired(&ctx()).await.unwrap(), 20);
    let erased = store.erase(&ctx(), &NamespacePrefix::from(gone), 10).await.unwrap();
    assert_eq!(erased.removed, 1);
    // With an earlier clock, revived entries would be visible.
    let early = ManualClock::new(Timestamp::EPOCH);
    let rescued = killed(&disk).config().with_clock(early);
    let rescued = EmbeddedStore::open(&ctx(), rescued).await.unwrap();
    let all = NamespacePrefix::from(cubbyhole_core::Namespace::parse("acme").unwrap());
    let usage = rescued.usage(&ctx(), &all).await.unwrap();
    assert_eq!((usage.entries, usage.expired), (1, 0));
    rescued.verify(&ctx()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn clock_mark_of_killed_store_is_replayed() {
    let disk = Disk::new();
    let clock = ManualClock::new(Timestamp::from_millis(1_000_000).unwrap());
    let config = disk.config().with_clock(clock.clone());
    let store = EmbeddedStore::open(&ctx(), config).await.unwrap();
    let second = PutOptions::new().with_ttl(Duration::from_secs(1));
    store.put_with_options(&ctx(), &ns(), "a", bytes("v"), second).await.unwrap();
    clock.advance(Duration::from_secs(5));
    put(&store, "b", "written when the other had expired").await;
    clock.set(Timestamp::from_millis(1_000_000).unwrap());
    for durability in [Durability::Immediate, Durability::Relaxed] {
        // Opens twice without a write in between.
        let disk = killed(&disk);
        for _ in 0..2 {
            let config = disk.config().with_clock(clock.clone()).with_durability(durability);
            let rescued = EmbeddedStore::open(&ctx(), config).await.unwrap();
            assert_eq!(contents(&rescued).await.into_keys().collect::<Vec<_>>(), ["b"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn close_and_compact_leave_no_log_to_replay() {
    let disk = Disk::new();
    let store = disk.open().await;
    for n in 0..50 {
        put(&store, &n.to_string(), "v").await;
    }
    store.compact(&ctx()).await.unwrap();
    let mut compacted = disk.image();
    put(&store, "after", "v").await;
    put(&store, "after", "w").await;
    let expected = contents(&store).await;
    assert_eq!(contents(&killed(&disk).open().await).await, expected);
    store.close(&ctx()).await.unwrap();
    let mut closed = disk.image();
    // The contents must be complete without the log.
    closed[SECTOR..LOG].fill(0);
    assert_eq!(contents(&Disk::holding(closed).open().await).await, expected);
    compacted[SECTOR..LOG].fill(0);
    assert_eq!(contents(&Disk::holding(compacted).open().await).await.len(), 50);
}

/// Opens one file alternately with both kinds of durability.
#[tokio::test(flavor = "multi_thread")]
async fn relaxed_store_replays_and_empties_the_log() {
    let mut disk = Disk::new();
    let store = disk.open().await;
    let mut expected = contents(&store).await;
    for round in 0..4 {
        let kinds = [Durability::Relaxed, Durability::Immediate];
        for (durability, name) in kinds.into_iter().zip(["relaxed", "immediate"]) {
            let config = disk.config().with_durability(durability);
            let store = EmbeddedStore::open(&ctx(), config).await.unwrap();
            for n in 0..3 {
                // Uses the same keys, so a stale replay would be visible.
                put(&store, &n.to_string(), &format!("{name} {round}")).await;
                expected.insert(n.to_string(), bytes(&format!("{name} {round}")));
            }
            if durability == Durability::Relaxed {
                store.close(&ctx()).await.unwrap();
            }
            disk = killed(&disk);
            assert_eq!(contents(&disk.open().await).await, expected, "{name} {round}");
        }
    }
}

/// A failed read reopens the file while the log has records, and the store continues.
#[tokio::test(flavor = "multi_thread")]
async fn reopening_within_a_log_loses_nothing() {
    let disk = Disk::new();
    let config = disk.config().with_cache_bytes(0);
    let store = EmbeddedStore::open(&ctx(), config).await.unwrap();
    for n in 0..20 {
        put(&store, &format!("k{n}"), &"v".repeat(500)).await;
        if n % 3 == 2 {
            disk.broken_reads.store(true, Ordering::SeqCst);
            let error = store.list(&ctx(), &ns(), None).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            disk.broken_reads.store(false, Ordering::SeqCst);
            assert_eq!(contents(&store).await.len(), n + 1);
            // Reopening makes a checkpoint, so the contents are complete without the log.
            let mut image = disk.image();
            image[SECTOR..LOG].fill(0);
            assert_eq!(contents(&Disk::holding(image).open().await).await.len(), n + 1);
        }
        assert_eq!(contents(&store).await.len(), n + 1);
        assert_eq!(contents(&killed(&disk).open().await).await.len(), n + 1);
    }
}

/// A flipped bit in the log of a killed store is reported as damage, unless it hits the last
/// record, which may then count as not synced.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_log_is_corrupt_without_loss() {
    let disk = Disk::new();
    let store = disk.open().await;
    put(&store, "first", "makes a checkpoint").await;
    for n in 0..8 {
        put(&store, &n.to_string(), &"v".repeat(n * 300)).await;
    }
    let expected = contents(&store).await;
    let last = end_of_log(&disk.image());
    put(&store, "last", "v").await;
    let whole = disk.image();
    assert!(end_of_log(&whole) > last);
    let mut refused = 0;
    for at in (0..end_of_log(&whole)).step_by(61) {
        let mut image = whole.clone();
        image[at] ^= 0x10;
        let disk = Disk::holding(image.clone());
        match EmbeddedStore::open(&ctx(), disk.config()).await {
            Ok(store) => {
                let mut found = contents(&store).await;
                let has_last = found.remove("last").is_some();
                assert_eq!(found, expected, "byte {at}");
                assert!(has_last || at >= last, "byte {at}");
            }
            Err(error) => {
                refused += 1;
                assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}: {error:?}");
                assert!((SECTOR..last).contains(&at), "byte {at}: {error}");
                assert!(disk.image()[..LOG] == image[..LOG], "byte {at}: the log was changed");
            }
        }
    }
    // Bits after the end of a record in its sector have no meaning.
    assert!(refused > (last - SECTOR) / 61 / 2, "{refused}");
}

/// A failed sync of the log may lose earlier writes of the engine, which does not see the error.
/// The engine must not commit these pages, not even when its handle is closed.
#[tokio::test(flavor = "multi_thread")]
async fn engine_commits_nothing_after_failed_log_sync() {
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let disk = Disk::new();
        // With a tiny cache, the engine writes pages before their durable commit.
        let config = disk.config().with_cache_bytes(64 * 1024);
        let store = EmbeddedStore::open(&ctx(), config).await.unwrap();
        let mut expected = contents(&store).await;
        for n in 0..random.usize(20..60) {
            let (key, value) = (format!("k{n}"), Bytes::from(vec![7; random.usize(0..20_000)]));
            store.put(&ctx(), &ns(), &key, value.clone()).await.unwrap();
            expected.insert(key, value);
        }
        *disk.random.lock().unwrap() = fastrand::Rng::with_seed(seed);
        disk.failing_sync.store(1, Ordering::SeqCst);
        // The power is cut shortly afterwards.
        disk.cut_power_after(random.u64(1..150));
        let large = Bytes::from(vec![7; random.usize(0..100_000)]);
        let error = store.put(&ctx(), &ns(), "last", large.clone()).await.unwrap_err();
        drop(store);
        let rescued = EmbeddedStore::open(&ctx(), disk.after_power_cut(&mut random).config()).await;
        let rescued = rescued.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
        let mut found = contents(&rescued).await;
        let last = found.remove("last");
        assert!(last.is_none_or(|last| last == large && error.may_have_been_applied()));
        assert!(found == expected, "seed {seed}");
    }
}
