//! Erased, deleted and overwritten bytes are not in the file: each test searches every byte of the
//! file after a random load.
//!
//! - `CUBBYHOLE_ERASURE_RUNS`: the number of loads; [`RUNS`] by default.
//! - `CUBBYHOLE_ERASURE_SEED`: the seed of the first load, which a failed test printed.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use cubbyhole_core::{
    Backend, Batch, Bytes, Condition, EntryStore, EntryStoreExt, ErrorKind, ManualClock, Namespace,
    NamespacePrefix, PutOptions, Store,
};
use cubbyhole_embedded::{Durability, EmbeddedStore};
use support::{Disk, ctx, ns};

const RUNS: u64 = 24;
/// The TTL of expiring entries.
const TTL: Duration = Duration::from_secs(10);

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Unique words. Each name and value consists of one word, so a search finds its remains.
struct Words(u64);

impl Words {
    fn next(&mut self) -> String {
        self.0 += 1;
        format!("<{:07}>", self.0)
    }
}

/// Finds all words in an image.
fn words(image: &[u8]) -> BTreeSet<String> {
    let is_word = |window: &&[u8]| {
        window[0] == b'<' && window[8] == b'>' && window[1..8].iter().all(u8::is_ascii_digit)
    };
    let found = image.windows(9).filter(is_word);
    found.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// The words of all live entries.
async fn live_words(store: &EmbeddedStore) -> BTreeSet<String> {
    let mut live = BTreeSet::new();
    let tenants = store.scan_tenants(&ctx(), None, 1000).await.unwrap();
    for tenant in tenants.items {
        let prefix = NamespacePrefix::from(Namespace::parse(tenant.as_str()).unwrap());
        for ns in store.list_namespaces(&ctx(), &prefix).await.unwrap() {
            live.extend(words(ns.as_str().as_bytes()));
            for key in store.list(&ctx(), &ns, None).await.unwrap() {
                live.extend(words(key.as_bytes()));
                live.extend(words(&store.get(&ctx(), &ns, &key).await.unwrap().unwrap()));
            }
        }
    }
    live
}

/// A store on a simulated disk, and a random load from a seed.
struct Load {
    random: fastrand::Rng,
    words: Words,
    durability: Durability,
    clock: ManualClock,
    disk: Arc<Disk>,
    store: EmbeddedStore,
    namespaces: Vec<Namespace>,
    keys: Vec<String>,
}

impl Load {
    async fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let durability =
            if random.u8(0..4) == 0 { Durability::Relaxed } else { Durability::Immediate };
        let (clock, disk) = (ManualClock::default(), Disk::new());
        let config = disk.config().with_clock(clock.clone()).with_durability(durability);
        let store = EmbeddedStore::open(&ctx(), config).await.unwrap();
        let words = Words(seed % 1000 * 10_000);
        let (namespaces, keys) = (Vec::new(), Vec::new());
        Self { random, words, durability, clock, disk, store, namespaces, keys }
    }

    async fn reopen(&mut self, disk: Arc<Disk>) {
        let config = disk.config().with_clock(self.clock.clone()).with_durability(self.durability);
        self.store = EmbeddedStore::open(&ctx(), config).await.unwrap();
        self.disk = disk;
    }

    fn namespace(&mut self) -> Namespace {
        if self.namespaces.len() < 4 || self.random.u8(0..40) == 0 {
            let tenant = ["a", "acme", "z"][self.random.usize(0..3)];
            let name = format!("{tenant}:{}:ns", self.words.next());
            self.namespaces.push(Namespace::parse(&name).unwrap());
        }
        self.namespaces[self.random.usize(0..self.namespaces.len())].clone()
    }

    fn key(&mut self) -> String {
        if self.keys.is_empty() || self.random.u8(0..3) == 0 {
            let (word, length) = (self.words.next(), self.random.usize(0..60));
            self.keys.push(format!("{}{word}", "k".repeat(length)));
        }
        self.keys[self.random.usize(0..self.keys.len())].clone()
    }

    fn value(&mut self) -> Bytes {
        let length = match self.random.u8(0..20) {
            0 => self.random.usize(0..30_000),
            1..=5 => self.random.usize(880..5_000),
            _ => self.random.usize(0..900),
        };
        self.words.next().bytes().cycle().take(length.next_multiple_of(9)).collect()
    }

    fn options(&mut self) -> PutOptions {
        let options = PutOptions::new();
        if self.random.u8(0..4) == 0 { options.with_ttl(TTL) } else { options }
    }

    async fn step(&mut self) {
        let (ns, key, value, options) =
            (self.namespace(), self.key(), self.value(), self.options());
        let (store, always) = (self.store.clone(), Condition::Always);
        match self.random.u8(0..40) {
            0..=19 => store.put_with_options(&ctx(), &ns, &key, value, options).await.unwrap(),
            20..=23 => store.delete(&ctx(), &ns, &key).await.unwrap(),
            24..=26 => drop(store.take(&ctx(), &ns, &key).await.unwrap()),
            27..=29 => {
                for key in store.list(&ctx(), &ns, None).await.unwrap() {
                    store.delete(&ctx(), &ns, &key).await.unwrap();
                }
            }
            30..=35 => {
                let mut batch = Batch::new();
                let mut keys = BTreeSet::new();
                for _ in 0..self.random.usize(1..60) {
                    let (key, value, options) = (self.key(), self.value(), self.options());
                    if !keys.insert(key.clone()) {
                        continue;
                    }
                    batch = match self.random.u8(0..3) {
                        0 => batch.delete(key),
                        _ => batch.put_with(key, value, options, always),
                    };
                }
                store.write(&ctx(), &ns, batch).await.unwrap();
            }
            36 => {
                self.clock.advance(TTL);
                store.evict_expired(&ctx()).await.unwrap();
            }
            37 => {
                let limit = self.random.usize(1..100);
                store.erase(&ctx(), &ns.into(), limit).await.unwrap();
            }
            _ => self.interrupt().await,
        }
    }

    /// Rare events: a compaction, a clean close, a kill, or a power cut.
    async fn interrupt(&mut self) {
        match self.random.u8(0..24) {
            0..=1 => drop(self.store.compact(&ctx()).await.unwrap()),
            2..=3 => {
                self.store.close(&ctx()).await.unwrap();
                self.reopen(Arc::clone(&self.disk)).await;
            }
            // A kill keeps the page cache.
            4 => self.reopen(Disk::holding(self.disk.image())).await,
            5 => {
                let disk = self.disk.after_power_cut(&mut self.random);
                self.reopen(disk).await;
            }
            // A power cut during a compaction.
            6 => {
                self.disk.cut_power_after(self.random.u64(1..400));
                // The call fails unless it completes before the power cut.
                let _ = self.store.compact(&ctx()).await;
                let disk = self.disk.after_power_cut(&mut self.random);
                self.reopen(disk).await;
            }
            // A power cut during a close after an erasure.
            7 => {
                let ns = self.namespace();
                self.store.erase(&ctx(), &ns.into(), 10).await.unwrap();
                self.disk.cut_power_after(self.random.u64(1..400));
                let _ = self.store.close(&ctx()).await;
                let disk = self.disk.after_power_cut(&mut self.random);
                self.reopen(disk).await;
            }
            _ => {}
        }
    }

    /// Searches the file for words that are not live.
    async fn check(&mut self, when: &str) -> Result<(), String> {
        let image = self.disk.image();
        let copy = Disk::holding(image.clone()).config().with_clock(self.clock.clone());
        let live = live_words(&EmbeddedStore::open(&ctx(), copy).await.unwrap()).await;
        let found = words(&image);
        let missing: Vec<_> = live.difference(&found).take(5).collect();
        assert!(missing.is_empty(), "the search misses live words: {missing:?}");
        let left: Vec<_> = found.difference(&live).cloned().collect();
        if left.is_empty() {
            return Ok(());
        }
        let positions = left.iter().take(5).map(|word| {
            let at = image.windows(9).position(|window| window == word.as_bytes());
            format!("{word} at {at:?}")
        });
        let positions: Vec<_> = positions.collect();
        Err(format!("{when}: {} words remain: {}", left.len(), positions.join(", ")))
    }
}

