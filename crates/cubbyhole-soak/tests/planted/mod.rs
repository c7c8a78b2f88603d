//! A layer with a fault over a store in memory.

use std::sync::atomic::{AtomicU64, Ordering};

use cubbyhole::{
    Backend, Batch, Bytes, Compaction, Condition, Entry, EntryStore, Erased, ExecutionContext,
    Expiry, GetOptions, InMemoryStore, Namespace, NamespacePrefix, Page, PutOptions, Result,
    ScanItem, ScanOptions, Store, TenantId, Timestamp, Usage, Version, async_trait,
};

/// A fault of reads and writes shows in one of so many.
const ONE_IN: u64 = 20;

/// What is wrong with the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// `get` gives the value of another key.
    OtherKey,
    /// `get` gives a part of the value.
    Torn,
    /// `put_entry` says that it wrote and did not.
    LostWrite,
    /// `put_entry` writes whatever the condition says.
    IgnoredCondition,
    /// `list_namespaces` lists those of another tenant.
    OtherTenants,
    /// `list_namespaces` lists none.
    NoNamespaces,
}

pub(crate) struct Planted {
    inner: InMemoryStore<Bytes>,
    fault: Fault,
    calls: AtomicU64,
}

impl Planted {
    pub(crate) fn new(fault: Fault) -> Self {
        let inner = InMemoryStore::builder().with_value_size(Bytes::len).build();
        Self { inner, fault, calls: AtomicU64::new(0) }
    }

    /// Whether this call is one with `fault`.
    fn shows(&self, fault: Fault) -> bool {
        self.fault == fault && self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(ONE_IN)
    }
}

#[async_trait]
impl Store<Bytes> for Planted {
    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
        options: PutOptions,
    ) -> Result<()> {
        self.inner.put_with_options(ctx, ns, key, value, options).await
    }

    async fn get(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Bytes>> {
        if self.shows(Fault::OtherKey) {
            let other = if key == "k:0001" { "k:0002" } else { "k:0001" };
            return self.inner.get(ctx, ns, other).await;
        }
        let value = self.inner.get(ctx, ns, key).await?;
        if self.shows(Fault::Torn) {
            return Ok(value.map(|value| value.slice(..value.len() / 2)));
        }
        Ok(value)
    }

    async fn delete(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<()> {
        self.inner.delete(ctx, ns, key).await
    }

    async fn list(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        prefix: Option<&str>,
    ) -> Result<Vec<String>> {
        self.inner.list(ctx, ns, prefix).await
    }

    async fn list_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
    ) -> Result<Vec<Namespace>> {
        if self.fault == Fault::NoNamespaces {
            return Ok(Vec::new());
        }
        let mut listed = self.inner.list_namespaces(ctx, prefix).await?;
        if self.fault == Fault::OtherTenants {
            listed.push(Namespace::parse("t%_99:other")?);
        }
        Ok(listed)
    }

    async fn evict_expired(&self, ctx: &ExecutionContext) -> Result<usize> {
        self.inner.evict_expired(ctx).await
    }
}

#[async_trait]
impl EntryStore<Bytes> for Planted {
    async fn get_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<Bytes>>> {
        self.inner.get_entry(ctx, ns, key, options).await
    }

    async fn get_many(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Result<Option<Entry<Bytes>>>>> {
        self.inner.get_many(ctx, ns, keys).await
    }

    async fn put_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
        options: PutOptions,
        condition: Condition,
    ) -> Result<Version> {
        if self.shows(Fault::LostWrite) {
            return Ok(Version::draw());
        }
        // Always: of one in so many, a run may have none that a caller can tell.
        let ignored = self.fault == Fault::IgnoredCondition;
        let condition = if ignored { Condition::Always } else { condition };
        self.inner.put_entry(ctx, ns, key, value, options, condition).await
    }

    async fn delete_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        condition: Condition,
    ) -> Result<bool> {
        self.inner.delete_entry(ctx, ns, key, condition).await
    }

    async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        batch: Batch<Bytes>,
    ) -> Result<Vec<Option<Version>>> {
        self.inner.write(ctx, ns, batch).await
    }

    async fn scan(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        options: ScanOptions,
    ) -> Result<Page<ScanItem<Bytes>, String>> {
        self.inner.scan(ctx, ns, options).await
    }

    async fn scan_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        after: Option<&Namespace>,
        limit: usize,
    ) -> Result<Page<Namespace>> {
        self.inner.scan_namespaces(ctx, prefix, after, limit).await
    }

    async fn scan_tenants(
        &self,
        ctx: &ExecutionContext,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<Page<TenantId>> {
        self.inner.scan_tenants(ctx, after, limit).await
    }

    async fn touch(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        expiry: Expiry,
    ) -> Result<bool> {
        self.inner.touch(ctx, ns, key, expiry).await
    }

    async fn take(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Entry<Bytes>>> {
        self.inner.take(ctx, ns, key).await
    }

    async fn erase(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        limit: usize,
    ) -> Result<Erased> {
        self.inner.erase(ctx, prefix, limit).await
    }

    async fn usage(&self, ctx: &ExecutionContext, prefix: &NamespacePrefix) -> Result<Usage> {
        self.inner.usage(ctx, prefix).await
    }

    async fn current_time(&self, ctx: &ExecutionContext, ns: &Namespace) -> Result<Timestamp> {
        self.inner.current_time(ctx, ns).await
    }
}

#[async_trait]
impl Backend for Planted {
    async fn close(&self, ctx: &ExecutionContext) -> Result<()> {
        self.inner.close(ctx).await
    }

    async fn compact(&self, ctx: &ExecutionContext) -> Result<Compaction> {
        self.inner.compact(ctx).await
    }
}
