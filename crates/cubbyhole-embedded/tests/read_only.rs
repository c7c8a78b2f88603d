//! Read-only stores: they show all writes, refuse writes and do not change the file.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, SystemTime};

use cubbyhole_conformance::read_only::{answers, check_refusals};
use cubbyhole_core::{
    Backend, Batch, Bytes, EntryStore, ErrorKind, GetOptions, ManualClock, Namespace, PutOptions,
    Store, Sweeper, Verdict,
};
use cubbyhole_embedded::{Config, Durability, EmbeddedStore, diagnose};
use support::{Disk, bytes, ctx, ns};

/// Makes random puts, deletes and batches, some with a TTL, for several tenants.
async fn write_at_random(store: &EmbeddedStore, calls: usize, random: &mut fastrand::Rng) {
    let names = ["acme", "acme:agent-7", "acme:agent-7:x", "ab", "a", "other:x"];
    for _ in 0..calls {
        let ns = Namespace::parse(names[random.usize(0..names.len())]).unwrap();
        let key = format!("key-{}", random.u8(0..40));
        let value = Bytes::from(vec![random.u8(..); random.usize(0..600)]);
        match random.u8(0..6) {
            0 => store.delete(&ctx(), &ns, &key).await.unwrap(),
            1 => {
                let batch = Batch::new().put(key, value).delete("gone").put("batch", bytes("b"));
                store.write(&ctx(), &ns, batch).await.map(drop).unwrap();
            }
            2 => {
                let ttl = PutOptions::new().with_ttl(Duration::from_secs(random.u64(1..20)));
                store.put_with_options(&ctx(), &ns, &key, value, ttl).await.unwrap();
            }
            _ => store.put(&ctx(), &ns, &key, value).await.unwrap(),
        }
    }
}

/// The properties of a file that a reader could change.
#[derive(Debug, PartialEq)]
struct State {
    bytes: Vec<u8>,
    modified: SystemTime,
    names: Vec<std::ffi::OsString>,
}

fn state(path: &Path) -> State {
    let folder = std::fs::read_dir(path.parent().unwrap()).unwrap();
    let mut names: Vec<_> = folder.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    State {
        bytes: std::fs::read(path).unwrap(),
        modified: std::fs::metadata(path).unwrap().modified().unwrap(),
        names,
    }
}

async fn open_read_only(config: &Config) -> EmbeddedStore {
    EmbeddedStore::open(&ctx(), config.clone().with_read_only(true)).await.unwrap()
}

/// Opens the file read-only. Compares all answers with `expected`, and checks that every write is
/// refused.
async fn use_read_only(config: &Config, expected: &[String]) {
    let store = open_read_only(config).await;
    assert_eq!(answers(&store).await.unwrap(), expected);
    check_refusals(&store, bytes("other")).await.unwrap();
    let compact = store.compact(&ctx()).await.unwrap_err();
    assert_eq!(compact.kind(), ErrorKind::PermissionDenied, "{compact}");
    store.verify(&ctx()).await.unwrap();
    store.close(&ctx()).await.unwrap();
}

struct Folder {
    folder: tempfile::TempDir,
    clock: ManualClock,
}

