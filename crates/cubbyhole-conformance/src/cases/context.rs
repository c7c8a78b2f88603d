//! Cancellation and deadlines.

use std::time::Duration;

use cubbyhole_core::{
    Batch, Condition, EntryStoreExt, Error, ErrorKind, ExecutionContext, Expiry, GetOptions,
    PutOptions, RecursiveScanOptions, Result, ScanOptions,
};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, Stop, check, check_eq};
use crate::world::World;

cases! {
    /// Every method of `Store` rejects a context that has ended, before it does any work. A store
    /// whose capabilities say that it ignores its context works with a context that has ended.
    #[case(tenant, core)]
    async fn core_calls_reject_or_ignore_ended_context<V: Sample>(w: &World<V>) -> Outcome {
        if w.can().honours_context { rejects_ended(w).await } else { ignores_ended(w).await }
    }

    /// Every method of `EntryStore` and `EntryStoreExt` rejects a context that has ended, before it
    /// does any work.
    #[case(tenant, entry)]
    async fn entry_calls_reject_ended_context<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_context()?;
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, w.long()).await?;
        let before = w.live(&ns, "k").await?;
        for (ctx, kind) in ended(w) {
            all_rejected(entry_calls(w, &ctx).await?, kind)?;
        }
        check_eq!(w.live(&ns, "k").await?, before, "the entry after the rejected calls");
        check_eq!(w.list(&ns, None).await?, ["k"], "the keys after the rejected calls");
        Ok(())
    }

    /// Cancelling a context also cancels its children.
    #[case(tenant, core)]
    async fn child_context_ends_with_its_parent<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_context()?;
        let ns = w.ns(&["a"])?;
        let parent = ExecutionContext::new();
        let child = parent.child().with_timeout(Duration::from_secs(3_600));
        w.store().put(&child, &ns, "k", V::sample(1)).await?;
        parent.cancel();
        let errors = vec![("put", w.store().put(&child, &ns, "k", V::sample(2)).await.err())];
        all_rejected(errors, ErrorKind::Cancelled)?;
        check_eq!(w.number(&ns, "k").await?, Some(1), "the value after the rejected calls");
        Ok(())
    }

    /// A deadline in the future does not affect a call.
    #[case(tenant, core)]
    async fn deadline_in_the_future_has_no_effect<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for timeout in [Duration::from_secs(3_600), Duration::MAX] {
            let ctx = ExecutionContext::new().with_timeout(timeout);
            w.store().put(&ctx, &ns, "k", V::sample(1)).await?;
            check_eq!(
                w.store().get(&ctx, &ns, "k").await?,
                Some(V::sample(1)),
                "get with a timeout of {timeout:?}"
            );
            w.store().delete(&ctx, &ns, "k").await?;
        }
        Ok(())
    }

    /// A put whose deadline passes in flight is applied completely or not at all. If its error says
    /// that it had no effect, it had none. The store continues to work.
    #[case(tenant, core)]
    async fn put_past_its_deadline_is_atomic<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_context()?;
        let ns = w.ns(&["a"])?;
        for round in 0..60_u64 {
            let key = format!("k{round}");
            let ctx = ending_in_flight(round);
            let put = w.store().put(&ctx, &ns, &key, V::sample(round)).await;
            let applied = was_applied(put)?;
            let found = w.number(&ns, &key).await?;
            check!(
                found.is_none_or(|number| number == round),
                "get returns {found:?}, which the case did not write in round {round}"
            );
            check!(
                applied.is_none_or(|applied| applied == found.is_some()),
                "round {round}: the put says applied = {applied:?}, but get returns {found:?}"
            );
        }
        Ok(())
    }

    /// A batch whose deadline passes in flight is applied completely or not at all. If its error
    /// says that it had no effect, it had none.
    #[case(tenant, entry)]
    async fn batch_past_its_deadline_is_atomic<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_context()?;
        for round in 0..40_u64 {
            let ns = w.ns(&["batch", &round.to_string()])?;
            let batch = (0..50)
                .fold(Batch::new(), |batch, n| batch.put(format!("{n:02}"), V::sample(round)));
            let applied = was_applied(w.store().write(&ending_in_flight(round), &ns, batch).await)?;
            let found = w.list(&ns, None).await?.len();
            check!(found == 0 || found == 50, "{found} of the 50 entries of a batch exist");
            check!(
                applied.is_none_or(|applied| applied == (found == 50)),
                "round {round}: the batch says applied = {applied:?}, but {found} entries exist"
            );
        }
        Ok(())
    }

    /// A batch whose future is dropped is applied completely or not at all. The store continues to
    /// work.
    #[case(tenant, entry)]
    async fn dropped_batch_is_atomic<V: Sample>(w: &World<V>) -> Outcome {
        for round in 0..40_u64 {
            let ns = w.ns(&["dropped", &round.to_string()])?;
            let batch = (0..20)
                .fold(Batch::new(), |batch, n| batch.put(format!("{n:02}"), V::sample(round)));
            let write = w.store().write(w.ctx(), &ns, batch);
            let wait = Duration::from_micros(round * 50);
            if let Ok(result) = tokio::time::timeout(wait, write).await {
                result?;
            }
            w.put(&ns, "after", round).await?;
            check_eq!(
                w.number(&ns, "after").await?,
                Some(round),
                "the value of a put after the dropped call"
            );
            let found = w.list(&ns, None).await?.len();
            check!(
                found == 1 || found == 21,
                "{} of the 20 entries of a dropped batch exist",
                found - 1
            );
        }
        Ok(())
    }
}

