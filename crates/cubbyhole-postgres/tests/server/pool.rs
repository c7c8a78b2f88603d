//! The connection pool: its limits, waiting calls, and the lifecycle of connections.

use std::time::Duration;

use cubbyhole_core::{Backend, Error, ErrorKind, ExecutionContext, Result, Store};
use cubbyhole_postgres::{Config, PostgresStore};
use cubbyhole_testkit::PostgresServer;
use cubbyhole_testkit::helpers::{PASSWORD, PATIENCE, bytes, ctx, ns, until};
use tokio::task::{JoinHandle, JoinSet};
use tokio_postgres::Client;

use crate::proxy::Proxy;
use crate::sql::one;
use crate::support::Schema;

async fn open(schema: &Schema, options: &str) -> PostgresStore {
    let config = Config::from_url(&schema.url(options)).unwrap();
    PostgresStore::open(&ctx(), config).await.unwrap()
}

/// Locks the entry of the tenant `acme` until the transaction is rolled back.
async fn hold(schema: &Schema, holder: &Client) {
    let name = &schema.name;
    let lock = format!("BEGIN; SELECT FROM {name}.entries WHERE namespace = 'acme' FOR UPDATE");
    holder.batch_execute(&lock).await.unwrap();
}

/// Starts a put that waits while the entry is locked.
fn put(store: &PostgresStore) -> JoinHandle<Result<()>> {
    let store = store.clone();
    tokio::spawn(async move { store.put(&ctx(), &ns("acme"), "held", bytes("new")).await })
}

/// Makes the pool open this number of connections, which are idle afterwards.
pub(crate) async fn fill(schema: &Schema, store: &PostgresStore, connections: i64) {
    let (admin, holder) = (schema.admin().await, schema.admin().await);
    store.put(&ctx(), &ns("acme"), "held", bytes("old")).await.unwrap();
    hold(schema, &holder).await;
    let puts: Vec<_> = (0..connections).map(|_| put(store)).collect();
    schema.until_waiting(&admin, connections).await;
    holder.batch_execute("ROLLBACK").await.unwrap();
    for put in puts {
        put.await.unwrap().unwrap();
    }
}

/// The number of the application's connections on the server.
async fn server_connections(schema: &Schema, admin: &Client) -> i64 {
    let name = &schema.name;
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{name}_login'");
    one(admin, &sql).await
}

async fn until_no_connections(schema: &Schema, admin: &Client) {
    until("the end of the connections", async || server_connections(schema, admin).await == 0)
        .await;
}

async fn get(store: &PostgresStore) -> Result<Option<cubbyhole_core::Bytes>> {
    store.get(&ctx(), &ns("acme"), "held").await
}

fn assert_no_effect(error: &Error, kind: ErrorKind) {
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(!error.may_have_been_applied(), "{error:?}");
}

#[tokio::test]
async fn acquire_timeout_advises_pool_size() {
    let schema = Schema::new().await;
    let store = open(&schema, "&pool_size=1&acquire_timeout=1").await;
    let (admin, holder) = (schema.admin().await, schema.admin().await);
    store.put(&ctx(), &ns("acme"), "held", bytes("old")).await.unwrap();
    hold(&schema, &holder).await;
    let first = put(&store);
    schema.until_waiting(&admin, 1).await;
    assert_eq!(store.connections(), (1, 1));

    let error = put(&store).await.unwrap().unwrap_err();
    assert_no_effect(&error, ErrorKind::ResourceExhausted);
    assert!(error.message().contains("pool_size"), "{error}");
    holder.batch_execute("ROLLBACK").await.unwrap();
    first.await.unwrap().unwrap();
    assert_eq!(get(&store).await.unwrap(), Some(bytes("new")));
    assert_eq!(store.connections(), (1, 0));
}

