//! Completion from the store, as the scripts of the shells ask for it.

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::support::{Feeding, Place, Ran, line};

/// As bash has them unless told otherwise.
const BREAKS: &str = " \t\n\"'><=;|&(:";

fn furnished() -> Place {
    let place = Place::new();
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
    assert_eq!(place.run_reading(&["import"], entries.concat().as_bytes()).code, 0);
    place
}

/// What the tool answers a script; it never says anything else.
#[track_caller]
fn answer(mut command: Command) -> Vec<String> {
    let ran = Ran::of(command.output().unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    String::from_utf8(ran.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn asking(place: &Place, shell: &str, words: &[&str]) -> Command {
    place.command(&[&["complete-words", shell, "--"], words].concat())
}

/// Asks again where there is no name: on a busy machine the tool may have given up, as it should.
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

/// As the scripts of zsh and fish call it.
#[track_caller]
fn bare(place: &Place, words: &[&str]) -> Vec<String> {
    let words = [&["cubbyhole"], words].concat();
    let zsh = settled(|| answer(asking(place, "zsh", &words)));
    assert_eq!(settled(|| answer(asking(place, "fish", &words))), zsh);
    zsh
}

/// As the script of bash calls it.
#[track_caller]
fn bash(place: &Place, line: &str) -> Vec<String> {
    settled(|| answer(asking(place, "bash", &[line, BREAKS])))
}

#[test]
fn namespaces_are_completed_segment_by_segment() {
    let place = furnished();
    assert_eq!(bare(&place, &["get", "ac"]), ["names", "acme:"]);
    assert_eq!(bare(&place, &["get", ""]), ["names", "acme:", "zeta"]);
    let beneath = ["names", "acme:agent-7", "acme:agent-8:", "acme:my agent", r"acme:we\:ird"];
    assert_eq!(bare(&place, &["get", "acme:"]), beneath);
    assert_eq!(bare(&place, &["list", "acme:agent-8:"]), ["names", "acme:agent-8:chat"]);
    // Where a prefix will do, each of them is one.
    assert_eq!(bare(&place, &["usage", "ac"]), ["names", "acme", "acme:"]);
    assert_eq!(bare(&place, &["get", "nobody"]), ["names"]);
}

#[test]
fn keys_are_completed_and_none_that_cannot_be_shown() {
    let place = furnished();
    assert_eq!(bare(&place, &["get", "acme:agent-7", "tu"]), ["names", "turn-1", "turn-2"]);
    let all = ["names", "it's", "turn-1", "turn-2"];
    assert_eq!(bare(&place, &["delete", "acme:agent-7", ""]), all);
    assert_eq!(bare(&place, &["get", "acme:agent-7", "--", "-"]), ["names", "-dash"]);
    assert_eq!(bare(&place, &["list", "acme:agent-7", "--prefix", "i"]), ["names", "it's"]);
    let option = bare(&place, &["list", "acme:agent-7", "--after=i"]);
    assert_eq!(option, ["names", "--after=it's"]);
}

#[test]
fn commands_and_options_say_what_they_are() {
    let place = Place::new();
    let commands = bare(&place, &["ta"]);
    assert_eq!(commands, ["names", "take\tGet an entry and delete it, in one atomic step"]);
    assert!(bare(&place, &["list", "--va"])[1].starts_with("--values\tAfter each key"));
    assert_eq!(bash(&place, "cubbyhole ta"), ["names", "take"]);
    assert_eq!(bare(&place, &["put", "a", "k", "--file", ""]), ["files"]);
    assert_eq!(bash(&place, "cubbyhole import "), ["files"]);
}

#[test]
fn the_store_is_that_of_the_line_or_of_the_environment() {
    let place = furnished();
    place.ok(&["put", "other", "k", "v", "--store", "redb:other.redb"]);
    for words in [
        &["--store", "redb:other.redb", "get", ""][..],
        &["--store=redb:other.redb", "get", ""],
        &["get", "--store", "redb:other.redb", ""],
    ] {
        assert_eq!(bare(&place, words), ["names", "other"], "{words:?}");
    }
    assert_eq!(bash(&place, "cubbyhole --store redb:other.redb get "), ["names", "other"]);
    let with_variable = |words: &[&str]| {
        settled(|| {
            let mut command = asking(&place, "zsh", words);
            command.env("CUBBYHOLE_STORE", "redb:other.redb");
            answer(command)
        })
    };
    assert_eq!(with_variable(&["cubbyhole", "get", ""]), ["names", "other"]);
    let named = with_variable(&["cubbyhole", "--store=redb:cubbyhole.redb", "get", ""]);
    assert_eq!(named, ["names", "acme:", "zeta"]);
}

#[test]
fn profiles_are_completed_from_their_file() {
    let place = furnished();
    let profiles = "[profiles.prod]\nstore = \"redb:a.redb\"\n\
                    [profiles.redundant]\nstore = \"redb:b.redb\"\n";
    place.write("c.toml", profiles);
    let file = ["--config", "c.toml"];
    let ask = |words: &[&str]| bare(&place, &[&file, words].concat());
    assert_eq!(ask(&["--profile", ""]), ["names", "prod", "redundant"]);
    assert_eq!(ask(&["--profile=pr"]), ["names", "--profile=prod"]);
    assert_eq!(
        ask(&["copy", "--to", "red"])[1..],
        ["redb:", "redis://", "redis+cluster://", "redundant"]
    );
    // A file that cannot be read has none.
    assert_eq!(bare(&place, &["--config", "none.toml", "--profile", ""]), ["names"]);
}

#[test]
fn no_more_is_offered_than_can_be_read() {
    let place = Place::new();
    let mut entries: String = (0..300).map(|n| line("n", &format!("k{n:03}"), "1")).collect();
    entries.extend((0..300).map(|n| line(&format!("many\",\"s{n}"), "k", "1")));
    entries.extend((0..300).map(|n| line(&format!("t{n}"), "k", "1")));
    assert_eq!(place.run_reading(&["import"], entries.as_bytes()).code, 0);
    for words in [&["get", "n", "k"][..], &["get", "many:"], &["get", "t"]] {
        assert_eq!(bare(&place, words).len(), 201, "{words:?}");
    }
}

#[test]
fn what_fails_is_silent_and_makes_nothing() {
    let place = Place::new();
    let nothing: [&str; 0] = [];
    assert_eq!(bare(&place, &["get", "ac"]), nothing);
    assert_eq!(place.files(), nothing);
    place.write("cubbyhole.redb", "");
    assert_eq!(bare(&place, &["get", "ac"]), nothing);
    assert_eq!(std::fs::read(place.path("cubbyhole.redb")).unwrap(), b"");
    place.write("cubbyhole.redb", "not a store at all");
    assert_eq!(bare(&place, &["get", "ac"]), nothing);
    for store in ["nonsense", "redb:", "redb:no/such/folder.redb", "redis://127.0.0.1:1", "memory:"]
    {
        let found = bare(&place, &["--store", store, "get", "ac"]);
        assert!(found.len() <= 1, "{found:?}");
    }
    for words in [&["nonsense", ""][..], &["get", "a\\x", "k"], &["get", ":", ""], &[], &[""]] {
        assert!(bare(&place, words).iter().all(|line| !line.starts_with("ac")), "{words:?}");
    }
    assert_eq!(answer(asking(&place, "bash", &["one word"])), nothing);
    assert_eq!(place.files(), ["cubbyhole.redb"]);
}

#[test]
fn nobody_waits_for_a_store() {
    let place = furnished();
    let mut feeding = Feeding::start(&place, &[]);
    feeding.feed(&[line("n", "a", "1"), line("n", "a", "2")].concat());
    assert_eq!(feeding.report(), "n\t1\t1\t1\n");
    // One process has the file; a server takes connections and says nothing.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = deaf.local_addr().unwrap().port();
    for (store, most) in [
        ("redb:cubbyhole.redb".to_owned(), Duration::from_millis(590)),
        (format!("redis://127.0.0.1:{port}"), Duration::from_secs(2)),
        (format!("postgres://u@127.0.0.1:{port}/d"), Duration::from_secs(2)),
    ] {
        let words = ["cubbyhole", "--store", &store, "get", "ac"];
        let took = || {
            let started = SystemTime::UNIX_EPOCH.elapsed().unwrap();
            assert_eq!(answer(asking(&place, "zsh", &words)), [""; 0], "{store}");
            SystemTime::UNIX_EPOCH.elapsed().unwrap() - started
        };
        // A busy machine may take longer, but not each time.
        assert!((0..50).any(|_| took() < most), "{store}: longer than {most:?}");
    }
    feeding.signal("TERM");
    assert_eq!(feeding.end().code, 143);
}

/// The script in bash itself: what the function leaves in `COMPREPLY` for a line.
#[track_caller]
fn completed(place: &Place, line: &str) -> Vec<String> {
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_cubbyhole")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let script = r#"source <(cubbyhole completions bash) && complete -p cubbyhole >/dev/null || exit 9
        COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDBREAKS=$2
        _cubbyhole cubbyhole "" "" && printf '%s\n' "${COMPREPLY[@]}""#;
    let output = place
        .isolate(&mut Command::new("bash"))
        .args(["--norc", "-c", script, "bash", line, BREAKS])
        .current_dir(place.path(""))
        .env("PATH", format!("{}:{path}", folder.display()))
        .output();
    let ran = Ran::of(output.unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    let lines = String::from_utf8(ran.stdout).unwrap();
    lines.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_gets_what_it_replaces_and_quoted() {
    let place = furnished();
    for (line, replies) in [
        ("cubbyhole get ac", &["acme:"][..]),
        // It breaks words at each `:`, and replaces what comes after the last.
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
        let mut found = completed(&place, line);
        for _ in 0..10 {
            // As in `settled`.
            if found.is_empty() {
                found = completed(&place, line);
            }
        }
        assert_eq!(found, replies, "{line}");
    }
    // Without a store nothing is said and nothing is made.
    let empty = Place::new();
    assert!(completed(&empty, "cubbyhole get ac").is_empty());
    assert!(empty.files().is_empty());
}

#[test]
fn each_shell_has_a_script() {
    let place = Place::new();
    for (shell, expected) in [
        ("bash", "complete-words bash"),
        ("zsh", "complete-words zsh"),
        ("fish", "complete-words fish"),
        ("elvish", "cubbyhole;put"),
        ("powershell", "cubbyhole;put"),
    ] {
        let script = place.ok(&["completions", shell]);
        assert!(script.contains(expected), "{shell}: {script}");
        let asks = script.contains("complete-words");
        assert_eq!(asks, expected.starts_with("complete-words"), "{shell}");
    }
    // It is for the scripts alone.
    assert!(!place.ok(&["--help"]).contains("complete-words"));
}
