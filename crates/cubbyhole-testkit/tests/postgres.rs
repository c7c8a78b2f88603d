//! Private PostgreSQL servers: they work, restart, and leave nothing behind.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "support/owner.rs"]
mod owner;
mod support;

use std::env;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use cubbyhole_testkit::PostgresServer;
use owner::{
    check_answers_after_resume, check_killed_start_leaves_nothing, check_server_ends_with_owner,
    run_as_owner,
};
use support::{ROLE, connects, kill};

fn pid(server: &PostgresServer) -> String {
    let path = server.socket_folder().join("data/postmaster.pid");
    fs::read_to_string(path).unwrap().lines().next().unwrap().to_owned()
}

#[test]
fn two_servers_run_in_parallel_and_share_nothing() {
    let (a, b) = (PostgresServer::start().unwrap(), PostgresServer::start().unwrap());
    assert_ne!(a.port(), b.port());
    assert_ne!(a.socket_folder(), b.socket_folder());
    for server in [&a, &b] {
        assert!(server.url().starts_with("postgres://postgres:"), "{}", server.url());
        assert!(server.url().ends_with(&format!("@127.0.0.1:{}/postgres", server.port())));
        let socket = format!(".s.PGSQL.{}", server.port());
        assert!(server.socket_folder().join(socket).exists());
        assert!(!format!("{server:?}").contains(&server.url()["postgres://postgres:".len()..40]));
    }
    a.psql("CREATE TABLE only_in_a ()").unwrap();
    let error = b.psql("TABLE only_in_a").unwrap_err();
    assert!(error.contains("only_in_a"), "{error}");
    assert_eq!(a.psql("SELECT 'a|b', 1 + 1").unwrap(), "a|b|2");
}

#[test]
fn server_has_the_settings_for_tests() {
    let server = PostgresServer::start().unwrap();
    let show = |name: &str| server.psql(&format!("SHOW {name}")).unwrap();
    for (name, value) in [
        ("listen_addresses", "127.0.0.1"),
        ("fsync", "off"),
        ("dynamic_shared_memory_type", "mmap"),
        ("max_connections", "200"),
        ("shared_buffers", "128MB"),
        ("autovacuum", "on"),
        ("server_encoding", "UTF8"),
    ] {
        assert_eq!(show(name), value, "{name}");
    }
    // Bytes have another order.
    assert_eq!(server.psql("SELECT 'a' < 'B', 'a' < 'B' COLLATE \"C\"").unwrap(), "t|f");
    let trusting = "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method <> 'scram-sha-256'";
    assert_eq!(server.psql(trusting).unwrap(), "0");
}

#[test]
fn settings_override_those_for_tests_and_errors_name_unknown_ones() {
    let settings = [("fsync", "on"), ("max_connections", "17"), ("cluster_name", r"it's \n")];
    let server = PostgresServer::start_with(&settings).unwrap();
    let sql = "SELECT string_agg(setting, ' ' ORDER BY name DESC) FROM pg_settings \
               WHERE name IN ('fsync', 'max_connections', 'cluster_name')";
    assert_eq!(server.psql(sql).unwrap(), r"17 on it's \n");

    let error = PostgresServer::start_with(&[("no_such_setting", "1")]).unwrap_err();
    assert!(error.contains("ended on starting"), "{error}");
    assert!(error.contains("\"no_such_setting\""), "{error}");
}

#[test]
fn writes_survive_a_stop_and_a_kill() {
    let mut server = PostgresServer::start().unwrap();
    let (url, first) = (server.url().to_owned(), pid(&server));
    server.psql("CREATE TABLE t (n int)").unwrap();
    server.psql("INSERT INTO t VALUES (1)").unwrap();
    server.stop().unwrap();
    server.stop().unwrap();
    assert!(!connects(server.port()) && !kill("0", &first));
    assert!(server.psql("SELECT 1").is_err());
    let log = fs::read_to_string(server.socket_folder().join("log")).unwrap();
    assert!(log.contains("fast shutdown") && log.contains("is shut down"), "{log}");

    server.start_again().unwrap();
    server.start_again().unwrap();
    server.psql("INSERT INTO t VALUES (2)").unwrap();
    let second = pid(&server);
    assert_ne!(first, second);
    server.kill().unwrap();
    server.kill().unwrap();
    assert!(!connects(server.port()) && !kill("0", &second));
    // Only a server that stops in order removes its pid file.
    assert_eq!(pid(&server), second);

    server.start_again().unwrap();
    assert_eq!(server.url(), url);
    assert_eq!(server.psql("SELECT count(*), sum(n) FROM t").unwrap(), "2|3");
}

#[test]
fn paused_server_answers_only_after_resume() {
    let mut server = PostgresServer::start().unwrap();
    server.pause().unwrap();
    let ask = || server.psql("SELECT 1");
    check_answers_after_resume(ask, || server.resume(), "1");
    for end in [PostgresServer::stop, PostgresServer::kill] {
        server.pause().unwrap();
        end(&mut server).unwrap();
        assert!(server.pause().is_err() && server.resume().is_err());
        server.start_again().unwrap();
    }
    assert_eq!(server.psql("SELECT 1").unwrap(), "1");
}

#[test]
fn dropping_a_server_leaves_nothing() {
    type Prepare = fn(&mut PostgresServer) -> Result<(), String>;
    let ways: [Prepare; 4] =
        [|_| Ok(()), PostgresServer::stop, PostgresServer::kill, |server| server.pause()];
    for prepare in ways {
        let mut server = PostgresServer::start().unwrap();
        let (folder, port, pid) = (server.socket_folder().to_owned(), server.port(), pid(&server));
        let segment = segment(&folder);
        assert!(segment_exists(&segment) && kill("0", &pid));
        prepare(&mut server).unwrap();
        drop(server);
        assert!(!folder.exists() && !connects(port) && !kill("0", &pid));
        assert!(!segment_exists(&segment), "shared memory {segment} is left");
    }
}

/// Returns the id of the server's shared memory segment.
fn segment(folder: &Path) -> String {
    let text = fs::read_to_string(folder.join("data/postmaster.pid")).unwrap();
    text.lines().nth(6).unwrap().split_whitespace().nth(1).unwrap().to_owned()
}

fn segment_exists(id: &str) -> bool {
    let output = Command::new("ipcs").arg("-m").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().any(|line| line.split_whitespace().nth(1) == Some(id))
}

#[test]
fn server_ends_with_its_owner_after_each_signal() {
    const TEST: &str = "server_ends_with_its_owner_after_each_signal";
    if env::var_os(ROLE).is_some() {
        let server = PostgresServer::start().unwrap();
        assert_eq!(server.psql("SELECT 'works'").unwrap(), "works");
        return run_as_owner(&pid(&server), server.port());
    }
    // A crash, an administrator, Ctrl-C in the terminal, a panic that aborts.
    let signals = [("KILL", false), ("KILL", true), ("INT", true), ("ABRT", false)];
    check_server_ends_with_owner(TEST, "owner", &signals);
}

#[test]
fn owner_killed_during_the_start_leaves_nothing() {
    const TEST: &str = "owner_killed_during_the_start_leaves_nothing";
    if env::var_os(ROLE).is_some() {
        let _server = PostgresServer::start().unwrap();
        drop(io::read_to_string(io::stdin()));
        return;
    }
    // These files exist when `initdb` has begun, is half done, and when the server has begun.
    let files = ["log", "data/global", "data/postmaster.pid"];
    check_killed_start_leaves_nothing(TEST, "starting", &files);
}
