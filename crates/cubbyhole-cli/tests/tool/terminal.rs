//! Output that only a terminal gets: colours and tables. `script` of util-linux provides the
//! terminal.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::layers::{ENCRYPTED, sandbox_with};
use crate::support::{Sandbox, line};

/// Returns the output of the tool on a terminal with this number of columns.
#[track_caller]
fn seen(
    sandbox: &Sandbox,
    columns: usize,
    variables: &[(&str, &str)],
    arguments: &[&str],
) -> String {
    let tool = env!("CARGO_BIN_EXE_cubbyhole");
    let quote = |word: &&str| format!("'{}'", word.replace('\'', r"'\''"));
    let words: Vec<String> = arguments.iter().map(quote).collect();
    let inner = format!("stty cols {columns} rows 20; {} {}", quote(&tool), words.join(" "));
    let output = sandbox
        .isolate(&mut Command::new("script"))
        .args(["-qec", &inner, "/dev/null"])
        .current_dir(sandbox.path(""))
        .env_remove("NO_COLOR")
        .env("TERM", "xterm-256color")
        .envs(variables.iter().copied())
        .output();
    let output =
        output.unwrap_or_else(|error| panic!("cannot run `script` of util-linux: {error}"));
    let seen = String::from_utf8(output.stdout).unwrap();
    assert!(!seen.is_empty(), "{:?}", String::from_utf8_lossy(&output.stderr));
    seen.replace("\r\n", "\n")
}

/// Answers the question of a command, and returns the text on the terminal.
fn answered(sandbox: &Sandbox, answer: &str, arguments: &str) -> String {
    let tool = format!("'{}' {arguments}", env!("CARGO_BIN_EXE_cubbyhole"));
    let mut script = sandbox
        .isolate(&mut Command::new("script"))
        .args(["-qec", &tool, "/dev/null"])
        .current_dir(sandbox.path(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = script.stdin.take().unwrap();
    writeln!(stdin, "{answer}").unwrap();
    let output = script.wait_with_output().unwrap();
    drop(stdin);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn erase_and_delete_by_prefix_ask_the_same_question() {
    let sandbox = Sandbox::new();
    for key in ["a-1", "a-2", "b"] {
        sandbox.ok(&["put", "acme", key, "1"]);
    }
    let shown = answered(&sandbox, "no", "delete acme --prefix a-");
    let question = "delete 2 entries (8 B) whose keys begin with `a-` in acme from \
                    redb:cubbyhole.redb? Type `yes` to continue: ";
    assert!(shown.contains(question) && shown.contains("nothing was deleted"), "{shown}");
    assert_eq!(sandbox.ok(&["list", "acme"]), "a-1\na-2\nb\n");
    let shown = answered(&sandbox, "yes", "delete acme --prefix a-");
    assert!(shown.contains("deleted 2 entries"), "{shown}");
    assert_eq!(sandbox.ok(&["list", "acme"]), "b\n");
    let shown = answered(&sandbox, "no", "erase acme");
    assert!(shown.contains("erase 1 entry (2 B) in 1 namespace under acme from redb:"), "{shown}");
    assert!(shown.contains("nothing was erased"), "{shown}");
    answered(&sandbox, "yes", "erase acme");
    assert_eq!(sandbox.ok(&["tenants"]), "");
}

#[test]
fn shredding_asks_before_it_destroys_keys() {
    let sandbox = sandbox_with(ENCRYPTED);
    sandbox.ok(&["put", "acme", "k", "v"]);
    let shown = answered(&sandbox, "no", "key shred acme");
    assert!(shown.contains("destroy the keys of the tenant acme in redb:"), "{shown}");
    assert!(shown.contains("nothing was destroyed"), "{shown}");
    assert_eq!(sandbox.ok(&["get", "acme", "k"]), "v");
    let shown = answered(&sandbox, "yes", "key shred acme");
    assert!(shown.contains("1 data key was destroyed"), "{shown}");
    sandbox.fails(6, &["get", "acme", "k"]);
}

#[test]
fn verdicts_and_errors_are_coloured() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["put", "acme", "k", "v"]);
    let shown = seen(&sandbox, 80, &[], &["doctor"]);
    assert!(shown.starts_with("\u{1b}[32mok     \u{1b}[0m  file  "), "{shown:?}");
    let shown = seen(&sandbox, 80, &[], &["get", "acme", "none"]);
    assert!(shown.starts_with("\u{1b}[1m\u{1b}[31mcubbyhole:\u{1b}[0m there is no"), "{shown:?}");
    let shown = seen(&sandbox, 80, &[], &["get", "acme", "k", "--nonsense"]);
    assert!(shown.starts_with("\u{1b}[1m\u{1b}[31mcubbyhole:\u{1b}[0m "), "{shown:?}");
    let other = Sandbox::new();
    other.write("cubbyhole.redb", "not a store at all");
    let shown = seen(&other, 80, &[], &["doctor"]);
    assert!(shown.contains("\u{1b}[1m\u{1b}[31mproblem\u{1b}[0m  "), "{shown:?}");
}

#[test]
fn colours_can_be_disabled_and_json_has_none() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["put", "acme", "k", "v"]);
    for (variables, option) in [
        (&[("NO_COLOR", "1")][..], None),
        (&[("NO_COLOR", "0")], None),
        (&[("TERM", "dumb")], None),
        (&[], Some("--json")),
    ] {
        for arguments in [&["doctor"][..], &["get", "acme", "none"], &["get", "acme"]] {
            let arguments: Vec<&str> = arguments.iter().copied().chain(option).collect();
            let shown = seen(&sandbox, 80, variables, &arguments);
            assert!(!shown.contains('\u{1b}'), "{variables:?} {arguments:?}: {shown:?}");
        }
    }
    // An empty variable counts as unset.
    assert!(seen(&sandbox, 80, &[("NO_COLOR", "")], &["doctor"]).contains('\u{1b}'));
    // A pipe never gets colours.
    assert!(!sandbox.ok(&["doctor"]).contains('\u{1b}'));
    assert!(!sandbox.fails(1, &["get", "acme", "none"]).contains('\u{1b}'));
}

