//! `append` and `last` of `EntryStoreExt`: sequences of numbered keys.

use cubbyhole_core::limits::MAX_BATCH_OPERATIONS;
use cubbyhole_core::{
    Batch, EntryStoreExt, ErrorKind, Namespace, PutOptions, Result, ScanItem, Version,
};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, Stop, check, check_eq, refused};
use crate::world::{World, number_of};

cases! {
    /// The first value gets the number zero, and the next ones the following numbers.
    #[case(tenant, entry)]
    async fn append_counts_from_zero<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        check_eq!(append(w, &ns, "t-", &[0]).await?, [key("t-", 0)], "the first key");
        check_eq!(append(w, &ns, "t-", &[1]).await?, [key("t-", 1)], "the second key");
        let expected = [key("t-", 2), key("t-", 3), key("t-", 4)];
        check_eq!(append(w, &ns, "t-", &[2, 3, 4]).await?, expected, "the keys of three values");
        check_eq!(append(w, &ns, "t-", &[5]).await?, [key("t-", 5)], "the next key");
        for number in 0..6 {
            let found = w.number(&ns, &key("t-", number)).await?;
            check_eq!(found, Some(number), "the value with the number {number}");
        }
        check_eq!(w.list(&ns, None).await?.len(), 6, "the number of keys");
        Ok(())
    }

    /// The number of the next value is one above the highest live one. Gaps below are not filled.
    #[case(tenant, entry)]
    async fn append_continues_after_the_highest_number<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, &key("", 41), 1).await?;
        check_eq!(append(w, &ns, "", &[2]).await?, [key("", 42)], "the key after 41");
        w.delete(&ns, &key("", 41)).await?;
        check_eq!(append(w, &ns, "", &[3]).await?, [key("", 43)], "the key after a gap");
        w.put_expired(&ns, &key("", 50)).await?;
        check_eq!(append(w, &ns, "", &[4]).await?, [key("", 44)], "the key below an expired one");
        w.delete(&ns, &key("", 44)).await?;
        check_eq!(append(w, &ns, "", &[5]).await?, [key("", 44)], "the key of a deleted entry");
        Ok(())
    }

    /// Other keys are ignored: those under the prefix without exactly 20 digits, those of other
    /// sequences, and those of other namespaces.
    #[case(tenant, entry)]
    async fn append_ignores_other_keys<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let more = format!("{}0", key("t-", 7));
        let others =
            ["t-", "t-9", "t-99999999999999999999x", "t-:", "t-a", "t-\u{10ffff}", "t", &more];
        w.put_all(&ns, &others).await?;
        w.put(&ns, &key("t-9", 5), 1).await?;
        w.put(&ns, &key("t", 5), 1).await?;
        for number in 0..30 {
            w.put(&ns, &format!("t-1{number}"), 1).await?;
        }
        w.put(&w.ns(&["a", "b"])?, &key("t-", 5), 1).await?;
        check_eq!(append(w, &ns, "t-", &[0]).await?, [key("t-", 0)], "the first key");
        check_eq!(append(w, &ns, "t-", &[1]).await?, [key("t-", 1)], "the second key");
        Ok(())
    }

    /// The options apply to every appended value.
    #[case(tenant, entry)]
    async fn append_applies_its_options<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let options = PutOptions::new().with_idle_ttl(w.long());
        let values = vec![V::sample(1), V::sample(2)];
        for key in w.store().append(w.ctx(), &ns, "t-", values, options).await? {
            let meta = w.live(&ns, &key).await?.meta;
            check_eq!(meta.idle_ttl, Some(w.long()), "the idle TTL of {key}");
        }
        let version = Version::draw();
        let options = PutOptions::new().with_version(version);
        let keys = w.store().append(w.ctx(), &ns, "t-", vec![V::sample(3)], options).await?;
        check_eq!(w.live(&ns, &keys[0]).await?.meta.version, version, "the given version");
        Ok(())
    }

    /// No values are appended without effect.
    #[case(tenant, entry)]
    async fn append_of_no_values_has_no_effect<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        check_eq!(append(w, &ns, "t-", &[]).await?, [""; 0], "the returned keys");
        check_eq!(w.namespaces(&w.everything()).await?, [], "the namespaces");
        Ok(())
    }

    /// A prefix without room for 20 digits, an invalid prefix, more than 1,000 values, a version for
    /// several values and an exhausted sequence are rejected. Nothing is written.
    #[case(tenant, entry)]
    async fn invalid_append_is_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let (ns, invalid) = (w.ns(&["a"])?, ErrorKind::InvalidArgument);
        let many = vec![1; MAX_BATCH_OPERATIONS + 1];
        refused(append(w, &ns, &"x".repeat(1005), &[1]).await, invalid, "a prefix of 1,005 bytes")?;
        refused(append(w, &ns, "t-\0", &[1]).await, invalid, "a prefix with NUL")?;
        refused(append(w, &ns, "t-", &many).await, invalid, "1,001 values")?;
        let options = PutOptions::new().with_version(Version::draw());
        let two = vec![V::sample(1), V::sample(2)];
        let appended = w.store().append(w.ctx(), &ns, "t-", two, options).await;
        refused(appended, invalid, "one version for two values")?;
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys after the rejected calls");
        let last = format!("t-{}", "9".repeat(20));
        w.put(&ns, &last, 1).await?;
        refused(append(w, &ns, "t-", &[1]).await, invalid, "a sequence without a free number")?;
        check_eq!(w.list(&ns, None).await?, [last], "the keys after the rejected append");
        Ok(())
    }

    /// 1,000 values are appended at once. So is a value with the longest prefix.
    #[case(tenant, entry)]
    async fn append_works_at_its_limits<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let keys = append(w, &ns, "t-", &[1; MAX_BATCH_OPERATIONS]).await?;
        let expected: Vec<_> = (0..1_000).map(|number| key("t-", number)).collect();
        check_eq!(keys, expected, "the returned keys");
        check_eq!(w.list(&ns, None).await?, expected, "the keys of the namespace");
        let prefix = "x".repeat(1004);
        for number in 0..2 {
            let keys = append(w, &ns, &prefix, &[1]).await?;
            check_eq!(keys, [key(&prefix, number)], "the key with the longest prefix");
        }
        Ok(())
    }

    /// Concurrent appends leave no gap, and lose and repeat nothing. The values of one call follow
    /// each other, and each caller's keys are in ascending order.
    #[case(tenant, entry)]
    async fn concurrent_appends_leave_no_gap<V: Sample>(w: &World<V>) -> Outcome {
        const CALLERS: usize = 16;
        let results = w
            .at_once(CALLERS, |task, w| async move {
                let ns = w.ns(&["a"])?;
                let mut mine: Vec<(String, u64)> = Vec::new();
                for round in 0..4 {
                    let first = (task * 100 + round * 10) as u64;
                    let numbers: Vec<u64> = (first..).take(1 + round % 3).collect();
                    let keys = append(&w, &ns, "t-", &numbers).await?;
                    check_eq!(keys.len(), numbers.len(), "the number of returned keys");
                    let end = &keys[0][2..];
                    let from: u64 =
                        end.parse().map_err(|_| Stop::failed(format!("key {end:?}")))?;
                    let expected: Vec<_> =
                        (from..).take(keys.len()).map(|number| key("t-", number)).collect();
                    check_eq!(keys, expected, "the keys of one call");
                    mine.extend(keys.into_iter().zip(numbers));
                }
                check!(mine.is_sorted_by(|a, b| a.0 < b.0), "the keys of one caller: {mine:?}");
                Ok(mine)
            })
            .await?;
        let mut all = results.into_iter().collect::<Outcome<Vec<_>>>()?.concat();
        all.sort();
        let expected: Vec<_> = (0..all.len() as u64).map(|number| key("t-", number)).collect();
        let found: Vec<_> = all.iter().map(|(key, _)| key.clone()).collect();
        check_eq!(found, expected, "the keys of all callers");
        let ns = w.ns(&["a"])?;
        check_eq!(w.list(&ns, None).await?, expected, "the keys of the namespace");
        for (key, number) in all {
            check_eq!(w.number(&ns, &key).await?, Some(number), "the value of {key}");
        }
        Ok(())
    }

    /// `last` returns the newest values in ascending order: fewer if there are fewer, and none for
    /// zero.
    #[case(tenant, entry)]
    async fn last_returns_the_newest_in_ascending_order<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        check_eq!(last(w, &ns, "t-", 5).await?, [0; 0], "the last values of an empty namespace");
        append(w, &ns, "t-", &[0, 1, 2, 3, 4]).await?;
        w.put_all(&ns, &["s", "u", "t"]).await?;
        check_eq!(last(w, &ns, "t-", 3).await?, [2, 3, 4], "the last three values");
        check_eq!(last(w, &ns, "t-", 1).await?, [4], "the last value");
        check_eq!(last(w, &ns, "t-", 5).await?, [0, 1, 2, 3, 4], "the last five values");
        check_eq!(last(w, &ns, "t-", usize::MAX).await?, [0, 1, 2, 3, 4], "all values");
        check_eq!(last(w, &ns, "t-", 0).await?, [0; 0], "the last zero values");
        check_eq!(last(w, &ns, "x", 3).await?, [0; 0], "the last values of an absent prefix");
        w.put_expired(&ns, &key("t-", 4)).await?;
        w.delete(&ns, &key("t-", 2)).await?;
        check_eq!(last(w, &ns, "t-", 2).await?, [1, 3], "the last live values");
        Ok(())
    }

    /// `last` returns more values than a page has, and the complete entries.
    #[case(tenant, entry)]
    async fn last_reads_more_than_one_page<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for part in 0..3_u64 {
            let batch = (part * 500..(part + 1) * 500).fold(Batch::new(), |batch, number| {
                batch.put(key("t-", number), V::sample(number % 2))
            });
            w.store().write(w.ctx(), &ns, batch).await?;
        }
        let items = w.store().last(w.ctx(), &ns, "t-", 1_200).await?;
        let found: Vec<_> = items.into_iter().map(|item| item.key).collect();
        let expected: Vec<_> = (300..1_500).map(|number| key("t-", number)).collect();
        check_eq!(found, expected, "the keys of the last 1,200 values");
        for item in w.store().last(w.ctx(), &ns, "t-", 2).await? {
            let entry = w.live(&ns, &item.key).await?;
            check_eq!(item.meta, entry.meta, "the metadata of {}", item.key);
            check_eq!(item.value.transpose()?, Some(entry.value), "the value of {}", item.key);
        }
        Ok(())
    }

    /// `last` rejects an invalid prefix for any number of values.
    #[case(tenant, entry)]
    async fn last_rejects_an_invalid_prefix<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for n in [0, 1, 2_000] {
            for prefix in ["t-\0".to_owned(), "x".repeat(1025)] {
                let items = w.store().last(w.ctx(), &ns, &prefix, n).await;
                refused(items, ErrorKind::InvalidArgument, format_args!("the last {n}"))?;
            }
        }
        Ok(())
    }

    /// `insert` writes to an absent or expired key with its options. It conflicts with a live
    /// entry, and the conflict has its version.
    #[case(tenant, entry)]
    async fn insert_conflicts_with_live_entry<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_expired(&ns, "expired").await?;
        let ttl = PutOptions::new().with_ttl(w.long());
        for key in ["absent", "expired"] {
            let version = w.store().insert(w.ctx(), &ns, key, V::sample(1), ttl).await?;
            let before = w.live(&ns, key).await?;
            check_eq!(before.meta.version, version, "the returned version of {key}");
            check!(before.meta.expires_at.is_some(), "{key} must have the TTL of the options");
            let again = w.store().insert(w.ctx(), &ns, key, V::sample(2), ttl).await;
            let error = refused(again, ErrorKind::Conflict, "insert of a live key")?;
            check_eq!(error.current_version(), Some(version), "the version in the conflict");
            check_eq!(w.live(&ns, key).await?, before, "the entry after the conflict");
        }
        Ok(())
    }

    /// `replace` writes over the given version, without an expiry. It conflicts with any other
    /// version, and with an absent or expired entry.
    #[case(tenant, entry)]
    async fn replace_conflicts_with_other_version<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let idle = PutOptions::new().with_idle_ttl(w.long());
        let first = w.store().insert(w.ctx(), &ns, "k", V::sample(1), idle).await?;
        let second = w.store().replace(w.ctx(), &ns, "k", V::sample(2), first).await?;
        let entry = w.live(&ns, "k").await?;
        check_eq!(entry.meta.version, second, "the returned version");
        check_eq!((entry.meta.expires_at, entry.meta.idle_ttl), (None, None), "the expiry");
        let expired = w.put_expired(&ns, "expired").await?;
        for (key, version, current) in [
            ("k", first, Some(second)),
            ("k", Version::draw(), Some(second)),
            ("absent", second, None),
            ("expired", expired, None),
        ] {
            let replaced = w.store().replace(w.ctx(), &ns, key, V::sample(3), version).await;
            let error = refused(replaced, ErrorKind::Conflict, format_args!("replace of {key}"))?;
            check_eq!(error.current_version(), current, "the version in the conflict of {key}");
        }
        check_eq!(w.live(&ns, "k").await?, entry, "the entry after the conflicts");
        check_eq!(w.list(&ns, None).await?, ["k"], "the keys after the conflicts");
        Ok(())
    }
}

fn key(prefix: &str, number: u64) -> String {
    format!("{prefix}{number:020}")
}

/// Appends the sample values with these numbers.
async fn append<V: Sample>(
    w: &World<V>,
    ns: &Namespace,
    prefix: &str,
    numbers: &[u64],
) -> Result<Vec<String>> {
    let values = numbers.iter().map(|number| V::sample(*number)).collect();
    w.store().append(w.ctx(), ns, prefix, values, PutOptions::new()).await
}

/// Returns the numbers of the last `n` values.
async fn last<V: Sample>(
    w: &World<V>,
    ns: &Namespace,
    prefix: &str,
    n: usize,
) -> Outcome<Vec<u64>> {
    let value = |item: ScanItem<V>| item.value.unwrap_or_else(|| Err(no_value()));
    let items = w.store().last(w.ctx(), ns, prefix, n).await?;
    let values = items.into_iter().map(value).collect::<Result<Vec<_>>>()?;
    values.iter().map(number_of).collect()
}

fn no_value() -> cubbyhole_core::Error {
    cubbyhole_core::Error::internal("an item of `last` has no value")
}
