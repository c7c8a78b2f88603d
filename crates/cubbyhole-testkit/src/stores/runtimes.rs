//! Calls outside the tokio runtime that a store was opened in: they are refused, and do not panic.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cubbyhole_core::{Backend, Error, ErrorKind, ExecutionContext, Result};
use tokio::runtime::{Builder, Runtime};

use crate::stores::helpers::{bytes, ctx, ns};

/// Returns a runtime of one thread. It handles no I/O between a call's first poll and its second.
#[must_use]
pub fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Returns a context without a deadline and one with a distant deadline.
#[must_use]
pub fn contexts() -> [ExecutionContext; 2] {
    let limited = ExecutionContext::new().with_timeout(Duration::from_secs(3_600));
    [ExecutionContext::new(), limited]
}

/// Polls a call outside any runtime, and returns its answer. The call must not wait.
pub fn outside<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("the call waits for something"),
    }
}

/// Asserts that a call was refused because it was made outside a runtime.
#[track_caller]
pub fn check_refused(error: Option<Error>) {
    let error = error.unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error:?}");
    assert!(error.message().contains("no tokio runtime"), "{error}");
    assert!(!error.may_have_been_applied(), "{error}");
}

/// Asserts that a store refuses calls outside its `runtime`, works again within it, and that a
/// refused `close` closes it nevertheless.
pub fn check_refuses_outside(runtime: &Runtime, store: &dyn Backend) {
    let acme = ns("acme");
    for ctx in contexts() {
        check_refused(outside(store.put(&ctx, &acme, "k", bytes("v"))).err());
        check_refused(outside(store.get(&ctx, &acme, "k")).err());
        check_refused(outside(store.compact(&ctx)).err());
    }
    assert_eq!(runtime.block_on(store.get(&ctx(), &acme, "k")).unwrap(), None);
    check_refused(outside(store.close(&ctx())).err());
    let closed = runtime.block_on(store.get(&ctx(), &acme, "k")).unwrap_err();
    assert_eq!(closed.message(), Error::closed().message());
}

/// Drops the runtime of a store, then a call that has begun, then the store.
pub fn drop_after_runtime(runtime: Runtime, store: impl Backend) {
    let (ctx, acme) = (ctx(), ns("acme"));
    let mut begun = store.put(&ctx, &acme, "k", bytes("v"));
    runtime.block_on(poll_fn(|cx| {
        assert!(begun.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    }));
    drop(runtime);
    drop(begun);
    drop(store);
}
