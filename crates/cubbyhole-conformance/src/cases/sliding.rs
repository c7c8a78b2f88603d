//! Sliding expiry: reading an entry extends its TTL in the same step.

use std::time::Duration;

use cubbyhole_core::{Entry, GetOptions, Namespace};

use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq};
use crate::Sample;
use crate::world::World;

cases! {
    /// A read that extends keeps an entry past the end that it had.
    #[case(time, entry)]
    async fn a_read_extends<V: Sample>(w: &World<V>) -> Outcome {
        let ns = &w.ns(&["a"])?;
        w.in_time(|| async move {
            w.put_for(ns, "read", 1, w.short()).await?;
            w.put_for(ns, "unread", 2, w.short()).await?;
            slide(w, ns, "read", w.long()).await?;
            Ok(())
        })
        .await?;
        w.expire().await;
        check_eq!(w.list(ns, None).await?, ["read"], "past the old end");
        w.store().evict_expired(w.ctx()).await?;
        check_eq!(w.number(ns, "read").await?, Some(1), "after a sweep");
        Ok(())
    }

    /// The answer shows the entry as it is after the extension.
    #[case(tenant, entry)]
    async fn the_answer_shows_the_extension<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, w.long()).await?;
        let before = w.live(&ns, "k").await?;
        let answer = slide(w, &ns, "k", w.long() * 2).await?;
        let after = w.live(&ns, "k").await?;
        check_eq!(answer, Some(after.clone()), "the answer, and the entry read again");
        check!(after.meta.expires_at > before.meta.expires_at, "it is not extended");
        Ok(())
    }

    /// A read never shortens a TTL.
    #[case(tenant, entry)]
    async fn a_read_never_shortens<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, w.long()).await?;
        let before = w.live(&ns, "k").await?;
        let answer = slide(w, &ns, "k", Duration::from_millis(1)).await?;
        check_eq!(answer, Some(before.clone()), "the answer");
        check_eq!(w.live(&ns, "k").await?, before, "the entry");
        Ok(())
    }

    /// A permanent entry stays permanent.
    #[case(time, entry)]
    async fn a_permanent_entry_stays_permanent<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        let before = w.live(&ns, "k").await?;
        check_eq!(slide(w, &ns, "k", w.short()).await?, Some(before), "the answer");
        w.expire().await;
        check_eq!(w.live(&ns, "k").await?.meta.expires_at, None, "no expiry");
        Ok(())
    }

    /// An expired entry is not revived, and an absent one not created.
    #[case(tenant, entry)]
    async fn an_expired_entry_is_not_revived<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_expired(&ns, "k").await?;
        check_eq!(slide(w, &ns, "k", w.long()).await?, None, "expired");
        check_eq!(slide(w, &ns, "absent", w.long()).await?, None, "absent");
        check_eq!(w.get(&ns, "k").await?, None, "read again");
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys");
        Ok(())
    }

    /// A plain read extends nothing.
    #[case(time, entry)]
    async fn a_plain_read_extends_nothing<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, w.short()).await?;
        w.entry(&ns, "k").await?;
        w.get(&ns, "k").await?;
        w.expire().await;
        check_eq!(w.get(&ns, "k").await?, None, "past its end");
        Ok(())
    }

    /// To the millisecond: a session that is read in time lives on, and ends a TTL after the last
    /// read.
    #[case(time, entry)]
    async fn a_session_lives_while_it_is_read<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_exact_clock()?;
        let ns = w.ns(&["a"])?;
        let ttl = Duration::from_millis(100);
        w.put_for(&ns, "k", 1, ttl).await?;
        for round in 0..5 {
            w.advance_millis(99).await;
            check!(slide(w, &ns, "k", ttl).await?.is_some(), "it ended in round {round}");
        }
        w.advance_millis(99).await;
        check_eq!(w.number(&ns, "k").await?, Some(1), "one millisecond before");
        w.advance_millis(1).await;
        check_eq!(slide(w, &ns, "k", ttl).await?, None, "at its end");
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
