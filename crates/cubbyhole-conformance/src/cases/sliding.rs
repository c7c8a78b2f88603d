//! Sliding expiry: reading an entry extends its TTL in the same step.

use std::time::Duration;

use cubbyhole_core::{Entry, GetOptions, Namespace};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq};
use crate::world::World;

cases! {
    /// A sliding read keeps an entry beyond its old expiry.
    #[case(time, entry)]
    async fn sliding_read_extends_the_ttl<V: Sample>(w: &World<V>) -> Outcome {
        let ns = &w.ns(&["a"])?;
        w.in_time(|| async move {
            w.put_for(ns, "read", 1, w.short()).await?;
            w.put_for(ns, "unread", 2, w.short()).await?;
            slide(w, ns, "read", w.long()).await?;
            Ok(())
        })
        .await?;
        w.expire().await;
        check_eq!(w.list(ns, None).await?, ["read"], "the keys after the old expiry");
        w.store().evict_expired(w.ctx()).await?;
        check_eq!(w.number(ns, "read").await?, Some(1), "the value after a sweep");
        Ok(())
    }

    /// A sliding read returns the entry with its new expiry.
    #[case(tenant, entry)]
    async fn reply_has_the_extended_expiry<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, w.long()).await?;
        let before = w.live(&ns, "k").await?;
        let result = slide(w, &ns, "k", w.long() * 2).await?;
        let after = w.live(&ns, "k").await?;
        check_eq!(result, Some(after.clone()), "the returned entry, compared with a second read");
        check!(
            after.meta.expires_at > before.meta.expires_at,
            "expires_at must be later after the sliding read"
        );
        Ok(())
    }

    /// A sliding read never shortens a TTL.
    #[case(tenant, entry)]
    async fn sliding_read_never_shortens_the_ttl<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, w.long()).await?;
        let before = w.live(&ns, "k").await?;
        let result = slide(w, &ns, "k", Duration::from_millis(1)).await?;
        check_eq!(result, Some(before.clone()), "the returned entry");
        check_eq!(w.live(&ns, "k").await?, before, "the entry, read again");
        Ok(())
    }

    /// A sliding read does not set a TTL on an entry without one.
    #[case(time, entry)]
    async fn entry_without_ttl_stays_permanent<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        let before = w.live(&ns, "k").await?;
        check_eq!(slide(w, &ns, "k", w.short()).await?, Some(before), "the returned entry");
        w.expire().await;
        check_eq!(
            w.live(&ns, "k").await?.meta.expires_at,
            None,
            "expires_at after the sliding read"
        );
        Ok(())
    }

    /// A sliding read neither revives an expired entry nor creates an absent one.
    #[case(tenant, entry)]
    async fn expired_entry_is_not_revived<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_expired(&ns, "k").await?;
        check_eq!(slide(w, &ns, "k", w.long()).await?, None, "the sliding read of an expired key");
        check_eq!(
            slide(w, &ns, "absent", w.long()).await?,
            None,
            "the sliding read of an absent key"
        );
        check_eq!(w.get(&ns, "k").await?, None, "get after the sliding read");
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys");
        Ok(())
    }

    /// A read without the option does not extend a TTL.
    #[case(time, entry)]
    async fn plain_read_does_not_extend_the_ttl<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, w.short()).await?;
        w.entry(&ns, "k").await?;
        w.get(&ns, "k").await?;
        w.expire().await;
        check_eq!(w.get(&ns, "k").await?, None, "get after the TTL");
        Ok(())
    }

    /// An entry that is read before each expiry stays, and expires one TTL after the last read, to
    /// the millisecond.
    #[case(time, entry)]
    async fn session_lives_while_it_is_read<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_exact_clock()?;
        let ns = w.ns(&["a"])?;
        let ttl = Duration::from_millis(100);
        w.put_for(&ns, "k", 1, ttl).await?;
        for round in 0..5 {
            w.advance_millis(99).await;
            check!(
                slide(w, &ns, "k", ttl).await?.is_some(),
                "one millisecond before its expiry, the entry is absent in round {round}"
            );
        }
        w.advance_millis(99).await;
        check_eq!(
            w.number(&ns, "k").await?,
            Some(1),
            "the value one millisecond before the expiry"
        );
        w.advance_millis(1).await;
        check_eq!(slide(w, &ns, "k", ttl).await?, None, "the sliding read at the expiry");
        Ok(())
    }
}

async fn slide<V: Sample>(
    w: &World<V>,
    ns: &Namespace,
    key: &str,
    ttl: Duration,
) -> cubbyhole_core::Result<Option<Entry<V>>> {
    w.store().get_entry(w.ctx(), ns, key, GetOptions::new().with_extended_ttl(ttl)).await
}
