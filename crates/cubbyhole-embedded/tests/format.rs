//! Files of format 1: they are read, written and upgraded. The files were recorded by a build that knew
//! only that format.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed unwrap is a failed test"
)]

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use cubbyhole_core::{
    Backend, Bytes, Condition, EntryMeta, EntryStore, ErrorKind, Expiry, GetOptions, ManualClock,
    NamespacePrefix, PutOptions, RecursiveScanOptions, Store, Timestamp, Verdict, Version,
};
use cubbyhole_embedded::{Config, Durability, EmbeddedStore, diagnose, migrate};
use support::{Disk, bytes, ctx, ns};

const SECTOR: usize = 512;
const MINUTE: Duration = Duration::from_secs(60);

const CLOSED: &[u8] = include_bytes!("fixtures/format-1-closed.sectors");
const KILLED: &[u8] = include_bytes!("fixtures/format-1-killed.sectors");

/// Expands a recorded file (see `fixtures/README.md`).
fn recorded(sectors: &[u8]) -> Vec<u8> {
    let (length, mut rest) = sectors.split_first_chunk::<8>().unwrap();
    let mut image = vec![0; u64::from_le_bytes(*length) as usize];
    while let Some((number, more)) = rest.split_first_chunk::<4>() {
        let at = u32::from_le_bytes(*number) as usize * SECTOR;
        image[at..at + SECTOR].copy_from_slice(&more[..SECTOR]);
        rest = &more[SECTOR..];
    }
    image
}

/// The instant at which the recording started.
const START: u64 = 1_700_000_000_000;

fn at(offset: u64) -> Timestamp {
    Timestamp::from_millis(START + offset).unwrap()
}

/// A clock some seconds after the end of the recording.
fn clock() -> ManualClock {
    ManualClock::new(at(20_000))
}

/// Namespace, key, value and metadata of an entry.
type Row = (String, String, Bytes, EntryMeta);

fn row(ns: &str, key: &str, value: &str, version: u8, created: u64) -> Row {
    let meta = EntryMeta {
        version: Version::from_bytes([version; 16]),
        created_at: at(created),
        updated_at: at(created),
        expires_at: None,
        idle_ttl: None,
    };
    (ns.to_owned(), key.to_owned(), bytes(value), meta)
}

fn expiring(row: Row, expires_at: u64) -> Row {
    (row.0, row.1, row.2, EntryMeta { expires_at: Some(at(expires_at)), ..row.3 })
}

/// The live entries of the recorded files. One more, `expired`, has expired and is not swept.
fn recorded_rows() -> Vec<Row> {
    let (agent, chat) = ("acme:agent-7", "acme:agent-7:chat");
    let overwritten = row(agent, "overwritten", "second", 100, 30);
    let overwritten_meta = EntryMeta { updated_at: at(2_110), ..overwritten.3 };
    vec![
        row("acme", "root", "r", 1, 0),
        expiring(row(agent, "inline", &"v".repeat(900), 2, 10), 12_110 + 86_400_000),
        row(agent, "long", &"long ".repeat(1000), 3, 20),
        (overwritten.0, overwritten.1, overwritten.2, overwritten_meta),
        expiring(row(agent, "ttl", "t", 6, 50), 50 + 3_600_000),
        row(chat, "turn-1", "hello", 9, 80),
        expiring(row(chat, "turn-2", &"l".repeat(2000), 10, 90), 90 + 7_200_000),
        row(r"other\:x", "k", "o", 11, 100),
    ]
}

async fn rows(store: &EmbeddedStore) -> Vec<Row> {
    let mut rows = Vec::new();
    for tenant in store.scan_tenants(&ctx(), None, 100).await.unwrap().items {
        let options = RecursiveScanOptions::new().with_limit(1000);
        let page = store.scan_recursive(&ctx(), &tenant.into(), options).await.unwrap();
        assert!(page.next.is_none());
        for (ns, item) in page.items {
            let value = store.get(&ctx(), &ns, &item.key).await.unwrap().unwrap();
            assert_eq!(item.value.unwrap().unwrap(), value);
            rows.push((ns.to_string(), item.key, value, item.meta));
        }
    }
    rows
}

/// A recorded file in a separate folder.
struct Recorded {
    _folder: tempfile::TempDir,
    path: PathBuf,
    clock: ManualClock,
}

impl Recorded {
    fn new(image: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.redb");
        std::fs::write(&path, image).unwrap();
        Self { _folder: folder, path, clock: clock() }
    }

    fn config(&self) -> Config {
        Config::new(&self.path).with_clock(self.clock.clone()).with_create(false)
    }

