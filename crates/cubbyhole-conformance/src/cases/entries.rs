//! `get_entry`: the value with its version and its instants.

use std::time::Duration;

use cubbyhole_core::{Condition, PutOptions};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq};
use crate::world::World;

cases! {
    /// `get_entry` returns `None` for an absent key.
    #[case(tenant, entry)]
    async fn absent_entry_is_none<V: Sample>(w: &World<V>) -> Outcome {
        check_eq!(w.entry(&w.ns(&["a"])?, "k").await?, None, "get_entry before any write");
        Ok(())
    }

    /// A new entry has equal `created_at` and `updated_at`, and no expiry.
    #[case(tenant, entry)]
    async fn new_entry_has_equal_instants_and_no_expiry<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        let entry = w.live(&ns, "k").await?;
        check_eq!(entry.value, V::sample(1), "the value");
        check_eq!(
            entry.meta.created_at,
            entry.meta.updated_at,
            "created_at, compared with updated_at"
        );
        check_eq!(entry.meta.expires_at, None, "expires_at");
        Ok(())
    }

    /// Reads do not change an entry.
    #[case(tenant, entry)]
    async fn reads_do_not_change_the_entry<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, w.long()).await?;
        let first = w.live(&ns, "k").await?;
        w.get(&ns, "k").await?;
        w.list(&ns, None).await?;
        check_eq!(w.live(&ns, "k").await?, first, "the entry after the reads");
        Ok(())
    }

    /// Overwriting keeps `created_at` and advances `updated_at`.
    #[case(time, entry)]
    async fn overwrite_keeps_created_at<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        let first = w.live(&ns, "k").await?.meta;
        w.advance_millis(20).await;
        w.put(&ns, "k", 2).await?;
        let second = w.live(&ns, "k").await?.meta;
        check_eq!(second.created_at, first.created_at, "created_at after put");
        check!(
            second.updated_at > first.updated_at,
            "updated_at must advance when an entry is overwritten"
        );
        w.advance_millis(20).await;
        w.put_entry(&ns, "k", 3, PutOptions::new(), Condition::IfVersion(second.version)).await?;
        let third = w.live(&ns, "k").await?.meta;
        check_eq!(third.created_at, first.created_at, "created_at after put_entry");
        check!(
            third.updated_at > second.updated_at,
            "updated_at must advance when an entry is overwritten"
        );
        Ok(())
    }

    /// An entry that is created again after a delete has a new `created_at`.
    #[case(time, entry)]
    async fn delete_resets_created_at<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        let first = w.live(&ns, "k").await?.meta;
        w.advance_millis(20).await;
        w.delete(&ns, "k").await?;
        w.put(&ns, "k", 2).await?;
        let second = w.live(&ns, "k").await?.meta;
        check!(second.created_at > first.created_at, "created_at must be new after a delete");
        check_eq!(second.created_at, second.updated_at, "created_at, compared with updated_at");
        Ok(())
    }

    /// An entry that is created again after its expiry has a new `created_at`, swept or not.
    #[case(time, entry)]
    async fn expiry_resets_created_at<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "probe", 1).await?;
        let first = w.live(&ns, "probe").await?.meta;
        w.put_for(&ns, "k", 1, w.short()).await?;
        w.expire().await;
        w.put(&ns, "k", 2).await?;
        let second = w.live(&ns, "k").await?.meta;
        check!(second.created_at > first.created_at, "created_at must be new after an expiry");
        check_eq!(second.created_at, second.updated_at, "created_at, compared with updated_at");
        Ok(())
    }

    /// `created_at` and `updated_at` are instants of the store's clock, to the millisecond.
    #[case(time, entry)]
    async fn instants_are_those_of_the_clock<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_exact_clock()?;
        let ns = w.ns(&["a"])?;
        w.put(&ns, "a", 1).await?;
        w.advance_millis(1).await;
        w.put(&ns, "b", 1).await?;
        w.advance_millis(1_234).await;
        w.put(&ns, "a", 2).await?;
        let (a, b) = (w.live(&ns, "a").await?.meta, w.live(&ns, "b").await?.meta);
        let since = |millis| a.created_at.checked_add(Duration::from_millis(millis));
        check_eq!(
            b.created_at,
            since(1)?,
            "created_at of an entry that was written one millisecond later"
        );
        check_eq!(
            a.updated_at,
            since(1_235)?,
            "updated_at of an entry that was overwritten 1,235 ms later"
        );
        Ok(())
    }

    /// `updated_at` never goes back, and is never before `created_at`.
    #[case(tenant, entry)]
    async fn updated_at_never_goes_back<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let mut last = None;
        for number in 0..20 {
            w.put(&ns, "k", number).await?;
            let meta = w.live(&ns, "k").await?.meta;
            check!(meta.created_at <= meta.updated_at, "created_at must not be after updated_at");
            check!(last <= Some(meta.updated_at), "updated_at must not go back");
            last = Some(meta.updated_at);
        }
        Ok(())
    }
}
