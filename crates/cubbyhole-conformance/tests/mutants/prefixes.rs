//! Mutants that break calls on a whole prefix or store: namespaces, tenants, erase, sweep and
//! usage.

use cubbyhole_core::{
    Bytes, EntryStore, Erased, Namespace, NamespacePrefix, Page, Result, ScanOptions, Store,
    TenantId, Usage, async_trait,
};

use crate::mutant::{Context, Inner, Mutant, catches, mutants};

mutants! {
    /// `list_namespaces` returns nothing, like the default body.
    #[caught_by("namespaces::every_namespace_is_listed")]
    ListsNoNamespaces {
        async fn list_namespaces(&self, _: Context<'_>, _: &NamespacePrefix)
            -> Result<Vec<Namespace>> {
            Ok(Vec::new())
        }
    }

    /// `list_namespaces` returns namespaces whose rendered form starts with the prefix.
    #[caught_by("namespaces::prefix_matches_whole_segments")]
    NamespacesByTextPrefix {
        async fn list_namespaces(&self, c: Context<'_>, p: &NamespacePrefix)
            -> Result<Vec<Namespace>> {
            let mut all = self.inner.list_namespaces(c, &p.tenant().into()).await?;
            all.retain(|ns| ns.as_str().starts_with(p.as_str()));
            Ok(all)
        }
    }

    /// A namespace is listed after its last entry was deleted.
    #[caught_by("namespaces::emptied_namespace_is_not_listed")]
    ListsEmptiedNamespaces {
        async fn delete(&self, c: Context<'_>, ns: &Namespace, key: &str) -> Result<()> {
            self.inner.put(c, ns, "\u{1}tombstone", Bytes::new()).await?;
            self.inner.delete(c, ns, key).await
        }
    }

    /// `scan_tenants` only finds tenants that have entries without a scope.
    #[caught_by("tenants::tenant_with_only_scoped_entries_is_listed")]
    ListsTenantsByUnscopedEntries {
        async fn scan_tenants(&self, c: Context<'_>, after: Option<&TenantId>, limit: usize)
            -> Result<Page<TenantId>> {
            let mut page = self.inner.scan_tenants(c, after, limit).await?;
            let mut bare = Vec::new();
            for tenant in page.items {
                if !self.inner.list(c, &Namespace::new(tenant.clone()), None).await?.is_empty() {
                    bare.push(tenant);
                }
            }
            page.items = bare;
            Ok(page)
        }
    }

    /// `erase` also erases tenants whose name starts with the text of the prefix.
    #[caught_by("erase::other_tenants_are_unchanged")]
    EraseMatchesTextPrefix {
        async fn erase(&self, c: Context<'_>, p: &NamespacePrefix, limit: usize) -> Result<Erased> {
            let step = self.inner.erase(c, p, limit).await?;
            for tenant in self.inner.scan_tenants(c, None, 1000).await?.items {
                if tenant.as_rendered().starts_with(p.as_str()) {
                    self.inner.erase(c, &tenant.into(), 1000).await?;
                }
            }
            Ok(step)
        }
    }

    /// `erase` counts expired entries too.
    #[caught_by("erase::only_live_entries_are_counted")]
    EraseCountsExpired {
        async fn erase(&self, c: Context<'_>, p: &NamespacePrefix, limit: usize) -> Result<Erased> {
            let expired = self.inner.usage(c, p).await?.expired;
            let step = self.inner.erase(c, p, limit).await?;
            Ok(Erased { removed: step.removed + expired, ..step })
        }
    }

    /// `evict_expired` removes every entry that has a TTL.
    #[caught_by("sweep::sweep_keeps_live_entries")]
    EvictsLiveEntries {
        async fn evict_expired(&self, c: Context<'_>) -> Result<usize> {
            for tenant in self.inner.scan_tenants(c, None, 1000).await?.items {
                for ns in self.inner.list_namespaces(c, &tenant.into()).await? {
                    for item in self.inner.scan(c, &ns, ScanOptions::new()).await?.items {
                        if item.meta.expires_at.is_some() {
                            self.inner.delete(c, &ns, &item.key).await?;
                        }
                    }
                }
            }
            self.inner.evict_expired(c).await
        }
    }

    /// `evict_expired` removes the entries that had expired when it looked, without checking again.
    #[caught_by("sweep_races::refreshed_entry_is_never_swept")]
    SweepDoesNotRecheckExpiry {
        async fn evict_expired(&self, c: Context<'_>) -> Result<usize> {
            let mut noted = Vec::new();
            for tenant in self.inner.scan_tenants(c, None, 1000).await?.items {
                for ns in self.inner.list_namespaces(c, &tenant.into()).await? {
                    for item in self.inner.scan(c, &ns, ScanOptions::new()).await?.items {
                        noted.push((ns.clone(), item.key, item.meta.expires_at));
                    }
                }
            }
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            let now = TenantId::new("clock")?;
            let now = Namespace::new(now);
            self.inner.put(c, &now, "k", Bytes::new()).await?;
            let now = self.inner.take(c, &now, "k").await?.map(|entry| entry.meta.updated_at);
            for (ns, key, expires_at) in noted {
                if expires_at.is_some() && expires_at <= now {
                    self.inner.delete(c, &ns, &key).await?;
                }
            }
            self.inner.evict_expired(c).await
        }
    }

    /// `usage` counts expired entries as live ones.
    #[caught_by("usage::expired_entries_are_counted_separately")]
    UsageCountsExpired {
        async fn usage(&self, c: Context<'_>, p: &NamespacePrefix) -> Result<Usage> {
            let usage = self.inner.usage(c, p).await?;
            Ok(Usage { entries: usage.entries + usage.expired, ..usage })
        }
    }
}