    async fn open(&self) -> EmbeddedStore {
        EmbeddedStore::open(&ctx(), self.config()).await.unwrap()
    }

    async fn format(&self) -> u32 {
        format(&self.path).await
    }

    /// A copy of the file, as a killed process leaves it.
    fn killed(&self) -> Self {
        Self { clock: self.clock.clone(), ..Self::new(&std::fs::read(&self.path).unwrap()) }
    }
}

/// The format that `diagnose` reports.
async fn format(path: &Path) -> u32 {
    let diagnosis = diagnose(&ctx(), &Config::new(path).with_clock(clock())).await.unwrap();
    let open = diagnosis.checks.iter().find(|check| check.name == "open").unwrap();
    assert_eq!(open.verdict, Verdict::Ok, "{diagnosis:?}");
    let number = open.finding.split("format ").nth(1).unwrap().split(',').next().unwrap();
    number.parse().unwrap_or_else(|_| panic!("{open:?}"))
}

async fn put_idle(store: &EmbeddedStore, key: &str) {
    let idle = PutOptions::new().with_idle_ttl(MINUTE);
    store.put_with_options(&ctx(), &ns(), key, bytes("idle"), idle).await.unwrap();
}

async fn touch(store: &EmbeddedStore, key: &str, expiry: Expiry) -> bool {
    store.touch(&ctx(), &ns(), key, expiry, Condition::IfPresent).await.unwrap()
}

async fn meta(store: &EmbeddedStore, key: &str) -> Option<EntryMeta> {
    let entry = store.get_entry(&ctx(), &ns(), key, GetOptions::new()).await.unwrap();
    entry.map(|entry| entry.meta)
}

