//! Private Redis servers: they work, come back, keep the time they are told, and leave nothing
//! behind.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use cubbyhole_testkit::RedisServer;
use support::{ROLE, connects, eventually, is_empty, is_named_by_a_process, kill, owner, place};

fn setting(server: &RedisServer, name: &str) -> String {
    let answer = server.cli(&["CONFIG", "GET", name]).unwrap();
    answer.split_once('\n').unwrap().1.to_owned()
}

fn folder(server: &RedisServer) -> PathBuf {
    PathBuf::from(setting(server, "dir")).parent().unwrap().to_owned()
}

fn pid(server: &RedisServer) -> String {
    let info = server.cli(&["INFO", "server"]).unwrap();
    let pid = info.lines().find_map(|line| line.strip_prefix("process_id:"));
    pid.unwrap().to_owned()
}

#[test]
fn two_servers_run_at_once_and_apart() {
    let (a, b) = (RedisServer::start().unwrap(), RedisServer::start().unwrap());
    assert_ne!(a.port(), b.port());
    assert_ne!(folder(&a), folder(&b));
    assert_eq!(a.url(), format!("redis://127.0.0.1:{}", a.port()));
    assert_eq!(a.cli(&["SET", "only in a", "1\r\n2"]).unwrap(), "OK");
    assert_eq!(a.cli(&["GET", "only in a"]).unwrap(), "1\r\n2");
    assert_eq!(b.cli(&["GET", "only in a"]).unwrap(), "");
    let error = b.cli(&["NO", "SUCH"]).unwrap_err();
    assert!(error.starts_with("ERR unknown command"), "{error}");
}

#[test]
fn the_server_is_as_tests_need_it() {
    let server = RedisServer::start().unwrap();
    for (name, value) in [
        ("bind", "127.0.0.1"),
        ("protected-mode", "yes"),
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("save", ""),
        ("maxmemory-policy", "noeviction"),
    ] {
        assert_eq!(setting(&server, name), value, "{name}");
    }
    assert!(server.now().is_err() && server.advance(Duration::ZERO).is_err());
}

#[test]
fn lines_overrule_those_for_tests_and_a_wrong_one_is_explained() {
    let server = RedisServer::start_with(&["maxclients 17", "appendonly no"]).unwrap();
    assert_eq!(setting(&server, "maxclients"), "17");
    assert_eq!(setting(&server, "appendonly"), "no");

    let error = RedisServer::start_with(&["no-such-setting 1"]).unwrap_err();
    assert!(error.contains("ended on starting"), "{error}");
    assert!(error.contains("no-such-setting 1"), "{error}");
}

#[test]
fn what_was_written_is_there_after_a_stop_and_after_a_kill() {
    let mut server = RedisServer::start_with(&["appendfsync always"]).unwrap();
    let (url, first, folder) = (server.url().to_owned(), pid(&server), folder(&server));
    server.cli(&["SET", "a", "1"]).unwrap();
    server.stop().unwrap();
    server.stop().unwrap();
    assert!(!connects(server.port()) && !kill("0", &first));
    assert!(server.cli(&["PING"]).is_err());
    let log = fs::read_to_string(folder.join("log")).unwrap();
    assert!(log.contains("ready to exit, bye bye"), "{log}");

    server.start_again().unwrap();
    server.start_again().unwrap();
    server.cli(&["SET", "b", "2"]).unwrap();
    let second = pid(&server);
    assert_ne!(first, second);
    server.kill().unwrap();
    server.kill().unwrap();
    assert!(!connects(server.port()) && !kill("0", &second));

    server.start_again().unwrap();
    assert_eq!(server.url(), url);
    assert_eq!(server.cli(&["MGET", "a", "b"]).unwrap(), "1\n2");
    let log = fs::read_to_string(folder.join("log")).unwrap();
    assert_eq!(log.matches("bye bye").count(), 1, "{log}");
}

#[test]
fn a_paused_server_answers_nobody_until_it_is_resumed() {
    let mut server = RedisServer::start().unwrap();
    server.pause().unwrap();
    thread::scope(|scope| {
        let (send, answer) = std::sync::mpsc::channel();
        let server = &server;
        scope.spawn(move || send.send(server.cli(&["PING"])).unwrap());
        let early = answer.recv_timeout(Duration::from_millis(700));
        assert!(early.is_err(), "{early:?}");
        server.resume().unwrap();
        assert_eq!(answer.recv().unwrap().unwrap(), "PONG");
    });
    for end in [RedisServer::stop, RedisServer::kill] {
        server.pause().unwrap();
        end(&mut server).unwrap();
        assert!(server.pause().is_err() && server.resume().is_err());
        server.start_again().unwrap();
    }
    assert_eq!(server.cli(&["PING"]).unwrap(), "PONG");
}

