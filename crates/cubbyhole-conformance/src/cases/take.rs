//! `take`: get and delete in one atomic step.

use cubbyhole_core::Condition;

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq};
use crate::world::World;

cases! {
    /// `take` returns the entry and removes it.
    #[case(tenant, entry)]
    async fn take_returns_and_removes_the_entry<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, w.long()).await?;
        let entry = w.live(&ns, "k").await?;
        check_eq!(
            w.store().take(w.ctx(), &ns, "k").await?,
            Some(entry),
            "the returned entry, compared with get_entry"
        );
        check_eq!(w.get(&ns, "k").await?, None, "get after the take");
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys after the take");
        check_eq!(w.namespaces(&w.everything()).await?, [], "the namespaces after the take");
        Ok(())
    }

    /// `take` returns `None` for a key that is absent or was taken.
    #[case(tenant, entry)]
    async fn take_of_absent_key_returns_none<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        check_eq!(w.store().take(w.ctx(), &ns, "k").await?, None, "take of an absent key");
        w.put(&ns, "k", 1).await?;
        check!(
            w.store().take(w.ctx(), &ns, "k").await?.is_some(),
            "the first take must return the entry, but returned `None`"
        );
        check_eq!(w.store().take(w.ctx(), &ns, "k").await?, None, "the second take");
        Ok(())
    }

    /// `take` removes no other entry.
    #[case(tenant, entry)]
    async fn take_removes_only_its_key<V: Sample>(w: &World<V>) -> Outcome {
        let (a, ab) = (w.ns(&["a"])?, w.ns(&["ab"])?);
        w.put_all(&a, &["", "k", "ka"]).await?;
        w.put_all(&ab, &["k"]).await?;
        w.store().take(w.ctx(), &a, "k").await?;
        check_eq!(w.list(&a, None).await?, ["", "ka"], "the keys of a");
        check_eq!(w.list(&ab, None).await?, ["k"], "the keys of ab");
        Ok(())
    }

    /// A key is absent after `take`, and can be created again.
    #[case(tenant, entry)]
    async fn taken_key_is_absent<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        w.store().take(w.ctx(), &ns, "k").await?;
        let options = cubbyhole_core::PutOptions::new();
        w.put_entry(&ns, "k", 2, options, Condition::IfAbsent).await?;
        check_eq!(w.number(&ns, "k").await?, Some(2), "the value of the new entry");
        Ok(())
    }

    /// Exactly one of several concurrent takes gets the entry.
    #[case(tenant, entry)]
    async fn one_concurrent_take_gets_the_entry<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for round in 0..20 {
            w.put(&ns, "k", round).await?;
            let ns = ns.clone();
            let results = w
                .at_once(8, move |_, w| {
                    let ns = ns.clone();
                    async move { w.store().take(w.ctx(), &ns, "k").await }
                })
                .await?;
            let taken = results.into_iter().collect::<Result<Vec<_>, _>>()?;
            let taken: Vec<_> = taken.into_iter().flatten().map(|entry| entry.value).collect();
            check_eq!(
                taken,
                [V::sample(round)],
                "the values that the concurrent takes of round {round} returned"
            );
        }
        Ok(())
    }

    /// Workers that take from one queue get each item once.
    #[case(tenant, entry)]
    async fn workers_take_each_item_once<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["queue"])?;
        let keys: Vec<String> = (0..40).map(|number| format!("{number:02}")).collect();
        for key in &keys {
            w.put(&ns, key, 1).await?;
        }
        let all = keys.clone();
        let results = w
            .at_once(4, move |_, w| {
                let (ns, keys) = (ns.clone(), all.clone());
                async move {
                    let mut mine = Vec::new();
                    for key in keys {
                        if w.store().take(w.ctx(), &ns, &key).await?.is_some() {
                            mine.push(key);
                        }
                    }
                    Ok::<_, cubbyhole_core::Error>(mine)
                }
            })
            .await?;
        let mut taken = results.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
        taken.sort_unstable();
        check_eq!(taken, keys, "the keys that all workers took");
        Ok(())
    }
}
