//! A thousand calls whose callers go away, and a server that is silent: what is left at the server,
//! in the pool and in the table.

use std::collections::HashMap;
use std::time::Duration;

use cubbyhole_core::{
    Batch, Bytes, Condition, EntryStore, Error, ErrorKind, ExecutionContext, Namespace, PutOptions,
    ScanOptions, Store,
};
use cubbyhole_postgres::{Config, PostgresStore};
use cubbyhole_testkit::PostgresServer;
use cubbyhole_testkit::helpers::{bytes, ctx, ns, until};
use tokio::task::block_in_place;

use crate::by_hand::one;
use crate::proxy::Proxy;
use crate::support::Schema;

const CALLS: usize = 1_000;
const TASKS: usize = 64;
const POOL: usize = 8;
/// Far more than a call needs whose context ends, on any machine.
const PROMPT: Duration = Duration::from_secs(10);

fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn open(url: &str) -> PostgresStore {
    let config = Config::from_url(url).unwrap();
    PostgresStore::open(&ExecutionContext::new(), config).await.unwrap()
}

/// What one task did to its own key, as far as it was told.
#[derive(Default)]
struct Told {
    /// The value that was there when the last call of certain outcome ended.
    certain: Option<String>,
    /// Values of calls of unknown outcome. Each stays possible: it may be applied as late as after
    /// a later call was answered.
    possible: Vec<String>,
}

impl Told {
    fn applied(&mut self, value: Option<String>) {
        self.certain = value;
    }

    fn failed(&mut self, error: &Error, value: String) {
        let kinds = [ErrorKind::Cancelled, ErrorKind::DeadlineExceeded];
        assert!(kinds.contains(&error.kind()), "{error}");
        if error.may_have_been_applied() {
            self.possible.push(value);
        }
    }
}

/// A way in which a caller goes away, at a random instant.
fn ending() -> ExecutionContext {
    let ctx = ExecutionContext::new();
    let after = Duration::from_micros(fastrand::u64(0..6_000));
    match fastrand::bool() {
        true => ctx.with_timeout(after),
        false => {
            let ended = ctx.clone();
            tokio::spawn(async move {
                ExecutionContext::new().sleep(after).await.unwrap();
                ended.cancel();
            });
            ctx
        }
    }
}

/// One task's calls: conditional and plain puts of its own key, batches of its own two keys, reads.
async fn calls_of(store: PostgresStore, ns: Namespace, task: usize) -> (Told, Told) {
    let (mut single, mut pair) = (Told::default(), Told::default());
    let key = format!("single-{task}");
    for round in 0..CALLS / TASKS + 1 {
        let ctx = ending();
        let value = format!("{task}:{round}:{}", "x".repeat(fastrand::usize(0..3_000)));
        let bytes = Bytes::from(value.clone());
        match fastrand::u8(0..8) {
            0 | 1 => match store.put(&ctx, &ns, &key, bytes).await {
                Ok(()) => single.applied(Some(value)),
                Err(error) => single.failed(&error, value),
            },
            // A put that its caller drops.
            2 => {
                let wait = Duration::from_micros(fastrand::u64(0..6_000));
                let never = ExecutionContext::new();
                let put = store.put(&never, &ns, &key, bytes);
                match tokio::time::timeout(wait, put).await {
                    Ok(answer) => single.applied(answer.map(|()| Some(value)).unwrap()),
                    Err(_) => single.possible.push(value),
                }
            }
            3 | 4 => {
                let batch = Batch::new()
                    .put(format!("pair-{task}-a"), bytes.clone())
                    .put(format!("pair-{task}-b"), bytes);
                match store.write(&ctx, &ns, batch).await {
                    Ok(_) => pair.applied(Some(value)),
                    Err(error) => pair.failed(&error, value),
                }
            }
            5 => match store.take(&ctx, &ns, &key).await {
                Ok(_) => single.applied(None),
                Err(error) => single.failed(&error, String::new()),
            },
            6 => drop(store.scan(&ctx, &ns, ScanOptions::new().with_limit(1000)).await),
            _ => drop(store.get(&ctx, &ns, &key).await),
        }
    }
    (single, pair)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_cancelled_calls_leave_everything_whole() {
    let schema = Schema::new().await;
    let store = open(&schema.url(&format!("&pool_size={POOL}"))).await;
    let ns = Namespace::parse("acme:cancelled").unwrap();
    let tasks: Vec<_> =
        (0..TASKS).map(|task| tokio::spawn(calls_of(store.clone(), ns.clone(), task))).collect();
    let mut told = Vec::new();
    for task in tasks {
        told.push(task.await.unwrap());
    }

    schema.no_statement_is_left(0).await;
    let ctx = ExecutionContext::new();
    let found: HashMap<String, String> = {
        let mut found = HashMap::new();
        let mut options = ScanOptions::new().with_limit(1000);
        loop {
            let page = store.scan(&ctx, &ns, options.clone()).await.unwrap();
            for item in page.items {
                found.insert(item.key, text(&item.value.unwrap().unwrap()));
            }
            let Some(next) = page.next else { break found };
            options = options.with_after(next);
        }
    };
    for (task, (single, pair)) in told.iter().enumerate() {
        let key = format!("single-{task}");
        let there = found.get(&key).cloned();
        let possible = single.possible.iter().map(|v| Some(v.clone()).filter(|v| !v.is_empty()));
        let mut allowed = possible.chain([single.certain.clone()]);
        assert!(allowed.any(|value| value == there), "{key} is neither old nor new");
        let (a, b) = (format!("pair-{task}-a"), format!("pair-{task}-b"));
        assert_eq!(found.get(&a), found.get(&b), "half a batch of task {task}");
        let there = found.get(&a).cloned();
        let possible = pair.possible.iter().cloned().map(Some);
        assert!(possible.chain([pair.certain.clone()]).any(|value| value == there), "{a}");
    }
    // The pool is whole: as many calls at once as it has connections, and more.
    let calls = (0..TASKS).map(|_| store.get(&ctx, &ns, "single-0"));
    for answer in futures_util::future::join_all(calls).await {
        answer.unwrap();
    }
    let (open, in_use) = store.connections();
    assert!(open <= POOL && in_use == 0, "{open} connections, {in_use} in use");
}

/// A server that takes everything and answers nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_returns_promptly_when_the_server_is_silent() {
    let schema = Schema::new().await;
    let proxy = Proxy::before(schema.admin_url()).await;
    let store = open(&proxy.url(&schema.url("&pool_size=1&sslmode=disable"))).await;
    let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme").unwrap());
    store.put(&ctx, &ns, "k", Bytes::from_static(b"old")).await.unwrap();
    proxy.be_silent(true);
    let soon = ctx.child().with_timeout(Duration::from_millis(100));
    let options = PutOptions::new();
    let put = store.put_entry(&soon, &ns, "k", Bytes::new(), options, Condition::IfAbsent);
    let error = tokio::time::timeout(PROMPT, put).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
    assert!(error.may_have_been_applied());
    // The connection's place in the pool is given up after a while, for a new one.
    proxy.be_silent(false);
    let get = store.get(&ctx, &ns, "k");
    let got = tokio::time::timeout(PROMPT * 3, get).await.unwrap().unwrap();
    assert_eq!(got.as_deref(), Some(&b"old"[..]));
}

