//! `touch`: sets the expiry without writing the value.

use std::time::Duration;

use cubbyhole_core::{Condition, Expiry, Timestamp};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq};
use crate::world::World;

cases! {
    /// `touch` returns whether the entry exists, and creates none.
    #[case(tenant, entry)]
    async fn touch_reports_whether_entry_exists<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let day = Expiry::After(w.long());
        check!(
            !w.touch(&ns, "k", day).await?,
            "touch of an absent key must return false, but returned true"
        );
        check!(
            !w.touch(&ns, "k", Expiry::Never).await?,
            "touch of an absent key must return false, but returned true"
        );
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys after the touches");
        w.put(&ns, "k", 1).await?;
        check!(
            w.touch(&ns, "k", day).await?,
            "touch of an existing key must return true, but returned false"
        );
        w.delete(&ns, "k").await?;
        check!(
            !w.touch(&ns, "k", day).await?,
            "touch of a deleted key must return false, but returned true"
        );
        Ok(())
    }

    /// `touch` sets a TTL on an entry without one.
    #[case(time, entry)]
    async fn touch_adds_a_ttl<V: Sample>(w: &World<V>) -> Outcome {
        let ns = &w.ns(&["a"])?;
        w.in_time(|| async move {
            w.put_all(ns, &["j", "k"]).await?;
            w.touch(ns, "k", Expiry::After(w.short())).await?;
            check!(
                w.live(ns, "k").await?.meta.expires_at.is_some(),
                "the entry must have an expiry after the touch"
            );
            Ok(())
        })
        .await?;
        w.expire().await;
        check_eq!(w.list(ns, None).await?, ["j"], "the keys after the new TTL");
        Ok(())
    }

    /// `touch` with `Never` removes the TTL.
    #[case(time, entry)]
    async fn touch_removes_a_ttl<V: Sample>(w: &World<V>) -> Outcome {
        let ns = &w.ns(&["a"])?;
        w.in_time(|| async move {
            w.put_for(ns, "k", 1, w.short()).await?;
            w.touch(ns, "k", Expiry::Never).await?;
            check_eq!(w.live(ns, "k").await?.meta.expires_at, None, "expires_at after the touch");
            Ok(())
        })
        .await?;
        w.expire().await;
        check_eq!(w.number(ns, "k").await?, Some(1), "the value after the old TTL");
        w.store().evict_expired(w.ctx()).await?;
        check_eq!(w.number(ns, "k").await?, Some(1), "the value after a sweep");
        Ok(())
    }

    /// `touch` replaces a TTL by a longer or a shorter one.
    #[case(time, entry)]
    async fn touch_replaces_a_ttl<V: Sample>(w: &World<V>) -> Outcome {
        let ns = &w.ns(&["a"])?;
        w.in_time(|| async move {
            w.put_for(ns, "longer", 1, w.short()).await?;
            w.touch(ns, "longer", Expiry::After(w.long())).await?;
            Ok(())
        })
        .await?;
        w.put_for(ns, "shorter", 1, w.long()).await?;
        w.touch(ns, "shorter", Expiry::After(w.short())).await?;
        w.expire().await;
        check_eq!(w.list(ns, None).await?, ["longer"], "the keys after the short TTL");
        Ok(())
    }

    /// `touch` sets an instant of expiry. An instant in the past ends the entry immediately.
    #[case(tenant, entry)]
    async fn touch_sets_an_instant<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &["j", "k"]).await?;
        check!(
            w.touch(&ns, "k", Expiry::At(Timestamp::MAX)).await?,
            "touch of an existing key must return true, but returned false"
        );
        check_eq!(w.live(&ns, "k").await?.meta.expires_at, Some(Timestamp::MAX), "expires_at");
        check!(
            w.touch(&ns, "k", Expiry::At(Timestamp::EPOCH)).await?,
            "touch of an existing key must return true, but returned false"
        );
        check_eq!(
            w.list(&ns, None).await?,
            ["j"],
            "the keys after a touch with an instant in the past"
        );
        Ok(())
    }

    /// `touch` changes no other entry.
    #[case(tenant, entry)]
    async fn touch_changes_one_entry<V: Sample>(w: &World<V>) -> Outcome {
        let namespaces = [w.ns(&["a"])?, w.ns(&["ab"])?, w.ns(&["a", "b"])?, w.ns(&[])?];
        for ns in &namespaces {
            w.put_all(ns, &["k", "kk", ""]).await?;
        }
        w.touch(&namespaces[0], "k", Expiry::At(Timestamp::EPOCH)).await?;
        check_eq!(w.list(&namespaces[0], None).await?, ["", "kk"], "the keys of the namespace");
        for ns in &namespaces[1..] {
            check_eq!(w.list(ns, None).await?, ["", "k", "kk"], "the keys of {ns:?}");
            check_eq!(w.live(ns, "k").await?.meta.expires_at, None, "the expiry in {ns:?}");
        }
        Ok(())
    }

    /// A version that was read before a `touch` is still valid after it.
    #[case(tenant, entry)]
    async fn touch_keeps_the_version_for_conditions<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        let version = w.live(&ns, "k").await?.meta.version;
        w.touch(&ns, "k", Expiry::After(w.long())).await?;
        let options = cubbyhole_core::PutOptions::new();
        w.put_entry(&ns, "k", 2, options, Condition::IfVersion(version)).await?;
        check_eq!(
            w.number(&ns, "k").await?,
            Some(2),
            "the value after a put at the version from before the touch"
        );
        Ok(())
    }

    /// A TTL that `touch` sets starts at the touch, and is exact to the millisecond.
    #[case(time, entry)]
    async fn touched_ttl_is_exact_to_the_millisecond<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_exact_clock()?;
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, Duration::from_millis(100)).await?;
        w.advance_millis(50).await;
        w.touch(&ns, "k", Expiry::After(Duration::from_millis(100))).await?;
        w.advance_millis(99).await;
        check_eq!(
            w.number(&ns, "k").await?,
            Some(1),
            "the value one millisecond before the expiry"
        );
        w.advance_millis(1).await;
        check_eq!(w.get(&ns, "k").await?, None, "get 100 ms after the touch");
        Ok(())
    }
}
