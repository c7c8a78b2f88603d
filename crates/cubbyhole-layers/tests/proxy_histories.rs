//! `Retry` over PostgreSQL and Redis, behind a proxy that drops answers.
//!
//! The server receives a request and answers it. The proxy resets the connection instead of passing
//! the answer on, so a write was applied and its outcome is unknown.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic fails the test that calls a helper"
)]
#![cfg(unix)]

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cubbyhole_conformance::history::{Failure, Live, Plan};
use cubbyhole_core::{
    Bytes, Condition, EntryStore, ErrorKind, ExecutionContext, Namespace, PutOptions, TenantId,
};
use cubbyhole_layers::{Retry, RetryOptions};
use cubbyhole_postgres::PostgresStore;
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::proxy::{Gate, Protocol, Proxy};
use cubbyhole_testkit::shared::PASSWORD;
use cubbyhole_testkit::{PostgresServer, RedisServer};
use tokio::task::block_in_place;

/// No call reaches this deadline, even on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The number of successful calls of each kind before and after the faults.
const CALLS: u64 = 100;
/// The number of answers that are dropped during histories.
const DROPPED: usize = 60;

/// Drops the answer of one request in `one_in`, until no drop is left.
struct DropAnswers {
    one_in: u32,
    random: Mutex<fastrand::Rng>,
    left: AtomicUsize,
}

impl Protocol for DropAnswers {
    fn judge(&self, _: &mut Vec<u8>) -> Gate {
        let is_drawn = self.random.lock().unwrap().u32(..self.one_in) == 0;
        let take = |left: usize| left.checked_sub(1);
        if is_drawn && self.left.fetch_update(SeqCst, SeqCst, take).is_ok() {
            return Gate::CutAfter;
        }
        Gate::Pass
    }
}

async fn proxy_before(port: u16, one_in: u32) -> Proxy<DropAnswers> {
    let random = Mutex::new(fastrand::Rng::with_seed(7));
    let drops = DropAnswers { one_in, random, left: AtomicUsize::new(0) };
    Proxy::start(format!("127.0.0.1:{port}"), drops).await
}

fn drop_answers(proxy: &Proxy<DropAnswers>, count: usize) {
    proxy.protocol().left.store(count, SeqCst);
}

fn answers_left(proxy: &Proxy<DropAnswers>) -> usize {
    proxy.protocol().left.load(SeqCst)
}

fn with_retries<S: EntryStore<Bytes>>(store: S) -> Arc<dyn EntryStore<Bytes>> {
    // A new connection takes several requests, each of which may lose its answer again.
    let options = RetryOptions::new()
        .with_budget(1.0)
        .with_reserve(1_000_000)
        .with_max_attempts(100)
        .with_max_backoff(Duration::from_millis(20));
    Arc::new(Retry::new(store, options).unwrap())
}

/// Runs histories while answers are dropped. They are linearizable, and calls succeed again.
async fn histories(store: &Arc<dyn EntryStore<Bytes>>, proxy: &Proxy<DropAnswers>) {
    let tenant = TenantId::new("histories").unwrap();
    let histories = Live::start(store, Plan::new(tenant, 7).with_faults(TIMEOUT));
    histories.until_sound(CALLS).await.unwrap();
    assert_eq!(histories.counts().failures(), 0, "a call failed before the first fault");
    drop_answers(proxy, DROPPED);
    histories.until("dropped answers", || answers_left(proxy) == 0).await.unwrap();
    histories.until_sound(CALLS).await.unwrap();
    let report = histories.finish().await.unwrap();
    if let Err(explanation) = report.verdict() {
        panic!("{explanation}");
    }
    // Deletes and takes of unknown outcome are returned. Nothing else fails.
    report.check_failures(&[ErrorKind::Unavailable], TIMEOUT).unwrap();
    let unknown = |failure: &Failure| failure.error.may_have_been_applied();
    assert!(report.failures.iter().all(unknown), "a certain failure was not repeated");
}

/// Only one client writes, so every conditional put can be settled.
async fn conditional_puts(store: &Arc<dyn EntryStore<Bytes>>, proxy: &Proxy<DropAnswers>) {
    let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme:agent-7").unwrap());
    let (value, plain, always) = (Bytes::from("0"), PutOptions::new(), Condition::Always);
    let mut version = store.put_entry(&ctx, &ns, "k", value, plain, always).await.unwrap();
    drop_answers(proxy, usize::MAX);
    for number in 1..=150_u32 {
        let (value, held) = (Bytes::from(number.to_string()), Condition::IfVersion(version));
        version = store.put_entry(&ctx, &ns, "k", value, plain, held).await.unwrap();
    }
    let dropped = usize::MAX - answers_left(proxy);
    drop_answers(proxy, 0);
    assert!(dropped >= 10, "{dropped} answers were dropped");
    assert_eq!(store.get(&ctx, &ns, "k").await.unwrap(), Some(Bytes::from("150")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_over_postgres_settle_dropped_answers() {
    let server = block_in_place(PostgresServer::start).unwrap();
    let ctx = ExecutionContext::new();
    let admin = cubbyhole_postgres::Config::from_url(server.url()).unwrap();
    let admin = admin.with_schema("retries").unwrap();
    cubbyhole_postgres::migrate(&ctx, &admin).await.unwrap();
    let login = format!("CREATE ROLE login LOGIN PASSWORD '{PASSWORD}' IN ROLE retries_app");
    block_in_place(|| server.psql(&login)).unwrap();

    let proxy = proxy_before(server.port(), 8).await;
    let address = proxy.address();
    let url = format!("postgres://login:{PASSWORD}@{address}/postgres?schema=retries&pool_size=4");
    let config = cubbyhole_postgres::Config::from_url(&url).unwrap();
    let store = with_retries(PostgresStore::open(&ctx, config).await.unwrap());
    histories(&store, &proxy).await;
    conditional_puts(&store, &proxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_over_redis_settle_dropped_answers() {
    let server = block_in_place(RedisServer::start).unwrap();
    let proxy = proxy_before(server.port(), 8).await;
    let url = format!("redis://{}", proxy.address());
    let config = cubbyhole_redis::Config::from_url(&url).unwrap().with_connections(3);
    let store = RedisStore::open(&ExecutionContext::new(), config).await.unwrap();
    let store = with_retries(store);
    histories(&store, &proxy).await;
    conditional_puts(&store, &proxy).await;
}
