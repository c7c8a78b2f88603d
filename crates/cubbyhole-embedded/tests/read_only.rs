//! Opening a file read-only: it shows everything, takes no write, and keeps every byte.
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

/// Puts, deletes, batches and expiries in several tenants, as drawn.
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

/// What a file is, as far as a reader could change it.
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

/// Reads everything, tries every write, verifies and closes; `expected` is what it must answer.
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
async fn a_closed_or_crashed_file_is_read_whole_and_keeps_every_byte() {
    for seed in 0..6 {
        let mut random = fastrand::Rng::with_seed(seed);
        let folder = Folder::new();
        let durability = if seed == 5 { Durability::Relaxed } else { Durability::Immediate };
        let config = folder.config("s.redb").with_durability(durability);
        let store = EmbeddedStore::open(&ctx(), config.clone()).await.unwrap();
        // Now and then more than the log holds.
        write_at_random(&store, [3, 90, 700][seed as usize % 3], &mut random).await;
        folder.clock.advance(Duration::from_secs(10));
        store.put(&ctx(), &ns(), "last", bytes("v")).await.unwrap();
        let expected = answers(&store).await.unwrap();
        // A killed process leaves the file as other processes see it.
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

/// What compaction moved when the power went is judged by the engine, which takes the whole file:
/// in memory too.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_compaction_was_interrupted_is_read_and_keeps_every_byte() {
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
    let mut judged = 0;
    for seed in 0..400 {
        if judged == 3 {
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
        // Once as it is, and once more for the engine to judge.
        judged += u64::from(opened.load(SeqCst) == 2);
        assert_eq!(answers(&store).await.unwrap(), expected, "seed {seed}");
        store.verify(&ctx()).await.unwrap();
        store.close(&ctx()).await.unwrap();
        assert!(disk.image() == image && disk.syncs.load(SeqCst) == 0, "seed {seed}: changed");
        let store = EmbeddedStore::open(&ctx(), disk.config()).await.unwrap();
        assert_eq!(answers(&store).await.unwrap(), expected, "seed {seed}: opened to be written");
    }
    panic!("{judged} compactions were interrupted where the engine has to judge");
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
    // What it tried leaves the writer as it was.
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
async fn what_is_no_store_is_refused_as_it_is_for_a_writer() {
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
        ("stump", whole[..8192].to_vec()),
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

/// A reader of a pipe would wait for a writer.
#[cfg(unix)]
#[tokio::test]
async fn a_pipe_is_refused_at_once() {
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
async fn a_refusal_names_the_file_and_what_to_do() {
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

/// A path can hold a line end, and a message is one line.
#[cfg(unix)]
#[tokio::test]
async fn a_refusal_escapes_the_path() {
    let folder = Folder::new();
    drop(EmbeddedStore::open(&ctx(), folder.config("a\nb.redb")).await.unwrap());
    let store = open_read_only(&folder.config("a\nb.redb")).await;
    let error = store.put(&ctx(), &ns(), "a", bytes("v")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let message = error.message();
    assert!(message.contains("b.redb") && !message.contains('\n'), "{message}");
}

#[tokio::test]
async fn a_sweeper_over_a_read_only_store_ends_with_the_refusal() {
    let folder = Folder::new();
    drop(EmbeddedStore::open(&ctx(), folder.config("s.redb")).await.unwrap());
    let store = open_read_only(&folder.config("s.redb")).await;
    let patience = ctx().with_timeout(Duration::from_secs(60));
    let error = Sweeper::new(store).run(&patience).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

/// The instant of the last write is in the log alone when the process is killed.
#[tokio::test]
async fn a_clock_that_steps_back_revives_nothing_for_a_reader() {
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
async fn a_reader_goes_on_after_the_disk_failed() {
    let disk = Disk::new();
    let store = disk.open().await;
    for n in 0..100 {
        store.put(&ctx(), &ns(), &n.to_string(), Bytes::from(vec![n; 9000])).await.unwrap();
    }
    let expected = answers(&store).await.unwrap();
    // Not closed: the log is ahead of the engine.
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
async fn doctor_changes_nothing_and_says_what_is_read_only() {
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
        assert!(state(&folder.path("crashed.redb")) == before, "it was changed");
    }
}
