//! Durability of acknowledged writes, group commit, and recovery from disk failures.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use cubbyhole_core::{
    Backend, Batch, Bytes, Clock, Condition, EntryStore, Error, ErrorKind, ManualClock, PutOptions,
    Store,
};
use cubbyhole_embedded::{Config, Durability, EmbeddedStore, RELAXED_FLUSH_INTERVAL};
use support::{Disk, bytes, contents, ctx, ns, start};

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_write_survives_power_loss() {
    let disk = Disk::new();
    let store = disk.open().await;
    for n in 0..50 {
        let key = format!("key-{n}");
        match n % 3 {
            0 => store.put(&ctx(), &ns(), &key, bytes("v")).await.unwrap(),
            1 => {
                let batch = Batch::new().put(&key, bytes("v")).put(format!("{key}+"), bytes("w"));
                drop(store.write(&ctx(), &ns(), batch).await.unwrap());
            }
            _ => {
                let (options, condition) = (PutOptions::new(), Condition::IfAbsent);
                store.put_entry(&ctx(), &ns(), &key, bytes("v"), options, condition).await.unwrap();
            }
        }
        let rescued = disk.after_power_loss().open().await;
        assert_eq!(contents(&rescued).await, contents(&store).await, "after write {n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn relaxed_write_is_flushed_after_the_interval() {
    let disk = Disk::new();
    let config = disk.config().with_durability(Durability::Relaxed);
    let store = EmbeddedStore::open(&ctx(), config).await.unwrap();
    // The gate blocks every flush.
    let gate = disk.shut_gate();
    store.put(&ctx(), &ns(), "a", bytes("v")).await.unwrap();
    // This also shows that the previous test can fail: it would fail for a store that does not
    // sync.
    assert!(contents(&disk.after_power_loss().open().await).await.is_empty());
    drop(gate);

    // The flush also happens under continuous load: the interval counts from the first unflushed
    // write and needs no pause.
    let busy = ctx();
    let writers: Vec<_> = (0..8)
        .map(|n: usize| {
            let (store, busy) = (store.clone(), busy.clone());
            tokio::spawn(async move {
                while store.put(&busy, &ns(), &n.to_string(), bytes("v")).await.is_ok() {}
            })
        })
        .collect();
    let flushed = async {
        while !contents(&disk.after_power_loss().open().await).await.contains_key("a") {
            ctx().sleep(Duration::from_millis(20)).await.unwrap();
        }
    };
    // A store that waits for a pause would never flush here. The limit is long because the machine
    // may be loaded.
    let in_time = tokio::time::timeout(RELAXED_FLUSH_INTERVAL * 300, flushed).await;
    busy.cancel();
    for writer in writers {
        writer.await.unwrap();
    }
    in_time.expect("the write was never flushed");
}

#[tokio::test(flavor = "multi_thread")]
async fn close_of_relaxed_store_flushes_all_writes() {
    let disk = Disk::new();
    let config = disk.config().with_durability(Durability::Relaxed);
    let store = EmbeddedStore::open(&ctx(), config).await.unwrap();
    store.put(&ctx(), &ns(), "a", bytes("v")).await.unwrap();
    store.close(&ctx()).await.unwrap();
    assert!(contents(&disk.after_power_loss().open().await).await.contains_key("a"));
}

/// Exactly one later call reports the writes that a relaxed store loses to a disk failure.
#[tokio::test(flavor = "multi_thread")]
async fn relaxed_store_reports_lost_writes_once() {
    let mut rounds = vec![true, false];
    while let Some(by_flush) = rounds.pop() {
        let disk = Disk::new();
        let config = disk.config().with_durability(Durability::Relaxed);
        let store = EmbeddedStore::open(&ctx(), config).await.unwrap();
        let syncs = disk.syncs.load(Ordering::SeqCst);
        disk.broken_syncs.store(by_flush, Ordering::SeqCst);
        store.put(&ctx(), &ns(), "a", bytes("v")).await.unwrap();
        if by_flush {
            while disk.failed_syncs.load(Ordering::SeqCst) == 0 {
                ctx().sleep(Duration::from_millis(5)).await.unwrap();
            }
            disk.broken_syncs.store(false, Ordering::SeqCst);
        } else {
            disk.full.store(true, Ordering::SeqCst);
            if disk.syncs.load(Ordering::SeqCst) != syncs {
                // The flush came first, because this thread was delayed. Repeat the round.
                rounds.push(by_flush);
                continue;
            }
            let large = Bytes::from(vec![7; 4 << 20]);
            let refused = store.put(&ctx(), &ns(), "large", large).await.unwrap_err();
            disk.full.store(false, Ordering::SeqCst);
            if refused.message().contains("lost") {
                // The flush came in between, and this is its error. Repeat the round.
                rounds.push(by_flush);
                continue;
            }
        }
        let error = store.put(&ctx(), &ns(), "b", bytes("v")).await.unwrap_err();
        assert!(error.message().contains("lost"), "by flush {by_flush}: {error}");
        assert!(!error.may_have_been_applied());
        store.put(&ctx(), &ns(), "c", bytes("v")).await.unwrap();
        store.close(&ctx()).await.unwrap();
        let kept: Vec<String> = contents(&disk.open().await).await.into_keys().collect();
        assert_eq!(kept, ["c"], "by flush {by_flush}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_writes_share_a_commit() {
    let disk = Disk::new();
    let store = disk.open().await;
    let before = store.commits();
    let gate = disk.shut_gate();
    let put = |n: usize| {
        let store = store.clone();
        start(async move { store.put(&ctx(), &ns(), &n.to_string(), bytes("v")).await })
    };
    let first = put(0);
    disk.wait_for_blocked_sync().await;
    // The writer is blocked in its first commit. All requests that are queued now form the second
    // group.
    let rest: Vec<_> = (1..128).map(put).collect();
    drop(gate);
    first.await.unwrap();
    for put in rest {
        put.await.unwrap();
    }
    assert_eq!(contents(&store).await.len(), 128);
    assert_eq!(store.commits() - before, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_condition_fails_only_its_request() {
    let disk = Disk::new();
    let store = disk.open().await;
    store.put(&ctx(), &ns(), "taken", bytes("old")).await.unwrap();
    let gate = disk.shut_gate();
    let blocker = {
        let store = store.clone();
        start(async move { store.put(&ctx(), &ns(), "x", bytes("v")).await })
    };
    disk.wait_for_blocked_sync().await;
    let put = |key: &'static str| {
        let store = store.clone();
        start(async move {
            let (options, condition) = (PutOptions::new(), Condition::IfAbsent);
            store.put_entry(&ctx(), &ns(), key, bytes("new"), options, condition).await
        })
    };
    let commits = store.commits();
    let (refused, accepted) = (put("taken"), put("free"));
    drop(gate);
    blocker.await.unwrap();
    assert_eq!(refused.await.unwrap_err().kind(), ErrorKind::Conflict);
    accepted.await.unwrap();
    assert_eq!(store.commits() - commits, 2, "the requests were not in one group");
    let contents = contents(&store).await;
    assert_eq!((&contents["taken"], &contents["free"]), (&bytes("old"), &bytes("new")));
}

#[tokio::test(flavor = "multi_thread")]
async fn store_recovers_after_full_disk() {
    let disk = Disk::new();
    let store = disk.open().await;
    store.put(&ctx(), &ns(), "before", bytes("v")).await.unwrap();
    let large = Bytes::from(vec![7; 1 << 20]);

    for round in 0..3 {
        disk.full.store(true, Ordering::SeqCst);
        for _ in 0..2 {
            let error = store.put(&ctx(), &ns(), "during", large.clone()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "round {round}: {error}");
            assert_eq!(error.operation(), Some("put"));
        }
        disk.full.store(false, Ordering::SeqCst);
        let key = format!("after-{round}");
        store.put(&ctx(), &ns(), &key, large.clone()).await.unwrap();
        assert_eq!(store.get(&ctx(), &ns(), "before").await.unwrap(), Some(bytes("v")));
        assert_eq!(store.get(&ctx(), &ns(), &key).await.unwrap().as_ref(), Some(&large));
    }
    let rescued = disk.after_power_loss().open().await;
    assert_eq!(contents(&rescued).await, contents(&store).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_sync_has_unknown_outcome_and_store_recovers() {
    let disk = Disk::new();
    let store = disk.open().await;
    store.put(&ctx(), &ns(), "before", bytes("v")).await.unwrap();
    disk.broken_syncs.store(true, Ordering::SeqCst);
    let error = store.put(&ctx(), &ns(), "during", bytes("v")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.may_have_been_applied(), "{error}");
    disk.broken_syncs.store(false, Ordering::SeqCst);
    store.put(&ctx(), &ns(), "after", bytes("v")).await.unwrap();
    let rescued = contents(&disk.after_power_loss().open().await).await;
    assert!(rescued.contains_key("before") && rescued.contains_key("after"));
}

/// A reader reopens the file, and a commit that waited for this fails. The writer must reopen the
/// file again. Otherwise reads would use a handle whose view differs from the file.
#[tokio::test(flavor = "multi_thread")]
async fn all_reads_agree_after_an_unknown_outcome() {
    const SYNCS: usize = 9;
    let mut applied = 0;
    // Let each of the syncs fail once. Then repeat until a put of unknown outcome was applied.
    for (attempt, failing_sync) in (1..=SYNCS as u64).cycle().take(100 * SYNCS).enumerate() {
        if attempt >= SYNCS && applied > 0 {
            break;
        }
        let disk = Disk::new();
        let store = disk.open().await;
        store.put(&ctx(), &ns(), "k", bytes("old")).await.unwrap();
        // The handle fails and cannot be replaced.
        disk.broken_syncs.store(true, Ordering::SeqCst);
        disk.broken_reads.store(true, Ordering::SeqCst);
        store.put(&ctx(), &ns(), "lost", bytes("v")).await.unwrap_err();
        disk.broken_syncs.store(false, Ordering::SeqCst);
        disk.broken_reads.store(false, Ordering::SeqCst);
        let gate = disk.shut_gate();
        let reader = store.clone();
        let read = tokio::spawn(async move { reader.get(&ctx(), &ns(), "k").await });
        disk.wait_for_blocked_sync().await;
        let writer = store.clone();
        let put = start(async move { writer.put(&ctx(), &ns(), "k", bytes("new")).await });
        // The writer should wait for the lock before the gate opens. If it does not, this attempt
        // shows nothing.
        ctx().sleep(Duration::from_millis(20)).await.unwrap();
        disk.failing_sync.store(failing_sync, Ordering::SeqCst);
        drop(gate);
        let (put, _) = (put.await, read.await.unwrap());
        disk.failing_sync.store(0, Ordering::SeqCst);

        let before = store.get(&ctx(), &ns(), "k").await.unwrap();
        // This write needs a working handle.
        store.put(&ctx(), &ns(), "other", bytes("v")).await.unwrap();
        let after = store.get(&ctx(), &ns(), "k").await.unwrap();
        assert_eq!(before, after, "sync {failing_sync} failed, the put returned {put:?}");
        let is_unknown = put.is_err_and(|error| error.may_have_been_applied());
        applied += u32::from(is_unknown && after == Some(bytes("new")));
    }
    assert!(applied > 0, "no put of unknown outcome was applied");
}

#[tokio::test(flavor = "multi_thread")]
async fn store_recovers_after_failed_read() {
    let disk = Disk::new();
    // Without a cache, every read accesses the disk.
    let store = EmbeddedStore::open(&ctx(), disk.config().with_cache_bytes(0)).await.unwrap();
    store.put(&ctx(), &ns(), "a", bytes("v")).await.unwrap();
    disk.broken_reads.store(true, Ordering::SeqCst);
    let error = store.get(&ctx(), &ns(), "a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(!error.may_have_been_applied());
    disk.broken_reads.store(false, Ordering::SeqCst);
    assert_eq!(store.get(&ctx(), &ns(), "a").await.unwrap(), Some(bytes("v")));
    store.put(&ctx(), &ns(), "b", bytes("w")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn entry_seen_expired_stays_expired_after_clock_step_back() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::default();
    let start = clock.now();
    let config = Config::new(folder.path().join("s.redb")).with_clock(clock.clone());

    let store = EmbeddedStore::open(&ctx(), config.clone()).await.unwrap();
    let options = PutOptions::new().with_ttl(Duration::from_secs(10));
    store.put_with_options(&ctx(), &ns(), "a", bytes("v"), options).await.unwrap();
    clock.advance(Duration::from_secs(11));
    assert_eq!(store.get(&ctx(), &ns(), "a").await.unwrap(), None);
    clock.set(start);
    assert_eq!(store.get(&ctx(), &ns(), "a").await.unwrap(), None, "on the same handle");
    drop(store);

    let store = EmbeddedStore::open(&ctx(), config).await.unwrap();
    assert_eq!(store.get(&ctx(), &ns(), "a").await.unwrap(), None, "after opening again");
}

#[tokio::test(flavor = "multi_thread")]
async fn space_of_deleted_entries_is_reused_and_returned() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let store = EmbeddedStore::open(&ctx(), Config::new(&path)).await.unwrap();
    let length = || std::fs::metadata(&path).unwrap().len();
    let mut sizes = Vec::new();
    for _ in 0..8 {
        for n in 0..40 {
            let value = Bytes::from(vec![n; 100_000]);
            store.put(&ctx(), &ns(), &n.to_string(), value).await.unwrap();
        }
        for n in 0..40_u8 {
            store.delete(&ctx(), &ns(), &n.to_string()).await.unwrap();
        }
        sizes.push(length());
    }
    // The file does not grow with the number of writes, 32 MB in total.
    assert!(sizes[7] <= sizes[1], "the file grows: {sizes:?}");
    let compaction = store.compact(&ctx()).await.unwrap();
    assert_eq!(compaction.bytes_before, Some(sizes[7]));
    assert_eq!(compaction.bytes_after, Some(length()));
    assert!(length() * 4 < sizes[7], "{} of {}", length(), sizes[7]);
    store.put(&ctx(), &ns(), "after", bytes("v")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn compact_never_grows_the_file() {
    for entries in [0, 3, 2_000, 30_000_usize] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.redb");
        let store = EmbeddedStore::open(&ctx(), Config::new(&path)).await.unwrap();
        let numbers: Vec<usize> = (0..entries).collect();
        for chunk in numbers.chunks(1000) {
            let batch = chunk
                .iter()
                .fold(Batch::new(), |batch, n| batch.put(n.to_string(), Bytes::from(vec![7; 256])));
            store.write(&ctx(), &ns(), batch).await.unwrap();
        }
        let length = || std::fs::metadata(&path).unwrap().len();
        let before = length();
        let compaction = store.compact(&ctx()).await.unwrap();
        assert_eq!(compaction.bytes_before, Some(before));
        assert_eq!(compaction.bytes_after, Some(length()));
        assert!(length() <= before, "{entries} entries: {before} became {}", length());
        let usage = store.usage(&ctx(), &ns().into()).await.unwrap();
        assert_eq!(usage.entries, entries as u64);
        store.put(&ctx(), &ns(), "after", bytes("v")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_file_is_not_replaced_by_an_empty_store() {
    let disk = Disk::new();
    let store = EmbeddedStore::open(&ctx(), disk.config().with_cache_bytes(0)).await.unwrap();
    store.put(&ctx(), &ns(), "a", bytes("v")).await.unwrap();
    disk.truncate(0);
    // The read past the end fails, and the file is reopened, but it contains no store.
    let read = store.get(&ctx(), &ns(), "a").await.unwrap_err();
    assert_eq!(read.kind(), ErrorKind::Corrupt, "{read}");
    let write = store.put(&ctx(), &ns(), "b", bytes("v")).await.unwrap_err();
    assert_eq!(write.kind(), ErrorKind::Corrupt, "{write}");
    assert_eq!(disk.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_on_closed_store_fail_as_closed() {
    let disk = Disk::new();
    let store = disk.open().await;
    store.put(&ctx(), &ns(), "a", bytes("v")).await.unwrap();
    store.close(&ctx()).await.unwrap();
    store.close(&ctx()).await.unwrap();
    let read = store.get(&ctx(), &ns(), "a").await.unwrap_err();
    let write = store.put(&ctx(), &ns(), "a", bytes("v")).await.unwrap_err();
    for error in [read, write] {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("closed"), "{error}");
    }
    assert!(contents(&disk.open().await).await.contains_key("a"));
}

/// The call does not wait for the writer, but later writes are queued after the close request.
#[tokio::test(flavor = "multi_thread")]
async fn close_with_ended_context_still_closes() {
    let disk = Disk::new();
    let store = disk.open().await;
    store.put(&ctx(), &ns(), "a", bytes("v")).await.unwrap();
    let ended = ctx();
    ended.cancel();
    assert_eq!(store.close(&ended).await.unwrap_err().kind(), ErrorKind::Cancelled);
    let refused = store.put(&ctx(), &ns(), "b", bytes("v")).await.unwrap_err();
    assert_eq!(refused.message(), Error::closed().message());
    store.close(&ctx()).await.unwrap();
    let kept: Vec<String> = contents(&disk.open().await).await.into_keys().collect();
    assert_eq!(kept, ["a"]);
}
