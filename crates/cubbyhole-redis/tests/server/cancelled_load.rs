//! Calls that are cancelled or dropped at random instants, on one connection and on several.

use std::sync::Arc;
use std::time::Duration;

use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::load::cancelled::CancelledCalls;
use tokio::task::block_in_place;

use crate::by_hand::{cli, open_several, use_each};
use crate::proxy::Proxy;

const CALLS: usize = 1536;

/// The ids of the store's connections.
fn ids(server: &RedisServer) -> Vec<String> {
    let clients = cli(server, &["CLIENT", "LIST"]);
    let id = |line: &str| line.split(' ').next().unwrap().to_owned();
    // The last is the connection of this command.
    let mut ids: Vec<String> = clients.lines().map(id).collect();
    ids.pop();
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_cancelled_call_was_told_is_true_and_no_answer_is_anothers() {
    for connections in [1, 4] {
        load(connections).await;
    }
}

async fn load(connections: usize) {
    let server = block_in_place(RedisServer::start).unwrap();
    let proxy = Proxy::before(&server).await;
    let store = open_several(&proxy.url(), "p:", connections).await;
    let calls = CancelledCalls::prepare(Arc::new(store.clone()), CALLS).await;
    let before = ids(&server);
    assert_eq!(before.len(), connections);

    // Most calls are in flight for about as long as their contexts last.
    proxy.delay(Duration::from_millis(1));
    let effects = calls.run(Duration::from_millis(8)).await;
    proxy.delay(Duration::ZERO);

    // The answers to these follow everything that was sent before.
    use_each(&store, connections).await;
    let unknown_and_applied = calls.check(&effects).await;
    assert!(unknown_and_applied > 0, "no call was in flight when it ended");
    assert_eq!((ids(&server), proxy.connections()), (before, connections));
}
