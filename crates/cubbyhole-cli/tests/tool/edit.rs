//! `edit`, with scripts as editors: `$1` is the file, `$TOOL` the tool itself.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Feeding, Place, Ran, TIMEOUTS, line};

/// In an editor: waits until the tool has ended, or half a minute.
const UNTIL_ALONE: &str = "for i in $(seq 600); do kill -0 $PPID || exit; sleep 0.05; done";

/// A folder with a store, in which the temporary files of the tool can be counted.
struct Desk {
    place: Place,
}

impl Desk {
    fn new() -> Self {
        let place = Place::new();
        std::fs::create_dir(place.path("tmp")).unwrap();
        Self { place }
    }

    fn with(key: &str, value: &str) -> Self {
        let desk = Self::new();
        desk.place.ok(&["put", "acme", "--", key, value]);
        desk
    }

    /// The call with that script as the editor.
    fn command(&self, script: &str, arguments: &[&str]) -> Command {
        self.place.write("editor", script);
        let mut command = self.place.command(&[&["edit", "acme"], arguments].concat());
        command
            .env_remove("VISUAL")
            .env("EDITOR", "sh ./editor")
            .env("TOOL", env!("CARGO_BIN_EXE_cubbyhole"))
            .env("TMPDIR", self.place.path("tmp"));
        command
    }

    fn edit(&self, script: &str, arguments: &[&str]) -> Ran {
        Ran::of(self.command(script, arguments).output().unwrap())
    }

    /// Edits what must succeed, and leaves no file; the messages.
    #[track_caller]
    fn ok(&self, script: &str, arguments: &[&str]) -> String {
        let ran = self.edit(script, arguments);
        assert_eq!((ran.code, ran.stdout.as_slice()), (0, &b""[..]), "{ran:?}");
        self.nothing_is_kept();
        ran.stderr
    }

    /// Edits what must fail in one line on stderr; that line.
    #[track_caller]
    fn fails(&self, code: i32, script: &str, arguments: &[&str]) -> String {
        let ran = self.edit(script, arguments);
        assert_eq!(ran.code, code, "{ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
        assert!(ran.stderr.starts_with("cubbyhole: "), "{ran:?}");
        ran.stderr
    }

    #[track_caller]
    fn nothing_is_kept(&self) {
        let kept: Vec<_> = std::fs::read_dir(self.place.path("tmp")).unwrap().collect();
        assert!(kept.is_empty(), "{kept:?}");
    }

    /// That the message says where the text is, and it is there; runs what it says to save it.
    #[track_caller]
    fn is_kept(&self, message: &str, text: &[u8]) -> Command {
        let (_, rest) = message.split_once("; your text is in ").unwrap();
        let (path, rest) = rest.split_once("; `cubbyhole ").unwrap();
        assert_eq!(std::fs::read(path).unwrap(), text, "{message}");
        let (arguments, _) = rest.split_once("` writes it over the entry").unwrap();
        assert!(arguments.starts_with("put --file "), "{message}");
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("'{}' {arguments}", env!("CARGO_BIN_EXE_cubbyhole"))])
            .current_dir(self.place.path(""));
        self.place.isolate(&mut command);
        command
    }

    #[track_caller]
    fn value(&self, key: &str) -> String {
        self.place.ok(&["get", "acme", "--", key])
    }
}

#[test]
fn what_the_editor_leaves_is_saved() {
    let desk = Desk::with("k", "first");
    let before = desk.place.json(&["get", "acme", "k"]).remove(0);
    assert_eq!(desk.ok("cp \"$1\" seen; printf second > \"$1\"", &["k"]), "");
    assert_eq!(std::fs::read(desk.place.path("seen")).unwrap(), b"first");
    let after = desk.place.json(&["get", "acme", "k"]).remove(0);
    assert_eq!(desk.value("k"), "second");
    assert_eq!(after["created_at"], before["created_at"]);
    assert_ne!(after["version"], before["version"]);
    // An editor that puts another file in the place of the first, and ends the last line.
    desk.ok("echo third > other; mv other \"$1\"; echo > \"$1~\"", &["k"]);
    assert_eq!(desk.value("k"), "third");
    desk.place.ok(&["put", "acme", "k", "line\n"]);
    desk.ok("printf 'a\\nb\\n' > \"$1\"", &["k"]);
    assert_eq!(desk.value("k"), "a\nb\n");
    desk.ok(": > \"$1\"", &["k"]);
    assert_eq!(desk.value("k"), "");
}

