//! Abandoned calls and a silent server: the state of the server, the pool and the table afterwards.

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

use crate::proxy::Proxy;
use crate::sql::one;
use crate::support::Schema;

const CALLS: usize = 1_000;
const TASKS: usize = 64;
const POOL: usize = 8;
/// Far more time than a call needs to return after its context ends.
const RETURN_LIMIT: Duration = Duration::from_secs(10);

fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn open(url: &str) -> PostgresStore {
    let config = Config::from_url(url).unwrap();
    PostgresStore::open(&ExecutionContext::new(), config).await.unwrap()
}

/// The possible values of the key of one task.
#[derive(Default)]
struct KeyOutcomes {
    /// The value after the last call with a known outcome.
    certain: Option<String>,
    /// Values of calls with an unknown outcome. Each stays possible, because the server may apply
    /// it after a later call has returned.
    possible: Vec<String>,
}

impl KeyOutcomes {
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

/// A context that ends at a random time, by timeout or cancellation.
fn ending_context() -> ExecutionContext {
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

/// The calls of one task: puts and takes of its key, batches of its two other keys, and reads.
async fn calls_of(store: PostgresStore, ns: Namespace, task: usize) -> (KeyOutcomes, KeyOutcomes) {
    let (mut single, mut pair) = (KeyOutcomes::default(), KeyOutcomes::default());
    let key = format!("single-{task}");
    for round in 0..CALLS / TASKS + 1 {
        let ctx = ending_context();
        let value = format!("{task}:{round}:{}", "x".repeat(fastrand::usize(0..3_000)));
        let bytes = Bytes::from(value.clone());
        match fastrand::u8(0..8) {
            0 | 1 => match store.put(&ctx, &ns, &key, bytes).await {
                Ok(()) => single.applied(Some(value)),
                Err(error) => single.failed(&error, value),
            },
            // The caller drops this put.
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
async fn thousand_cancelled_calls_leave_store_and_pool_intact() {
    let schema = Schema::new().await;
    let store = open(&schema.url(&format!("&pool_size={POOL}"))).await;
    let ns = Namespace::parse("acme:cancelled").unwrap();
    let tasks: Vec<_> =
        (0..TASKS).map(|task| tokio::spawn(calls_of(store.clone(), ns.clone(), task))).collect();
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await.unwrap());
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
    for (task, (single, pair)) in outcomes.iter().enumerate() {
        let key = format!("single-{task}");
        let stored = found.get(&key).cloned();
        let possible = single.possible.iter().map(|v| Some(v.clone()).filter(|v| !v.is_empty()));
        let mut allowed = possible.chain([single.certain.clone()]);
        assert!(allowed.any(|value| value == stored), "{key} has an impossible value");
        let (a, b) = (format!("pair-{task}-a"), format!("pair-{task}-b"));
        assert_eq!(found.get(&a), found.get(&b), "half a batch of task {task}");
        let stored = found.get(&a).cloned();
        let possible = pair.possible.iter().cloned().map(Some);
        assert!(possible.chain([pair.certain.clone()]).any(|value| value == stored), "{a}");
    }
    // The pool still serves more concurrent calls than it has connections.
    let calls = (0..TASKS).map(|_| store.get(&ctx, &ns, "single-0"));
    for answer in futures_util::future::join_all(calls).await {
        answer.unwrap();
    }
    let (open, in_use) = store.connections();
    assert!(open <= POOL && in_use == 0, "{open} connections, {in_use} in use");
}

/// The server reads all messages and answers none.
#[tokio::test(flavor = "multi_thread")]
async fn call_returns_at_its_deadline_if_the_server_is_silent() {
    let schema = Schema::new().await;
    let proxy = Proxy::before(schema.admin_url()).await;
    let store = open(&proxy.url(&schema.url("&pool_size=1&sslmode=disable"))).await;
    let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme").unwrap());
    store.put(&ctx, &ns, "k", Bytes::from_static(b"old")).await.unwrap();
    proxy.be_silent(true);
    let soon = ctx.child().with_timeout(Duration::from_millis(100));
    let options = PutOptions::new();
    let put = store.put_entry(&soon, &ns, "k", Bytes::new(), options, Condition::IfAbsent);
    let error = tokio::time::timeout(RETURN_LIMIT, put).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
    assert!(error.may_have_been_applied());
    // A new connection replaces the one of the abandoned call.
    proxy.be_silent(false);
    let get = store.get(&ctx, &ns, "k");
    let got = tokio::time::timeout(RETURN_LIMIT * 3, get).await.unwrap().unwrap();
    assert_eq!(got.as_deref(), Some(&b"old"[..]));
}

/// The `SET` that sets the timeout of a call runs under the timeout of the previous call. If the
/// server cancels the `SET`, the call is sent again and gets its full time.
#[tokio::test]
async fn call_is_retried_if_its_set_timeout_is_cancelled() {
    let schema = Schema::new().await;
    let proxy = Proxy::before(schema.admin_url()).await;
    let store = open(&proxy.url(&schema.url("&pool_size=1"))).await;
    let acme = ns("acme");
    store.put(&ctx(), &acme, "k", bytes("old")).await.unwrap();
    let (admin, holder) = (schema.admin().await, schema.admin().await);
    let lock = format!("BEGIN; SELECT FROM {}.entries FOR UPDATE", schema.name);
    holder.batch_execute(&lock).await.unwrap();

    // A busy machine may miss the deadline; the next attempt has a warm connection.
    until("a call with a short deadline", async || {
        let short = ExecutionContext::new().with_timeout(Duration::from_millis(200));
        store.get(&short, &acme, "k").await.is_ok()
    })
    .await;
    // Simulates a `SET` on a busy server.
    proxy.swap_once("SET statement_timeout = 30720", "SELECT pg_sleep(50)");
    let writer = store.clone();
    let put = tokio::spawn(async move {
        let long = ExecutionContext::new().with_timeout(Duration::from_secs(30));
        writer.put(&long, &ns("acme"), "k", bytes("new")).await
    });
    // The start time of the statement that waits for the lock.
    let waits = format!(
        "SELECT coalesce(max(query_start::text), '') FROM pg_stat_activity
         WHERE usename = '{}_login' AND wait_event_type = 'Lock'",
        schema.name
    );
    let waits = async || one::<String>(&admin, &waits).await;
    until("the first attempt", async || !waits().await.is_empty()).await;
    assert!(!proxy.has_swap(), "the store sent another statement to set the timeout");
    let first = waits().await;
    let is_second = |at: String| !at.is_empty() && at != first;
    until("the second attempt", async || put.is_finished() || is_second(waits().await)).await;
    holder.batch_execute("ROLLBACK").await.unwrap();
    put.await.unwrap().unwrap();
    assert_eq!(store.get(&ctx(), &acme, "k").await.unwrap(), Some(bytes("new")));
}

/// If the previous timeout expires at the very end of the `SET`, the server may notice it late and
/// cancel the statement that follows.
#[tokio::test(flavor = "multi_thread")]
async fn call_is_retried_if_the_previous_timeout_fires_late() {
    let server = block_in_place(PostgresServer::start).unwrap();
    let schema = Schema::on(server.url()).await;
    let proxy = Proxy::before(server.url()).await;
    let store = open(&proxy.url(&schema.url("&pool_size=1"))).await;
    let (acme, admin) = (ns("acme"), schema.admin().await);
    store.put(&ctx(), &acme, "k", bytes("old")).await.unwrap();
    // The server checks for timeouts between steps, and the last step is long. The sequence counts
    // the completed steps.
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
        assert!(attempts < 30, "the server always noticed the timeout during the SET");
        let short = ExecutionContext::new().with_timeout(limit);
        // On a busy machine this may fail; the loop repeats it.
        drop(store.get(&short, &acme, "k").await);
        proxy.swap_once("SET statement_timeout = 30720", "CALL public.late()");
        let long = ExecutionContext::new().with_timeout(Duration::from_secs(30));
        store.put(&long, &acme, "k", bytes("new")).await.unwrap();
        assert!(!proxy.has_swap(), "the store sent another statement to set the timeout");
        let before = std::mem::replace(&mut made, one::<i64>(&admin, was_made).await);
        if made == before && limit < Duration::from_secs(8) {
            // The timeout expired before the last step. A busy machine needs more time.
            limit *= 2;
        }
    }
    assert_eq!(store.get(&ctx(), &acme, "k").await.unwrap(), Some(bytes("new")));
}

/// Behind a pooler, a call is a transaction. If the server cancels its `COMMIT`, a failed
/// transaction stays open on the connection.
#[tokio::test]
async fn failed_commit_does_not_block_the_next_call() {
    let schema = Schema::new().await;
    let proxy = Proxy::before(schema.admin_url()).await;
    let store = open(&proxy.url(&schema.url("&pool_size=1&pooler=transaction"))).await;
    let (acme, admin) = (ns("acme"), schema.admin().await);
    store.put(&ctx(), &acme, "k", bytes("old")).await.unwrap();
    let process = "SELECT pid FROM pg_stat_activity WHERE usename = '@_login'";
    let process = process.replace('@', &schema.name);
    let before: i32 = one(&admin, &process).await;

    // A syntax error has the same effect as a cancelled `COMMIT`.
    proxy.swap_once("COMMIT", "COMMIX");
    let error = store.put(&ctx(), &acme, "k", bytes("lost")).await.unwrap_err();
    assert!(!proxy.has_swap() && !error.may_have_been_applied(), "{error}");
    assert_eq!(store.get(&ctx(), &acme, "k").await.unwrap(), Some(bytes("old")));
    store.put(&ctx(), &acme, "k", bytes("new")).await.unwrap();
    assert_eq!(store.get(&ctx(), &acme, "k").await.unwrap(), Some(bytes("new")));
    assert_eq!(one::<i32>(&admin, &process).await, before, "the connection was replaced");
}

/// An administrator cancels the statements that precede the call.
#[tokio::test]
async fn call_is_retried_if_its_begin_is_cancelled() {
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
    assert!(!proxy.has_swap(), "the store sent another statement to set the timeout");
    assert_eq!(store.get(&ctx(), &acme, "k").await.unwrap(), Some(bytes("new")));
}
