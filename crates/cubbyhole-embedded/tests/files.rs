//! Opening: what is there, what is not, what is not ours, and what is damaged.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io;
use std::path::Path;
use std::sync::Arc;

use cubbyhole_core::{Error, ErrorKind, Store, Verdict};
use cubbyhole_embedded::{Config, EmbeddedStore, diagnose, is_store_file};
use support::{bytes, contents, ctx, ns};

async fn refusal(config: Config) -> Error {
    EmbeddedStore::open(&ctx(), config).await.unwrap_err()
}

fn config(folder: &tempfile::TempDir, name: &str) -> Config {
    Config::new(folder.path().join(name))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// What stands before the engine's part.
const LOG: usize = 1024 * 1024;

#[tokio::test]
async fn a_file_that_is_not_there_is_created_only_if_asked() {
    let folder = tempfile::tempdir().unwrap();
    let error = refusal(config(&folder, "s.redb").with_create(false)).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("there is no store"), "{error}");
    assert!(names(folder.path()).is_empty());

    drop(EmbeddedStore::open(&ctx(), config(&folder, "s.redb")).await.unwrap());
    assert_eq!(names(folder.path()), ["s.redb"]);
}

#[tokio::test]
async fn an_empty_file_becomes_a_store() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("s.redb"), b"").unwrap();
    let store = EmbeddedStore::open(&ctx(), config(&folder, "s.redb")).await.unwrap();
    store.put(&ctx(), &ns(), "a", bytes("v")).await.unwrap();
}

#[tokio::test]
async fn an_empty_file_that_may_not_be_made_a_store_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    std::fs::write(&path, b"").unwrap();
    let error = refusal(Config::new(&path).with_create(false)).await;
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let diagnosis = diagnose(&ctx(), &Config::new(&path)).await.unwrap();
    assert_eq!(diagnosis.verdict(), Verdict::Problem, "{diagnosis:?}");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
}

#[tokio::test]
async fn a_name_as_long_as_names_can_be_is_created() {
    let folder = tempfile::tempdir().unwrap();
    let name = format!("{}.redb", "n".repeat(250));
    EmbeddedStore::open(&ctx(), config(&folder, &name)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_open_is_waited_for_if_asked() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&ctx(), config(&folder, "s.redb")).await.unwrap();
    let patient = config(&folder, "s.redb").with_lock_wait(std::time::Duration::from_secs(30));
    let waiting = tokio::spawn(async move { EmbeddedStore::open(&ctx(), patient).await });
    let brief = config(&folder, "s.redb").with_lock_wait(std::time::Duration::from_millis(30));
    assert_eq!(refusal(brief).await.kind(), ErrorKind::Unavailable);
    assert!(!waiting.is_finished());
    drop(store);
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_missing_folder_and_a_folder_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let missing = refusal(config(&folder, "no/s.redb")).await;
    assert_eq!(missing.kind(), ErrorKind::Unavailable);
    assert!(missing.message().contains("folder"), "{missing}");
    let is_folder = refusal(Config::new(folder.path())).await;
    assert_eq!(is_folder.kind(), ErrorKind::InvalidArgument);
    std::fs::write(folder.path().join("file"), b"x").unwrap();
    let below_file = refusal(config(&folder, "file/s.redb")).await;
    assert_eq!(below_file.kind(), ErrorKind::InvalidArgument, "{below_file}");
}

#[tokio::test]
async fn a_file_that_is_open_says_so_and_opens_once_it_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&ctx(), config(&folder, "s.redb")).await.unwrap();
    let error = refusal(config(&folder, "s.redb")).await;
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
async fn many_that_create_at_once_make_one_store() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let open = |n: usize| {
        let folder = Arc::clone(&folder);
        tokio::spawn(async move {
            // A handle that is open elsewhere refuses; it is tried until it is free.
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
    assert_eq!(names(folder.path()), ["s.redb"], "a draft was left behind");
}

#[tokio::test]
async fn a_file_that_is_not_ours_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let text = "just some notes\n".repeat(1000);
    std::fs::write(folder.path().join("notes.txt"), &text).unwrap();
    let error = refusal(config(&folder, "notes.txt")).await;
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(std::fs::read_to_string(folder.path().join("notes.txt")).unwrap(), text);

    let other: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("theirs");
    let database = redb::Database::create(folder.path().join("other.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(other).unwrap().insert("k", 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = refusal(config(&folder, "other.redb")).await;
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("another program"), "{error}");
}

#[tokio::test]
async fn a_store_is_known_by_its_beginning_alone() {
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
    // Each leaves what the file begins with, or one of the two copies of the first sums, or the
    // header.
    for (name, what) in [
        ("cut", whole[..whole.len() / 2].to_vec()),
        ("stump", whole[..8192].to_vec()),
        ("magic", without(&[magic.clone(), second.clone(), header.clone()])),
        ("second", without(&[magic.clone(), first.clone(), header.clone()])),
        ("sums", without(&[magic, first.clone(), second.clone()])),
        ("behind", without(&[first, second, header])),
    ] {
        std::fs::write(&path, what).unwrap();
        assert!(is_store_file(&path).unwrap(), "{name}");
        if let Err(error) = EmbeddedStore::open(&ctx(), config(&folder, "s.redb")).await {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
        }
    }
    // As it was before there was a log.
    std::fs::write(&path, &whole[LOG..]).unwrap();
    assert!(is_store_file(&path).unwrap());
    let error = refusal(config(&folder, "s.redb")).await;
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
async fn what_the_system_refuses_is_named() {
    for (kind, expected) in [
        (io::ErrorKind::PermissionDenied, ErrorKind::PermissionDenied),
        (io::ErrorKind::ReadOnlyFilesystem, ErrorKind::PermissionDenied),
        (io::ErrorKind::StorageFull, ErrorKind::ResourceExhausted),
        (io::ErrorKind::NotFound, ErrorKind::Unavailable),
        (io::ErrorKind::Other, ErrorKind::Unavailable),
    ] {
        let config = Config::new("s.redb").with_storage(move || Err(kind.into()));
        let error = refusal(config).await;
        assert_eq!(error.kind(), expected, "{kind:?}: {error}");
    }
}

/// As NFS has it without its lock service.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_file_system_without_locks_is_named() {
    for read_only in [false, true] {
        let config = Config::new("s.redb")
            .with_read_only(read_only)
            .with_storage(|| Err(io::Error::from_raw_os_error(37)));
        let error = refusal(config).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains("cannot lock s.redb"), "{error}");
    }
}
