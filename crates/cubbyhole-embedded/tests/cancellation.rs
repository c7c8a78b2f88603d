//! Dropped futures, cancelled contexts and deadlines at every await point.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cubbyhole_core::{
    Backend, Batch, Bytes, Condition, EntryStore, ErrorKind, ExecutionContext, Expiry, GetOptions,
    NamespacePrefix, PutOptions, RecursiveScanOptions, Result, ScanOptions, Store,
};
use cubbyhole_embedded::EmbeddedStore;
use support::{Disk, bytes, contents, ctx, ns, start};

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_queued_request_has_no_effect() {
    let disk = Disk::new();
    let store = disk.open().await;
    let gate = disk.shut_gate();
    let put = |key: &'static str, ctx: &ExecutionContext| {
        let (store, ctx) = (store.clone(), ctx.clone());
        start(async move { store.put(&ctx, &ns(), key, bytes("v")).await })
    };
    let in_flight_ctx = ctx();
    let in_flight = put("in-flight", &in_flight_ctx);
    disk.wait_for_blocked_sync().await;

    let waiting_ctx = ctx();
    let waiting = put("waiting", &waiting_ctx);
    let late = put("late", &ctx().with_timeout(Duration::from_millis(500)));
    drop(put("dropped", &ctx()));
    waiting_ctx.cancel();
    in_flight_ctx.cancel();

    // All three calls return while the writer is still blocked in its commit.
    let error = waiting.await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_been_applied()), (ErrorKind::Cancelled, false));
    let error = late.await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_been_applied()), (ErrorKind::DeadlineExceeded, false));
    let error = in_flight.await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_been_applied()), (ErrorKind::Cancelled, true));

    drop(gate);
    store.put(&ctx(), &ns(), "next", bytes("v")).await.unwrap();
    let keys: Vec<String> = contents(&store).await.into_keys().collect();
    assert_eq!(keys, ["in-flight", "next"]);
}

type Call = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// A call of every method, as futures that own their arguments.
fn calls(store: &EmbeddedStore, ctx: &ExecutionContext) -> Vec<Call> {
    macro_rules! call {
        (|$s:ident, $c:ident, $ns:ident| $body:expr) => {{
            let ($s, $c, $ns) = (store.clone(), ctx.clone(), ns());
            Box::pin(async move { $body.await.map(drop) }) as Call
        }};
    }
    let prefix = || NamespacePrefix::from(ns());
    let (prefix_1, prefix_2, prefix_3, prefix_4) = (prefix(), prefix(), prefix(), prefix());
    let prefix_5 = prefix();
    vec![
        call!(|s, c, n| s.put(&c, &n, "a", bytes("new"))),
        call!(|s, c, n| s.get(&c, &n, "a")),
        call!(|s, c, n| s.delete(&c, &n, "b")),
        call!(|s, c, n| s.list(&c, &n, None)),
        call!(|s, c, _n| s.list_namespaces(&c, &prefix_1)),
        call!(|s, c, _n| s.evict_expired(&c)),
        call!(|s, c, n| s.get_entry(
            &c,
            &n,
            "ttl",
            GetOptions::new().with_extended_ttl(Duration::from_secs(7200))
        )),
        call!(|s, c, n| s.get_many(&c, &n, &["a", "b"], GetOptions::new())),
        call!(|s, c, n| s.get_many(
            &c,
            &n,
            &["a", "ttl"],
            GetOptions::new().with_extended_ttl(Duration::from_secs(7200))
        )),
        call!(|s, c, n| s.stat(&c, &n, &["a", "b"])),
        call!(|s, c, n| s.put_entry(
            &c,
            &n,
            "c",
            bytes("new"),
            PutOptions::new(),
            Condition::Always
        )),
        call!(|s, c, n| s.delete_entry(&c, &n, "d", Condition::Always)),
        call!(|s, c, n| s.write(
            &c,
            &n,
            Batch::new().put("e", bytes("new")).put("f", bytes("new"))
        )),
        call!(|s, c, n| s.scan(&c, &n, ScanOptions::new())),
        call!(|s, c, n| s.scan(&c, &n, ScanOptions::new().reversed().refreshing())),
        call!(|s, c, _n| s.scan_recursive(&c, &prefix_5, RecursiveScanOptions::new())),
        call!(|s, c, _n| s.scan_namespaces(&c, &prefix_2, None, 10)),
        call!(|s, c, _n| s.scan_tenants(&c, None, 10)),
        call!(|s, c, n| s.touch(&c, &n, "a", Expiry::Never, Condition::Always)),
        call!(|s, c, n| s.take(&c, &n, "g")),
        call!(|s, c, n| s.delete_prefix(&c, &n, "d", 1)),
        call!(|s, c, _n| s.erase(&c, &prefix_3, 1)),
        call!(|s, c, _n| s.usage(&c, &prefix_4)),
    ]
}

