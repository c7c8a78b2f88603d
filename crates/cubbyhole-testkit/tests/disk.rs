//! Disks that fail when a test says so, and are sound before and after.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[expect(dead_code, reason = "most of it is for those that end processes")]
mod support;

use cubbyhole_testkit::{PostgresServer, RedisServer};
use support::eventually;

#[test]
fn tables_do_not_grow_on_a_full_disk_and_are_written_within_their_length() {
    let server = PostgresServer::start_with_disk(&[]).unwrap();
    let disk = server.disk().unwrap();
    server
        .psql("CREATE TABLE t (n int); INSERT INTO t VALUES (1); CREATE TABLE u (n int)")
        .unwrap();
    let grow = "INSERT INTO u SELECT n FROM generate_series(1, 1000) n";
    disk.fill("/base/").unwrap();
    let error = server.psql(grow).unwrap_err();
    assert!(error.contains("No space left on device"), "{error}");
    server.psql("UPDATE t SET n = n + 1; CHECKPOINT").unwrap();
    disk.mend().unwrap();
    server.psql(grow).unwrap();
    assert_eq!(server.psql("SELECT t.n, count(*) FROM t, u GROUP BY t.n").unwrap(), "2|1000");
}

#[test]
fn a_postgres_whose_log_cannot_be_synced_ends_and_can_be_started_again() {
    let settings = [("fsync", "on"), ("restart_after_crash", "off")];
    let mut server = PostgresServer::start_with_disk(&settings).unwrap();
    server.psql("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").unwrap();
    server.disk().unwrap().fail_syncs("/pg_wal/").unwrap();
    server.psql("INSERT INTO t VALUES (2)").unwrap_err();
    server.await_end().unwrap();
    server.disk().unwrap().mend().unwrap();
    server.start_again().unwrap();
    assert_eq!(server.psql("SELECT min(n) FROM t").unwrap(), "1");
}

#[test]
fn redis_refuses_writes_while_its_disk_is_full() {
    let server = RedisServer::start_with_disk(&[]).unwrap();
    server.cli(&["SET", "k", "1"]).unwrap();
    server.disk().unwrap().fill("/data/").unwrap();
    // It notices once it has tried.
    let refuses = || server.cli(&["SET", "k", "2"]).is_err_and(|e| e.starts_with("MISCONF"));
    eventually("a write that is refused", refuses);
    assert_eq!(server.cli(&["GET", "k"]).unwrap(), "2");
    server.disk().unwrap().mend().unwrap();
    eventually("a write that is taken", || server.cli(&["SET", "k", "3"]).is_ok());
}

#[test]
fn a_redis_whose_log_cannot_be_synced_ends_where_it_must_be() {
    let mut server = RedisServer::start_with_disk(&["appendfsync always"]).unwrap();
    server.cli(&["SET", "k", "1"]).unwrap();
    server.disk().unwrap().fail_syncs("/data/").unwrap();
    server.cli(&["SET", "k", "2"]).unwrap_err();
    server.await_end().unwrap();
    server.disk().unwrap().mend().unwrap();
    server.start_again().unwrap();
    assert!(["1", "2"].contains(&server.cli(&["GET", "k"]).unwrap().as_str()));
}

#[test]
fn a_server_without_a_disk_of_the_tests_says_so() {
    let server = RedisServer::start().unwrap();
    assert!(server.disk().unwrap_err().contains("the system's disk"));
    let server = RedisServer::start_with_disk(&[]).unwrap();
    assert!(server.disk().unwrap().fill(&"x".repeat(255)).is_err());
}
