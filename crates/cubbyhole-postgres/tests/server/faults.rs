//! Faults of a server under concurrent histories, which have to have an order all the same:
//!
//! - it is stopped and started again, in order and with `kill -9`;
//! - it hangs for longer than the deadline of a call, and goes on;
//! - connections are reset at random, while their statements run; calls are given up at random
//!   meanwhile;
//! - backends are terminated by an administrator, at random;
//! - the pool has one connection for many callers, and another holds the table.
//!
//! In each, calls fail because of it, with an error of the kind that it is, within their deadlines,
//! and say rightly whether they may have had an effect; without it they do not fail; the store goes
//! on by itself, with no more connections than it was allowed and no statement left behind.

use std::time::Duration;

use cubbyhole_conformance::history::{Live, Plan, Report};
use cubbyhole_core::ErrorKind;
use cubbyhole_postgres::{Config, PostgresStore};
use cubbyhole_testkit::PostgresServer;
use cubbyhole_testkit::helpers::{ctx, until};
use cubbyhole_testkit::load::histories::{self, TIMEOUT, goes_on, plan};
use tokio::task::block_in_place;

use crate::by_hand::one;
use crate::proxy::Proxy;
use crate::support::Schema;

const CONNECTIONS: usize = 4;
/// Where a server hangs: more than a call needs on a busy machine.
const SHORT: Duration = Duration::from_secs(1);
/// How many calls must be answered, of each kind, before, between and after the faults.
pub(crate) const ENOUGH: u64 = 100;

/// A server that loses nothing that it acknowledged.
fn durable_server() -> PostgresServer {
    let settings = [("fsync", "on"), ("synchronous_commit", "on")];
    block_in_place(|| PostgresServer::start_with(&settings)).unwrap()
}

/// A store with few connections, and the histories on it.
pub(crate) async fn start(url: &str, plan: Plan) -> (PostgresStore, Live) {
    let store = PostgresStore::open(&ctx(), Config::from_url(url).unwrap()).await.unwrap();
    (store.clone(), histories::start(store, plan))
}

pub(crate) fn few(schema: &Schema) -> String {
    schema.url(&format!("&pool_size={CONNECTIONS}"))
}

/// Ends the histories: they have an order, and calls failed as one of these kinds, and as the first.
pub(crate) async fn finish(
    schema: &Schema,
    (store, histories): (PostgresStore, Live),
    kinds: &[ErrorKind],
    timeout: Duration,
) -> Report {
    let report = histories::finish(histories, kinds, timeout).await;
    until("connections that are given back", async || store.connections().1 == 0).await;
    assert!(store.connections().0 <= CONNECTIONS);
    schema.no_statement_is_left(0).await;
    let admin = schema.admin().await;
    let role =
        format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}_login'", schema.name);
    let most = i64::try_from(CONNECTIONS).unwrap();
    until("the end of the connections before", async || one::<i64>(&admin, &role).await <= most)
        .await;
    report
}

