//! Tests of `Limited`: rates, concurrency and bounded memory, with a manual clock.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use cubbyhole_core::{ErrorKind, ManualClock};
use cubbyhole_memory::InMemoryStore;
use tokio::sync::Semaphore;

use super::*;

type Memory = InMemoryStore<Bytes>;

const SECOND: Duration = Duration::from_secs(1);

fn ctx() -> ExecutionContext {
    ExecutionContext::new()
}

fn ns(name: &str) -> Namespace {
    Namespace::parse(name).unwrap()
}

fn limited(limits: Limits) -> (Limited<Memory>, ManualClock) {
    let clock = ManualClock::default();
    let inner = InMemoryStore::builder().with_value_size(Bytes::len).build();
    (Limited::with_clock(inner, limits, clock.clone()).unwrap(), clock)
}

async fn get(store: &impl Store<Bytes>, name: &str) -> Result<()> {
    store.get(&ctx(), &ns(name), "k").await.map(drop)
}

async fn refused(store: &impl Store<Bytes>, name: &str) -> Error {
    // One poll is enough, and an admitted call might wait indefinitely.
    let mut call = pin!(tokio::task::unconstrained(get(store, name)));
    let Poll::Ready(result) = futures_poll(call.as_mut()).await else { panic!("admitted") };
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::RateLimited, Some("get")));
    assert!(error.is_retryable() && !error.may_have_been_applied());
    error
}

#[tokio::test]
async fn rate_admits_the_burst_and_then_the_rate() {
    let (store, clock) = limited(Limits::new().with_rate(2, Some(3)));
    for _ in 0..3 {
        get(&store, "a").await.unwrap();
    }
    let error = refused(&store, "a").await;
    assert_eq!(error.retry_after(), Some(SECOND / 2));
    assert!(error.message().contains("more than 2 calls a second"), "{error}");
    assert!(error.message().contains("burst 3"), "{error}");

    clock.advance(Duration::from_millis(499));
    assert_eq!(refused(&store, "a").await.retry_after(), Some(Duration::from_millis(1)));
    clock.advance(Duration::from_millis(1));
    get(&store, "a").await.unwrap();
    refused(&store, "a").await;

    clock.advance(SECOND * 60);
    for _ in 0..3 {
        get(&store, "a").await.unwrap();
    }
    refused(&store, "a").await;
}

#[tokio::test]
async fn burst_without_a_size_is_the_rate() {
    let (store, _) = limited(Limits::new().with_rate(5, None));
    for _ in 0..5 {
        get(&store, "a").await.unwrap();
    }
    refused(&store, "a").await;
}

#[tokio::test]
async fn tenants_are_limited_separately_and_share_namespaces() {
    let (store, _) = limited(Limits::new().with_rate(1, None));
    let clone = store.clone();
    for (name, same) in [("a", "a:x:y"), ("ab", "ab:a"), (r"a\:b", r"a\:b:c"), (r"a\\", r"a\\:b")] {
        get(&store, name).await.unwrap();
        refused(&store, same).await;
        refused(&clone, name).await;
    }
}

