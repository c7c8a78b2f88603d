//! Refreshing reads: they restart the idle TTLs of the entries that they return.

use std::time::Duration;

use cubbyhole_core::{
    Condition, EntryMeta, Expiry, GetOptions, Namespace, PutOptions, ScanOptions, Timestamp,
};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq};
use crate::world::World;

cases! {
    /// A refreshing read keeps an entry beyond its old expiry, also during a sweep. Other entries
    /// expire.
    #[case(time, entry)]
    async fn refreshed_entry_outlives_its_old_expiry<V: Sample>(w: &World<V>) -> Outcome {
        let ns = &w.ns(&["a"])?;
        w.in_time(|| async move {
            for key in ["get_entry", "get_many", "scan", "unread"] {
                put_until(w, ns, key, w.long(), w.short()).await?;
            }
            for read in READS {
                check!(read_one(w, ns, read.name(), read).await?.is_some(), "{read:?} is too late");
            }
            Ok(())
        })
        .await?;
        w.expire().await;
        let expected = ["get_entry", "get_many", "scan"];
        check_eq!(w.list(ns, None).await?, expected, "the keys after the old expiry");
        w.store().evict_expired(w.ctx()).await?;
        check_eq!(w.list(ns, None).await?, expected, "the keys after a sweep");
        for key in expected {
            check_eq!(w.number(ns, key).await?, Some(1), "the value of {key} after a sweep");
        }
        Ok(())
    }

    /// A refreshing read returns the new expiry, and stores it.
    #[case(time, entry)]
    async fn refresh_returns_the_new_expiry<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_exact_clock()?;
        let ns = w.ns(&["a"])?;
        for read in READS {
            put_idle(w, &ns, "k", 1_000).await?;
            w.advance_millis(500).await;
            let due = now(w, &ns).await?.checked_add(Duration::from_millis(1_000))?;
            let returned = read_one(w, &ns, "k", read).await?;
            check_eq!(returned.map(|meta| meta.expires_at), Some(Some(due)), "{read:?}");
            check_eq!(w.live(&ns, "k").await?.meta.expires_at, Some(due), "stored by {read:?}");
            w.advance_millis(999).await;
            check_eq!(w.number(&ns, "k").await?, Some(1), "a millisecond before the new expiry");
            w.advance_millis(1).await;
            check_eq!(w.get(&ns, "k").await?, None, "get at the new expiry");
        }
        Ok(())
    }

    /// A refresh is skipped while less than a tenth of the idle TTL has passed, and the read then
    /// returns the old expiry. This is exact to the millisecond.
    #[case(time, entry)]
    async fn refresh_is_skipped_within_a_tenth<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_exact_clock()?;
        let ns = w.ns(&["a"])?;
        // The idle TTL, and the first millisecond at which a read refreshes.
        for (ttl, first) in
            [(1_000, 100), (1_001, 101), (1_009, 101), (1_010, 101), (10, 1), (7, 1)]
        {
            for read in READS {
                put_idle(w, &ns, "k", ttl).await?;
                let before = w.live(&ns, "k").await?.meta;
                for step in 0..first {
                    let returned = read_one(w, &ns, "k", read).await?;
                    check_eq!(returned, Some(before), "{read:?} of {ttl} ms after {step} ms");
                    let stored = w.live(&ns, "k").await?.meta;
                    check_eq!(stored, before, "the metadata of {ttl} ms after {step} ms");
                    w.advance_millis(1).await;
                }
                let due = now(w, &ns).await?.checked_add(Duration::from_millis(ttl))?;
                let expected = EntryMeta { expires_at: Some(due), ..before };
                let returned = read_one(w, &ns, "k", read).await?;
                check_eq!(returned, Some(expected), "{read:?} of {ttl} ms after {first} ms");
                let stored = w.live(&ns, "k").await?.meta;
                check_eq!(stored, expected, "the metadata of {ttl} ms after {first} ms");
            }
        }
        Ok(())
    }

    /// The tenth counts from the last refresh, and a skipped refresh does not restart it.
    #[case(time, entry)]
    async fn tenth_counts_from_the_last_refresh<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_exact_clock()?;
        let ns = w.ns(&["a"])?;
        put_idle(w, &ns, "k", 1_000).await?;
        let start = now(w, &ns).await?;
        // The time of each read, and the time of the refresh that then counts.
        for (at, refreshed) in
            [(60, 0), (110, 110), (170, 110), (209, 110), (210, 210), (300, 210), (310, 310)]
        {
            let passed = now(w, &ns).await?.saturating_since(start).as_millis() as u64;
            w.advance_millis(at - passed).await;
            let returned = read_one(w, &ns, "k", Read::GetEntry).await?;
            let due = start.checked_add(Duration::from_millis(refreshed + 1_000))?;
            check_eq!(returned.map(|meta| meta.expires_at), Some(Some(due)), "after {at} ms");
        }
        Ok(())
    }

    /// An entry that is read before each expiry stays. It expires between 0.9 and 1.0 idle TTL
    /// after the last refreshing read.
    #[case(time, entry)]
    async fn session_lives_while_it_is_read<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_exact_clock()?;
        let ns = w.ns(&["a"])?;
        put_idle(w, &ns, "k", 100).await?;
        for round in 0..5 {
            for read in READS {
                w.advance_millis(90).await;
                let found = read_one(w, &ns, "k", read).await?.is_some();
                check!(found, "{read:?} finds no entry in round {round}");
            }
        }
        w.advance_millis(9).await;
        check!(read_one(w, &ns, "k", Read::GetEntry).await?.is_some(), "the skipped refresh");
        w.advance_millis(90).await;
        check_eq!(w.number(&ns, "k").await?, Some(1), "the value 0.9 TTL after the last read");
        w.advance_millis(1).await;
        check_eq!(w.get(&ns, "k").await?, None, "get after the idle TTL");
        Ok(())
    }

    /// A refresh changes neither the version nor `created_at` nor `updated_at` nor the value.
    #[case(time, entry)]
    async fn refresh_changes_only_the_expiry<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for read in READS {
            put_until(w, &ns, "k", w.long() * 2, w.long()).await?;
            let before = w.live(&ns, "k").await?;
            w.advance_millis(20).await;
            let returned = read_one(w, &ns, "k", read).await?;
            let after = w.live(&ns, "k").await?;
            check_eq!(returned, Some(after.meta), "the metadata that {read:?} returns");
            check!(after.meta.expires_at > before.meta.expires_at, "{read:?} does not refresh");
            let expected = EntryMeta { expires_at: after.meta.expires_at, ..before.meta };
            check_eq!(after.meta, expected, "the metadata after {read:?}");
            check_eq!(after.value, before.value, "the value after {read:?}");
            let current = Condition::IfVersion(before.meta.version);
            w.put_entry(&ns, "k", 1, PutOptions::new(), current).await?;
        }
        Ok(())
    }

    /// A refreshing read extends no entry without an idle TTL, and creates or revives none.
    #[case(time, entry)]
    async fn only_idle_entries_are_extended<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "never", 1).await?;
        w.put_for(&ns, "ttl", 1, w.long()).await?;
        let at = PutOptions::new().with_expires_at(Timestamp::MAX);
        w.put_entry(&ns, "at", 1, at, Condition::Always).await?;
        w.put_expired(&ns, "expired").await?;
        let past = Expiry::IdleUntil { ttl: w.long(), expires_at: Timestamp::EPOCH };
        let past = PutOptions::new().with_expiry(past);
        w.put_entry(&ns, "idle expired", 1, past, Condition::Always).await?;
        let keys = ["absent", "at", "expired", "idle expired", "never", "ttl"];
        let before = metas(w, &ns, &keys).await?;
        w.advance_millis(20).await;
        for read in READS {
            for (key, expected) in keys.iter().zip(&before) {
                check_eq!(read_one(w, &ns, key, read).await?, *expected, "{read:?} of {key}");
            }
            check_eq!(metas(w, &ns, &keys).await?, before, "the metadata after {read:?}");
        }
        check_eq!(w.list(&ns, None).await?, ["at", "never", "ttl"], "the keys");
        Ok(())
    }

    /// A refresh never shortens an expiry.
    #[case(tenant, entry)]
    async fn refresh_never_shortens_the_expiry<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for read in READS {
            put_until(w, &ns, "k", w.short(), w.long()).await?;
            let before = w.live(&ns, "k").await?.meta;
            check_eq!(read_one(w, &ns, "k", read).await?, Some(before), "{read:?}");
            check_eq!(w.live(&ns, "k").await?.meta, before, "the metadata after {read:?}");
        }
        Ok(())
    }

    /// A refresh whose new expiry would be after the year 9999 sets the last instant of that year.
    #[case(tenant, entry)]
    async fn refresh_ends_at_most_in_the_year_9999<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let ttl = Timestamp::MAX.saturating_since(Timestamp::EPOCH);
        for read in READS {
            put_until(w, &ns, "k", ttl, w.long()).await?;
            let returned = read_one(w, &ns, "k", read).await?;
            let expires_at = Some(Some(Timestamp::MAX));
            check_eq!(returned.map(|meta| meta.expires_at), expires_at, "{read:?}");
            let stored = w.live(&ns, "k").await?.meta.expires_at;
            check_eq!(stored, Some(Timestamp::MAX), "expires_at after {read:?}");
        }
        Ok(())
    }

    /// One millisecond before the expiry a refresh extends the entry. At the expiry it finds none
    /// and revives none.
    #[case(time, entry)]
    async fn refresh_at_the_expiry_finds_nothing<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_exact_clock()?;
        let ns = w.ns(&["a"])?;
        for read in READS {
            put_idle(w, &ns, "k", 100).await?;
            w.advance_millis(99).await;
            check!(read_one(w, &ns, "k", read).await?.is_some(), "{read:?} before the expiry");
            w.advance_millis(100).await;
            check_eq!(read_one(w, &ns, "k", read).await?, None, "{read:?} at the expiry");
            check_eq!(w.get(&ns, "k").await?, None, "get after {read:?}");
            check_eq!(w.list(&ns, None).await?, [""; 0], "the keys after {read:?}");
        }
        Ok(())
    }

    /// A refreshing page refreshes the entries that it returns, and no others: in both directions,
    /// with a prefix, and without values.
    #[case(tenant, entry)]
    async fn page_refreshes_exactly_its_entries<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let keys = ["a", "b1", "b2", "b3", "c"];
        let options = ScanOptions::new().with_limit(2).refreshing();
        for (options, expected) in [
            (options.clone(), &["a", "b1"][..]),
            (options.clone().reversed(), &["b3", "c"]),
            (options.clone().with_prefix("b"), &["b1", "b2"]),
            (options.clone().with_prefix("b").reversed(), &["b2", "b3"]),
            (options.clone().with_after("b3"), &["c"]),
            (options.clone().with_after("b1").reversed(), &["a"]),
            (options.keys_only(), &["a", "b1"]),
        ] {
            for key in keys {
                put_until(w, &ns, key, w.long() * 2, w.long()).await?;
            }
            put_until(w, &w.ns(&["a", "b"])?, "a", w.long() * 2, w.long()).await?;
            let before = metas(w, &ns, &keys).await?;
            let page = w.page(&ns, options.clone()).await?;
            let mut returned: Vec<_> =
                page.items.iter().map(|item| (item.key.as_str(), item.meta)).collect();
            returned.sort_by_key(|(key, _)| *key);
            let found: Vec<_> = returned.iter().map(|(key, _)| *key).collect();
            check_eq!(found, expected, "the keys of a page with {options:?}");
            for (key, before) in keys.iter().zip(before) {
                let after = w.live(&ns, key).await?.meta;
                let is_refreshed = Some(after) != before;
                let item = returned.iter().find(|(found, _)| found == key);
                check_eq!(is_refreshed, item.is_some(), "whether {key} is extended, {options:?}");
                if let Some((_, meta)) = item {
                    check_eq!(*meta, after, "the metadata of {key} in the page");
                }
            }
        }
        Ok(())
    }

    /// A refreshing `get_many` refreshes every entry that it returns, and no other. A key that is
    /// requested twice has the new expiry twice.
    #[case(tenant, entry)]
    async fn get_many_refreshes_its_entries<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for key in ["a", "b", "c"] {
            put_until(w, &ns, key, w.long() * 2, w.long()).await?;
        }
        let before = metas(w, &ns, &["a", "b", "c"]).await?;
        let keys = ["c", "absent", "a", "c"];
        let options = GetOptions::new().refreshing();
        let replies = w.store().get_many(w.ctx(), &ns, &keys, options).await?;
        let replies = replies.into_iter().collect::<Result<Vec<_>, _>>()?;
        let returned: Vec<_> =
            replies.into_iter().map(|entry| entry.map(|entry| entry.meta)).collect();
        let after = metas(w, &ns, &["a", "b", "c"]).await?;
        check!(after[0] != before[0] && after[2] != before[2], "a or c is not extended: {after:?}");
        check_eq!(after[1], before[1], "the metadata of b, which was not read");
        check_eq!(returned, [after[2], None, after[0], after[2]], "the returned metadata");
        Ok(())
    }

    /// With both options, an entry gets the later of the two expiries.
    #[case(time, entry)]
    async fn refresh_and_extension_combine<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_exact_clock()?;
        let ns = w.ns(&["a"])?;
        for (extended, expected) in [(500, 1_000), (3_000, 3_000)] {
            put_idle(w, &ns, "idle", 1_000).await?;
            w.put_for(&ns, "ttl", 1, Duration::from_millis(400)).await?;
            w.advance_millis(200).await;
            let options = GetOptions::new().refreshing();
            let options = options.with_extended_ttl(Duration::from_millis(extended));
            let now = now(w, &ns).await?;
            for (key, expected) in [("idle", expected), ("ttl", extended)] {
                w.store().get_entry(w.ctx(), &ns, key, options).await?;
                let due = now.checked_add(Duration::from_millis(expected))?;
                let found = w.live(&ns, key).await?.meta.expires_at;
                check_eq!(found, Some(due), "expires_at of {key}, extended by {extended} ms");
            }
        }
        Ok(())
    }

    /// Concurrent refreshing reads all find the entry, and leave it with one new expiry.
    #[case(tenant, entry)]
    async fn concurrent_refreshes_keep_the_entry<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        put_until(w, &ns, "k", w.long() * 2, w.long()).await?;
        let before = w.live(&ns, "k").await?.meta;
        let found = w
            .at_once(6, |task, w| async move {
                let ns = w.ns(&["a"])?;
                for round in 0..10 {
                    let read = READS[(task + round) % READS.len()];
                    let meta = read_one(&w, &ns, "k", read).await?;
                    check!(meta.is_some(), "{read:?} finds no entry");
                }
                Ok(())
            })
            .await?;
        found.into_iter().collect::<Outcome>()?;
        let after = w.live(&ns, "k").await?.meta;
        check!(after.expires_at > before.expires_at, "the entry is not extended: {after:?}");
        let expected = EntryMeta { expires_at: after.expires_at, ..before };
        check_eq!(after, expected, "the metadata after the reads");
        Ok(())
    }
}