#[cfg(target_os = "linux")]
#[test]
fn keys_expire_by_a_clock_that_stands_still_until_it_is_moved() {
    let time = |server: &RedisServer| {
        let now = server.now().unwrap();
        assert_eq!(
            server.cli(&["TIME"]).unwrap(),
            format!("{}\n{}", now.as_secs(), now.subsec_micros())
        );
        now
    };
    let mut server = RedisServer::start_with_clock().unwrap();
    let start = time(&server);
    assert_eq!(start.subsec_micros() % 1000, 0);
    assert_eq!(server.cli(&["SET", "a", "1", "PX", "5"]).unwrap(), "OK");
    // Well beyond the five milliseconds in the time of the machine.
    for _ in 0..50 {
        assert_eq!(server.cli(&["PTTL", "a"]).unwrap(), "5");
    }
    server.advance(Duration::from_millis(4)).unwrap();
    assert_eq!(server.cli(&["PTTL", "a"]).unwrap(), "1");
    server.advance(Duration::from_millis(1)).unwrap();
    assert_eq!(server.cli(&["GET", "a"]).unwrap(), "1");
    server.advance(Duration::from_millis(1)).unwrap();
    assert_eq!(server.cli(&["GET", "a"]).unwrap(), "");
    assert_eq!(time(&server) - start, Duration::from_millis(6));

    server.cli(&["SET", "b", "1", "EX", "86400"]).unwrap();
    server.kill().unwrap();
    server.advance(Duration::from_secs(86_399)).unwrap();
    server.start_again().unwrap();
    assert_eq!(server.cli(&["TTL", "b"]).unwrap(), "1");
    server.advance(Duration::from_secs(400 * 86_400)).unwrap();
    assert_eq!(server.cli(&["GET", "b"]).unwrap(), "");
    assert_eq!(
        time(&server) - start,
        Duration::from_secs(400 * 86_400 + 86_399) + Duration::from_millis(6)
    );
}

#[cfg(target_os = "linux")]
#[test]
fn servers_that_start_at_once_have_clocks_of_their_own() {
    let servers: Vec<RedisServer> = thread::scope(|scope| {
        let starts: Vec<_> = (0..4).map(|_| scope.spawn(RedisServer::start_with_clock)).collect();
        starts.into_iter().map(|start| start.join().unwrap().unwrap()).collect()
    });
    let before: Vec<Duration> = servers.iter().map(|server| server.now().unwrap()).collect();
    servers[1].advance(Duration::from_secs(60)).unwrap();
    for (index, server) in servers.iter().enumerate() {
        let moved = Duration::from_secs(if index == 1 { 60 } else { 0 });
        assert_eq!(server.now().unwrap() - before[index], moved);
        let time = server.cli(&["TIME"]).unwrap();
        assert!(time.starts_with(&server.now().unwrap().as_secs().to_string()), "{time}");
    }
}

#[test]
fn dropping_leaves_nothing() {
    type Prepare = fn(&mut RedisServer) -> Result<(), String>;
    let ways: [Prepare; 4] =
        [|_| Ok(()), RedisServer::stop, RedisServer::kill, |server| server.pause()];
    for prepare in ways {
        let mut server = RedisServer::start().unwrap();
        let (folder, port, pid) = (folder(&server), server.port(), pid(&server));
        assert!(folder.exists() && connects(port) && kill("0", &pid));
        prepare(&mut server).unwrap();
        drop(server);
        assert!(!folder.exists() && !connects(port) && !kill("0", &pid));
    }
}

#[test]
fn a_server_ends_with_its_owner_however_that_ends() {
    const TEST: &str = "a_server_ends_with_its_owner_however_that_ends";
    if env::var_os(ROLE).is_some() {
        let server = RedisServer::start().unwrap();
        let answer = server.cli(&["PING"]).unwrap();
        writeln!(io::stdout(), "\nserver {answer} {} {}", pid(&server), server.port()).unwrap();
        // Until the other end of the pipe is gone.
        drop(io::read_to_string(io::stdin()));
        return;
    }
    for (signal, whole_group) in [("KILL", false), ("INT", true)] {
        let place = place("redis-owner");
        let mut owner = owner(TEST, &place);
        let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
        let line =
            lines.map_while(Result::ok).find(|line| line.starts_with("server PONG ")).unwrap();
        let (pid, port) = line["server PONG ".len()..].split_once(' ').unwrap();
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

#[cfg(target_os = "linux")]
#[test]
fn an_owner_that_is_killed_while_it_starts_a_server_leaves_nothing() {
    const TEST: &str = "an_owner_that_is_killed_while_it_starts_a_server_leaves_nothing";
    if env::var_os(ROLE).is_some() {
        let _server = RedisServer::start_with_clock().unwrap();
        drop(io::read_to_string(io::stdin()));
        return;
    }
    // What there is once the compiler has begun, and the server has.
    for sign in ["clock.c", "data/appendonlydir"] {
        let place = place("redis-starting");
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
