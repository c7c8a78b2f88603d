//! Completion of names from the store, with the output formats for the shells.

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::support::{PipedImport, Ran, Sandbox, line};

/// The default word separators of bash.
const BREAKS: &str = " \t\n\"'><=;|&(:";

fn sandbox_with_entries() -> Sandbox {
    let sandbox = Sandbox::new();
    let entry = |namespace: &[&str], key: &str| {
        serde_json::json!({"namespace": namespace, "key": key, "value": 1}).to_string() + "\n"
    };
    let entries = [
        entry(&["acme", "agent-7"], "turn-1"),
        entry(&["acme", "agent-7"], "turn-2"),
        entry(&["acme", "agent-7"], "it's"),
        entry(&["acme", "agent-7"], "-dash"),
        entry(&["acme", "agent-7"], "turn\u{1b}[2J"),
        entry(&["acme", "agent-7"], "turn\nnext"),
        entry(&["acme", "agent-8", "chat"], "k"),
        entry(&["acme", "my agent"], "k"),
        entry(&["acme", "we:ird"], "k"),
        entry(&["zeta"], "k"),
    ];
    assert_eq!(sandbox.run_reading(&["import"], entries.concat().as_bytes()).code, 0);
    sandbox
}

/// Returns the output of a completion, which must succeed silently.
#[track_caller]
fn answer(mut command: Command) -> Vec<String> {
    let ran = Ran::of(command.output().unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    String::from_utf8(ran.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn asking(sandbox: &Sandbox, shell: &str, words: &[&str]) -> Command {
    sandbox.command(&[&["complete-words", shell, "--"], words].concat())
}

/// Repeats a completion that returns no name, because the tool may time out on a busy machine.
fn settled(ask: impl Fn() -> Vec<String>) -> Vec<String> {
    let mut found = ask();
    for _ in 0..10 {
        if found.len() > 1 || found == ["files"] {
            break;
        }
        found = ask();
    }
    found
}

/// Completes like the scripts of zsh and fish.
#[track_caller]
fn bare(sandbox: &Sandbox, words: &[&str]) -> Vec<String> {
    let words = [&["cubbyhole"], words].concat();
    let zsh = settled(|| answer(asking(sandbox, "zsh", &words)));
    assert_eq!(settled(|| answer(asking(sandbox, "fish", &words))), zsh);
    zsh
}

/// Completes like the script of bash.
#[track_caller]
fn bash(sandbox: &Sandbox, line: &str) -> Vec<String> {
    settled(|| answer(asking(sandbox, "bash", &[line, BREAKS])))
}

#[test]
fn namespaces_are_completed_one_segment_at_a_time() {
    let sandbox = sandbox_with_entries();
    assert_eq!(bare(&sandbox, &["get", "ac"]), ["names", "acme:"]);
    assert_eq!(bare(&sandbox, &["get", ""]), ["names", "acme:", "zeta"]);
    let beneath = ["names", "acme:agent-7", "acme:agent-8:", "acme:my agent", r"acme:we\:ird"];
    assert_eq!(bare(&sandbox, &["get", "acme:"]), beneath);
    assert_eq!(bare(&sandbox, &["list", "acme:agent-8:"]), ["names", "acme:agent-8:chat"]);
    // An argument that is a prefix also completes names that are not namespaces.
    assert_eq!(bare(&sandbox, &["usage", "ac"]), ["names", "acme", "acme:"]);
    assert_eq!(bare(&sandbox, &["get", "nobody"]), ["names"]);
}

#[test]
fn printable_keys_are_completed() {
    let sandbox = sandbox_with_entries();
    assert_eq!(bare(&sandbox, &["get", "acme:agent-7", "tu"]), ["names", "turn-1", "turn-2"]);
    let all = ["names", "it's", "turn-1", "turn-2"];
    assert_eq!(bare(&sandbox, &["delete", "acme:agent-7", ""]), all);
    assert_eq!(bare(&sandbox, &["get", "acme:agent-7", "--", "-"]), ["names", "-dash"]);
    assert_eq!(bare(&sandbox, &["list", "acme:agent-7", "--prefix", "i"]), ["names", "it's"]);
    let option = bare(&sandbox, &["list", "acme:agent-7", "--after=i"]);
    assert_eq!(option, ["names", "--after=it's"]);
}

#[test]
fn commands_and_options_are_completed_with_descriptions() {
    let sandbox = Sandbox::new();
    let commands = bare(&sandbox, &["ta"]);
    assert_eq!(commands, ["names", "take\tGet and delete an entry atomically"]);
    assert!(
        bare(&sandbox, &["list", "--va"])[1].starts_with("--values\tShow the value after each key")
    );
    assert_eq!(bash(&sandbox, "cubbyhole ta"), ["names", "take"]);
    assert_eq!(bare(&sandbox, &["put", "a", "k", "--file", ""]), ["files"]);
    assert_eq!(bash(&sandbox, "cubbyhole import "), ["files"]);
}

#[test]
fn completion_uses_the_store_of_the_line_or_environment() {
    let sandbox = sandbox_with_entries();
    sandbox.ok(&["put", "other", "k", "v", "--store", "redb:other.redb"]);
    for words in [
        &["--store", "redb:other.redb", "get", ""][..],
        &["--store=redb:other.redb", "get", ""],
        &["get", "--store", "redb:other.redb", ""],
    ] {
        assert_eq!(bare(&sandbox, words), ["names", "other"], "{words:?}");
    }
    assert_eq!(bash(&sandbox, "cubbyhole --store redb:other.redb get "), ["names", "other"]);
    let with_variable = |words: &[&str]| {
        settled(|| {
            let mut command = asking(&sandbox, "zsh", words);
            command.env("CUBBYHOLE_STORE", "redb:other.redb");
            answer(command)
        })
    };
    assert_eq!(with_variable(&["cubbyhole", "get", ""]), ["names", "other"]);
    let named = with_variable(&["cubbyhole", "--store=redb:cubbyhole.redb", "get", ""]);
    assert_eq!(named, ["names", "acme:", "zeta"]);
}

#[test]
fn profiles_are_completed_from_the_configuration_file() {
    let sandbox = sandbox_with_entries();
    let profiles = "[profiles.prod]\nstore = \"redb:a.redb\"\n\
                    [profiles.redundant]\nstore = \"redb:b.redb\"\n";
    sandbox.write("c.toml", profiles);
    let file = ["--config", "c.toml"];
    let ask = |words: &[&str]| bare(&sandbox, &[&file, words].concat());
    assert_eq!(ask(&["--profile", ""]), ["names", "prod", "redundant"]);
    assert_eq!(ask(&["--profile=pr"]), ["names", "--profile=prod"]);
    assert_eq!(
        ask(&["copy", "--to", "red"])[1..],
        ["redb:", "redis://", "redis+cluster://", "redundant"]
    );
    // A missing file has no profiles.
    assert_eq!(bare(&sandbox, &["--config", "none.toml", "--profile", ""]), ["names"]);
}

#[test]
fn number_of_candidates_is_bounded() {
    let sandbox = Sandbox::new();
    let mut entries: String = (0..300).map(|n| line("n", &format!("k{n:03}"), "1")).collect();
    entries.extend((0..300).map(|n| line(&format!("many\",\"s{n}"), "k", "1")));
    entries.extend((0..300).map(|n| line(&format!("t{n}"), "k", "1")));
    assert_eq!(sandbox.run_reading(&["import"], entries.as_bytes()).code, 0);
    for words in [&["get", "n", "k"][..], &["get", "many:"], &["get", "t"]] {
        assert_eq!(bare(&sandbox, words).len(), 201, "{words:?}");
    }
}

#[test]
fn failed_completion_is_silent_and_creates_no_file() {
    let sandbox = Sandbox::new();
    let nothing: [&str; 0] = [];
    assert_eq!(bare(&sandbox, &["get", "ac"]), nothing);
    assert_eq!(sandbox.files(), nothing);
    sandbox.write("cubbyhole.redb", "");
    assert_eq!(bare(&sandbox, &["get", "ac"]), nothing);
    assert_eq!(std::fs::read(sandbox.path("cubbyhole.redb")).unwrap(), b"");
    sandbox.write("cubbyhole.redb", "not a store at all");
    assert_eq!(bare(&sandbox, &["get", "ac"]), nothing);
    for store in ["nonsense", "redb:", "redb:no/such/folder.redb", "redis://127.0.0.1:1", "memory:"]
    {
        let found = bare(&sandbox, &["--store", store, "get", "ac"]);
        assert!(found.len() <= 1, "{found:?}");
    }
    for words in [&["nonsense", ""][..], &["get", "a\\x", "k"], &["get", ":", ""], &[], &[""]] {
        assert!(bare(&sandbox, words).iter().all(|line| !line.starts_with("ac")), "{words:?}");
    }
    assert_eq!(answer(asking(&sandbox, "bash", &["one word"])), nothing);
    assert_eq!(sandbox.files(), ["cubbyhole.redb"]);
}

#[test]
fn completion_does_not_wait_for_a_store() {
    let sandbox = sandbox_with_entries();
    let mut piped = PipedImport::start(&sandbox, &[]);
    piped.feed(&[line("n", "a", "1"), line("n", "a", "2")].concat());
    assert_eq!(piped.report(), "n\t1\t1\t1\n");
    // Another process has the file open, and the server accepts connections but does not answer.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    for (store, most) in [
        ("redb:cubbyhole.redb".to_owned(), Duration::from_millis(590)),
        (format!("redis://127.0.0.1:{port}"), Duration::from_secs(2)),
        (format!("postgres://u@127.0.0.1:{port}/d"), Duration::from_secs(2)),
    ] {
        let words = ["cubbyhole", "--store", &store, "get", "ac"];
        let took = || {
            let started = SystemTime::UNIX_EPOCH.elapsed().unwrap();
            assert_eq!(answer(asking(&sandbox, "zsh", &words)), [""; 0], "{store}");
            SystemTime::UNIX_EPOCH.elapsed().unwrap() - started
        };
        // A busy machine may take longer, but not every time.
        assert!((0..50).any(|_| took() < most), "{store}: longer than {most:?}");
    }
    piped.signal("TERM");
    assert_eq!(piped.end().code, 143);
}

/// Runs the completion script in bash, and returns `COMPREPLY` for a line.
#[track_caller]
fn completed(sandbox: &Sandbox, line: &str) -> Vec<String> {
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_cubbyhole")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let script = r#"source <(cubbyhole completions bash) && complete -p cubbyhole >/dev/null || exit 9
        COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDBREAKS=$2
        _cubbyhole cubbyhole "" "" && printf '%s\n' "${COMPREPLY[@]}""#;
    let output = sandbox
        .isolate(&mut Command::new("bash"))
        .args(["--norc", "-c", script, "bash", line, BREAKS])
        .current_dir(sandbox.path(""))
        .env("PATH", format!("{}:{path}", folder.display()))
        .output();
    let ran = Ran::of(output.unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    let lines = String::from_utf8(ran.stdout).unwrap();
    lines.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_completion_returns_the_quoted_replacement() {
    let sandbox = sandbox_with_entries();
    for (line, replies) in [
        ("cubbyhole get ac", &["acme:"][..]),
        // bash splits words at each `:`, and replaces the text after the last one.
        ("cubbyhole get acme:", &["agent-7", "agent-8:", r"my\ agent", r"we\\:ird"]),
        ("cubbyhole get acme:agent-8:", &["chat"]),
        (r"cubbyhole get acme:my\ ", &[r"my\ agent"]),
        (r"cubbyhole get acme:we\\:", &["ird"]),
        ("cubbyhole get \"acme:my", &["acme:my agent"]),
        ("cubbyhole get 'acme:we", &[r"acme:we\:ird"]),
        ("cubbyhole get acme:agent-7 tu", &["turn-1", "turn-2"]),
        ("cubbyhole get acme:agent-7 i", &[r"it\'s"]),
        ("cubbyhole get acme:agent-7 'i", &[r"it'\''s"]),
        ("cubbyhole get 'acme:my agent' ", &["k"]),
        (r"cubbyhole get acme:we\\:ird ", &["k"]),
        ("cubbyhole list acme:agent-7 --after=i", &[r"it\'s"]),
        ("cubbyhole get acme:agent-7 none", &[]),
        ("cubbyhole import ", &[]),
    ] {
        let mut found = completed(&sandbox, line);
        for _ in 0..10 {
            // See `settled`.
            if found.is_empty() {
                found = completed(&sandbox, line);
            }
        }
        assert_eq!(found, replies, "{line}");
    }
    // Without a store, completion is silent and creates no file.
    let empty = Sandbox::new();
    assert!(completed(&empty, "cubbyhole get ac").is_empty());
    assert!(empty.files().is_empty());
}

#[test]
fn every_shell_has_a_completion_script() {
    let sandbox = Sandbox::new();
    for (shell, expected) in [
        ("bash", "complete-words bash"),
        ("zsh", "complete-words zsh"),
        ("fish", "complete-words fish"),
        ("elvish", "cubbyhole;put"),
        ("powershell", "cubbyhole;put"),
    ] {
        let script = sandbox.ok(&["completions", shell]);
        assert!(script.contains(expected), "{shell}: {script}");
        let asks = script.contains("complete-words");
        assert_eq!(asks, expected.starts_with("complete-words"), "{shell}");
    }
    // The command is hidden, because only the scripts use it.
    assert!(!sandbox.ok(&["--help"]).contains("complete-words"));
}
