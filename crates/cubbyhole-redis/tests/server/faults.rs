//! Faults of a server under concurrent histories, which have to have an order all the same:
//!
//! - it is stopped and started again, in order and with `kill -9`;
//! - it hangs for longer than the deadline of a call, and goes on;
//! - connections are reset at random: before the server has seen a command, once it was executed
//!   and before the answer, in the middle of the answer; calls are given up at random meanwhile;
//! - connections are ended by the server, at random (`CLIENT KILL`);
//! - it is slow, and hangs, before many callers on one connection;
//! - it has no memory left (`maxmemory`), and is given some.
//!
//! In each, calls fail because of it, with an error of the kind that it is, within their deadlines,
//! and say rightly whether they may have had an effect; without it they do not fail; the store goes
//! on by itself, with no more connections than it was allowed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use cubbyhole_conformance::history::Live;
use cubbyhole_core::ErrorKind;
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::until;
use cubbyhole_testkit::load::histories::{TIMEOUT, goes_on, hang, restart};
use tokio::task::block_in_place;

use crate::by_hand::{cli, open_several};
use crate::histories::{finish, plan, start};
use crate::proxy::{Command, Gate, Proxy, is_write};

pub(crate) const GROUPS: usize = 2;
pub(crate) const CONNECTIONS: usize = 3;
/// Where a server hangs.
const SHORT: Duration = Duration::from_millis(300);
/// How many calls must be answered, of each kind, before, between and after the faults.
pub(crate) const ENOUGH: u64 = 200;

/// A server that loses nothing that it acknowledged.
fn durable_server() -> RedisServer {
    block_in_place(|| RedisServer::start_with(&["appendonly yes", "appendfsync always"])).unwrap()
}

/// The connections of the store, which are as many as it may have at most.
pub(crate) async fn check_connections(server: &RedisServer, most: usize) {
    // The last is the one that asks.
    let count = || cli(server, &["CLIENT", "LIST"]).lines().count() - 1;
    until("the end of the connections before", async || count() <= most).await;
    assert!(count() > 0, "the store has none");
}

/// Waits for writes that are refused, and for reads that are answered since then.
pub(crate) async fn until_refused_and_read(histories: &Live) {
    let before = histories.counts().failed_writes;
    let refused = || histories.counts().failed_writes >= before + 20;
    histories.until("writes that are refused", refused).await.unwrap();
    let before = histories.counts().reads;
    let read = || histories.counts().reads >= before + 2 * ENOUGH;
    histories.until("reads", read).await.unwrap();
}

