//! Cooperative scheduling: a loop over calls yields to the runtime, even if no call waits for I/O.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Sample;
use crate::calls::MethodCall;
use crate::case::cases;
use crate::outcome::{Outcome, check};
use crate::world::World;

/// If a loop has not yielded after this number of calls, it never does. The budget of tokio is 128.
const MANY: usize = 10_000;

cases! {
    /// A loop over a method of `Store` yields to the runtime, even if the calls fail.
    #[case(tenant, core)]
    async fn core_calls_yield<V: Sample>(w: &World<V>) -> Outcome {
        let target = w.target()?;
        w.put(&target.ns, "k", 1).await?;
        all_yield(target.core()).await?;
        all_yield(target.core_rejected()).await
    }

    /// A loop over a method of `EntryStore` or `EntryStoreExt` yields to the runtime, even if the
    /// calls fail.
    #[case(tenant, entry)]
    async fn entry_calls_yield<V: Sample>(w: &World<V>) -> Outcome {
        let target = w.target()?;
        w.put_for(&target.ns, "t", 1, w.long()).await?;
        w.put(&target.ns, "k", 1).await?;
        w.live(&target.ns, "k").await?;
        all_yield(target.entries()).await?;
        all_yield(vec![target.tenants()]).await?;
        all_yield(target.entries_rejected()).await
    }

    /// A loop over a method of `Store` with a cancelled context yields to the runtime.
    #[case(tenant, core)]
    async fn core_calls_with_ended_context_yield<V: Sample>(w: &World<V>) -> Outcome {
        let target = w.target()?;
        target.ctx.cancel();
        all_yield(target.core()).await
    }

    /// A loop over a method of `EntryStore` with a cancelled context yields to the runtime.
    #[case(tenant, entry)]
    async fn entry_calls_with_ended_context_yield<V: Sample>(w: &World<V>) -> Outcome {
        let target = w.target()?;
        w.put(&target.ns, "k", 1).await?;
        w.live(&target.ns, "k").await?;
        target.ctx.cancel();
        all_yield(target.entries()).await
    }

    /// A loop over a method of `Store` on a closed store yields to the runtime.
    #[case(tenant, core)]
    async fn core_calls_on_closed_store_yield<V: Sample>(w: &World<V>) -> Outcome {
        let closed = w.closed().await?;
        all_yield(closed.core()).await
    }

    /// A loop over a method of `EntryStore` on a closed store yields to the runtime.
    #[case(tenant, entry)]
    async fn entry_calls_on_closed_store_yield<V: Sample>(w: &World<V>) -> Outcome {
        let closed = w.closed().await?;
        all_yield(closed.entries()).await?;
        all_yield(vec![closed.tenants()]).await
    }
}

async fn all_yield(calls: Vec<MethodCall<'_>>) -> Outcome {
    for call in calls {
        check!(
            yields(&call).await,
            "a loop of {MANY} calls of `{}` never yields to the runtime",
            call.name
        );
    }
    Ok(())
}

/// Returns true if a loop over a call yields within [`MANY`] calls.
///
/// The loop is polled like a task, so the test does not depend on time. It ends after the call that
/// first yields.
async fn yields(call: &MethodCall<'_>) -> bool {
    let yielded = AtomicBool::new(false);
    let mut calls = pin!(async {
        for _ in 0..MANY {
            // Other cases check the results.
            let _ = call.make().await;
            if yielded.load(Ordering::Relaxed) {
                return;
            }
        }
    });
    poll_fn(|cx| {
        let polled = calls.as_mut().poll(cx);
        if polled.is_pending() {
            yielded.store(true, Ordering::Relaxed);
        }
        polled
    })
    .await;
    yielded.load(Ordering::Relaxed)
}
