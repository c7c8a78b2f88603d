//! The tool with hostile arguments, input and files. It must not panic or hang. It must end with a
//! documented exit code, report errors as JSON with `--json`, and leave a readable store.
//!
//! Each case runs processes, so these properties run an eighth of the cases of `PROPTEST_CASES`.
//! Stores and files are in a temporary folder. The named servers do not exist.

#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;
use serde_json::Value;
use tempfile::TempDir;

/// The time after which a call counts as hanging.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// The divisor of the number of cases.
const CASE_DIVISOR: u32 = 8;

/// The documented exit codes: success, not found, wrong usage, conflict, deadline exceeded,
/// unavailable, and other errors.
const EXIT_CODES: [i32; 7] = [0, 1, 2, 3, 4, 5, 6];

/// Failing cases are printed and not saved to a file. Shrinking is limited because it runs
/// processes.
fn cases() -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = default.cases.div_ceil(CASE_DIVISOR);
    ProptestConfig { failure_persistence: None, cases, max_shrink_iters: 100, ..default }
}

const COMMANDS: [&str; 24] = [
    "put",
    "get",
    "edit",
    "take",
    "delete",
    "touch",
    "list",
    "tenants",
    "namespaces",
    "usage",
    "erase",
    "evict",
    "export",
    "import",
    "migrate",
    "doctor",
    "compact",
    "demo",
    "completions",
    "complete-words",
    "help",
    "gte",
    "",
    "config",
];
const FLAGS: [&str; 32] = [
    "--entry",
    "--refresh",
    "--if-present",
    "--long",
    "--values",
    "--null",
    "-0",
    "--all",
    "--yes",
    "--dry-run",
    "--repair",
    "--orphans",
    "--if-absent",
    "--json-value",
    "--persist",
    "--report-batches",
    "--create",
    "--help",
    "-h",
    "--version",
    "-V",
    "--on-error=skip",
    "--on-error",
    "--",
    "-",
    "--no-such",
    "-x",
    "---",
    "--=",
    "-vvv",
    "--verbose",
    "--log-format=json",
];
const WITH_VALUES: [&str; 14] = [
    "--idle-ttl",
    "--from",
    "--as",
    "--store",
    "--timeout",
    "--ttl",
    "--prefix",
    "--after",
    "--limit",
    "--file",
    "--if-version",
    "--on-error",
    "--profile",
    "--config",
];
const STORES: [&str; 16] = [
    "memory:",
    "redb:cubbyhole.redb",
    "redb:other.redb",
    "redb:other.redb?durability=relaxed",
    "redb:folder/none/x.redb",
    "redb:folder",
    "redb:in.jsonl",
    "redb:",
    "redb:cubbyhole.redb?x=y",
    "other.redb",
    "",
    "nonsense",
    "postgres://u:p@127.0.0.1:1/db",
    "redis://127.0.0.1:1",
    "redis+cluster://127.0.0.1:1?retry_timeout=50ms",
    "memory:x",
];
const DURATIONS: [&str; 16] = [
    "1s",
    "0s",
    "1ns",
    "999us",
    "1h30m",
    "7d",
    "",
    "-1s",
    "soon",
    "18446744073709551615y",
    "18446744073709551615s",
    "584942417355y",
    "8000y",
    "1s 1s",
    "1e9s",
    "99999999999999999999s",
];
const WORDS: [&str; 27] = [
    "acme",
    "acme:a",
    "acme:a:b",
    "globex",
    ":",
    "acme:",
    r"a\:b",
    r"a\",
    "k",
    "k1",
    "",
    "v",
    "*",
    "-",
    "--",
    "-v",
    "1",
    "0",
    "18446744073709551616",
    "in.jsonl",
    "out.jsonl",
    "missing.jsonl",
    "folder",
    "cubbyhole.redb",
    "bash",
    "00000000-0000-7000-8000-000000000000",
    "show",
];

fn select(from: &'static [&'static str]) -> impl Strategy<Value = OsString> {
    prop::sample::select(from).prop_map(OsString::from)
}

/// Arbitrary bytes of an argument. They do not contain `/`, so a file of that name is in the
/// folder.
fn anything() -> impl Strategy<Value = OsString> {
    let bytes = prop_oneof![
        prop::collection::vec(1..=255_u8, 0..12),
        "[a-z:\\\\\u{1b}\u{7f}\u{202e}\r\n\tü]{0,12}".prop_map(String::into_bytes),
        (900..70_000_usize).prop_map(|length| vec![b'a'; length]),
    ];
    bytes.prop_map(|bytes| {
        let bytes: Vec<u8> = bytes.into_iter().filter(|byte| *byte != b'/').collect();
        // Not a parent folder or a store.
        let is_elsewhere = bytes.starts_with(b".") || bytes.windows(5).any(|five| five == b"redb:");
        OsString::from_vec(if is_elsewhere { b"a".to_vec() } else { bytes })
    })
}

