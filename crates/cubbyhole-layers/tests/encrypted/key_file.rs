//! Key files.

use std::sync::Arc;

use cubbyhole_core::{ErrorKind, ManualClock};
use cubbyhole_layers::{Encrypted, KeyFile};

use crate::common::{assert_says, ctx, get, memory, ns, put};

#[test]
fn create_refuses_to_overwrite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let ids = KeyFile::create(&path).unwrap().ring().current_id().to_owned();
    let error = KeyFile::create(&path).unwrap_err();
    assert_says(&error, ErrorKind::InvalidArgument, "not overwritten");
    assert_eq!(KeyFile::open(&path).unwrap().ring().current_id(), ids);
}

#[test]
fn missing_and_invalid_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let missing = KeyFile::open(&path).unwrap_err();
    assert_says(&missing, ErrorKind::InvalidArgument, "no such file");
    let missing = KeyFile::create(folder.path().join("absent/keys")).unwrap_err();
    assert_says(&missing, ErrorKind::InvalidArgument, "no such file or folder");
    KeyFile::create(&path).unwrap();
    std::fs::write(&path, "current a\nkey a c2VjcmV0\n").unwrap();
    for error in [KeyFile::open(&path).unwrap_err(), KeyFile::rotate(&path).unwrap_err()] {
        assert_says(&error, ErrorKind::InvalidArgument, "line 2");
        assert!(!format!("{error:?}").contains("c2VjcmV0"));
    }
    std::fs::write(&path, b"\xFF").unwrap();
    let error = KeyFile::open(&path).unwrap_err();
    assert_says(&error, ErrorKind::InvalidArgument, "not UTF-8");
}

#[cfg(unix)]
#[test]
fn file_that_others_may_access_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    KeyFile::create(&path).unwrap();
    let mode = |path: &_| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    KeyFile::rotate(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    for bad in [0o640, 0o604, 0o610, 0o601, 0o620, 0o602] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(bad)).unwrap();
        for error in [KeyFile::open(&path).unwrap_err(), KeyFile::rotate(&path).unwrap_err()] {
            assert_says(&error, ErrorKind::PermissionDenied, "chmod 600");
        }
    }
}

#[test]
fn interrupted_rotation_leaves_the_file_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let first = KeyFile::create(&path).unwrap().ring().current_id().to_owned();
    let temporary = folder.path().join("keys.rotating");
    std::fs::write(&temporary, "").unwrap();
    let error = KeyFile::rotate(&path).unwrap_err();
    assert_says(&error, ErrorKind::Conflict, "keys.rotating");
    assert_eq!(KeyFile::open(&path).unwrap().ring().current_id(), first);
    std::fs::remove_file(&temporary).unwrap();
    let second = KeyFile::rotate(&path).unwrap();
    let ring = KeyFile::open(&path).unwrap().ring();
    assert_eq!(ring.key_ids().collect::<Vec<_>>(), [&second, &first]);
    assert!(!temporary.exists());
}

#[tokio::test]
async fn running_process_reads_a_rotated_file_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let clock = ManualClock::default();
    let inner = memory(&clock);
    let running = Encrypted::new(inner.clone(), Arc::new(KeyFile::create(&path).unwrap()));
    put(&running, "acme", "k", "value").await.unwrap();

    KeyFile::rotate(&path).unwrap();
    let second = Encrypted::new(inner.clone(), Arc::new(KeyFile::open(&path).unwrap()));
    second.rekey(&ctx(), &ns("acme").tenant()).await.unwrap();
    second.reencrypt_step(&ctx(), &ns("acme").into(), None, 10).await.unwrap();
    assert_eq!(get(&running, "acme", "k").await.unwrap().unwrap(), "value");
}

#[tokio::test]
async fn running_process_wraps_new_keys_with_a_rotated_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let file = Arc::new(KeyFile::create(&path).unwrap());
    let running = Encrypted::new(memory(&ManualClock::default()), Arc::clone(&file) as _);
    let rotated = KeyFile::rotate(&path).unwrap();
    put(&running, "acme", "k", "value").await.unwrap();
    assert_eq!(file.ring().current_id(), rotated);
    let rekeyed = running.rekey(&ctx(), &ns("acme").tenant()).await.unwrap();
    assert!(!rekeyed.new_data_key, "the data key is wrapped with the current key already");

    // Without the file, the keys in memory still work.
    std::fs::remove_file(&path).unwrap();
    put(&running, "globex", "k", "value").await.unwrap();
    assert_eq!(get(&running, "globex", "k").await.unwrap().unwrap(), "value");
}

/// A rotated file that is ignored would wrap new data keys with the retired key.
#[cfg(unix)]
#[tokio::test]
async fn unusable_file_wraps_no_new_data_key() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let store = Encrypted::new(
        memory(&ManualClock::default()),
        Arc::new(KeyFile::create(&path).unwrap()) as Arc<_>,
    );
    put(&store, "acme", "k", "value").await.unwrap();
    KeyFile::rotate(&path).unwrap();
    let text = std::fs::read(&path).unwrap();
    let refused = async |part: &str| {
        let tenant = ns("acme").tenant();
        for error in [
            put(&store, "globex", "k", "value").await.unwrap_err(),
            store.rekey(&ctx(), &tenant).await.unwrap_err(),
        ] {
            assert_says(&error, ErrorKind::Unavailable, part);
            assert!(error.message().contains("keys: "), "{error}");
            assert!(error.is_permanent(), "{error}");
        }
        // The key of the existing data key is in memory.
        assert_eq!(get(&store, "acme", "k").await.unwrap().unwrap(), "value");
        put(&store, "acme", "k", "value").await.unwrap();
    };
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    refused("chmod 600").await;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&path, "broken").unwrap();
    refused("line 1").await;
    std::fs::write(&path, text).unwrap();
    put(&store, "globex", "k", "value").await.unwrap();
    assert!(store.rekey(&ctx(), &ns("acme").tenant()).await.unwrap().new_data_key);
}