/// The new limit of a call is set by a statement that has the one of the call before. Where that is
/// over before the server comes to it, the call still has its own time.
#[tokio::test]
async fn a_call_has_its_own_time_also_where_its_limit_could_not_be_set_at_once() {
    let schema = Schema::new().await;
    let proxy = Proxy::before(schema.admin_url()).await;
    let store = open(&proxy.url(&schema.url("&pool_size=1"))).await;
    let acme = ns("acme");
    store.put(&ctx(), &acme, "k", bytes("old")).await.unwrap();
    let (admin, holder) = (schema.admin().await, schema.admin().await);
    let lock = format!("BEGIN; SELECT FROM {}.entries FOR UPDATE", schema.name);
    holder.batch_execute(&lock).await.unwrap();

    // A busy machine may not answer in time; the next try has a warm connection.
    until("a call with a short limit", async || {
        let short = ExecutionContext::new().with_timeout(Duration::from_millis(200));
        store.get(&short, &acme, "k").await.is_ok()
    })
    .await;
    // As long as a server takes that has a great deal to do.
    proxy.swap_once("SET statement_timeout = 30720", "SELECT pg_sleep(50)");
    let writer = store.clone();
    let put = tokio::spawn(async move {
        let long = ExecutionContext::new().with_timeout(Duration::from_secs(30));
        writer.put(&long, &ns("acme"), "k", bytes("new")).await
    });
    // When the statement began that waits for the lock.
    let waits = format!(
        "SELECT coalesce(max(query_start::text), '') FROM pg_stat_activity
         WHERE usename = '{}_login' AND wait_event_type = 'Lock'",
        schema.name
    );
    let waits = async || one::<String>(&admin, &waits).await;
    until("the first try", async || !waits().await.is_empty()).await;
    assert!(!proxy.has_swap(), "the limit was set in another way");
    let first = waits().await;
    let is_second = |at: String| !at.is_empty() && at != first;
    until("the second", async || put.is_finished() || is_second(waits().await)).await;
    holder.batch_execute("ROLLBACK").await.unwrap();
    put.await.unwrap().unwrap();
    assert_eq!(store.get(&ctx(), &acme, "k").await.unwrap(), Some(bytes("new")));
}

