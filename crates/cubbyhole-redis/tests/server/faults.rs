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

use cubbyhole_conformance::history::Report;
use cubbyhole_core::{ErrorKind, Namespace};
use cubbyhole_test_servers::RedisServer;
use tokio::task::block_in_place;

use crate::by_hand::{cli, open_several, until};
use crate::histories::{Histories, count, plan};
use crate::proxy::{Command, Gate, Proxy, is_write};

const GROUPS: usize = 2;
const CONNECTIONS: usize = 3;
/// The deadline of the calls, except where a server hangs for longer than that.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Where a server hangs.
const SHORT: Duration = Duration::from_millis(300);
/// How many calls must be answered, of each kind, before, between and after the faults.
const ENOUGH: usize = 200;

fn as_it_is(name: &Namespace) -> Namespace {
    name.clone()
}

/// A server that loses nothing that it acknowledged.
fn durable_server() -> RedisServer {
    block_in_place(|| RedisServer::start_with(&["appendonly yes", "appendfsync always"])).unwrap()
}

/// The connections of the store, which are as many as it may have at most.
async fn check_connections(server: &RedisServer, most: usize) {
    // The last is the one that asks.
    let count = || cli(server, &["CLIENT", "LIST"]).lines().count() - 1;
    until("the end of the connections before", async || count() <= most).await;
    assert!(count() > 0, "the store has none");
}

/// All failures are of these kinds, and there are some of each.
fn check_kinds(report: &Report, kinds: &[ErrorKind]) {
    for failure in &report.failures {
        assert!(kinds.contains(&failure.error.kind()), "{:?}", failure.error);
    }
    for kind in kinds {
        assert!(count(report, *kind) > 0, "no call failed as {kind:?}");
    }
}

/// Nothing has failed so far.
fn check_sound(histories: &Histories) {
    assert_eq!(histories.failures(), [0, 0], "calls fail and nothing has happened yet");
}

