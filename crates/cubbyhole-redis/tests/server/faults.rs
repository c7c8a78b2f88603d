//! Concurrent histories while the server fails. The histories must be linearizable:
//!
//! - the server stops and restarts, after a shutdown and after `kill -9`;
//! - the server hangs for longer than the deadline of a call, and resumes;
//! - connections are reset at random: before a command, between a command and its answer, or within
//!   the answer. In one test, calls are also cancelled at random;
//! - the server closes connections at random (`CLIENT KILL`);
//! - the server is slow and hangs while many callers share one connection;
//! - the server has no memory left (`maxmemory`).
//!
//! During a fault, calls fail within their deadlines with the expected kind of error, and report
//! correctly whether they may have been applied. After the fault, calls succeed again without a new
//! store. The store never has more connections than configured.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use cubbyhole_conformance::history::{Live, Plan};
use cubbyhole_core::ErrorKind;
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::until;
use cubbyhole_testkit::load::histories::{
    TIMEOUT, finish, goes_on, hang, plan as random_plan, restart, start,
};
use tokio::task::block_in_place;

use crate::helpers::{cli, client_ids, durable_server, open_with_connections};
use crate::proxy::{Command, Gate, RedisProxy, is_write};

pub(crate) const CONNECTIONS: usize = 3;
/// The deadline of calls to a server that hangs.
const SHORT: Duration = Duration::from_millis(300);
/// The number of calls of each kind that must succeed before, between and after faults.
pub(crate) const ENOUGH: u64 = 200;

/// Returns a plan for two groups of keys.
pub(crate) fn plan(timeout: Duration) -> Plan {
    random_plan(timeout).with_groups(2)
}

/// Opens a store with [`CONNECTIONS`] connections and starts histories on it. Returns when enough
/// calls have succeeded, and asserts that none has failed.
///
/// The caller keeps the store, whose connections [`check_connections`] counts after the histories.
pub(crate) async fn start_healthy(url: &str) -> (RedisStore, Live) {
    let store = open_with_connections(url, "p:", CONNECTIONS).await;
    let histories = start(store.clone(), plan(TIMEOUT));
    histories.until_sound(ENOUGH).await.unwrap();
    assert_eq!(histories.counts().failures(), 0, "calls failed before the first fault");
    (store, histories)
}

/// Asserts that the store has at least one connection, and waits until it has at most `most`.
pub(crate) async fn check_connections(server: &RedisServer, most: usize) {
    let count = || client_ids(server).len();
    until("old connections to close", async || count() <= most).await;
    assert!(count() > 0, "the store has no connection");
}

/// Waits for writes that are refused, and then for reads that succeed.
pub(crate) async fn until_refused_and_read(histories: &Live) {
    let before = histories.counts().failed_writes;
    let refused = || histories.counts().failed_writes >= before + 20;
    histories.until("refused writes", refused).await.unwrap();
    let before = histories.counts().reads;
    let read = || histories.counts().reads >= before + 2 * ENOUGH;
    histories.until("reads", read).await.unwrap();
}

