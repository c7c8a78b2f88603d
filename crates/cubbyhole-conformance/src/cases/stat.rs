//! `stat`: returns metadata and sizes without values.

use cubbyhole_core::limits::MAX_GET_MANY_KEYS;
use cubbyhole_core::{Batch, Condition, EntryStat, ErrorKind, Namespace, PutOptions, Timestamp};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq, refused};
use crate::world::World;

cases! {
    /// The results are in the order of the keys, with `None` for absent keys. A key that is
    /// requested twice gets two results.
    #[case(tenant, entry)]
    async fn results_are_in_request_order<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &["a", "b", "c"]).await?;
        let keys = ["c", "missing", "a", "", "b", "c", "missing"];
        let stats = stat(w, &ns, &keys).await?;
        let mut expected = Vec::new();
        for key in keys {
            expected.push(w.entry(&ns, key).await?.map(|entry| entry.meta));
        }
        let found: Vec<_> = stats.iter().map(|stat| stat.map(|stat| stat.meta)).collect();
        check_eq!(found, expected, "the metadata of {keys:?}");
        Ok(())
    }

    /// A call without keys returns no results.
    #[case(tenant, entry)]
    async fn no_keys_give_no_results<V: Sample>(w: &World<V>) -> Outcome {
        check_eq!(stat(w, &w.ns(&["a"])?, &[]).await?, [], "the results for no keys");
        Ok(())
    }

    /// The metadata is that of `get_entry`: for entries with a TTL, an instant, an idle TTL or
    /// none, and for overwritten ones.
    #[case(tenant, entry)]
    async fn metadata_is_that_of_get_entry<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let put = PutOptions::new();
        for (key, options) in [
            ("none", put),
            ("ttl", put.with_ttl(w.long())),
            ("at", put.with_expires_at(Timestamp::MAX)),
            ("idle", put.with_idle_ttl(w.long())),
            ("twice", put),
        ] {
            w.put_entry(&ns, key, 1, options, Condition::Always).await?;
        }
        w.advance_millis(20).await;
        w.put(&ns, "twice", 2).await?;
        for key in ["none", "ttl", "at", "idle", "twice"] {
            let expected = Some(w.live(&ns, key).await?.meta);
            let found = stat(w, &ns, &[key]).await?;
            let found: Vec<_> = found.iter().map(|stat| stat.map(|stat| stat.meta)).collect();
            check_eq!(found, [expected], "the metadata of {key}");
            let after = Some(w.live(&ns, key).await?.meta);
            check_eq!(after, expected, "the metadata of {key} after stat");
        }
        Ok(())
    }

    /// If the store knows the size of values, the results have it.
    #[case(tenant, entry)]
    async fn results_have_the_length_of_values<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_value_sizes()?;
        let ns = w.ns(&["a"])?;
        for (key, bytes) in [("a", 500), ("b", 5_000), ("c", 500_000), ("a", 600)] {
            w.store().put(w.ctx(), &ns, key, w.sized(bytes)?).await?;
        }
        let stats = stat(w, &ns, &["c", "a", "b"]).await?;
        let lengths: Vec<_> =
            stats.into_iter().map(|stat| stat.and_then(|stat| stat.value_bytes)).collect();
        check_eq!(lengths, [Some(500_000), Some(600), Some(5_000)], "the lengths of the values");
        Ok(())
    }

    /// Expired and deleted entries are absent, and so are entries of other namespaces.
    #[case(tenant, entry)]
    async fn only_live_entries_of_its_namespace_are_found<V: Sample>(w: &World<V>) -> Outcome {
        for segments in [&["ab"][..], &["a", "b"], &[]] {
            w.put_all(&w.ns(segments)?, &["k", "b:k"]).await?;
        }
        let ns = w.ns(&["a"])?;
        w.put_expired(&ns, "expired").await?;
        w.put(&ns, "deleted", 1).await?;
        w.delete(&ns, "deleted").await?;
        let stats = stat(w, &ns, &["k", "b:k", "expired", "deleted", "%"]).await?;
        check_eq!(stats, [None; 5], "the results for absent keys");
        Ok(())
    }

    /// An entry is found until one millisecond before its expiry, and not at its expiry.
    #[case(time, entry)]
    async fn expiry_is_exact_to_the_millisecond<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_exact_clock()?;
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, std::time::Duration::from_millis(100)).await?;
        w.advance_millis(99).await;
        check!(stat(w, &ns, &["k"]).await?[0].is_some(), "the entry before its expiry");
        w.advance_millis(1).await;
        check_eq!(stat(w, &ns, &["k"]).await?, [None], "the result at the expiry");
        Ok(())
    }

    /// Keys with special characters are found.
    #[case(tenant, entry)]
    async fn hostile_keys_are_found<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let hostile = super::names::HOSTILE;
        w.put_all(&ns, &hostile).await?;
        for (key, stat) in hostile.iter().zip(stat(w, &ns, &hostile).await?) {
            let expected = w.live(&ns, key).await?.meta;
            check_eq!(stat.map(|stat| stat.meta), Some(expected), "the metadata of {key:?}");
        }
        Ok(())
    }

    /// 1,000 keys are accepted and 1,001 are rejected. An invalid key rejects the whole call.
    #[case(tenant, entry)]
    async fn more_than_1000_keys_are_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &["k0000", "k0999"]).await?;
        let keys: Vec<_> = (0..=MAX_GET_MANY_KEYS).map(|number| format!("k{number:04}")).collect();
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        let found = stat(w, &ns, &keys[..MAX_GET_MANY_KEYS]).await?;
        check_eq!(found.len(), MAX_GET_MANY_KEYS, "the number of results");
        let live: Vec<_> = (0..found.len()).filter(|index| found[*index].is_some()).collect();
        check_eq!(live, [0, 999], "the positions of the live entries");
        let invalid = ErrorKind::InvalidArgument;
        refused(stat(w, &ns, &keys).await, invalid, "1,001 keys")?;
        refused(stat(w, &ns, &["k0000", "\0"]).await, invalid, "a key with NUL")?;
        let long = "x".repeat(1025);
        refused(stat(w, &ns, &[&long]).await, invalid, "a key past the limit")?;
        Ok(())
    }

    /// Concurrent calls see all writes of a batch or none.
    #[case(tenant, entry)]
    async fn concurrent_calls_never_see_half_a_batch<V: Sample>(w: &World<V>) -> Outcome {
        w.reads_beside_writer(
            |w| async move {
                // At random: an even number of alternating writes would always show one state.
                let batch = match fastrand::bool() {
                    true => Batch::new().put("a", V::sample(1)).put("b", V::sample(1)),
                    false => Batch::new().delete("a").delete("b"),
                };
                w.store().write(w.ctx(), &w.ns(&["a"])?, batch).await?;
                Ok(())
            },
            |w| async move {
                let stats = stat(&w, &w.ns(&["a"])?, &["a", "b"]).await?;
                let created: Vec<_> =
                    stats.iter().map(|stat| stat.map(|stat| stat.meta.created_at)).collect();
                check!(created[0] == created[1], "stat sees half a batch: {created:?}");
                Ok(())
            },
        )
        .await
    }
}

async fn stat<V: Sample>(
    w: &World<V>,
    ns: &Namespace,
    keys: &[&str],
) -> cubbyhole_core::Result<Vec<Option<EntryStat>>> {
    w.store().stat(w.ctx(), ns, keys).await
}
