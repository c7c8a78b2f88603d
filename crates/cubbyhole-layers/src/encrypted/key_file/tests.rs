//! Tests of `KeyFile`: interrupted creations and rotations, and files that are read again.

use cubbyhole_core::ManualClock;

use super::*;

/// A data key that another ring wrapped.
fn wrapped(ring: &KeyRing) -> WrappedKey {
    ring.wrap_key(&SecretKey::generate().unwrap(), b"").unwrap()
}

async fn unwrap(file: &KeyFile, wrapped: &WrappedKey) -> Result<SecretKey> {
    file.unwrap(&ExecutionContext::new(), wrapped, b"").await
}

#[track_caller]
fn assert_permanent(error: &Error, text: &str) {
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.is_permanent(), "{error}");
    assert!(error.message().contains(text), "{error}");
}

#[tokio::test]
async fn missing_key_reads_the_file_once_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let clock = ManualClock::default();
    let mut file = KeyFile::create(&path).unwrap();
    file.clock = Arc::new(clock.clone());
    let mut ring = KeyRing::clone(&file.ring());
    ring.rotate().unwrap();
    let first = wrapped(&ring);
    assert_permanent(&unwrap(&file, &first).await.unwrap_err(), "has no key");

    fs::write(&path, ring.to_text().as_bytes()).unwrap();
    clock.advance(MISSING_FOR - Duration::from_millis(1));
    assert_permanent(&unwrap(&file, &first).await.unwrap_err(), "has no key");
    // Another key is looked up immediately.
    ring.rotate().unwrap();
    let second = wrapped(&ring);
    fs::write(&path, ring.to_text().as_bytes()).unwrap();
    unwrap(&file, &second).await.unwrap();
    unwrap(&file, &first).await.unwrap();

    ring.rotate().unwrap();
    let third = wrapped(&ring);
    assert_permanent(&unwrap(&file, &third).await.unwrap_err(), "has no key");
    fs::write(&path, ring.to_text().as_bytes()).unwrap();
    clock.advance(MISSING_FOR);
    unwrap(&file, &third).await.unwrap();
}

#[tokio::test]
async fn unreadable_file_is_reported_again_without_reading_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let clock = ManualClock::default();
    let mut file = KeyFile::create(&path).unwrap();
    file.clock = Arc::new(clock.clone());
    let ring = KeyRing::generate().unwrap();
    let wrapped = wrapped(&ring);
    fs::write(&path, "broken").unwrap();
    assert_permanent(&unwrap(&file, &wrapped).await.unwrap_err(), "line 1");
    fs::write(&path, ring.to_text().as_bytes()).unwrap();
    assert_permanent(&unwrap(&file, &wrapped).await.unwrap_err(), "line 1");
    clock.advance(MISSING_FOR);
    unwrap(&file, &wrapped).await.unwrap();
}

#[tokio::test]
async fn missing_keys_in_memory_are_limited() {
    let folder = tempfile::tempdir().unwrap();
    let file = KeyFile::create(folder.path().join("keys")).unwrap();
    for id in 0..MAX_MISSING + 10 {
        let wrapped = WrappedKey { key_id: format!("id-{id}"), bytes: Vec::new().into() };
        unwrap(&file, &wrapped).await.unwrap_err();
    }
    assert_eq!(file.missing.lock().unwrap().len(), 10);
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn created_file_is_complete_and_leaves_no_other_file() {
    let folder = tempfile::tempdir().unwrap();
    let (path, temporary) = (folder.path().join("keys"), folder.path().join("temporary"));
    let ring = KeyRing::generate().unwrap();
    // A killed call left its temporary file.
    fs::write(folder.path().join("keys.new-0123abcd"), "").unwrap();
    write_new(&path, &temporary, &ring).unwrap();
    assert_eq!(read(&path).unwrap().current_id(), ring.current_id());
    let error = write_new(&path, &temporary, &KeyRing::generate().unwrap()).unwrap_err();
    assert_eq!(error.kind(), IoErrorKind::AlreadyExists);
    KeyFile::create(&path).unwrap_err();
    KeyFile::create(folder.path().join("other")).unwrap();
    assert_eq!(read(&path).unwrap().current_id(), ring.current_id());
    assert_eq!(names(folder.path()), ["keys", "keys.new-0123abcd", "other"]);
}

#[test]
fn failed_link_removes_the_temporary_file() {
    let folder = tempfile::tempdir().unwrap();
    let temporary = folder.path().join("temporary");
    let ring = KeyRing::generate().unwrap();
    let error = write_new(&folder.path().join("absent/keys"), &temporary, &ring).unwrap_err();
    assert_eq!(error.kind(), IoErrorKind::NotFound);
    assert!(names(folder.path()).is_empty());
}

#[test]
fn file_is_not_overwritten_without_hard_links() {
    let folder = tempfile::tempdir().unwrap();
    let (path, temporary) = (folder.path().join("keys"), folder.path().join("temporary"));
    fs::write(&temporary, "text").unwrap();
    reserve(&path, &temporary).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"text");
    fs::write(&temporary, "other").unwrap();
    assert_eq!(reserve(&path, &temporary).unwrap_err().kind(), IoErrorKind::AlreadyExists);
    assert_eq!(fs::read(&path).unwrap(), b"text");
    fs::remove_file(&path).unwrap();
    fs::remove_file(&temporary).unwrap();
    reserve(&path, &temporary).unwrap_err();
    assert!(names(folder.path()).is_empty());
}

#[test]
fn failed_sync_of_the_folder_says_that_the_keys_were_rotated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let old = KeyFile::create(&path).unwrap().ring().current_id().to_owned();
    let error = KeyFile::rotate_and_sync(&path, |path| {
        // The next rotation begins.
        fs::write(with_suffix(path, ".rotating"), "").unwrap();
        Err(std::io::Error::other("no space"))
    });
    assert_permanent(&error.unwrap_err(), "was rotated");
    assert_ne!(KeyFile::open(&path).unwrap().ring().current_id(), old);
    assert_eq!(names(folder.path()), ["keys", "keys.rotating"]);
}
