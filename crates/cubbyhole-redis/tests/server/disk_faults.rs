//! Concurrent histories while the server's disk is full or fails. The histories must be
//! linearizable:
//!
//! - the append-only file cannot grow: writes are refused without effect, and reads continue;
//! - the append-only file cannot be synced before a write is answered: the server ends, and is
//!   restarted on a working disk.

use cubbyhole_core::ErrorKind;
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::load::histories::{TIMEOUT, finish, goes_on, start};
use tokio::task::block_in_place;

use crate::faults::{
    CONNECTIONS, ENOUGH, check_connections, plan, start_healthy, until_refused_and_read,
};
use crate::helpers::open_with_connections;

/// The folder of the append-only file.
const DATA: &str = "/data/";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_are_linearizable_on_a_full_disk() {
    let server = block_in_place(|| RedisServer::start_with_disk(&[])).unwrap();
    let (_store, histories) = start_healthy(server.url()).await;
    for _ in 0..3 {
        server.disk().unwrap().fill(DATA).unwrap();
        until_refused_and_read(&histories).await;
        server.disk().unwrap().mend().unwrap();
        histories.until_sound(ENOUGH).await.unwrap();
    }
    assert_eq!(histories.counts().failed_reads, 0, "reads need no disk space");
    let report = finish(histories, &[ErrorKind::Unavailable], TIMEOUT).await;
    assert_eq!(report.unknown, 0, "a refused write has no effect");
    check_connections(&server, CONNECTIONS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_are_linearizable_when_aof_syncs_fail() {
    let start_server = || RedisServer::start_with_disk(&["appendfsync always"]);
    let mut server = block_in_place(start_server).unwrap();
    let store = open_with_connections(server.url(), "p:", CONNECTIONS).await;
    let histories = start(store.clone(), plan(TIMEOUT));
    let mut rounds = 0;
    while goes_on(rounds, &histories) {
        rounds += 1;
        histories.until_sound(ENOUGH).await.unwrap();
        server.disk().unwrap().fail_syncs(DATA).unwrap();
        block_in_place(|| server.await_end()).unwrap();
        histories.until_failures(20).await.unwrap();
        server.disk().unwrap().mend().unwrap();
        block_in_place(|| server.start_again()).unwrap();
    }
    histories.until_sound(ENOUGH).await.unwrap();
    finish(histories, &[ErrorKind::Unavailable], TIMEOUT).await;
    check_connections(&server, CONNECTIONS).await;
}
