//! The file of an export: its name, its mode, its format, and the leftovers of killed exports.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use crate::support::{Place, Ran, line, signal};

const TARGET: &str = "out.jsonl";
const OTHER_GROUP: u32 = 65_534;

/// A store whose export takes a while, in many pages: between two of them a signal is noticed.
fn large_store(place: &Place) {
    let value = format!("\"{}\"", "v".repeat(2500));
    let input: String = (0..6000).map(|n| line("acme", &format!("{n:04}"), &value)).collect();
    let ran = place.run_reading(&["import"], input.as_bytes());
    assert_eq!(ran.code, 0, "{ran:?}");
}

fn mode(path: PathBuf) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The temporary files of exports.
fn parts(place: &Place) -> Vec<String> {
    place.files().into_iter().filter(|name| name.ends_with(".part")).collect()
}

/// A process that was stopped by SIGSTOP in the middle of an export.
fn stopped_export(place: &Place) -> (Child, String) {
    // A machine that is busy may let an export end before it is stopped.
    for _ in 0..20 {
        let mut command = place.command(&["export", "acme", TARGET]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // Once something is in it, it is locked too.
        let begun = |name: &String| std::fs::metadata(place.path(name)).is_ok_and(|m| m.len() > 0);
        let new = || parts(place).into_iter().find(begun);
        while new().is_none() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        // A process that was waited for has no pid any more.
        if child.try_wait().unwrap().is_some() {
            continue;
        }
        signal(&child, "STOP");
        // Until the last of its threads has stopped.
        let status = format!("/proc/{}/status", child.id());
        let stopped = || std::fs::read_to_string(&status).unwrap().contains("State:\tT");
        while !stopped() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        if child.try_wait().unwrap().is_some() {
            continue;
        }
        if let Some(part) = new() {
            return (child, part);
        }
        signal(&child, "CONT");
        child.wait().unwrap();
    }
    panic!("no export could be stopped in the middle");
}

fn continued(child: Child) -> Ran {
    signal(&child, "CONT");
    Ran::of(child.wait_with_output().unwrap())
}

#[test]
fn new_export_is_for_its_owner_and_a_replaced_one_keeps_its_mode() {
    let place = Place::new();
    place.ok(&["put", "acme", "k", "1"]);
    let export = |name: &str| {
        let script = "umask 022; exec \"$0\" \"$@\"";
        let ran = place.in_shell(script, &["export", "acme", name]).output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
    };
    for name in ["plain.jsonl", "small.jsonl.zst"] {
        export(name);
        assert_eq!(mode(place.path(name)), 0o600, "{name}");
    }
    for kept in [0o644, 0o640, 0o600, 0o444] {
        place.write("old.jsonl", "as it was");
        // Of another group where the tests may do that; else of their own.
        let _ = std::os::unix::fs::chown(place.path("old.jsonl"), None, Some(OTHER_GROUP));
        std::fs::set_permissions(place.path("old.jsonl"), PermissionsExt::from_mode(kept)).unwrap();
        let group = || std::fs::metadata(place.path("old.jsonl")).unwrap().gid();
        let before = group();
        export("old.jsonl");
        assert_eq!((mode(place.path("old.jsonl")), group()), (kept, before));
        std::fs::remove_file(place.path("old.jsonl")).unwrap();
    }
}

#[test]
fn signal_during_an_export_removes_its_temporary_file() {
    let place = Place::new();
    large_store(&place);
    place.write(TARGET, "as it was");
    // Closing a terminal sends SIGHUP more than once, and systemd can send it with SIGTERM.
    let both: (&[&str], &[i32]) = (&["TERM", "HUP"], &[129, 143]);
    for (names, codes) in
        [(&["HUP"][..], &[129][..]), (&["TERM"], &[143]), (&["INT"], &[130]), both]
    {
        let interrupted = (0..10).any(|_| {
            let (child, part) = stopped_export(&place);
            // Also of an export that replaces a file which others may read.
            assert_eq!(mode(place.path(&part)), 0o600);
            names.iter().for_each(|name| signal(&child, name));
            let ran = continued(child);
            assert_eq!(parts(&place), [""; 0], "{names:?}");
            // It may have been at its very end.
            if ran.code == 0 {
                place.write(TARGET, "as it was");
                return false;
            }
            assert!(codes.contains(&ran.code), "{ran:?}");
            assert!(ran.stderr.contains("out.jsonl is as it was before"), "{ran:?}");
            true
        });
        assert!(interrupted, "{names:?}");
        assert_eq!(std::fs::read_to_string(place.path(TARGET)).unwrap(), "as it was");
    }
}

#[test]
fn next_export_removes_what_a_killed_one_left() {
    let place = Place::new();
    large_store(&place);
    let (mut child, part) = stopped_export(&place);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(parts(&place), [part.as_str()]);
    assert_eq!(mode(place.path(&part)), 0o600);
    // Not of this name, or of no export.
    let version = part.trim_start_matches(".out.jsonl.").trim_end_matches(".part");
    let others = [
        format!(".out.{version}.part"),
        format!(".out.jsonl.zst.{version}.part"),
        ".out.jsonl.mine.part".to_owned(),
        format!(".out.jsonl.{version}.part.txt"),
    ];
    for other in &others {
        place.write(other, "mine");
    }
    place.ok(&["export", "acme", "other.jsonl"]);
    assert!(place.path(&part).exists());
    let ran = place.run(&["export", "acme", TARGET]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let removed = format!("{part}, which a killed export left behind\n");
    assert!(ran.stderr.starts_with("removed ") && ran.stderr.contains(&removed), "{ran:?}");
    assert!(!place.path(&part).exists());
    for other in &others {
        assert!(place.path(other).exists(), "{other}");
    }
    let ran = place.run(&["export", "acme", TARGET]);
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
}

#[test]
fn exports_to_one_name_at_the_same_time_leave_each_other_alone() {
    let place = Place::new();
    large_store(&place);
    // A file admits one process at a time: the second one reads another store.
    place.ok(&["copy", "acme", "--to", "redb:second.redb"]);
    let (child, part) = stopped_export(&place);
    let ran = place.run(&["export", "acme", TARGET, "--store", "redb:second.redb"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    assert_eq!(parts(&place), [part]);
    let whole = std::fs::read(place.path(TARGET)).unwrap();
    std::fs::remove_file(place.path(TARGET)).unwrap();
    let ran = continued(child);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(parts(&place), [""; 0]);
    assert!(std::fs::read(place.path(TARGET)).unwrap() == whole);
}

#[test]
fn leftover_that_cannot_be_removed_is_reported() {
    let place = Place::new();
    place.ok(&["put", "acme", "k", "1"]);
    let version = place.json(&["get", "acme", "k"])[0]["version"].as_str().unwrap().to_owned();
    let part = format!(".out.jsonl.{version}.part");
    // Root may open any file.
    place.write(&part, "");
    std::fs::set_permissions(place.path(&part), PermissionsExt::from_mode(0o400)).unwrap();
    let root = std::fs::File::options().write(true).open(place.path(&part)).is_ok();
    let ran = place.run(&["export", "acme", TARGET]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let told = if root { "removed" } else { "remove the file if no export is running" };
    assert!(ran.stderr.contains(told) && ran.stderr.contains(&part), "{ran:?}");
    assert_eq!(place.path(&part).exists(), !root);
}

#[test]
fn name_of_another_format_is_refused_before_anything_is_written() {
    let place = Place::new();
    place.ok(&["put", "acme", "k", "1"]);
    for (name, part) in [
        ("x.jsonl.gz", "x.jsonl.zst"),
        ("x.GZ", "`gzip`"),
        ("x.xz", "`xz`"),
        ("x.zip", "`zip`"),
        ("x.zstd", "x.zst"),
    ] {
        for arguments in [&["export", "acme", name][..], &["export", "--all", name]] {
            let message = place.fails(2, arguments);
            assert!(message.contains(part) && message.contains("cannot write"), "{message}");
        }
    }
    assert_eq!(place.files(), ["cubbyhole.redb"]);
    // A link may have another name than its file.
    for (link, target) in [("link.jsonl", "real.jsonl.gz"), ("small.jsonl", "real.jsonl.zst")] {
        place.write(target, "");
        std::os::unix::fs::symlink(place.path(target), place.path(link)).unwrap();
    }
    let message = place.fails(2, &["export", "acme", "link.jsonl"]);
    assert!(message.contains("real.jsonl.gz"), "{message}");
    place.ok(&["export", "acme", "small.jsonl"]);
    place.ok(&["import", "real.jsonl.zst", "--store", "redb:copy.redb"]);
    assert_eq!(place.ok(&["get", "acme", "k", "--store", "redb:copy.redb"]), "1");
}

#[test]
fn input_in_another_format_is_named_and_creates_no_store() {
    let place = Place::new();
    let gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0";
    place.write("x y.jsonl.gz", gzip);
    for options in [&[][..], &["--on-error", "skip"]] {
        let message = place.fails(6, &[&["import", "x y.jsonl.gz"], options].concat());
        let command = "`gunzip -c 'x y.jsonl.gz' | cubbyhole import -`";
        assert!(message.contains("gzip") && message.contains(command), "{message}");
        assert_eq!(place.files(), ["x y.jsonl.gz"]);
    }
    let ran = place.run_reading(&["import", "--on-error", "skip"], gzip);
    assert!(ran.code == 6 && ran.stderr.contains("gunzip -c | cubbyhole import -"), "{ran:?}");
}

#[test]
fn skippable_frames_are_read_from_a_file_and_through_a_pipe() {
    let place = Place::new();
    place.ok(&["put", "acme", "k", "1"]);
    place.ok(&["export", "acme", "plain.jsonl.zst"]);
    let frame = std::fs::read(place.path("plain.jsonl.zst")).unwrap();
    // As `pzstd` begins: a frame to skip, with the length of the next one.
    let length = u32::try_from(frame.len()).unwrap().to_le_bytes();
    let bytes = [&b"\x50\x2a\x4d\x18\x04\0\0\0"[..], &length, &frame].concat();
    place.write("parallel.jsonl.zst", &bytes);
    place.ok(&["import", "parallel.jsonl.zst", "--store", "redb:file.redb"]);
    let mut command = place.command(&["import", "--store", "redb:pipe.redb"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for byte in &bytes {
        std::io::Write::write_all(&mut stdin, &[*byte]).unwrap();
    }
    drop(stdin);
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 0, "{ran:?}");
    for store in ["redb:file.redb", "redb:pipe.redb"] {
        assert_eq!(place.ok(&["get", "acme", "k", "--store", store]), "1");
    }
}