async fn end_and_start_again(
    end: impl Fn(&mut RedisServer) -> Result<(), String>,
    goes_on: impl Fn(u32, &Live) -> bool,
) {
    let mut server = durable_server();
    let store = open_several(server.url(), "p:", CONNECTIONS).await;
    let histories = start(store.clone(), plan(GROUPS, TIMEOUT));
    histories.until_sound(ENOUGH).await.unwrap();
    assert_eq!(histories.counts().failures(), 0, "a call failed before the first fault");
    restart(&histories, &mut server, end, goes_on, ENOUGH).await;
    finish(histories, &[ErrorKind::Unavailable], TIMEOUT).await;
    check_connections(&server, CONNECTIONS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_on_a_server_that_is_stopped_and_started_again() {
    // What is under way is mostly answered before.
    end_and_start_again(RedisServer::stop, |rounds, _| rounds < 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_on_a_server_that_is_killed_and_started_again() {
    end_and_start_again(RedisServer::kill, goes_on).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_on_a_server_that_hangs_for_longer_than_a_deadline() {
    let server = durable_server();
    let store = open_several(server.url(), "p:", CONNECTIONS).await;
    let histories = start(store.clone(), plan(GROUPS, SHORT));
    histories.until_sound(ENOUGH).await.unwrap();
    hang(&histories, &server, 20, ENOUGH).await;
    // The connections stand: what was given up is answered on them, and nobody is told.
    let report = finish(histories, &[ErrorKind::DeadlineExceeded], SHORT).await;
    assert!(report.unknown > 0, "no write was under way");
    check_connections(&server, CONNECTIONS).await;
}

/// How often connections were reset, before a write, after it, and within its answer.
type Cuts = Arc<[AtomicUsize; 3]>;

/// Resets the connection of one command in `one_in`, with each kind of cut in turn at random, until
/// there were `most` of each with a write.
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_where_connections_are_reset_around_commands() {
    let server = durable_server();
    let proxy = Proxy::before(&server).await;
    let store = open_several(&proxy.url(), "p:", CONNECTIONS).await;
    let histories = start(store.clone(), plan(GROUPS, TIMEOUT));
    histories.until_sound(ENOUGH).await.unwrap();
    assert_eq!(histories.counts().failures(), 0, "nothing has happened yet");
    for _ in 0..3 {
        let cuts = Cuts::default();
        proxy.judge(cut_at_random(&cuts, 20, 5));
        let all = || cuts.iter().all(|count| count.load(SeqCst) >= 5);
        histories.until("connections that are reset", all).await.unwrap();
        proxy.release();
        histories.until_sound(ENOUGH).await.unwrap();
    }
    let report = finish(histories, &[ErrorKind::Unavailable], TIMEOUT).await;
    assert!(report.unknown >= 3 * 5, "{} writes without an answer", report.unknown);
    assert!(proxy.open_connections() <= CONNECTIONS, "{}", proxy.open_connections());
    check_connections(&server, CONNECTIONS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_where_calls_are_given_up_and_connections_are_reset() {
    let server = durable_server();
    let proxy = Proxy::before(&server).await;
    let store = open_several(&proxy.url(), "p:", CONNECTIONS).await;
    // Calls are under way for about as long as the shortest of them last.
    proxy.delay(Duration::from_millis(1));
    let plan = plan(GROUPS, TIMEOUT).with_cancellations(4, Duration::from_millis(6));
    let histories = start(store.clone(), plan);
    histories.until_more(ENOUGH).await.unwrap();
    histories.until_failures(10).await.unwrap();
    let cuts = Cuts::default();
    proxy.judge(cut_at_random(&cuts, 40, 5));
    let all = || cuts.iter().all(|count| count.load(SeqCst) >= 5);
    histories.until("connections that are reset", all).await.unwrap();
    proxy.release();
    histories.until_more(2 * ENOUGH).await.unwrap();
    let report =
        finish(histories, &[ErrorKind::DeadlineExceeded, ErrorKind::Unavailable], TIMEOUT).await;
    assert!(report.failures_of(ErrorKind::Unavailable) > 0, "no call met a connection's end");
    assert!(report.unknown >= 5, "{} writes without an answer", report.unknown);
    check_connections(&server, CONNECTIONS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_where_the_server_ends_connections() {
    let server = durable_server();
    let store = open_several(server.url(), "p:", CONNECTIONS).await;
    let histories = start(store.clone(), plan(GROUPS, TIMEOUT));
    histories.until_sound(ENOUGH).await.unwrap();
    assert_eq!(histories.counts().failures(), 0, "nothing has happened yet");
    for _ in 0..40 {
        let list = cli(&server, &["CLIENT", "LIST"]);
        // The last is the one that asks.
        let count = list.lines().count() - 1;
        let lines: Vec<&str> = list.lines().take(count).collect();
        if let Some(line) = fastrand::choice(&lines) {
            let id = line.split(' ').next().and_then(|id| id.strip_prefix("id=")).unwrap();
            cli(&server, &["CLIENT", "KILL", "ID", id]);
        }
        histories.until_more(5).await.unwrap();
    }
    histories.until_sound(ENOUGH).await.unwrap();
    finish(histories, &[ErrorKind::Unavailable], TIMEOUT).await;
    check_connections(&server, CONNECTIONS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_with_many_callers_on_one_connection_to_a_slow_server() {
    let server = block_in_place(|| RedisServer::start_with(&["enable-debug-command yes"])).unwrap();
    let proxy = Proxy::before(&server).await;
    let store = open_several(&proxy.url(), "p:", 1).await;
    let histories = start(store.clone(), plan(6, SHORT));
    histories.until_sound(ENOUGH).await.unwrap();
    let mut hung = Vec::new();
    for millis in [1, 10, 0] {
        proxy.delay(Duration::from_millis(millis));
        histories.until_sound(ENOUGH).await.unwrap();
        let before = histories.counts().failures();
        // For twice as long as any call has time.
        cli(&server, &["DEBUG", "SLEEP", "0.6"]);
        histories.until_sound(ENOUGH).await.unwrap();
        hung.push((before, histories.counts().failures()));
    }
    for (before, after) in hung {
        assert!(after > before, "no call met a server that hangs");
    }
    let report = finish(histories, &[ErrorKind::DeadlineExceeded], SHORT).await;
    assert!(report.unknown > 0, "no write was under way");
    assert_eq!(proxy.connections(), 1, "the connection is as good as before");
    check_connections(&server, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_on_a_server_without_memory_which_goes_on_to_be_read() {
    let server = durable_server();
    let store = open_several(server.url(), "p:", CONNECTIONS).await;
    let histories = start(store.clone(), plan(GROUPS, TIMEOUT));
    histories.until_sound(ENOUGH).await.unwrap();
    assert_eq!(histories.counts().failures(), 0, "nothing has happened yet");
    for _ in 0..4 {
        cli(&server, &["CONFIG", "SET", "maxmemory", "1"]);
        until_refused_and_read(&histories).await;
        cli(&server, &["CONFIG", "SET", "maxmemory", "0"]);
        histories.until_sound(ENOUGH).await.unwrap();
    }
    assert_eq!(histories.counts().failed_reads, 0, "reads need no memory");
    let report = finish(histories, &[ErrorKind::ResourceExhausted], TIMEOUT).await;
    assert_eq!(report.unknown, 0, "what is refused had no effect");
    check_connections(&server, CONNECTIONS).await;
}
