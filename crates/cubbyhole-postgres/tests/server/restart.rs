//! A server that is stopped, killed or paused under load, and the store that goes on by itself.

use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::{Bytes, EntryStore, ErrorKind, ExecutionContext, Store};
use cubbyhole_postgres::{Config, PostgresStore};
use cubbyhole_testkit::PostgresServer;
use cubbyhole_testkit::helpers::{PASSWORD, PATIENCE, bytes, check_outage, ctx, ns, until};
use cubbyhole_testkit::load::writers::{LateWrites, run_across_restarts};
use tokio::task::{JoinSet, block_in_place};

use crate::support::Schema;

/// A server that loses nothing that it acknowledged.
fn durable_server() -> PostgresServer {
    let settings = [("fsync", "on"), ("synchronous_commit", "on")];
    block_in_place(|| PostgresServer::start_with(&settings)).unwrap()
}

async fn open(schema: &Schema, options: &str) -> PostgresStore {
    let config = Config::from_url(&schema.url(options)).unwrap();
    PostgresStore::open(&ctx(), config).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_stopped_or_killed_under_load_loses_nothing_and_the_store_goes_on() {
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
async fn connections_that_were_idle_over_a_restart_cost_no_more_than_themselves() {
    let mut server = durable_server();
    let schema = Schema::on(server.url()).await;
    let store = open(&schema, "&pool_size=4").await;
    store.put(&ctx(), &ns("acme"), "held", bytes("old")).await.unwrap();
    for way in ["stop", "kill"] {
        crate::pool::fill(&schema, &store, 4).await;
        assert_eq!(store.connections(), (4, 0));
        block_in_place(|| if way == "stop" { server.stop() } else { server.kill() }).unwrap();
        block_in_place(|| server.start_again()).unwrap();
        let mut failures = 0;
        for _ in 0..20 {
            if let Err(error) = store.get(&ctx(), &ns("acme"), "held").await {
                check_outage(&error);
                failures += 1;
            }
        }
        assert!(failures <= 4, "{failures} calls failed after {way}");
        for _ in 0..20 {
            store.put(&ctx(), &ns("acme"), "held", bytes("new")).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_opening_and_every_call_are_unavailable_and_show_no_password() {
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
    // No connection can be had any more, so that nothing was sent.
    let error = store.put(&ctx(), &ns("acme"), "k", bytes("w")).await.unwrap_err();
    assert!(error.is_retryable() && !error.may_have_been_applied(), "{error:?}");

    block_in_place(|| server.start_again()).unwrap();
    assert_eq!(store.get(&ctx(), &ns("acme"), "k").await.unwrap(), Some(bytes("v")));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_to_a_paused_server_end_with_their_contexts_and_it_goes_on() {
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
    // A failed test has to be able to clean up.
    server.resume().unwrap();
    for answer in all.unwrap() {
        let error = answer.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error:?}");
    }
    // What was sent before the pause ended may be applied, but no call waits for it.
    store.put(&ctx(), &ns("acme"), "other", bytes("new")).await.unwrap();
    until("the pool", async || store.connections().1 == 0).await;
    let mut calls = JoinSet::new();
    for _ in 0..32 {
        let store = store.clone();
        calls.spawn(async move { store.get(&ctx(), &ns("acme"), "other").await });
    }
    for answer in calls.join_all().await {
        assert_eq!(answer.unwrap(), Some(bytes("new")));
    }
}
