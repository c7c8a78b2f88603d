//! The methods of [`Retry`].

use async_trait::async_trait;
use cubbyhole_core::{
    Backend, Batch, Condition, Entry, EntryStat, EntryStore, Erased, ExecutionContext, Expiry,
    GetOptions, Namespace, NamespacePrefix, Page, Position, PutOptions, RecursiveScanOptions,
    Result, ScanItem, ScanOptions, Store, TenantId, Timestamp, Usage, Version, Written, delegate,
};

use super::Retry;
use super::settle::{Delete, Put, Writes, with_drawn_version};

/// Calls the inner store, and repeats the call while it certainly had no effect.
macro_rules! repeat {
    ($this:ident, $ctx:ident, $method:ident($($arg:expr),*)) => {{
        $this.shared.budget.deposit();
        match $this.inner.$method($ctx, $($arg),*).await {
            Err(error) if error.is_retryable() => {
                // Boxed, because it would enlarge the future of every call.
                let repeated = $this.repeat($ctx, error, move || $this.inner.$method($ctx, $($arg),*));
                Box::pin(repeated).await
            }
            answer => answer,
        }
    }};
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<V: Clone + Send + 'static, S: EntryStore<V>> Store<V> for Retry<S> {
    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: V,
        options: PutOptions,
    ) -> Result<()> {
        let (options, version) = with_drawn_version(options);
        let put = Put { key, version, condition: Condition::Always, answer: () };
        let attempt = move || self.inner.put_with_options(ctx, ns, key, value.clone(), options);
        self.write_settled::<V, _, _>(ctx, ns, attempt, &put).await
    }

    async fn get(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<Option<V>> {
        repeat!(self, ctx, get(ns, key))
    }

    async fn delete(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<()> {
        repeat!(self, ctx, delete(ns, key))
    }

    async fn list(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        prefix: Option<&str>,
    ) -> Result<Vec<String>> {
        repeat!(self, ctx, list(ns, prefix))
    }

    async fn put(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str, value: V) -> Result<()> {
        self.put_with_options(ctx, ns, key, value, PutOptions::new()).await
    }

    async fn list_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
    ) -> Result<Vec<Namespace>> {
        repeat!(self, ctx, list_namespaces(prefix))
    }

    async fn evict_expired(&self, ctx: &ExecutionContext) -> Result<usize> {
        repeat!(self, ctx, evict_expired())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<V: Clone + Send + 'static, S: EntryStore<V>> EntryStore<V> for Retry<S> {
    async fn get_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<V>>> {
        repeat!(self, ctx, get_entry(ns, key, options))
    }

    async fn get_many(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
        options: GetOptions,
    ) -> Result<Vec<Result<Option<Entry<V>>>>> {
        repeat!(self, ctx, get_many(ns, keys, options))
    }

    async fn stat(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Option<EntryStat>>> {
        repeat!(self, ctx, stat(ns, keys))
    }

    async fn put_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: V,
        options: PutOptions,
        condition: Condition,
    ) -> Result<Version> {
        let (options, version) = with_drawn_version(options);
        let put = Put { key, version, condition, answer: version };
        let attempt = move || self.inner.put_entry(ctx, ns, key, value.clone(), options, condition);
        self.write_settled::<V, _, _>(ctx, ns, attempt, &put).await
    }

    async fn delete_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        condition: Condition,
    ) -> Result<bool> {
        let attempt = move || self.inner.delete_entry(ctx, ns, key, condition);
        self.write_settled::<V, _, _>(ctx, ns, attempt, &Delete { key, condition }).await
    }

    async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        batch: Batch<V>,
    ) -> Result<Vec<Written>> {
        let (batch, writes) = Writes::draw(batch);
        let attempt = move || self.inner.write(ctx, ns, batch.clone());
        self.write_settled::<V, _, _>(ctx, ns, attempt, &writes).await
    }

    async fn scan(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        options: ScanOptions,
    ) -> Result<Page<ScanItem<V>, String>> {
        repeat!(self, ctx, scan(ns, options.clone()))
    }

    async fn scan_recursive(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        options: RecursiveScanOptions,
    ) -> Result<Page<(Namespace, ScanItem<V>), Position>> {
        repeat!(self, ctx, scan_recursive(prefix, options.clone()))
    }

    async fn scan_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        after: Option<&Namespace>,
        limit: usize,
    ) -> Result<Page<Namespace>> {
        repeat!(self, ctx, scan_namespaces(prefix, after, limit))
    }

    async fn scan_tenants(
        &self,
        ctx: &ExecutionContext,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<Page<TenantId>> {
        repeat!(self, ctx, scan_tenants(after, limit))
    }

    async fn touch(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        expiry: Expiry,
        condition: Condition,
    ) -> Result<bool> {
        repeat!(self, ctx, touch(ns, key, expiry, condition))
    }

    async fn take(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Entry<V>>> {
        repeat!(self, ctx, take(ns, key))
    }

    async fn delete_prefix(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key_prefix: &str,
        limit: usize,
    ) -> Result<Erased> {
        repeat!(self, ctx, delete_prefix(ns, key_prefix, limit))
    }

    async fn erase(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        limit: usize,
    ) -> Result<Erased> {
        repeat!(self, ctx, erase(prefix, limit))
    }

    async fn usage(&self, ctx: &ExecutionContext, prefix: &NamespacePrefix) -> Result<Usage> {
        repeat!(self, ctx, usage(prefix))
    }

    async fn current_time(&self, ctx: &ExecutionContext, ns: &Namespace) -> Result<Timestamp> {
        repeat!(self, ctx, current_time(ns))
    }

    delegate!(V, |layer| layer.inner => max_value_bytes);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Backend> Backend for Retry<S> {
    delegate!((), |layer| layer.inner => close, compact);
}
