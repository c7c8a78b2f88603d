//! The condition `IfPresent`.

use cubbyhole_core::{
    Batch, Condition, Error, ErrorKind, Expiry, Namespace, PutOptions, Result, Timestamp,
};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq, refused};
use crate::world::World;

cases! {
    /// With a live entry of any version, the condition holds for every method that takes it.
    #[case(tenant, entry)]
    async fn condition_holds_for_any_version<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for number in 0..3 {
            w.put(&ns, "k", number).await?;
            for call in CALLS {
                w.put(&ns, "k", number).await?;
                w.put_for(&ns, "ttl", number, w.long()).await?;
                for key in ["k", "ttl"] {
                    make(w, &ns, key, call).await?;
                    let found = w.number(&ns, key).await?;
                    let expected = match call {
                        Call::Put | Call::BatchPut => Some(7),
                        Call::Touch => Some(number),
                        Call::Delete | Call::BatchDelete => None,
                    };
                    check_eq!(found, expected, "the value after {call:?}");
                }
            }
        }
        Ok(())
    }

    /// An absent entry is a conflict without a version, and nothing is written.
    #[case(tenant, entry)]
    async fn absent_entry_is_a_conflict<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "deleted", 1).await?;
        w.delete(&ns, "deleted").await?;
        for call in CALLS {
            for key in ["absent", "deleted"] {
                is_conflict(make(w, &ns, key, call).await, call)?;
            }
        }
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys after the conflicts");
        Ok(())
    }

    /// An expired entry is a conflict without a version, and is not revived.
    #[case(tenant, entry)]
    async fn expired_entry_is_a_conflict<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for call in CALLS {
            w.put_expired(&ns, "k").await?;
            is_conflict(make(w, &ns, "k", call).await, call)?;
            w.put(&ns, "k", 1).await?;
            w.touch(&ns, "k", Expiry::At(Timestamp::EPOCH)).await?;
            is_conflict(make(w, &ns, "k", call).await, call)?;
            check_eq!(w.get(&ns, "k").await?, None, "get after {call:?}");
        }
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys after the conflicts");
        Ok(())
    }

    /// Conditions of a batch are evaluated before its writes: a put does not make another key
    /// present.
    #[case(tenant, entry)]
    async fn batch_with_absent_entry_writes_nothing<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "there", 1).await?;
        let present = Condition::IfPresent;
        let batch = Batch::new()
            .put("new", V::sample(2))
            .put_with("there", V::sample(2), PutOptions::new(), present)
            .delete_if("absent", present);
        let written = w.store().write(w.ctx(), &ns, batch).await;
        let error = refused(written, ErrorKind::Conflict, "a batch with an absent entry")?;
        check_eq!(error.batch_index(), Some(2), "the index of the failed operation");
        check_eq!(error.current_version(), None, "the current version in the conflict");
        check_eq!(w.list(&ns, None).await?, ["there"], "the keys after the conflict");
        check_eq!(w.number(&ns, "there").await?, Some(1), "the value after the conflict");
        Ok(())
    }

    /// The condition agrees with reads on the expiry, to the millisecond.
    #[case(time, entry)]
    async fn condition_agrees_with_reads_on_the_expiry<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_exact_clock()?;
        let ns = w.ns(&["a"])?;
        for call in CALLS {
            let ttl = std::time::Duration::from_millis(100);
            w.put_for(&ns, "k", 1, ttl).await?;
            w.put_for(&ns, "late", 1, ttl).await?;
            w.advance_millis(99).await;
            make(w, &ns, "k", call).await?;
            w.advance_millis(1).await;
            is_conflict(make(w, &ns, "late", call).await, call)?;
        }
        Ok(())
    }

    /// Of several concurrent deletes with the condition, exactly one succeeds.
    #[case(tenant, entry)]
    async fn one_concurrent_delete_succeeds<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 0).await?;
        make(w, &ns, "k", Call::Delete).await?;
        for round in 0..10 {
            w.put(&ns, "k", round).await?;
            let results = w
                .at_once(4, |_, w| async move {
                    let ns = w.ns(&["a"])?;
                    w.store().delete_entry(w.ctx(), &ns, "k", Condition::IfPresent).await
                })
                .await?;
            let deleted = results.iter().filter(|result| matches!(result, Ok(true))).count();
            check_eq!(deleted, 1, "the number of deletes that succeed in round {round}");
            for error in results.into_iter().filter_map(std::result::Result::err) {
                is_conflict(Err(error), Call::Delete)?;
            }
        }
        Ok(())
    }
}

/// The calls that take the condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Put,
    Touch,
    Delete,
    BatchPut,
    BatchDelete,
}

const CALLS: [Call; 5] = [Call::Put, Call::Touch, Call::Delete, Call::BatchPut, Call::BatchDelete];

async fn make<V: Sample>(w: &World<V>, ns: &Namespace, key: &str, call: Call) -> Result<()> {
    let (store, ctx, present) = (w.store(), w.ctx(), Condition::IfPresent);
    let (value, options) = (V::sample(7), PutOptions::new());
    match call {
        Call::Put => store.put_entry(ctx, ns, key, value, options, present).await.map(drop),
        Call::Touch => {
            let touched = store.touch(ctx, ns, key, Expiry::After(w.long()), present).await?;
            touched.then_some(()).ok_or_else(|| Error::internal("touch must return true"))
        }
        Call::Delete => {
            let deleted = store.delete_entry(ctx, ns, key, present).await?;
            deleted.then_some(()).ok_or_else(|| Error::internal("delete_entry must return true"))
        }
        Call::BatchPut => {
            let batch = Batch::new().put_with(key, value, options, present);
            store.write(ctx, ns, batch).await.map(drop)
        }
        Call::BatchDelete => {
            store.write(ctx, ns, Batch::new().delete_if(key, present)).await.map(drop)
        }
    }
}

fn is_conflict(result: Result<()>, call: Call) -> Outcome {
    let error = refused(result, ErrorKind::Conflict, format_args!("{call:?}"))?;
    check_eq!(error.current_version(), None, "the current version in the conflict of {call:?}");
    check!(
        !error.may_have_been_applied() && !error.is_retryable(),
        "a conflict must have no effect and must not be retryable: {error:?}"
    );
    Ok(())
}