#[test]
fn the_expiry_stays_as_it_is() {
    let desk = Desk::new();
    desk.place.ok(&["put", "acme", "k", "v", "--ttl", "1h"]);
    let expiry = || desk.place.json(&["get", "acme", "k"])[0]["expires_at"].clone();
    let before = expiry();
    assert!(before.is_string());
    desk.ok("printf new > \"$1\"", &["k"]);
    assert_eq!(expiry(), before);
    desk.ok("printf newer > \"$1\"; \"$TOOL\" touch acme k --ttl 3h", &["k"]);
    assert!(expiry().as_str() > before.as_str());
    desk.ok("printf newest > \"$1\"; \"$TOOL\" touch acme k --persist", &["k"]);
    assert_eq!((desk.value("k").as_str(), expiry().is_null()), ("newest", true));
}

#[test]
fn what_is_unchanged_is_not_written() {
    let desk = Desk::with("k", "text");
    let before = desk.place.json(&["get", "acme", "k"]);
    for script in [":", "printf 'text\\n' > \"$1\"", "printf 'text\\r\\n' > \"$1\""] {
        assert_eq!(desk.ok(script, &["k"]), "unchanged; nothing was written\n");
    }
    assert_eq!(desk.place.json(&["get", "acme", "k"]), before);
    let ran = desk.edit("echo noise; echo more noise >&2", &["k", "--json"]);
    let version = before[0]["version"].as_str().unwrap();
    let expected = format!("{{\"changed\":false,\"version\":\"{version}\"}}\n");
    assert_eq!(String::from_utf8(ran.stdout).unwrap(), expected);
    assert_eq!(ran.stderr, "noise\nmore noise\n");
    let ran = desk.edit("printf new > \"$1\"", &["k", "--json"]);
    let version = &desk.place.json(&["get", "acme", "k"])[0]["version"];
    let expected = format!("{{\"changed\":true,\"version\":{version}}}\n");
    assert_eq!(String::from_utf8(ran.stdout).unwrap(), expected);
}

#[test]
fn a_conflict_keeps_the_text() {
    let key = "-it's a \"key\": 100%";
    let desk = Desk::with(key, "first");
    let script = "\"$TOOL\" put acme -- \"$KEY\" other; printf mine > \"$1\"";
    let run = |arguments: &[&str]| {
        Ran::of(desk.command(script, arguments).env("KEY", key).output().unwrap())
    };
    let ran = run(&["--json", "--", key]);
    let stored: serde_json::Value =
        serde_json::from_str(&desk.place.ok(&["get", "acme", "--json", "--", key])).unwrap();
    let error: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!((ran.code, ran.error_kind()), (3, "conflict".to_owned()));
    assert_eq!(error["error"]["version"], stored["version"]);

    let ran = run(&["--", key]);
    assert_eq!((ran.code, ran.stderr.lines().count()), (3, 1), "{ran:?}");
    assert!(ran.stderr.contains("; somebody wrote it while you edited; "), "{ran:?}");
    assert_eq!(desk.value(key), "other");
    assert!(desk.is_kept(&ran.stderr, b"mine").status().unwrap().success());
    assert_eq!(desk.value(key), "mine");
}

#[test]
fn an_entry_that_went_away_is_a_conflict() {
    let desk = Desk::with("k", "v");
    let message = desk.fails(3, "\"$TOOL\" delete acme k; printf mine > \"$1\"", &["k"]);
    desk.is_kept(&message, b"mine");
    desk.place.fails(1, &["get", "acme", "k"]);

    desk.place.ok(&["put", "acme", "k", "v"]);
    let expire = "\"$TOOL\" touch acme k --ttl 1ms; \
                  while \"$TOOL\" get acme k >/dev/null 2>&1; do :; done; printf mine > \"$1\"";
    let message = desk.fails(3, expire, &["k"]);
    assert!(message.contains("; it was deleted or has expired while you edited; "), "{message}");
    desk.is_kept(&message, b"mine");
    desk.place.fails(1, &["get", "acme", "k"]);
}