async fn end_and_restart(
    end: impl Fn(&mut RedisServer) -> Result<(), String>,
    goes_on: impl Fn(u32, &Live) -> bool,
) {
    let mut server = durable_server();
    let (_store, histories) = start_healthy(server.url()).await;
    restart(&histories, &mut server, end, goes_on, ENOUGH).await;
    finish(histories, &[ErrorKind::Unavailable], TIMEOUT).await;
    check_connections(&server, CONNECTIONS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_are_linearizable_across_server_restarts() {
    // A shutdown answers most in-flight calls, so no unknown outcome is required.
    end_and_restart(RedisServer::stop, |rounds, _| rounds < 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_are_linearizable_across_server_kills() {
    end_and_restart(RedisServer::kill, goes_on).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_are_linearizable_on_a_server_that_hangs() {
    let server = durable_server();
    let store = open_with_connections(server.url(), "p:", CONNECTIONS).await;
    let histories = start(store.clone(), plan(SHORT));
    histories.until_sound(ENOUGH).await.unwrap();
    hang(&histories, &server, 20, ENOUGH).await;
    // The connections stay open, and the server still answers the calls that have ended.
    let report = finish(histories, &[ErrorKind::DeadlineExceeded], SHORT).await;
    assert!(report.unknown > 0, "no write was in flight");
    check_connections(&server, CONNECTIONS).await;
}

/// The number of resets before a write, after it, and within its answer.
type Cuts = Arc<[AtomicUsize; 3]>;

/// Resets the connection of one command in `one_in`, with a random kind of cut, until each kind has
/// hit `most` writes.
fn cut_at_random(
    cuts: &Cuts,
    one_in: u32,
    most: usize,
) -> impl FnMut(&Command) -> Gate + Send + 'static {
    let cuts = Arc::clone(cuts);
    move |command| {
        if fastrand::u32(..one_in) > 0 || cuts.iter().all(|count| count.load(SeqCst) >= most) {
            return Gate::Pass;
        }
        let kind = fastrand::usize(..3);
        if is_write(command) {
            cuts[kind].fetch_add(1, SeqCst);
        }
        [Gate::CutBefore, Gate::CutAfter, Gate::CutWithin][kind]
    }
}

/// Resets connections under running histories until each kind of cut has hit five writes.
async fn cut_connections(proxy: &RedisProxy, histories: &Live, one_in: u32) {
    let cuts = Cuts::default();
    proxy.set_rule(cut_at_random(&cuts, one_in, 5));
    let all = || cuts.iter().all(|count| count.load(SeqCst) >= 5);
    histories.until("connection resets", all).await.unwrap();
    proxy.release();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_are_linearizable_under_connection_resets() {
    let server = durable_server();
    let proxy = RedisProxy::start(&server).await;
    let (_store, histories) = start_healthy(&proxy.url()).await;
    for _ in 0..3 {
        cut_connections(&proxy, &histories, 20).await;
        histories.until_sound(ENOUGH).await.unwrap();
    }
    let report = finish(histories, &[ErrorKind::Unavailable], TIMEOUT).await;
    assert!(report.unknown >= 3 * 5, "{} writes of unknown outcome", report.unknown);
    assert!(proxy.open_connections() <= CONNECTIONS, "{}", proxy.open_connections());
    check_connections(&server, CONNECTIONS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_are_linearizable_under_cancels_and_resets() {
    let server = durable_server();
    let proxy = RedisProxy::start(&server).await;
    let store = open_with_connections(&proxy.url(), "p:", CONNECTIONS).await;
    // A call is in flight for about as long as the shortest context lasts.
    proxy.delay(Duration::from_millis(1));
    let plan = plan(TIMEOUT).with_cancellations(4, Duration::from_millis(6));
    let histories = start(store.clone(), plan);
    histories.until_more(ENOUGH).await.unwrap();
    histories.until_failures(10).await.unwrap();
    cut_connections(&proxy, &histories, 40).await;
    histories.until_more(2 * ENOUGH).await.unwrap();
    let report =
        finish(histories, &[ErrorKind::DeadlineExceeded, ErrorKind::Unavailable], TIMEOUT).await;
    assert!(report.failures_of(ErrorKind::Unavailable) > 0, "no call lost its connection");
    assert!(report.unknown >= 5, "{} writes of unknown outcome", report.unknown);
    check_connections(&server, CONNECTIONS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_are_linearizable_while_the_server_kills_clients() {
    let server = durable_server();
    let (_store, histories) = start_healthy(server.url()).await;
    for _ in 0..40 {
        if let Some(id) = fastrand::choice(client_ids(&server)) {
            cli(&server, &["CLIENT", "KILL", "ID", &id]);
        }
        histories.until_more(5).await.unwrap();
    }
    histories.until_sound(ENOUGH).await.unwrap();
    finish(histories, &[ErrorKind::Unavailable], TIMEOUT).await;
    check_connections(&server, CONNECTIONS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_are_linearizable_on_one_slow_shared_connection() {
    let server = block_in_place(|| RedisServer::start_with(&["enable-debug-command yes"])).unwrap();
    let proxy = RedisProxy::start(&server).await;
    let store = open_with_connections(&proxy.url(), "p:", 1).await;
    let histories = start(store.clone(), plan(SHORT).with_groups(6));
    histories.until_sound(ENOUGH).await.unwrap();
    let mut failures = Vec::new();
    for millis in [1, 10, 0] {
        proxy.delay(Duration::from_millis(millis));
        histories.until_sound(ENOUGH).await.unwrap();
        let before = histories.counts().failures();
        // Twice the deadline of a call.
        cli(&server, &["DEBUG", "SLEEP", "0.6"]);
        histories.until_sound(ENOUGH).await.unwrap();
        failures.push((before, histories.counts().failures()));
    }
    for (before, after) in failures {
        assert!(after > before, "no call failed while the server hung");
    }
    let report = finish(histories, &[ErrorKind::DeadlineExceeded], SHORT).await;
    assert!(report.unknown > 0, "no write was in flight");
    assert_eq!(proxy.connections(), 1, "the connection was replaced");
    check_connections(&server, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_are_linearizable_while_the_server_lacks_memory() {
    let server = durable_server();
    let (_store, histories) = start_healthy(server.url()).await;
    for _ in 0..4 {
        cli(&server, &["CONFIG", "SET", "maxmemory", "1"]);
        until_refused_and_read(&histories).await;
        cli(&server, &["CONFIG", "SET", "maxmemory", "0"]);
        histories.until_sound(ENOUGH).await.unwrap();
    }
    assert_eq!(histories.counts().failed_reads, 0, "reads need no memory");
    let report = finish(histories, &[ErrorKind::ResourceExhausted], TIMEOUT).await;
    assert_eq!(report.unknown, 0, "a refused write has no effect");
    check_connections(&server, CONNECTIONS).await;
}
