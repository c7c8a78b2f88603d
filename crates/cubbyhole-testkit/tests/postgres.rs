//! Private PostgreSQL servers: they work, come back, and leave nothing behind.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use cubbyhole_testkit::PostgresServer;
use support::{ROLE, connects, eventually, is_empty, is_named_by_a_process, kill, owner, place};

fn pid(server: &PostgresServer) -> String {
    let path = server.socket_folder().join("data/postmaster.pid");
    fs::read_to_string(path).unwrap().lines().next().unwrap().to_owned()
}

#[test]
fn two_servers_run_at_once_and_apart() {
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
fn the_server_is_as_tests_need_it() {
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
    // Bytes order otherwise.
    assert_eq!(server.psql("SELECT 'a' < 'B', 'a' < 'B' COLLATE \"C\"").unwrap(), "t|f");
    let trusting = "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method <> 'scram-sha-256'";
    assert_eq!(server.psql(trusting).unwrap(), "0");
}

#[test]
fn settings_overrule_those_for_tests_and_a_wrong_one_is_explained() {
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
fn what_was_written_is_there_after_a_stop_and_after_a_kill() {
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
    // What is stopped in order takes its pid away.
    assert_eq!(pid(&server), second);

    server.start_again().unwrap();
    assert_eq!(server.url(), url);
    assert_eq!(server.psql("SELECT count(*), sum(n) FROM t").unwrap(), "2|3");
}

#[test]
fn a_paused_server_answers_nobody_until_it_is_resumed() {
    let mut server = PostgresServer::start().unwrap();
    server.pause().unwrap();
    thread::scope(|scope| {
        let (send, answer) = std::sync::mpsc::channel();
        let server = &server;
        scope.spawn(move || send.send(server.psql("SELECT 1")).unwrap());
        let early = answer.recv_timeout(Duration::from_millis(700));
        assert!(early.is_err(), "{early:?}");
        server.resume().unwrap();
        assert_eq!(answer.recv().unwrap().unwrap(), "1");
    });
    for end in [PostgresServer::stop, PostgresServer::kill] {
        server.pause().unwrap();
        end(&mut server).unwrap();
        assert!(server.pause().is_err() && server.resume().is_err());
        server.start_again().unwrap();
    }
    assert_eq!(server.psql("SELECT 1").unwrap(), "1");
}

#[test]
fn dropping_leaves_nothing() {
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

/// The id of the server's segment of shared memory.
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
fn a_server_ends_with_its_owner_however_that_ends() {
    const TEST: &str = "a_server_ends_with_its_owner_however_that_ends";
    if env::var_os(ROLE).is_some() {
        let server = PostgresServer::start().unwrap();
        let answer = server.psql("SELECT 'works'").unwrap();
        writeln!(io::stdout(), "\nserver {answer} {} {}", pid(&server), server.port()).unwrap();
        // Until the other end of the pipe is gone.
        drop(io::read_to_string(io::stdin()));
        return;
    }
    // A crash, a power user, Ctrl-C in the terminal, a panic that aborts.
    for (signal, whole_group) in [("KILL", false), ("KILL", true), ("INT", true), ("ABRT", false)] {
        let place = place("owner");
        let mut owner = owner(TEST, &place);
        let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
        let line =
            lines.map_while(Result::ok).find(|line| line.starts_with("server works ")).unwrap();
        let (pid, port) = line["server works ".len()..].split_once(' ').unwrap();
        assert!(kill("0", pid) && connects(port.parse().unwrap()) && !is_empty(&place));

        let group = if whole_group { "-" } else { "" };
        assert!(kill(signal, &format!("{group}{}", owner.id())));
        assert!(!owner.wait().unwrap().success());
        eventually("the server is gone", || !kill("0", pid));
        eventually("the folder is gone", || is_empty(&place));
        assert!(!connects(port.parse().unwrap()));
        fs::remove_dir(&place).unwrap();
    }
}

#[test]
fn an_owner_that_is_killed_while_it_starts_a_server_leaves_nothing() {
    const TEST: &str = "an_owner_that_is_killed_while_it_starts_a_server_leaves_nothing";
    if env::var_os(ROLE).is_some() {
        let _server = PostgresServer::start().unwrap();
        drop(io::read_to_string(io::stdin()));
        return;
    }
    // What there is once `initdb` has begun, is half done, and the server has begun.
    for sign in ["log", "data/global", "data/postmaster.pid"] {
        let place = place("starting");
        let mut owner = owner(TEST, &place);
        let mut folder = PathBuf::new();
        eventually(sign, || {
            let entry = fs::read_dir(&place).unwrap().flatten().next();
            folder = entry.map(|entry| entry.path()).unwrap_or_default();
            folder.join(sign).exists()
        });
        owner.kill().unwrap();
        owner.wait().unwrap();
        eventually("the folder is gone", || is_empty(&place));
        eventually("no process is left", || !is_named_by_a_process(&place));
        assert!(is_empty(&place), "it came again");
        fs::remove_dir(&place).unwrap();
    }
}