#[test]
fn the_command_that_saves_what_was_kept_names_store_and_expiry() {
    let desk = Desk::new();
    let store = "redb:an other.redb";
    desk.place.ok(&["put", "acme", "k", "v", "--ttl", "1h", "--store", store]);
    let script = "\"$TOOL\" delete acme k --store 'redb:an other.redb'; printf mine > \"$1\"";
    let message = desk.fails(3, script, &["k", "--store", store]);
    assert!(desk.is_kept(&message, b"mine").status().unwrap().success());
    let saved = desk.place.json(&["get", "acme", "k", "--store", store]).remove(0);
    assert!(saved["expires_at"].is_string(), "{saved}");
}

#[test]
fn the_command_that_saves_what_was_kept_names_the_profile() {
    let desk = Desk::new();
    desk.place.write("my c.toml", "[profiles.dev]\nstore = \"redb:dev.redb\"\n");
    let options = ["--config", "my c.toml", "--profile", "dev"];
    desk.place.ok(&[&["put", "acme", "k", "v"], &options[..]].concat());
    let script = "\"$TOOL\" delete acme k --store redb:dev.redb; printf mine > \"$1\"";
    let message = desk.fails(3, script, &[&["k"], &options[..]].concat());
    assert!(desk.is_kept(&message, b"mine").status().unwrap().success());
    assert_eq!(desk.place.ok(&[&["get", "acme", "k"], &options[..]].concat()), "mine");
}

