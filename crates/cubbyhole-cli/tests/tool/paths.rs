//! Stores in files whose paths are hard to write in a URL.

use crate::support::{Place, Ran};

#[test]
fn control_character_in_a_url_is_refused_and_creates_nothing() {
    let place = Place::new();
    for url in ["redb:a.redb\r", "redb:a.redb\n", "redb:a\tb.redb", "postgres://a@127.0.0.1:1/b\r"]
    {
        let mut put = place.command(&["put", "acme", "k", "v"]);
        let ran = Ran::of(put.env("CUBBYHOLE_STORE", url).output().unwrap());
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.stderr.contains("control character"), "{ran:?}");
        assert!(ran.stderr.contains("named by CUBBYHOLE_STORE"), "{ran:?}");
        for command in [&["tenants"][..], &["doctor"], &["doctor", "--repair"], &["migrate"]] {
            let message = place.fails(2, &[command, &["--store", url]].concat());
            assert!(message.contains("control character"), "{message}");
        }
    }
    place.ok(&["put", "acme", "k", "v"]);
    let message = place.fails(2, &["copy", "acme", "--to", "redb:b.redb\r"]);
    assert!(message.contains("control character") && message.contains("--to"), "{message}");
    assert_eq!(place.files(), ["cubbyhole.redb"]);
}

#[test]
fn url_is_percent_decoded_and_store_file_is_not() {
    let place = Place::new();
    for (url, path) in
        [("redb:what%3f.redb", "what?.redb"), ("redb:50%.redb", "50%.redb"), ("redb:a#b", "a#b")]
    {
        if cfg!(windows) && path.contains('?') {
            continue;
        }
        place.ok(&["put", "acme", "k", url, "--store", url]);
        assert!(place.path(path).exists(), "{path}");
        assert_eq!(place.ok(&["get", "acme", "k", "--store-file", path]), url);
    }
    place.ok(&["put", "acme", "k", "1", "--store-file", "a%20b.redb"]);
    assert!(place.path("a%20b.redb").exists());
    // The undecoded name, which was the name before: refused, not another store.
    let message = place.fails(2, &["put", "acme", "k", "2", "--store", "redb:a%20b.redb"]);
    assert!(message.contains("%25"), "{message}");
    assert_eq!(place.ok(&["get", "acme", "k", "--store", "redb:a%2520b.redb"]), "1");
    // A second store too, and the relative path of a profile.
    place.ok(&["copy", "acme", "--to", "redb:copy%21.redb", "--store", "redb:50%.redb"]);
    assert!(place.path("copy!.redb").exists());
    let message = place
        .fails(2, &["copy", "acme", "--store-file", "a%20b.redb", "--to", "redb:./a%2520b.redb"]);
    assert!(message.contains("the store that is copied"), "{message}");
    let file = place.configure("[profiles.p]\nstore = \"redb:100%25.redb\"\n");
    place.ok(&["put", "acme", "k", "v", "--profile", "p"]);
    assert!(file.with_file_name("100%.redb").exists());
    std::fs::write(file.with_file_name("b%20c.redb"), "").unwrap();
    place.configure("[profiles.p]\nstore = \"redb:b%20c.redb\"\n");
    let message = place.fails(2, &["put", "acme", "k", "v", "--profile", "p"]);
    assert!(message.contains("%25"), "{message}");
    place.fails(2, &["tenants", "--store-file", ""]);
}

#[cfg(target_os = "linux")]
#[test]
fn path_that_is_not_utf_8_is_named_and_shown_escaped() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let place = Place::new();
    let name = OsStr::from_bytes(b"caf\xe9\n.redb");
    let run = |arguments: &[&str]| {
        let mut command = place.command(arguments);
        Ran::of(command.arg("--store-file").arg(name).output().unwrap())
    };
    let ran = run(&["get", "acme", "k"]);
    assert!(ran.code == 5 && ran.stderr.contains(r"no store at caf\xe9\n.redb"), "{ran:?}");
    assert_eq!(run(&["put", "acme", "k", "v"]).code, 0);
    assert_eq!(place.ok(&["get", "acme", "k", "--store", "redb:caf%E9%0A.redb"]), "v");
    let shown = run(&["config", "show", "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["store"]["url"], "redb:caf%E9%0A.redb");
    // As an export and as an import too.
    let export = |arguments: &[&str]| {
        let mut command = place.command(arguments);
        Ran::of(command.arg(OsStr::from_bytes(b"out\xe9\n")).output().unwrap())
    };
    let ran = export(&["export", "other", "--store", "redb:caf%E9%0A.redb"]);
    assert!(ran.code == 1 && ran.stderr.contains(r"out\xe9\n was not written"), "{ran:?}");
    let ran = export(&["import"]);
    assert!(ran.code == 2 && ran.stderr.contains(r"cannot read out\xe9\n"), "{ran:?}");
    let mut command = place.command(&["tenants"]);
    let store = OsStr::from_bytes(b"redb:caf\xe9");
    let ran = Ran::of(command.env("CUBBYHOLE_STORE", store).output().unwrap());
    assert!(ran.code == 2 && ran.stderr.contains("hexadecimal"), "{ran:?}");
}