/// The methods that refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    GetEntry,
    GetMany,
    Scan,
}

const READS: [Read; 3] = [Read::GetEntry, Read::GetMany, Read::Scan];

impl Read {
    fn name(self) -> &'static str {
        match self {
            Self::GetEntry => "get_entry",
            Self::GetMany => "get_many",
            Self::Scan => "scan",
        }
    }
}

/// Reads one entry with a refresh, and returns its metadata.
async fn read_one<V: Sample>(
    w: &World<V>,
    ns: &Namespace,
    key: &str,
    read: Read,
) -> Outcome<Option<EntryMeta>> {
    let (store, ctx, options) = (w.store(), w.ctx(), GetOptions::new().refreshing());
    let entry = match read {
        Read::GetEntry => store.get_entry(ctx, ns, key, options).await?,
        Read::GetMany => match store.get_many(ctx, ns, &[key], options).await?.pop() {
            Some(reply) => reply?,
            None => None,
        },
        Read::Scan => {
            let options = ScanOptions::new().with_prefix(key).with_limit(1).refreshing();
            let item = store.scan(ctx, ns, options).await?.items.pop();
            return Ok(item.filter(|item| item.key == key).map(|item| item.meta));
        }
    };
    Ok(entry.map(|entry| entry.meta))
}

