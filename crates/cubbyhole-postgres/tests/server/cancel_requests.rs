//! Cancel requests that are slow, lost or late, and calls that wait for locks.

use std::time::Duration;

use cubbyhole_core::{ErrorKind, ExecutionContext, Store};
use cubbyhole_postgres::{Config, PostgresStore};
use cubbyhole_testkit::helpers::{PATIENCE, bytes, ctx, ns, until};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::proxy::Proxy;
use crate::sql::{one, rows};
use crate::support::Schema;

async fn open(url: &str) -> PostgresStore {
    PostgresStore::open(&ctx(), Config::from_url(url).unwrap()).await.unwrap()
}

/// Locks a row of the tenant `acme` until the transaction is rolled back.
async fn hold(schema: &Schema, holder: &Client, key: &str) {
    let lock = format!(
        "BEGIN; SELECT FROM {}.entries WHERE namespace = 'acme' AND key = '{key}' FOR UPDATE",
        schema.name
    );
    holder.batch_execute(&lock).await.unwrap();
}

type Put = JoinHandle<cubbyhole_core::Result<()>>;

fn put(store: &PostgresStore, context: ExecutionContext, key: &'static str, value: &str) -> Put {
    let (store, value) = (store.clone(), bytes(value));
    tokio::spawn(async move { store.put(&context, &ns("acme"), key, value).await })
}

/// The ids of server processes in which a statement of the application waits for a lock.
async fn waiting(schema: &Schema, admin: &Client) -> Vec<i32> {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity
         WHERE usename = '{}_login' AND wait_event_type = 'Lock'",
        schema.name
    );
    admin.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn until_waiting(schema: &Schema, admin: &Client) -> i32 {
    schema.until_waiting(admin, 1).await;
    waiting(schema, admin).await[0]
}

async fn is_active(admin: &Client, pid: i32) -> bool {
    let sql = format!(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid} AND state <> 'idle')"
    );
    one(admin, &sql).await
}

/// The statement ends before its cancel request arrives. If the connection were reused then, the
/// request would cancel the next statement.
#[tokio::test(flavor = "multi_thread")]
async fn connection_is_not_reused_before_its_cancel_request_ends() {
    let schema = Schema::new().await;
    let proxy = Proxy::before(schema.admin_url()).await;
    let store = open(&proxy.url(&schema.url("&pool_size=1"))).await;
    let (admin, first, second) = (schema.admin().await, schema.admin().await, schema.admin().await);
    for key in ["first", "second"] {
        store.put(&ctx(), &ns("acme"), key, bytes("old")).await.unwrap();
    }
    for round in ["one", "two", "three"] {
        hold(&schema, &first, "first").await;
        hold(&schema, &second, "second").await;
        let context = ExecutionContext::new();
        let cancelled = put(&store, context.clone(), "first", round);
        let process = until_waiting(&schema, &admin).await;

        proxy.hold_cancels(true);
        let cancels = proxy.cancels();
        context.cancel();
        let error = cancelled.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert!(error.may_have_been_applied());
        until("the cancel request", async || proxy.cancels() > cancels).await;
        first.batch_execute("ROLLBACK").await.unwrap();
        until("the end of the statement", async || !is_active(&admin, process).await).await;

        let next = put(&store, ExecutionContext::new(), "second", round);
        // The event must not occur, so the wait has a limit.
        let bound = ExecutionContext::new().with_timeout(Duration::from_millis(300));
        while bound.sleep(Duration::from_millis(5)).await.is_ok() {
            let used = waiting(&schema, &admin).await.contains(&process);
            assert!(!used, "the connection was reused");
        }
        proxy.hold_cancels(false);
        until_waiting(&schema, &admin).await;
        second.batch_execute("ROLLBACK").await.unwrap();
        next.await.unwrap().unwrap();
        // The statement had ended before the request arrived, so the put took effect.
        for key in ["first", "second"] {
            let value = store.get(&ctx(), &ns("acme"), key).await.unwrap();
            assert_eq!(value, Some(bytes(round)));
        }
    }
}

