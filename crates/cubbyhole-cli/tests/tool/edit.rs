//! `edit`, with scripts as editors. In a script, `$1` is the draft and `$TOOL` is the tool.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{PipedImport, Ran, Sandbox, TIMEOUTS, line};

/// A command of an editor script that waits until the tool has ended, at most 30 seconds.
const UNTIL_ALONE: &str = "for i in $(seq 600); do kill -0 $PPID || exit; sleep 0.05; done";

/// A sandbox in which the drafts of the tool are visible.
struct EditSandbox {
    sandbox: Sandbox,
}

impl EditSandbox {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        std::fs::create_dir(sandbox.path("tmp")).unwrap();
        Self { sandbox }
    }

    fn with(key: &str, value: &str) -> Self {
        let fixture = Self::new();
        fixture.sandbox.ok(&["put", "acme", "--", key, value]);
        fixture
    }

    /// Returns a call of `edit` with the script as the editor.
    fn command(&self, script: &str, arguments: &[&str]) -> Command {
        self.sandbox.write("editor", script);
        let mut command = self.sandbox.command(&[&["edit", "acme"], arguments].concat());
        command
            .env_remove("VISUAL")
            .env("EDITOR", "sh ./editor")
            .env("TOOL", env!("CARGO_BIN_EXE_cubbyhole"))
            .env("TMPDIR", self.sandbox.path("tmp"));
        command
    }

    fn edit(&self, script: &str, arguments: &[&str]) -> Ran {
        Ran::of(self.command(script, arguments).output().unwrap())
    }

    /// Runs `edit`, which must succeed and keep no draft, and returns its messages.
    #[track_caller]
    fn ok(&self, script: &str, arguments: &[&str]) -> String {
        let ran = self.edit(script, arguments);
        assert_eq!((ran.code, ran.stdout.as_slice()), (0, &b""[..]), "{ran:?}");
        self.assert_no_draft();
        ran.stderr
    }

    /// Runs `edit`, which must fail with one line on stderr, and returns the line.
    #[track_caller]
    fn fails(&self, code: i32, script: &str, arguments: &[&str]) -> String {
        let ran = self.edit(script, arguments);
        assert_eq!(ran.code, code, "{ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
        assert!(ran.stderr.starts_with("cubbyhole: "), "{ran:?}");
        ran.stderr
    }

    #[track_caller]
    fn assert_no_draft(&self) {
        let kept: Vec<_> = std::fs::read_dir(self.sandbox.path("tmp")).unwrap().collect();
        assert!(kept.is_empty(), "{kept:?}");
    }

    /// Asserts that the message names a draft with this text. Returns the suggested command.
    #[track_caller]
    fn kept_draft(&self, message: &str, text: &[u8]) -> Command {
        let (_, rest) = message.split_once("; your text is in ").unwrap();
        let (path, rest) = rest.split_once("; `cubbyhole ").unwrap();
        assert_eq!(std::fs::read(path).unwrap(), text, "{message}");
        let (arguments, _) = rest.split_once("` overwrites the entry with it").unwrap();
        assert!(arguments.starts_with("put --file "), "{message}");
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("'{}' {arguments}", env!("CARGO_BIN_EXE_cubbyhole"))])
            .current_dir(self.sandbox.path(""));
        self.sandbox.isolate(&mut command);
        command
    }

    #[track_caller]
    fn value(&self, key: &str) -> String {
        self.sandbox.ok(&["get", "acme", "--", key])
    }
}

#[test]
fn edited_text_is_saved() {
    let fixture = EditSandbox::with("k", "first");
    let before = fixture.sandbox.json(&["get", "acme", "k"]).remove(0);
    assert_eq!(fixture.ok("cp \"$1\" seen; printf second > \"$1\"", &["k"]), "");
    assert_eq!(std::fs::read(fixture.sandbox.path("seen")).unwrap(), b"first");
    let after = fixture.sandbox.json(&["get", "acme", "k"]).remove(0);
    assert_eq!(fixture.value("k"), "second");
    assert_eq!(after["created_at"], before["created_at"]);
    assert_ne!(after["version"], before["version"]);
    // An editor that replaces the file and adds a line end.
    fixture.ok("echo third > other; mv other \"$1\"; echo > \"$1~\"", &["k"]);
    assert_eq!(fixture.value("k"), "third");
    fixture.sandbox.ok(&["put", "acme", "k", "line\n"]);
    fixture.ok("printf 'a\\nb\\n' > \"$1\"", &["k"]);
    assert_eq!(fixture.value("k"), "a\nb\n");
    fixture.ok(": > \"$1\"", &["k"]);
    assert_eq!(fixture.value("k"), "");
}

