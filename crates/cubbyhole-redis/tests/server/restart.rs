//! A server that is stopped, killed or started again under load, and the store that goes on by
//! itself.

use std::sync::Arc;

use cubbyhole_core::{Bytes, EntryStore, ExecutionContext, Store};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{PASSWORD, PATIENCE, bytes, check_outage, ctx, ns, shown};
use cubbyhole_testkit::load::writers::{LateWrites, run_across_restarts};
use tokio::task::block_in_place;

use crate::by_hand::{cli, config, open, open_several, use_each};

const CONNECTIONS: usize = 3;

/// A server that loses nothing that it acknowledged.
fn durable_server() -> RedisServer {
    block_in_place(|| RedisServer::start_with(&["appendfsync always"])).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_stopped_or_killed_under_load_loses_nothing_and_the_store_goes_on() {
    let mut server = durable_server();
    let store = open_several(server.url(), "p:", CONNECTIONS).await;
    let shared: Arc<dyn EntryStore<Bytes>> = Arc::new(store.clone());
    run_across_restarts(&shared, &mut server, LateWrites::Impossible, async |server, way| {
        let clients = cli(server, &["CLIENT", "LIST"]);
        assert!(clients.lines().count() <= CONNECTIONS + 1, "after {way}: {clients}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_were_idle_over_a_restart_cost_no_call() {
    let mut server = durable_server();
    let store = open_several(server.url(), "p:", CONNECTIONS).await;
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
            use_each(&store, CONNECTIONS).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_opening_and_every_call_are_unavailable_at_once() {
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
    // Contexts that do not end: the calls end by themselves.
    let never = ExecutionContext::new();
    let acme = ns("acme");
    let calls = async {
        for _ in 0..12 {
            let error = store.get(&never, &acme, "k").await.unwrap_err();
            check_outage(&error);
            assert!(error.is_retryable());
            // No connection can be had, so that nothing was sent.
            let error = store.put(&never, &acme, "k", bytes("w")).await.unwrap_err();
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
