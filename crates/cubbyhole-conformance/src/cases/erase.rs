//! `erase` and `erase_all`: everything under a prefix, in bounded steps.

use cubbyhole_core::{EntryStoreExt, Erased, ErrorKind, Namespace, NamespacePrefix};

use crate::case::cases;
use crate::outcome::{Outcome, Stop, check, check_eq, refused};
use crate::Sample;
use crate::world::World;

cases! {
    /// `erase` of nothing is done at once.
    #[case(tenant, entry)]
    async fn nothing_is_done_at_once<V: Sample>(w: &World<V>) -> Outcome {
        let step = w.store().erase(w.ctx(), &w.everything(), 10).await?;
        check_eq!(step, Erased { removed: 0, done: true }, "nothing was written");
        check_eq!(w.store().erase_all(w.ctx(), &w.everything()).await?, 0, "erase_all");
        Ok(())
    }

    /// Everything of a tenant goes: every namespace, every key.
    #[case(tenant, entry)]
    async fn a_tenant_is_erased<V: Sample>(w: &World<V>) -> Outcome {
        for segments in [&[][..], &[""], &["a"], &["a", "b"], &["-"], &["\u{10ffff}"]] {
            w.put_all(&w.ns(segments)?, &["", "k", "\u{10ffff}"]).await?;
        }
        check_eq!(
            w.store().erase_all(w.ctx(), &w.everything()).await?,
            18,
            "as many as there were"
        );
        check_eq!(w.namespaces(&w.everything()).await?, [], "nothing is left");
        check_eq!(w.get(&w.ns(&["a"])?, "k").await?, None, "an entry");
        check_eq!(w.store().erase_all(w.ctx(), &w.everything()).await?, 0, "a second time");
        Ok(())
    }

    /// A prefix is erased by whole segments, the namespace that it names included.
    #[case(tenant, entry)]
    async fn a_prefix_is_erased_by_whole_segments<V: Sample>(w: &World<V>) -> Outcome {
        let gone = [&["a"][..], &["a", ""], &["a", "b"], &["a", "b", "c"], &["a", "\u{10ffff}"]];
        let kept = [&[][..], &["ab"], &["a-b"], &["a/x"], &["a:b"], &["a;"], &["b"], &["A"], &[""]];
        for segments in gone.into_iter().chain(kept) {
            w.put_all(&w.ns(segments)?, &["j", "k"]).await?;
        }
        let removed = w.store().erase_all(w.ctx(), &w.ns(&["a"])?.into()).await?;
        check_eq!(removed, 2 * gone.len() as u64, "as many as lay under a");
        for segments in gone {
            check_eq!(w.list(&w.ns(segments)?, None).await?, [""; 0], "under a: {segments:?}");
        }
        for segments in kept {
            check_eq!(w.list(&w.ns(segments)?, None).await?, ["j", "k"], "beside a: {segments:?}");
        }
        Ok(())
    }

    /// Other tenants are untouched, those whose names begin with this one's above all.
    #[case(tenant, entry)]
    async fn other_tenants_are_untouched<V: Sample>(w: &World<V>) -> Outcome {
        let mut theirs = Vec::new();
        for suffix in ["b", "-b", "/b", "0", ";", "%", "_", "\\", ":", ":a", "\u{10ffff}"] {
            let tenant = Namespace::new(w.tenant_with(suffix)?);
            theirs.push(tenant.clone());
            theirs.push(tenant.with_scope("a")?);
        }
        for ns in theirs.iter().chain([&w.ns(&[])?, &w.ns(&["a"])?]) {
            w.put(ns, "k", 1).await?;
        }
        check_eq!(w.store().erase_all(w.ctx(), &w.everything()).await?, 2, "ours");
        for ns in &theirs {
            check_eq!(w.number(ns, "k").await?, Some(1), "theirs: {ns:?}");
        }
        Ok(())
    }

    /// A step removes at most as many entries as it was told, and says when nothing is left.
    #[case(tenant, entry)]
    async fn a_step_is_bounded<V: Sample>(w: &World<V>) -> Outcome {
        for (segment, keys) in [("a", 4), ("b", 1), ("c", 5)] {
            for number in 0..keys {
                w.put(&w.ns(&[segment])?, &format!("k{number}"), 1).await?;
            }
        }
        let mut left = 10;
        for step in 0..20 {
            let erased = w.store().erase(w.ctx(), &w.everything(), 3).await?;
            check!(erased.removed <= 3, "step {step} removed {}", erased.removed);
            left -= erased.removed;
            check_eq!(w.store().usage(w.ctx(), &w.everything()).await?.entries, left, "the rest");
            if erased.done {
                check_eq!(left, 0, "done means that nothing is left");
                return Ok(());
            }
            check!(left > 0 || step < 10, "nothing is left, and it is not done");
        }
        Err(Stop::failed("20 steps of 3 do not erase 10 entries"))
    }

    /// An erasure that was interrupted is taken up by doing it again.
    #[case(tenant, entry)]
    async fn an_interrupted_erasure_is_taken_up<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for number in 0..9 {
            w.put(&ns, &format!("k{number}"), 1).await?;
        }
        let first = w.store().erase(w.ctx(), &w.everything(), 2).await?;
        check!(!first.done, "2 of 9 is not done");
        w.put(&ns, "late", 1).await?;
        let rest = w.store().erase_all(w.ctx(), &w.everything()).await?;
        check_eq!(first.removed + rest, 10, "together");
        check_eq!(w.list(&ns, None).await?, [""; 0], "nothing is left");
        Ok(())
    }

    /// Only live entries are counted; expired ones go too.
    #[case(tenant, entry)]
    async fn live_entries_are_counted<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &["a", "b", "c"]).await?;
        for number in 0..5 {
            w.put_expired(&ns, &format!("x{number}")).await?;
        }
        w.put_expired(&w.ns(&["only", "expired"])?, "k").await?;
        check_eq!(w.store().erase_all(w.ctx(), &w.everything()).await?, 3, "live ones");
        let usage = w.store().usage(w.ctx(), &w.everything()).await?;
        check_eq!((usage.entries, usage.expired), (0, 0), "live and expired ones left");
        Ok(())
    }

    /// `erase_all` goes on until more entries are gone than any step removes.
    #[case(tenant, entry)]
    async fn more_than_a_step<V: Sample>(w: &World<V>) -> Outcome {
        for part in ["a", "b", "c"] {
            let batch = (0..500).fold(cubbyhole_core::Batch::new(), |batch, number| {
                batch.put(format!("{number:03}"), V::sample(1))
            });
            w.store().write(w.ctx(), &w.ns(&[part])?, batch).await?;
        }
        check_eq!(w.store().erase_all(w.ctx(), &w.everything()).await?, 1_500, "all of them");
        check_eq!(w.namespaces(&w.everything()).await?, [], "nothing is left");
        Ok(())
    }

    /// Several that erase the same prefix at once count every entry once.
    #[case(tenant, entry)]
    async fn several_count_together<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for number in 0..60 {
            w.put(&ns, &format!("{number:02}"), 1).await?;
        }
        let answers = w
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
        let removed: u64 = answers.into_iter().sum::<Result<_, _>>()?;
        check_eq!(removed, 60, "together");
        check_eq!(w.list(&ns, None).await?, [""; 0], "nothing is left");
        Ok(())
    }

    /// A limit of 0 or 1001 entries is refused, and nothing is erased.
    #[case(tenant, entry)]
    async fn bad_limits_are_refused<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        let prefix = NamespacePrefix::from(&ns);
        for limit in [0, 1001, usize::MAX] {
            let erased = w.store().erase(w.ctx(), &prefix, limit).await;
            refused(erased, ErrorKind::InvalidArgument, format_args!("a limit of {limit}"))?;
        }
        check_eq!(w.number(&ns, "k").await?, Some(1), "nothing was erased");
        Ok(())
    }

    /// What was erased can be written again, and is new then.
    #[case(time, entry)]
    async fn erased_entries_are_new_again<V: Sample>(w: &World<V>) -> Outcome {
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
        check!(after.created_at > before.created_at, "created_at outlives the erasure");
        w.expire().await;
        check_eq!(w.number(ns, "k").await?, Some(2), "the old TTL is gone");
        let listed = w.namespaces(&w.everything()).await?;
        check_eq!(listed, std::slice::from_ref(ns), "the namespace is back");
        Ok(())
    }
}