#[tokio::test]
async fn every_call_of_a_tenant_counts_once() {
    let (ctx, ns) = (&ctx(), &ns("a:b"));
    let prefix = &NamespacePrefix::from(ns);
    let value = Bytes::new;
    for name in NAMES {
        let (store, _) = limited(Limits::new().with_rate(1, None));
        let call = async || -> Result<()> {
            match name {
                "put" => store.put(ctx, ns, "k", value()).await,
                "put_with_options" => {
                    store.put_with_options(ctx, ns, "k", value(), PutOptions::new()).await
                }
                "get" => store.get(ctx, ns, "k").await.map(drop),
                "delete" => store.delete(ctx, ns, "k").await,
                "list" => store.list(ctx, ns, None).await.map(drop),
                "list_namespaces" => store.list_namespaces(ctx, prefix).await.map(drop),
                "get_entry" => store.get_entry(ctx, ns, "k", GetOptions::new()).await.map(drop),
                "get_many" => {
                    store.get_many(ctx, ns, &["k", "l"], GetOptions::new()).await.map(drop)
                }
                "stat" => store.stat(ctx, ns, &["k", "l"]).await.map(drop),
                "put_entry" => {
                    let (options, condition) = (PutOptions::new(), Condition::Always);
                    store.put_entry(ctx, ns, "k", value(), options, condition).await.map(drop)
                }
                "delete_entry" => {
                    store.delete_entry(ctx, ns, "k", Condition::Always).await.map(drop)
                }
                "write" => {
                    let batch = Batch::new().put("k", value()).put("l", value());
                    store.write(ctx, ns, batch).await.map(drop)
                }
                "scan" => store.scan(ctx, ns, ScanOptions::new()).await.map(drop),
                "scan_recursive" => {
                    let options = RecursiveScanOptions::new();
                    store.scan_recursive(ctx, prefix, options).await.map(drop)
                }
                "scan_namespaces" => store.scan_namespaces(ctx, prefix, None, 1).await.map(drop),
                "touch" => {
                    let (expiry, condition) = (Expiry::Never, Condition::Always);
                    store.touch(ctx, ns, "k", expiry, condition).await.map(drop)
                }
                "take" => store.take(ctx, ns, "k").await.map(drop),
                "delete_prefix" => store.delete_prefix(ctx, ns, "", 1).await.map(drop),
                "erase" => store.erase(ctx, prefix, 1).await.map(drop),
                "usage" => store.usage(ctx, prefix).await.map(drop),
                "current_time" => store.current_time(ctx, ns).await.map(drop),
                _ => unreachable!(),
            }
        };
        call().await.unwrap();
        let error = call().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RateLimited, "{name}");
        let operation = if name == "put_with_options" { "put" } else { name };
        assert_eq!(error.operation(), Some(operation));
        // These name no tenant.
        for _ in 0..3 {
            store.scan_tenants(ctx, None, 1).await.unwrap();
            store.evict_expired(ctx).await.unwrap();
            store.compact(ctx).await.unwrap();
        }
        store.close(ctx).await.unwrap();
        store.close(ctx).await.unwrap();
    }
}

const NAMES: [&str; 21] = [
    "put",
    "put_with_options",
    "get",
    "delete",
    "list",
    "list_namespaces",
    "get_entry",
    "get_many",
    "stat",
    "put_entry",
    "delete_entry",
    "write",
    "scan",
    "scan_recursive",
    "scan_namespaces",
    "touch",
    "take",
    "delete_prefix",
    "erase",
    "usage",
    "current_time",
];

#[tokio::test]
async fn values_above_the_limit_are_refused_and_do_not_count() {
    let limits = Limits::new().with_value_bytes(4).with_rate(1, Some(4));
    let (store, _) = limited(limits);
    assert_eq!(store.max_value_bytes(), Some(4));
    let (ctx, ns) = (&ctx(), &ns("a"));
    let (options, condition) = (PutOptions::new(), Condition::Always);
    let long = || Bytes::from_static(b"SECRE");
    let batch = |value| Batch::new().put("k", Bytes::new()).put("l", value).delete("m");
    for _ in 0..2 {
        for error in [
            store.put(ctx, ns, "k", long()).await.unwrap_err(),
            store.put_with_options(ctx, ns, "k", long(), options).await.unwrap_err(),
            store.put_entry(ctx, ns, "k", long(), options, condition).await.unwrap_err(),
            store.write(ctx, ns, batch(long())).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.message().contains("5 bytes"), "{error}");
            assert!(error.message().contains("limit of 4"), "{error}");
            assert!(!format!("{error:?}").contains("SECRE"));
            assert!(error.operation().is_some());
        }
    }
    assert_eq!(store.inner().list(ctx, ns, None).await.unwrap(), [""; 0]);
    let fits = || Bytes::from_static(b"1234");
    store.put(ctx, ns, "k", fits()).await.unwrap();
    store.put_with_options(ctx, ns, "k", fits(), options).await.unwrap();
    store.put_entry(ctx, ns, "k", fits(), options, condition).await.unwrap();
    store.write(ctx, ns, batch(fits())).await.unwrap();
    refused(&store, "a").await;
}