fn option() -> impl Strategy<Value = Vec<OsString>> {
    let value = |name: &'static str| match name {
        // A random address could be a real server.
        "--store" => select(&STORES).boxed(),
        "--timeout" | "--ttl" | "--idle-ttl" => {
            prop_oneof![4 => select(&DURATIONS), 1 => anything(), 1 => select(&WORDS)].boxed()
        }
        _ => prop_oneof![3 => select(&WORDS), 1 => anything()].boxed(),
    };
    let named = prop::sample::select(&WITH_VALUES[..])
        .prop_flat_map(move |name| (Just(name), value(name), any::<bool>()));
    named.prop_map(|(name, value, glued)| {
        if !glued {
            return vec![name.into(), value];
        }
        let mut one = OsString::from(name);
        one.push("=");
        one.push(value);
        vec![one]
    })
}

/// A command with valid and invalid arguments.
fn arguments() -> impl Strategy<Value = Vec<OsString>> {
    let one = |from: BoxedStrategy<OsString>| from.prop_map(|argument| vec![argument]).boxed();
    let piece = prop_oneof![
        6 => one(select(&WORDS).boxed()),
        3 => one(select(&FLAGS).boxed()),
        2 => option().boxed(),
        1 => one(anything().boxed()),
    ];
    let command = prop_oneof![12 => select(&COMMANDS), 1 => anything()];
    (command, prop::collection::vec(piece, 0..6), any::<bool>(), prop::option::of(option()))
        .prop_map(|(command, pieces, json, before)| {
            let mut arguments = Vec::new();
            if json {
                arguments.push("--json".into());
            }
            arguments.extend(before.into_iter().flatten());
            arguments.push(command);
            arguments.extend(pieces.into_iter().flatten());
            arguments
        })
}

/// Calls with the required arguments, which are likely to reach the store.
fn nearly_good() -> impl Strategy<Value = Vec<OsString>> {
    let spaces = select(&WORDS[..8]);
    let keys = prop_oneof![2 => select(&["k", "k1", "", "-v"]), 1 => anything()];
    let command = prop::sample::select(vec![
        "put",
        "put",
        "put",
        "get",
        "edit",
        "edit",
        "take",
        "delete",
        "touch",
        "list",
        "namespaces",
        "usage",
        "erase",
        "export",
        "import",
        "doctor",
        "tenants",
        "compact",
        "evict",
    ]);
    let more = prop::collection::vec(
        prop_oneof![
            2 => option(),
            2 => select(&FLAGS[..19]).prop_map(|flag| vec![flag]),
        ],
        0..2,
    );
    (any::<bool>(), command, spaces, keys, anything(), more).prop_map(
        |(json, command, space, key, value, more)| {
            let mut arguments: Vec<OsString> = Vec::new();
            if json {
                arguments.push("--json".into());
            }
            arguments.push(command.into());
            match command {
                "put" => arguments.extend([space, key, value]),
                "get" | "edit" | "take" | "delete" => arguments.extend([space, key]),
                "touch" => arguments.extend([space, key, "--persist".into()]),
                "erase" => arguments.extend([space, "--yes".into()]),
                "export" => arguments.extend([space, "out.jsonl".into()]),
                "list" | "namespaces" | "usage" => arguments.push(space),
                _ => {}
            }
            arguments.extend(more.into_iter().flatten());
            arguments
        },
    )
}

/// The standard input of the tool, and the file to import.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let good =
        "\\{\"namespace\":\\[\"(acme|globex)\"\\],\"key\":\"k[0-9]?\",\"value\":[0-9]{1,3}\\}\n";
    let corrupted = (good, any::<Index>(), any::<u8>(), any::<bool>()).prop_map(
        |(line, at, byte, cut): (String, Index, u8, bool)| {
            let mut line = line.into_bytes();
            let at = at.index(line.len());
            line[at] = byte;
            line.truncate(if cut { at } else { line.len() });
            line
        },
    );
    let line = prop_oneof![3 => good.prop_map(String::into_bytes), 1 => corrupted];
    prop_oneof![
        1 => Just(Vec::new()),
        4 => prop::collection::vec(line, 1..6).prop_map(|lines| lines.concat()),
        1 => prop::collection::vec(any::<u8>(), 0..200),
        1 => (0..200_000_usize).prop_map(|depth| vec![b'['; depth]),
    ]
}

