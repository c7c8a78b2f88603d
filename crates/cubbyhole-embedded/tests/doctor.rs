//! The findings of `diagnose`.
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

async fn checked_diagnosis(config: &Config) -> Diagnosis {
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

/// The names and verdicts of all checks that are not `Ok`.
fn findings(diagnosis: &Diagnosis) -> Vec<(&str, Verdict)> {
    let findings = diagnosis.checks.iter().filter(|check| check.verdict != Verdict::Ok);
    findings.map(|check| (check.name.as_str(), check.verdict)).collect()
}

/// Creates and closes a store. Returns its folder and path.
async fn closed_store() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let store = EmbeddedStore::open(&ctx(), Config::new(&path)).await.unwrap();
    store.put(&ctx(), &ns(), "a", bytes("v")).await.unwrap();
    (folder, path)
}

#[tokio::test]
async fn healthy_store_has_no_findings() {
    let (_folder, path) = closed_store().await;
    let diagnosis = checked_diagnosis(&Config::new(&path)).await;
    assert_eq!(findings(&diagnosis), [], "{diagnosis:#?}");
    for name in ["file", "permissions", "disk", "durability", "open", "clock", "entries"] {
        // Permissions are only checked on Unix.
        if cfg!(unix) || name != "permissions" {
            check(&diagnosis, name);
        }
    }
    assert!(check(&diagnosis, "open").finding.contains("format"));
}

#[tokio::test]
async fn missing_store_is_a_problem_and_not_created() {
    let folder = tempfile::tempdir().unwrap();
    let missing = checked_diagnosis(&Config::new(folder.path().join("s.redb"))).await;
    assert_eq!(findings(&missing), [("file", Verdict::Problem)]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file was created");
    let ended = ExecutionContext::new();
    ended.cancel();
    assert!(diagnose(&ended, &Config::new(folder.path())).await.is_err());
}

#[tokio::test]
async fn open_store_is_a_problem_and_other_checks_run() {
    let (_folder, path) = closed_store().await;
    let config = Config::new(&path);
    let store = EmbeddedStore::open(&ctx(), config.clone()).await.unwrap();
    let open = checked_diagnosis(&config).await;
    assert_eq!(findings(&open), [("open", Verdict::Problem)]);
    let found = check(&open, "open");
    assert!(found.finding.contains("open in another process"), "{found:?}");
    assert!(found.advice.as_ref().unwrap().contains("an earlier copy"), "{found:?}");
    assert_eq!(check(&open, "disk").verdict, Verdict::Ok);
    drop(store);
    assert_eq!(checked_diagnosis(&config).await.verdict(), Verdict::Ok);
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn access_by_other_users_is_a_warning() {
    let (folder, path) = closed_store().await;
    let config = Config::new(&path);
    for (mode, finding) in [
        (0o640, "its group may read it"),
        (0o660, "its group may read and write it"),
        (0o644, "its group may read it, everybody may read it"),
        (0o602, "everybody may write it"),
    ] {
        set_mode(&path, mode);
        let diagnosis = checked_diagnosis(&config).await;
        assert_eq!(findings(&diagnosis), [("permissions", Verdict::Warning)], "{mode:o}");
        assert_eq!(check(&diagnosis, "permissions").finding, finding, "{mode:o}");
    }
    set_mode(&path, 0o600);
    for (mode, is_sound) in [(0o777, false), (0o1777, true), (0o775, true)] {
        set_mode(folder.path(), mode);
        let diagnosis = checked_diagnosis(&config).await;
        assert_eq!(findings(&diagnosis).is_empty(), is_sound, "{mode:o}: {diagnosis:#?}");
        assert_eq!(check(&diagnosis, "permissions").finding.contains("replace it"), !is_sound);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn created_file_is_accessible_only_to_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, path) = closed_store().await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn too_little_space_for_a_copy_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    // The sparse file is not a store, so it is refused without reading all of it.
    let free = fs4::available_space(folder.path()).unwrap();
    std::fs::File::create(&path).unwrap().set_len(free + free / 4).unwrap();
    let diagnosis = checked_diagnosis(&Config::new(&path)).await;
    assert_eq!(check(&diagnosis, "disk").verdict, Verdict::Warning, "{diagnosis:#?}");
    assert_eq!(check(&diagnosis, "open").verdict, Verdict::Problem, "{diagnosis:#?}");
    std::fs::File::create(&path).unwrap();
    let diagnosis = checked_diagnosis(&Config::new(&path)).await;
    assert_eq!(check(&diagnosis, "disk").verdict, Verdict::Ok, "{diagnosis:#?}");
}

#[tokio::test]
async fn relaxed_durability_is_a_warning() {
    let (_folder, path) = closed_store().await;
    let relaxed = Config::new(&path).with_durability(Durability::Relaxed);
    let diagnosis = checked_diagnosis(&relaxed).await;
    assert_eq!(findings(&diagnosis), [("durability", Verdict::Warning)], "{diagnosis:#?}");
    assert!(check(&diagnosis, "durability").finding.contains("200ms"));
}

#[tokio::test]
async fn clock_behind_the_store_time_is_a_warning() {
    for (ahead, expected) in [(30, vec![]), (3600, vec![("clock", Verdict::Warning)])] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.redb");
        let ahead = SystemClock.now().checked_add(Duration::from_secs(ahead)).unwrap();
        let config = Config::new(&path).with_clock(ManualClock::new(ahead));
        let store = EmbeddedStore::open(&ctx(), config).await.unwrap();
        store.put(&ctx(), &ns(), "a", bytes("v")).await.unwrap();
        drop(store);
        let diagnosis = checked_diagnosis(&Config::new(&path)).await;
        assert_eq!(findings(&diagnosis), expected, "{diagnosis:#?}");
    }
}

#[tokio::test]
async fn many_expired_entries_are_a_warning() {
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
    let diagnosis = checked_diagnosis(&config).await;
    assert_eq!(check(&diagnosis, "entries").finding, "8, none of them expired");
    clock.advance(Duration::from_secs(10));
    let diagnosis = checked_diagnosis(&config).await;
    assert_eq!(findings(&diagnosis), [], "a quarter is below the threshold");
    assert!(check(&diagnosis, "entries").finding.starts_with("8, 2 of them expired"));
    put(8..9, 1).await;
    clock.advance(Duration::from_secs(1));
    let diagnosis = checked_diagnosis(&config).await;
    assert_eq!(findings(&diagnosis), [("entries", Verdict::Warning)], "{diagnosis:#?}");
    assert!(check(&diagnosis, "entries").advice.as_ref().unwrap().contains("cubbyhole evict"));
    let store = EmbeddedStore::open(&ctx(), config.clone()).await.unwrap();
    store.evict_expired(&ctx()).await.unwrap();
    drop(store);
    assert_eq!(checked_diagnosis(&config).await.verdict(), Verdict::Ok);
}
