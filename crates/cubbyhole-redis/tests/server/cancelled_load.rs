//! Calls that are cancelled or dropped at random instants, on one connection and on several.

use std::sync::Arc;
use std::time::Duration;

use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::load::cancelled::CancelledCalls;
use tokio::task::block_in_place;

use crate::helpers::{client_ids, open_with_connections, read_on_each_connection};
use crate::proxy::RedisProxy;

const CALLS: usize = 1536;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cancelled_calls_report_their_true_effect() {
    for connections in [1, 4] {
        load(connections).await;
    }
}

async fn load(connections: usize) {
    let server = block_in_place(RedisServer::start).unwrap();
    let proxy = RedisProxy::start(&server).await;
    let store = open_with_connections(&proxy.url(), "p:", connections).await;
    let calls = CancelledCalls::prepare(Arc::new(store.clone()), CALLS).await;
    let before = client_ids(&server);
    assert_eq!(before.len(), connections);

    // Most calls take about as long as their contexts last.
    proxy.delay(Duration::from_millis(1));
    let effects = calls.run(Duration::from_millis(8)).await;
    proxy.delay(Duration::ZERO);

    // These reads are answered after all earlier requests.
    read_on_each_connection(&store, connections).await;
    let unknown_and_applied = calls.check(&effects).await;
    assert!(unknown_and_applied > 0, "no call was in flight when it ended");
    assert_eq!((client_ids(&server), proxy.connections()), (before, connections));
}