impl Folder {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), clock: ManualClock::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self, name: &str) -> Config {
        Config::new(self.path(name)).with_clock(self.clock.clone())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_shows_all_writes_and_keeps_the_file_unchanged() {
    for seed in 0..6 {
        let mut random = fastrand::Rng::with_seed(seed);
        let folder = Folder::new();
        let durability = if seed == 5 { Durability::Relaxed } else { Durability::Immediate };
        let config = folder.config("s.redb").with_durability(durability);
        let store = EmbeddedStore::open(&ctx(), config.clone()).await.unwrap();
        // Some loads exceed the log.
        write_at_random(&store, [3, 90, 700][seed as usize % 3], &mut random).await;
        folder.clock.advance(Duration::from_secs(10));
        store.put(&ctx(), &ns(), "last", bytes("v")).await.unwrap();
        let expected = answers(&store).await.unwrap();
        // The copy is the state that a killed process leaves.
        std::fs::copy(folder.path("s.redb"), folder.path("crashed.redb")).unwrap();
        store.close(&ctx()).await.unwrap();
        for name in ["s.redb", "crashed.redb"] {
            if name == "crashed.redb" && durability == Durability::Relaxed {
                continue;
            }
            let before = state(&folder.path(name));
            for _ in 0..2 {
                use_read_only(&folder.config(name), &expected).await;
                assert!(state(&folder.path(name)) == before, "seed {seed}: {name} was changed");
            }
            let store = EmbeddedStore::open(&ctx(), folder.config(name)).await.unwrap();
            assert_eq!(answers(&store).await.unwrap(), expected, "seed {seed}: {name}");
        }
    }
}

/// After an interrupted compaction only redb can judge the moved blocks. It verifies the whole
/// file, also over the overlay.
#[tokio::test(flavor = "multi_thread")]
async fn read_only_opens_file_with_interrupted_compaction() {
    let disk = Disk::new();
    let store = disk.open().await;
    for n in 0..60 {
        store.put(&ctx(), &ns(), &n.to_string(), Bytes::from(vec![n; 9000])).await.unwrap();
    }
    for n in 0..50 {
        store.delete(&ctx(), &ns(), &n.to_string()).await.unwrap();
    }
    let expected = answers(&store).await.unwrap();
    store.close(&ctx()).await.unwrap();
    let sparse = disk.image();
    let whole = Disk::holding(sparse.clone());
    let store = whole.open().await;
    let opened = whole.operations();
    store.compact(&ctx()).await.unwrap();
    let operations = whole.operations() - opened;
    drop(store);
    let mut judged_by_engine = 0;
    for seed in 0..400 {
        if judged_by_engine == 3 {
            return;
        }
        let mut random = fastrand::Rng::with_seed(seed);
        let disk = Disk::holding(sparse.clone());
        let store = disk.open().await;
        disk.cut_power_after(random.u64(1..operations));
        let _ = store.compact(&ctx()).await;
        drop(store);

        let disk = disk.after_power_cut(&mut random);
        let image = disk.image();
        let opened = Arc::new(AtomicU64::new(0));
        let store = open_read_only(&disk.config_counting(&opened)).await;
        // In the second opening the engine judges the file.
        judged_by_engine += u64::from(opened.load(SeqCst) == 2);
        assert_eq!(answers(&store).await.unwrap(), expected, "seed {seed}");
        store.verify(&ctx()).await.unwrap();
        store.close(&ctx()).await.unwrap();
        assert!(disk.image() == image && disk.syncs.load(SeqCst) == 0, "seed {seed}: changed");
        let store = EmbeddedStore::open(&ctx(), disk.config()).await.unwrap();
        assert_eq!(answers(&store).await.unwrap(), expected, "seed {seed}: opened for writing");
    }
    panic!("only {judged_by_engine} interrupted compactions were judged by the engine");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_share_a_file_and_exclude_a_writer() {
    let folder = Folder::new();
    let config = folder.config("s.redb");
    let reading = config.clone().with_read_only(true);
    let writer = EmbeddedStore::open(&ctx(), config.clone()).await.unwrap();
    writer.put(&ctx(), &ns(), "a", bytes("v")).await.unwrap();
    let refused = EmbeddedStore::open(&ctx(), reading.clone()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.message().contains("open in another process"), "{refused}");
    // The attempt does not disturb the writer.
    writer.put(&ctx(), &ns(), "b", bytes("v")).await.unwrap();
    drop(writer);

    let readers = [open_read_only(&config).await, open_read_only(&config).await];
    for reader in &readers {
        assert_eq!(reader.list(&ctx(), &ns(), None).await.unwrap(), ["a", "b"]);
    }
    let [one, other] = readers;
    for reader in [one, other] {
        let refused = EmbeddedStore::open(&ctx(), config.clone()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        assert_eq!(reader.get(&ctx(), &ns(), "a").await.unwrap(), Some(bytes("v")));
        drop(reader);
    }
    let writer = EmbeddedStore::open(&ctx(), config.clone()).await.unwrap();
    let patient = reading.with_lock_wait(Duration::from_secs(30));
    let waiting = tokio::spawn(async move { EmbeddedStore::open(&ctx(), patient).await });
    writer.put(&ctx(), &ns(), "c", bytes("v")).await.unwrap();
    drop(writer);
    let reader = waiting.await.unwrap().unwrap();
    assert_eq!(reader.list(&ctx(), &ns(), None).await.unwrap(), ["a", "b", "c"]);
}

#[tokio::test]
async fn read_only_refuses_invalid_files_like_a_writer() {
    let folder = Folder::new();
    let whole = {
        let store = EmbeddedStore::open(&ctx(), folder.config("whole")).await.unwrap();
        store.put(&ctx(), &ns(), "a", bytes("v")).await.unwrap();
        drop(store);
        std::fs::read(folder.path("whole")).unwrap()
    };
    let mut flipped = whole.clone();
    flipped[1024 * 1024..].iter_mut().for_each(|byte| *byte ^= 1);
    for (name, content) in [
        ("empty", Vec::new()),
        ("truncated", whole[..8192].to_vec()),
        ("cut", whole[..whole.len() / 2].to_vec()),
        ("flipped", flipped),
        ("text", b"just some notes\n".repeat(1000)),
    ] {
        std::fs::write(folder.path(name), &content).unwrap();
        let before = state(&folder.path(name));
        let reading = folder.config(name).with_read_only(true);
        let error = EmbeddedStore::open(&ctx(), reading).await.unwrap_err();
        assert!(state(&folder.path(name)) == before, "{name} was changed");
        let writing = folder.config(name).with_create(false);
        let expected = EmbeddedStore::open(&ctx(), writing).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.message()),
            (expected.kind(), expected.message()),
            "{name}"
        );
    }
    for name in ["missing", "no-folder/s.redb"] {
        let reading = folder.config(name).with_read_only(true);
        let error = EmbeddedStore::open(&ctx(), reading).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains("there is no store"), "{name}: {error}");
        assert!(!folder.path(name).exists(), "{name} was created");
    }
    let is_folder = Config::new(folder.folder.path()).with_read_only(true);
    let error = EmbeddedStore::open(&ctx(), is_folder).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}