#[tokio::test(flavor = "multi_thread")]
async fn format_1_file_is_read_and_written() {
    for image in [recorded(CLOSED), recorded(KILLED)] {
        let file = Recorded::new(&image);
        let store = file.open().await;
        let mut expected = recorded_rows();
        assert_eq!(rows(&store).await, expected);
        store.verify(&ctx()).await.unwrap();
        let all = NamespacePrefix::parse("acme").unwrap();
        let usage = store.usage(&ctx(), &all).await.unwrap();
        assert_eq!((usage.namespaces, usage.entries, usage.expired), (3, 7, 1));

        // Writes without an idle TTL do not change the format.
        let plain = PutOptions::new().with_ttl(MINUTE);
        store.put_with_options(&ctx(), &ns(), "plain", bytes("v"), plain).await.unwrap();
        assert!(touch(&store, "inline", Expiry::Never).await);
        let read = GetOptions::new().refreshing().with_extended_ttl(2 * MINUTE);
        store.get_entry(&ctx(), &ns(), "plain", read).await.unwrap().unwrap();
        expected[1].3.expires_at = None;
        assert_eq!(file.killed().format().await, 1);
        store.close(&ctx()).await.unwrap();
        assert_eq!(file.format().await, 1);

        let store = file.open().await;
        assert_eq!(meta(&store, "plain").await.unwrap().expires_at, Some(at(140_000)));
        store.delete(&ctx(), &ns(), "plain").await.unwrap();
        assert_eq!(rows(&store).await, expected);
        assert_eq!(store.evict_expired(&ctx()).await.unwrap(), 1);

        put_idle(&store, "idle").await;
        let idle = meta(&store, "idle").await.unwrap();
        assert_eq!((idle.expires_at, idle.idle_ttl), (Some(at(80_000)), Some(MINUTE)));
        let killed = file.killed();
        assert_eq!(killed.format().await, 2);
        store.close(&ctx()).await.unwrap();
        assert_eq!(file.format().await, 2);
        for file in [file, killed] {
            let store = file.open().await;
            assert_eq!(meta(&store, "idle").await, Some(idle));
            store.delete(&ctx(), &ns(), "idle").await.unwrap();
            assert_eq!(rows(&store).await, expected);
            store.verify(&ctx()).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn touch_with_an_idle_ttl_upgrades_the_format() {
    for durability in [Durability::Immediate, Durability::Relaxed] {
        let file = Recorded::new(&recorded(KILLED));
        let config = file.config().with_durability(durability);
        let store = EmbeddedStore::open(&ctx(), config).await.unwrap();
        assert!(touch(&store, "long", Expiry::Idle(MINUTE)).await);
        store.close(&ctx()).await.unwrap();
        assert_eq!(file.format().await, 2);
        assert_eq!(meta(&file.open().await, "long").await.unwrap().idle_ttl, Some(MINUTE));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_opening_keeps_a_format_1_file_unchanged() {
    for image in [recorded(CLOSED), recorded(KILLED)] {
        let file = Recorded::new(&image);
        let config = file.config().with_read_only(true);
        let store = EmbeddedStore::open(&ctx(), config.clone()).await.unwrap();
        assert_eq!(rows(&store).await, recorded_rows());
        store.verify(&ctx()).await.unwrap();
        let refreshing = GetOptions::new().refreshing();
        let refused = store.get_entry(&ctx(), &ns(), "ttl", refreshing).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{refused}");
        store.close(&ctx()).await.unwrap();
        let refused = migrate(&ctx(), &config).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{refused}");
        assert_eq!(file.format().await, 1);
        assert!(std::fs::read(&file.path).unwrap() == image, "the file was changed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_upgrades_a_format_1_file_once() {
    for image in [recorded(CLOSED), recorded(KILLED)] {
        for durability in [Durability::Immediate, Durability::Relaxed] {
            let file = Recorded::new(&image);
            let config = file.config().with_durability(durability);
            let done = migrate(&ctx(), &config).await.unwrap();
            assert_eq!(done.len(), 1, "{done:?}");
            assert!(done[0].ends_with("s.redb: format 1 to 2"), "{done:?}");
            assert_eq!(file.format().await, 2);
            let before = std::fs::read(&file.path).unwrap();
            assert!(migrate(&ctx(), &config.with_read_only(true)).await.unwrap().is_empty());
            assert!(before == std::fs::read(&file.path).unwrap(), "the file was changed");
            assert!(migrate(&ctx(), &file.config()).await.unwrap().is_empty());
            assert_eq!(rows(&file.open().await).await, recorded_rows());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_does_not_create_a_missing_file() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::new(folder.path().join("s.redb"));
    let error = migrate(&ctx(), &config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_file_has_format_2() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    drop(EmbeddedStore::open(&ctx(), Config::new(&path)).await.unwrap());
    assert_eq!(format(&path).await, 2);
}

/// Cuts the power at each operation of the first write with an idle TTL. An earlier build opens a file
/// that still has format 1. Neither the tables nor the log of that file may have a record that this
/// build cannot read.
#[tokio::test(flavor = "multi_thread")]
async fn power_cut_during_the_upgrade_leaves_one_of_both_formats() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut found = [0; 3];
    for cut in 1.. {
        let disk = Disk::holding(recorded(KILLED));
        let config = || disk.config().with_clock(clock());
        let store = EmbeddedStore::open(&ctx(), config()).await.unwrap();
        store.put(&ctx(), &ns(), "before", bytes("v")).await.unwrap();
        disk.cut_power_after(cut);
        let idle = PutOptions::new().with_idle_ttl(MINUTE);
        let put = store.put_with_options(&ctx(), &ns(), "idle", bytes("idle"), idle).await;
        let ends = disk.has_power();
        drop(store);
        let rescued = if ends { disk } else { disk.after_power_cut(&mut random) };
        let file = Recorded::new(&rescued.image());
        let format = file.format().await;
        found[format as usize] += 1;
        let store = file.open().await;
        store.verify(&ctx()).await.unwrap();
        let idle = meta(&store, "idle").await;
        assert_eq!(idle.is_some(), format == 2, "cut {cut}");
        assert!(idle.is_some() || put.is_err(), "cut {cut}: an acknowledged write is lost");
        assert_eq!(store.get(&ctx(), &ns(), "before").await.unwrap(), Some(bytes("v")));
        if ends {
            assert!(put.is_ok());
            break;
        }
    }
    assert!(found[1] > 0 && found[2] > 0, "{found:?}");
}

/// A change of the format is not lost in the log of a handle that fails.
#[tokio::test(flavor = "multi_thread")]
async fn failed_upgrade_is_repeated() {
    let disk = Disk::holding(recorded(CLOSED));
    let config = disk.config().with_clock(clock());
    let store = EmbeddedStore::open(&ctx(), config).await.unwrap();
    store.put(&ctx(), &ns(), "before", bytes("v")).await.unwrap();
    disk.failing_sync.store(1, std::sync::atomic::Ordering::SeqCst);
    let idle = PutOptions::new().with_idle_ttl(MINUTE);
    let failed = store.put_with_options(&ctx(), &ns(), "idle", bytes("idle"), idle).await;
    assert!(failed.unwrap_err().may_have_been_applied());
    put_idle(&store, "idle").await;
    let file = Recorded::new(&disk.after_power_loss().image());
    assert_eq!(file.format().await, 2);
    assert_eq!(meta(&file.open().await, "idle").await.unwrap().idle_ttl, Some(MINUTE));
}
