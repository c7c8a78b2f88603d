//! Disks of a server that are full or fail, under concurrent histories, which have to have an order
//! all the same:
//!
//! - the log of writes cannot grow: writes are refused and have certainly had no effect, reads go on;
//! - the log cannot be synced before a write is answered: the server ends, as it must, and is started
//!   again on a disk that is sound.

use cubbyhole_core::ErrorKind;
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::load::histories::{TIMEOUT, goes_on};
use tokio::task::block_in_place;

use crate::by_hand::open_several;
use crate::faults::{CONNECTIONS, ENOUGH, GROUPS, check_connections, until_refused_and_read};
use crate::histories::{finish, plan, start};

const LOG: &str = "/data/";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_on_a_server_with_a_full_disk_which_goes_on_to_be_read() {
    let server = block_in_place(|| RedisServer::start_with_disk(&[])).unwrap();
    let store = open_several(server.url(), "p:", CONNECTIONS).await;
    let histories = start(store.clone(), plan(GROUPS, TIMEOUT));
    histories.until_sound(ENOUGH).await.unwrap();
    assert_eq!(histories.counts().failures(), 0, "nothing has happened yet");
    for _ in 0..3 {
        server.disk().unwrap().fill(LOG).unwrap();
        until_refused_and_read(&histories).await;
        server.disk().unwrap().mend().unwrap();
        histories.until_sound(ENOUGH).await.unwrap();
    }
    assert_eq!(histories.counts().failed_reads, 0, "reads need no room");
    let report = finish(histories, &[ErrorKind::Unavailable], TIMEOUT).await;
    assert_eq!(report.unknown, 0, "what is refused had no effect");
    check_connections(&server, CONNECTIONS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_on_a_server_that_ends_as_its_disk_fails() {
    let start_server = || RedisServer::start_with_disk(&["appendfsync always"]);
    let mut server = block_in_place(start_server).unwrap();
    let store = open_several(server.url(), "p:", CONNECTIONS).await;
    let histories = start(store.clone(), plan(GROUPS, TIMEOUT));
    let mut rounds = 0;
    while goes_on(rounds, &histories) {
        rounds += 1;
        histories.until_sound(ENOUGH).await.unwrap();
        server.disk().unwrap().fail_syncs(LOG).unwrap();
        block_in_place(|| server.await_end()).unwrap();
        histories.until_failures(20).await.unwrap();
        server.disk().unwrap().mend().unwrap();
        block_in_place(|| server.start_again()).unwrap();
    }
    histories.until_sound(ENOUGH).await.unwrap();
    finish(histories, &[ErrorKind::Unavailable], TIMEOUT).await;
    check_connections(&server, CONNECTIONS).await;
}