async fn fill(store: &EmbeddedStore) {
    let old = |batch: Batch<Bytes>, key: &str| batch.put(key, bytes("old"));
    let batch = ["a", "b", "c", "d", "e", "f", "g"].into_iter().fold(Batch::new(), old);
    let options = PutOptions::new().with_ttl(Duration::from_secs(3600));
    let batch = batch.put_with("ttl", bytes("old"), options, Condition::Always);
    // Its refresh is due at any time.
    let ttl = Duration::from_secs(36_000);
    let expires_at = store.current_time(&ctx(), &ns()).await.unwrap();
    let expires_at = expires_at.checked_add(Duration::from_secs(3600)).unwrap();
    let options = PutOptions::new().with_expiry(Expiry::IdleUntil { ttl, expires_at });
    let batch = batch.put_with("idle", bytes("old"), options, Condition::Always);
    store.write(&ctx(), &ns(), batch).await.unwrap();
}

/// Checks that every value is an old or a new one, that batches are atomic, and that the store
/// works.
async fn check(store: &EmbeddedStore, acknowledged: &str) {
    let found = contents(store).await;
    assert_eq!(found.get("acknowledged"), Some(&bytes(acknowledged)));
    for value in found.values() {
        assert!([bytes("old"), bytes("new"), bytes(acknowledged)].contains(value));
    }
    assert_eq!(found.get("e"), found.get("f"), "a partial batch");
    assert_eq!(store.get(&ctx(), &ns(), "acknowledged").await.unwrap(), Some(bytes(acknowledged)));
}

async fn acknowledge(store: &EmbeddedStore, value: &str) {
    store.put(&ctx(), &ns(), "acknowledged", bytes(value)).await.unwrap();
}

