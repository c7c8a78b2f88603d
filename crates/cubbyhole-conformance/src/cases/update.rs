//! `update`: reads an entry, calls a closure, and writes at the version that was read.

use std::time::Duration;

use cubbyhole_core::{Entry, EntryStoreExt, Error, ErrorKind, PutOptions, Update};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq, refused};
use crate::world::World;
use crate::world::number_of;

cases! {
    /// `Put` creates an entry or overwrites it, and returns its version.
    #[case(tenant, entry)]
    async fn put_creates_and_overwrites<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for number in 0..3 {
            let mut seen = None;
            let version = w
                .store()
                .update(w.ctx(), &ns, "k", |entry| {
                    seen = entry.map(|entry| entry.value);
                    Ok(Update::Put(V::sample(number)))
                })
                .await?;
            check_eq!(
                seen,
                number.checked_sub(1).map(V::sample),
                "the value that the closure gets"
            );
            check_eq!(Some(w.live(&ns, "k").await?.meta.version), version, "the returned version");
        }
        check_eq!(w.number(&ns, "k").await?, Some(2), "the value after the last update");
        Ok(())
    }

    /// `Put` removes a TTL, like a put without options.
    #[case(tenant, entry)]
    async fn put_removes_the_ttl<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, w.long()).await?;
        w.store().update(w.ctx(), &ns, "k", |_| Ok(Update::Put(V::sample(2)))).await?;
        check_eq!(w.live(&ns, "k").await?.meta.expires_at, None, "expires_at");
        Ok(())
    }

    /// `PutWith` applies its options.
    #[case(tenant, entry)]
    async fn put_with_applies_its_options<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let options = PutOptions::new().with_ttl(w.long());
        let decide = |_| Ok(Update::PutWith(V::sample(1), options));
        w.store().update(w.ctx(), &ns, "k", decide).await?;
        check!(
            w.live(&ns, "k").await?.meta.expires_at.is_some(),
            "the entry must have the TTL of `PutWith`, but has none"
        );
        Ok(())
    }

    /// `Delete` removes the entry, and has no effect on an absent key.
    #[case(tenant, entry)]
    async fn delete_removes_the_entry<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for _ in 0..2 {
            let version = w.store().update(w.ctx(), &ns, "k", |_| Ok(Update::Delete)).await?;
            check_eq!(version, None, "the returned version of a delete");
            check_eq!(w.get(&ns, "k").await?, None, "get after the delete");
            w.put(&ns, "k", 1).await?;
        }
        Ok(())
    }

    /// `Keep` does not change the entry.
    #[case(tenant, entry)]
    async fn keep_does_not_change_the_entry<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, w.long()).await?;
        let before = w.live(&ns, "k").await?;
        check_eq!(w.store().update(w.ctx(), &ns, "k", |_| Ok(Update::Keep)).await?, None, "Keep");
        check_eq!(w.live(&ns, "k").await?, before, "the entry after `Keep`");
        check_eq!(w.store().update(w.ctx(), &ns, "j", |_| Ok(Update::Keep)).await?, None, "Keep");
        check_eq!(w.get(&ns, "j").await?, None, "get of an absent key after `Keep`");
        Ok(())
    }

    /// An expired entry is absent for `update`.
    #[case(tenant, entry)]
    async fn expired_entry_is_absent<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_expired(&ns, "k").await?;
        let mut absent = false;
        w.store()
            .update(w.ctx(), &ns, "k", |entry| {
                absent = entry.is_none();
                Ok(Update::Put(V::sample(2)))
            })
            .await?;
        check!(absent, "the closure must get `None` for an expired entry, but got the entry");
        check_eq!(w.number(&ns, "k").await?, Some(2), "the value after the update");
        Ok(())
    }

    /// `update` returns an error of its closure, and writes nothing.
    #[case(tenant, entry)]
    async fn error_of_the_closure_is_returned<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        let decide = |_| Err::<Update<V>, _>(Error::corrupt("mine"));
        let error = refused(
            w.store().update(w.ctx(), &ns, "k", decide).await,
            ErrorKind::Corrupt,
            "update whose closure fails",
        )?;
        check_eq!(error.message(), "mine", "the message of the error");
        check_eq!(w.number(&ns, "k").await?, Some(1), "the value after the failed update");
        Ok(())
    }

    /// If another caller writes between the read and the write, `update` calls the closure again.
    #[case(tenant, entry)]
    async fn concurrent_write_repeats_the_closure<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        let mut seen = Vec::new();
        // The closure is synchronous, so another task writes while the closure blocks.
        let runtime = tokio::runtime::Handle::current();
        w.store()
            .update(w.ctx(), &ns, "k", |entry| {
                seen.push(entry.map(|entry| entry.value));
                if seen.len() == 1 {
                    let (w, ns) = (w.clone(), ns.clone());
                    let intruder = runtime.spawn(async move { w.put(&ns, "k", 2).await });
                    tokio::task::block_in_place(|| runtime.block_on(intruder))
                        .map_err(|_| Error::internal("the other writer panicked"))??;
                }
                Ok(Update::Put(V::sample(3)))
            })
            .await?;
        check_eq!(
            seen,
            [Some(V::sample(1)), Some(V::sample(2))],
            "the values that the closure got"
        );
        check_eq!(w.number(&ns, "k").await?, Some(3), "the value after the update");
        Ok(())
    }

    /// Concurrent updates of one key back off. An update takes at most four attempts on average,
    /// and no update is lost.
    #[case(tenant, entry)]
    async fn callers_of_one_key_back_off<V: Sample>(w: &World<V>) -> Outcome {
        const CALLERS: usize = 16;
        const UPDATES: usize = 25;
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 0).await?;
        w.live(&ns, "k").await?;
        let attempts = w.at_once(CALLERS, |_, w| {
            let ns = ns.clone();
            async move {
                let mut attempts = 0;
                for _ in 0..UPDATES {
                    let next = |entry: Option<Entry<V>>| {
                        attempts += 1;
                        let entry = entry.ok_or_else(|| Error::internal("get after the delete"))?;
                        let number = number_of(&entry.value).map_err(|_| {
                            Error::internal("the counter has a value that the case did not write")
                        })?;
                        Ok(Update::Put(V::sample(number + 1)))
                    };
                    w.store().update(w.ctx(), &ns, "k", next).await?;
                }
                Ok::<usize, Error>(attempts)
            }
        });
        let mut total = 0;
        for attempts in attempts.await? {
            total += attempts?;
        }
        let updates = CALLERS * UPDATES;
        check_eq!(w.number(&ns, "k").await?, Some(updates as u64), "the value after all updates");
        check!(
            total <= 4 * updates,
            "{updates} updates must take at most {} attempts, but took {total}",
            4 * updates
        );
        Ok(())
    }

    /// `update` and `erase_all` check their context, even if the store ignores it.
    #[case(tenant, entry)]
    async fn ended_context_is_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_entry(&ns, "k", 1, PutOptions::new(), cubbyhole_core::Condition::Always).await?;
        let cancelled = w.ctx().child();
        cancelled.cancel();
        let late = w.ctx().child().with_timeout(Duration::ZERO);
        for (ctx, kind) in [(cancelled, ErrorKind::Cancelled), (late, ErrorKind::DeadlineExceeded)]
        {
            let mut asked = false;
            let result = w
                .store()
                .update(&ctx, &ns, "k", |_| {
                    asked = true;
                    Ok(Update::Put(V::sample(2)))
                })
                .await;
            let error = refused(result, kind, "update")?;
            check!(!asked, "the closure must not run with a context that has ended");
            check!(
                !error.may_have_been_applied(),
                "update must have no effect, but says that it may have been applied"
            );
            let erased = w.store().erase_all(&ctx, &w.everything()).await;
            refused(erased, kind, "erase_all")?;
        }
        check_eq!(w.number(&ns, "k").await?, Some(1), "the value after the rejected calls");
        Ok(())
    }
}