#[test]
fn long_listings_are_tables_that_fit_the_terminal() {
    let sandbox = Sandbox::new();
    let long = "a-key-that-is-longer-than-what-a-narrow-terminal-has-left";
    let value = format!("\"{}\"", "x".repeat(3000));
    let input =
        [line("acme", long, &value), line("acme", "日本語", "1"), line("acme\",\"a", "k", "1")];
    assert_eq!(sandbox.run_reading(&["import"], input.concat().as_bytes()).code, 0);
    sandbox.ok(&["touch", "acme", "日本語", "--ttl", "3h"]);

    let shown = seen(&sandbox, 200, &[], &["list", "acme", "--long"]);
    let lines: Vec<&str> = shown.lines().collect();
    let header: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(header, ["UPDATED", "EXPIRES", "SIZE", "VERSION", "KEY"]);
    assert_eq!(lines.len(), 3);
    assert!(lines[1].contains(" ago    never  2.9 KiB  ") && lines[1].ends_with(long), "{shown}");
    assert!(lines[2].contains("in 3h      1 B  ") && lines[2].ends_with("日本語"), "{shown}");

    sandbox.ok(&["touch", "acme", "日本語", "--idle-ttl", "3h"]);
    let shown = seen(&sandbox, 200, &[], &["list", "acme", "--long"]);
    assert!(shown.contains("  in 3h, idle 3h  "), "{shown}");
    sandbox.ok(&["touch", "acme", "日本語", "--ttl", "3h"]);

    let shown = seen(&sandbox, 60, &[], &["list", "acme", "--long", "--values"]);
    for line in shown.lines() {
        assert!(line.chars().count() <= 60, "{line}");
    }
    assert!(shown.lines().nth(1).is_some_and(|line| line.matches('…').count() == 3), "{shown}");

    let shown = seen(&sandbox, 60, &[], &["namespaces", "acme", "--long"]);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], "ENTRIES     SIZE  NAMESPACE");
    assert_eq!(lines[1..], ["      2  2.9 KiB  acme", "      1      2 B  acme:a"]);

    // Listings without columns, and listings in a pipe, are not shortened.
    assert!(seen(&sandbox, 20, &[], &["list", "acme"]).contains(long));
    let piped = sandbox.ok(&["list", "acme", "--long"]);
    assert!(piped.lines().next().is_some_and(|line| line.ends_with(&format!("  {long}"))));
}
