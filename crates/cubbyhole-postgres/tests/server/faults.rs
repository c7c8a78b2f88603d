//! Faults of a server under concurrent histories, which must stay linearizable:
//!
//! - the server is stopped or killed, and restarted;
//! - the server hangs for longer than the deadline of a call;
//! - connections are reset during statements, also while callers cancel calls;
//! - an administrator terminates server processes;
//! - many callers share one connection while another session locks the table.
//!
//! During a fault, calls fail with the expected kind of error, within their deadlines, and the
//! error says correctly whether the call may have had an effect. Without a fault no call fails. The
//! store recovers automatically, within its connection limit and without leaving statements on the
//! server.

use std::time::Duration;

use cubbyhole_conformance::history::{Live, Plan, Report};
use cubbyhole_core::ErrorKind;
use cubbyhole_postgres::{Config, PostgresStore};
use cubbyhole_testkit::PostgresServer;
use cubbyhole_testkit::helpers::{ctx, until};
use cubbyhole_testkit::load::histories::{self, TIMEOUT, goes_on, plan};
use tokio::task::block_in_place;

use crate::proxy::Proxy;
use crate::sql::one;
use crate::support::Schema;

const CONNECTIONS: usize = 4;
/// The deadline of calls in tests with a hanging server. A busy machine still meets it otherwise.
const SHORT_TIMEOUT: Duration = Duration::from_secs(1);
/// The number of calls of each kind that must complete before, between and after faults.
pub(crate) const CALLS: u64 = 100;

/// Starts a server that keeps every acknowledged write.
fn durable_server() -> PostgresServer {
    let settings = [("fsync", "on"), ("synchronous_commit", "on")];
    block_in_place(|| PostgresServer::start_with(&settings)).unwrap()
}

/// Opens a store with few connections and starts histories on it.
pub(crate) async fn start(url: &str, plan: Plan) -> (PostgresStore, Live) {
    let store = PostgresStore::open(&ctx(), Config::from_url(url).unwrap()).await.unwrap();
    (store.clone(), histories::start(store, plan))
}

pub(crate) fn url_of(schema: &Schema) -> String {
    schema.url(&format!("&pool_size={CONNECTIONS}"))
}

/// Ends the histories. They must be linearizable, calls must have failed only with these kinds, and
/// at least one with the first kind.
pub(crate) async fn finish(
    schema: &Schema,
    (store, histories): (PostgresStore, Live),
    kinds: &[ErrorKind],
    timeout: Duration,
) -> Report {
    let report = histories::finish(histories, kinds, timeout).await;
    until("the return of all connections", async || store.connections().1 == 0).await;
    assert!(store.connections().0 <= CONNECTIONS);
    schema.no_statement_is_left(0).await;
    let admin = schema.admin().await;
    let role =
        format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}_login'", schema.name);
    let max = i64::try_from(CONNECTIONS).unwrap();
    until("the end of earlier connections", async || one::<i64>(&admin, &role).await <= max).await;
    report
}