#[tokio::test]
async fn context_ended_while_waiting_for_connection_had_no_effect() {
    let schema = Schema::new().await;
    let store = open(&schema, "&pool_size=1").await;
    let (admin, holder) = (schema.admin().await, schema.admin().await);
    store.put(&ctx(), &ns("acme"), "held", bytes("old")).await.unwrap();
    hold(&schema, &holder).await;
    let first = put(&store);
    schema.until_waiting(&admin, 1).await;

    let late = ExecutionContext::new().with_timeout(Duration::from_millis(50));
    let error = store.put(&late, &ns("acme"), "late", bytes("new")).await.unwrap_err();
    assert_no_effect(&error, ErrorKind::DeadlineExceeded);
    let cancelled = ExecutionContext::new();
    let name = ns("acme");
    let (answer, ()) = tokio::join!(
        store.put(&cancelled, &name, "cancelled", bytes("new")),
        // Polled second, when the put already waits.
        async { cancelled.cancel() },
    );
    assert_no_effect(&answer.unwrap_err(), ErrorKind::Cancelled);

    holder.batch_execute("ROLLBACK").await.unwrap();
    first.await.unwrap().unwrap();
    assert_eq!(store.list(&ctx(), &ns("acme"), None).await.unwrap(), ["held"]);
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let schema = Schema::new().await;
    let admin = schema.admin().await;
    let store = open(&schema, "&pool_size=5&idle_timeout=1").await;
    fill(&schema, &store, 5).await;
    until_no_connections(&schema, &admin).await;
    until("an empty pool", async || store.connections() == (0, 0)).await;
    assert_eq!(get(&store).await.unwrap(), Some(bytes("new")));
    assert_eq!(store.connections().0, 1);
    drop(store);

    let kept = open(&schema, "&pool_size=5&idle_timeout=0").await;
    fill(&schema, &kept, 5).await;
    // Wait until another store has closed its idle connection.
    let others = open(&schema, "&pool_size=1&idle_timeout=1").await;
    until("an empty pool", async || others.connections() == (0, 0)).await;
    assert_eq!(kept.connections(), (5, 0));
}

#[tokio::test]
async fn connection_in_use_survives_the_idle_timeout() {
    let schema = Schema::new().await;
    let (admin, holder) = (schema.admin().await, schema.admin().await);
    let store = open(&schema, "&pool_size=2&idle_timeout=1").await;
    fill(&schema, &store, 2).await;
    hold(&schema, &holder).await;
    let busy = put(&store);
    schema.until_waiting(&admin, 1).await;
    // The other connection becomes idle.
    until("one connection", async || store.connections() == (1, 1)).await;
    // The server closes its side slightly later.
    until("one connection on the server", async || server_connections(&schema, &admin).await == 1)
        .await;
    holder.batch_execute("ROLLBACK").await.unwrap();
    busy.await.unwrap().unwrap();
}

#[tokio::test]
async fn server_shows_the_application_name() {
    let schema = Schema::new().await;
    let admin = schema.admin().await;
    let sql = format!(
        "SELECT application_name FROM pg_stat_activity WHERE usename = '{}_login'",
        schema.name
    );
    for (options, name) in [("", "cubbyhole"), ("&application_name=billing%201", "billing 1")] {
        let store = open(&schema, options).await;
        assert_eq!(one::<String>(&admin, &sql).await, name);
        drop(store);
        until_no_connections(&schema, &admin).await;
    }
    let config = schema.config().with_application_name("by method");
    let _store = PostgresStore::open(&ctx(), config).await.unwrap();
    assert_eq!(one::<String>(&admin, &sql).await, "by method");
}

