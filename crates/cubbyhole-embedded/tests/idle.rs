//! Idle TTLs in the file: they survive crashes, a skipped refresh writes nothing, and a refresh takes
//! one log record.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cubbyhole_core::{
    Backend, Batch, Bytes, Clock, Condition, Entry, EntryMeta, EntryStore, GetOptions, ManualClock,
    PutOptions, ScanItem, ScanOptions, Store, Timestamp,
};
use cubbyhole_embedded::{Durability, EmbeddedStore};
use support::{Disk, bytes, ctx, ns, start};

const TTL: Duration = Duration::from_secs(100);
const SECOND: Duration = Duration::from_secs(1);

fn idle() -> PutOptions {
    PutOptions::new().with_idle_ttl(TTL)
}

fn refreshing() -> GetOptions {
    GetOptions::new().refreshing()
}

async fn put(store: &EmbeddedStore, key: &str, value: &str, options: PutOptions) {
    store.put_with_options(&ctx(), &ns(), key, bytes(value), options).await.unwrap();
}

async fn get(store: &EmbeddedStore, key: &str, options: GetOptions) -> Option<Entry<Bytes>> {
    store.get_entry(&ctx(), &ns(), key, options).await.unwrap()
}

async fn meta(store: &EmbeddedStore, key: &str) -> Option<EntryMeta> {
    get(store, key, GetOptions::new()).await.map(|entry| entry.meta)
}

async fn scan(store: &EmbeddedStore, options: ScanOptions) -> Vec<ScanItem<Bytes>> {
    store.scan(&ctx(), &ns(), options).await.unwrap().items
}

/// A store on a simulated disk with a manual clock.
struct Fixture {
    disk: Arc<Disk>,
    clock: ManualClock,
}

impl Fixture {
    fn new() -> Self {
        Self { disk: Disk::new(), clock: ManualClock::default() }
    }

    /// The expiry of an entry that is written or refreshed now.
    fn expiry(&self, ttl: Duration) -> Option<Timestamp> {
        self.clock.now().checked_add(ttl).ok()
    }

    async fn open(&self) -> EmbeddedStore {
        self.open_disk(&self.disk).await
    }

    async fn open_disk(&self, disk: &Arc<Disk>) -> EmbeddedStore {
        let config = disk.config().with_clock(self.clock.clone());
        EmbeddedStore::open(&ctx(), config).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_ttl_and_refresh_survive_power_loss_and_reopening() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    put(&store, "short", "v", idle()).await;
    put(&store, "long", &"v".repeat(5_000), idle()).await;
    put(&store, "replaced", "v", idle()).await;
    put(&store, "replaced", "v", PutOptions::new().with_ttl(TTL)).await;
    fixture.clock.advance(TTL / 2);
    let mut expected = Vec::new();
    for key in ["short", "long", "replaced"] {
        let read = get(&store, key, refreshing()).await.unwrap().meta;
        assert_eq!(meta(&store, key).await, Some(read), "{key}");
        expected.push((key, read));
    }
    let refreshed = fixture.expiry(TTL);
    assert_eq!((expected[0].1.expires_at, expected[0].1.idle_ttl), (refreshed, Some(TTL)));
    assert_eq!((expected[1].1.expires_at, expected[1].1.idle_ttl), (refreshed, Some(TTL)));
    assert_eq!(expected[2].1.idle_ttl, None);
    assert_ne!(expected[2].1.expires_at, refreshed);

    let rescued = fixture.disk.after_power_loss();
    store.compact(&ctx()).await.unwrap();
    store.close(&ctx()).await.unwrap();
    for disk in [rescued, Arc::clone(&fixture.disk)] {
        let store = fixture.open_disk(&disk).await;
        for (key, meta) in &expected {
            assert_eq!(get(&store, key, GetOptions::new()).await.unwrap().meta, *meta, "{key}");
        }
        store.verify(&ctx()).await.unwrap();
    }

    // The expiry index follows the refresh.
    let store = fixture.open().await;
    fixture.clock.advance(TTL / 2);
    assert_eq!(store.evict_expired(&ctx()).await.unwrap(), 1, "only the entry without idle TTL");
    fixture.clock.advance(TTL / 2);
    assert_eq!(store.evict_expired(&ctx()).await.unwrap(), 2);
    store.verify(&ctx()).await.unwrap();
}

/// The writer is blocked in a commit, so any call that needs it would wait.
#[tokio::test(flavor = "multi_thread")]
async fn skipped_refresh_writes_nothing_and_does_not_wait_for_the_writer() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    for key in ["a", "b"] {
        put(&store, key, "v", idle()).await;
    }
    put(&store, "plain", "v", PutOptions::new().with_ttl(TTL)).await;
    // One millisecond less than a tenth.
    fixture.clock.advance(TTL / 10 - Duration::from_millis(1));
    let expected = meta(&store, "a").await.unwrap();
    let image = fixture.disk.image();
    let commits = store.commits();

