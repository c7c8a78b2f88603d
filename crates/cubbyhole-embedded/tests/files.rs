//! Opening missing, foreign, locked and damaged files.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io;
use std::path::Path;
use std::sync::Arc;

use cubbyhole_core::{Error, ErrorKind, Store, Verdict};
use cubbyhole_embedded::{Config, EmbeddedStore, diagnose, is_store_file};
use support::{bytes, contents, ctx, ns};

async fn open_error(config: Config) -> Error {
    EmbeddedStore::open(&ctx(), config).await.unwrap_err()
}

fn config(folder: &tempfile::TempDir, name: &str) -> Config {
    Config::new(folder.path().join(name))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The length of the log, after which the engine region starts.
const LOG: usize = 1024 * 1024;

#[tokio::test]
async fn missing_file_is_created_only_if_configured() {
    let folder = tempfile::tempdir().unwrap();
    let error = open_error(config(&folder, "s.redb").with_create(false)).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("there is no store"), "{error}");
    assert!(names(folder.path()).is_empty());

    drop(EmbeddedStore::open(&ctx(), config(&folder, "s.redb")).await.unwrap());
    assert_eq!(names(folder.path()), ["s.redb"]);
}

#[tokio::test]
async fn empty_file_becomes_a_store() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("s.redb"), b"").unwrap();
    let store = EmbeddedStore::open(&ctx(), config(&folder, "s.redb")).await.unwrap();
    store.put(&ctx(), &ns(), "a", bytes("v")).await.unwrap();
}

#[tokio::test]
async fn empty_file_without_create_is_corrupt_and_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    std::fs::write(&path, b"").unwrap();
    let error = open_error(Config::new(&path).with_create(false)).await;
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let diagnosis = diagnose(&ctx(), &Config::new(&path)).await.unwrap();
    assert_eq!(diagnosis.verdict(), Verdict::Problem, "{diagnosis:?}");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
}

#[tokio::test]
async fn file_with_longest_name_is_created() {
    let folder = tempfile::tempdir().unwrap();
    let name = format!("{}.redb", "n".repeat(250));
    EmbeddedStore::open(&ctx(), config(&folder, &name)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lock_wait_waits_until_the_file_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&ctx(), config(&folder, "s.redb")).await.unwrap();
    let waiting_config =
        config(&folder, "s.redb").with_lock_wait(std::time::Duration::from_secs(30));
    let waiting = tokio::spawn(async move { EmbeddedStore::open(&ctx(), waiting_config).await });
    let short_wait = config(&folder, "s.redb").with_lock_wait(std::time::Duration::from_millis(30));
    assert_eq!(open_error(short_wait).await.kind(), ErrorKind::Unavailable);
    assert!(!waiting.is_finished());
    drop(store);
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn missing_folder_and_folder_path_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let missing = open_error(config(&folder, "no/s.redb")).await;
    assert_eq!(missing.kind(), ErrorKind::Unavailable);
    assert!(missing.message().contains("folder"), "{missing}");
    let is_folder = open_error(Config::new(folder.path())).await;
    assert_eq!(is_folder.kind(), ErrorKind::InvalidArgument);
    std::fs::write(folder.path().join("file"), b"x").unwrap();
    let below_file = open_error(config(&folder, "file/s.redb")).await;
    assert_eq!(below_file.kind(), ErrorKind::InvalidArgument, "{below_file}");
}

#[tokio::test]
async fn open_file_is_unavailable_until_it_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&ctx(), config(&folder, "s.redb")).await.unwrap();
    let error = open_error(config(&folder, "s.redb")).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let message = error.message();
    assert!(message.contains("open in another process") && !message.contains('\n'), "{error}");
    for way in ["stop that process", "wait until it closes", "PostgreSQL or Redis"] {
        assert!(message.contains(way), "{error}");
    }
    drop(store);
    EmbeddedStore::open(&ctx(), config(&folder, "s.redb")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_creation_makes_one_store() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let open = |n: usize| {
        let folder = Arc::clone(&folder);
        tokio::spawn(async move {
            // Retries while another task has the file open.
            let store = loop {
                match EmbeddedStore::open(&ctx(), config(&folder, "s.redb")).await {
                    Ok(store) => break store,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
                }
            };
            store.put(&ctx(), &ns(), &n.to_string(), bytes("v")).await.unwrap();
        })
    };
    for task in (0..8).map(open).collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let store = EmbeddedStore::open(&ctx(), config(&folder, "s.redb")).await.unwrap();
    assert_eq!(contents(&store).await.len(), 8, "a second creator replaced the first one's file");
    assert_eq!(names(folder.path()), ["s.redb"], "a draft remains");
}

