//! Calls outside a tokio runtime: they work, or return an error that says so.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use cubbyhole_core::ErrorKind;

use crate::Sample;
use crate::calls::{CallTarget, MethodCall};
use crate::case::cases;
use crate::outcome::{Outcome, Stop};
use crate::world::World;

cases! {
    /// Without a tokio runtime, a call of `Store` works or returns `InvalidArgument`, with and
    /// without a deadline. It never panics.
    #[case(tenant, core)]
    async fn core_calls_work_or_return_invalid_argument<V: Sample>(w: &World<V>) -> Outcome {
        let target = w.target()?;
        w.put(&target.ns, "k", 1).await?;
        for target in with_and_without_deadline(target) {
            all_work_or_fail(&target.core())?;
        }
        Ok(())
    }

    /// Without a tokio runtime, a call of `EntryStore` works or returns `InvalidArgument`, with and
    /// without a deadline. It never panics.
    #[case(tenant, entry)]
    async fn entry_calls_work_or_return_invalid_argument<V: Sample>(w: &World<V>) -> Outcome {
        let target = w.target()?;
        w.put(&target.ns, "k", 1).await?;
        w.live(&target.ns, "k").await?;
        for target in with_and_without_deadline(target) {
            all_work_or_fail(&target.entries())?;
            // The result is not checked: not every role is allowed to see across tenants.
            let _ = outside_runtime(&target.tenants())?;
        }
        Ok(())
    }
}

fn with_and_without_deadline<V: Sample>(target: CallTarget<V>) -> [CallTarget<V>; 2] {
    let ctx = target.ctx.clone().with_timeout(Duration::from_secs(3_600));
    let limited = CallTarget {
        store: Arc::clone(&target.store),
        ctx,
        ns: target.ns.clone(),
        empty_prefix: target.empty_prefix.clone(),
    };
    [target, limited]
}

fn all_work_or_fail(calls: &[MethodCall<'_>]) -> Outcome {
    for call in calls {
        match outside_runtime(call)? {
            Err(error) if error.kind() != ErrorKind::InvalidArgument => {
                return Err(Stop::unexpected(
                    error,
                    format!(
                        "without a runtime, `{}` must work or be an invalid argument, not",
                        call.name
                    ),
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes a call on a thread without a runtime.
fn outside_runtime(call: &MethodCall<'_>) -> Outcome<cubbyhole_core::Result<()>> {
    let result = thread::scope(|scope| scope.spawn(|| block_on(call.make())).join());
    let result =
        result.map_err(|_| Stop::failed(format!("`{}` panics without a runtime", call.name)))?;
    result.ok_or_else(|| Stop::failed(format!("`{}` hangs without a runtime", call.name)))
}

/// Runs a future without a runtime. Returns `None` if it does not end.
fn block_on<F: Future>(future: F) -> Option<F::Output> {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    for _ in 0..10_000 {
        if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(result);
        }
        thread::park_timeout(Duration::from_secs(1));
    }
    None
}
