//! Concurrent callers.

use cubbyhole_core::{Batch, Condition, EntryStoreExt, PutOptions, Update};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq};
use crate::world::World;
use crate::world::{is_conflict, number_of};

cases! {
    /// Concurrent puts of different keys are all kept.
    #[case(tenant, core)]
    async fn concurrent_puts_of_different_keys_are_kept<V: Sample>(w: &World<V>) -> Outcome {
        let results = w
            .at_once(8, |task, w| async move {
                let ns = w.ns(&["a"])?;
                for number in 0..25 {
                    w.put(&ns, &format!("{task}-{number:02}"), number).await?;
                }
                Ok::<_, cubbyhole_core::Error>(())
            })
            .await?;
        results.into_iter().collect::<Result<(), _>>()?;
        let ns = w.ns(&["a"])?;
        check_eq!(w.list(&ns, None).await?.len(), 200, "the number of keys");
        for task in 0..8 {
            let read = w.number(&ns, &format!("{task}-24")).await?;
            check_eq!(read, Some(24), "the last value of task {task}");
        }
        Ok(())
    }

    /// Concurrent puts of different tenants are all kept, each in its tenant.
    #[case(tenant, core)]
    async fn concurrent_puts_of_different_tenants_are_kept<V: Sample>(w: &World<V>) -> Outcome {
        let results = w
            .at_once(8, |task, w| async move {
                let ns = cubbyhole_core::Namespace::new(w.tenant_with(&task.to_string())?);
                for number in 0..20 {
                    w.put(&ns, &format!("{number:02}"), task as u64).await?;
                }
                Ok::<_, cubbyhole_core::Error>(ns)
            })
            .await?;
        for (task, ns) in results.into_iter().enumerate() {
            let ns = ns?;
            check_eq!(w.list(&ns, None).await?.len(), 20, "the number of keys of tenant {task}");
            check_eq!(w.number(&ns, "07").await?, Some(task as u64), "a value of tenant {task}");
        }
        Ok(())
    }

    /// Concurrent puts of one key leave the last value of one of the writers.
    #[case(tenant, core)]
    async fn concurrent_puts_of_one_key_leave_one_value<V: Sample>(w: &World<V>) -> Outcome {
        let results = w
            .at_once(8, |task, w| async move {
                let ns = w.ns(&["a"])?;
                for number in 0..20 {
                    w.put(&ns, "k", task as u64 * 20 + number).await?;
                }
                Ok::<_, cubbyhole_core::Error>(())
            })
            .await?;
        results.into_iter().collect::<Result<(), _>>()?;
        let ns = w.ns(&["a"])?;
        let last = w.number(&ns, "k").await?;
        check!(
            last.is_some_and(|number| number % 20 == 19),
            "the value must be the last one of a writer, but is {last:?}"
        );
        check_eq!(w.list(&ns, None).await?, ["k"], "the keys");
        Ok(())
    }

    /// Exactly one of several concurrent puts if absent succeeds. The others return a conflict with
    /// its version.
    #[case(tenant, entry)]
    async fn one_concurrent_put_if_absent_wins<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for round in 0..20 {
            let key = format!("k{round}");
            let results = w
                .at_once(8, move |task, w| {
                    let key = key.clone();
                    async move {
                        let ns = w.ns(&["a"])?;
                        let absent = Condition::IfAbsent;
                        w.put_entry(&ns, &key, task as u64, PutOptions::new(), absent).await
                    }
                })
                .await?;
            let mut winners = Vec::new();
            let mut conflicts = Vec::new();
            for (task, result) in results.into_iter().enumerate() {
                match result {
                    Ok(version) => winners.push((task as u64, version)),
                    Err(error) if is_conflict(&error) => conflicts.push(error.current_version()),
                    Err(error) => return Err(error.into()),
                }
            }
            check_eq!(winners.len(), 1, "the number of successful calls in round {round}");
            let (number, version) = winners[0];
            check_eq!(conflicts, [Some(version); 7], "the current versions in the conflicts");
            let read = w.number(&ns, &format!("k{round}")).await?;
            check_eq!(read, Some(number), "the value after the successful put");
        }
        Ok(())
    }

    /// Exactly one of several concurrent puts at the same version succeeds.
    #[case(tenant, entry)]
    async fn one_concurrent_put_if_version_wins<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let mut version = w.put_entry(&ns, "k", 0, PutOptions::new(), Condition::Always).await?;
        for round in 0..20 {
            let at = Condition::IfVersion(version);
            let results = w
                .at_once(6, move |task, w| async move {
                    let ns = w.ns(&["a"])?;
                    w.put_entry(&ns, "k", task as u64, PutOptions::new(), at).await
                })
                .await?;
            let won: Vec<_> = results.into_iter().filter_map(Result::ok).collect();
            check_eq!(won.len(), 1, "the number of successful calls in round {round}");
            version = won[0];
            check_eq!(
                w.live(&ns, "k").await?.meta.version,
                version,
                "the version after the successful put"
            );
        }
        Ok(())
    }

    /// Exactly one of several concurrent deletes reports that the entry existed.
    #[case(tenant, entry)]
    async fn one_concurrent_delete_finds_the_entry<V: Sample>(w: &World<V>) -> Outcome {
        for round in 0..20 {
            w.put(&w.ns(&["a"])?, "k", round).await?;
            let results = w
                .at_once(6, |_, w| async move {
                    let ns = w.ns(&["a"])?;
                    w.store().delete_entry(w.ctx(), &ns, "k", Condition::Always).await
                })
                .await?;
            let found = results.into_iter().collect::<Result<Vec<_>, _>>()?;
            check_eq!(
                found.iter().filter(|found| **found).count(),
                1,
                "the number of deletes that found the entry in round {round}"
            );
        }
        Ok(())
    }

    /// Concurrent increments through `update` are all counted.
    #[case(tenant, entry)]
    async fn concurrent_increments_are_all_counted<V: Sample>(w: &World<V>) -> Outcome {
        let (tasks, each) = (6, 10);
        let results = w
            .at_once(tasks, move |_, w| async move {
                let ns = w.ns(&["a"])?;
                for _ in 0..each {
                    w.store().update(w.ctx(), &ns, "counter", increment).await?;
                }
                Ok::<_, cubbyhole_core::Error>(())
            })
            .await?;
        results.into_iter().collect::<Result<(), _>>()?;
        let counted = w.number(&w.ns(&["a"])?, "counter").await?;
        check_eq!(counted, Some(tasks as u64 * each), "the counter after all increments");
        Ok(())
    }

    /// Concurrent reads see all writes of a batch or none.
    #[case(tenant, entry)]
    async fn concurrent_reads_never_see_half_a_batch<V: Sample>(w: &World<V>) -> Outcome {
        let pair = |number| Batch::new().put("a", V::sample(number)).put("b", V::sample(number));
        let ns = w.ns(&["a"])?;
        w.store().write(w.ctx(), &ns, pair(0)).await?;
        let results = w
            .at_once(4, move |task, w| async move {
                let ns = w.ns(&["a"])?;
                for number in 0..50 {
                    if task == 0 {
                        w.store().write(w.ctx(), &ns, pair(number)).await?;
                        continue;
                    }
                    let many = w.get_many(&ns, &["a", "b"]).await?;
                    let seen = many.into_iter().collect::<Result<Vec<_>, _>>()?;
                    let seen: Vec<_> = seen.into_iter().flatten().map(|e| e.value).collect();
                    check!(
                        seen.len() == 2 && seen[0] == seen[1],
                        "a read sees only one of the two writes of a batch"
                    );
                }
                Ok(())
            })
            .await?;
        results.into_iter().collect()
    }

    /// Concurrent batches over the same keys, in different orders, do not interleave.
    #[case(tenant, entry)]
    async fn concurrent_batches_do_not_interleave<V: Sample>(w: &World<V>) -> Outcome {
        let results = w
            .at_once(6, |task, w| async move {
                let ns = w.ns(&["a"])?;
                let mut keys = ["a", "b", "c", "d"];
                keys.rotate_left(task % 4);
                for _ in 0..15 {
                    let batch = keys
                        .iter()
                        .fold(Batch::new(), |batch, key| batch.put(*key, V::sample(task as u64)));
                    w.store().write(w.ctx(), &ns, batch).await?;
                }
                Ok::<_, cubbyhole_core::Error>(())
            })
            .await?;
        results.into_iter().collect::<Result<(), _>>()?;
        let ns = w.ns(&["a"])?;
        let first = w.number(&ns, "a").await?;
        for key in ["b", "c", "d"] {
            check_eq!(
                w.number(&ns, key).await?,
                first,
                "the value of {key} compared with that of a: both must be from one batch"
            );
        }
        Ok(())
    }
}

fn increment<V: Sample>(
    entry: Option<cubbyhole_core::Entry<V>>,
) -> cubbyhole_core::Result<Update<V>> {
    let Some(entry) = entry else {
        return Ok(Update::Put(V::sample(1)));
    };
    let number = number_of(&entry.value).map_err(|_| {
        cubbyhole_core::Error::internal("the counter has a value that the case did not write")
    })?;
    Ok(Update::Put(V::sample(number + 1)))
}
