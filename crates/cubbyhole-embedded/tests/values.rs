//! Values of every length, long reads, and the rows that remain in the file.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::path::Path;
use std::time::Duration;

use cubbyhole_core::{
    Batch, Bytes, Condition, EntryStore, Expiry, ManualClock, NamespacePrefix, PutOptions,
    ScanOptions, Store,
};
use cubbyhole_embedded::{Config, EmbeddedStore};
use support::{ctx, ns};

fn value(length: usize) -> Bytes {
    (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect::<Vec<u8>>().into()
}

/// Returns the number of entries in the file, expired ones included. Verifies that there are no
/// other rows.
async fn entries_in(path: &Path) -> u64 {
    let config = Config::new(path).with_create(false);
    let store = EmbeddedStore::open(&ctx(), config).await.unwrap();
    store.verify(&ctx()).await.unwrap();
    let usage = store.usage(&ctx(), &NamespacePrefix::from(ns())).await.unwrap();
    usage.entries + usage.expired
}

/// The last length is a short one after a long one, to check that the long value is removed.
const LENGTHS: [usize; 10] = [0, 1, 899, 900, 901, 4096, 70_000, 899, 300_000, 10];

#[tokio::test(flavor = "multi_thread")]
async fn values_of_every_length_round_trip_through_every_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let store = EmbeddedStore::open(&ctx(), Config::new(&path)).await.unwrap();
    // One key changes its length repeatedly, the others keep theirs.
    for length in LENGTHS {
        store.put(&ctx(), &ns(), "changing", value(length)).await.unwrap();
        store.put(&ctx(), &ns(), &length.to_string(), value(length)).await.unwrap();
        assert_eq!(store.get(&ctx(), &ns(), "changing").await.unwrap(), Some(value(length)));
        assert!(
            store.touch(&ctx(), &ns(), "changing", Expiry::Never, Condition::Always).await.unwrap()
        );
        let ttl = Expiry::After(Duration::from_secs(60));
        assert!(store.touch(&ctx(), &ns(), "changing", ttl, Condition::Always).await.unwrap());
        assert_eq!(store.get(&ctx(), &ns(), "changing").await.unwrap(), Some(value(length)));
    }
    let page = store.scan(&ctx(), &ns(), ScanOptions::new()).await.unwrap();
    for item in page.items {
        let length = item.key.parse().unwrap_or(10);
        assert_eq!(item.value_bytes, Some(length as u64), "{}", item.key);
        assert_eq!(item.value.unwrap().unwrap(), value(length), "{}", item.key);
    }
    let taken = store.take(&ctx(), &ns(), "70000").await.unwrap().unwrap();
    assert_eq!(taken.value, value(70_000));
    let prefix = NamespacePrefix::from(ns());
    assert!(store.erase(&ctx(), &prefix, 1000).await.unwrap().done);
    drop(store);
    assert_eq!(entries_in(&path).await, 0, "rows remain in the file");
}

#[tokio::test(flavor = "multi_thread")]
async fn sweep_removes_all_rows_of_expired_entries() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let clock = ManualClock::default();
    let config = Config::new(&path).with_clock(clock.clone());
    let store = EmbeddedStore::open(&ctx(), config).await.unwrap();
    for length in LENGTHS {
        let options = PutOptions::new().with_ttl(Duration::from_secs(1));
        let key = length.to_string();
        store.put_with_options(&ctx(), &ns(), &key, value(length), options).await.unwrap();
    }
    store.put(&ctx(), &ns(), "901", value(901)).await.unwrap();
    clock.advance(Duration::from_secs(1));
    // There are nine keys, and one of them was rewritten without a TTL.
    assert_eq!(store.evict_expired(&ctx()).await.unwrap(), 8);
    drop(store);
    assert_eq!(entries_in(&path).await, 1);
}

async fn fill(store: &EmbeddedStore, entries: usize) {
    for chunk in (0..entries).collect::<Vec<_>>().chunks(1000) {
        let batch = chunk.iter().fold(Batch::new(), |batch, n| {
            batch.put(format!("key-{n:05}"), Bytes::from(n.to_string()))
        });
        store.write(&ctx(), &ns(), batch).await.unwrap();
    }
}

async fn long_reads() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::new(folder.path().join("s.redb"));
    let store = EmbeddedStore::open(&ctx(), config).await.unwrap();
    fill(&store, 5_000).await;
    let expected: Vec<String> = (0..5_000).map(|n| format!("key-{n:05}")).collect();
    assert_eq!(store.list(&ctx(), &ns(), None).await.unwrap(), expected);
    let usage = store.usage(&ctx(), &NamespacePrefix::from(ns())).await.unwrap();
    assert_eq!((usage.namespaces, usage.entries), (1, 5_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn long_reads_work_in_a_multi_threaded_runtime() {
    long_reads().await;
}

#[tokio::test(flavor = "current_thread")]
async fn long_reads_work_in_a_single_threaded_runtime() {
    long_reads().await;
}

#[tokio::test(flavor = "current_thread")]
async fn long_read_does_not_block_the_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::new(folder.path().join("s.redb"));
    let store = EmbeddedStore::open(&ctx(), config).await.unwrap();
    fill(&store, 20_000).await;
    // On a single-threaded runtime, the other branch ends first only if the read runs on another
    // thread. A read on this thread ends at its first poll, yielding at its second.
    let (ctx, ns) = (ctx(), ns());
    let list = store.list(&ctx, &ns, None);
    tokio::pin!(list);
    let yielded_first = tokio::select! {
        biased;
        () = tokio::task::yield_now() => true,
        _ = &mut list => false,
    };
    assert!(yielded_first, "the read blocked the runtime's only thread");
    assert_eq!(list.await.unwrap().len(), 20_000);
}