    let gate = fixture.disk.shut_gate();
    let blocked = {
        let store = store.clone();
        start(async move { store.put(&ctx(), &ns(), "blocked", bytes("v")).await })
    };
    fixture.disk.wait_for_blocked_sync().await;
    let keys = ["a", "absent", "b", "plain", "a"];
    let reads = async {
        assert_eq!(get(&store, "a", refreshing()).await.unwrap().meta, expected);
        assert!(get(&store, "absent", refreshing()).await.is_none());
        let many = store.get_many(&ctx(), &ns(), &keys, refreshing()).await.unwrap();
        let many: Vec<_> = many.into_iter().map(Result::unwrap).collect();
        assert_eq!(many[0].as_ref().unwrap().meta, expected);
        assert!(many[1].is_none() && many[2..].iter().all(Option::is_some));
        for options in [ScanOptions::new(), ScanOptions::new().reversed().keys_only()] {
            assert_eq!(scan(&store, options.refreshing()).await.len(), 3);
        }
    };
    tokio::time::timeout(SECOND * 30, reads).await.expect("a read waits for the writer");
    drop(gate);
    blocked.await.unwrap();
    assert_eq!(store.commits(), commits + 1, "only the put was committed");

    // The same without the put: no byte of the file changes, and nothing is synced.
    let fixture = Fixture { disk: Disk::holding(image.clone()), clock: fixture.clock };
    let store = fixture.open().await;
    let (image, syncs) = (fixture.disk.image(), fixture.disk.syncs.load(Ordering::SeqCst));
    get(&store, "a", refreshing()).await.unwrap();
    store.get_many(&ctx(), &ns(), &keys, refreshing()).await.unwrap();
    scan(&store, ScanOptions::new().refreshing()).await;
    assert!(fixture.disk.image() == image, "the file was changed");
    assert_eq!(fixture.disk.syncs.load(Ordering::SeqCst), syncs);
    assert_eq!(store.commits(), 0);

    // One millisecond later the refresh is due.
    fixture.clock.advance(Duration::from_millis(1));
    get(&store, "a", refreshing()).await.unwrap();
    assert!(fixture.disk.image() != image);
    assert_eq!(store.commits(), 1);
    get(&store, "a", refreshing()).await.unwrap();
    assert_eq!(store.commits(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_takes_one_sync_and_one_log_record() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    for key in ["a", "b", "c"] {
        put(&store, key, "v", idle()).await;
    }
    fixture.clock.advance(TTL / 2);
    let (commits, syncs) = (store.commits(), fixture.disk.syncs.load(Ordering::SeqCst));
    let items = scan(&store, ScanOptions::new().refreshing().with_limit(2)).await;
    let refreshed = fixture.expiry(TTL);
    assert!(items.iter().all(|item| item.meta.expires_at == refreshed));
    assert_eq!(store.commits(), commits + 1);
    assert_eq!(fixture.disk.syncs.load(Ordering::SeqCst), syncs + 1);
    assert_ne!(meta(&store, "c").await.unwrap().expires_at, refreshed, "not on the page");
}

/// A full page of refreshes has more changes than the log, so it makes a checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn refresh_of_a_full_page_survives_power_loss() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let always = Condition::Always;
    let put =
        |batch: Batch<Bytes>, n| batch.put_with(format!("{n:04}"), bytes("v"), idle(), always);
    store.write(&ctx(), &ns(), (0..1000).fold(Batch::new(), put)).await.unwrap();
    fixture.clock.advance(TTL / 2);
    let items = scan(&store, ScanOptions::new().refreshing().with_limit(1000)).await;
    let store = fixture.open_disk(&fixture.disk.after_power_loss()).await;
    let refreshed = fixture.expiry(TTL);
    for (item, found) in items.iter().zip(scan(&store, ScanOptions::new().with_limit(1000)).await) {
        assert_eq!((item.meta.expires_at, found.meta), (refreshed, item.meta));
    }
    store.verify(&ctx()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn relaxed_refresh_is_written_by_close() {
    let fixture = Fixture::new();
    let config = fixture.disk.config().with_clock(fixture.clock.clone());
    let config = config.with_durability(Durability::Relaxed);
    let store = EmbeddedStore::open(&ctx(), config).await.unwrap();
    put(&store, "a", "v", idle()).await;
    fixture.clock.advance(TTL / 2);
    let read = get(&store, "a", refreshing()).await.unwrap().meta;
    store.close(&ctx()).await.unwrap();
    let store = fixture.open_disk(&fixture.disk.after_power_loss()).await;
    assert_eq!(meta(&store, "a").await, Some(read));
}

#[tokio::test(flavor = "multi_thread")]
async fn get_many_refreshes_a_repeated_key_once() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    put(&store, "a", "v", idle()).await;
    put(&store, "b", "v", PutOptions::new().with_ttl(TTL)).await;
    fixture.clock.advance(TTL / 2);
    let options = refreshing().with_extended_ttl(TTL * 2);
    let commits = store.commits();
    let read = store.get_many(&ctx(), &ns(), &["a", "b", "none", "a"], options).await.unwrap();
    let read: Vec<_> = read.into_iter().map(|entry| entry.unwrap()).collect();
    let expires_at = |n: usize| read[n].as_ref().unwrap().meta.expires_at;
    let extended = fixture.expiry(TTL * 2);
    assert_eq!([expires_at(0), expires_at(1), expires_at(3)], [extended; 3]);
    assert!(read[2].is_none());
    assert_eq!(store.commits(), commits + 1);
    assert_eq!(meta(&store, "a").await.unwrap().expires_at, extended);
    store.verify(&ctx()).await.unwrap();
}