#[test]
fn edit_keeps_the_expiry() {
    let fixture = EditSandbox::new();
    fixture.sandbox.ok(&["put", "acme", "k", "v", "--ttl", "1h"]);
    let expiry = || fixture.sandbox.json(&["get", "acme", "k"])[0]["expires_at"].clone();
    let before = expiry();
    assert!(before.is_string());
    fixture.ok("printf new > \"$1\"", &["k"]);
    assert_eq!(expiry(), before);
    fixture.ok("printf newer > \"$1\"; \"$TOOL\" touch acme k --ttl 3h", &["k"]);
    assert!(expiry().as_str() > before.as_str());
    fixture.ok("printf newest > \"$1\"; \"$TOOL\" touch acme k --persist", &["k"]);
    assert_eq!((fixture.value("k").as_str(), expiry().is_null()), ("newest", true));
}

#[test]
fn unchanged_text_is_not_written() {
    let fixture = EditSandbox::with("k", "text");
    let before = fixture.sandbox.json(&["get", "acme", "k"]);
    for script in [":", "printf 'text\\n' > \"$1\"", "printf 'text\\r\\n' > \"$1\""] {
        assert_eq!(fixture.ok(script, &["k"]), "unchanged; nothing was written\n");
    }
    assert_eq!(fixture.sandbox.json(&["get", "acme", "k"]), before);
    let ran = fixture.edit("echo noise; echo more noise >&2", &["k", "--json"]);
    let version = before[0]["version"].as_str().unwrap();
    let expected = format!("{{\"changed\":false,\"version\":\"{version}\"}}\n");
    assert_eq!(String::from_utf8(ran.stdout).unwrap(), expected);
    assert_eq!(ran.stderr, "noise\nmore noise\n");
    let ran = fixture.edit("printf new > \"$1\"", &["k", "--json"]);
    let version = &fixture.sandbox.json(&["get", "acme", "k"])[0]["version"];
    let expected = format!("{{\"changed\":true,\"version\":{version}}}\n");
    assert_eq!(String::from_utf8(ran.stdout).unwrap(), expected);
}

#[test]
fn conflict_keeps_the_draft() {
    let key = "-it's a \"key\": 100%";
    let fixture = EditSandbox::with(key, "first");
    let script = "\"$TOOL\" put acme -- \"$KEY\" other; printf mine > \"$1\"";
    let run = |arguments: &[&str]| {
        Ran::of(fixture.command(script, arguments).env("KEY", key).output().unwrap())
    };
    let ran = run(&["--json", "--", key]);
    let stored: serde_json::Value =
        serde_json::from_str(&fixture.sandbox.ok(&["get", "acme", "--json", "--", key])).unwrap();
    let error: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!((ran.code, ran.error_kind()), (3, "conflict".to_owned()));
    assert_eq!(error["error"]["version"], stored["version"]);

    let ran = run(&["--", key]);
    assert_eq!((ran.code, ran.stderr.lines().count()), (3, 1), "{ran:?}");
    assert!(
        ran.stderr.contains("; another writer changed the entry while you edited it; "),
        "{ran:?}"
    );
    assert_eq!(fixture.value(key), "other");
    assert!(fixture.kept_draft(&ran.stderr, b"mine").status().unwrap().success());
    assert_eq!(fixture.value(key), "mine");
}

#[test]
fn deleted_or_expired_entry_is_a_conflict() {
    let fixture = EditSandbox::with("k", "v");
    let message = fixture.fails(3, "\"$TOOL\" delete acme k; printf mine > \"$1\"", &["k"]);
    fixture.kept_draft(&message, b"mine");
    fixture.sandbox.fails(1, &["get", "acme", "k"]);

    fixture.sandbox.ok(&["put", "acme", "k", "v"]);
    let expire = "\"$TOOL\" touch acme k --ttl 1ms; \
                  while \"$TOOL\" get acme k >/dev/null 2>&1; do :; done; printf mine > \"$1\"";
    let message = fixture.fails(3, expire, &["k"]);
    assert!(
        message.contains("; the entry was deleted or has expired while you edited it; "),
        "{message}"
    );
    fixture.kept_draft(&message, b"mine");
    fixture.sandbox.fails(1, &["get", "acme", "k"]);
}

