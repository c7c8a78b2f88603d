//! Mutants that break `stat`.

use cubbyhole_core::{
    EntryMeta, EntryStat, EntryStore, GetOptions, Namespace, Result, Version, async_trait,
};

use crate::mutant::{Context, Inner, Mutant, catches, mutants};

mutants! {
    /// `stat` finds expired entries that are not swept yet.
    #[caught_by(
        "stat::only_live_entries_of_its_namespace_are_found",
        "stat::expiry_is_exact_to_the_millisecond",
        "model::random_operations"
    )]
    StatReturnsExpired {
        async fn stat(&self, c: Context<'_>, ns: &Namespace, keys: &[&str])
            -> Result<Vec<Option<EntryStat>>> {
            let mut stats = self.inner.stat(c, ns, keys).await?;
            if self.inner.usage(c, &ns.into()).await?.expired > 0 {
                let now = self.inner.current_time(c, ns).await?;
                let meta = EntryMeta {
                    version: Version::draw(),
                    created_at: now,
                    updated_at: now,
                    expires_at: Some(now),
                    idle_ttl: None,
                };
                for stat in &mut stats {
                    stat.get_or_insert(EntryStat { meta, value_bytes: Some(0) });
                }
            }
            Ok(stats)
        }
    }

    /// `stat` returns its results in the order of the keys' bytes.
    #[caught_by("stat::results_are_in_request_order", "model::random_operations")]
    StatSortsKeys {
        async fn stat(&self, c: Context<'_>, ns: &Namespace, keys: &[&str])
            -> Result<Vec<Option<EntryStat>>> {
            let mut keys = keys.to_vec();
            keys.sort_unstable();
            self.inner.stat(c, ns, &keys).await
        }
    }

    /// `stat` returns one result for a key that is requested twice.
    #[caught_by("stat::results_are_in_request_order")]
    StatDropsDuplicates {
        async fn stat(&self, c: Context<'_>, ns: &Namespace, keys: &[&str])
            -> Result<Vec<Option<EntryStat>>> {
            let mut once: Vec<&str> = Vec::new();
            for key in keys {
                if !once.contains(key) {
                    once.push(key);
                }
            }
            self.inner.stat(c, ns, &once).await
        }
    }

    /// `stat` omits absent keys.
    #[caught_by("stat::results_are_in_request_order")]
    StatOmitsAbsentKeys {
        async fn stat(&self, c: Context<'_>, ns: &Namespace, keys: &[&str])
            -> Result<Vec<Option<EntryStat>>> {
            let mut stats = self.inner.stat(c, ns, keys).await?;
            stats.retain(Option::is_some);
            Ok(stats)
        }
    }

    /// `stat` reads each key at another instant.
    #[caught_by("stat::concurrent_calls_never_see_half_a_batch")]
    StatReadsKeysSeparately {
        async fn stat(&self, c: Context<'_>, ns: &Namespace, keys: &[&str])
            -> Result<Vec<Option<EntryStat>>> {
            let mut stats = Vec::new();
            for key in keys {
                stats.extend(self.inner.stat(c, ns, &[key]).await?);
                // Other tasks run in between.
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
            }
            Ok(stats)
        }
    }

    /// `stat` extends idle entries.
    #[caught_by("stat::metadata_is_that_of_get_entry", "idle::every_read_returns_the_idle_ttl")]
    StatRefreshes {
        async fn stat(&self, c: Context<'_>, ns: &Namespace, keys: &[&str])
            -> Result<Vec<Option<EntryStat>>> {
            let week = std::time::Duration::from_secs(7 * 86_400);
            let options = GetOptions::new().with_extended_ttl(week);
            self.inner.get_many(c, ns, keys, options).await?;
            self.inner.stat(c, ns, keys).await
        }
    }

    /// `stat` without keys succeeds on a closed store.
    #[caught_by("closed::entry_calls_are_rejected")]
    EmptyStatSucceedsWhenClosed {
        async fn stat(&self, c: Context<'_>, ns: &Namespace, keys: &[&str])
            -> Result<Vec<Option<EntryStat>>> {
            if keys.is_empty() {
                return Ok(Vec::new());
            }
            self.inner.stat(c, ns, keys).await
        }
    }

    /// `stat` does not know sizes.
    #[caught_by("stat::results_have_the_length_of_values")]
    StatOmitsLengths {
        async fn stat(&self, c: Context<'_>, ns: &Namespace, keys: &[&str])
            -> Result<Vec<Option<EntryStat>>> {
            let mut stats = self.inner.stat(c, ns, keys).await?;
            stats.iter_mut().flatten().for_each(|stat| stat.value_bytes = None);
            Ok(stats)
        }
    }

    /// `stat` ignores cooperative scheduling.
    #[caught_by("scheduling::entry_calls_yield")]
    StatNeverYields {
        async fn stat(&self, c: Context<'_>, ns: &Namespace, keys: &[&str])
            -> Result<Vec<Option<EntryStat>>> {
            tokio::task::coop::unconstrained(self.inner.stat(c, ns, keys)).await
        }
    }
}