/// Opening a pipe for reading would block until there is a writer.
#[cfg(unix)]
#[tokio::test]
async fn named_pipe_is_refused_without_blocking() {
    let folder = Folder::new();
    let made = std::process::Command::new("mkfifo").arg(folder.path("pipe")).status().unwrap();
    assert!(made.success());
    for read_only in [false, true] {
        let config = folder.config("pipe").with_read_only(read_only);
        let error = EmbeddedStore::open(&ctx(), config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        let config = folder.config("pipe").with_read_only(read_only);
        let diagnosis = diagnose(&ctx(), &config).await.unwrap();
        assert_eq!(diagnosis.verdict(), Verdict::Problem, "{diagnosis:?}");
    }
}

#[tokio::test]
async fn refused_write_names_file_and_remedy() {
    let folder = Folder::new();
    drop(EmbeddedStore::open(&ctx(), folder.config("s.redb")).await.unwrap());
    let store = open_read_only(&folder.config("s.redb")).await;
    let error = store.put(&ctx(), &ns(), "a", bytes("v")).await.unwrap_err();
    let path = folder.path("s.redb");
    for part in ["put: redb:", path.to_str().unwrap(), "read-only", "open it for writing"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    let cancelled = ctx();
    cancelled.cancel();
    let error = store.put(&cancelled, &ns(), "a", bytes("v")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    store.close(&ctx()).await.unwrap();
    let error = store.put(&ctx(), &ns(), "a", bytes("v")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "a closed store: {error}");
}

/// A path can contain a line end, but a message is one line.
#[cfg(unix)]
#[tokio::test]
async fn refused_write_escapes_the_path() {
    let folder = Folder::new();
    drop(EmbeddedStore::open(&ctx(), folder.config("a\nb.redb")).await.unwrap());
    let store = open_read_only(&folder.config("a\nb.redb")).await;
    let error = store.put(&ctx(), &ns(), "a", bytes("v")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let message = error.message();
    assert!(message.contains("b.redb") && !message.contains('\n'), "{message}");
}

#[tokio::test]
async fn sweeper_on_read_only_store_ends_with_permission_denied() {
    let folder = Folder::new();
    drop(EmbeddedStore::open(&ctx(), folder.config("s.redb")).await.unwrap());
    let store = open_read_only(&folder.config("s.redb")).await;
    let patience = ctx().with_timeout(Duration::from_secs(60));
    let error = Sweeper::new(store).run(&patience).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

/// When the process is killed, only the log contains the instant of the last write.
#[tokio::test]
async fn clock_step_back_revives_nothing_for_a_reader() {
    let folder = Folder::new();
    let store = EmbeddedStore::open(&ctx(), folder.config("s.redb")).await.unwrap();
    let ttl = PutOptions::new().with_ttl(Duration::from_secs(5));
    store.put_with_options(&ctx(), &ns(), "a", bytes("v"), ttl).await.unwrap();
    folder.clock.advance(Duration::from_secs(6));
    store.put(&ctx(), &ns(), "b", bytes("v")).await.unwrap();
    std::fs::copy(folder.path("s.redb"), folder.path("crashed.redb")).unwrap();
    drop(store);
    let config = Config::new(folder.path("crashed.redb")).with_clock(ManualClock::default());
    let store = open_read_only(&config).await;
    assert_eq!(store.list(&ctx(), &ns(), None).await.unwrap(), ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_recovers_after_disk_failure() {
    let disk = Disk::new();
    let store = disk.open().await;
    for n in 0..100 {
        store.put(&ctx(), &ns(), &n.to_string(), Bytes::from(vec![n; 9000])).await.unwrap();
    }
    let expected = answers(&store).await.unwrap();
    // The store is not closed, so the log contains changes.
    let disk = disk.after_power_loss();
    let image = disk.image();
    let config = disk.config().with_cache_bytes(0);
    let reader = open_read_only(&config).await;
    for _ in 0..3 {
        disk.broken_reads.store(true, SeqCst);
        let failed = reader.get_entry(&ctx(), &ns(), "50", GetOptions::new()).await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed}");
        disk.broken_reads.store(false, SeqCst);
        assert_eq!(answers(&reader).await.unwrap(), expected);
        check_refusals(&reader, bytes("other")).await.unwrap();
    }
    reader.close(&ctx()).await.unwrap();
    assert!(disk.image() == image, "the file was changed");
    drop(store);
}

#[tokio::test]
async fn diagnose_keeps_the_file_and_reports_read_only() {
    let folder = Folder::new();
    let store = EmbeddedStore::open(&ctx(), folder.config("s.redb")).await.unwrap();
    store.put(&ctx(), &ns(), "a", bytes("v")).await.unwrap();
    std::fs::copy(folder.path("s.redb"), folder.path("crashed.redb")).unwrap();
    drop(store);
    let before = state(&folder.path("crashed.redb"));
    let config = folder.config("crashed.redb");
    for config in [config.clone(), config.with_read_only(true)] {
        let diagnosis = diagnose(&ctx(), &config).await.unwrap();
        let writes = diagnosis.checks.iter().find(|check| check.name == "writes");
        assert_eq!(writes.is_some(), config.is_read_only(), "{diagnosis:#?}");
        assert!(writes.is_none_or(|check| check.verdict == Verdict::Ok), "{diagnosis:#?}");
        let has_disk = diagnosis.checks.iter().any(|check| check.name == "disk");
        assert_eq!(has_disk, !config.is_read_only());
        let entries =
            diagnosis.checks.iter().find(|check| check.name == "entries").expect("entries");
        assert!(entries.finding.starts_with("1,"), "{entries:?}");
        assert!(state(&folder.path("crashed.redb")) == before, "the file was changed");
    }
}