async fn rejects_ended<V: Sample>(w: &World<V>) -> Outcome {
    let ns = w.ns(&["a"])?;
    w.put(&ns, "k", 1).await?;
    for (ctx, kind) in ended(w) {
        let (s, none) = (w.store(), PutOptions::new());
        let mut errors = vec![
            ("put", s.put(&ctx, &ns, "k", V::sample(2)).await.err()),
            (
                "put_with_options",
                s.put_with_options(&ctx, &ns, "new", V::sample(2), none).await.err(),
            ),
            ("get", s.get(&ctx, &ns, "k").await.err()),
            ("delete", s.delete(&ctx, &ns, "k").await.err()),
            ("list", s.list(&ctx, &ns, None).await.err()),
        ];
        if w.can().lists_namespaces {
            let all = w.everything();
            errors.push(("list_namespaces", s.list_namespaces(&ctx, &all).await.err()));
        }
        if w.can().keeps_expired {
            errors.push(("evict_expired", s.evict_expired(&ctx).await.err()));
        }
        all_rejected(errors, kind)?;
    }
    check_eq!(w.list(&ns, None).await?, ["k"], "the keys after the rejected calls");
    check_eq!(w.number(&ns, "k").await?, Some(1), "the value after the rejected calls");
    Ok(())
}

async fn ignores_ended<V: Sample>(w: &World<V>) -> Outcome {
    let ns = w.ns(&["a"])?;
    for (ctx, _) in ended(w) {
        w.store().put(&ctx, &ns, "k", V::sample(1)).await?;
        check_eq!(w.store().get(&ctx, &ns, "k").await?, Some(V::sample(1)), "get");
        check_eq!(w.store().list(&ctx, &ns, None).await?, ["k"], "list");
        w.store().list_namespaces(&ctx, &w.everything()).await?;
        w.store().evict_expired(&ctx).await?;
        w.store().delete(&ctx, &ns, "k").await?;
        check_eq!(w.get(&ns, "k").await?, None, "delete");
    }
    Ok(())
}

/// Returns contexts that have ended, with the kind of error that they cause.
fn ended<V: Sample>(w: &World<V>) -> [(ExecutionContext, ErrorKind); 3] {
    let cancelled = w.ctx().child();
    cancelled.cancel();
    let late = w.ctx().child().with_timeout(Duration::ZERO);
    let both = late.clone().with_cancellation(cancelled.cancellation().clone());
    [
        (cancelled, ErrorKind::Cancelled),
        (late, ErrorKind::DeadlineExceeded),
        (both, ErrorKind::Cancelled),
    ]
}

/// Returns a context that ends in flight: its deadline is between 0 and 11 milliseconds, by round.
fn ending_in_flight(round: u64) -> ExecutionContext {
    ExecutionContext::new().with_timeout(Duration::from_micros(round * round * 3))
}

