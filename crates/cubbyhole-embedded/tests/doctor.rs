//! What `diagnose` finds.
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
    Check, Clock, Diagnosis, ExecutionContext, ManualClock, PutOptions, Store, SystemClock, Verdict,
};
use cubbyhole_embedded::{Config, Durability, EmbeddedStore, diagnose};
use support::{bytes, ctx, ns};

async fn looked_over(config: &Config) -> Diagnosis {
    let diagnosis = diagnose(&ctx(), config).await.unwrap();
    for check in &diagnosis.checks {
        assert_eq!(check.advice.is_some(), check.verdict != Verdict::Ok, "{check:?}");
        assert!(!check.finding.contains('\n'), "{check:?}");
    }
    diagnosis
}

#[track_caller]
fn check<'a>(diagnosis: &'a Diagnosis, name: &str) -> &'a Check {
    let found = diagnosis.checks.iter().find(|check| check.name == name);
    found.unwrap_or_else(|| panic!("no check `{name}`: {diagnosis:#?}"))
}

/// The checks that found something, by their names.
fn amiss(diagnosis: &Diagnosis) -> Vec<(&str, Verdict)> {
    let amiss = diagnosis.checks.iter().filter(|check| check.verdict != Verdict::Ok);
    amiss.map(|check| (check.name.as_str(), check.verdict)).collect()
}

/// A store that was closed, and its folder.
async fn closed_store() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let store = EmbeddedStore::open(&ctx(), Config::new(&path)).await.unwrap();
    store.put(&ctx(), &ns(), "a", bytes("v")).await.unwrap();
    (folder, path)
}

#[tokio::test]
async fn a_sound_store_is_found_sound() {
    let (_folder, path) = closed_store().await;
    let diagnosis = looked_over(&Config::new(&path)).await;
    assert_eq!(amiss(&diagnosis), [], "{diagnosis:#?}");
    for name in ["file", "permissions", "disk", "durability", "open", "clock", "entries"] {
        // Other systems' rights are not looked at.
        if cfg!(unix) || name != "permissions" {
            check(&diagnosis, name);
        }
    }
    assert!(check(&diagnosis, "open").finding.contains("format"));
}

