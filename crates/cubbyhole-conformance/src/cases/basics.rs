//! The four required methods and `put`.

use cubbyhole_core::PutOptions;

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check_eq};
use crate::world::World;

cases! {
    /// `get` returns `None` for a key that was never written.
    #[case(tenant, core)]
    async fn get_of_absent_key_returns_none<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        check_eq!(w.get(&ns, "k").await?, None, "get before any write");
        w.put(&ns, "other", 1).await?;
        check_eq!(w.get(&ns, "k").await?, None, "get after a write of another key");
        Ok(())
    }

    /// `get` returns the value that `put` wrote.
    #[case(tenant, core)]
    async fn get_returns_the_value_of_put<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        check_eq!(w.get(&ns, "k").await?, Some(V::sample(1)), "get after put");
        check_eq!(w.get(&ns, "k").await?, Some(V::sample(1)), "the second get");
        Ok(())
    }

    /// `put_with_options` with the default options does the same as `put`.
    #[case(tenant, core)]
    async fn put_with_default_options_equals_put<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&[])?;
        let options = PutOptions::default();
        w.store().put_with_options(w.ctx(), &ns, "k", V::sample(1), options).await?;
        check_eq!(w.number(&ns, "k").await?, Some(1), "the value after put_with_options");
        w.put(&ns, "k", 2).await?;
        check_eq!(w.number(&ns, "k").await?, Some(2), "the value after put");
        Ok(())
    }

    /// A second `put` replaces the value of the key, and changes no other entry.
    #[case(tenant, core)]
    async fn put_replaces_the_value<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "j", 10).await?;
        for number in 0..5 {
            w.put(&ns, "k", number).await?;
            check_eq!(
                w.number(&ns, "k").await?,
                Some(number),
                "the value after put number {number}"
            );
        }
        check_eq!(w.list(&ns, None).await?, ["j", "k"], "the keys");
        check_eq!(w.number(&ns, "j").await?, Some(10), "the value of the other key");
        Ok(())
    }

    /// Writing the same value twice succeeds.
    #[case(tenant, core)]
    async fn same_value_can_be_put_twice<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        w.put(&ns, "k", 1).await?;
        check_eq!(w.number(&ns, "k").await?, Some(1), "the value after the second put");
        Ok(())
    }

    /// `delete` removes the entry, and no other entry.
    #[case(tenant, core)]
    async fn delete_removes_one_entry<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &["j", "k", "ka"]).await?;
        w.delete(&ns, "k").await?;
        check_eq!(w.get(&ns, "k").await?, None, "get of the deleted key");
        check_eq!(w.list(&ns, None).await?, ["j", "ka"], "the remaining keys");
        Ok(())
    }

    /// `delete` is idempotent: deleting an absent key succeeds.
    #[case(tenant, core)]
    async fn delete_is_idempotent<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["never", "written"])?;
        w.delete(&ns, "k").await?;
        w.put(&ns, "k", 1).await?;
        w.delete(&ns, "k").await?;
        w.delete(&ns, "k").await?;
        check_eq!(w.list(&ns, None).await?, Vec::<String>::new(), "the keys after both deletes");
        Ok(())
    }

    /// A deleted key can be written again.
    #[case(tenant, core)]
    async fn deleted_key_can_be_written_again<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for number in 0..3 {
            w.put(&ns, "k", number).await?;
            check_eq!(
                w.number(&ns, "k").await?,
                Some(number),
                "the value after put number {number}"
            );
            w.delete(&ns, "k").await?;
            check_eq!(w.get(&ns, "k").await?, None, "get after delete number {number}");
        }
        Ok(())
    }

    /// A tenant without scope segments is a namespace like any other.
    #[case(tenant, core)]
    async fn tenant_without_scope_is_a_namespace<V: Sample>(w: &World<V>) -> Outcome {
        let bare = w.ns(&[])?;
        w.put(&bare, "k", 1).await?;
        w.put(&w.ns(&["a"])?, "k", 2).await?;
        check_eq!(w.number(&bare, "k").await?, Some(1), "the value in the namespace without scope");
        w.delete(&bare, "k").await?;
        check_eq!(
            w.number(&w.ns(&["a"])?, "k").await?,
            Some(2),
            "the value in the namespace `a` after the delete"
        );
        Ok(())
    }

    /// 300 entries of one namespace keep their own values.
    #[case(tenant, core)]
    async fn three_hundred_entries_stay_distinct<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["many"])?;
        for number in 0..300 {
            w.put(&ns, &format!("key-{number:03}"), number).await?;
        }
        for number in 0..300 {
            let read = w.get(&ns, &format!("key-{number:03}")).await?;
            check_eq!(read, Some(V::sample(number)), "entry {number}");
        }
        check_eq!(w.list(&ns, None).await?.len(), 300, "the number of keys");
        Ok(())
    }
}