/// Polls a future until it has been pending `budget` times, then drops it.
async fn poll_at_most(mut call: Call, budget: usize) -> bool {
    let pendings = AtomicUsize::new(0);
    std::future::poll_fn(|context: &mut Context<'_>| {
        if pendings.load(Ordering::Relaxed) == budget {
            return Poll::Ready(false);
        }
        match call.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending => {
                pendings.fetch_add(1, Ordering::Relaxed);
                // Polls again regardless of the future's own wake-ups.
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn future_dropped_at_any_await_keeps_store_consistent() {
    let disk = Disk::new();
    let store = disk.open().await;
    let count = calls(&store, &ctx()).len();
    for index in 0..count {
        for budget in 0..6 {
            fill(&store).await;
            let value = format!("{index}-{budget}");
            acknowledge(&store, &value).await;
            let call = calls(&store, &ctx()).swap_remove(index);
            poll_at_most(call, budget).await;
            if index == count - 2 {
                // The erasure may have removed the marker.
                acknowledge(&store, &value).await;
            }
            check(&store, &value).await;
        }
    }
    let kept = contents(&store).await;
    assert_eq!(contents(&disk.after_power_loss().open().await).await, kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn context_ended_at_any_await_keeps_store_consistent() {
    let disk = Disk::new();
    let store = disk.open().await;
    let count = calls(&store, &ctx()).len();
    for index in 0..count {
        for pendings_before in 0..4 {
            fill(&store).await;
            let value = format!("{index}-{pendings_before}");
            acknowledge(&store, &value).await;
            let call_ctx = ctx();
            let mut call = calls(&store, &call_ctx).swap_remove(index);
            let mut outcome = Poll::Pending;
            for _ in 0..pendings_before {
                outcome = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                if outcome.is_ready() {
                    break;
                }
            }
            if outcome.is_pending() {
                call_ctx.cancel();
                // A cancelled call returns promptly.
                let result = call.await;
                if let Err(error) = result {
                    assert_eq!(error.kind(), ErrorKind::Cancelled, "call {index}: {error}");
                }
            }
            if index == count - 2 {
                acknowledge(&store, &value).await;
            }
            check(&store, &value).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_deadlines_lose_no_acknowledged_write() {
    let folder = tempfile::tempdir().unwrap();
    let config = cubbyhole_embedded::Config::new(folder.path().join("s.redb"));
    let store = EmbeddedStore::open(&ctx(), config.clone()).await.unwrap();
    let tasks: Vec<_> = (0..16_usize)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                let key = format!("task-{task}");
                // The last acknowledged value, and the later ones with an unknown outcome.
                let mut possible = vec![None];
                for round in 0..60_u64 {
                    let micros = (task as u64 * 131 + round * 97) % 3000;
                    let ctx = ctx().with_timeout(Duration::from_micros(micros));
                    let value = bytes(&format!("{task}-{round}"));
                    match store.put(&ctx, &ns(), &key, value.clone()).await {
                        Ok(()) => possible = vec![Some(value)],
                        Err(error) if error.may_have_been_applied() => possible.push(Some(value)),
                        Err(_) => {}
                    }
                }
                (key, possible)
            })
        })
        .collect();
    let mut expected = Vec::new();
    for task in tasks {
        expected.push(task.await.unwrap());
    }
    drop(store);
    let store = EmbeddedStore::open(&ctx(), config).await.unwrap();
    for (key, possible) in expected {
        let found = store.get(&ctx(), &ns(), &key).await.unwrap();
        assert!(possible.contains(&found), "{key}: {found:?} is none of {possible:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_refuses_an_ended_context() {
    let store = Disk::new().open().await;
    fill(&store).await;
    let before = contents(&store).await;
    let cancelled = ctx();
    cancelled.cancel();
    for (index, call) in calls(&store, &cancelled).into_iter().enumerate() {
        let error = call.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "call {index}");
        assert!(!error.may_have_been_applied() && error.operation().is_some(), "call {index}");
    }
    assert_eq!(contents(&store).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn write_queued_after_close_fails_as_closed() {
    let disk = Disk::new();
    let store = disk.open().await;
    let gate = disk.shut_gate();
    let put = |key: &'static str| {
        let store = store.clone();
        start(async move { store.put(&ctx(), &ns(), key, bytes("v")).await })
    };
    let in_flight = put("in-flight");
    disk.wait_for_blocked_sync().await;
    let close = {
        let store = store.clone();
        start(async move { store.close(&ctx()).await })
    };
    let late = put("late");
    drop(gate);
    in_flight.await.unwrap();
    close.await.unwrap();
    let error = late.await.unwrap_err();
    let found = (error.kind(), error.may_have_been_applied());
    assert_eq!(found, (ErrorKind::InvalidArgument, false), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_context_opens_and_compacts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let config = cubbyhole_embedded::Config::new(&path);
    let cancelled = ctx();
    cancelled.cancel();
    let error = EmbeddedStore::open(&cancelled, config.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(!path.exists());

    let store = EmbeddedStore::open(&ctx(), config).await.unwrap();
    let fill = Batch::new().put("a", Bytes::from(vec![7; 1 << 20]));
    store.write(&ctx(), &ns(), fill).await.unwrap();
    store.delete(&ctx(), &ns(), "a").await.unwrap();
    let length = || std::fs::metadata(&path).unwrap().len();
    let before = length();
    let error = store.compact(&cancelled).await.unwrap_err();
    let found = (error.kind(), error.may_have_been_applied());
    assert_eq!(found, (ErrorKind::Cancelled, false));
    assert_eq!(length(), before);
    store.put(&ctx(), &ns(), "b", bytes("v")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sweep_cancelled_between_steps_has_unknown_outcome() {
    let disk = Disk::new();
    let clock = cubbyhole_core::ManualClock::default();
    let config = disk.config().with_clock(clock.clone());
    let store = EmbeddedStore::open(&ctx(), config).await.unwrap();
    for step in 0..2 {
        let batch = (0..1000).fold(Batch::new(), |writes, n| {
            let options = PutOptions::new().with_ttl(Duration::from_secs(1));
            writes.put_with(format!("{step}-{n}"), bytes("v"), options, Condition::Always)
        });
        store.write(&ctx(), &ns(), batch).await.unwrap();
    }
    clock.advance(Duration::from_secs(2));

    let gate = disk.shut_gate();
    let sweep_ctx = ctx();
    let sweep = {
        let (store, ctx) = (store.clone(), sweep_ctx.clone());
        start(async move { store.evict_expired(&ctx).await })
    };
    disk.wait_for_blocked_sync().await;
    drop(gate);
    // When this put returns, the first step of the sweep is committed, but the sweep was not polled
    // yet.
    store.put(&ctx(), &ns(), "after", bytes("v")).await.unwrap();
    sweep_ctx.cancel();
    let error = sweep.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(error.may_have_been_applied(), "{error}");
    let usage = store.usage(&ctx(), &NamespacePrefix::from(ns())).await.unwrap();
    assert_eq!((usage.entries, usage.expired), (1, 1000));
}
