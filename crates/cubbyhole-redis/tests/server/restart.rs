//! A server that stops, is killed, and restarts under load. The store reconnects automatically.

use std::sync::Arc;

use cubbyhole_core::{Bytes, EntryStore, ExecutionContext, Store};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{PASSWORD, PATIENCE, bytes, check_outage, ctx, ns, shown};
use cubbyhole_testkit::load::writers::{LateWrites, run_across_restarts};
use tokio::task::block_in_place;

use crate::helpers::{
    client_ids, config, durable_server, open, open_with_connections, read_on_each_connection,
};

const CONNECTIONS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn restart_under_load_loses_no_acknowledged_write() {
    let mut server = durable_server();
    let store = open_with_connections(server.url(), "p:", CONNECTIONS).await;
    let shared: Arc<dyn EntryStore<Bytes>> = Arc::new(store.clone());
    run_across_restarts(&shared, &mut server, LateWrites::Impossible, async |server, way| {
        let clients = client_ids(server);
        assert!(clients.len() <= CONNECTIONS, "after {way}: {clients:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_succeed_on_idle_connections_after_a_restart() {
    let mut server = durable_server();
    let store = open_with_connections(server.url(), "p:", CONNECTIONS).await;
    let acme = ns("acme");
    store.put(&ctx(), &acme, "held", bytes("old")).await.unwrap();
    for way in ["stop", "kill", "stop", "kill"] {
        for first in ["a write", "a read"] {
            block_in_place(|| if way == "stop" { server.stop() } else { server.kill() }).unwrap();
            block_in_place(|| server.start_again()).unwrap();
            let what = format!("{first} after {way}");
            if first == "a write" {
                let put = store.put(&ctx(), &acme, "held", bytes(&what)).await;
                put.unwrap_or_else(|error| panic!("{what}: {}", shown(&error)));
            }
            let value = store.get(&ctx(), &acme, "held").await;
            let value = value.unwrap_or_else(|error| panic!("{what}: {}", shown(&error)));
            assert_eq!(value, Some(bytes(&format!("a write after {way}"))));
            read_on_each_connection(&store, CONNECTIONS).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn open_and_calls_without_a_server_are_unavailable() {
    let settings = [format!("requirepass {PASSWORD}")];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let mut server = block_in_place(|| RedisServer::start_with(&settings)).unwrap();
    let url = format!("redis://:{PASSWORD}@127.0.0.1:{}", server.port());
    let store = open(&url, "p:").await;
    store.put(&ctx(), &ns("acme"), "k", bytes("v")).await.unwrap();
    block_in_place(|| server.stop()).unwrap();

    let opened = RedisStore::open(&ctx(), config(&url, "p:")).await;
    let refused = opened.err().unwrap();
    check_outage(&refused);
    assert!(refused.is_retryable());
    // The context has no deadline, so the calls must end without one.
    let unlimited = ExecutionContext::new();
    let acme = ns("acme");
    let calls = async {
        for _ in 0..12 {
            let error = store.get(&unlimited, &acme, "k").await.unwrap_err();
            check_outage(&error);
            assert!(error.is_retryable());
            // Without a connection, the store sends nothing.
            let error = store.put(&unlimited, &acme, "k", bytes("w")).await.unwrap_err();
            check_outage(&error);
            assert!(!error.may_have_been_applied(), "{error:?}");
            assert!(!shown(&error).contains(PASSWORD), "{}", shown(&error));
        }
    };
    tokio::time::timeout(PATIENCE / 2, calls).await.unwrap();
    let diagnosed = cubbyhole_redis::diagnose(&ctx(), &config(&url, "p:")).await;
    for text in [shown(&refused), format!("{store:?}"), format!("{diagnosed:?}")] {
        assert!(!text.contains(PASSWORD), "{text}");
    }

    block_in_place(|| server.start_again()).unwrap();
    assert_eq!(store.get(&ctx(), &acme, "k").await.unwrap(), Some(bytes("v")));
    store.put(&ctx(), &acme, "k", bytes("w")).await.unwrap();
}
