//! `evict_expired`: expired entries go, and nothing else.

use std::time::Duration;

use cubbyhole_core::{Expiry, Namespace, PutOptions, TenantId};

use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq};
use crate::Sample;
use crate::world::World;

cases! {
    /// A sweep of a store without expired entries removes none.
    #[case(store, core)]
    async fn nothing_to_sweep<V: Sample>(w: &World<V>) -> Outcome {
        check_eq!(w.store().evict_expired(w.ctx()).await?, 0, "an empty store");
        let ns = w.ns(&["a"])?;
        w.put(&ns, "kept", 1).await?;
        w.put_for(&ns, "long", 2, w.long()).await?;
        check_eq!(w.store().evict_expired(w.ctx()).await?, 0, "nothing has expired");
        check_eq!(w.list(&ns, None).await?, ["kept", "long"], "both are there");
        Ok(())
    }

    /// A sweep leaves live entries alone, with a TTL or without.
    #[case(store, core)]
    async fn live_entries_survive<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for number in 0..10 {
            w.put_for(&ns, &format!("short{number}"), 1, w.short()).await?;
        }
        w.put(&ns, "kept", 1).await?;
        w.put_for(&ns, "long", 2, w.long()).await?;
        w.expire().await;
        w.store().evict_expired(w.ctx()).await?;
        check_eq!(w.list(&ns, None).await?, ["kept", "long"], "the live ones");
        check_eq!(w.number(&ns, "kept").await?, Some(1), "their values");
        check_eq!(w.number(&ns, "long").await?, Some(2), "their values");
        Ok(())
    }

    /// A sweep says how many entries it removed, over all tenants; a second one removes none.
    #[case(store, entry)]
    async fn the_count_is_of_what_was_removed<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_kept_expired()?;
        for tenant in ["a", "ab", "b"] {
            let ns = Namespace::new(TenantId::new(tenant)?);
            w.put_expired(&ns, "x").await?;
            w.put_expired(&ns.clone().with_scope("s")?, "x").await?;
            w.put(&ns, "kept", 1).await?;
        }
        check_eq!(w.store().evict_expired(w.ctx()).await?, 6, "six had expired");
        check_eq!(w.store().evict_expired(w.ctx()).await?, 0, "a second time");
        for tenant in ["a", "ab", "b"] {
            let ns = Namespace::new(TenantId::new(tenant)?);
            check_eq!(w.list(&ns, None).await?, ["kept"], "the keys of {tenant}");
        }
        Ok(())
    }

    /// An entry that was refreshed after it was due survives: by a put, with a TTL or without.
    #[case(store, core)]
    async fn a_rewritten_entry_survives<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for key in ["again", "ttl", "gone"] {
            w.put_for(&ns, key, 1, w.short()).await?;
        }
        w.expire().await;
        w.put(&ns, "again", 2).await?;
        w.put_for(&ns, "ttl", 3, w.long()).await?;
        w.store().evict_expired(w.ctx()).await?;
        check_eq!(w.number(&ns, "again").await?, Some(2), "written without a TTL");
        check_eq!(w.number(&ns, "ttl").await?, Some(3), "written with a new one");
        check_eq!(w.list(&ns, None).await?, ["again", "ttl"], "the keys");
        Ok(())
    }

    /// An entry whose TTL was extended before its end survives the sweep after the old end.
    #[case(store, entry)]
    async fn a_touched_entry_survives<V: Sample>(w: &World<V>) -> Outcome {
        let ns = &w.ns(&["a"])?;
        w.in_time(|| async move {
            for key in ["touched", "freed", "gone"] {
                w.put_for(ns, key, 1, w.short()).await?;
            }
            w.store().touch(w.ctx(), ns, "touched", Expiry::After(w.long())).await?;
            w.store().touch(w.ctx(), ns, "freed", Expiry::Never).await?;
            Ok(())
        })
        .await?;
        w.expire().await;
        let removed = w.store().evict_expired(w.ctx()).await?;
        check!(removed <= 1, "{removed} removed, but one had expired");
        check_eq!(w.list(ns, None).await?, ["freed", "touched"], "the keys");
        Ok(())
    }

    /// A sweep of more entries than one step removes gets them all.
    #[case(store, entry)]
    async fn many_are_swept<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_kept_expired()?;
        let expired = PutOptions::new().with_expires_at(cubbyhole_core::Timestamp::EPOCH);
        for part in ["a", "b", "c"] {
            let batch = (0..800).fold(cubbyhole_core::Batch::new(), |batch, number| {
                let always = cubbyhole_core::Condition::Always;
                batch.put_with(format!("{number:03}"), V::sample(1), expired, always)
            });
            w.store().write(w.ctx(), &w.ns(&[part])?, batch).await?;
        }
        check_eq!(w.store().evict_expired(w.ctx()).await?, 2_400, "all of them");
        check_eq!(w.store().usage(w.ctx(), &w.everything()).await?.expired, 0, "none is left");
        Ok(())
    }

    /// Several sweepers at once count every expired entry once, and no live one.
    #[case(store, entry)]
    async fn several_sweepers_add_up<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_kept_expired()?;
        let ns = w.ns(&["a"])?;
        for number in 0..100 {
            w.put_expired(&ns, &format!("x{number}")).await?;
            w.put(&ns, &format!("k{number}"), number).await?;
        }
        let counts =
            w.at_once(4, |_, w| async move { w.store().evict_expired(w.ctx()).await }).await?;
        check_eq!(counts.into_iter().sum::<Result<usize, _>>()?, 100, "together");
        check_eq!(w.list(&ns, None).await?.len(), 100, "the live ones");
        Ok(())
    }

    /// A sweep while others write removes nothing that they wrote.
    #[case(store, core)]
    async fn a_sweep_disturbs_no_writer<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for number in 0..50 {
            w.put_for(&ns, &format!("{number:02}"), 1, w.short()).await?;
        }
        w.expire().await;
        let answers = w
            .at_once(4, |task, w| async move {
                let ns = w.ns(&["a"])?;
                for number in (0..50_u64).filter(|number| number % 2 == 0) {
                    if task == 0 {
                        w.put(&ns, &format!("{number:02}"), number).await?;
                    } else {
                        w.store().evict_expired(w.ctx()).await?;
                    }
                }
                Ok::<_, cubbyhole_core::Error>(())
            })
            .await?;
        answers.into_iter().collect::<Result<(), _>>()?;
        w.store().evict_expired(w.ctx()).await?;
        let expected: Vec<_> = (0..25).map(|number| format!("{:02}", number * 2)).collect();
        check_eq!(w.list(&ns, None).await?, expected, "what was written again");
        Ok(())
    }

    /// To the millisecond: a sweep removes an entry at its end and not before.
    #[case(store, entry)]
    async fn a_sweep_is_exact<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_exact_clock()?;
        w.needs_kept_expired()?;
        let ns = w.ns(&["a"])?;
        for millis in [10, 11, 12] {
            w.put_for(&ns, &format!("{millis}"), 1, Duration::from_millis(millis)).await?;
        }
        w.advance_millis(9).await;
        check_eq!(w.store().evict_expired(w.ctx()).await?, 0, "after 9 ms");
        w.advance_millis(2).await;
        check_eq!(w.store().evict_expired(w.ctx()).await?, 2, "after 11 ms");
        check_eq!(w.list(&ns, None).await?, ["12"], "one is left");
        Ok(())
    }
}