/// Where the limit of the call before ends so late during that statement that the server comes to
/// its end, it stops the statement that follows.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_has_its_own_time_also_where_the_limit_before_ended_late() {
    let server = block_in_place(PostgresServer::start).unwrap();
    let schema = Schema::on(server.url()).await;
    let proxy = Proxy::before(server.url()).await;
    let store = open(&proxy.url(&schema.url("&pool_size=1"))).await;
    let (acme, admin) = (ns("acme"), schema.admin().await);
    store.put(&ctx(), &acme, "k", bytes("old")).await.unwrap();
    // The server looks for the end of its time between steps, and the last of these is a long one;
    // the sequence tells that it was made.
    let late = "CREATE SEQUENCE made;
         GRANT USAGE ON SEQUENCE made TO public;
         CREATE PROCEDURE late(
            work int DEFAULT octet_length(sha512(convert_to(repeat(repeat('x', 1000000), 150), 'UTF8'))),
            last bigint DEFAULT nextval('public.made')
         ) LANGUAGE sql AS ''";
    admin.batch_execute(late).await.unwrap();
    let was_made = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM made";
    let (mut attempts, mut made, mut limit) = (0, 0, Duration::from_millis(250));
    while made < 3 {
        attempts += 1;
        assert!(attempts < 30, "the server always noticed in time");
        let short = ExecutionContext::new().with_timeout(limit);
        // A machine that is too busy for this is tried again.
        drop(store.get(&short, &acme, "k").await);
        proxy.swap_once("SET statement_timeout = 30720", "CALL public.late()");
        let long = ExecutionContext::new().with_timeout(Duration::from_secs(30));
        store.put(&long, &acme, "k", bytes("new")).await.unwrap();
        assert!(!proxy.has_swap(), "the limit was set in another way");
        let before = std::mem::replace(&mut made, one::<i64>(&admin, was_made).await);
        if made == before && limit < Duration::from_secs(8) {
            // It ended before the last step began: on a busy machine that takes longer.
            limit *= 2;
        }
    }
    assert_eq!(store.get(&ctx(), &acme, "k").await.unwrap(), Some(bytes("new")));
}

/// Behind a pooler a call is a transaction. Where what ends it is stopped before the server has
/// begun it, as by a request to cancel, the transaction is still there, and failed.
#[tokio::test]
async fn a_transaction_that_could_not_be_ended_is_not_in_the_way_of_the_next_call() {
    let schema = Schema::new().await;
    let proxy = Proxy::before(schema.admin_url()).await;
    let store = open(&proxy.url(&schema.url("&pool_size=1&pooler=transaction"))).await;
    let (acme, admin) = (ns("acme"), schema.admin().await);
    store.put(&ctx(), &acme, "k", bytes("old")).await.unwrap();
    let process = "SELECT pid FROM pg_stat_activity WHERE usename = '@_login'";
    let process = process.replace('@', &schema.name);
    let before: i32 = one(&admin, &process).await;

    // The server stops at a statement that is none as it does at one that it is asked to stop.
    proxy.swap_once("COMMIT", "COMMIX");
    let error = store.put(&ctx(), &acme, "k", bytes("lost")).await.unwrap_err();
    assert!(!proxy.has_swap() && !error.may_have_been_applied(), "{error}");
    assert_eq!(store.get(&ctx(), &acme, "k").await.unwrap(), Some(bytes("old")));
    store.put(&ctx(), &acme, "k", bytes("new")).await.unwrap();
    assert_eq!(store.get(&ctx(), &acme, "k").await.unwrap(), Some(bytes("new")));
    assert_eq!(one::<i32>(&admin, &process).await, before, "it cost a connection");
}

/// Where an administrator stops what goes ahead of a call, the call is made once more.
#[tokio::test]
async fn a_transaction_that_could_not_be_begun_is_begun_again() {
    let schema = Schema::new().await;
    let proxy = Proxy::before(schema.admin_url()).await;
    let store = open(&proxy.url(&schema.url("&pool_size=1&pooler=transaction"))).await;
    let (acme, admin) = (ns("acme"), schema.admin().await);
    proxy.swap_once("SET LOCAL statement_timeout = 30720", "SELECT pg_sleep(50)");
    let writer = store.clone();
    let put = tokio::spawn(async move {
        let long = ExecutionContext::new().with_timeout(Duration::from_secs(30));
        writer.put(&long, &ns("acme"), "k", bytes("new")).await
    });
    let stop = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
         WHERE usename = '@_login' AND wait_event = 'PgSleep'";
    let stop = stop.replace('@', &schema.name);
    until("the sleep", async || one::<i64>(&admin, &stop).await == 1).await;
    put.await.unwrap().unwrap();
    assert!(!proxy.has_swap(), "the limit was set in another way");
    assert_eq!(store.get(&ctx(), &acme, "k").await.unwrap(), Some(bytes("new")));
}
