//! Stores in files whose paths need escapes in a URL.

use crate::support::{Ran, Sandbox};

#[test]
fn control_character_in_a_url_is_refused_and_creates_nothing() {
    let sandbox = Sandbox::new();
    for url in ["redb:a.redb\r", "redb:a.redb\n", "redb:a\tb.redb", "postgres://a@127.0.0.1:1/b\r"]
    {
        let mut put = sandbox.command(&["put", "acme", "k", "v"]);
        let ran = Ran::of(put.env("CUBBYHOLE_STORE", url).output().unwrap());
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.stderr.contains("control character"), "{ran:?}");
        assert!(ran.stderr.contains("named by CUBBYHOLE_STORE"), "{ran:?}");
        for command in [&["tenants"][..], &["doctor"], &["doctor", "--repair"], &["migrate"]] {
            let message = sandbox.fails(2, &[command, &["--store", url]].concat());
            assert!(message.contains("control character"), "{message}");
        }
    }
    sandbox.ok(&["put", "acme", "k", "v"]);
    let message = sandbox.fails(2, &["copy", "acme", "--to", "redb:b.redb\r"]);
    assert!(message.contains("control character") && message.contains("--to"), "{message}");
    assert_eq!(sandbox.files(), ["cubbyhole.redb"]);
}

#[test]
fn url_is_percent_decoded_and_store_file_is_not() {
    let sandbox = Sandbox::new();
    for (url, path) in
        [("redb:what%3f.redb", "what?.redb"), ("redb:50%.redb", "50%.redb"), ("redb:a#b", "a#b")]
    {
        if cfg!(windows) && path.contains('?') {
            continue;
        }
        sandbox.ok(&["put", "acme", "k", url, "--store", url]);
        assert!(sandbox.path(path).exists(), "{path}");
        assert_eq!(sandbox.ok(&["get", "acme", "k", "--store-file", path]), url);
    }
    sandbox.ok(&["put", "acme", "k", "1", "--store-file", "a%20b.redb"]);
    assert!(sandbox.path("a%20b.redb").exists());
    // A URL with the undecoded name is refused and does not open another store.
    let message = sandbox.fails(2, &["put", "acme", "k", "2", "--store", "redb:a%20b.redb"]);
    assert!(message.contains("%25"), "{message}");
    assert_eq!(sandbox.ok(&["get", "acme", "k", "--store", "redb:a%2520b.redb"]), "1");
    // The target of a copy, and the relative path of a profile, are decoded too.
    sandbox.ok(&["copy", "acme", "--to", "redb:copy%21.redb", "--store", "redb:50%.redb"]);
    assert!(sandbox.path("copy!.redb").exists());
    let message = sandbox
        .fails(2, &["copy", "acme", "--store-file", "a%20b.redb", "--to", "redb:./a%2520b.redb"]);
    assert!(message.contains("the store that is copied"), "{message}");
    let file = sandbox.configure("[profiles.p]\nstore = \"redb:100%25.redb\"\n");
    sandbox.ok(&["put", "acme", "k", "v", "--profile", "p"]);
    assert!(file.with_file_name("100%.redb").exists());
    std::fs::write(file.with_file_name("b%20c.redb"), "").unwrap();
    sandbox.configure("[profiles.p]\nstore = \"redb:b%20c.redb\"\n");
    let message = sandbox.fails(2, &["put", "acme", "k", "v", "--profile", "p"]);
    assert!(message.contains("%25"), "{message}");
    sandbox.fails(2, &["tenants", "--store-file", ""]);
}

#[cfg(target_os = "linux")]
#[test]
fn non_utf8_path_works_and_is_shown_escaped() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let sandbox = Sandbox::new();
    let name = OsStr::from_bytes(b"caf\xe9\n.redb");
    let run = |arguments: &[&str]| {
        let mut command = sandbox.command(arguments);
        Ran::of(command.arg("--store-file").arg(name).output().unwrap())
    };
    let ran = run(&["get", "acme", "k"]);
    assert!(ran.code == 5 && ran.stderr.contains(r"no store at caf\xe9\n.redb"), "{ran:?}");
    assert_eq!(run(&["put", "acme", "k", "v"]).code, 0);
    assert_eq!(sandbox.ok(&["get", "acme", "k", "--store", "redb:caf%E9%0A.redb"]), "v");
    let shown = run(&["config", "show", "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["store"]["url"], "redb:caf%E9%0A.redb");
    // The file of an export and of an import.
    let export = |arguments: &[&str]| {
        let mut command = sandbox.command(arguments);
        Ran::of(command.arg(OsStr::from_bytes(b"out\xe9\n")).output().unwrap())
    };
    let ran = export(&["export", "other", "--store", "redb:caf%E9%0A.redb"]);
    assert!(ran.code == 1 && ran.stderr.contains(r"out\xe9\n was not written"), "{ran:?}");
    let ran = export(&["import"]);
    assert!(ran.code == 2 && ran.stderr.contains(r"cannot read out\xe9\n"), "{ran:?}");
    let mut command = sandbox.command(&["tenants"]);
    let store = OsStr::from_bytes(b"redb:caf\xe9");
    let ran = Ran::of(command.env("CUBBYHOLE_STORE", store).output().unwrap());
    assert!(ran.code == 2 && ran.stderr.contains("hexadecimal"), "{ran:?}");
}