async fn stop_and_restart(
    stop: impl Fn(&mut PostgresServer) -> Result<(), String>,
    goes_on: impl Fn(u32, &Live) -> bool,
) {
    let mut server = durable_server();
    let schema = Schema::on(server.url()).await;
    let (store, histories) = start(&url_of(&schema), plan(TIMEOUT)).await;
    histories.until_sound(CALLS).await.unwrap();
    assert_eq!(histories.counts().failures(), 0, "a call failed before the first fault");
    histories::restart(&histories, &mut server, stop, goes_on, CALLS).await;
    finish(&schema, (store, histories), &[ErrorKind::Unavailable], TIMEOUT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_are_linearizable_across_server_restarts() {
    // An orderly stop completes most calls in flight, so an unknown outcome is not required.
    stop_and_restart(PostgresServer::stop, |rounds, _| rounds < 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_are_linearizable_across_server_kills() {
    stop_and_restart(PostgresServer::kill, goes_on).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_are_linearizable_on_a_server_that_hangs() {
    let server = durable_server();
    let schema = Schema::on(server.url()).await;
    let (store, histories) = start(&url_of(&schema), plan(SHORT_TIMEOUT)).await;
    histories.until_more(CALLS).await.unwrap();
    histories::hang(&histories, &server, 12, CALLS).await;
    let kinds = [ErrorKind::DeadlineExceeded];
    let report = finish(&schema, (store, histories), &kinds, SHORT_TIMEOUT).await;
    assert!(report.unknown > 0, "no fault hit a write in flight");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_are_linearizable_under_connection_resets() {
    let server = durable_server();
    let schema = Schema::on(server.url()).await;
    let proxy = Proxy::before(server.url()).await;
    // The delay keeps calls in flight long enough for a reset to hit them.
    proxy.delay(Duration::from_millis(1));
    let (store, histories) = start(&proxy.url(&url_of(&schema)), plan(TIMEOUT)).await;
    histories.until_sound(CALLS).await.unwrap();
    assert_eq!(histories.counts().failures(), 0, "a call failed before the first fault");
    for _ in 0..20 {
        let before = histories.counts().failures();
        // Repeat a reset that hit no call in flight.
        while histories.counts().failures() == before {
            proxy.reset_all();
            histories.until_more(fastrand::u64(1..10)).await.unwrap();
        }
    }
    histories.until_sound(CALLS).await.unwrap();
    let kinds = [ErrorKind::Unavailable];
    let report = finish(&schema, (store, histories), &kinds, TIMEOUT).await;
    assert!(report.unknown > 0, "no fault hit a write in flight");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_are_linearizable_under_cancels_and_resets() {
    let server = durable_server();
    let schema = Schema::on(server.url()).await;
    let proxy = Proxy::before(server.url()).await;
    proxy.delay(Duration::from_millis(1));
    let plan = plan(TIMEOUT).with_cancellations(4, Duration::from_millis(8));
    let (store, histories) = start(&proxy.url(&url_of(&schema)), plan).await;
    histories.until_more(CALLS).await.unwrap();
    histories.until_failures(20).await.unwrap();
    for _ in 0..10 {
        proxy.reset_all();
        histories.until_more(fastrand::u64(1..20)).await.unwrap();
    }
    histories.until_more(CALLS).await.unwrap();
    let kinds = [ErrorKind::DeadlineExceeded, ErrorKind::Unavailable];
    let report = finish(&schema, (store, histories), &kinds, TIMEOUT).await;
    assert!(report.failures_of(ErrorKind::Unavailable) > 0, "no reset hit a call");
    assert!(report.unknown > 0, "no fault hit a write in flight");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_are_linearizable_when_backends_are_terminated() {
    let server = durable_server();
    let schema = Schema::on(server.url()).await;
    let (store, histories) = start(&url_of(&schema), plan(TIMEOUT)).await;
    histories.until_sound(CALLS).await.unwrap();
    assert_eq!(histories.counts().failures(), 0, "a call failed before the first fault");
    let admin = schema.admin().await;
    let terminate = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity
            WHERE usename = '{}_login' ORDER BY random() LIMIT 1) one",
        schema.name
    );
    for _ in 0..40 {
        one::<i64>(&admin, &terminate).await;
        histories.until_more(5).await.unwrap();
    }
    histories.until_sound(CALLS).await.unwrap();
    finish(&schema, (store, histories), &[ErrorKind::Unavailable], TIMEOUT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_are_linearizable_with_one_connection_and_a_lock() {
    let server = durable_server();
    let schema = Schema::on(server.url()).await;
    let (store, histories) = start(&schema.url("&pool_size=1"), plan(SHORT_TIMEOUT)).await;
    histories.until_more(CALLS).await.unwrap();
    let holder = schema.admin().await;
    let hold = format!("BEGIN; LOCK TABLE {}.entries IN ACCESS EXCLUSIVE MODE", schema.name);
    for _ in 0..3 {
        holder.batch_execute(&hold).await.unwrap();
        histories.until_failures(12).await.unwrap();
        holder.batch_execute("ROLLBACK").await.unwrap();
        histories.until_sound(CALLS).await.unwrap();
    }
    assert!(store.connections().0 <= 1, "{:?}", store.connections());
    finish(&schema, (store, histories), &[ErrorKind::DeadlineExceeded], SHORT_TIMEOUT).await;
}
