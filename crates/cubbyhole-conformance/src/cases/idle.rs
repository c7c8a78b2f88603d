//! Idle TTLs: how writes set, replace and clear them.

use std::time::Duration;

use cubbyhole_core::{
    Batch, Condition, EntryStoreExt, ErrorKind, Expiry, GetOptions, Namespace, PutOptions,
    RecursiveScanOptions, ScanOptions, Timestamp, Update, Version,
};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, Stop, check, check_eq, refused};
use crate::world::World;

cases! {
    /// Every kind of write sets the idle TTL. The entry expires one idle TTL after the write.
    #[case(tenant, entry)]
    async fn writes_set_the_idle_ttl<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for write in WRITES {
            write_entry(w, &ns, "k", write, Expiry::Idle(w.long())).await?;
            let meta = w.live(&ns, "k").await?.meta;
            check_eq!(meta.idle_ttl, Some(w.long()), "the idle TTL after {write:?}");
            let due = meta.updated_at.checked_add(w.long())?;
            // A touch does not change `updated_at`.
            let is_due = meta.expires_at.is_some_and(|at| match write {
                Write::Touch => at >= due,
                Write::Put | Write::PutEntry | Write::Batch => at == due,
            });
            check!(is_due, "expires_at must be {due} after {write:?}: {meta:?}");
        }
        Ok(())
    }

    /// Every kind of write replaces the idle TTL and the expiry by its own.
    #[case(tenant, entry)]
    async fn writes_replace_the_idle_ttl<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for write in WRITES {
            for expiry in [
                Expiry::Idle(w.long() * 2),
                Expiry::After(w.long()),
                Expiry::At(Timestamp::MAX),
                Expiry::IdleUntil { ttl: w.long() * 3, expires_at: Timestamp::MAX },
                Expiry::Never,
            ] {
                put_idle(w, &ns, "k").await?;
                write_entry(w, &ns, "k", write, expiry).await?;
                let meta = w.live(&ns, "k").await?.meta;
                let (what, idle_ttl) = (format!("{write:?} with {expiry:?}"), expiry.idle_ttl());
                check_eq!(meta.idle_ttl, idle_ttl, "the idle TTL after {what}");
                match expiry {
                    Expiry::Never => check_eq!(meta.expires_at, None, "expires_at after {what}"),
                    Expiry::At(expires_at) | Expiry::IdleUntil { expires_at, .. } => {
                        check_eq!(meta.expires_at, Some(expires_at), "expires_at after {what}");
                    }
                    Expiry::After(_) | Expiry::Idle(_) => {
                        check!(meta.expires_at.is_some(), "there is no expiry after {what}");
                    }
                }
            }
        }
        Ok(())
    }

    /// A plain `put` and `Update::Put` clear the idle TTL. `Update::PutWith` sets it.
    #[case(tenant, entry)]
    async fn plain_writes_clear_the_idle_ttl<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        put_idle(w, &ns, "k").await?;
        w.put(&ns, "k", 2).await?;
        let meta = w.live(&ns, "k").await?.meta;
        check_eq!((meta.idle_ttl, meta.expires_at), (None, None), "the expiry after put");
        let options = PutOptions::new().with_idle_ttl(w.long());
        let set = |_| Ok(Update::PutWith(V::sample(3), options));
        w.store().update(w.ctx(), &ns, "k", set).await?;
        let meta = w.live(&ns, "k").await?.meta;
        check_eq!(meta.idle_ttl, Some(w.long()), "the idle TTL after PutWith");
        w.store().update(w.ctx(), &ns, "k", |_| Ok(Update::Put(V::sample(4)))).await?;
        let meta = w.live(&ns, "k").await?.meta;
        check_eq!((meta.idle_ttl, meta.expires_at), (None, None), "the expiry after Update::Put");
        Ok(())
    }

    /// Every method that reads returns the idle TTL.
    #[case(tenant, entry)]
    async fn every_read_returns_the_idle_ttl<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        put_idle(w, &ns, "k").await?;
        let meta = w.live(&ns, "k").await?.meta;
        check_eq!(meta.idle_ttl, Some(w.long()), "get_entry");
        for reply in w.get_many(&ns, &["k"]).await? {
            check_eq!(reply?.map(|entry| entry.meta), Some(meta), "get_many");
        }
        let stats = w.store().stat(w.ctx(), &ns, &["k"]).await?;
        check_eq!(stats[0].map(|stat| stat.meta), Some(meta), "stat");
        for options in [ScanOptions::new(), ScanOptions::new().keys_only().reversed()] {
            for item in w.page(&ns, options).await?.items {
                check_eq!(item.meta, meta, "scan");
            }
        }
        for options in [RecursiveScanOptions::new(), RecursiveScanOptions::new().keys_only()] {
            for (_, item) in w.recursive_page(&w.everything(), options).await?.items {
                check_eq!(item.meta, meta, "scan_recursive");
            }
        }
        let taken = w.store().take(w.ctx(), &ns, "k").await?;
        check_eq!(taken.map(|entry| entry.meta), Some(meta), "take");
        Ok(())
    }

    /// An entry that no refreshing read reads expires after its idle TTL, even if it is read.
    #[case(time, entry)]
    async fn entry_expires_after_its_idle_ttl<V: Sample>(w: &World<V>) -> Outcome {
        let ns = &w.ns(&["a"])?;
        w.in_time(|| async move {
            let options = PutOptions::new().with_idle_ttl(w.short());
            w.put_entry(ns, "k", 1, options, Condition::Always).await?;
            w.live(ns, "k").await?;
            w.get_many(ns, &["k"]).await?;
            w.pages(ns, ScanOptions::new()).await?;
            w.store().stat(w.ctx(), ns, &["k"]).await?;
            Ok(())
        })
        .await?;
        w.expire().await;
        check_eq!(w.get(ns, "k").await?, None, "get after the idle TTL");
        check_eq!(w.list(ns, None).await?, [""; 0], "the keys after the idle TTL");
        Ok(())
    }

    /// A fraction of a millisecond in an idle TTL rounds up, for the stored TTL and the expiry.
    #[case(tenant, entry)]
    async fn fraction_of_millisecond_rounds_up<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let hour = Duration::from_secs(3_600);
        for nanos in [1, 999_999, 1_000_000] {
            let options = PutOptions::new().with_idle_ttl(hour + Duration::from_nanos(nanos));
            w.put_entry(&ns, "k", 1, options, Condition::Always).await?;
            let meta = w.live(&ns, "k").await?.meta;
            let rounded = hour + Duration::from_millis(1);
            check_eq!(meta.idle_ttl, Some(rounded), "the idle TTL of an hour and {nanos} ns");
            let due = meta.updated_at.checked_add(rounded)?;
            check_eq!(meta.expires_at, Some(due), "expires_at with an hour and {nanos} ns");
        }
        let options = PutOptions::new().with_expiry(Expiry::IdleUntil {
            ttl: Duration::from_nanos(1),
            expires_at: Timestamp::MAX,
        });
        w.put_entry(&ns, "k", 1, options, Condition::Always).await?;
        let meta = w.live(&ns, "k").await?.meta;
        check_eq!(meta.idle_ttl, Some(Duration::from_millis(1)), "the idle TTL of a nanosecond");
        Ok(())
    }

    /// `IdleUntil` stores its instant and its idle TTL. An instant in the past ends the entry
    /// immediately.
    #[case(tenant, entry)]
    async fn idle_until_stores_its_instant<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for write in WRITES {
            put_idle(w, &ns, "k").await?;
            let instant = Timestamp::from_millis(253_000_000_000_001)?;
            let expiry = Expiry::IdleUntil { ttl: w.long(), expires_at: instant };
            write_entry(w, &ns, "k", write, expiry).await?;
            let meta = w.live(&ns, "k").await?.meta;
            let found = (meta.idle_ttl, meta.expires_at);
            check_eq!(found, (Some(w.long()), Some(instant)), "the expiry after {write:?}");
            let expiry = Expiry::IdleUntil { ttl: w.long(), expires_at: Timestamp::EPOCH };
            write_entry(w, &ns, "k", write, expiry).await?;
            check_eq!(w.entry(&ns, "k").await?, None, "get_entry after {write:?} in the past");
        }
        Ok(())
    }

    /// `Expiry::of` copies the idle TTL and the expiry to another entry.
    #[case(tenant, entry)]
    async fn copy_of_entry_has_the_same_expiry<V: Sample>(w: &World<V>) -> Outcome {
        let (from, to) = (w.ns(&["a"])?, w.ns(&["b"])?);
        put_idle(w, &from, "k").await?;
        let meta = w.live(&from, "k").await?.meta;
        let options = PutOptions::new().with_expiry(Expiry::of(&meta));
        w.put_entry(&to, "k", 1, options, Condition::Always).await?;
        check_eq!(meta.idle_ttl, Some(w.long()), "the idle TTL of the original");
        let copy = w.live(&to, "k").await?.meta;
        check_eq!(
            (copy.idle_ttl, copy.expires_at),
            (meta.idle_ttl, meta.expires_at),
            "the idle TTL and the expiry of the copy"
        );
        Ok(())
    }

    /// An entry that is written again after a delete, a take or its expiry has no idle TTL.
    #[case(tenant, entry)]
    async fn rewritten_entry_has_no_idle_ttl<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for key in ["deleted", "taken", "expired"] {
            put_idle(w, &ns, key).await?;
        }
        w.delete(&ns, "deleted").await?;
        w.store().take(w.ctx(), &ns, "taken").await?;
        let past = Expiry::IdleUntil { ttl: w.long(), expires_at: Timestamp::EPOCH };
        w.touch(&ns, "expired", past).await?;
        for key in ["deleted", "taken", "expired"] {
            w.put(&ns, key, 2).await?;
            let meta = w.live(&ns, key).await?.meta;
            check_eq!((meta.idle_ttl, meta.expires_at), (None, None), "the expiry of {key}");
        }
        Ok(())
    }

    /// A write whose condition fails changes neither the idle TTL nor the expiry.
    #[case(tenant, entry)]
    async fn failed_condition_keeps_the_idle_ttl<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        put_idle(w, &ns, "k").await?;
        let before = w.live(&ns, "k").await?;
        let stale = Condition::IfVersion(Version::draw());
        let put = w.put_entry(&ns, "k", 2, PutOptions::new(), stale).await;
        refused(put, ErrorKind::Conflict, "put_entry")?;
        let touched = w.store().touch(w.ctx(), &ns, "k", Expiry::Never, stale).await;
        refused(touched, ErrorKind::Conflict, "touch")?;
        check_eq!(w.live(&ns, "k").await?, before, "the entry after the failed calls");
        Ok(())
    }

    /// A sliding read extends the expiry of an entry with an idle TTL, and keeps the idle TTL.
    #[case(tenant, entry)]
    async fn sliding_read_keeps_the_idle_ttl<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        put_idle(w, &ns, "k").await?;
        let before = w.live(&ns, "k").await?.meta;
        let options = GetOptions::new().with_extended_ttl(w.long() * 2);
        w.store().get_entry(w.ctx(), &ns, "k", options).await?;
        let after = w.live(&ns, "k").await?.meta;
        check_eq!(after.idle_ttl, before.idle_ttl, "the idle TTL after the sliding read");
        check!(after.expires_at > before.expires_at, "expires_at must be later: {after:?}");
        // A refresh would end earlier, so it changes nothing.
        let options = GetOptions::new().refreshing();
        w.store().get_entry(w.ctx(), &ns, "k", options).await?;
        check_eq!(w.live(&ns, "k").await?.meta, after, "the metadata after a refreshing read");
        Ok(())
    }

    /// An idle TTL of zero, or one that ends after the year 9999, is rejected by every kind of
    /// write, and nothing is written.
    #[case(tenant, entry)]
    async fn invalid_idle_ttl_is_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        put_idle(w, &ns, "k").await?;
        let before = w.live(&ns, "k").await?;
        let until = |ttl| Expiry::IdleUntil { ttl, expires_at: Timestamp::MAX };
        let invalid = [
            Expiry::Idle(Duration::ZERO),
            Expiry::Idle(Duration::MAX),
            Expiry::Idle(too_long()?),
            until(Duration::ZERO),
            until(Duration::MAX),
        ];
        for expiry in invalid {
            for write in WRITES {
                for key in ["k", "absent"] {
                    let what = format!("{write:?} of {key} with {expiry:?}");
                    let written = write_entry(w, &ns, key, write, expiry).await;
                    refused(written, ErrorKind::InvalidArgument, what)?;
                }
            }
        }
        check_eq!(w.live(&ns, "k").await?, before, "the entry after the rejected calls");
        check_eq!(w.list(&ns, None).await?, ["k"], "the keys after the rejected calls");
        Ok(())
    }

    /// A put, a batch or a touch with an idle TTL that overflows is `InvalidArgument` even if its
    /// condition does not hold.
    #[case(tenant, entry)]
    async fn idle_ttl_is_checked_before_conditions<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        let (expiry, invalid) = (Expiry::Idle(too_long()?), ErrorKind::InvalidArgument);
        let options = PutOptions::new().with_expiry(expiry);
        let stale = Condition::IfVersion(Version::draw());
        refused(w.put_entry(&ns, "k", 2, options, stale).await, invalid, "put_entry")?;
        let batch = Batch::new().put_with("k", V::sample(2), options, stale);
        refused(w.store().write(w.ctx(), &ns, batch).await, invalid, "write")?;
        for key in ["k", "absent"] {
            let touched = w.store().touch(w.ctx(), &ns, key, expiry, stale).await;
            refused(touched, invalid, format_args!("touch of {key}"))?;
        }
        check_eq!(w.number(&ns, "k").await?, Some(1), "the value after the rejected calls");
        Ok(())
    }
}

