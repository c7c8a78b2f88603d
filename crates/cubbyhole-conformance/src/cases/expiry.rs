//! Expiry through `EntryStore`: instants, and the absence of expired entries for every method.

use std::time::Duration;

use cubbyhole_core::{
    Batch, Condition, ErrorKind, Expiry, GetOptions, PutOptions, ScanOptions, Timestamp,
};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq, refused};
use crate::world::World;

cases! {
    /// An expired entry is absent for every method that reads.
    #[case(tenant, entry)]
    async fn expired_entry_is_absent_for_reads<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_expired(&ns, "k").await?;
        check_eq!(w.get(&ns, "k").await?, None, "get");
        check_eq!(w.entry(&ns, "k").await?, None, "get_entry");
        let many = w.get_many(&ns, &["k"]).await?;
        check!(matches!(many.as_slice(), [Ok(None)]), "get_many returns an expired entry");
        check_eq!(w.list(&ns, None).await?, [""; 0], "list");
        check_eq!(w.pages(&ns, ScanOptions::new()).await?.len(), 0, "scan");
        check_eq!(w.namespaces(&w.everything()).await?, [], "list_namespaces");
        check_eq!(w.namespace_pages(&w.everything(), 10).await?, [], "scan_namespaces");
        Ok(())
    }

    /// An expired entry is absent for every method that writes.
    #[case(tenant, entry)]
    async fn expired_entry_is_absent_for_writes<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for key in ["touch", "persist", "take", "delete", "erase"] {
            w.put_expired(&ns, key).await?;
        }
        let touched = w.touch(&ns, "touch", Expiry::After(w.long())).await?;
        check!(!touched, "touch finds an expired entry");
        let touched = w.touch(&ns, "persist", Expiry::Never).await?;
        check!(!touched, "touch with `Never` finds an expired entry");
        check_eq!(w.store().take(w.ctx(), &ns, "take").await?, None, "take");
        let deleted = w.store().delete_entry(w.ctx(), &ns, "delete", Condition::Always).await?;
        check!(!deleted, "delete_entry finds an expired entry");
        let erased = w.store().erase(w.ctx(), &w.everything(), 100).await?;
        check_eq!(erased.removed, 0, "the number of entries that erase counts");
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys after all calls");
        Ok(())
    }

    /// An expiry in the past is accepted, and the entry is absent immediately.
    #[case(tenant, entry)]
    async fn expiry_in_the_past_takes_effect_immediately<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        w.put_expired(&ns, "k").await?;
        check_eq!(
            w.get(&ns, "k").await?,
            None,
            "get after a put with a past expiry over a live entry"
        );
        w.put_expired(&ns, "new").await?;
        check_eq!(
            w.get(&ns, "new").await?,
            None,
            "get after a put with a past expiry of a new key"
        );
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys");
        Ok(())
    }

    /// `current_time` is the time of the clock that dates writes and decides expiry.
    #[case(tenant, entry)]
    async fn current_time_is_the_clock_of_writes<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let before = w.store().current_time(w.ctx(), &ns).await?;
        w.put(&ns, "k", 1).await?;
        let written = w.live(&ns, "k").await?.meta.updated_at;
        let after = w.store().current_time(w.ctx(), &ns).await?;
        check!(
            before <= written && written <= after,
            "updated_at must be between the current times: {before} <= {written} <= {after}"
        );
        let put = PutOptions::new().with_expires_at(before);
        w.put_entry(&ns, "k", 2, put, Condition::Always).await?;
        check_eq!(w.get(&ns, "k").await?, None, "get of an entry that expires at the current time");
        let put = PutOptions::new().with_expires_at(after.checked_add(w.long())?);
        w.put_entry(&ns, "k", 3, put, Condition::Always).await?;
        check_eq!(w.number(&ns, "k").await?, Some(3), "the value of an entry that expires later");
        Ok(())
    }

    /// `current_time` advances with the clock, and does not go back if the clock is set back.
    #[case(time, entry)]
    async fn current_time_never_goes_back<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_exact_clock()?;
        let ns = w.ns(&["a"])?;
        let start = w.store().current_time(w.ctx(), &ns).await?;
        w.advance_millis(7).await;
        let later = start.checked_add(Duration::from_millis(7))?;
        check_eq!(
            w.store().current_time(w.ctx(), &ns).await?,
            later,
            "the current time after 7 ms"
        );
        w.set_clock_back(Duration::from_secs(60)).await?;
        check_eq!(
            w.store().current_time(w.ctx(), &ns).await?,
            later,
            "the current time after the clock was set back"
        );
        w.advance_millis(5).await;
        let later = later.checked_add(Duration::from_millis(5))?;
        check_eq!(
            w.store().current_time(w.ctx(), &ns).await?,
            later,
            "the current time after 5 more ms"
        );
        Ok(())
    }

    /// An instant of expiry is stored to the millisecond, up to the end of the year 9999.
    #[case(tenant, entry)]
    async fn expires_at_keeps_milliseconds<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let last = Timestamp::MAX.as_millis();
        for millis in [last, last - 1, last - 999, 253_000_000_000_001, 32_503_680_000_123] {
            let instant = Timestamp::from_millis(millis)?;
            let options = PutOptions::new().with_expires_at(instant);
            w.put_entry(&ns, "k", 1, options, Condition::Always).await?;
            let meta = w.live(&ns, "k").await?.meta;
            check_eq!(meta.expires_at, Some(instant), "expires_at");
        }
        Ok(())
    }

    /// An expiry after the year 9999 is rejected, as an instant and as a TTL.
    #[case(tenant, entry)]
    async fn expiry_in_year_10000_is_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let invalid = ErrorKind::InvalidArgument;
        refused(
            Timestamp::from_millis(Timestamp::MAX.as_millis() + 1),
            invalid,
            "an instant in the year 10000",
        )?;
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        for ttl in [Duration::MAX, Duration::from_millis(Timestamp::MAX.as_millis() + 1)] {
            let options = PutOptions::new().with_ttl(ttl);
            let put = w.put_entry(&ns, "k", 2, options, Condition::Always).await;
            refused(put, invalid, format_args!("put_entry with a TTL of {ttl:?}"))?;
            let touched = w.touch(&ns, "k", Expiry::After(ttl)).await;
            refused(touched, invalid, format_args!("touch with a TTL of {ttl:?}"))?;
            let options = GetOptions::new().with_extended_ttl(ttl);
            let read = w.store().get_entry(w.ctx(), &ns, "k", options).await;
            refused(read, invalid, format_args!("get_entry that extends the TTL to {ttl:?}"))?;
            let options = PutOptions::new().with_ttl(ttl);
            let batch = Batch::new().put_with("k", V::sample(2), options, Condition::Always);
            let written = w.store().write(w.ctx(), &ns, batch).await;
            refused(written, invalid, format_args!("write with a TTL of {ttl:?}"))?;
        }
        check_eq!(w.number(&ns, "k").await?, Some(1), "the data after the rejected calls");
        check_eq!(
            w.live(&ns, "k").await?.meta.expires_at,
            None,
            "expires_at after the rejected calls"
        );
        Ok(())
    }

    /// Every method that takes a TTL rejects a TTL of zero.
    #[case(tenant, entry)]
    async fn zero_ttl_is_rejected_by_every_method<V: Sample>(w: &World<V>) -> Outcome {
        let invalid = ErrorKind::InvalidArgument;
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        let zero = PutOptions::new().with_ttl(Duration::ZERO);
        let put = w.put_entry(&ns, "k", 2, zero, Condition::Always).await;
        refused(put, invalid, "put_entry with a TTL of zero")?;
        let touched = w.touch(&ns, "k", Expiry::After(Duration::ZERO)).await;
        refused(touched, invalid, "touch with a TTL of zero")?;
        let options = GetOptions::new().with_extended_ttl(Duration::ZERO);
        refused(w.store().get_entry(w.ctx(), &ns, "k", options).await, invalid, "get_entry")?;
        let batch = Batch::new().put("other", V::sample(3)).put_with(
            "k",
            V::sample(2),
            zero,
            Condition::Always,
        );
        refused(w.store().write(w.ctx(), &ns, batch).await, invalid, "write with a TTL of zero")?;
        check_eq!(w.list(&ns, None).await?, ["k"], "the data after the rejected calls");
        check_eq!(w.number(&ns, "k").await?, Some(1), "the value after the rejected calls");
        Ok(())
    }

    /// `expires_at` of an entry is `updated_at` plus the TTL.
    #[case(tenant, entry)]
    async fn expires_at_is_updated_at_plus_ttl<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let ttl = Duration::from_secs(3_600);
        w.put_for(&ns, "ttl", 1, ttl).await?;
        w.put(&ns, "none", 1).await?;
        let meta = w.live(&ns, "ttl").await?.meta;
        let due = meta.updated_at.checked_add(ttl)?;
        check_eq!(meta.expires_at, Some(due), "expires_at of an entry with a TTL");
        check_eq!(
            w.live(&ns, "none").await?.meta.expires_at,
            None,
            "expires_at of an entry without a TTL"
        );
        Ok(())
    }

    /// An entry is present until one millisecond before `expires_at`, and absent from `expires_at`
    /// on.
    #[case(time, entry)]
    async fn expires_at_is_exact_to_the_millisecond<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_exact_clock()?;
        let ns = w.ns(&["a"])?;
        w.put(&ns, "probe", 1).await?;
        let now = w.live(&ns, "probe").await?.meta.updated_at;
        let instant = now.checked_add(Duration::from_millis(500))?;
        let options = PutOptions::new().with_expires_at(instant);
        w.put_entry(&ns, "k", 1, options, Condition::Always).await?;
        w.advance_millis(499).await;
        check_eq!(
            w.live(&ns, "k").await?.meta.expires_at,
            Some(instant),
            "expires_at, one millisecond before it"
        );
        w.advance_millis(1).await;
        check_eq!(w.entry(&ns, "k").await?, None, "at the expiry");
        Ok(())
    }

    /// All methods that read agree on the expiry, to the millisecond.
    #[case(time, entry)]
    async fn all_reads_agree_on_the_expiry<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_exact_clock()?;
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, Duration::from_millis(100)).await?;
        w.advance_millis(99).await;
        check_eq!(found_by_each_read(w).await?, [true; 7], "one millisecond before the expiry");
        w.advance_millis(1).await;
        check_eq!(found_by_each_read(w).await?, [false; 7], "at the expiry");
        Ok(())
    }

    /// Conditions and reads agree on the expiry, to the millisecond.
    #[case(time, entry)]
    async fn conditions_agree_with_reads_on_the_expiry<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_exact_clock()?;
        let ns = w.ns(&["a"])?;
        let ttl = PutOptions::new().with_ttl(Duration::from_millis(100));
        let first = w.put_entry(&ns, "k", 1, ttl, Condition::Always).await?;
        w.advance_millis(99).await;
        let put = w.put_entry(&ns, "k", 2, PutOptions::new(), Condition::IfAbsent).await;
        let error =
            refused(put, ErrorKind::Conflict, "put if absent, one millisecond before the expiry")?;
        check_eq!(error.current_version(), Some(first), "the current version in the conflict");
        w.advance_millis(1).await;
        let stale = Condition::IfVersion(first);
        let put = w.put_entry(&ns, "k", 2, PutOptions::new(), stale).await;
        let error = refused(put, ErrorKind::Conflict, "put at the old version, at the expiry")?;
        check_eq!(error.current_version(), None, "the current version in the conflict");
        w.put_entry(&ns, "k", 2, PutOptions::new(), Condition::IfAbsent).await?;
        check_eq!(
            w.number(&ns, "k").await?,
            Some(2),
            "the value after put if absent, at the expiry"
        );
        Ok(())
    }
}

/// Returns for each reading method whether it finds the key `k` of `a`.
async fn found_by_each_read<V: Sample>(w: &World<V>) -> Outcome<[bool; 7]> {
    let ns = w.ns(&["a"])?;
    let all = w.everything();
    let many = w.get_many(&ns, &["k"]).await?;
    Ok([
        w.get(&ns, "k").await?.is_some(),
        w.entry(&ns, "k").await?.is_some(),
        matches!(many.as_slice(), [Ok(Some(_))]),
        !w.list(&ns, None).await?.is_empty(),
        !w.pages(&ns, ScanOptions::new()).await?.is_empty(),
        !w.namespaces(&all).await?.is_empty(),
        w.store().usage(w.ctx(), &all).await?.entries == 1,
    ])
}
