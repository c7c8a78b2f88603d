//! The file of an export: its name, mode and format, and the leftovers of killed exports.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use crate::support::{Ran, Sandbox, line, signal};

const TARGET: &str = "out.jsonl";
const OTHER_GROUP: u32 = 65_534;

/// Fills a store whose export has many pages. Signals are noticed between pages.
fn large_store(sandbox: &Sandbox) {
    let value = format!("\"{}\"", "v".repeat(2500));
    let input: String = (0..6000).map(|n| line("acme", &format!("{n:04}"), &value)).collect();
    let ran = sandbox.run_reading(&["import"], input.as_bytes());
    assert_eq!(ran.code, 0, "{ran:?}");
}

fn mode(path: PathBuf) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Returns the temporary files of exports.
fn parts(sandbox: &Sandbox) -> Vec<String> {
    sandbox.files().into_iter().filter(|name| name.ends_with(".part")).collect()
}

/// Stops a process with SIGSTOP in the middle of an export. Returns it and its temporary file.
fn stopped_export(sandbox: &Sandbox) -> (Child, String) {
    // On a busy machine, the export may end before it is stopped.
    for _ in 0..20 {
        let mut command = sandbox.command(&["export", "acme", TARGET]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // A temporary file with content is locked.
        let begun =
            |name: &String| std::fs::metadata(sandbox.path(name)).is_ok_and(|m| m.len() > 0);
        let new = || parts(sandbox).into_iter().find(begun);
        while new().is_none() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        // A process that has ended cannot be signalled.
        if child.try_wait().unwrap().is_some() {
            continue;
        }
        signal(&child, "STOP");
        // Wait until all threads are stopped.
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
fn new_export_is_private_and_a_replaced_file_keeps_its_mode() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["put", "acme", "k", "1"]);
    let export = |name: &str| {
        let script = "umask 022; exec \"$0\" \"$@\"";
        let ran = sandbox.in_shell(script, &["export", "acme", name]).output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
    };
    for name in ["plain.jsonl", "small.jsonl.zst"] {
        export(name);
        assert_eq!(mode(sandbox.path(name)), 0o600, "{name}");
    }
    for kept in [0o644, 0o640, 0o600, 0o444] {
        sandbox.write("old.jsonl", "as it was");
        // Set another group if the tests have the permission.
        let _ = std::os::unix::fs::chown(sandbox.path("old.jsonl"), None, Some(OTHER_GROUP));
        std::fs::set_permissions(sandbox.path("old.jsonl"), PermissionsExt::from_mode(kept))
            .unwrap();
        let group = || std::fs::metadata(sandbox.path("old.jsonl")).unwrap().gid();
        let before = group();
        export("old.jsonl");
        assert_eq!((mode(sandbox.path("old.jsonl")), group()), (kept, before));
        std::fs::remove_file(sandbox.path("old.jsonl")).unwrap();
    }
}

#[test]
fn signal_during_an_export_removes_its_temporary_file() {
    let sandbox = Sandbox::new();
    large_store(&sandbox);
    sandbox.write(TARGET, "as it was");
    // Closing a terminal sends SIGHUP more than once, and systemd can send it together with
    // SIGTERM.
    let both: (&[&str], &[i32]) = (&["TERM", "HUP"], &[129, 143]);
    for (names, codes) in
        [(&["HUP"][..], &[129][..]), (&["TERM"], &[143]), (&["INT"], &[130]), both]
    {
        let interrupted = (0..10).any(|_| {
            let (child, part) = stopped_export(&sandbox);
            // The temporary file is private even if the replaced file is not.
            assert_eq!(mode(sandbox.path(&part)), 0o600);
            names.iter().for_each(|name| signal(&child, name));
            let ran = continued(child);
            assert_eq!(parts(&sandbox), [""; 0], "{names:?}");
            // The export may have been complete already.
            if ran.code == 0 {
                sandbox.write(TARGET, "as it was");
                return false;
            }
            assert!(codes.contains(&ran.code), "{ran:?}");
            assert!(ran.stderr.contains("out.jsonl is unchanged"), "{ran:?}");
            true
        });
        assert!(interrupted, "{names:?}");
        assert_eq!(std::fs::read_to_string(sandbox.path(TARGET)).unwrap(), "as it was");
    }
}

#[test]
fn next_export_removes_the_leftovers_of_a_killed_one() {
    let sandbox = Sandbox::new();
    large_store(&sandbox);
    let (mut child, part) = stopped_export(&sandbox);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(parts(&sandbox), [part.as_str()]);
    assert_eq!(mode(sandbox.path(&part)), 0o600);
    // Files of other exports, and files of no export.
    let version = part.trim_start_matches(".out.jsonl.").trim_end_matches(".part");
    let others = [
        format!(".out.{version}.part"),
        format!(".out.jsonl.zst.{version}.part"),
        ".out.jsonl.mine.part".to_owned(),
        format!(".out.jsonl.{version}.part.txt"),
    ];
    for other in &others {
        sandbox.write(other, "mine");
    }
    sandbox.ok(&["export", "acme", "other.jsonl"]);
    assert!(sandbox.path(&part).exists());
    let ran = sandbox.run(&["export", "acme", TARGET]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let removed = format!("{part}, which a killed export left behind\n");
    assert!(ran.stderr.starts_with("removed ") && ran.stderr.contains(&removed), "{ran:?}");
    assert!(!sandbox.path(&part).exists());
    for other in &others {
        assert!(sandbox.path(other).exists(), "{other}");
    }
    let ran = sandbox.run(&["export", "acme", TARGET]);
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
}

#[test]
fn concurrent_exports_to_one_name_do_not_interfere() {
    let sandbox = Sandbox::new();
    large_store(&sandbox);
    // Only one process can open a file, so the second export reads another store.
    sandbox.ok(&["copy", "acme", "--to", "redb:second.redb"]);
    let (child, part) = stopped_export(&sandbox);
    let ran = sandbox.run(&["export", "acme", TARGET, "--store", "redb:second.redb"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    assert_eq!(parts(&sandbox), [part]);
    let whole = std::fs::read(sandbox.path(TARGET)).unwrap();
    std::fs::remove_file(sandbox.path(TARGET)).unwrap();
    let ran = continued(child);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(parts(&sandbox), [""; 0]);
    assert!(std::fs::read(sandbox.path(TARGET)).unwrap() == whole);
}

#[test]
fn leftover_that_cannot_be_removed_is_reported() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["put", "acme", "k", "1"]);
    let version = sandbox.json(&["get", "acme", "k"])[0]["version"].as_str().unwrap().to_owned();
    let part = format!(".out.jsonl.{version}.part");
    // Root can open any file.
    sandbox.write(&part, "");
    std::fs::set_permissions(sandbox.path(&part), PermissionsExt::from_mode(0o400)).unwrap();
    let root = std::fs::File::options().write(true).open(sandbox.path(&part)).is_ok();
    let ran = sandbox.run(&["export", "acme", TARGET]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let message = if root { "removed" } else { "remove the file if no export is running" };
    assert!(ran.stderr.contains(message) && ran.stderr.contains(&part), "{ran:?}");
    assert_eq!(sandbox.path(&part).exists(), !root);
}

#[test]
fn unsupported_export_format_is_refused_before_writing() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["put", "acme", "k", "1"]);
    for (name, part) in [
        ("x.jsonl.gz", "x.jsonl.zst"),
        ("x.GZ", "`gzip`"),
        ("x.xz", "`xz`"),
        ("x.zip", "`zip`"),
        ("x.zstd", "x.zst"),
    ] {
        for arguments in [&["export", "acme", name][..], &["export", "--all", name]] {
            let message = sandbox.fails(2, arguments);
            assert!(message.contains(part) && message.contains("cannot write"), "{message}");
        }
    }
    assert_eq!(sandbox.files(), ["cubbyhole.redb"]);
    // A symbolic link and its target may have different extensions.
    for (link, target) in [("link.jsonl", "real.jsonl.gz"), ("small.jsonl", "real.jsonl.zst")] {
        sandbox.write(target, "");
        std::os::unix::fs::symlink(sandbox.path(target), sandbox.path(link)).unwrap();
    }
    let message = sandbox.fails(2, &["export", "acme", "link.jsonl"]);
    assert!(message.contains("real.jsonl.gz"), "{message}");
    sandbox.ok(&["export", "acme", "small.jsonl"]);
    sandbox.ok(&["import", "real.jsonl.zst", "--store", "redb:copy.redb"]);
    assert_eq!(sandbox.ok(&["get", "acme", "k", "--store", "redb:copy.redb"]), "1");
}

#[test]
fn unsupported_input_format_is_named_and_creates_no_store() {
    let sandbox = Sandbox::new();
    let gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0";
    sandbox.write("x y.jsonl.gz", gzip);
    for options in [&[][..], &["--on-error", "skip"]] {
        let message = sandbox.fails(6, &[&["import", "x y.jsonl.gz"], options].concat());
        let command = "`gunzip -c 'x y.jsonl.gz' | cubbyhole import -`";
        assert!(message.contains("gzip") && message.contains(command), "{message}");
        assert_eq!(sandbox.files(), ["x y.jsonl.gz"]);
    }
    let ran = sandbox.run_reading(&["import", "--on-error", "skip"], gzip);
    assert!(ran.code == 6 && ran.stderr.contains("gunzip -c | cubbyhole import -"), "{ran:?}");
}

#[test]
fn skippable_frames_are_read_from_a_file_and_through_a_pipe() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["put", "acme", "k", "1"]);
    sandbox.ok(&["export", "acme", "plain.jsonl.zst"]);
    let frame = std::fs::read(sandbox.path("plain.jsonl.zst")).unwrap();
    // Files of `pzstd` begin with a skippable frame that has the length of the next one.
    let length = u32::try_from(frame.len()).unwrap().to_le_bytes();
    let bytes = [&b"\x50\x2a\x4d\x18\x04\0\0\0"[..], &length, &frame].concat();
    sandbox.write("parallel.jsonl.zst", &bytes);
    sandbox.ok(&["import", "parallel.jsonl.zst", "--store", "redb:file.redb"]);
    let mut command = sandbox.command(&["import", "--store", "redb:pipe.redb"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for byte in &bytes {
        std::io::Write::write_all(&mut stdin, &[*byte]).unwrap();
    }
    drop(stdin);
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 0, "{ran:?}");
    for store in ["redb:file.redb", "redb:pipe.redb"] {
        assert_eq!(sandbox.ok(&["get", "acme", "k", "--store", store]), "1");
    }
}
