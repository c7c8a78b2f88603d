//! Requests to cancel that are slow, lost or late, and calls that wait for others' locks.

use std::time::Duration;

use cubbyhole_core::{ErrorKind, ExecutionContext, Store};
use cubbyhole_postgres::{Config, PostgresStore};
use cubbyhole_testkit::helpers::{PATIENCE, bytes, ctx, ns, until};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::by_hand::{one, rows};
use crate::proxy::Proxy;
use crate::support::Schema;

async fn open(url: &str) -> PostgresStore {
    PostgresStore::open(&ctx(), Config::from_url(url).unwrap()).await.unwrap()
}

/// Holds a row of the tenant `acme` until it is rolled back.
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

/// The server's processes that wait for a lock in a statement of the application's.
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

/// The server answers to the statement before the request to cancel has arrived. Were the
/// connection used again at that answer, its next statement would be cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_not_used_again_before_its_request_to_cancel_has_ended() {
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
        until("the request to cancel", async || proxy.cancels() > cancels).await;
        first.batch_execute("ROLLBACK").await.unwrap();
        until("the statement's end", async || !is_active(&admin, process).await).await;

        let next = put(&store, ExecutionContext::new(), "second", round);
        // Bounded, for what is looked for must not come.
        let bound = ExecutionContext::new().with_timeout(Duration::from_millis(300));
        while bound.sleep(Duration::from_millis(5)).await.is_ok() {
            let used = waiting(&schema, &admin).await.contains(&process);
            assert!(!used, "the connection was used again");
        }
        proxy.hold_cancels(false);
        until_waiting(&schema, &admin).await;
        second.batch_execute("ROLLBACK").await.unwrap();
        next.await.unwrap().unwrap();
        // The statement had ended before the request came, so the put stands.
        for key in ["first", "second"] {
            let value = store.get(&ctx(), &ns("acme"), key).await.unwrap();
            assert_eq!(value, Some(bytes(round)));
        }
    }
}

/// More connections than one, and calls that wait for them: each that is given up is closed before
/// a waiting call could have it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_request_to_cancel_that_does_not_arrive_costs_the_connection_and_no_later_call() {
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
    until("the requests to cancel", async || proxy.cancels() == 16).await;

    // The places of the pool become free for new connections.
    let next: Vec<_> = (0..64).map(|_| put(&store, ExecutionContext::new(), "k", "new")).collect();
    for call in next {
        call.await.unwrap().unwrap();
    }
    until("the connections back", async || store.connections().1 == 0).await;
    assert!(proxy.connections() > 32, "the connections were not replaced");
    for process in &processes {
        assert!(is_active(&admin, *process).await);
    }

    // They arrive late, at their own statements, and hit no other.
    proxy.hold_cancels(false);
    for _ in 0..100 {
        store.put(&ctx(), &ns("acme"), "k", bytes("newer")).await.unwrap();
    }
    for process in processes {
        until("the statement's end", async || !is_active(&admin, process).await).await;
    }
    holder.batch_execute("ROLLBACK").await.unwrap();
    let value = store.get(&ctx(), &ns("acme"), "held").await.unwrap();
    assert_eq!(value, Some(bytes("old")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_request_to_cancel_was_refused_is_replaced() {
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
        // The statement goes on, for nothing stopped it.
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

/// The statement's end, the request to cancel and the next call in every order, on one connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_that_follows_a_cancelled_one_is_never_hit() {
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
        // Done in time, cancelled or dropped: whichever it is, it has ended.
        let ended = tokio::time::timeout(PATIENCE, cancelled).await.unwrap();
        if let Ok(Err(error)) = ended {
            assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
        }
    }
    assert_eq!(store.connections(), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_statement_is_gone_from_the_server() {
    let schema = Schema::new().await;
    let proxy = Proxy::before(schema.admin_url()).await;
    let store = open(&proxy.url(&schema.url("&pool_size=2"))).await;
    let (admin, holder) = (schema.admin().await, schema.admin().await);
    store.put(&ctx(), &ns("acme"), "held", bytes("old")).await.unwrap();
    hold(&schema, &holder, "held").await;
    for way in ["token", "deadline", "drop"] {
        let cancels = proxy.cancels();
        let context = ExecutionContext::new();
        let ends = if way == "deadline" {
            context.clone().with_timeout(Duration::from_secs(5))
        } else {
            context.clone()
        };
        let call = put(&store, ends, "held", "new");
        let process = until_waiting(&schema, &admin).await;
        match way {
            "token" => context.cancel(),
            "deadline" => {}
            _ => call.abort(),
        }
        let answer = tokio::time::timeout(PATIENCE, call).await.unwrap();
        match (way, answer) {
            ("token", Ok(Err(error))) => assert_eq!(error.kind(), ErrorKind::Cancelled),
            ("deadline", Ok(Err(error))) => assert_eq!(error.kind(), ErrorKind::DeadlineExceeded),
            ("drop", Err(error)) => assert!(error.is_cancelled()),
            (way, answer) => panic!("{way}: {answer:?}"),
        }
        // The row is still held.
        until("the statement's end", async || !is_active(&admin, process).await).await;
        // At a deadline the server's own limit may be quicker.
        assert!(way == "deadline" || proxy.cancels() == cancels + 1, "{way}");
        until("the connection back", async || store.connections().1 == 0).await;
    }
    holder.batch_execute("ROLLBACK").await.unwrap();
    let value = store.get(&ctx(), &ns("acme"), "held").await.unwrap();
    assert_eq!(value, Some(bytes("old")));
}

/// A call that lost against others pauses before it is tried again. Where its caller goes away in
/// that pause, a request to cancel finds nothing to stop: nothing may be sent any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_not_tried_again_once_its_caller_has_gone() {
    let schema = Schema::new().await;
    let (admin, holder) = (schema.admin().await, schema.admin().await);
    let store = open(&schema.url("&pool_size=1")).await;
    let name = &schema.name;
    // It loses eight times; the ninth would wait for as long as the test wants.
    let losing = format!(
        "CREATE SEQUENCE {name}.attempts; GRANT USAGE ON SEQUENCE {name}.attempts TO PUBLIC;
         CREATE OR REPLACE FUNCTION {name}.put(
             p_tenant text, p_namespace text, p_key text, p_value bytea, p_version uuid,
             p_ttl bigint, p_instant bigint
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
        until("the connection back", async || store.connections().1 == 0).await;
        assert!(waiting(&schema, &admin).await.is_empty(), "it was tried again");
    }
}