/// A folder with a store and files in it.
struct HostileSandbox {
    folder: TempDir,
}

impl HostileSandbox {
    fn new(input: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        std::fs::write(folder.path().join("in.jsonl"), input).unwrap();
        let sandbox = Self { folder };
        for (space, key) in [("acme", "k"), ("acme:a", "k1"), ("globex", "k")] {
            assert_eq!(sandbox.run(&words(&["put", space, key, "1"])).status.code(), Some(0));
        }
        sandbox
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs the tool, which must end in time.
    fn run(&self, arguments: &[OsString]) -> Output {
        let input = match File::open(self.path().join("in.jsonl")) {
            Ok(file) => Stdio::from(file),
            Err(_) => Stdio::null(),
        };
        let child = Command::new(env!("CARGO_BIN_EXE_cubbyhole"))
            .args(arguments)
            .current_dir(self.path())
            .env_remove("CUBBYHOLE_STORE")
            .env_remove("CUBBYHOLE_PROFILE")
            .env_remove("CUBBYHOLE_CONFIG")
            .env("XDG_CONFIG_HOME", self.path().join(".config"))
            .env_remove("RUST_BACKTRACE")
            // The editor for `edit`. Drafts are in the temporary folder.
            .env_remove("VISUAL")
            .env("EDITOR", "sh -c 'cat in.jsonl 2>/dev/null > \"$0\"'")
            .env("TMPDIR", self.path())
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let id = child.id().to_string();
        let (sender, ended) = mpsc::channel();
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        match ended.recv_timeout(TIME_LIMIT) {
            Ok(output) => output.unwrap(),
            Err(_) => {
                drop(Command::new("kill").args(["-KILL", &id]).status());
                panic!("the tool hangs: {arguments:?}");
            }
        }
    }

    /// Runs the tool, which may fail, and checks its exit code and messages.
    fn run_hostile(&self, arguments: &[OsString]) -> i32 {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let about =
            || format!("{:.2000}: {:?}: {stderr:.2000}", format!("{arguments:?}"), output.status);
        let code = output
            .status
            .code()
            .unwrap_or_else(|| panic!("ended by signal {:?}: {}", output.status.signal(), about()));
        assert!(EXIT_CODES.contains(&code), "{}", about());
        assert!(!stderr.contains("panicked"), "{}", about());
        assert!(std::str::from_utf8(&output.stderr).is_ok(), "{}", about());
        // Messages are lines without control characters. Help has several lines.
        if arguments.first().is_some_and(|first| first == "--json") {
            let lines: Vec<&str> = stderr.lines().collect();
            assert!(code == 0 || !lines.is_empty(), "{}", about());
            lines.iter().for_each(|line| assert_error_object(line, &about()));
        } else if code != 0 && !stderr.contains("Usage: cubbyhole") {
            assert!(stderr.lines().all(|line| !line.contains(char::is_control)), "{}", about());
            assert!(!stderr.is_empty(), "{}", about());
        }
        code
    }
}

#[track_caller]
fn assert_error_object(line: &str, about: &str) {
    let Ok(Value::Object(object)) = serde_json::from_str(line) else {
        panic!("not a JSON object: {line}: {about}");
    };
    // A log line of `-v`.
    if object.contains_key("level") {
        assert!(object.contains_key("fields") && object.contains_key("timestamp"), "{about}");
        return;
    }
    assert_eq!(object.len(), 1, "{about}");
    let error = object["error"].as_object().unwrap();
    // `internal` is the kind of a defect.
    assert_ne!(error["kind"].as_str().unwrap(), "internal", "{about}");
    assert!(!error["message"].as_str().unwrap().is_empty(), "{about}");
}

fn words(arguments: &[&str]) -> Vec<OsString> {
    arguments.iter().map(OsString::from).collect()
}

/// Asserts that the store can be read and written.
fn assert_store_works(sandbox: &HostileSandbox) {
    for arguments in
        [&["doctor"][..], &["tenants"], &["put", "last", "k", "v"], &["export", "--all"]]
    {
        let output = sandbox.run(&words(arguments));
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
    }
}

#[test]
fn any_arguments_end_in_time_with_a_documented_exit_code() {
    let calls = prop::collection::vec(prop_oneof![arguments(), nearly_good()], 1..8);
    let codes = RefCell::new(BTreeSet::new());
    let outcome = TestRunner::new(cases()).run(&(calls, input()), |(calls, input)| {
        let sandbox = HostileSandbox::new(&input);
        for arguments in &calls {
            codes.borrow_mut().insert(sandbox.run_hostile(arguments));
        }
        assert_store_works(&sandbox);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    // Some calls must reach the store, and some must be usage errors.
    let codes = codes.into_inner();
    assert!(codes.contains(&0) && codes.contains(&2), "{codes:?}");
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_arguments_on_a_memory_store_create_no_file(
        mut calls in prop::collection::vec(nearly_good(), 1..4),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let sandbox = HostileSandbox { folder };
        for arguments in &mut calls {
            if !arguments.iter().any(|argument| {
                ["--store", "--file", "export"].iter().any(|word| argument.as_bytes().starts_with(word.as_bytes()))
            }) {
                let at = arguments.iter().position(|argument| argument != "--json").unwrap();
                arguments.splice(at..at, words(&["--store", "memory:"]));
                sandbox.run_hostile(arguments);
            }
        }
        prop_assert_eq!(std::fs::read_dir(sandbox.path()).unwrap().count(), 0);
    }
}

/// Damage to the file of the store.
#[derive(Debug, Clone)]
enum Damage {
    /// A file of another program.
    Foreign(Vec<u8>),
    /// Changed bytes.
    Changed(Vec<(Index, u8)>),
    /// A truncated file.
    Truncated(Index),
    /// A range of overwritten bytes.
    Overwritten(Index, Vec<u8>),
}

fn damage() -> impl Strategy<Value = Damage> {
    let noise = || prop::collection::vec(any::<u8>(), 1..9_000);
    prop_oneof![
        noise().prop_map(Damage::Foreign),
        prop::collection::vec((any::<Index>(), any::<u8>()), 1..40).prop_map(Damage::Changed),
        any::<Index>().prop_map(Damage::Truncated),
        (any::<Index>(), noise()).prop_map(|(at, noise)| Damage::Overwritten(at, noise)),
    ]
}

fn damaged(mut whole: Vec<u8>, damage: &Damage) -> Vec<u8> {
    match damage {
        Damage::Foreign(bytes) => return bytes.clone(),
        Damage::Truncated(at) => whole.truncate(at.index(whole.len())),
        Damage::Changed(changes) => {
            let length = whole.len();
            changes.iter().for_each(|(at, byte)| whole[at.index(length)] = *byte);
        }
        Damage::Overwritten(at, noise) => {
            let at = at.index(whole.len());
            let end = whole.len().min(at + noise.len());
            whole[at..end].copy_from_slice(&noise[..end - at]);
        }
    }
    whole
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn damaged_store_ends_every_command_in_time(damage in damage(), json: bool, first in any::<Index>()) {
        let sandbox = HostileSandbox::new(b"{\"namespace\":[\"acme\"],\"key\":\"k\",\"value\":1}\n");
        let store = sandbox.path().join("cubbyhole.redb");
        let bytes = damaged(std::fs::read(&store).unwrap(), &damage);
        std::fs::write(&store, &bytes).unwrap();
        let calls: [&[&str]; 10] = [
            &["doctor"], &["export", "--all"], &["export", "--all", "out.jsonl"], &["list", "acme"],
            &["usage", "acme"], &["get", "acme", "k"], &["tenants"], &["namespaces", "acme"],
            &["list", "acme", "--values"], &["migrate"],
        ];
        // The order matters, because the first call may repair or refuse the file.
        for round in 0..3 {
            let call = calls[(first.index(calls.len()) + round * 3) % calls.len()];
            let mut arguments = if json { words(&["--json"]) } else { Vec::new() };
            arguments.extend(words(call));
            sandbox.run_hostile(&arguments);
        }
        if let Damage::Foreign(_) = damage {
            prop_assert!(std::fs::read(&store).unwrap() == bytes, "another program's file was changed");
            prop_assert_ne!(sandbox.run_hostile(&words(&["put", "acme", "k", "v"])), 0);
            prop_assert!(std::fs::read(&store).unwrap() == bytes, "another program's file was changed");
        }
        sandbox.run_hostile(&words(&["put", "acme", "k", "v"]));
        sandbox.run_hostile(&words(&["import", "in.jsonl"]));
        sandbox.run_hostile(&words(&["compact"]));
    }
}
