//! `usage`: the numbers of namespaces and entries and the size under a prefix.

use cubbyhole_core::{Namespace, NamespacePrefix, Usage};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check_eq};
use crate::world::World;

cases! {
    /// `usage` of a prefix without entries is zero.
    #[case(tenant, entry)]
    async fn usage_of_empty_prefix_is_zero<V: Sample>(w: &World<V>) -> Outcome {
        let usage = w.store().usage(w.ctx(), &w.everything()).await?;
        let bytes = w.can().knows_value_bytes.then_some(0);
        check_eq!(usage, Usage { bytes, ..Usage::default() }, "usage without entries");
        Ok(())
    }

    /// `usage` counts namespaces and live entries, and reflects every write.
    #[case(tenant, entry)]
    async fn usage_reflects_writes<V: Sample>(w: &World<V>) -> Outcome {
        let (a, b) = (w.ns(&["a"])?, w.ns(&["a", "b"])?);
        w.put_all(&a, &["j", "k"]).await?;
        w.put_all(&b, &["k"]).await?;
        check_eq!(counts(w).await?, (2, 3), "namespaces and entries after three puts");
        w.put(&a, "k", 7).await?;
        check_eq!(counts(w).await?, (2, 3), "usage after overwriting");
        w.delete(&b, "k").await?;
        check_eq!(counts(w).await?, (1, 2), "usage after a delete");
        w.store().take(w.ctx(), &a, "j").await?;
        check_eq!(counts(w).await?, (1, 1), "usage after a take");
        w.store().erase(w.ctx(), &w.everything(), 10).await?;
        check_eq!(counts(w).await?, (0, 0), "usage after an erase");
        Ok(())
    }

    /// The prefix of `usage` matches whole segments, and never counts another tenant.
    #[case(tenant, entry)]
    async fn prefix_matches_whole_segments<V: Sample>(w: &World<V>) -> Outcome {
        for segments in [&[][..], &["a"], &["a", "b"], &["ab"], &["a-b"], &["a:b"], &["b"]] {
            w.put(&w.ns(segments)?, "k", 1).await?;
        }
        for suffix in ["b", "-b", ":", "\u{10ffff}"] {
            w.put(&Namespace::new(w.tenant_with(suffix)?), "k", 1).await?;
        }
        for (segments, expected) in [(&[][..], 7), (&["a"], 2), (&["a", "b"], 1), (&["x"], 0)] {
            let prefix = NamespacePrefix::from(w.ns(segments)?);
            let usage = w.store().usage(w.ctx(), &prefix).await?;
            check_eq!(
                (usage.namespaces, usage.entries),
                (expected, expected),
                "namespaces and entries under {prefix}"
            );
        }
        Ok(())
    }

    /// `bytes` is the size of the keys and the encoded values of the live entries.
    #[case(tenant, entry)]
    async fn bytes_are_those_of_keys_and_values<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_value_sizes()?;
        let ns = w.ns(&["a"])?;
        let put = async |key, bytes| -> Outcome {
            Ok(w.store().put(w.ctx(), &ns, key, w.sized(bytes)?).await?)
        };
        put("", 400).await?;
        check_eq!(bytes(w).await?, Some(400), "the bytes of an entry with the empty key");
        put("k\u{1f980}", 1_000).await?;
        check_eq!(
            bytes(w).await?,
            Some(1_405),
            "the bytes with a second entry whose key has five bytes"
        );
        put("", 500).await?;
        check_eq!(bytes(w).await?, Some(1_505), "usage after overwriting");
        w.delete(&ns, "k\u{1f980}").await?;
        check_eq!(bytes(w).await?, Some(500), "usage after a delete");
        w.put_expired(&ns, "expired").await?;
        check_eq!(bytes(w).await?, Some(500), "the bytes with an expired entry");
        Ok(())
    }

    /// A store that does not know the size of values returns `None` for `bytes`, not zero.
    #[case(tenant, entry)]
    async fn unknown_bytes_are_none<V: Sample>(w: &World<V>) -> Outcome {
        w.put(&w.ns(&["a"])?, "k", 1).await?;
        let known = bytes(w).await?.is_some();
        check_eq!(known, w.can().knows_value_bytes, "whether `bytes` is known");
        Ok(())
    }

    /// Expired entries are counted separately until they are swept or overwritten.
    #[case(tenant, entry)]
    async fn expired_entries_are_counted_separately<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_kept_expired()?;
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &["a", "b"]).await?;
        for key in ["x", "y", "z"] {
            w.put_expired(&ns, key).await?;
        }
        w.put_expired(&w.ns(&["expired"])?, "k").await?;
        let usage = w.store().usage(w.ctx(), &w.everything()).await?;
        let counted = (usage.namespaces, usage.entries, usage.expired);
        check_eq!(
            counted,
            (1, 2, 4),
            "the numbers of namespaces, live entries and expired entries"
        );
        w.put(&ns, "x", 1).await?;
        let usage = w.store().usage(w.ctx(), &w.everything()).await?;
        check_eq!(
            (usage.entries, usage.expired),
            (3, 3),
            "live and expired entries after one expired entry was overwritten"
        );
        Ok(())
    }

    /// An entry that expires is no longer counted as live, and a sweep removes it from the expired
    /// ones.
    #[case(time, entry)]
    async fn expiry_changes_the_counts<V: Sample>(w: &World<V>) -> Outcome {
        let ns = &w.ns(&["a"])?;
        w.in_time(|| async move {
            w.put_for(ns, "short", 1, w.short()).await?;
            w.put_for(ns, "long", 1, w.long()).await?;
            check_eq!(counts(w).await?, (1, 2), "namespaces and entries before the expiry");
            Ok(())
        })
        .await?;
        w.expire().await;
        check_eq!(counts(w).await?, (1, 1), "namespaces and entries after the expiry");
        w.store().evict_expired(w.ctx()).await?;
        let usage = w.store().usage(w.ctx(), &w.everything()).await?;
        check_eq!((usage.entries, usage.expired), (1, 0), "live and expired entries after a sweep");
        Ok(())
    }
}

async fn counts<V: Sample>(w: &World<V>) -> Outcome<(u64, u64)> {
    let usage = w.store().usage(w.ctx(), &w.everything()).await?;
    Ok((usage.namespaces, usage.entries))
}

async fn bytes<V: Sample>(w: &World<V>) -> Outcome<Option<u64>> {
    Ok(w.store().usage(w.ctx(), &w.everything()).await?.bytes)
}