/// Returns the metadata of these keys without changing it.
async fn metas<V: Sample>(
    w: &World<V>,
    ns: &Namespace,
    keys: &[&str],
) -> Outcome<Vec<Option<EntryMeta>>> {
    let mut metas = Vec::with_capacity(keys.len());
    for key in keys {
        metas.push(w.entry(ns, key).await?.map(|entry| entry.meta));
    }
    Ok(metas)
}

async fn now<V: Sample>(w: &World<V>, ns: &Namespace) -> cubbyhole_core::Result<Timestamp> {
    w.store().current_time(w.ctx(), ns).await
}

async fn put_idle<V: Sample>(w: &World<V>, ns: &Namespace, key: &str, millis: u64) -> Outcome {
    let options = PutOptions::new().with_idle_ttl(Duration::from_millis(millis));
    w.put_entry(ns, key, 1, options, Condition::Always).await?;
    Ok(())
}

/// Writes an entry with an idle TTL that expires after `first` unless it is read.
async fn put_until<V: Sample>(
    w: &World<V>,
    ns: &Namespace,
    key: &str,
    ttl: Duration,
    first: Duration,
) -> Outcome {
    let expires_at = now(w, ns).await?.checked_add(first)?;
    let options = PutOptions::new().with_expiry(Expiry::IdleUntil { ttl, expires_at });
    w.put_entry(ns, key, 1, options, Condition::Always).await?;
    Ok(())
}
