//! Completion of the real command line.

use clap::CommandFactory;

use super::*;
use crate::cli::Cli;

fn ask(words: &[&str]) -> Completion {
    let mut tool = Cli::command();
    tool.build();
    let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    asked(&tool, &words)
}

#[track_caller]
fn texts(words: &[&str]) -> Vec<String> {
    match ask(words).wanted {
        Wanted::Words(words) => words.into_iter().map(|word| word.text).collect(),
        other => panic!("{other:?}"),
    }
}

fn namespace(begun: &str, prefixes: bool) -> Wanted {
    Wanted::Namespace { begun: begun.to_owned(), prefixes }
}

fn key(namespace: &str, begun: &str) -> Wanted {
    Wanted::Key { namespace: namespace.to_owned(), begun: begun.to_owned() }
}

#[test]
fn commands_options_and_values_are_completed() {
    assert_eq!(texts(&["cubbyhole", "ta"]), ["take"]);
    assert!(texts(&["cubbyhole", ""]).len() > 15);
    assert_eq!(texts(&["cubbyhole", "--json", "do"]), ["doctor"]);
    assert_eq!(texts(&["cubbyhole", "list", "--va"]), ["--values"]);
    // Global options, before and after the command.
    assert_eq!(texts(&["cubbyhole", "list", "--st"]), ["--store", "--store-file"]);
    assert_eq!(texts(&["cubbyhole", "--store"]), ["--store", "--store-file"]);
    assert_eq!(texts(&["cubbyhole", "completions", "z"]), ["zsh"]);
    assert_eq!(texts(&["cubbyhole", "import", "--on-error", "s"]), ["stop", "skip"]);
    assert_eq!(texts(&["cubbyhole", "import", "--on-error=s"]), ["stop", "skip"]);
    assert_eq!(texts(&["cubbyhole", "--store", "redi"]), ["redis://", "redis+cluster://"]);
    assert!(!texts(&["cubbyhole", ""]).iter().any(|word| word.contains("complete")));
}

#[test]
fn names_from_the_store_are_completed() {
    assert_eq!(ask(&["cubbyhole", "get", "ac"]).wanted, namespace("ac", false));
    assert_eq!(ask(&["cubbyhole", "usage", "ac"]).wanted, namespace("ac", true));
    assert_eq!(ask(&["cubbyhole", "export", ""]).wanted, namespace("", true));
    assert_eq!(ask(&["cubbyhole", "get", "acme", "tu"]).wanted, key("acme", "tu"));
    assert_eq!(ask(&["cubbyhole", "get", "acme", "--", "-t"]).wanted, key("acme", "-t"));
    assert!(ask(&["cubbyhole", "get", "acme", "--", "-t"]).dashes);
    assert_eq!(ask(&["cubbyhole", "list", "acme", "--prefix", "tu"]).wanted, key("acme", "tu"));
    assert_eq!(ask(&["cubbyhole", "list", "acme", "--after=tu"]).wanted, key("acme", "tu"));
    assert_eq!(ask(&["cubbyhole", "list", "acme", "--after=tu"]).lead, "--after=");
    assert_eq!(ask(&["cubbyhole", "delete", "acme", "--prefix", "tu"]).wanted, key("acme", "tu"));
    assert_eq!(ask(&["cubbyhole", "copy", "a", "--as", "b"]).wanted, namespace("b", true));
    assert_eq!(ask(&["cubbyhole", "import", "--from=b"]).wanted, namespace("b", true));
    for words in [
        &["cubbyhole", "get", "acme", "k", ""][..],
        &["cubbyhole", "put", "acme", "k", ""],
        &["cubbyhole", "nonsense", ""],
        &["cubbyhole", "put", "acme", "k", "--ttl", ""],
        &["cubbyhole", "list", "--prefix", ""],
        &["cubbyhole", "get", "--json=", ""],
    ] {
        let wanted = ask(words).wanted;
        let expected = words.contains(&"get") && words.len() == 4;
        assert_eq!(wanted == Wanted::Nothing, !expected, "{words:?} {wanted:?}");
    }
    for words in
        [&["cubbyhole", "put", "acme", "k", "--file", ""], &["cubbyhole", "import", ""][..]]
    {
        assert_eq!(ask(words).wanted, Wanted::File, "{words:?}");
    }
    assert_eq!(ask(&["cubbyhole", "--store", "redb:a"]).wanted, Wanted::File);
    assert_eq!(ask(&["cubbyhole", "--store-file", "a"]).wanted, Wanted::File);
    let profile = |or| Wanted::Profile { begun: "re".to_owned(), or };
    assert_eq!(ask(&["cubbyhole", "--profile", "re"]).wanted, profile(Vec::new()));
    assert_eq!(ask(&["cubbyhole", "copy", "--to=re"]).wanted, profile(schemes("re")));
    assert_eq!(texts(&["cubbyhole", "config", "s"]), ["show"]);
}

#[test]
fn store_is_read_from_the_line() {
    for words in [
        &["cubbyhole", "--store", "redb:x", "get", ""][..],
        &["cubbyhole", "get", "--store=redb:x", ""],
        &["cubbyhole", "--json", "get", "acme", "--store", "redb:x", ""],
    ] {
        assert_eq!(ask(words).named.store.as_deref(), Some("redb:x"), "{words:?}");
    }
    let named = ask(&["cubbyhole", "get", "--store-file", "a?", "acme", ""]).named;
    assert_eq!(named.store_file.as_deref(), Some("a?"));
    assert_eq!(ask(&["cubbyhole", "get", ""]).named, StoreOptions::default());
    let named = ask(&["cubbyhole", "--profile", "prod", "--config=x.toml", "get", ""]).named;
    let expected = (None, Some("prod"), Some("x.toml"));
    let found = (named.store, named.profile.as_deref(), named.config.as_deref());
    assert_eq!(found, expected);
    // After `--` it is a name.
    assert_eq!(ask(&["cubbyhole", "get", "--", "--store=redb:x", ""]).named.store, None);
}