/// Returns whether a write was applied, according to its result. `None` means that the result says
/// that the outcome is unknown.
fn was_applied<T>(result: Result<T>) -> Outcome<Option<bool>> {
    match result {
        Ok(_) => Ok(Some(true)),
        Err(error) if error.kind() != ErrorKind::DeadlineExceeded => Err(error.into()),
        Err(error) if error.may_have_been_applied() => Ok(None),
        Err(_) => Ok(Some(false)),
    }
}

type CallErrors = Vec<(&'static str, Option<Error>)>;

fn all_rejected(errors: CallErrors, kind: ErrorKind) -> Outcome {
    for (operation, error) in errors {
        let Some(error) = error else {
            return Err(Stop::failed(format!(
                "{operation} must reject a context that has ended, but succeeded"
            )));
        };
        if error.kind() != kind {
            return Err(Stop::unexpected(
                error,
                format!("{operation} must fail with `{kind}`, but failed with"),
            ));
        }
        check!(
            !error.may_have_been_applied(),
            "{operation} must have no effect, but says that it may have been applied"
        );
        check!(!error.is_retryable(), "the error of {operation} must not be retryable, but is");
    }
    Ok(())
}

/// Calls every method of `EntryStore` and of `EntryStoreExt` with this context, and returns the
/// errors.
async fn entry_calls<V: Sample>(w: &World<V>, ctx: &ExecutionContext) -> Outcome<CallErrors> {
    let (s, ns, all) = (w.store(), w.ns(&["a"])?, w.everything());
    let (none, always, present) = (PutOptions::new(), Condition::Always, Condition::IfPresent);
    let (refresh, deep) = (GetOptions::new().refreshing(), RecursiveScanOptions::new());
    let sliding = GetOptions::new().with_extended_ttl(w.long() * 2);
    let batch = Batch::new().put("new", V::sample(2)).delete("k");
    Ok(vec![
        ("get_entry", s.get_entry(ctx, &ns, "k", sliding).await.err()),
        ("get_many", s.get_many(ctx, &ns, &["k"], refresh).await.err()),
        ("get_many without keys", s.get_many(ctx, &ns, &[], GetOptions::new()).await.err()),
        ("stat", s.stat(ctx, &ns, &["k"]).await.err()),
        ("stat without keys", s.stat(ctx, &ns, &[]).await.err()),
        ("put_entry", s.put_entry(ctx, &ns, "k", V::sample(2), none, always).await.err()),
        ("delete_entry", s.delete_entry(ctx, &ns, "k", always).await.err()),
        ("write", s.write(ctx, &ns, batch).await.err()),
        ("empty write", s.write(ctx, &ns, Batch::new()).await.err()),
        ("scan", s.scan(ctx, &ns, ScanOptions::new()).await.err()),
        ("reversed scan", s.scan(ctx, &ns, ScanOptions::new().reversed()).await.err()),
        ("refreshing scan", s.scan(ctx, &ns, ScanOptions::new().refreshing()).await.err()),
        ("scan_recursive", s.scan_recursive(ctx, &all, deep).await.err()),
        ("scan_namespaces", s.scan_namespaces(ctx, &all, None, 10).await.err()),
        ("scan_tenants", s.scan_tenants(ctx, None, 10).await.err()),
        ("touch", s.touch(ctx, &ns, "k", Expiry::Never, always).await.err()),
        ("touch if present", s.touch(ctx, &ns, "k", Expiry::Never, present).await.err()),
        ("take", s.take(ctx, &ns, "k").await.err()),
        ("delete_prefix", s.delete_prefix(ctx, &ns, "", 10).await.err()),
        ("erase", s.erase(ctx, &all, 10).await.err()),
        ("usage", s.usage(ctx, &all).await.err()),
        ("current_time", s.current_time(ctx, &ns).await.err()),
        ("insert", s.insert(ctx, &ns, "new", V::sample(2), none).await.err()),
        ("append", s.append(ctx, &ns, "k", vec![V::sample(2)], none).await.err()),
        ("append without values", s.append(ctx, &ns, "k", Vec::new(), none).await.err()),
        ("last", s.last(ctx, &ns, "", 1).await.err()),
        ("last of none", s.last(ctx, &ns, "", 0).await.err()),
    ])
}
