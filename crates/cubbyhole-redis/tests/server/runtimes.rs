//! Outside the runtime that a store was opened in: calls are refused, and nothing panics.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cubbyhole_core::{Backend, Error, ErrorKind, ExecutionContext, Result, Store};
use cubbyhole_redis::{RedisStore, diagnose, repair};
use cubbyhole_testkit::RedisServer;
use tokio::runtime::{Builder, Runtime};

use crate::by_hand::{bytes, config, ctx, ns, open};

/// With one thread, so that nothing is answered while a call is polled for the first time.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// The answer of a call that is made outside any runtime: it comes without waiting.
fn outside<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("the call waits for something"),
    }
}

#[track_caller]
fn refused(error: Option<Error>) {
    let error = error.unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error:?}");
    assert!(error.message().contains("no tokio runtime"), "{error}");
    assert!(!error.may_have_been_applied(), "{error}");
}

fn contexts() -> [ExecutionContext; 2] {
    [ExecutionContext::new(), ExecutionContext::new().with_timeout(Duration::from_secs(3_600))]
}

#[test]
fn calls_outside_a_runtime_are_refused() {
    let runtime = runtime();
    let server = RedisServer::start().unwrap();
    let store = runtime.block_on(open(server.url(), "p:"));
    for ctx in contexts() {
        refused(outside(RedisStore::open(&ctx, config(server.url(), "p:"))).err());
        refused(outside(diagnose(&ctx, &config(server.url(), "p:"))).err());
        refused(outside(repair(&ctx, config(server.url(), "p:"))).err());
        refused(outside(store.put(&ctx, &ns("acme"), "k", bytes("v"))).err());
        refused(outside(store.get(&ctx, &ns("acme"), "k")).err());
        refused(outside(store.compact(&ctx)).err());
    }
    assert_eq!(runtime.block_on(store.get(&ctx(), &ns("acme"), "k")).unwrap(), None);
    refused(outside(store.close(&ctx())).err());
    // It is closed all the same.
    let closed = runtime.block_on(store.get(&ctx(), &ns("acme"), "k")).unwrap_err();
    assert_eq!(closed.message(), Error::closed().message());
    drop(store);
}

/// A store, and a call that was begun, are dropped after their runtime, on a thread without one.
#[test]
fn what_outlives_its_runtime_is_dropped_without_a_panic() {
    let (runtime, ctx, ns) = (runtime(), ctx(), ns("acme"));
    let server = RedisServer::start().unwrap();
    let store = runtime.block_on(open(server.url(), "p:"));
    let mut begun = store.put(&ctx, &ns, "k", bytes("v"));
    runtime.block_on(poll_fn(|cx| {
        assert!(begun.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    }));
    drop(runtime);
    drop(begun);
    drop(store);
}
