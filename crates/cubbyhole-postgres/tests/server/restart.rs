//! A server that is stopped, killed or paused under load, and the automatic recovery of the store.

use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::{Bytes, EntryStore, ErrorKind, ExecutionContext, Store};
use cubbyhole_postgres::{Config, PostgresStore};
use cubbyhole_testkit::PostgresServer;
use cubbyhole_testkit::helpers::{PASSWORD, PATIENCE, bytes, check_outage, ctx, ns, until};
use cubbyhole_testkit::load::writers::{LateWrites, run_across_restarts};
use tokio::task::{JoinSet, block_in_place};

use crate::support::Schema;

/// Starts a server that keeps every acknowledged write.
fn durable_server() -> PostgresServer {
    let settings = [("fsync", "on"), ("synchronous_commit", "on")];
    block_in_place(|| PostgresServer::start_with(&settings)).unwrap()
}

async fn open(schema: &Schema, options: &str) -> PostgresStore {
    let config = Config::from_url(&schema.url(options)).unwrap();
    PostgresStore::open(&ctx(), config).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn restart_under_load_loses_no_acknowledged_write() {
    let mut server = durable_server();
    let schema = Schema::on(server.url()).await;
    let store = open(&schema, "&pool_size=4").await;
    let shared: Arc<dyn EntryStore<Bytes>> = Arc::new(store.clone());
    run_across_restarts(&shared, &mut server, LateWrites::Possible, async |_, way| {
        let (open, in_use) = store.connections();
        assert!(open <= 4 && in_use == 0, "{open} connections, {in_use} in use, after {way}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_fails_at_most_one_call_per_idle_connection() {
    let mut server = durable_server();
    let schema = Schema::on(server.url()).await;
    let store = open(&schema, "&pool_size=4").await;
    store.put(&ctx(), &ns("acme"), "held", bytes("old")).await.unwrap();
    for ending in ["stop", "kill"] {
        crate::pool::fill(&schema, &store, 4).await;
        assert_eq!(store.connections(), (4, 0));
        block_in_place(|| if ending == "stop" { server.stop() } else { server.kill() }).unwrap();
        block_in_place(|| server.start_again()).unwrap();
        let mut failures = 0;
        for _ in 0..20 {
            if let Err(error) = store.get(&ctx(), &ns("acme"), "held").await {
                check_outage(&error);
                failures += 1;
            }
        }
        assert!(failures <= 4, "{failures} calls failed after {ending}");
        for _ in 0..20 {
            store.put(&ctx(), &ns("acme"), "held", bytes("new")).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_without_a_server_are_unavailable() {
    let mut server = durable_server();
    let schema = Schema::on(server.url()).await;
    let store = open(&schema, "").await;
    store.put(&ctx(), &ns("acme"), "k", bytes("v")).await.unwrap();
    block_in_place(|| server.stop()).unwrap();

    let config = schema.config();
    assert!(!format!("{config:?} {store:?}").contains(PASSWORD));
    let error = PostgresStore::open(&ctx(), config).await.unwrap_err();
    check_outage(&error);
    assert!(error.is_retryable());
    let diagnosed = cubbyhole_postgres::diagnose(&ctx(), &schema.config()).await;
    assert!(!format!("{diagnosed:?}").contains(PASSWORD));
    for _ in 0..12 {
        let error = store.get(&ctx(), &ns("acme"), "k").await.unwrap_err();
        check_outage(&error);
        assert!(error.is_retryable());
        check_outage(&store.put(&ctx(), &ns("acme"), "k", bytes("w")).await.unwrap_err());
    }
    // No connection is left, so the call sends nothing.
    let error = store.put(&ctx(), &ns("acme"), "k", bytes("w")).await.unwrap_err();
    assert!(error.is_retryable() && !error.may_have_been_applied(), "{error:?}");

    block_in_place(|| server.start_again()).unwrap();
    assert_eq!(store.get(&ctx(), &ns("acme"), "k").await.unwrap(), Some(bytes("v")));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_to_a_paused_server_end_at_their_deadline() {
    let server = durable_server();
    let schema = Schema::on(server.url()).await;
    let store = open(&schema, "&pool_size=4").await;
    store.put(&ctx(), &ns("acme"), "held", bytes("old")).await.unwrap();
    crate::pool::fill(&schema, &store, 4).await;
    server.pause().unwrap();
    let mut calls = JoinSet::new();
    for number in 0..12_u32 {
        let store = store.clone();
        calls.spawn(async move {
            let context = ExecutionContext::new().with_timeout(Duration::from_millis(500));
            store.put(&context, &ns("acme"), "held", bytes(&number.to_string())).await
        });
    }
    let all = tokio::time::timeout(PATIENCE, calls.join_all()).await;
    // A failing test must be able to clean up.
    server.resume().unwrap();
    for answer in all.unwrap() {
        let error = answer.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error:?}");
    }
    // The server may still apply statements that were sent during the pause, but no call waits for
    // them.
    store.put(&ctx(), &ns("acme"), "other", bytes("new")).await.unwrap();
    until("the return of the connections", async || store.connections().1 == 0).await;
    let mut calls = JoinSet::new();
    for _ in 0..32 {
        let store = store.clone();
        calls.spawn(async move { store.get(&ctx(), &ns("acme"), "other").await });
    }
    for answer in calls.join_all().await {
        assert_eq!(answer.unwrap(), Some(bytes("new")));
    }
}