async fn end_and_start_again(
    end: impl Fn(&mut PostgresServer) -> Result<(), String>,
    goes_on: impl Fn(u32, &Live) -> bool,
) {
    let mut server = durable_server();
    let schema = Schema::on(server.url()).await;
    let (store, histories) = start(&few(&schema), plan(TIMEOUT)).await;
    histories.until_sound(ENOUGH).await.unwrap();
    assert_eq!(histories.counts().failures(), 0, "a call failed before the first fault");
    histories::restart(&histories, &mut server, end, goes_on, ENOUGH).await;
    finish(&schema, (store, histories), &[ErrorKind::Unavailable], TIMEOUT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_on_a_server_that_is_stopped_and_started_again() {
    // What is under way is mostly answered before.
    end_and_start_again(PostgresServer::stop, |rounds, _| rounds < 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_on_a_server_that_is_killed_and_started_again() {
    end_and_start_again(PostgresServer::kill, goes_on).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_on_a_server_that_hangs_for_longer_than_a_deadline() {
    let server = durable_server();
    let schema = Schema::on(server.url()).await;
    let (store, histories) = start(&few(&schema), plan(SHORT)).await;
    histories.until_more(ENOUGH).await.unwrap();
    histories::hang(&histories, &server, 12, ENOUGH).await;
    let kinds = [ErrorKind::DeadlineExceeded];
    let report = finish(&schema, (store, histories), &kinds, SHORT).await;
    assert!(report.unknown > 0, "no write was under way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_where_connections_are_reset_under_their_statements() {
    let server = durable_server();
    let schema = Schema::on(server.url()).await;
    let proxy = Proxy::before(server.url()).await;
    // Calls are under way for long enough to be met in the middle.
    proxy.delay(Duration::from_millis(1));
    let (store, histories) = start(&proxy.url(&few(&schema)), plan(TIMEOUT)).await;
    histories.until_sound(ENOUGH).await.unwrap();
    assert_eq!(histories.counts().failures(), 0, "nothing has happened yet");
    for _ in 0..20 {
        let before = histories.counts().failures();
        // One that met no call under way is made again.
        while histories.counts().failures() == before {
            proxy.reset_all();
            histories.until_more(fastrand::u64(1..10)).await.unwrap();
        }
    }
    histories.until_sound(ENOUGH).await.unwrap();
    let kinds = [ErrorKind::Unavailable];
    let report = finish(&schema, (store, histories), &kinds, TIMEOUT).await;
    assert!(report.unknown > 0, "no write was under way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_where_calls_are_given_up_and_connections_are_reset() {
    let server = durable_server();
    let schema = Schema::on(server.url()).await;
    let proxy = Proxy::before(server.url()).await;
    proxy.delay(Duration::from_millis(1));
    let plan = plan(TIMEOUT).cutting_short(4, Duration::from_millis(8));
    let (store, histories) = start(&proxy.url(&few(&schema)), plan).await;
    histories.until_more(ENOUGH).await.unwrap();
    histories.until_failures(20).await.unwrap();
    for _ in 0..10 {
        proxy.reset_all();
        histories.until_more(fastrand::u64(1..20)).await.unwrap();
    }
    histories.until_more(ENOUGH).await.unwrap();
    let kinds = [ErrorKind::DeadlineExceeded, ErrorKind::Unavailable];
    let report = finish(&schema, (store, histories), &kinds, TIMEOUT).await;
    assert!(report.failures_of(ErrorKind::Unavailable) > 0, "no call met a connection's end");
    assert!(report.unknown > 0, "no write was under way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_where_backends_are_terminated() {
    let server = durable_server();
    let schema = Schema::on(server.url()).await;
    let (store, histories) = start(&few(&schema), plan(TIMEOUT)).await;
    histories.until_sound(ENOUGH).await.unwrap();
    assert_eq!(histories.counts().failures(), 0, "nothing has happened yet");
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
    histories.until_sound(ENOUGH).await.unwrap();
    finish(&schema, (store, histories), &[ErrorKind::Unavailable], TIMEOUT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_with_one_connection_while_another_holds_the_table() {
    let server = durable_server();
    let schema = Schema::on(server.url()).await;
    let (store, histories) = start(&schema.url("&pool_size=1"), plan(SHORT)).await;
    histories.until_more(ENOUGH).await.unwrap();
    let holder = schema.admin().await;
    let hold = format!("BEGIN; LOCK TABLE {}.entries IN ACCESS EXCLUSIVE MODE", schema.name);
    for _ in 0..3 {
        holder.batch_execute(&hold).await.unwrap();
        histories.until_failures(12).await.unwrap();
        holder.batch_execute("ROLLBACK").await.unwrap();
        histories.until_sound(ENOUGH).await.unwrap();
    }
    assert!(store.connections().0 <= 1, "{:?}", store.connections());
    finish(&schema, (store, histories), &[ErrorKind::DeadlineExceeded], SHORT).await;
}
