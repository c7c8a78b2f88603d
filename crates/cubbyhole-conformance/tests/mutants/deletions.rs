//! Mutants that break `delete_prefix`.

use cubbyhole_core::{
    Condition, EntryStore, Erased, Namespace, Result, ScanOptions, Store, async_trait, limits,
};

use crate::mutant::{Context, Inner, Mutant, catches, mutants};

mutants! {
    /// The deletion also removes all keys after the prefix.
    #[caught_by("delete_prefix::only_keys_with_the_prefix_are_removed")]
    DeletesPastPrefix {
        async fn delete_prefix(&self, c: Context<'_>, ns: &Namespace, p: &str, limit: usize)
            -> Result<Erased> {
            let step = self.inner.delete_prefix(c, ns, p, limit).await?;
            for key in self.inner.list(c, ns, None).await? {
                if key.as_str() > p && !key.starts_with(p) {
                    self.inner.delete(c, ns, &key).await?;
                }
            }
            Ok(step)
        }
    }

    /// A step ignores its limit.
    #[caught_by("delete_prefix::step_removes_at_most_its_limit")]
    DeletePrefixIgnoresLimit {
        async fn delete_prefix(&self, c: Context<'_>, ns: &Namespace, p: &str, limit: usize)
            -> Result<Erased> {
            limits::check_page_limit(limit)?;
            self.inner.delete_prefix(c, ns, p, 1000).await
        }
    }

    /// A step always reports that it is done.
    #[caught_by("delete_prefix::step_removes_at_most_its_limit")]
    DeletePrefixIsDoneTooEarly {
        async fn delete_prefix(&self, c: Context<'_>, ns: &Namespace, p: &str, limit: usize)
            -> Result<Erased> {
            let step = self.inner.delete_prefix(c, ns, p, limit).await?;
            Ok(Erased { done: true, ..step })
        }
    }

    /// A step never reports that it is done.
    #[caught_by("delete_prefix::prefix_without_keys_is_done_immediately")]
    DeletePrefixIsNeverDone {
        async fn delete_prefix(&self, c: Context<'_>, ns: &Namespace, p: &str, limit: usize)
            -> Result<Erased> {
            let step = self.inner.delete_prefix(c, ns, p, limit).await?;
            Ok(Erased { done: false, ..step })
        }
    }

    /// Expired entries stay.
    #[caught_by("delete_prefix::expired_entries_are_removed_but_not_counted")]
    DeletePrefixKeepsExpired {
        async fn delete_prefix(&self, c: Context<'_>, ns: &Namespace, p: &str, limit: usize)
            -> Result<Erased> {
            let o = ScanOptions::new().with_prefix(p).with_limit(limit).keys_only();
            let page = self.inner.scan(c, ns, o).await?;
            let mut removed = 0;
            for item in page.items {
                let always = Condition::Always;
                removed += u64::from(self.inner.delete_entry(c, ns, &item.key, always).await?);
            }
            Ok(Erased { removed, done: page.next.is_none() })
        }
    }

    /// Expired entries are counted.
    #[caught_by("delete_prefix::expired_entries_are_removed_but_not_counted")]
    DeletePrefixCountsExpired {
        async fn delete_prefix(&self, c: Context<'_>, ns: &Namespace, p: &str, limit: usize)
            -> Result<Erased> {
            let before = self.inner.usage(c, &ns.into()).await?.expired;
            let step = self.inner.delete_prefix(c, ns, p, limit).await?;
            let after = self.inner.usage(c, &ns.into()).await?.expired;
            Ok(Erased { removed: step.removed + before - after, ..step })
        }
    }

    /// An empty prefix also empties the namespaces below.
    #[caught_by("delete_prefix::other_namespaces_are_unchanged")]
    EmptyPrefixErasesBelow {
        async fn delete_prefix(&self, c: Context<'_>, ns: &Namespace, p: &str, limit: usize)
            -> Result<Erased> {
            if p.is_empty() {
                return self.inner.erase(c, &ns.into(), limit).await;
            }
            self.inner.delete_prefix(c, ns, p, limit).await
        }
    }

    /// The prefix is a pattern in which `%` matches any text.
    #[caught_by("delete_prefix::only_keys_with_the_prefix_are_removed")]
    DeletePrefixMatchesPatterns {
        async fn delete_prefix(&self, c: Context<'_>, ns: &Namespace, p: &str, limit: usize)
            -> Result<Erased> {
            let p = p.split('%').next().unwrap_or_default();
            self.inner.delete_prefix(c, ns, p, limit).await
        }
    }

    /// A step removes one entry after the other.
    #[caught_by("delete_prefix::concurrent_reads_never_see_half_a_step")]
    DeletePrefixIsNotAtomic {
        async fn delete_prefix(&self, c: Context<'_>, ns: &Namespace, p: &str, limit: usize)
            -> Result<Erased> {
            let mut removed = 0;
            for _ in 0..limit {
                let step = self.inner.delete_prefix(c, ns, p, 1).await?;
                removed += step.removed;
                if step.done {
                    return Ok(Erased { removed, done: true });
                }
                // Other tasks run in between.
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
            }
            Ok(Erased { removed, done: false })
        }
    }
}