/// The kinds of write that take an expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Write {
    Put,
    PutEntry,
    Batch,
    Touch,
}

const WRITES: [Write; 4] = [Write::Put, Write::PutEntry, Write::Batch, Write::Touch];

/// Writes an entry with this expiry. A touch has no effect on an absent entry.
async fn write_entry<V: Sample>(
    w: &World<V>,
    ns: &Namespace,
    key: &str,
    write: Write,
    expiry: Expiry,
) -> cubbyhole_core::Result<()> {
    let (value, options) = (V::sample(2), PutOptions::new().with_expiry(expiry));
    let (store, ctx, always) = (w.store(), w.ctx(), Condition::Always);
    match write {
        Write::Put if w.can().all_put_options => {
            store.put_with_options(ctx, ns, key, value, options).await
        }
        Write::Put | Write::PutEntry => {
            store.put_entry(ctx, ns, key, value, options, always).await.map(drop)
        }
        Write::Batch => {
            let batch = Batch::new().put_with(key, value, options, always);
            store.write(ctx, ns, batch).await.map(drop)
        }
        Write::Touch => w.touch(ns, key, expiry).await.map(drop),
    }
}

/// Writes an entry with an idle TTL that is longer than the case.
async fn put_idle<V: Sample>(
    w: &World<V>,
    ns: &Namespace,
    key: &str,
) -> cubbyhole_core::Result<()> {
    let options = PutOptions::new().with_idle_ttl(w.long());
    w.put_entry(ns, key, 1, options, Condition::Always).await.map(drop)
}

/// Returns the longest TTL that only the store's clock can reject.
fn too_long() -> Outcome<Duration> {
    let ttl = Timestamp::MAX.saturating_since(Timestamp::EPOCH);
    let checked = Expiry::Idle(ttl).check();
    checked.map_err(|error| Stop::unexpected(error, "the TTL must be valid without a clock"))?;
    Ok(ttl)
}
