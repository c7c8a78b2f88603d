//! Cancellation and deadlines.

use std::time::Duration;

use cubbyhole_core::{
    Batch, Condition, Error, ErrorKind, ExecutionContext, Expiry, GetOptions, PutOptions, Result,
    ScanOptions,
};

use crate::case::cases;
use crate::outcome::{Outcome, Stop, check, check_eq};
use crate::Sample;
use crate::world::World;

cases! {
    /// Every method of `Store` rejects a context that has ended, before it does any work. A store
    /// whose capabilities say that it ignores its context works with such a context.
    #[case(tenant, core)]
    async fn core_calls_reject_or_ignore_ended_context<V: Sample>(w: &World<V>) -> Outcome {
        if w.can().honours_context { refuses_ended(w).await } else { ignores_ended(w).await }
    }

    /// Every method of `EntryStore` rejects a context that has ended, before it does any work.
    #[case(tenant, entry)]
    async fn entry_calls_reject_ended_context<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_context()?;
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, w.long()).await?;
        let before = w.live(&ns, "k").await?;
        for (ctx, kind) in ended(w) {
            all_refused(entry_calls(w, &ctx).await?, kind)?;
        }
        check_eq!(w.live(&ns, "k").await?, before, "the entry is as it was");
        check_eq!(w.list(&ns, None).await?, ["k"], "nothing was written");
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
        let answers = vec![("put", w.store().put(&child, &ns, "k", V::sample(2)).await.err())];
        all_refused(answers, ErrorKind::Cancelled)?;
        check_eq!(w.number(&ns, "k").await?, Some(1), "nothing was overwritten");
        Ok(())
    }

    /// A deadline in the future does not affect a call.
    #[case(tenant, core)]
    async fn deadline_in_the_future_has_no_effect<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for timeout in [Duration::from_secs(3_600), Duration::MAX] {
            let ctx = ExecutionContext::new().with_timeout(timeout);
            w.store().put(&ctx, &ns, "k", V::sample(1)).await?;
            check_eq!(w.store().get(&ctx, &ns, "k").await?, Some(V::sample(1)), "{timeout:?}");
            w.store().delete(&ctx, &ns, "k").await?;
        }
        Ok(())
    }

    /// A put whose deadline passes in flight is applied completely or not at all. An error that
    /// says that the put had no effect is right. The store continues to work.
    #[case(tenant, core)]
    async fn put_past_its_deadline_is_atomic<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_context()?;
        let ns = w.ns(&["a"])?;
        for round in 0..60_u64 {
            let key = format!("k{round}");
            let ctx = flight(round);
            let put = w.store().put(&ctx, &ns, &key, V::sample(round)).await;
            let applied = in_flight(put)?;
            let found = w.number(&ns, &key).await?;
            check!(found.is_none_or(|number| number == round), "half a value is there");
            check!(
                applied.is_none_or(|applied| applied == found.is_some()),
                "round {round}: the answer says applied = {applied:?}, but {found:?} is there"
            );
        }
        Ok(())
    }

    /// A batch whose deadline passes in flight is applied completely or not at all. An error that
    /// says that the batch had no effect is right.
    #[case(tenant, entry)]
    async fn batch_past_its_deadline_is_atomic<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_context()?;
        for round in 0..40_u64 {
            let ns = w.ns(&["batch", &round.to_string()])?;
            let batch = (0..50)
                .fold(Batch::new(), |batch, n| batch.put(format!("{n:02}"), V::sample(round)));
            let applied = in_flight(w.store().write(&flight(round), &ns, batch).await)?;
            let found = w.list(&ns, None).await?.len();
            check!(found == 0 || found == 50, "{found} of 50 are there");
            check!(
                applied.is_none_or(|applied| applied == (found == 50)),
                "round {round}: the answer says applied = {applied:?}, but {found} are there"
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
            if let Ok(answer) = tokio::time::timeout(wait, write).await {
                answer?;
            }
            w.put(&ns, "after", round).await?;
            check_eq!(w.number(&ns, "after").await?, Some(round), "the next call");
            let found = w.list(&ns, None).await?.len();
            check!(found == 1 || found == 21, "{} of 20 are there", found - 1);
        }
        Ok(())
    }
}

