//! Private Redis servers: they work, restart, use a manual clock, and leave nothing behind.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "support/owner.rs"]
mod owner;
mod support;

use std::env;
use std::fs;
#[cfg(target_os = "linux")]
use std::io;
use std::path::PathBuf;
#[cfg(target_os = "linux")]
use std::thread;
use std::time::Duration;

use cubbyhole_testkit::RedisServer;
use owner::{
    check_answers_after_resume, check_killed_start_leaves_nothing, check_server_ends_with_owner,
    run_as_owner,
};
use support::{ROLE, connects, kill};

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
fn two_servers_run_in_parallel_and_share_nothing() {
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
fn server_has_the_settings_for_tests() {
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
fn lines_override_those_for_tests_and_errors_quote_invalid_ones() {
    let server = RedisServer::start_with(&["maxclients 17", "appendonly no"]).unwrap();
    assert_eq!(setting(&server, "maxclients"), "17");
    assert_eq!(setting(&server, "appendonly"), "no");

    let error = RedisServer::start_with(&["no-such-setting 1"]).unwrap_err();
    assert!(error.contains("ended on starting"), "{error}");
    assert!(error.contains("no-such-setting 1"), "{error}");
}

#[test]
fn writes_survive_a_stop_and_a_kill() {
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
fn paused_server_answers_only_after_resume() {
    let mut server = RedisServer::start().unwrap();
    server.pause().unwrap();
    let ask = || server.cli(&["PING"]);
    check_answers_after_resume(ask, || server.resume(), "PONG");
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
fn keys_expire_by_the_manual_clock() {
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
    // These calls take longer than five milliseconds of real time.
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
fn servers_started_in_parallel_have_separate_clocks() {
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
fn dropping_a_server_leaves_nothing() {
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
fn server_ends_with_its_owner_after_each_signal() {
    const TEST: &str = "server_ends_with_its_owner_after_each_signal";
    if env::var_os(ROLE).is_some() {
        let server = RedisServer::start().unwrap();
        assert_eq!(server.cli(&["PING"]).unwrap(), "PONG");
        return run_as_owner(&pid(&server), server.port());
    }
    check_server_ends_with_owner(TEST, "redis-owner", &[("KILL", false), ("INT", true)]);
}

#[cfg(target_os = "linux")]
#[test]
fn owner_killed_during_the_start_leaves_nothing() {
    const TEST: &str = "owner_killed_during_the_start_leaves_nothing";
    if env::var_os(ROLE).is_some() {
        let _server = RedisServer::start_with_clock().unwrap();
        drop(io::read_to_string(io::stdin()));
        return;
    }
    // These files exist when the compiler has begun, and when the server has begun.
    check_killed_start_leaves_nothing(TEST, "redis-starting", &["clock.c", "data/appendonlydir"]);
}
