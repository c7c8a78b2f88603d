//! Mutants that break TTLs and clocks.

use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::{
    Batch, Bytes, Clock, Condition, Entry, EntryStore, Expiry, GetOptions, ManualClock, Namespace,
    PutOptions, Result, Store, SystemClock, Timestamp, Version, Written, async_trait,
};

use crate::mutant::{Context, Inner, Mutant, catches, mutants};

mutants! {
    /// After the clock is set back, no time passes until it has caught up.
    #[caught_by(
        "ttl::ttl_counts_after_the_clock_is_set_back",
        "ttl::ttl_counts_while_the_store_is_idle"
    )]
    TimeStopsWhenSetBack {
        fn clock(manual: ManualClock) -> Arc<dyn Clock> {
            Arc::new(WithoutElapsed(manual))
        }
    }

    /// `current_time` returns the system time, and not the time of the store's clock.
    #[caught_by("expiry::current_time_is_the_clock_of_writes")]
    ReturnsSystemTime {
        async fn current_time(&self, _: Context<'_>, _: &Namespace) -> Result<Timestamp> {
            Ok(SystemClock.now())
        }
    }

    /// Entries live one millisecond too long: `now <= expires_at`.
    #[caught_by("ttl::expiry_is_exact_to_the_millisecond")]
    ExpiresLate {
        async fn put_with_options(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes,
            o: PutOptions) -> Result<()> {
            self.inner.put_with_options(c, ns, key, v, with_changed_ttl(o, 1)).await
        }
    }

    /// Entries expire one millisecond early, as if the TTL were truncated to whole units.
    #[caught_by("ttl::expiry_is_exact_to_the_millisecond", "model::random_operations")]
    ExpiresEarly {
        async fn put_with_options(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes,
            o: PutOptions) -> Result<()> {
            self.inner.put_with_options(c, ns, key, v, with_changed_ttl(o, -1)).await
        }
    }

    /// `list` returns expired entries until they are swept.
    #[caught_by("ttl::expired_entry_is_not_listed")]
    ListsExpired {
        async fn put_with_options(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes,
            o: PutOptions) -> Result<()> {
            self.inner.put_with_options(c, ns, key, v, o).await?;
            // The mutant lists a copy of the keys that never expires.
            self.inner.put(c, &unexpiring(ns)?, key, Bytes::new()).await
        }

        async fn list(&self, c: Context<'_>, ns: &Namespace, p: Option<&str>)
            -> Result<Vec<String>> {
            let mut keys = self.inner.list(c, ns, p).await?;
            keys.extend(self.inner.list(c, &unexpiring(ns)?, p).await?);
            keys.sort_unstable();
            keys.dedup();
            Ok(keys)
        }
    }

    /// A TTL of zero means no expiry.
    #[caught_by("ttl::zero_ttl_is_rejected")]
    ZeroTtlMeansNoExpiry {
        async fn put_with_options(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes,
            o: PutOptions) -> Result<()> {
            let zero = o.expiry() == Expiry::After(Duration::ZERO);
            let o = if zero { o.with_expiry(Expiry::Never) } else { o };
            self.inner.put_with_options(c, ns, key, v, o).await
        }
    }

    /// `put` without a TTL keeps the old TTL.
    #[caught_by("ttl::plain_put_removes_the_ttl")]
    PutKeepsTtl {
        async fn put(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes) -> Result<()> {
            let old = self.inner.get_entry(c, ns, key, GetOptions::new()).await?;
            let expires = old.and_then(|entry| entry.meta.expires_at);
            let o = PutOptions::new().with_expiry(expires.map_or(Expiry::Never, Expiry::At));
            self.inner.put_with_options(c, ns, key, v, o).await
        }
    }

    /// `touch` finds expired entries that are not swept yet.
    #[caught_by("expiry::expired_entry_is_absent_for_writes")]
    TouchRevivesExpired {
        async fn touch(&self, c: Context<'_>, ns: &Namespace, key: &str, e: Expiry,
            condition: Condition) -> Result<bool> {
            if self.inner.usage(c, &ns.into()).await?.expired > 0 {
                self.inner.put(c, ns, key, Bytes::new()).await?;
            }
            self.inner.touch(c, ns, key, e, condition).await
        }
    }

    /// A sliding read sets the TTL even if the new one is shorter.
    #[caught_by("sliding::sliding_read_never_shortens_the_ttl")]
    SlidingReadShortensTtl {
        async fn get_entry(&self, c: Context<'_>, ns: &Namespace, key: &str, o: GetOptions)
            -> Result<Option<Entry<Bytes>>> {
            if let Some(ttl) = o.extended_ttl() {
                self.inner.touch(c, ns, key, Expiry::After(ttl), Condition::Always).await?;
            }
            self.inner.get_entry(c, ns, key, GetOptions::new()).await
        }
    }

    /// A TTL that ends after the last instant is shortened to end there.
    #[caught_by("ttl_limit::put_with_overflowing_ttl_is_rejected")]
    ClampsTtls {
        async fn put_with_options(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes,
            o: PutOptions) -> Result<()> {
            let now = SystemClock.now();
            let late = o.expiry().check().is_ok() && o.expiry().resolve(now).is_err();
            let o = if late { o.with_expires_at(Timestamp::MAX) } else { o };
            self.inner.put_with_options(c, ns, key, v, o).await
        }
    }

    /// A condition that does not hold hides a TTL that overflows.
    #[caught_by(
        "ttl_limit::put_checks_ttl_before_condition",
        "ttl_limit::batch_checks_ttls_before_conditions"
    )]
    ChecksConditionsBeforeTtls {
        async fn put_entry(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes,
            o: PutOptions, condition: Condition) -> Result<Version> {
            let entry = self.inner.get_entry(c, ns, key, GetOptions::new()).await?;
            condition.check(entry.map(|entry| entry.meta.version))?;
            self.inner.put_entry(c, ns, key, v, o, condition).await
        }

        async fn write(&self, c: Context<'_>, ns: &Namespace, batch: Batch<Bytes>)
            -> Result<Vec<Written>> {
            for operation in batch.operations() {
                let entry = self.inner.get_entry(c, ns, operation.key(), GetOptions::new()).await?;
                operation.condition().check(entry.map(|entry| entry.meta.version))?;
            }
            self.inner.write(c, ns, batch).await
        }
    }

    /// An absent entry hides a TTL that overflows.
    #[caught_by(
        "ttl_limit::touch_with_overflowing_ttl_is_rejected",
        "ttl_limit::sliding_read_with_overflowing_ttl_is_rejected"
    )]
    ReadsEntryBeforeCheckingTtl {
        async fn touch(&self, c: Context<'_>, ns: &Namespace, key: &str, e: Expiry,
            condition: Condition) -> Result<bool> {
            match self.inner.get(c, ns, key).await? {
                Some(_) => self.inner.touch(c, ns, key, e, condition).await,
                None => Ok(false),
            }
        }

        async fn get_entry(&self, c: Context<'_>, ns: &Namespace, key: &str, o: GetOptions)
            -> Result<Option<Entry<Bytes>>> {
            match self.inner.get(c, ns, key).await? {
                Some(_) => self.inner.get_entry(c, ns, key, o).await,
                None => Ok(None),
            }
        }
    }
}

/// A clock whose monotonic time does not advance.
#[derive(Debug)]
struct WithoutElapsed(ManualClock);

impl Clock for WithoutElapsed {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// Returns a namespace of another tenant, where the mutant keeps the keys that it lists.
fn unexpiring(ns: &Namespace) -> Result<Namespace> {
    Namespace::parse("unexpiring")?.with_scope(ns.as_str())
}

/// Changes the TTL of the options by `millis`.
fn with_changed_ttl(options: PutOptions, millis: i64) -> PutOptions {
    let Expiry::After(ttl) = options.expiry() else {
        return options;
    };
    let ttl = match u64::try_from(millis) {
        Ok(more) => ttl.saturating_add(Duration::from_millis(more)),
        Err(_) => ttl.saturating_sub(Duration::from_millis(millis.unsigned_abs())),
    };
    options.with_ttl(ttl.max(Duration::from_nanos(1)))
}
