//! `Timeout`: which calls get which deadline, and the error when it passes.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::{
    Backend, Batch, Bytes, Condition, EntryStore, Error, ErrorKind, ExecutionContext, Expiry,
    GetOptions, Namespace, NamespacePrefix, PutOptions, RecursiveScanOptions, ScanOptions, Store,
};
use cubbyhole_layers::{Timeout, Timeouts};
use cubbyhole_memory::InMemoryStore;

use crate::KEY;
use crate::script::{Call, Script, Step};

const HOUR: Duration = Duration::from_secs(3_600);
const READ: Duration = Duration::from_secs(2 * 3_600);
const WRITE: Duration = Duration::from_secs(4 * 3_600);
const WALK: Duration = Duration::from_secs(6 * 3_600);

fn layer(timeouts: Timeouts) -> (Arc<Script>, Timeout<Arc<Script>>) {
    let script = Arc::<Script>::default();
    let store = Timeout::new(Arc::clone(&script), timeouts).unwrap();
    (script, store)
}

fn every_class() -> Timeouts {
    Timeouts::new().with_read(READ).with_write(WRITE).with_walk(WALK)
}

/// Makes every call, and passes the remaining time of its context to a check.
macro_rules! every_call {
    ($store:ident, $script:ident, $ctx:ident, $check:expr) => {{
        let (store, ctx, ns) = (&$store, &$ctx, &Namespace::parse("acme:agent-7").unwrap());
        let (value, prefix) = (Bytes::from("v"), &NamespacePrefix::from(ns.tenant()));
        let (plain, read) = (PutOptions::new(), GetOptions::new());
        let (always, all) = (Condition::Always, RecursiveScanOptions::new());
        let batch = Batch::new().put(KEY, value.clone());
        macro_rules! each {
            ($class:expr; $call:expr) => {
                $call.await.map(drop).unwrap();
                let calls = $script.take_calls();
                assert_eq!(calls.len(), 1);
                $check($class, calls[0]);
            };
        }
        each!(WRITE; store.put(ctx, ns, KEY, value.clone()));
        each!(WRITE; store.put_with_options(ctx, ns, KEY, value.clone(), plain));
        each!(WRITE; store.put_entry(ctx, ns, KEY, value.clone(), plain, always));
        each!(WRITE; store.write(ctx, ns, batch));
        each!(WRITE; store.touch(ctx, ns, KEY, Expiry::Never, always));
        each!(READ; store.get(ctx, ns, KEY));
        each!(READ; store.get_entry(ctx, ns, KEY, read));
        each!(READ; store.get_many(ctx, ns, &[KEY], read));
        each!(READ; store.stat(ctx, ns, &[KEY]));
        each!(READ; store.current_time(ctx, ns));
        each!(WALK; store.list(ctx, ns, None));
        each!(WALK; store.list_namespaces(ctx, prefix));
        each!(WALK; store.scan(ctx, ns, ScanOptions::new()));
        each!(WALK; store.scan_recursive(ctx, prefix, all));
        each!(WALK; store.scan_namespaces(ctx, prefix, None, 10));
        each!(WALK; store.scan_tenants(ctx, None, 10));
        each!(WALK; store.usage(ctx, prefix));
        each!(WRITE; store.take(ctx, ns, KEY));
        each!(WRITE; store.delete(ctx, ns, KEY));
        each!(WRITE; store.delete_entry(ctx, ns, KEY, always));
        each!(WALK; store.delete_prefix(ctx, ns, "", 10));
        each!(WALK; store.erase(ctx, prefix, 10));
        each!(WALK; store.evict_expired(ctx));
    }};
}

/// The deadline is set in this test, so less than an hour of the timeout has passed.
fn assert_limited(timeout: Duration, call: Call) {
    let remaining = call.remaining.unwrap();
    assert!(remaining <= timeout && remaining > timeout - HOUR, "{call:?}");
}

#[tokio::test]
async fn call_without_a_deadline_gets_the_timeout_of_its_class() {
    let (script, store) = layer(every_class());
    let ctx = ExecutionContext::new();
    every_call!(store, script, ctx, assert_limited);
}