#[tokio::test]
async fn terminated_connections_are_replaced() {
    let schema = Schema::new().await;
    let (admin, holder) = (schema.admin().await, schema.admin().await);
    let store = open(&schema, "&pool_size=3").await;
    fill(&schema, &store, 3).await;
    let end_all = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{}_login'",
        schema.name
    );
    assert_eq!(one::<i64>(&admin, &end_all).await, 3);
    until_no_connections(&schema, &admin).await;
    let mut failures = 0;
    for _ in 0..20 {
        if let Err(error) = get(&store).await {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
            assert!(error.is_retryable());
            failures += 1;
        }
    }
    assert!(failures <= 3, "{failures} calls failed");
    fill(&schema, &store, 3).await;

    // During a call.
    hold(&schema, &holder).await;
    let busy = put(&store);
    schema.until_waiting(&admin, 1).await;
    assert_eq!(one::<i64>(&admin, &end_all).await, 3);
    let error = busy.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.may_have_been_applied() && !error.is_retryable(), "{error:?}");
    holder.batch_execute("ROLLBACK").await.unwrap();
    until_no_connections(&schema, &admin).await;
    until("a successful call", async || get(&store).await.is_ok()).await;
    fill(&schema, &store, 3).await;
    assert_eq!(store.connections(), (3, 0));
}

#[tokio::test]
async fn lost_answer_makes_write_unknown_and_read_retryable() {
    let schema = Schema::new().await;
    let (admin, holder) = (schema.admin().await, schema.admin().await);
    let proxy = Proxy::before(schema.admin_url()).await;
    let config = Config::from_url(&proxy.url(&schema.url(""))).unwrap();
    let store = PostgresStore::open(&ctx(), config).await.unwrap();
    store.put(&ctx(), &ns("acme"), "held", bytes("old")).await.unwrap();
    hold(&schema, &holder).await;
    let lost = put(&store);
    schema.until_waiting(&admin, 1).await;
    proxy.be_silent(true);
    holder.batch_execute("ROLLBACK").await.unwrap();
    let applied = format!("SELECT value = 'new' FROM {}.entries", schema.name);
    until("the write", async || one::<bool>(&admin, &applied).await).await;
    let name = ns("acme");
    let context = ctx();
    let read = store.get(&context, &name, "held");
    let (read, ()) = tokio::join!(read, async {
        // The read opens its own connection.
        until("the read's connection", async || proxy.connections() == 2).await;
        proxy.reset_all();
    });
    for error in [lost.await.unwrap().unwrap_err(), read.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert_eq!(error.is_retryable(), error.operation() != Some("put"), "{error:?}");
        assert_eq!(error.may_have_been_applied(), error.operation() == Some("put"), "{error:?}");
    }
    proxy.be_silent(false);
    assert_eq!(get(&store).await.unwrap(), Some(bytes("new")));
    assert_eq!(store.connections(), (1, 0));
}

#[tokio::test]
async fn connecting_to_a_silent_server_times_out() {
    let schema = Schema::new().await;
    let proxy = Proxy::before(schema.admin_url()).await;
    proxy.be_silent(true);
    let url = proxy.url(&schema.url("&connect_timeout=1"));
    let config = Config::from_url(&url).unwrap();
    let never_ends = ExecutionContext::new();
    let open = PostgresStore::open(&never_ends, config.clone());
    let error = tokio::time::timeout(PATIENCE, open).await.unwrap().unwrap_err();
    assert_no_effect(&error, ErrorKind::Unavailable);
    assert!(error.is_retryable() && error.message().contains("1s"), "{error:?}");

    let patient = config.with_connect_timeout(PATIENCE * 10);
    let late = ExecutionContext::new().with_timeout(Duration::from_millis(100));
    let open = PostgresStore::open(&late, patient.clone());
    let error = tokio::time::timeout(PATIENCE, open).await.unwrap().unwrap_err();
    assert_no_effect(&error, ErrorKind::DeadlineExceeded);
    proxy.be_silent(false);
    PostgresStore::open(&ctx(), patient).await.unwrap();
}