#[test]
fn suggested_save_command_has_store_and_expiry() {
    let fixture = EditSandbox::new();
    let store = "redb:an other.redb";
    fixture.sandbox.ok(&["put", "acme", "k", "v", "--ttl", "1h", "--store", store]);
    let script = "\"$TOOL\" delete acme k --store 'redb:an other.redb'; printf mine > \"$1\"";
    let message = fixture.fails(3, script, &["k", "--store", store]);
    assert!(fixture.kept_draft(&message, b"mine").status().unwrap().success());
    let saved = fixture.sandbox.json(&["get", "acme", "k", "--store", store]).remove(0);
    assert!(saved["expires_at"].is_string(), "{saved}");
}

#[test]
fn suggested_save_command_has_the_profile() {
    let fixture = EditSandbox::new();
    fixture.sandbox.write("my c.toml", "[profiles.dev]\nstore = \"redb:dev.redb\"\n");
    let options = ["--config", "my c.toml", "--profile", "dev"];
    fixture.sandbox.ok(&[&["put", "acme", "k", "v"], &options[..]].concat());
    let script = "\"$TOOL\" delete acme k --store redb:dev.redb; printf mine > \"$1\"";
    let message = fixture.fails(3, script, &[&["k"], &options[..]].concat());
    assert!(fixture.kept_draft(&message, b"mine").status().unwrap().success());
    assert_eq!(fixture.sandbox.ok(&[&["get", "acme", "k"], &options[..]].concat()), "mine");
}