#[tokio::test]
async fn class_without_a_timeout_gets_no_deadline() {
    let (script, store) = layer(Timeouts::new().with_write(WRITE));
    let ctx = ExecutionContext::new();
    every_call!(store, script, ctx, |class, call: Call| {
        match class {
            WRITE => assert_limited(WRITE, call),
            _ => assert_eq!(call.remaining, None, "{call:?}"),
        }
    });
}

#[tokio::test]
async fn deadline_of_the_caller_stays() {
    let (script, store) = layer(every_class());
    for theirs in [HOUR, 20 * HOUR] {
        let ctx = ExecutionContext::new().with_timeout(theirs);
        every_call!(store, script, ctx, |_, call| assert_limited(theirs, call));
    }
}

#[tokio::test]
async fn cancellation_reaches_a_call_with_a_timeout() {
    let ctx = ExecutionContext::new();
    let (script, store) = layer(every_class());
    let (cancelled, ns) = (ctx.clone(), Namespace::parse("acme").unwrap());
    script.then([Step::Meanwhile(Box::pin(async move { cancelled.cancel() })), Step::UntilEnded]);
    let error = store.get(&ctx, &ns, KEY).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Cancelled, "the call was cancelled"));
}

#[tokio::test(start_paused = true)]
async fn timeout_that_passes_is_named_by_the_error() {
    let second = Duration::from_secs(1);
    let timeouts = Timeouts::new().with_read(second).with_write(second * 2).with_walk(second * 3);
    let (script, store) = layer(timeouts);
    let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme").unwrap());
    script.then([Step::UntilEnded, Step::UntilEnded, Step::UntilEnded]);
    let read = store.get(&ctx, &ns, KEY).await.unwrap_err();
    let write = store.put(&ctx, &ns, KEY, Bytes::from("v")).await.unwrap_err();
    let walk = store.list(&ctx, &ns, None).await.unwrap_err();
    let texts = [&read, &write, &walk].map(ToString::to_string);
    assert_eq!(
        texts,
        [
            "get: the read timeout of 1s passed",
            "put: the write timeout of 2s passed",
            "list: the walk timeout of 3s passed",
        ]
    );
    assert_eq!(read.kind(), ErrorKind::DeadlineExceeded);
}

#[tokio::test(start_paused = true)]
async fn error_keeps_its_source_and_its_unknown_outcome() {
    let (script, store) = layer(every_class());
    let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme").unwrap());
    let passed = Error::deadline_exceeded().with_source(std::fmt::Error).with_unknown_outcome();
    script.then([Step::Fail(passed.clone())]);
    let error = store.put(&ctx, &ns, KEY, Bytes::from("v")).await.unwrap_err();
    assert!(error.may_have_been_applied());
    assert!(error.source().is_some());
    assert_eq!(error.message(), "the write timeout of 14400s passed");
    assert_eq!(error.operation(), Some("put"));

    // The deadline of the caller is not a timeout of the layer.
    let theirs = ExecutionContext::new().with_timeout(HOUR);
    script.then([Step::Fail(passed.clone())]);
    let error = store.put(&theirs, &ns, KEY, Bytes::from("v")).await.unwrap_err();
    assert_eq!(error.message(), passed.message());

    script.then([Step::Fail(Error::unavailable("the server is starting"))]);
    let error = store.put(&ctx, &ns, KEY, Bytes::from("v")).await.unwrap_err();
    assert_eq!(error.message(), "the server is starting");
}

#[test]
fn zero_timeout_is_refused_by_name() {
    let zero = Duration::ZERO;
    let timeouts = [
        (Timeouts::new().with_read(zero), "the read timeout"),
        (Timeouts::new().with_write(zero), "the write timeout"),
        (Timeouts::new().with_walk(zero), "the walk timeout"),
    ];
    for (timeouts, name) in timeouts {
        let error = timeouts.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().starts_with(name), "{error}");
        assert!(Timeout::new((), timeouts).is_err());
    }
}

#[tokio::test]
async fn close_and_compact_reach_the_store() {
    let (store, ctx) = (InMemoryStore::<Bytes>::new(), ExecutionContext::new());
    let store = Timeout::new(store, every_class()).unwrap();
    store.compact(&ctx).await.unwrap();
    store.close(&ctx).await.unwrap();
    let error = store.get(&ctx, &Namespace::parse("acme").unwrap(), KEY).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}