#[test]
fn smaller_limit_for_values_is_shown() {
    let memory = || InMemoryStore::<Bytes>::builder().with_value_size(Bytes::len).build();
    let inner = memory().max_value_bytes().unwrap();
    let most = |store: Memory, limits| Limited::new(store, limits).unwrap().max_value_bytes();
    assert_eq!(most(memory(), Limits::new()), Some(inner));
    assert_eq!(most(memory(), Limits::new().with_value_bytes(9)), Some(9));
    assert_eq!(most(memory(), Limits::new().with_value_bytes(inner + 1)), Some(inner));
    assert_eq!(most(Memory::new(), Limits::new()), None);
    assert_eq!(most(Memory::new(), Limits::new().with_value_bytes(9)), Some(9));
}

/// A store whose `get` waits for a permit, and counts the calls that it sees.
struct Gate {
    inner: Memory,
    permits: Semaphore,
    seen: AtomicUsize,
}

#[async_trait]
impl Store<Bytes> for Gate {
    async fn get(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Bytes>> {
        self.seen.fetch_add(1, Ordering::SeqCst);
        self.permits.acquire().await.unwrap().forget();
        self.inner.get(ctx, ns, key).await
    }

    delegate!(Bytes, |layer| layer.inner =>
        put_with_options, delete, list, put, list_namespaces, evict_expired
    );
}

impl EntryStore<Bytes> for Gate {}

fn gated(limits: Limits) -> (Limited<Gate>, ManualClock) {
    let clock = ManualClock::default();
    let gate = Gate { inner: Memory::new(), permits: Semaphore::new(0), seen: AtomicUsize::new(0) };
    (Limited::with_clock(gate, limits, clock.clone()).unwrap(), clock)
}

/// Polls a call once.
macro_rules! start {
    ($call:expr) => {{
        let mut call = Box::pin($call);
        let first = futures_poll(call.as_mut()).await;
        assert!(first.is_pending());
        call
    }};
}

async fn futures_poll<F: Future>(mut call: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await
}

#[tokio::test]
async fn concurrency_admits_the_next_call_when_one_ends() {
    let (store, _) = gated(Limits::new().with_concurrency(2));
    let first = start!(get(&store, "a"));
    let second = start!(get(&store, "a:b"));
    let error = refused(&store, "a:c").await;
    assert_eq!(error.retry_after(), None);
    assert!(error.message().contains("2 calls"), "{error}");
    assert_eq!(store.inner().seen.load(Ordering::SeqCst), 2);

    // Another tenant is not affected.
    let other = start!(get(&store, "b"));

    store.inner().permits.add_permits(3);
    first.await.unwrap();
    second.await.unwrap();
    other.await.unwrap();
    let third = start!(get(&store, "a"));
    let fourth = start!(get(&store, "a"));
    refused(&store, "a").await;
    drop((third, fourth));
}

#[tokio::test]
async fn dropped_and_failed_calls_release_their_place() {
    let (store, _) = gated(Limits::new().with_concurrency(1));
    for _ in 0..3 {
        let call = start!(get(&store, "a"));
        refused(&store, "a").await;
        drop(call);
    }
    // A call that was never polled has no place.
    let unpolled = get(&store, "a");
    let call = start!(get(&store, "a"));
    drop(call);
    drop(unpolled);
    let unsupported = store.take(&ctx(), &ns("a"), "k").await.unwrap_err();
    assert_eq!(unsupported.kind(), ErrorKind::Unsupported);
    store.inner().permits.add_permits(1);
    get(&store, "a").await.unwrap();
}

#[tokio::test]
async fn refusal_for_concurrency_does_not_count_for_the_rate() {
    let (store, _) = gated(Limits::new().with_concurrency(1).with_rate(1, Some(2)));
    let call = start!(get(&store, "a"));
    for _ in 0..5 {
        assert_eq!(refused(&store, "a").await.retry_after(), None);
    }
    drop(call);
    drop(start!(get(&store, "a")));
    // A refusal for the rate releases its place.
    for _ in 0..2 {
        assert_eq!(refused(&store, "a").await.retry_after(), Some(SECOND));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_calls_get_exactly_the_burst() {
    let (store, _) = limited(Limits::new().with_rate(1, Some(100)).with_concurrency(1000));
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut admitted = 0;
                for _ in 0..100 {
                    admitted += usize::from(get(&store, "a").await.is_ok());
                }
                admitted
            })
        })
        .collect();
    let mut admitted = 0;
    for task in tasks {
        admitted += task.await.unwrap();
    }
    assert_eq!(admitted, 100);
}