#[tokio::test]
async fn close_waits_for_calls_in_flight_and_rejects_others() {
    let schema = Schema::new().await;
    let (admin, holder) = (schema.admin().await, schema.admin().await);
    let store = open(&schema, "&pool_size=1").await;
    store.put(&ctx(), &ns("acme"), "held", bytes("old")).await.unwrap();
    hold(&schema, &holder).await;
    let in_flight = put(&store);
    schema.until_waiting(&admin, 1).await;
    let waits_for_a_connection = put(&store);
    tokio::task::yield_now().await;

    // A close whose context ends still rejects new calls, and can be repeated.
    let late = ExecutionContext::new().with_timeout(Duration::from_millis(200));
    let error = store.close(&late).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert!(!in_flight.is_finished());
    for answer in [waits_for_a_connection.await.unwrap(), get(&store).await.map(drop)] {
        assert_no_effect(&answer.unwrap_err(), ErrorKind::InvalidArgument);
    }
    let closing = {
        let store = store.clone();
        tokio::spawn(async move { store.close(&ctx()).await })
    };
    holder.batch_execute("ROLLBACK").await.unwrap();
    in_flight.await.unwrap().unwrap();
    closing.await.unwrap().unwrap();
    until_no_connections(&schema, &admin).await;
    store.close(&ctx()).await.unwrap();
    assert_eq!(get(&store).await.unwrap_err().kind(), ErrorKind::InvalidArgument);

    let again = open(&schema, "").await;
    assert_eq!(get(&again).await.unwrap(), Some(bytes("new")));
}

#[tokio::test]
async fn close_waits_for_statements_of_dropped_calls() {
    let schema = Schema::new().await;
    let (admin, holder) = (schema.admin().await, schema.admin().await);
    let store = open(&schema, "&pool_size=2").await;
    store.put(&ctx(), &ns("acme"), "held", bytes("old")).await.unwrap();
    hold(&schema, &holder).await;
    let dropped = put(&store);
    schema.until_waiting(&admin, 1).await;
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    store.close(&ctx()).await.unwrap();
    let active = format!(
        "SELECT count(*) FROM pg_stat_activity
         WHERE usename = '{}_login' AND wait_event_type = 'Lock'",
        schema.name
    );
    assert_eq!(one::<i64>(&admin, &active).await, 0);
    until_no_connections(&schema, &admin).await;
    holder.batch_execute("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn dropped_store_closes_its_connections() {
    let schema = Schema::new().await;
    let admin = schema.admin().await;
    let store = open(&schema, "&pool_size=4").await;
    fill(&schema, &store, 4).await;
    assert_eq!(server_connections(&schema, &admin).await, 4);
    let other = store.clone();
    drop(store);
    assert!(get(&other).await.unwrap().is_some());
    drop(other);
    until_no_connections(&schema, &admin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn put_without_a_connection_slot_is_unavailable() {
    let settings = [("max_connections", "10"), ("superuser_reserved_connections", "4")];
    let start = || PostgresServer::start_with(&settings);
    let server = tokio::task::block_in_place(start).unwrap();
    let schema = Schema::on(server.url()).await;
    let (admin, holder) = (schema.admin().await, schema.admin().await);
    let store = open(&schema, "&pool_size=20").await;
    store.put(&ctx(), &ns("acme"), "held", bytes("old")).await.unwrap();
    hold(&schema, &holder).await;
    let mut puts = JoinSet::new();
    for _ in 0..20 {
        let put = put(&store);
        puts.spawn(async move { put.await.unwrap() });
    }
    // Calls without a connection fail while the others wait.
    let mut rejected = 0;
    while rejected < 10 {
        let error = puts.join_next().await.unwrap().unwrap().unwrap_err();
        assert_no_effect(&error, ErrorKind::Unavailable);
        assert!(error.message().contains("max_connections"), "{error}");
        assert!(!format!("{error:?}").contains(PASSWORD));
        rejected += 1;
    }
    assert!(server_connections(&schema, &admin).await > 0);
    holder.batch_execute("ROLLBACK").await.unwrap();
    let mut done = 0;
    for put in puts.join_all().await {
        match put {
            Ok(()) => done += 1,
            Err(error) => assert_no_effect(&error, ErrorKind::Unavailable),
        }
    }
    assert!(done > 0);
    assert_eq!(get(&store).await.unwrap(), Some(bytes("new")));
}
