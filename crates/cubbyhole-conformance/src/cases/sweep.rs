//! `evict_expired`: removes expired entries, and no others.

use std::time::Duration;

use cubbyhole_core::{Expiry, Namespace, PutOptions, TenantId};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq};
use crate::world::World;

cases! {
    /// A sweep of a store without expired entries removes none.
    #[case(store, core)]
    async fn sweep_without_expired_entries_removes_none<V: Sample>(w: &World<V>) -> Outcome {
        check_eq!(
            w.store().evict_expired(w.ctx()).await?,
            0,
            "the number of removed entries in an empty store"
        );
        let ns = w.ns(&["a"])?;
        w.put(&ns, "kept", 1).await?;
        w.put_for(&ns, "long", 2, w.long()).await?;
        check_eq!(
            w.store().evict_expired(w.ctx()).await?,
            0,
            "the number of removed entries without expired ones"
        );
        check_eq!(w.list(&ns, None).await?, ["kept", "long"], "the keys after the sweep");
        Ok(())
    }

    /// A sweep keeps live entries, with or without a TTL.
    #[case(store, core)]
    async fn sweep_keeps_live_entries<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for number in 0..10 {
            w.put_for(&ns, &format!("short{number}"), 1, w.short()).await?;
        }
        w.put(&ns, "kept", 1).await?;
        w.put_for(&ns, "long", 2, w.long()).await?;
        w.expire().await;
        w.store().evict_expired(w.ctx()).await?;
        check_eq!(w.list(&ns, None).await?, ["kept", "long"], "the live keys after the sweep");
        check_eq!(
            w.number(&ns, "kept").await?,
            Some(1),
            "the value of a live entry after the sweep"
        );
        check_eq!(
            w.number(&ns, "long").await?,
            Some(2),
            "the value of a live entry after the sweep"
        );
        Ok(())
    }

    /// A sweep returns the number of entries that it removed, over all tenants. A second sweep
    /// removes none.
    #[case(store, entry)]
    async fn sweep_returns_number_of_removed_entries<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_kept_expired()?;
        for tenant in ["a", "ab", "b"] {
            let ns = Namespace::new(TenantId::new(tenant)?);
            w.put_expired(&ns, "x").await?;
            w.put_expired(&ns.clone().with_scope("s")?, "x").await?;
            w.put(&ns, "kept", 1).await?;
        }
        check_eq!(w.store().evict_expired(w.ctx()).await?, 6, "the number of removed entries");
        check_eq!(
            w.store().evict_expired(w.ctx()).await?,
            0,
            "the number of entries that a second sweep removes"
        );
        for tenant in ["a", "ab", "b"] {
            let ns = Namespace::new(TenantId::new(tenant)?);
            check_eq!(w.list(&ns, None).await?, ["kept"], "the keys of tenant {tenant}");
        }
        Ok(())
    }

    /// A sweep keeps an entry that was written again after its expiry, with or without a TTL.
    #[case(store, core)]
    async fn sweep_keeps_rewritten_entry<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for key in ["again", "ttl", "gone"] {
            w.put_for(&ns, key, 1, w.short()).await?;
        }
        w.expire().await;
        w.put(&ns, "again", 2).await?;
        w.put_for(&ns, "ttl", 3, w.long()).await?;
        w.store().evict_expired(w.ctx()).await?;
        check_eq!(
            w.number(&ns, "again").await?,
            Some(2),
            "the value of the entry that was written without a TTL"
        );
        check_eq!(
            w.number(&ns, "ttl").await?,
            Some(3),
            "the value of the entry that was written with a new TTL"
        );
        check_eq!(w.list(&ns, None).await?, ["again", "ttl"], "the keys");
        Ok(())
    }

    /// A sweep after the old expiry keeps an entry whose TTL was extended in time.
    #[case(store, entry)]
    async fn sweep_keeps_touched_entry<V: Sample>(w: &World<V>) -> Outcome {
        let ns = &w.ns(&["a"])?;
        w.in_time(|| async move {
            for key in ["touched", "freed", "gone"] {
                w.put_for(ns, key, 1, w.short()).await?;
            }
            w.touch(ns, "touched", Expiry::After(w.long())).await?;
            w.touch(ns, "freed", Expiry::Never).await?;
            Ok(())
        })
        .await?;
        w.expire().await;
        let removed = w.store().evict_expired(w.ctx()).await?;
        check!(removed <= 1, "the sweep removed {removed} entries, but only one had expired");
        check_eq!(w.list(ns, None).await?, ["freed", "touched"], "the keys");
        Ok(())
    }

    /// A sweep removes more expired entries than one step can.
    #[case(store, entry)]
    async fn sweep_removes_more_than_one_step<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_kept_expired()?;
        let expired = PutOptions::new().with_expires_at(cubbyhole_core::Timestamp::EPOCH);
        for part in ["a", "b", "c"] {
            let batch = (0..800).fold(cubbyhole_core::Batch::new(), |batch, number| {
                let always = cubbyhole_core::Condition::Always;
                batch.put_with(format!("{number:03}"), V::sample(1), expired, always)
            });
            w.store().write(w.ctx(), &w.ns(&[part])?, batch).await?;
        }
        check_eq!(w.store().evict_expired(w.ctx()).await?, 2_400, "the number of removed entries");
        check_eq!(
            w.store().usage(w.ctx(), &w.everything()).await?.expired,
            0,
            "the number of expired entries after the sweep"
        );
        Ok(())
    }

    /// Concurrent sweeps count each expired entry once, and keep live entries.
    #[case(store, entry)]
    async fn concurrent_sweeps_count_each_entry_once<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_kept_expired()?;
        let ns = w.ns(&["a"])?;
        for number in 0..100 {
            w.put_expired(&ns, &format!("x{number}")).await?;
            w.put(&ns, &format!("k{number}"), number).await?;
        }
        let counts =
            w.at_once(4, |_, w| async move { w.store().evict_expired(w.ctx()).await }).await?;
        check_eq!(
            counts.into_iter().sum::<Result<usize, _>>()?,
            100,
            "the number of entries that all sweeps removed"
        );
        check_eq!(w.list(&ns, None).await?.len(), 100, "the live keys after the sweep");
        Ok(())
    }

    /// A sweep removes no entry that a concurrent caller wrote.
    #[case(store, core)]
    async fn sweep_keeps_concurrent_writes<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for number in 0..50 {
            w.put_for(&ns, &format!("{number:02}"), 1, w.short()).await?;
        }
        w.expire().await;
        let results = w
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
        results.into_iter().collect::<Result<(), _>>()?;
        w.store().evict_expired(w.ctx()).await?;
        let expected: Vec<_> = (0..25).map(|number| format!("{:02}", number * 2)).collect();
        check_eq!(w.list(&ns, None).await?, expected, "the keys that were written again");
        Ok(())
    }

    /// A sweep removes an entry from its expiry on, and not a millisecond before.
    #[case(store, entry)]
    async fn sweep_is_exact_to_the_millisecond<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_exact_clock()?;
        w.needs_kept_expired()?;
        let ns = w.ns(&["a"])?;
        for millis in [10, 11, 12] {
            w.put_for(&ns, &format!("{millis}"), 1, Duration::from_millis(millis)).await?;
        }
        w.advance_millis(9).await;
        check_eq!(
            w.store().evict_expired(w.ctx()).await?,
            0,
            "the number of removed entries after 9 ms"
        );
        w.advance_millis(2).await;
        check_eq!(
            w.store().evict_expired(w.ctx()).await?,
            2,
            "the number of removed entries after 11 ms"
        );
        check_eq!(w.list(&ns, None).await?, ["12"], "the keys after the sweep");
        Ok(())
    }
}
