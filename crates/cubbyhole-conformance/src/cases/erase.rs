//! `erase` and `erase_all`: remove everything under a prefix, in bounded steps.

use cubbyhole_core::{EntryStoreExt, Erased, ErrorKind, Namespace, NamespacePrefix};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, Stop, check, check_eq, refused};
use crate::world::World;

cases! {
    /// `erase` of a prefix without entries is done in one step.
    #[case(tenant, entry)]
    async fn erase_of_empty_prefix_is_done_immediately<V: Sample>(w: &World<V>) -> Outcome {
        let step = w.store().erase(w.ctx(), &w.everything(), 10).await?;
        check_eq!(step, Erased { removed: 0, done: true }, "the step for an empty prefix");
        check_eq!(w.store().erase_all(w.ctx(), &w.everything()).await?, 0, "erase_all");
        Ok(())
    }

    /// `erase_all` of a tenant removes every entry of all its namespaces.
    #[case(tenant, entry)]
    async fn whole_tenant_is_erased<V: Sample>(w: &World<V>) -> Outcome {
        for segments in [&[][..], &[""], &["a"], &["a", "b"], &["-"], &["\u{10ffff}"]] {
            w.put_all(&w.ns(segments)?, &["", "k", "\u{10ffff}"]).await?;
        }
        check_eq!(
            w.store().erase_all(w.ctx(), &w.everything()).await?,
            18,
            "the number of removed entries"
        );
        check_eq!(w.namespaces(&w.everything()).await?, [], "what exists after the erase");
        check_eq!(w.get(&w.ns(&["a"])?, "k").await?, None, "get after the erase");
        check_eq!(
            w.store().erase_all(w.ctx(), &w.everything()).await?,
            0,
            "the number of entries that a second erase_all removes"
        );
        Ok(())
    }

    /// The prefix of `erase_all` matches whole segments, and includes the namespace that it names.
    #[case(tenant, entry)]
    async fn prefix_matches_whole_segments<V: Sample>(w: &World<V>) -> Outcome {
        let gone = [&["a"][..], &["a", ""], &["a", "b"], &["a", "b", "c"], &["a", "\u{10ffff}"]];
        let kept = [&[][..], &["ab"], &["a-b"], &["a/x"], &["a:b"], &["a;"], &["b"], &["A"], &[""]];
        for segments in gone.into_iter().chain(kept) {
            w.put_all(&w.ns(segments)?, &["j", "k"]).await?;
        }
        let removed = w.store().erase_all(w.ctx(), &w.ns(&["a"])?.into()).await?;
        check_eq!(removed, 2 * gone.len() as u64, "the number of removed entries");
        for segments in gone {
            check_eq!(
                w.list(&w.ns(segments)?, None).await?,
                [""; 0],
                "the keys of {segments:?}, which is under the prefix"
            );
        }
        for segments in kept {
            check_eq!(
                w.list(&w.ns(segments)?, None).await?,
                ["j", "k"],
                "the keys of {segments:?}, which is not under the prefix"
            );
        }
        Ok(())
    }

    /// `erase_all` changes no other tenant, not even one whose name starts with the name of the
    /// erased one.
    #[case(tenant, entry)]
    async fn other_tenants_are_unchanged<V: Sample>(w: &World<V>) -> Outcome {
        let mut theirs = Vec::new();
        for suffix in ["b", "-b", "/b", "0", ";", "%", "_", "\\", ":", ":a", "\u{10ffff}"] {
            let tenant = Namespace::new(w.tenant_with(suffix)?);
            theirs.push(tenant.clone());
            theirs.push(tenant.with_scope("a")?);
        }
        for ns in theirs.iter().chain([&w.ns(&[])?, &w.ns(&["a"])?]) {
            w.put(ns, "k", 1).await?;
        }
        check_eq!(
            w.store().erase_all(w.ctx(), &w.everything()).await?,
            2,
            "the number of removed entries"
        );
        for ns in &theirs {
            check_eq!(w.number(ns, "k").await?, Some(1), "the value in {ns:?} of another tenant");
        }
        Ok(())
    }

    /// A step of `erase` removes at most `limit` entries, and reports when nothing is left.
    #[case(tenant, entry)]
    async fn step_removes_at_most_its_limit<V: Sample>(w: &World<V>) -> Outcome {
        for (segment, keys) in [("a", 4), ("b", 1), ("c", 5)] {
            for number in 0..keys {
                w.put(&w.ns(&[segment])?, &format!("k{number}"), 1).await?;
            }
        }
        let mut left = 10;
        for step in 0..20 {
            let erased = w.store().erase(w.ctx(), &w.everything(), 3).await?;
            check!(
                erased.removed <= 3,
                "step {step} with limit 3 removed {} entries",
                erased.removed
            );
            left -= erased.removed;
            check_eq!(
                w.store().usage(w.ctx(), &w.everything()).await?.entries,
                left,
                "the number of remaining entries"
            );
            if erased.done {
                check_eq!(left, 0, "the number of entries when erase reports `done`");
                return Ok(());
            }
            check!(
                left > 0 || step < 10,
                "erase must report `done` soon after the last entry is removed"
            );
        }
        Err(Stop::failed("20 steps with limit 3 must erase 10 entries and report `done`"))
    }

    /// An interrupted erase can be completed by calling it again.
    #[case(tenant, entry)]
    async fn interrupted_erase_can_be_repeated<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for number in 0..9 {
            w.put(&ns, &format!("k{number}"), 1).await?;
        }
        let first = w.store().erase(w.ctx(), &w.everything(), 2).await?;
        check!(!first.done, "erase reports `done` after 2 of 9 entries");
        w.put(&ns, "late", 1).await?;
        let rest = w.store().erase_all(w.ctx(), &w.everything()).await?;
        check_eq!(first.removed + rest, 10, "the number of entries that all calls removed");
        check_eq!(w.list(&ns, None).await?, [""; 0], "what exists after the erase");
        Ok(())
    }

    /// `erase_all` counts only live entries, and removes expired ones too.
    #[case(tenant, entry)]
    async fn only_live_entries_are_counted<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &["a", "b", "c"]).await?;
        for number in 0..5 {
            w.put_expired(&ns, &format!("x{number}")).await?;
        }
        w.put_expired(&w.ns(&["only", "expired"])?, "k").await?;
        check_eq!(
            w.store().erase_all(w.ctx(), &w.everything()).await?,
            3,
            "the number of removed entries, without the expired ones"
        );
        let usage = w.store().usage(w.ctx(), &w.everything()).await?;
        check_eq!(
            (usage.entries, usage.expired),
            (0, 0),
            "live and expired entries after the erase"
        );
        Ok(())
    }

    /// `erase_all` removes more entries than one step can.
    #[case(tenant, entry)]
    async fn erase_all_removes_more_than_one_step<V: Sample>(w: &World<V>) -> Outcome {
        for part in ["a", "b", "c"] {
            let batch = (0..500).fold(cubbyhole_core::Batch::new(), |batch, number| {
                batch.put(format!("{number:03}"), V::sample(1))
            });
            w.store().write(w.ctx(), &w.ns(&[part])?, batch).await?;
        }
        check_eq!(
            w.store().erase_all(w.ctx(), &w.everything()).await?,
            1_500,
            "the number of removed entries"
        );
        check_eq!(w.namespaces(&w.everything()).await?, [], "what exists after the erase");
        Ok(())
    }

    /// Concurrent erases of the same prefix count each entry once.
    #[case(tenant, entry)]
    async fn concurrent_erases_count_each_entry_once<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for number in 0..60 {
            w.put(&ns, &format!("{number:02}"), 1).await?;
        }
        let results = w
            .at_once(3, |_, w| async move {
                let mut removed = 0;
                for _ in 0..1000 {
                    let step = w.store().erase(w.ctx(), &w.everything(), 7).await?;
                    removed += step.removed;
                    if step.done {
                        break;
                    }
                }
                Ok::<_, cubbyhole_core::Error>(removed)
            })
            .await?;
        let removed: u64 = results.into_iter().sum::<Result<_, _>>()?;
        check_eq!(removed, 60, "the number of entries that all calls removed");
        check_eq!(w.list(&ns, None).await?, [""; 0], "what exists after the erase");
        Ok(())
    }

    /// A limit of 0 or more than 1,000 is rejected, and nothing is erased.
    #[case(tenant, entry)]
    async fn limit_out_of_range_is_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        let prefix = NamespacePrefix::from(&ns);
        for limit in [0, 1001, usize::MAX] {
            let erased = w.store().erase(w.ctx(), &prefix, limit).await;
            refused(erased, ErrorKind::InvalidArgument, format_args!("a limit of {limit}"))?;
        }
        check_eq!(w.number(&ns, "k").await?, Some(1), "the value after the rejected calls");
        Ok(())
    }

    /// A key that is written after an erase is a new entry, without the old `created_at` and TTL.
    #[case(time, entry)]
    async fn rewritten_entry_after_erase_is_new<V: Sample>(w: &World<V>) -> Outcome {
        let ns = &w.ns(&["a"])?;
        let put_and_read = || async move {
            w.put_for(ns, "k", 1, w.short()).await?;
            w.live(ns, "k").await
        };
        let before = w.in_time(put_and_read).await?.meta;
        w.store().erase_all(w.ctx(), &w.everything()).await?;
        w.advance_millis(20).await;
        w.put(ns, "k", 2).await?;
        let after = w.live(ns, "k").await?.meta;
        check!(after.created_at > before.created_at, "created_at must be new after an erase");
        w.expire().await;
        check_eq!(w.number(ns, "k").await?, Some(2), "the value after the end of the old TTL");
        let listed = w.namespaces(&w.everything()).await?;
        check_eq!(listed, std::slice::from_ref(ns), "the namespaces after the new put");
        Ok(())
    }
}