#[tokio::test]
async fn a_store_that_is_not_there_is_a_problem_and_is_not_created() {
    let folder = tempfile::tempdir().unwrap();
    let missing = looked_over(&Config::new(folder.path().join("s.redb"))).await;
    assert_eq!(amiss(&missing), [("file", Verdict::Problem)]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it was created");
    let ended = ExecutionContext::new();
    ended.cancel();
    assert!(diagnose(&ended, &Config::new(folder.path())).await.is_err());
}

#[tokio::test]
async fn a_store_that_is_open_elsewhere_is_a_problem_and_the_rest_is_looked_over() {
    let (_folder, path) = closed_store().await;
    let config = Config::new(&path);
    let store = EmbeddedStore::open(&ctx(), config.clone()).await.unwrap();
    let open = looked_over(&config).await;
    assert_eq!(amiss(&open), [("open", Verdict::Problem)]);
    let found = check(&open, "open");
    assert!(found.finding.contains("open in another process"), "{found:?}");
    assert!(found.advice.as_ref().unwrap().contains("an earlier copy"), "{found:?}");
    assert_eq!(check(&open, "disk").verdict, Verdict::Ok);
    drop(store);
    assert_eq!(looked_over(&config).await.verdict(), Verdict::Ok);
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_others_may_read_or_write_is_warned_of() {
    let (folder, path) = closed_store().await;
    let config = Config::new(&path);
    for (mode, finding) in [
        (0o640, "its group may read it"),
        (0o660, "its group may read and write it"),
        (0o644, "its group may read it, everybody may read it"),
        (0o602, "everybody may write it"),
    ] {
        set_mode(&path, mode);
        let diagnosis = looked_over(&config).await;
        assert_eq!(amiss(&diagnosis), [("permissions", Verdict::Warning)], "{mode:o}");
        assert_eq!(check(&diagnosis, "permissions").finding, finding, "{mode:o}");
    }
    set_mode(&path, 0o600);
    for (mode, is_sound) in [(0o777, false), (0o1777, true), (0o775, true)] {
        set_mode(folder.path(), mode);
        let diagnosis = looked_over(&config).await;
        assert_eq!(amiss(&diagnosis).is_empty(), is_sound, "{mode:o}: {diagnosis:#?}");
        assert_eq!(check(&diagnosis, "permissions").finding.contains("replace it"), !is_sound);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_is_created_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, path) = closed_store().await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_disk_that_has_no_room_for_a_copy_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    // With nothing in it, and so no store: it is refused before anybody reads so much.
    let free = fs4::available_space(folder.path()).unwrap();
    std::fs::File::create(&path).unwrap().set_len(free + free / 4).unwrap();
    let diagnosis = looked_over(&Config::new(&path)).await;
    assert_eq!(check(&diagnosis, "disk").verdict, Verdict::Warning, "{diagnosis:#?}");
    assert_eq!(check(&diagnosis, "open").verdict, Verdict::Problem, "{diagnosis:#?}");
    std::fs::File::create(&path).unwrap();
    let diagnosis = looked_over(&Config::new(&path)).await;
    assert_eq!(check(&diagnosis, "disk").verdict, Verdict::Ok, "{diagnosis:#?}");
}

#[tokio::test]
async fn a_relaxed_store_is_warned_of() {
    let (_folder, path) = closed_store().await;
    let relaxed = Config::new(&path).with_durability(Durability::Relaxed);
    let diagnosis = looked_over(&relaxed).await;
    assert_eq!(amiss(&diagnosis), [("durability", Verdict::Warning)], "{diagnosis:#?}");
    assert!(check(&diagnosis, "durability").finding.contains("200ms"));
}

#[tokio::test]
async fn a_clock_that_is_behind_what_the_store_has_seen_is_warned_of() {
    for (ahead, amiss_then) in [(30, vec![]), (3600, vec![("clock", Verdict::Warning)])] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.redb");
        let ahead = SystemClock.now().checked_add(Duration::from_secs(ahead)).unwrap();
        let config = Config::new(&path).with_clock(ManualClock::new(ahead));
        let store = EmbeddedStore::open(&ctx(), config).await.unwrap();
        store.put(&ctx(), &ns(), "a", bytes("v")).await.unwrap();
        drop(store);
        let diagnosis = looked_over(&Config::new(&path)).await;
        assert_eq!(amiss(&diagnosis), amiss_then, "{diagnosis:#?}");
    }
}

#[tokio::test]
async fn what_has_expired_and_is_not_swept_is_told_and_warned_of_when_it_is_much() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::default();
    let config = Config::new(folder.path().join("s.redb")).with_clock(clock.clone());
    let put = async |keys: std::ops::Range<u32>, ttl| {
        let store = EmbeddedStore::open(&ctx(), config.clone()).await.unwrap();
        for key in keys {
            let options = PutOptions::new().with_ttl(Duration::from_secs(ttl));
            let (ns, key) = (ns(), key.to_string());
            store.put_with_options(&ctx(), &ns, &key, bytes("v"), options).await.unwrap();
        }
    };
    put(0..6, 1000).await;
    put(6..8, 10).await;
    let diagnosis = looked_over(&config).await;
    assert_eq!(check(&diagnosis, "entries").finding, "8, none of them expired");
    clock.advance(Duration::from_secs(10));
    let diagnosis = looked_over(&config).await;
    assert_eq!(amiss(&diagnosis), [], "a quarter is not much");
    assert!(check(&diagnosis, "entries").finding.starts_with("8, 2 of them expired"));
    put(8..9, 1).await;
    clock.advance(Duration::from_secs(1));
    let diagnosis = looked_over(&config).await;
    assert_eq!(amiss(&diagnosis), [("entries", Verdict::Warning)], "{diagnosis:#?}");
    assert!(check(&diagnosis, "entries").advice.as_ref().unwrap().contains("cubbyhole evict"));
    let store = EmbeddedStore::open(&ctx(), config.clone()).await.unwrap();
    store.evict_expired(&ctx()).await.unwrap();
    drop(store);
    assert_eq!(looked_over(&config).await.verdict(), Verdict::Ok);
}
