//! Disks that fail on demand, and work before and after.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[expect(dead_code, reason = "most helpers are for tests that end processes")]
mod support;

use cubbyhole_testkit::{PostgresServer, RedisServer};
use support::eventually;

#[test]
fn full_disk_rejects_growth_and_accepts_overwrites_of_tables() {
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
fn postgres_restarts_after_its_wal_could_not_be_synced() {
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
fn redis_rejects_writes_while_its_disk_is_full() {
    let server = RedisServer::start_with_disk(&[]).unwrap();
    server.cli(&["SET", "k", "1"]).unwrap();
    server.disk().unwrap().fill("/data/").unwrap();
    // Redis notices after it has tried to write.
    let refuses = || server.cli(&["SET", "k", "2"]).is_err_and(|e| e.starts_with("MISCONF"));
    eventually("a rejected write", refuses);
    assert_eq!(server.cli(&["GET", "k"]).unwrap(), "2");
    server.disk().unwrap().mend().unwrap();
    eventually("an accepted write", || server.cli(&["SET", "k", "3"]).is_ok());
}

#[test]
fn redis_ends_and_restarts_after_a_failed_sync() {
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
fn disk_of_a_server_without_one_is_an_error() {
    let server = RedisServer::start().unwrap();
    assert!(server.disk().unwrap_err().contains("the system's disk"));
    let server = RedisServer::start_with_disk(&[]).unwrap();
    assert!(server.disk().unwrap().fill(&"x".repeat(255)).is_err());
}