#[test]
fn edited_json_must_be_valid_json() {
    let fixture = EditSandbox::with("settings", r#"{"a": 1}"#);
    let message = fixture.fails(2, "printf '{\"a\": }' > \"$1\"", &["settings"]);
    assert!(message.contains("as JSON") && message.contains("/settings.json; "), "{message}");
    fixture.kept_draft(&message, b"{\"a\": }");
    assert_eq!(fixture.value("settings"), r#"{"a": 1}"#);
    let fixture = EditSandbox::with("settings", r#"{"a": 1}"#);
    fixture.ok("printf '{\"a\": 2}\\n' > \"$1\"", &["settings"]);
    assert_eq!(fixture.value("settings"), r#"{"a": 2}"#);
    // A value that was not JSON may become any text, but not binary.
    fixture.sandbox.ok(&["put", "acme", "k", "text"]);
    fixture.ok("printf '{\"a\": }' > \"$1\"", &["k"]);
    let message = fixture.fails(2, "printf '\\377' > \"$1\"", &["k"]);
    fixture.kept_draft(&message, b"\xff");
    assert_eq!(fixture.value("k"), r#"{"a": }"#);
}

#[test]
fn failing_editor_writes_nothing() {
    let fixture = EditSandbox::with("k", "v");
    for script in ["exit 3", "kill -9 $$"] {
        let message = fixture.fails(6, script, &["k"]);
        assert!(message.contains("nothing was written") && !message.contains("text"), "{message}");
        fixture.assert_no_draft();
    }
    for script in ["printf mine > \"$1\"; exit 3", "printf mine > \"$1\"; kill -9 $$"] {
        let message = fixture.fails(6, script, &["k"]);
        fixture.kept_draft(&message, b"mine");
    }
    let message = fixture.fails(6, "rm \"$1\"", &["k"]);
    assert!(message.contains("cannot read the edited text"), "{message}");
    assert_eq!(fixture.value("k"), "v");
}

#[test]
fn editor_is_chosen_by_the_environment() {
    let fixture = EditSandbox::with("k", "v");
    let with = |visual: &str, editor: &str| {
        let script = "printf '%s' \"$1\" > \"$2\"";
        let mut command = fixture.command(script, &["k"]);
        Ran::of(command.env("VISUAL", visual).env("EDITOR", editor).output().unwrap())
    };
    assert_eq!(with("sh ./editor '--wait for it'", "false").code, 0);
    assert_eq!(fixture.value("k"), "--wait for it");
    assert_eq!(with("", "sh ./editor --tabs").code, 0);
    assert_eq!(fixture.value("k"), "--tabs");
    for (editor, part) in [("no-such-editor -x", "cannot start"), ("sh 'half", "quote")] {
        let ran = with(editor, "true");
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.stderr.contains(part), "{ran:?}");
        fixture.assert_no_draft();
    }
}

#[test]
fn missing_entry_is_created_only_with_create() {
    let fixture = EditSandbox::new();
    let script = "printf new > \"$1\"; echo ran > ran";
    let absent = fixture.fails(5, script, &["k"]);
    assert!(absent.contains("--store"), "{absent}");
    assert_eq!(fixture.ok(":", &["k", "--create"]), "left empty; nothing was written\n");
    assert_eq!(fixture.sandbox.files(), ["editor", "tmp"]);
    fixture.ok("echo new > \"$1\"", &["k", "--create"]);
    assert_eq!(fixture.value("k"), "new");
    let message = fixture.fails(1, script, &["other"]);
    assert!(message.contains("no entry `other`"), "{message}");
    assert!(!fixture.sandbox.path("ran").exists());
    // `--create` does not affect an existing entry.
    fixture.ok("printf newer > \"$1\"", &["k", "--create"]);
    assert_eq!(fixture.value("k"), "newer");
    let planted = "\"$TOOL\" put acme third theirs; printf mine > \"$1\"";
    let message = fixture.fails(3, planted, &["third", "--create"]);
    fixture.kept_draft(&message, b"mine");
    assert_eq!(fixture.value("third"), "theirs");
}

#[test]
fn binary_value_is_not_edited() {
    let fixture = EditSandbox::new();
    fixture.sandbox.write("bytes", b"a\xff\0");
    fixture.sandbox.ok(&["put", "acme", "k", "--file", "bytes"]);
    let message = fixture.fails(2, "echo ran > ran", &["k"]);
    assert!(message.contains("cubbyhole get acme k"), "{message}");
    assert!(message.contains("cubbyhole put acme k --file"), "{message}");
    assert!(!fixture.sandbox.path("ran").exists());
}

#[test]
fn deleted_store_keeps_the_draft() {
    let fixture = EditSandbox::with("k", "v");
    let message = fixture.fails(5, "rm cubbyhole.redb; printf mine > \"$1\"", &["k"]);
    fixture.kept_draft(&message, b"mine");
    assert!(!fixture.sandbox.path("cubbyhole.redb").exists());
}

#[test]
fn deadline_applies_to_each_step_and_keeps_the_draft() {
    let fixture = EditSandbox::with("k", "v");
    fixture.fails(4, ":", &["k", "--timeout", "1ns"]);
    let editor_may_exceed_the_timeout = |timeout: Duration| {
        let seconds = timeout.as_secs();
        let script = format!("sleep {}; printf new > \"$1\"", seconds + 1);
        let ran = fixture.edit(&script, &["k", "--timeout", &format!("{seconds}s")]);
        assert!([0, 4].contains(&ran.code), "{ran:?}");
        ran.code == 0
    };
    assert!(TIMEOUTS.into_iter().any(editor_may_exceed_the_timeout));
    assert_eq!(fixture.value("k"), "new");

    let script = "echo > ready; while [ ! -e go ]; do sleep 0.02; done; printf mine > \"$1\"";
    let opens_the_editor = |timeout: Duration| {
        let editing = fixture
            .command(script, &["k", "--timeout", &format!("{}s", timeout.as_secs())])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut editing = editing.unwrap();
        while !fixture.sandbox.path("ready").exists() {
            if editing.try_wait().unwrap().is_some() {
                return None;
            }
            std::thread::yield_now();
        }
        Some(editing)
    };
    let editing = TIMEOUTS.into_iter().find_map(opens_the_editor).unwrap();
    // The store is closed while the editor is open. Another process opens it now.
    let mut piped = PipedImport::start(&fixture.sandbox, &[]);
    piped.feed(&[line("n", "a", "1"), line("n", "a", "2")].concat());
    assert_eq!(piped.report(), "n\t1\t1\t1\n");
    fixture.sandbox.write("go", "");
    let ran = Ran::of(editing.wait_with_output().unwrap());
    assert_eq!(ran.code, 4, "{ran:?}");
    fixture.kept_draft(&ran.stderr, b"mine");
    piped.signal("TERM");
    assert_eq!(piped.end().code, 143);
    assert_eq!(fixture.value("k"), "new");
}

#[test]
fn editor_receives_ctrl_c_and_sigterm_keeps_the_draft() {
    let fixture = EditSandbox::with("k", "v");
    // The sleep gives the tool time to react to the signals, which it must not.
    let script = "kill -INT $PPID; kill -INT $PPID; sleep 0.5; printf new > \"$1\"";
    fixture.ok(script, &["k"]);
    assert_eq!(fixture.value("k"), "new");
    // The draft is kept even if it is unchanged, because the editor may still have unsaved text.
    for (write, text) in [("printf mine > \"$1\"", &b"mine"[..]), (":", b"new")] {
        let script = format!("exec >/dev/null 2>&1; {write}; kill -TERM $PPID; {UNTIL_ALONE}");
        let ran = fixture.edit(&script, &["k"]);
        assert_eq!(ran.code, 143, "{ran:?}");
        fixture.kept_draft(&ran.stderr, text);
    }
    assert_eq!(fixture.value("k"), "new");
}