async fn run(seed: u64) -> Result<(), String> {
    let mut load = Load::new(seed).await;
    let steps = load.random.u64(1..400);
    for _ in 0..steps {
        load.step().await;
    }
    // Expired entries that were not swept are still in the file.
    load.clock.advance(TTL);
    load.store.evict_expired(&ctx()).await.unwrap();
    match load.random.u8(0..5) {
        0 | 1 => {
            load.store.compact(&ctx()).await.unwrap();
            load.check("after a compaction").await?;
        }
        2 => {
            load.store.erase_all(&ctx(), &"acme".parse().unwrap()).await.unwrap();
            load.store.close(&ctx()).await.unwrap();
            load.check("after an erasure and a close").await?;
        }
        3 => {
            load.store.erase_all(&ctx(), &"acme".parse().unwrap()).await.unwrap();
            // Kills the process before it closes the file. The next process closes it.
            load.reopen(Disk::holding(load.disk.image())).await;
            // A relaxed store may have lost the sweep.
            load.store.evict_expired(&ctx()).await.unwrap();
            load.store.close(&ctx()).await.unwrap();
            load.check("after an erasure, a kill and a close").await?;
        }
        _ => {
            // Erases an empty prefix, which must also purge entries that were deleted before.
            load.store.erase(&ctx(), &"nobody".parse().unwrap(), 1).await.unwrap();
            let disk = Arc::clone(&load.disk);
            let other = Disk::new();
            load.reopen(other).await;
            load.disk = disk;
            load.check("after an erasure and a drop of the store").await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_loads_leave_no_erased_byte_in_the_file() {
    let seed = number("CUBBYHOLE_ERASURE_SEED", fastrand::u64(..));
    for number in 0..number("CUBBYHOLE_ERASURE_RUNS", RUNS) {
        let seed = seed.wrapping_add(number);
        run(seed).await.unwrap_or_else(|text| panic!("{text}\n  seed {seed}"));
    }
}

/// A store with [`OTHERS`] entries, and further ones that were erased.
async fn erased(disk: &Arc<Disk>) -> EmbeddedStore {
    let store = disk.open().await;
    let other = Namespace::parse("other").unwrap();
    for number in 0..OTHERS {
        store.put(&ctx(), &other, &number.to_string(), Bytes::from(vec![7; 3_000])).await.unwrap();
    }
    store.compact(&ctx()).await.unwrap();
    for number in 0..50 {
        let value = Bytes::from(format!("secret-{number} ").repeat(200));
        store.put(&ctx(), &ns(), &number.to_string(), value.clone()).await.unwrap();
    }
    store.erase_all(&ctx(), &ns().into()).await.unwrap();
    store
}

const OTHERS: u64 = 200;

fn contains_secret(disk: &Disk) -> bool {
    disk.image().windows(6).any(|window| window == b"secret")
}

async fn others(store: &EmbeddedStore) -> u64 {
    store.usage(&ctx(), &"other".parse().unwrap()).await.unwrap().entries
}

#[tokio::test]
async fn close_on_full_disk_fails_and_next_close_purges() {
    let disk = Disk::new();
    let store = erased(&disk).await;
    disk.full.store(true, SeqCst);
    let error = store.close(&ctx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
    disk.full.store(false, SeqCst);
    assert!(contains_secret(&disk));
    let store = disk.open().await;
    assert_eq!(others(&store).await, OTHERS);
    store.close(&ctx()).await.unwrap();
    assert!(!contains_secret(&disk));
}

#[tokio::test]
async fn compact_on_full_disk_truncates_and_reports_it() {
    let disk = Disk::new();
    let store = erased(&disk).await;
    let before = disk.len();
    // The disk has no space for a second copy of the entries.
    disk.max_length.store(before as u64, SeqCst);
    let error = store.compact(&ctx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
    assert!(error.message().contains("too little space to rewrite the entries"), "{error}");
    assert!(disk.len() < before, "{} of {before}", disk.len());
    assert_eq!(others(&store).await, OTHERS);
    disk.max_length.store(0, SeqCst);
    store.compact(&ctx()).await.unwrap();
    assert!(!contains_secret(&disk));
    assert_eq!(others(&store).await, OTHERS);
}

#[tokio::test]
async fn failed_sync_during_compact_loses_nothing() {
    for sync in 1.. {
        let disk = Disk::new();
        let store = erased(&disk).await;
        disk.failing_sync.store(sync, SeqCst);
        let compacted = store.compact(&ctx()).await;
        if disk.failed_syncs.load(SeqCst) == 0 {
            compacted.unwrap();
            assert!(sync > 10, "{sync}");
            break;
        }
        match compacted {
            // The sync belonged to the checkpoint before the compaction, which was repeated.
            Ok(_) => assert!(!contains_secret(&disk), "sync {sync}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "sync {sync}: {error:?}");
            }
        }
        assert_eq!(others(&store).await, OTHERS, "sync {sync}");
        store.verify(&ctx()).await.unwrap();
        store.close(&ctx()).await.unwrap();
        assert!(!contains_secret(&disk), "sync {sync}");
        // The synced contents must be complete too.
        let store = disk.after_power_loss().open().await;
        assert_eq!(others(&store).await, OTHERS, "sync {sync}");
        store.verify(&ctx()).await.unwrap();
    }
}

#[tokio::test]
async fn close_without_erasure_does_not_purge() {
    let disk = Disk::new();
    let store = disk.open().await;
    for number in 0..2_000 {
        let value = Bytes::from(vec![7; 2_000]);
        store.put(&ctx(), &ns(), &number.to_string(), value).await.unwrap();
    }
    store.close(&ctx()).await.unwrap();
    let store = disk.open().await;
    store.delete(&ctx(), &ns(), "7").await.unwrap();
    let before = disk.operations();
    store.close(&ctx()).await.unwrap();
    let quick = disk.operations() - before;
    let store = disk.open().await;
    store.erase(&ctx(), &"nobody".parse().unwrap(), 1).await.unwrap();
    let before = disk.operations();
    store.close(&ctx()).await.unwrap();
    let slow = disk.operations() - before;
    assert!(quick < 100 && slow > 1_000, "{quick} and {slow} operations");
}