/// With several connections and waiting calls: the connection of an abandoned call is closed before
/// a waiting call can get it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lost_cancel_request_costs_only_its_connection() {
    let schema = Schema::new().await;
    let proxy = Proxy::before(schema.admin_url()).await;
    let store = open(&proxy.url(&schema.url("&pool_size=16&acquire_timeout=60"))).await;
    let (admin, holder) = (schema.admin().await, schema.admin().await);
    store.put(&ctx(), &ns("acme"), "held", bytes("old")).await.unwrap();
    hold(&schema, &holder, "held").await;
    let context = ExecutionContext::new();
    let cancelled: Vec<_> = (0..16).map(|_| put(&store, context.clone(), "held", "new")).collect();
    schema.until_waiting(&admin, 16).await;
    let processes = waiting(&schema, &admin).await;
    proxy.hold_cancels(true);
    context.cancel();
    for call in cancelled {
        assert_eq!(call.await.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    }
    until("the cancel requests", async || proxy.cancels() == 16).await;

    // New connections replace the closed ones in the pool.
    let next: Vec<_> = (0..64).map(|_| put(&store, ExecutionContext::new(), "k", "new")).collect();
    for call in next {
        call.await.unwrap().unwrap();
    }
    until("the return of the connections", async || store.connections().1 == 0).await;
    assert!(proxy.connections() > 32, "the connections were not replaced");
    for process in &processes {
        assert!(is_active(&admin, *process).await);
    }

    // The late requests cancel their own statements and no others.
    proxy.hold_cancels(false);
    for _ in 0..100 {
        store.put(&ctx(), &ns("acme"), "k", bytes("newer")).await.unwrap();
    }
    for process in processes {
        until("the end of the statement", async || !is_active(&admin, process).await).await;
    }
    holder.batch_execute("ROLLBACK").await.unwrap();
    let value = store.get(&ctx(), &ns("acme"), "held").await.unwrap();
    assert_eq!(value, Some(bytes("old")));
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_is_replaced_after_a_rejected_cancel_request() {
    let schema = Schema::new().await;
    let proxy = Proxy::before(schema.admin_url()).await;
    let store = open(&proxy.url(&schema.url("&pool_size=1"))).await;
    let (admin, holder) = (schema.admin().await, schema.admin().await);
    store.put(&ctx(), &ns("acme"), "held", bytes("old")).await.unwrap();
    for (connections, round) in [(2, "one"), (3, "two")] {
        hold(&schema, &holder, "held").await;
        let context = ExecutionContext::new();
        let cancelled = put(&store, context.clone(), "held", round);
        until_waiting(&schema, &admin).await;
        proxy.refuse(true);
        context.cancel();
        assert_eq!(cancelled.await.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
        holder.batch_execute("ROLLBACK").await.unwrap();
        // The statement completes, because no cancel request reached the server.
        let name = &schema.name;
        let written = format!("SELECT FROM {name}.entries WHERE value = '{round}'");
        until("the put", async || rows(&admin, &written).await == 1).await;
        proxy.refuse(false);
        for _ in 0..20 {
            store.put(&ctx(), &ns("acme"), "other", bytes(round)).await.unwrap();
        }
        assert_eq!((store.connections(), proxy.connections()), ((1, 0), connections));
    }
}

/// The end of the statement, the cancel request and the next call, in random order on one
/// connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cancel_request_never_hits_the_next_call() {
    let schema = Schema::new().await;
    let store = open(&schema.url("&pool_size=1")).await;
    let holder = schema.admin().await;
    store.put(&ctx(), &ns("acme"), "held", bytes("old")).await.unwrap();
    for round in 0..400_u32 {
        hold(&schema, &holder, "held").await;
        let context = ExecutionContext::new();
        let cancelled = put(&store, context.clone(), "held", "new");
        let pause = || Duration::from_micros(fastrand::u64(0..2_000));
        let (before_end, before_cancel) = (pause(), pause());
        let never_ends = ctx();
        let (end, cancel) = tokio::join!(
            async {
                never_ends.sleep(before_end).await.unwrap();
                holder.batch_execute("ROLLBACK").await
            },
            async {
                let slept = never_ends.sleep(before_cancel).await;
                if round % 3 == 0 {
                    cancelled.abort();
                } else {
                    context.cancel();
                }
                slept
            },
        );
        end.unwrap();
        cancel.unwrap();
        for _ in 0..3 {
            store.put(&never_ends, &ns("acme"), "next", bytes("value")).await.unwrap();
        }
        // The call has ended in any case: completed, cancelled or dropped.
        let ended = tokio::time::timeout(PATIENCE, cancelled).await.unwrap();
        if let Ok(Err(error)) = ended {
            assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
        }
    }
    assert_eq!(store.connections(), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_statement_ends_on_the_server() {
    let schema = Schema::new().await;
    let proxy = Proxy::before(schema.admin_url()).await;
    let store = open(&proxy.url(&schema.url("&pool_size=2"))).await;
    let (admin, holder) = (schema.admin().await, schema.admin().await);
    store.put(&ctx(), &ns("acme"), "held", bytes("old")).await.unwrap();
    hold(&schema, &holder, "held").await;
    for ending in ["token", "deadline", "drop"] {
        let cancels = proxy.cancels();
        let context = ExecutionContext::new();
        let ends = if ending == "deadline" {
            context.clone().with_timeout(Duration::from_secs(5))
        } else {
            context.clone()
        };
        let call = put(&store, ends, "held", "new");
        let process = until_waiting(&schema, &admin).await;
        match ending {
            "token" => context.cancel(),
            "deadline" => {}
            _ => call.abort(),
        }
        let answer = tokio::time::timeout(PATIENCE, call).await.unwrap();
        match (ending, answer) {
            ("token", Ok(Err(error))) => assert_eq!(error.kind(), ErrorKind::Cancelled),
            ("deadline", Ok(Err(error))) => assert_eq!(error.kind(), ErrorKind::DeadlineExceeded),
            ("drop", Err(error)) => assert!(error.is_cancelled()),
            (ending, answer) => panic!("{ending}: {answer:?}"),
        }
        // The row is still locked.
        until("the end of the statement", async || !is_active(&admin, process).await).await;
        // At a deadline, `statement_timeout` may end the statement first.
        assert!(ending == "deadline" || proxy.cancels() == cancels + 1, "{ending}");
        until("the return of the connection", async || store.connections().1 == 0).await;
    }
    holder.batch_execute("ROLLBACK").await.unwrap();
    let value = store.get(&ctx(), &ns("acme"), "held").await.unwrap();
    assert_eq!(value, Some(bytes("old")));
}

/// A call pauses before a retry. If its caller goes away during the pause, the cancel request has
/// no statement to cancel, and the call must not send another one.
#[tokio::test(flavor = "multi_thread")]
async fn call_is_not_retried_after_its_caller_is_gone() {
    let schema = Schema::new().await;
    let (admin, holder) = (schema.admin().await, schema.admin().await);
    let store = open(&schema.url("&pool_size=1")).await;
    let name = &schema.name;
    // Eight attempts fail; a ninth would block until the test ends.
    let losing = format!(
        "CREATE SEQUENCE {name}.attempts; GRANT USAGE ON SEQUENCE {name}.attempts TO PUBLIC;
         CREATE OR REPLACE FUNCTION {name}.put(
             p_tenant text, p_namespace text, p_key text, p_value bytea, p_version uuid,
             p_ttl bigint, p_instant bigint, p_idle bigint
         ) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             IF nextval('{name}.attempts') <= 8 THEN
                 RAISE EXCEPTION 'lost' USING ERRCODE = 'serialization_failure';
             END IF;
             PERFORM pg_advisory_xact_lock(hashtext('{name}'));
         END $$"
    );
    schema.execute(&losing).await;
    let lock = format!("SELECT 1 FROM pg_advisory_lock(hashtext('{name}'))");
    assert_eq!(one::<i32>(&holder, &lock).await, 1);
    let attempts = format!("SELECT last_value FROM {name}.attempts");
    for _ in 0..4 {
        schema.execute(&format!("ALTER SEQUENCE {name}.attempts RESTART")).await;
        let context = ExecutionContext::new();
        let call = put(&store, context.clone(), "k", "new");
        until("the eighth attempt", async || one::<i64>(&admin, &attempts).await >= 8).await;
        context.cancel();
        assert_eq!(call.await.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
        until("the return of the connection", async || store.connections().1 == 0).await;
        assert!(waiting(&schema, &admin).await.is_empty(), "the call was retried");
    }
}