#[tokio::test]
async fn states_of_idle_tenants_are_dropped() {
    for limits in [
        Limits::new().with_rate(1000, None),
        Limits::new().with_concurrency(1),
        Limits::new().with_rate(1000, None).with_concurrency(1),
    ] {
        let (store, clock) = limited(limits);
        let mut most = 0;
        for index in 0..100_000 {
            get(&store, &format!("t{index}")).await.unwrap();
            clock.advance(Duration::from_millis(1));
            most = most.max(store.tenants.len());
        }
        assert!(most <= 1024, "{limits:?} kept {most} states");
    }
}

#[tokio::test]
async fn states_in_use_are_kept() {
    let (store, clock) = gated(Limits::new().with_rate(1, None).with_concurrency(1));
    let call = start!(get(&store, "busy"));
    drop(start!(get(&store, "limited")));
    let mut others = Vec::new();
    for index in 0..10_000 {
        others.push(format!("t{index}"));
        drop(start!(get(&store, &others[index])));
    }
    assert_eq!(store.tenants.len(), 10_002);
    for name in &others {
        refused(&store, name).await;
    }
    refused(&store, "limited").await;
    assert_eq!(refused(&store, "busy").await.retry_after(), None);

    // After a second only the tenant with a call in flight differs from a new one.
    clock.advance(SECOND);
    let tenants = &store.tenants;
    for index in 0..10_000 {
        drop(tenants.admit(&format!("u{index}")).unwrap());
    }
    assert!(tenants.len() <= 20_002, "{}", tenants.len());
    assert_eq!(refused(&store, "busy").await.retry_after(), None);
    drop(call);
    get_starts(&store, "busy").await;
}

#[tokio::test]
async fn states_of_calls_in_flight_are_kept_without_a_rate() {
    let (store, _) = gated(Limits::new().with_concurrency(1));
    let call = start!(get(&store, "busy"));
    for index in 0..10_000 {
        drop(store.tenants.admit(&format!("t{index}")).unwrap());
    }
    assert!(store.tenants.len() <= 1024);
    refused(&store, "busy").await;
    drop(call);
    get_starts(&store, "busy").await;
}

async fn get_starts(store: &Limited<Gate>, name: &str) {
    drop(start!(get(store, name)));
}

#[tokio::test]
async fn no_limits_keep_no_state() {
    let (store, _) = limited(Limits::new());
    for index in 0..100 {
        get(&store, &format!("t{index}")).await.unwrap();
    }
    assert_eq!(store.tenants.len(), 0);
}

#[tokio::test]
async fn refused_calls_report_an_ended_context_first() {
    let (store, _) = limited(Limits::new().with_rate(1, None));
    get(&store, "a").await.unwrap();
    let ended = ctx();
    ended.cancel();
    let error = store.get(&ended, &ns("a"), "k").await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Cancelled, Some("get")));
}

#[tokio::test]
async fn refusals_let_other_tasks_run() {
    let (store, _) = limited(Limits::new().with_rate(1, None));
    get(&store, "a").await.unwrap();
    let mut calls = pin!(async {
        for _ in 0..100_000 {
            get(&store, "a").await.unwrap_err();
        }
    });
    assert!(futures_poll(calls.as_mut()).await.is_pending());
}

#[test]
fn limit_of_zero_is_refused_by_name() {
    let limits = Limits::new();
    for (limits, name) in [
        (limits.with_value_bytes(0), "value_bytes"),
        (limits.with_rate(0, None), "rate"),
        (limits.with_rate(1, Some(0)), "burst"),
        (limits.with_concurrency(0), "concurrency"),
    ] {
        for error in [limits.check().unwrap_err(), Limited::new((), limits).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.message().contains(&format!("`{name}`")), "{error}");
        }
    }
    limits.with_rate(u32::MAX, Some(u32::MAX)).check().unwrap();
}
