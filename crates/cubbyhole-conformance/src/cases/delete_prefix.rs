//! `delete_prefix`: removes the keys of one namespace that start with a prefix, in bounded steps.

use cubbyhole_core::limits::MAX_PAGE_ITEMS;
use cubbyhole_core::{Batch, Erased, ErrorKind, Namespace};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, Stop, check, check_eq, refused};
use crate::world::World;

/// Keys in byte order. Some are prefixes of others, and some look like patterns.
const KEYS: [&str; 11] =
    ["", "a", "a%", "a%b", "aa", "ab", "b", "ba", "c", "\u{10ffff}", "\u{10ffff}a"];

cases! {
    /// A prefix without keys is done in one step.
    #[case(tenant, entry)]
    async fn prefix_without_keys_is_done_immediately<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let done = Erased { removed: 0, done: true };
        check_eq!(step(w, &ns, "", 10).await?, done, "the step in an empty namespace");
        w.put_all(&ns, &KEYS).await?;
        check_eq!(step(w, &ns, "x", 1).await?, done, "the step for an absent prefix");
        check_eq!(w.list(&ns, None).await?, KEYS, "the keys after the step");
        Ok(())
    }

    /// The keys with the prefix are removed, and no others. The prefix is literal text.
    #[case(tenant, entry)]
    async fn only_keys_with_the_prefix_are_removed<V: Sample>(w: &World<V>) -> Outcome {
        for limit in [1, 2, 1000] {
            for (index, prefix) in
                ["a", "a%", "aa", "b", "ba", "c", "%", "x", "\u{10ffff}", ""].iter().enumerate()
            {
                let ns = w.ns(&["a", &format!("{limit}-{index}")])?;
                w.put_all(&ns, &KEYS).await?;
                let (gone, kept): (Vec<_>, Vec<_>) =
                    KEYS.into_iter().partition(|key| key.starts_with(prefix));
                let removed = delete_all(w, &ns, prefix, limit).await?;
                check_eq!(removed, gone.len() as u64, "the number of removed keys of {prefix:?}");
                check_eq!(w.list(&ns, None).await?, kept, "the keys without {prefix:?}");
            }
        }
        Ok(())
    }

    /// Other namespaces are unchanged, also those below the namespace and with an empty prefix.
    #[case(tenant, entry)]
    async fn other_namespaces_are_unchanged<V: Sample>(w: &World<V>) -> Outcome {
        let mut others = vec![Namespace::new(w.tenant_with("b")?)];
        for segments in [&[][..], &[""], &["ab"], &["a", "b"], &["a", ""], &["a-"], &["a:"], &["A"]]
        {
            others.push(w.ns(segments)?);
        }
        let ns = w.ns(&["a"])?;
        for ns in others.iter().chain([&ns]) {
            w.put_all(ns, &KEYS).await?;
        }
        delete_all(w, &ns, "a", 3).await?;
        delete_all(w, &ns, "", 3).await?;
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys of the namespace");
        for ns in &others {
            check_eq!(w.list(ns, None).await?, KEYS, "the keys of {ns:?}");
        }
        Ok(())
    }

    /// A step removes at most `limit` entries, and reports when nothing is left.
    #[case(tenant, entry)]
    async fn step_removes_at_most_its_limit<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for number in 0..10 {
            w.put(&ns, &format!("k{number}"), 1).await?;
        }
        w.put(&ns, "other", 1).await?;
        let mut left = 10;
        for number in 0..20 {
            let step = step(w, &ns, "k", 3).await?;
            check!(step.removed <= 3, "step {number} with limit 3 removes {}", step.removed);
            left -= step.removed;
            let keys = w.list(&ns, Some("k")).await?.len() as u64;
            check_eq!(keys, left, "the number of remaining keys");
            if step.done {
                check_eq!(left, 0, "the number of keys when the step reports `done`");
                check_eq!(w.list(&ns, None).await?, ["other"], "the keys after the last step");
                return Ok(());
            }
            check!(left > 0 || number < 10, "delete_prefix must report `done` after the last key");
        }
        Err(Stop::failed("delete_prefix never reports `done`"))
    }

    /// A step whose limit is the number of keys removes them all. The next step is done.
    #[case(tenant, entry)]
    async fn limit_of_exactly_all_keys_removes_them<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for limit in [1, 3] {
            for number in 0..limit {
                w.put(&ns, &format!("k{number}"), 1).await?;
            }
            let first = step(w, &ns, "k", limit).await?;
            check_eq!(first.removed, limit as u64, "the entries that the step removes");
            let last = step(w, &ns, "k", limit).await?;
            check_eq!(last, Erased { removed: 0, done: true }, "the next step");
        }
        Ok(())
    }

    /// Expired entries are removed too, but not counted, and `done` means that none is left.
    #[case(tenant, entry)]
    async fn expired_entries_are_removed_but_not_counted<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &["k0", "k5", "k9"]).await?;
        for number in 1..5 {
            w.put_expired(&ns, &format!("k{number}")).await?;
        }
        w.put_expired(&ns, "other").await?;
        check_eq!(delete_all(w, &ns, "k", 2).await?, 3, "the number of removed live entries");
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys after the deletion");
        let usage = w.store().usage(w.ctx(), &(&ns).into()).await?;
        if w.can().keeps_expired {
            check_eq!(usage.expired, 1, "the number of expired entries: only `other` is left");
        }
        check_eq!(usage.entries, 0, "the number of live entries");
        Ok(())
    }

    /// More entries than a step can remove are removed in several steps.
    #[case(tenant, entry)]
    async fn more_than_one_step_is_removed<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for part in 0..3 {
            let batch = (0..500).fold(Batch::new(), |batch, number| {
                batch.put(format!("k{part}{number:03}"), V::sample(1))
            });
            w.store().write(w.ctx(), &ns, batch).await?;
        }
        w.put(&ns, "l", 1).await?;
        let removed = delete_all(w, &ns, "k", MAX_PAGE_ITEMS).await?;
        check_eq!(removed, 1_500, "the number of removed entries");
        check_eq!(w.list(&ns, None).await?, ["l"], "the keys after the deletion");
        Ok(())
    }

    /// A namespace whose last key is removed is not listed. A key that is written again is a new
    /// entry.
    #[case(time, entry)]
    async fn emptied_namespace_is_not_listed<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, w.long()).await?;
        let before = w.live(&ns, "k").await?.meta;
        delete_all(w, &ns, "", 10).await?;
        check_eq!(w.namespaces(&w.everything()).await?, [], "the namespaces");
        w.advance_millis(20).await;
        w.put(&ns, "k", 2).await?;
        let after = w.live(&ns, "k").await?.meta;
        check!(after.created_at > before.created_at, "created_at must be new: {after:?}");
        check_eq!(after.expires_at, None, "expires_at of the new entry");
        let listed = w.namespaces(&w.everything()).await?;
        check_eq!(listed, [ns], "the namespaces after the new put");
        Ok(())
    }

    /// An invalid prefix, and a limit of 0 or more than 1,000, are rejected. Nothing is removed.
    #[case(tenant, entry)]
    async fn invalid_arguments_are_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let (ns, invalid) = (w.ns(&["a"])?, ErrorKind::InvalidArgument);
        w.put(&ns, "k", 1).await?;
        for limit in [0, 1001, usize::MAX] {
            for prefix in ["", "k", "absent"] {
                let what = format!("{prefix:?} with a limit of {limit}");
                refused(step(w, &ns, prefix, limit).await, invalid, what)?;
            }
        }
        refused(step(w, &ns, "k\0", 10).await, invalid, "a prefix with NUL")?;
        refused(step(w, &ns, &"k".repeat(1025), 10).await, invalid, "a long prefix")?;
        check_eq!(w.number(&ns, "k").await?, Some(1), "the value after the rejected calls");
        Ok(())
    }

    /// The longest prefix matches the longest key.
    #[case(tenant, entry)]
    async fn longest_prefix_matches_its_key<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let longest = "k".repeat(1024);
        w.put_all(&ns, &["k", &longest]).await?;
        check_eq!(delete_all(w, &ns, &longest, 10).await?, 1, "the number of removed entries");
        check_eq!(w.list(&ns, None).await?, ["k"], "the keys after the deletion");
        Ok(())
    }

    /// Concurrent deletions of the same prefix count each entry once.
    #[case(tenant, entry)]
    async fn concurrent_deletions_count_each_entry_once<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for number in 0..60 {
            w.put(&ns, &format!("k{number:02}"), 1).await?;
        }
        let results = w
            .at_once(3, |_, w| async move {
                let ns = w.ns(&["a"])?;
                delete_all(&w, &ns, "k", 7).await
            })
            .await?;
        let removed: u64 = results.into_iter().sum::<Outcome<u64>>()?;
        check_eq!(removed, 60, "the number of entries that all calls removed");
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys after the deletions");
        Ok(())
    }

    /// Concurrent reads see a step completely or not at all.
    #[case(tenant, entry)]
    async fn concurrent_reads_never_see_half_a_step<V: Sample>(w: &World<V>) -> Outcome {
        w.reads_beside_writer(
            |w| async move {
                let ns = w.ns(&["a"])?;
                let batch = Batch::new().put("k1", V::sample(1)).put("k2", V::sample(1));
                w.store().write(w.ctx(), &ns, batch).await?;
                step(&w, &ns, "k", 10).await?;
                Ok(())
            },
            |w| async move {
                let many = w.get_many(&w.ns(&["a"])?, &["k1", "k2"]).await?;
                let seen = many.into_iter().collect::<Result<Vec<_>, _>>()?;
                let seen: Vec<_> = seen.iter().map(Option::is_some).collect();
                check!(seen[0] == seen[1], "a read sees half a step: {seen:?}");
                Ok(())
            },
        )
        .await
    }
}

async fn step<V: Sample>(
    w: &World<V>,
    ns: &Namespace,
    prefix: &str,
    limit: usize,
) -> cubbyhole_core::Result<Erased> {
    w.store().delete_prefix(w.ctx(), ns, prefix, limit).await
}

/// Deletes in steps until nothing is left, and returns the number of removed entries.
async fn delete_all<V: Sample>(
    w: &World<V>,
    ns: &Namespace,
    prefix: &str,
    limit: usize,
) -> Outcome<u64> {
    let mut removed = 0;
    for _ in 0..10_000 {
        let step = step(w, ns, prefix, limit).await?;
        check!(
            step.removed <= limit as u64,
            "a step with limit {limit} removes {} entries",
            step.removed
        );
        removed += step.removed;
        if step.done {
            return Ok(removed);
        }
    }
    Err(Stop::failed(format!("delete_prefix of {prefix:?} never reports `done`")))
}
