//! Calls outside any tokio runtime: they work, or are refused with an error that says so.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use cubbyhole_core::ErrorKind;

use crate::calls::{MethodCall, CallTarget};
use crate::case::cases;
use crate::outcome::{Outcome, Stop};
use crate::Sample;
use crate::world::World;

cases! {
    /// Without a tokio runtime, a call of `Store` works or returns `InvalidArgument`, with and
    /// without a deadline. It never panics.
    #[case(tenant, core)]
    async fn core_calls_work_or_return_invalid_argument<V: Sample>(w: &World<V>) -> Outcome {
        let target = w.target()?;
        w.put(&target.ns, "k", 1).await?;
        for target in with_and_without_deadline(target) {
            all_answer(&target.core())?;
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
            all_answer(&target.entries())?;
            // Some roles may not see across tenants.
            let _ = outside(&target.tenants())?;
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

fn all_answer(calls: &[MethodCall<'_>]) -> Outcome {
    for call in calls {
        match outside(call)? {
            Err(error) if error.kind() != ErrorKind::InvalidArgument => {
                return Err(Stop::unexpected(error, format!("`{}` without a runtime", call.name)));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes a call on a thread without a runtime.
fn outside(call: &MethodCall<'_>) -> Outcome<cubbyhole_core::Result<()>> {
    let answer = thread::scope(|scope| scope.spawn(|| block_on(call.make())).join());
    let answer =
        answer.map_err(|_| Stop::failed(format!("`{}` panics without a runtime", call.name)))?;
    answer.ok_or_else(|| Stop::failed(format!("`{}` hangs without a runtime", call.name)))
}

/// The least that runs a future; `None` for one that does not end.
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
        if let Poll::Ready(answer) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(answer);
        }
        thread::park_timeout(Duration::from_secs(1));
    }
    None
}