#[tokio::test]
async fn foreign_file_is_refused_and_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let text = "just some notes\n".repeat(1000);
    std::fs::write(folder.path().join("notes.txt"), &text).unwrap();
    let error = open_error(config(&folder, "notes.txt")).await;
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(std::fs::read_to_string(folder.path().join("notes.txt")).unwrap(), text);

    let other: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("theirs");
    let database = redb::Database::create(folder.path().join("other.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(other).unwrap().insert("k", 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = open_error(config(&folder, "other.redb")).await;
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("another program"), "{error}");
}

#[tokio::test]
async fn store_is_recognised_by_its_first_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let store = EmbeddedStore::open(&ctx(), config(&folder, "s.redb")).await.unwrap();
    store.put(&ctx(), &ns(), "a", bytes("v")).await.unwrap();
    assert!(is_store_file(&path).unwrap(), "while it is open");
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    let without = |damaged: &[std::ops::Range<usize>]| {
        let mut bytes = whole.clone();
        damaged.iter().for_each(|range| bytes[range.clone()].fill(0xFF));
        bytes
    };
    let (magic, first) = (0..4096, LOG..LOG + 4096);
    let (second, header) = (LOG + 4096..LOG + 8192, LOG + 8192..LOG + 12288);
    // Each case keeps only one of the magic, the two first checksum blocks, and the header.
    for (name, image) in [
        ("cut", whole[..whole.len() / 2].to_vec()),
        ("truncated", whole[..8192].to_vec()),
        ("magic", without(&[magic.clone(), second.clone(), header.clone()])),
        ("second", without(&[magic.clone(), first.clone(), header.clone()])),
        ("sums", without(&[magic, first.clone(), second.clone()])),
        ("magic only", without(&[first, second, header])),
    ] {
        std::fs::write(&path, image).unwrap();
        assert!(is_store_file(&path).unwrap(), "{name}");
        if let Err(error) = EmbeddedStore::open(&ctx(), config(&folder, "s.redb")).await {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
        }
    }
    // The format of early builds had no log.
    std::fs::write(&path, &whole[LOG..]).unwrap();
    assert!(is_store_file(&path).unwrap());
    let error = open_error(config(&folder, "s.redb")).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    redb::Database::create(folder.path().join("other.redb")).unwrap();
    assert!(is_store_file(&folder.path().join("other.redb")).unwrap());
    for other in ["".to_owned(), "{}\n".to_owned(), "x".repeat(LOG + 100_000)] {
        std::fs::write(&path, other).unwrap();
        assert!(!is_store_file(&path).unwrap());
    }
    assert!(!is_store_file(folder.path()).unwrap(), "a folder");
    let missing = is_store_file(&folder.path().join("missing")).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn io_errors_on_open_map_to_error_kinds() {
    for (kind, expected) in [
        (io::ErrorKind::PermissionDenied, ErrorKind::PermissionDenied),
        (io::ErrorKind::ReadOnlyFilesystem, ErrorKind::PermissionDenied),
        (io::ErrorKind::StorageFull, ErrorKind::ResourceExhausted),
        (io::ErrorKind::NotFound, ErrorKind::Unavailable),
        (io::ErrorKind::Other, ErrorKind::Unavailable),
    ] {
        let config = Config::new("s.redb").with_storage(move || Err(kind.into()));
        let error = open_error(config).await;
        assert_eq!(error.kind(), expected, "{kind:?}: {error}");
    }
}

/// NFS without a lock service returns this error.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn file_system_without_locks_is_reported() {
    for read_only in [false, true] {
        let config = Config::new("s.redb")
            .with_read_only(read_only)
            .with_storage(|| Err(io::Error::from_raw_os_error(37)));
        let error = open_error(config).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains("cannot lock s.redb"), "{error}");
    }
}
