//! Mutants that break idle TTLs and refreshing reads.

use std::time::Duration;

use cubbyhole_core::{
    Bytes, Condition, Entry, EntryStore, Expiry, GetOptions, Namespace, Page, PutOptions, Result,
    ScanItem, ScanOptions, Store, Timestamp, Version, async_trait,
};

use crate::mutant::{Context, Inner, Mutant, catches, mutants};

mutants! {
    /// A refresh is never skipped, and can shorten an expiry.
    #[caught_by(
        "refresh::refresh_is_skipped_within_a_tenth",
        "refresh::tenth_counts_from_the_last_refresh",
        "refresh::refresh_never_shortens_the_expiry",
        "model::random_operations"
    )]
    RefreshIsNeverSkipped {
        async fn get_entry(&self, c: Context<'_>, ns: &Namespace, key: &str, o: GetOptions)
            -> Result<Option<Entry<Bytes>>> {
            let entry = self.inner.get_entry(c, ns, key, GetOptions::new()).await?;
            if let Some(ttl) = entry.and_then(|entry| entry.meta.idle_ttl)
                && o.is_refreshing()
            {
                self.inner.touch(c, ns, key, Expiry::Idle(ttl), Condition::Always).await?;
            }
            self.inner.get_entry(c, ns, key, o).await
        }
    }

    /// A refresh is skipped within half of the idle TTL.
    #[caught_by(
        "refresh::refresh_is_skipped_within_a_tenth",
        "refresh::tenth_counts_from_the_last_refresh"
    )]
    RefreshIsSkippedWithinHalf {
        async fn get_entry(&self, c: Context<'_>, ns: &Namespace, key: &str, o: GetOptions)
            -> Result<Option<Entry<Bytes>>> {
            let now = self.inner.current_time(c, ns).await?;
            let entry = self.inner.get_entry(c, ns, key, GetOptions::new()).await?;
            let is_early = entry.as_ref().is_some_and(|entry| {
                let left = entry.meta.expires_at.map(|at| at.saturating_since(now));
                left.zip(entry.meta.idle_ttl).is_some_and(|(left, ttl)| left * 2 >= ttl)
            });
            if is_early { Ok(entry) } else { self.inner.get_entry(c, ns, key, o).await }
        }
    }

    /// `get_entry` ignores that it refreshes.
    #[caught_by("refresh::refreshed_entry_outlives_its_old_expiry", "model::random_operations")]
    GetEntryIgnoresRefresh {
        async fn get_entry(&self, c: Context<'_>, ns: &Namespace, key: &str, o: GetOptions)
            -> Result<Option<Entry<Bytes>>> {
            let plain = o.extended_ttl().map_or_else(GetOptions::new, |ttl| {
                GetOptions::new().with_extended_ttl(ttl)
            });
            self.inner.get_entry(c, ns, key, plain).await
        }
    }

    /// `get_many` ignores its options.
    #[caught_by(
        "get_many::options_extend_each_entry",
        "get_many::invalid_ttl_is_rejected",
        "refresh::get_many_refreshes_its_entries",
        "model::random_operations"
    )]
    GetManyIgnoresOptions {
        async fn get_many(&self, c: Context<'_>, ns: &Namespace, keys: &[&str], _: GetOptions)
            -> Result<Vec<Result<Option<Entry<Bytes>>>>> {
            self.inner.get_many(c, ns, keys, GetOptions::new()).await
        }
    }

    /// A refresh writes the entry again, with a new version.
    #[caught_by("refresh::refresh_changes_only_the_expiry")]
    RefreshDrawsVersion {
        async fn get_entry(&self, c: Context<'_>, ns: &Namespace, key: &str, o: GetOptions)
            -> Result<Option<Entry<Bytes>>> {
            rewrite(&self.inner, c, ns, key, o, false).await?;
            self.inner.get_entry(c, ns, key, o).await
        }
    }

    /// A refresh writes the entry again, which changes `updated_at`.
    #[caught_by("refresh::refresh_changes_only_the_expiry")]
    RefreshChangesUpdatedAt {
        async fn get_entry(&self, c: Context<'_>, ns: &Namespace, key: &str, o: GetOptions)
            -> Result<Option<Entry<Bytes>>> {
            rewrite(&self.inner, c, ns, key, o, true).await?;
            self.inner.get_entry(c, ns, key, o).await
        }
    }

    /// A refreshing read extends every TTL.
    #[caught_by("refresh::only_idle_entries_are_extended", "model::random_operations")]
    RefreshExtendsEveryTtl {
        async fn get_entry(&self, c: Context<'_>, ns: &Namespace, key: &str, o: GetOptions)
            -> Result<Option<Entry<Bytes>>> {
            let week = Duration::from_secs(7 * 86_400);
            let o = if o.is_refreshing() { o.with_extended_ttl(week) } else { o };
            self.inner.get_entry(c, ns, key, o).await
        }
    }

    /// A refreshing read revives entries that are not swept yet.
    #[caught_by("refresh::refresh_at_the_expiry_finds_nothing")]
    RefreshRevivesExpired {
        async fn get_entry(&self, c: Context<'_>, ns: &Namespace, key: &str, o: GetOptions)
            -> Result<Option<Entry<Bytes>>> {
            if o.is_refreshing() && self.inner.usage(c, &ns.into()).await?.expired > 0 {
                self.inner.put(c, ns, key, Bytes::new()).await?;
            }
            self.inner.get_entry(c, ns, key, o).await
        }
    }

    /// A refreshing read returns the old expiry.
    #[caught_by("refresh::refresh_returns_the_new_expiry", "model::random_operations")]
    RefreshReturnsOldExpiry {
        async fn get_entry(&self, c: Context<'_>, ns: &Namespace, key: &str, o: GetOptions)
            -> Result<Option<Entry<Bytes>>> {
            let before = self.inner.get_entry(c, ns, key, GetOptions::new()).await?;
            self.inner.get_entry(c, ns, key, o).await?;
            Ok(before)
        }
    }

    /// `scan` ignores that it refreshes.
    #[caught_by("refresh::page_refreshes_exactly_its_entries", "model::random_operations")]
    ScanIgnoresRefresh {
        async fn scan(&self, c: Context<'_>, ns: &Namespace, o: ScanOptions)
            -> Result<Page<ScanItem<Bytes>, String>> {
            let mut plain = ScanOptions::new().with_limit(o.limit());
            if let Some(prefix) = o.prefix() {
                plain = plain.with_prefix(prefix);
            }
            if let Some(after) = o.after() {
                plain = plain.with_after(after);
            }
            if o.is_reversed() {
                plain = plain.reversed();
            }
            let plain = if o.values() { plain } else { plain.keys_only() };
            self.inner.scan(c, ns, plain).await
        }
    }

    /// A refreshing page also refreshes the entries after it.
    #[caught_by("refresh::page_refreshes_exactly_its_entries")]
    PageRefreshesMoreEntries {
        async fn scan(&self, c: Context<'_>, ns: &Namespace, o: ScanOptions)
            -> Result<Page<ScanItem<Bytes>, String>> {
            if o.is_refreshing() && o.check().is_ok() {
                self.inner.scan(c, ns, o.clone().with_limit(1000)).await?;
            }
            self.inner.scan(c, ns, o).await
        }
    }

    /// `put` keeps the old idle TTL.
    #[caught_by("idle::plain_writes_clear_the_idle_ttl", "idle::rewritten_entry_has_no_idle_ttl")]
    PutKeepsIdleTtl {
        async fn put(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes) -> Result<()> {
            let past = self.inner.usage(c, &ns.into()).await?.expired > 0;
            let old = self.inner.get_entry(c, ns, key, GetOptions::new()).await?;
            let day = Duration::from_secs(86_400);
            let ttl = old.and_then(|entry| entry.meta.idle_ttl).or(past.then_some(day));
            let o = PutOptions::new().with_expiry(ttl.map_or(Expiry::Never, Expiry::Idle));
            self.inner.put_with_options(c, ns, key, v, o).await
        }
    }

    /// `touch` keeps the old idle TTL.
    #[caught_by("idle::writes_replace_the_idle_ttl", "model::random_operations")]
    TouchKeepsIdleTtl {
        async fn touch(&self, c: Context<'_>, ns: &Namespace, key: &str, e: Expiry,
            condition: Condition) -> Result<bool> {
            let now = self.inner.current_time(c, ns).await?;
            let old = self.inner.get_entry(c, ns, key, GetOptions::new()).await?;
            let idle = old.and_then(|entry| entry.meta.idle_ttl);
            let e = match (idle, e.resolve(now)?) {
                (Some(ttl), Some(expires_at)) if e.idle_ttl().is_none() => {
                    Expiry::IdleUntil { ttl, expires_at }
                }
                _ => e,
            };
            self.inner.touch(c, ns, key, e, condition).await
        }
    }

    /// The idle TTL is not kept with the entry.
    #[caught_by("idle::writes_set_the_idle_ttl", "idle::copy_of_entry_has_the_same_expiry")]
    IdleTtlIsForgotten {
        async fn put_entry(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes,
            o: PutOptions, condition: Condition) -> Result<Version> {
            let o = match o.expiry() {
                Expiry::Idle(ttl) => o.with_ttl(ttl),
                Expiry::IdleUntil { expires_at, .. } => o.with_expires_at(expires_at),
                _ => o,
            };
            self.inner.put_entry(c, ns, key, v, o, condition).await
        }
    }

    /// A fraction of a millisecond in an idle TTL is cut off.
    #[caught_by("idle::fraction_of_millisecond_rounds_up")]
    IdleTtlRoundsDown {
        async fn put_entry(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes,
            o: PutOptions, condition: Condition) -> Result<Version> {
            let o = match o.expiry() {
                Expiry::Idle(ttl) => {
                    let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
                    o.with_idle_ttl(Duration::from_millis(millis))
                }
                _ => o,
            };
            self.inner.put_entry(c, ns, key, v, o, condition).await
        }
    }

    /// An idle TTL that ends after the year 9999 is shortened to end there.
    #[caught_by("idle::invalid_idle_ttl_is_rejected")]
    ClampsIdleTtls {
        async fn touch(&self, c: Context<'_>, ns: &Namespace, key: &str, e: Expiry,
            condition: Condition) -> Result<bool> {
            let now = self.inner.current_time(c, ns).await?;
            let e = match e {
                Expiry::Idle(ttl) if e.check().is_ok() && e.resolve(now).is_err() => {
                    Expiry::IdleUntil { ttl, expires_at: Timestamp::MAX }
                }
                _ => e,
            };
            self.inner.touch(c, ns, key, e, condition).await
        }
    }

    /// `IdleUntil` expires one idle TTL after the write, and not at its instant.
    #[caught_by("idle::idle_until_stores_its_instant")]
    IdleUntilIgnoresInstant {
        async fn put_entry(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes,
            o: PutOptions, condition: Condition) -> Result<Version> {
            let o = match o.expiry() {
                Expiry::IdleUntil { ttl, .. } => o.with_idle_ttl(ttl),
                _ => o,
            };
            self.inner.put_entry(c, ns, key, v, o, condition).await
        }
    }
}

/// Writes an idle entry again if the read refreshes, with the old version or a new one.
async fn rewrite(
    inner: &Inner,
    c: Context<'_>,
    ns: &Namespace,
    key: &str,
    o: GetOptions,
    keep_version: bool,
) -> Result<()> {
    let entry = inner.get_entry(c, ns, key, GetOptions::new()).await?;
    let Some(Entry { value, meta }) = entry.filter(|_| o.is_refreshing()) else {
        return Ok(());
    };
    let options = PutOptions::new().with_expiry(Expiry::of(&meta));
    let options = if keep_version { options.with_version(meta.version) } else { options };
    inner.put_entry(c, ns, key, value, options, Condition::Always).await.map(drop)
}
