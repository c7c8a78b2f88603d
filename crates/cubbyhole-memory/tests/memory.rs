//! Tests that apply to the in-memory store only. The conformance suite tests the contract.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is a failed test")]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cubbyhole_core::{
    Backend, Bytes, EntryStore, EntryStoreExt, ErrorKind, ExecutionContext, Namespace,
    NamespacePrefix, PutOptions, Store,
};
use cubbyhole_memory::InMemoryStore;

fn ns() -> Namespace {
    Namespace::parse("acme:agent-7").unwrap()
}

/// Returns the result of a call that is ready without a runtime.
fn ready<T>(call: impl Future<Output = T>) -> T {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("the call is not ready"),
    }
}

#[test]
fn get_allocates_only_its_boxed_future() {
    let (store, ctx, ns) = (InMemoryStore::<u64>::new(), ExecutionContext::new(), ns());
    for n in 0..1000 {
        ready(store.put(&ctx, &ns, &format!("key-{n}"), n)).unwrap();
    }
    let options = PutOptions::new().with_ttl(Duration::from_secs(60));
    ready(store.put_with_options(&ctx, &ns, "expiring", 7, options)).unwrap();
    for (key, expected) in [("key-500", Some(500)), ("expiring", Some(7)), ("absent", None)] {
        let mut found = None;
        let counts = allocation_counter::measure(|| {
            found = ready(store.get(&ctx, &ns, key)).unwrap();
        });
        assert_eq!(found, expected);
        assert_eq!(counts.count_total, 1, "{key}");
    }
}

#[test]
fn every_call_is_ready_without_a_runtime() {
    let (store, ctx, ns) = (InMemoryStore::<String>::new(), ExecutionContext::new(), ns());
    let prefix = NamespacePrefix::from(&ns);
    ready(store.put(&ctx, &ns, "a", "v".to_owned())).unwrap();
    assert_eq!(ready(store.get(&ctx, &ns, "a")).unwrap().as_deref(), Some("v"));
    assert_eq!(ready(store.list(&ctx, &ns, None)).unwrap(), ["a"]);
    assert_eq!(ready(store.list_namespaces(&ctx, &prefix)).unwrap(), std::slice::from_ref(&ns));
    assert_eq!(ready(store.evict_expired(&ctx)).unwrap(), 0);
    assert!(ready(store.erase(&ctx, &prefix, 1)).unwrap().done);
}

/// Counts how often a value is cloned. A read clones the values that it reads.
struct Counted(Arc<AtomicUsize>);

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

#[test]
fn last_entries_of_a_long_sequence_are_the_only_ones_read() {
    let (store, ctx, ns) = (InMemoryStore::new(), ExecutionContext::new(), ns());
    let clones = Arc::new(AtomicUsize::new(0));
    for n in 0..10_000 {
        let turn = Counted(Arc::clone(&clones));
        ready(store.put(&ctx, &ns, &format!("turn-{n:020}"), turn)).unwrap();
    }
    clones.store(0, Ordering::Relaxed);
    let items = ready(store.last(&ctx, &ns, "turn-", 20)).unwrap();
    assert_eq!((items.len(), items[19].key.as_str()), (20, "turn-00000000000000009999"));
    assert_eq!(clones.load(Ordering::Relaxed), 20);
}

#[test]
fn overflowing_ttl_is_an_error() {
    let (store, ctx) = (InMemoryStore::<u8>::new(), ExecutionContext::new());
    for ttl in [Duration::MAX, Duration::from_secs(u64::MAX / 2), Duration::ZERO] {
        let options = PutOptions::new().with_ttl(ttl);
        let error = ready(store.put_with_options(&ctx, &ns(), "a", 1, options)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{ttl:?}");
    }
    assert_eq!(ready(store.get(&ctx, &ns(), "a")).unwrap(), None);
}

#[test]
fn clones_share_entries() {
    let (store, ctx) = (InMemoryStore::<u8>::new(), ExecutionContext::new());
    ready(store.clone().put(&ctx, &ns(), "a", 1)).unwrap();
    assert_eq!(ready(store.get(&ctx, &ns(), "a")).unwrap(), Some(1));
}

/// A value that calls the store when it is dropped, as a value with a handle might.
#[derive(Clone)]
struct CallsStoreOnDrop(Arc<(InMemoryStore<CallsStoreOnDrop>, AtomicBool)>);

impl Drop for CallsStoreOnDrop {
    fn drop(&mut self) {
        let (store, dropped) = &*self.0;
        let _ = ready(store.list(&ExecutionContext::new(), &ns(), None));
        dropped.store(true, Ordering::SeqCst);
    }
}

#[test]
fn values_are_dropped_after_the_lock_is_released() {
    let ctx = ExecutionContext::new();
    let store = InMemoryStore::<CallsStoreOnDrop>::new();
    let watch = Arc::new((store.clone(), AtomicBool::new(false)));
    let dropped = || watch.1.swap(false, Ordering::SeqCst);
    let value = || CallsStoreOnDrop(Arc::clone(&watch));

    ready(store.put(&ctx, &ns(), "a", value())).unwrap();
    ready(store.put(&ctx, &ns(), "a", value())).unwrap();
    assert!(dropped());
    ready(store.delete(&ctx, &ns(), "a")).unwrap();
    assert!(dropped());
    ready(store.put(&ctx, &ns(), "a", value())).unwrap();
    ready(store.erase(&ctx, &ns().into(), 10)).unwrap();
    assert!(dropped());
}

#[test]
fn closed_store_refuses_calls() {
    let (store, ctx) = (InMemoryStore::<Bytes>::new(), ExecutionContext::new());
    ready(store.put(&ctx, &ns(), "a", Bytes::new())).unwrap();
    ready(store.close(&ctx)).unwrap();
    ready(store.close(&ctx)).unwrap();
    let error = ready(store.get(&ctx, &ns(), "a")).unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::InvalidArgument, Some("get")));
}
