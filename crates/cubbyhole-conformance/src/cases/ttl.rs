//! TTLs through `Store`: valid and invalid TTLs, and the absence of expired entries.

use std::time::Duration;

use cubbyhole_core::{ErrorKind, PutOptions, Timestamp, Version};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq, refused};
use crate::world::World;

cases! {
    /// An entry is present before its TTL ends, and absent after it.
    #[case(time, core)]
    async fn entry_is_absent_after_its_ttl<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "short", 1, w.short()).await?;
        w.put_for(&ns, "long", 2, w.long()).await?;
        w.put(&ns, "kept", 3).await?;
        w.expire().await;
        check_eq!(w.get(&ns, "short").await?, None, "get after the TTL");
        check_eq!(w.number(&ns, "long").await?, Some(2), "the value before the end of the TTL");
        check_eq!(w.number(&ns, "kept").await?, Some(3), "the value of an entry without a TTL");
        Ok(())
    }

    /// An expired entry is not listed, with or without a prefix, swept or not.
    #[case(time, core)]
    async fn expired_entry_is_not_listed<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for key in ["a", "c", "e"] {
            w.put_for(&ns, key, 1, w.short()).await?;
        }
        w.put_all(&ns, &["b", "d"]).await?;
        w.expire().await;
        check_eq!(w.list(&ns, None).await?, ["b", "d"], "the keys without a prefix");
        check_eq!(
            w.list(&ns, Some("c")).await?,
            [""; 0],
            "the keys with the expired key as the prefix"
        );
        Ok(())
    }

    /// A `put` without a TTL removes the old TTL.
    #[case(time, core)]
    async fn plain_put_removes_the_ttl<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "put", 1, w.short()).await?;
        w.put(&ns, "put", 2).await?;
        w.put_for(&ns, "options", 1, w.short()).await?;
        let none = PutOptions::default();
        w.store().put_with_options(w.ctx(), &ns, "options", V::sample(2), none).await?;
        w.expire().await;
        check_eq!(w.number(&ns, "put").await?, Some(2), "the value after put");
        check_eq!(
            w.number(&ns, "options").await?,
            Some(2),
            "the value after put_with_options with the default options"
        );
        check_eq!(w.list(&ns, None).await?, ["options", "put"], "the keys");
        Ok(())
    }

    /// A put with a TTL replaces the old TTL by a longer or a shorter one.
    #[case(time, core)]
    async fn new_ttl_replaces_the_old_one<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "longer", 1, w.short()).await?;
        w.put_for(&ns, "longer", 2, w.long()).await?;
        w.put_for(&ns, "shorter", 1, w.long()).await?;
        w.put_for(&ns, "shorter", 2, w.short()).await?;
        w.put(&ns, "added", 1).await?;
        w.put_for(&ns, "added", 2, w.short()).await?;
        w.expire().await;
        check_eq!(w.number(&ns, "longer").await?, Some(2), "the value with the longer TTL");
        check_eq!(w.get(&ns, "shorter").await?, None, "get of the key with the shorter TTL");
        check_eq!(w.get(&ns, "added").await?, None, "get of the key whose entry had no TTL before");
        Ok(())
    }

    /// TTLs count the time that passes even if the clock is set back: entries from before and after
    /// it expire on time.
    #[case(time, core)]
    async fn ttl_counts_after_the_clock_is_set_back<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_exact_clock()?;
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "before", 1, Duration::from_millis(1500)).await?;
        w.set_clock_back(Duration::from_secs(3600)).await?;
        w.advance_millis(500).await;
        w.put_for(&ns, "after", 2, Duration::from_millis(1000)).await?;
        w.advance_millis(999).await;
        check_eq!(
            w.list(&ns, None).await?,
            ["after", "before"],
            "the keys one millisecond before the expiry"
        );
        w.advance_millis(1).await;
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys at the expiry");
        check_eq!(
            w.get(&ns, "before").await?,
            None,
            "get of the key from before the clock was set back"
        );
        check_eq!(
            w.get(&ns, "after").await?,
            None,
            "get of the key from after the clock was set back"
        );
        Ok(())
    }

    /// A TTL counts while the store is idle. Here the clock is set back, and then shows the time of
    /// the last call again.
    #[case(time, core)]
    async fn ttl_counts_while_the_store_is_idle<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_exact_clock()?;
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, Duration::from_secs(60)).await?;
        w.set_clock_back(Duration::from_secs(60)).await?;
        w.advance_millis(60_000).await;
        check_eq!(w.get(&ns, "k").await?, None, "get at the expiry");
        Ok(())
    }

    /// Setting the clock back revives no expired entry.
    #[case(time, core)]
    async fn setting_the_clock_back_revives_nothing<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_exact_clock()?;
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, w.short()).await?;
        w.expire().await;
        check_eq!(w.get(&ns, "k").await?, None, "get after the TTL");
        w.set_clock_back(Duration::from_secs(3600)).await?;
        check_eq!(w.get(&ns, "k").await?, None, "get after the clock was set back");
        check_eq!(w.list(&ns, None).await?, [""; 0], "it is listed");
        Ok(())
    }

    /// An expired key can be written again, and does not keep the old TTL.
    #[case(time, core)]
    async fn expired_key_can_be_written_again<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, w.short()).await?;
        w.expire().await;
        w.put(&ns, "k", 2).await?;
        check_eq!(w.number(&ns, "k").await?, Some(2), "the value after the second put");
        w.expire().await;
        check_eq!(w.number(&ns, "k").await?, Some(2), "the value after the end of the old TTL");
        check_eq!(w.list(&ns, None).await?, ["k"], "it is listed");
        Ok(())
    }

    /// Deleting an expired entry succeeds, and does not revive it.
    #[case(time, core)]
    async fn expired_entry_can_be_deleted<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, w.short()).await?;
        w.expire().await;
        w.delete(&ns, "k").await?;
        check_eq!(w.get(&ns, "k").await?, None, "get after the delete");
        Ok(())
    }

    /// A key that is deleted and written again without a TTL does not keep the old TTL.
    #[case(time, core)]
    async fn ttl_of_deleted_entry_is_forgotten<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, w.short()).await?;
        w.delete(&ns, "k").await?;
        w.put(&ns, "k", 2).await?;
        w.expire().await;
        check_eq!(w.number(&ns, "k").await?, Some(2), "the value of the new entry");
        w.store().evict_expired(w.ctx()).await?;
        check_eq!(w.number(&ns, "k").await?, Some(2), "the value of the new entry after a sweep");
        Ok(())
    }

    /// A namespace whose entries have all expired has no keys and is not listed.
    #[case(time, core)]
    async fn namespace_of_expired_entries_is_empty<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["session"])?;
        w.put_for(&ns, "a", 1, w.short()).await?;
        w.put_for(&ns, "b", 2, w.short()).await?;
        w.expire().await;
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys");
        check_eq!(w.namespaces(&w.everything()).await?, [], "the namespaces");
        Ok(())
    }

    /// A TTL of zero is rejected, and nothing is written. It does not mean "no expiry".
    #[case(tenant, core)]
    async fn zero_ttl_is_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let put = w.put_for(&ns, "new", 1, Duration::ZERO).await;
        refused(put, ErrorKind::InvalidArgument, "a TTL of zero")?;
        check_eq!(w.get(&ns, "new").await?, None, "get after the rejected put");
        w.put(&ns, "old", 1).await?;
        let put = w.put_for(&ns, "old", 2, Duration::ZERO).await;
        refused(put, ErrorKind::InvalidArgument, "a TTL of zero for an existing key")?;
        check_eq!(w.number(&ns, "old").await?, Some(1), "the value after the rejected put");
        Ok(())
    }

    /// A TTL that ends after the year 9999 is rejected. It does not mean "no expiry".
    #[case(tenant, core)]
    async fn overflowing_ttl_is_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let ten_thousand_years = Duration::from_secs(10_000 * 366 * 86_400);
        let ttls = [Duration::MAX, Duration::from_secs(u64::MAX), ten_thousand_years];
        for ttl in ttls.into_iter().chain([Duration::from_millis(u64::MAX)]) {
            let put = w.put_for(&ns, "k", 1, ttl).await;
            refused(put, ErrorKind::InvalidArgument, format_args!("a TTL of {ttl:?}"))?;
        }
        check_eq!(w.get(&ns, "k").await?, None, "get after the rejected put");
        Ok(())
    }

    /// A TTL of a century is accepted.
    #[case(tenant, core)]
    async fn ttl_of_a_century_is_kept<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let century = Duration::from_secs(100 * 365 * 86_400);
        w.put_for(&ns, "k", 1, century).await?;
        w.expire().await;
        check_eq!(w.number(&ns, "k").await?, Some(1), "the value with a TTL of a century");
        Ok(())
    }

    /// TTLs of a nanosecond and longer are accepted, and end.
    #[case(time, core)]
    async fn ttl_below_a_millisecond_expires<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for nanos in [1, 999, 1_000, 999_999, 1_000_000, 1_000_001] {
            w.put_for(&ns, &format!("{nanos} ns"), 1, Duration::from_nanos(nanos)).await?;
        }
        w.expire().await;
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys after all TTLs");
        Ok(())
    }

    /// An entry is present one millisecond before its TTL ends, and absent when it ends.
    #[case(time, core)]
    async fn expiry_is_exact_to_the_millisecond<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_exact_clock()?;
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, Duration::from_millis(1_000)).await?;
        w.advance_millis(999).await;
        check_eq!(
            w.number(&ns, "k").await?,
            Some(1),
            "the value one millisecond before the expiry"
        );
        check_eq!(w.list(&ns, None).await?, ["k"], "the keys one millisecond before the expiry");
        w.advance_millis(1).await;
        check_eq!(w.get(&ns, "k").await?, None, "get at the expiry");
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys at the expiry");
        Ok(())
    }

    /// A fraction of a millisecond is rounded up.
    #[case(time, core)]
    async fn fraction_of_a_millisecond_rounds_up<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_exact_clock()?;
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "1 ns", 1, Duration::from_nanos(1)).await?;
        w.put_for(&ns, "1 ms", 1, Duration::from_millis(1)).await?;
        w.put_for(&ns, "1 ms 1 ns", 1, Duration::from_nanos(1_000_001)).await?;
        check_eq!(
            w.list(&ns, None).await?,
            ["1 ms", "1 ms 1 ns", "1 ns"],
            "the keys immediately after the puts"
        );
        w.advance_millis(1).await;
        check_eq!(w.list(&ns, None).await?, ["1 ms 1 ns"], "the keys after one millisecond");
        w.advance_millis(1).await;
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys after two milliseconds");
        Ok(())
    }

    /// `put_with_options` never ignores an option. It applies an instant of expiry and a given
    /// version, or rejects them with `Unsupported` and writes nothing.
    #[case(tenant, core)]
    async fn put_option_is_applied_or_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let past = PutOptions::new().with_expires_at(Timestamp::EPOCH);
        let version = PutOptions::new().with_version(Version::draw());
        for (key, options) in [("instant", past), ("version", version)] {
            let put = w.store().put_with_options(w.ctx(), &ns, key, V::sample(1), options).await;
            if w.can().all_put_options {
                put?;
            } else {
                refused(put, ErrorKind::Unsupported, format_args!("the option {key}"))?;
                check!(
                    w.get(&ns, key).await?.is_none(),
                    "put_with_options rejects the option {key}, but writes the entry"
                );
            }
        }
        check_eq!(w.get(&ns, "instant").await?, None, "get of an entry with an expiry in the past");
        Ok(())
    }

    /// `put_with_options` writes the given version and the given expiry.
    #[case(tenant, entry)]
    async fn put_with_options_applies_every_option<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_put_options()?;
        let ns = w.ns(&["a"])?;
        let version = Version::draw();
        let options = PutOptions::new().with_expires_at(Timestamp::MAX).with_version(version);
        w.store().put_with_options(w.ctx(), &ns, "k", V::sample(1), options).await?;
        let meta = w.live(&ns, "k").await?.meta;
        check_eq!(meta.version, version, "the version");
        check_eq!(meta.expires_at, Some(Timestamp::MAX), "the expiry");
        Ok(())
    }
}