async fn refuses_ended<V: Sample>(w: &World<V>) -> Outcome {
    let ns = w.ns(&["a"])?;
    w.put(&ns, "k", 1).await?;
    for (ctx, kind) in ended(w) {
        let (s, none) = (w.store(), PutOptions::new());
        let mut answers = vec![
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
            answers.push(("list_namespaces", s.list_namespaces(&ctx, &all).await.err()));
        }
        if w.can().keeps_expired {
            answers.push(("evict_expired", s.evict_expired(&ctx).await.err()));
        }
        all_refused(answers, kind)?;
    }
    check_eq!(w.list(&ns, None).await?, ["k"], "nothing was written or deleted");
    check_eq!(w.number(&ns, "k").await?, Some(1), "nothing was overwritten");
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

/// Contexts that have ended, with how.
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

/// A context that ends very soon: anywhere between at once and some milliseconds.
fn flight(round: u64) -> ExecutionContext {
    ExecutionContext::new().with_timeout(Duration::from_micros(round * round * 3))
}

/// Whether a write that may have ended in flight was applied, where the answer says so.
fn in_flight<T>(answer: Result<T>) -> Outcome<Option<bool>> {
    match answer {
        Ok(_) => Ok(Some(true)),
        Err(error) if error.kind() != ErrorKind::DeadlineExceeded => Err(error.into()),
        Err(error) if error.may_have_been_applied() => Ok(None),
        Err(_) => Ok(Some(false)),
    }
}

type Answers = Vec<(&'static str, Option<Error>)>;

fn all_refused(answers: Answers, kind: ErrorKind) -> Outcome {
    for (operation, error) in answers {
        let Some(error) = error else {
            return Err(Stop::failed(format!("{operation} takes a context that has ended")));
        };
        if error.kind() != kind {
            return Err(Stop::unexpected(error, format!("{operation} is not `{kind}`")));
        }
        check!(!error.may_have_been_applied(), "{operation} may have been applied");
        check!(!error.is_retryable(), "{operation} is retryable");
    }
    Ok(())
}

/// Every method of `EntryStore` with that context.
async fn entry_calls<V: Sample>(w: &World<V>, ctx: &ExecutionContext) -> Outcome<Answers> {
    let (s, ns, all) = (w.store(), w.ns(&["a"])?, w.everything());
    let (none, always) = (PutOptions::new(), Condition::Always);
    let sliding = GetOptions::new().with_extended_ttl(w.long() * 2);
    let batch = Batch::new().put("new", V::sample(2)).delete("k");
    Ok(vec![
        ("get_entry", s.get_entry(ctx, &ns, "k", sliding).await.err()),
        ("get_many", s.get_many(ctx, &ns, &["k"]).await.err()),
        ("put_entry", s.put_entry(ctx, &ns, "k", V::sample(2), none, always).await.err()),
        ("delete_entry", s.delete_entry(ctx, &ns, "k", always).await.err()),
        ("write", s.write(ctx, &ns, batch).await.err()),
        ("scan", s.scan(ctx, &ns, ScanOptions::new()).await.err()),
        ("scan_namespaces", s.scan_namespaces(ctx, &all, None, 10).await.err()),
        ("scan_tenants", s.scan_tenants(ctx, None, 10).await.err()),
        ("touch", s.touch(ctx, &ns, "k", Expiry::Never).await.err()),
        ("take", s.take(ctx, &ns, "k").await.err()),
        ("erase", s.erase(ctx, &all, 10).await.err()),
        ("usage", s.usage(ctx, &all).await.err()),
        ("current_time", s.current_time(ctx, &ns).await.err()),
    ])
}