async fn end_and_start_again(end: impl Fn(&mut RedisServer) -> Result<(), String>) -> Report {
    let mut server = durable_server();
    let store = open_several(server.url(), "p:", CONNECTIONS).await;
    let histories = Histories::start(&store, plan(GROUPS, TIMEOUT), TIMEOUT, as_it_is);
    histories.until_sound(ENOUGH).await;
    check_sound(&histories);
    for _ in 0..4 {
        block_in_place(|| end(&mut server)).unwrap();
        histories.until_failures(20).await;
        block_in_place(|| server.start_again()).unwrap();
        histories.until_sound(ENOUGH).await;
    }
    let report = histories.finish().await;
    check_kinds(&report, &[ErrorKind::Unavailable]);
    check_connections(&server, CONNECTIONS).await;
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_on_a_server_that_is_stopped_and_started_again() {
    end_and_start_again(RedisServer::stop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_on_a_server_that_is_killed_and_started_again() {
    let report = end_and_start_again(RedisServer::kill).await;
    assert!(report.unknown > 0, "no write was under way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_on_a_server_that_hangs_for_longer_than_a_deadline() {
    let server = durable_server();
    let store = open_several(server.url(), "p:", CONNECTIONS).await;
    let histories = Histories::start(&store, plan(GROUPS, SHORT), SHORT, as_it_is);
    histories.until_sound(ENOUGH).await;
    for _ in 0..3 {
        block_in_place(|| server.pause()).unwrap();
        // Each client more than once: what was called while it hangs is among them.
        histories.until_failures(20).await;
        block_in_place(|| server.resume()).unwrap();
        histories.until_sound(ENOUGH).await;
    }
    let report = histories.finish().await;
    // The connections stand: what was given up is answered on them, and nobody is told.
    check_kinds(&report, &[ErrorKind::DeadlineExceeded]);
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
    let histories = Histories::start(&store, plan(GROUPS, TIMEOUT), TIMEOUT, as_it_is);
    histories.until_sound(ENOUGH).await;
    check_sound(&histories);
    for _ in 0..3 {
        let cuts = Cuts::default();
        proxy.judge(cut_at_random(&cuts, 20, 5));
        let all = || cuts.iter().all(|count| count.load(SeqCst) >= 5);
        histories.until("connections that are reset", all).await;
        proxy.release();
        histories.until_sound(ENOUGH).await;
    }
    let report = histories.finish().await;
    check_kinds(&report, &[ErrorKind::Unavailable]);
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
    let plan = plan(GROUPS, TIMEOUT).cutting_short(4, Duration::from_millis(6));
    let histories = Histories::start(&store, plan, TIMEOUT, as_it_is);
    histories.until_more(ENOUGH).await;
    histories.until_failures(10).await;
    let cuts = Cuts::default();
    proxy.judge(cut_at_random(&cuts, 40, 5));
    let all = || cuts.iter().all(|count| count.load(SeqCst) >= 5);
    histories.until("connections that are reset", all).await;
    proxy.release();
    histories.until_more(2 * ENOUGH).await;
    let report = histories.finish().await;
    check_kinds(&report, &[ErrorKind::DeadlineExceeded, ErrorKind::Unavailable]);
    assert!(report.unknown >= 5, "{} writes without an answer", report.unknown);
    check_connections(&server, CONNECTIONS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_where_the_server_ends_connections() {
    let server = durable_server();
    let store = open_several(server.url(), "p:", CONNECTIONS).await;
    let histories = Histories::start(&store, plan(GROUPS, TIMEOUT), TIMEOUT, as_it_is);
    histories.until_sound(ENOUGH).await;
    check_sound(&histories);
    for _ in 0..40 {
        let list = cli(&server, &["CLIENT", "LIST"]);
        // The last is the one that asks.
        let count = list.lines().count() - 1;
        let lines: Vec<&str> = list.lines().take(count).collect();
        if let Some(line) = fastrand::choice(&lines) {
            let id = line.split(' ').next().and_then(|id| id.strip_prefix("id=")).unwrap();
            cli(&server, &["CLIENT", "KILL", "ID", id]);
        }
        histories.until_more(5).await;
    }
    histories.until_sound(ENOUGH).await;
    let report = histories.finish().await;
    check_kinds(&report, &[ErrorKind::Unavailable]);
    check_connections(&server, CONNECTIONS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_with_many_callers_on_one_connection_to_a_slow_server() {
    let server = block_in_place(|| RedisServer::start_with(&["enable-debug-command yes"])).unwrap();
    let proxy = Proxy::before(&server).await;
    let store = open_several(&proxy.url(), "p:", 1).await;
    let histories = Histories::start(&store, plan(6, SHORT), SHORT, as_it_is);
    histories.until_sound(ENOUGH).await;
    let mut hung = Vec::new();
    for millis in [1, 10, 0] {
        proxy.delay(Duration::from_millis(millis));
        histories.until_sound(ENOUGH).await;
        let before = histories.failures();
        // For twice as long as any call has time.
        cli(&server, &["DEBUG", "SLEEP", "0.6"]);
        histories.until_sound(ENOUGH).await;
        hung.push((before, histories.failures()));
    }
    let report = histories.finish().await;
    for (before, after) in hung {
        assert!(after[0] + after[1] > before[0] + before[1], "{before:?} {after:?}");
    }
    check_kinds(&report, &[ErrorKind::DeadlineExceeded]);
    assert!(report.unknown > 0, "no write was under way");
    assert_eq!(proxy.connections(), 1, "the connection is as good as before");
    check_connections(&server, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_on_a_server_without_memory_which_goes_on_to_be_read() {
    let server = durable_server();
    let store = open_several(server.url(), "p:", CONNECTIONS).await;
    let histories = Histories::start(&store, plan(GROUPS, TIMEOUT), TIMEOUT, as_it_is);
    histories.until_sound(ENOUGH).await;
    check_sound(&histories);
    for _ in 0..4 {
        cli(&server, &["CONFIG", "SET", "maxmemory", "1"]);
        let ([_, refused], [reads, _]) = (histories.failures(), histories.answers());
        histories.until("refusals", || histories.failures()[1] >= refused + 20).await;
        histories.until("reads", || histories.answers()[0] >= reads + 2 * ENOUGH).await;
        cli(&server, &["CONFIG", "SET", "maxmemory", "0"]);
        histories.until_sound(ENOUGH).await;
    }
    assert_eq!(histories.failures()[0], 0, "reads need no memory");
    let report = histories.finish().await;
    check_kinds(&report, &[ErrorKind::ResourceExhausted]);
    assert_eq!(report.unknown, 0, "what is refused had no effect");
    check_connections(&server, CONNECTIONS).await;
}