#[test]
fn json_must_stay_json() {
    let desk = Desk::with("settings", r#"{"a": 1}"#);
    let message = desk.fails(2, "printf '{\"a\": }' > \"$1\"", &["settings"]);
    assert!(message.contains("not JSON") && message.contains("/settings.json; "), "{message}");
    desk.is_kept(&message, b"{\"a\": }");
    assert_eq!(desk.value("settings"), r#"{"a": 1}"#);
    let desk = Desk::with("settings", r#"{"a": 1}"#);
    desk.ok("printf '{\"a\": 2}\\n' > \"$1\"", &["settings"]);
    assert_eq!(desk.value("settings"), r#"{"a": 2}"#);
    // What was no JSON may be anything but bytes that are no text.
    desk.place.ok(&["put", "acme", "k", "text"]);
    desk.ok("printf '{\"a\": }' > \"$1\"", &["k"]);
    let message = desk.fails(2, "printf '\\377' > \"$1\"", &["k"]);
    desk.is_kept(&message, b"\xff");
    assert_eq!(desk.value("k"), r#"{"a": }"#);
}

#[test]
fn an_editor_that_fails_writes_nothing() {
    let desk = Desk::with("k", "v");
    for script in ["exit 3", "kill -9 $$"] {
        let message = desk.fails(6, script, &["k"]);
        assert!(message.contains("nothing was written") && !message.contains("text"), "{message}");
        desk.nothing_is_kept();
    }
    for script in ["printf mine > \"$1\"; exit 3", "printf mine > \"$1\"; kill -9 $$"] {
        let message = desk.fails(6, script, &["k"]);
        desk.is_kept(&message, b"mine");
    }
    let message = desk.fails(6, "rm \"$1\"", &["k"]);
    assert!(message.contains("the edited text cannot be read"), "{message}");
    assert_eq!(desk.value("k"), "v");
}

#[test]
fn the_editor_is_the_one_that_the_environment_names() {
    let desk = Desk::with("k", "v");
    let with = |visual: &str, editor: &str| {
        let script = "printf '%s' \"$1\" > \"$2\"";
        let mut command = desk.command(script, &["k"]);
        Ran::of(command.env("VISUAL", visual).env("EDITOR", editor).output().unwrap())
    };
    assert_eq!(with("sh ./editor '--wait for it'", "false").code, 0);
    assert_eq!(desk.value("k"), "--wait for it");
    assert_eq!(with("", "sh ./editor --tabs").code, 0);
    assert_eq!(desk.value("k"), "--tabs");
    for (editor, says) in [("no-such-editor -x", "cannot be started"), ("sh 'half", "quote")] {
        let ran = with(editor, "true");
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.stderr.contains(says), "{ran:?}");
        desk.nothing_is_kept();
    }
}

#[test]
fn an_absent_entry_is_created_on_request_only() {
    let desk = Desk::new();
    let script = "printf new > \"$1\"; echo ran > ran";
    let absent = desk.fails(5, script, &["k"]);
    assert!(absent.contains("--store"), "{absent}");
    assert_eq!(desk.ok(":", &["k", "--create"]), "left empty; nothing was written\n");
    assert_eq!(desk.place.files(), ["editor", "tmp"]);
    desk.ok("echo new > \"$1\"", &["k", "--create"]);
    assert_eq!(desk.value("k"), "new");
    let message = desk.fails(1, script, &["other"]);
    assert!(message.contains("no entry `other`"), "{message}");
    assert!(!desk.place.path("ran").exists());
    // An entry that is there is edited as ever.
    desk.ok("printf newer > \"$1\"", &["k", "--create"]);
    assert_eq!(desk.value("k"), "newer");
    let planted = "\"$TOOL\" put acme third theirs; printf mine > \"$1\"";
    let message = desk.fails(3, planted, &["third", "--create"]);
    desk.is_kept(&message, b"mine");
    assert_eq!(desk.value("third"), "theirs");
}

#[test]
fn what_is_no_text_is_not_edited() {
    let desk = Desk::new();
    desk.place.write("bytes", b"a\xff\0");
    desk.place.ok(&["put", "acme", "k", "--file", "bytes"]);
    let message = desk.fails(2, "echo ran > ran", &["k"]);
    assert!(message.contains("cubbyhole get acme k"), "{message}");
    assert!(message.contains("cubbyhole put acme k --file"), "{message}");
    assert!(!desk.place.path("ran").exists());
}

#[test]
fn a_store_that_is_gone_keeps_the_text() {
    let desk = Desk::with("k", "v");
    let message = desk.fails(5, "rm cubbyhole.redb; printf mine > \"$1\"", &["k"]);
    desk.is_kept(&message, b"mine");
    assert!(!desk.place.path("cubbyhole.redb").exists());
}

#[test]
fn a_deadline_counts_steps_and_keeps_the_text() {
    let desk = Desk::with("k", "v");
    desk.fails(4, ":", &["k", "--timeout", "1ns"]);
    let spends_longer_in_the_editor = |timeout: Duration| {
        let seconds = timeout.as_secs();
        let script = format!("sleep {}; printf new > \"$1\"", seconds + 1);
        let ran = desk.edit(&script, &["k", "--timeout", &format!("{seconds}s")]);
        assert!([0, 4].contains(&ran.code), "{ran:?}");
        ran.code == 0
    };
    assert!(TIMEOUTS.into_iter().any(spends_longer_in_the_editor));
    assert_eq!(desk.value("k"), "new");

    let script = "echo > ready; while [ ! -e go ]; do sleep 0.02; done; printf mine > \"$1\"";
    let opens_the_editor = |timeout: Duration| {
        let editing = desk
            .command(script, &["k", "--timeout", &format!("{}s", timeout.as_secs())])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut editing = editing.unwrap();
        while !desk.place.path("ready").exists() {
            if editing.try_wait().unwrap().is_some() {
                return None;
            }
            std::thread::yield_now();
        }
        Some(editing)
    };
    let editing = TIMEOUTS.into_iter().find_map(opens_the_editor).unwrap();
    // The store is free while the editor is open; now it no longer is.
    let mut feeding = Feeding::start(&desk.place, &[]);
    feeding.feed(&[line("n", "a", "1"), line("n", "a", "2")].concat());
    assert_eq!(feeding.report(), "n\t1\t1\t1\n");
    desk.place.write("go", "");
    let ran = Ran::of(editing.wait_with_output().unwrap());
    assert_eq!(ran.code, 4, "{ran:?}");
    desk.is_kept(&ran.stderr, b"mine");
    feeding.signal("TERM");
    assert_eq!(feeding.end().code, 143);
    assert_eq!(desk.value("k"), "new");
}

#[test]
fn an_interrupt_is_the_editors_and_sigterm_keeps_the_text() {
    let desk = Desk::with("k", "v");
    // Time for the tool to do the wrong thing.
    let script = "kill -INT $PPID; kill -INT $PPID; sleep 0.5; printf new > \"$1\"";
    desk.ok(script, &["k"]);
    assert_eq!(desk.value("k"), "new");
    // The editor may have open what it has not saved yet.
    for (write, text) in [("printf mine > \"$1\"", &b"mine"[..]), (":", b"new")] {
        let script = format!("exec >/dev/null 2>&1; {write}; kill -TERM $PPID; {UNTIL_ALONE}");
        let ran = desk.edit(&script, &["k"]);
        assert_eq!(ran.code, 143, "{ran:?}");
        desk.is_kept(&ran.stderr, text);
    }
    assert_eq!(desk.value("k"), "new");
}
