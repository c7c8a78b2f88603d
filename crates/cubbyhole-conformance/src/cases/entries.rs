//! `get_entry`: the value with its version and its instants.

use std::time::Duration;

use cubbyhole_core::{Condition, PutOptions};

use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq};
use crate::Sample;
use crate::world::World;

cases! {
    /// An absent entry is `None`.
    #[case(tenant, entry)]
    async fn an_absent_entry_is_none<V: Sample>(w: &World<V>) -> Outcome {
        check_eq!(w.entry(&w.ns(&["a"])?, "k").await?, None, "nothing was written");
        Ok(())
    }

    /// A new entry was created when it was updated, and never expires.
    #[case(tenant, entry)]
    async fn a_new_entry<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        let entry = w.live(&ns, "k").await?;
        check_eq!(entry.value, V::sample(1), "the value");
        check_eq!(entry.meta.created_at, entry.meta.updated_at, "both instants");
        check_eq!(entry.meta.expires_at, None, "it never expires");
        Ok(())
    }

    /// Reading changes nothing.
    #[case(tenant, entry)]
    async fn reading_changes_nothing<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, w.long()).await?;
        let first = w.live(&ns, "k").await?;
        w.get(&ns, "k").await?;
        w.list(&ns, None).await?;
        check_eq!(w.live(&ns, "k").await?, first, "the entry read again");
        Ok(())
    }

    /// Overwriting keeps `created_at` and sets `updated_at`.
    #[case(time, entry)]
    async fn overwriting_keeps_created_at<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        let first = w.live(&ns, "k").await?.meta;
        w.advance_millis(20).await;
        w.put(&ns, "k", 2).await?;
        let second = w.live(&ns, "k").await?.meta;
        check_eq!(second.created_at, first.created_at, "created_at after put");
        check!(second.updated_at > first.updated_at, "updated_at stands still");
        w.advance_millis(20).await;
        w.put_entry(&ns, "k", 3, PutOptions::new(), Condition::IfVersion(second.version)).await?;
        let third = w.live(&ns, "k").await?.meta;
        check_eq!(third.created_at, first.created_at, "created_at after put_entry");
        check!(third.updated_at > second.updated_at, "updated_at stands still");
        Ok(())
    }

    /// Re-creation after a deletion starts `created_at` anew.
    #[case(time, entry)]
    async fn a_deletion_ends_created_at<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        let first = w.live(&ns, "k").await?.meta;
        w.advance_millis(20).await;
        w.delete(&ns, "k").await?;
        w.put(&ns, "k", 2).await?;
        let second = w.live(&ns, "k").await?.meta;
        check!(second.created_at > first.created_at, "created_at outlives the deletion");
        check_eq!(second.created_at, second.updated_at, "it is new");
        Ok(())
    }

    /// Re-creation after expiry starts `created_at` anew, swept or not.
    #[case(time, entry)]
    async fn expiry_ends_created_at<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "probe", 1).await?;
        let first = w.live(&ns, "probe").await?.meta;
        w.put_for(&ns, "k", 1, w.short()).await?;
        w.expire().await;
        w.put(&ns, "k", 2).await?;
        let second = w.live(&ns, "k").await?.meta;
        check!(second.created_at > first.created_at, "created_at outlives the expiry");
        check_eq!(second.created_at, second.updated_at, "it is new");
        Ok(())
    }

    /// To the millisecond: the instants are those of the store's clock.
    #[case(time, entry)]
    async fn instants_follow_the_clock<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_exact_clock()?;
        let ns = w.ns(&["a"])?;
        w.put(&ns, "a", 1).await?;
        w.advance_millis(1).await;
        w.put(&ns, "b", 1).await?;
        w.advance_millis(1_234).await;
        w.put(&ns, "a", 2).await?;
        let (a, b) = (w.live(&ns, "a").await?.meta, w.live(&ns, "b").await?.meta);
        let since = |millis| a.created_at.checked_add(Duration::from_millis(millis));
        check_eq!(b.created_at, since(1)?, "created one millisecond later");
        check_eq!(a.updated_at, since(1_235)?, "updated 1235 ms later");
        Ok(())
    }

    /// Instants of one entry never go back, and those of several writes stand in their order.
    #[case(tenant, entry)]
    async fn instants_never_go_back<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let mut last = None;
        for number in 0..20 {
            w.put(&ns, "k", number).await?;
            let meta = w.live(&ns, "k").await?.meta;
            check!(meta.created_at <= meta.updated_at, "created after it was updated");
            check!(last <= Some(meta.updated_at), "updated_at goes back");
            last = Some(meta.updated_at);
        }
        Ok(())
    }
}
