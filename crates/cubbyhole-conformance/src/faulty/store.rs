//! The methods of [`Faulty`].

use cubbyhole_core::{
    Batch, Condition, Entry, EntryStat, EntryStore, Erased, ExecutionContext, Expiry, GetOptions,
    Namespace, NamespacePrefix, Page, Position, PutOptions, RecursiveScanOptions, Result, ScanItem,
    ScanOptions, Store, TenantId, Timestamp, Usage, Version, Written, async_trait, delegate,
};

use super::Faulty;

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<V: Send + 'static> Store<V> for Faulty<V> {
    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: V,
        options: PutOptions,
    ) -> Result<()> {
        let (ns, key) = (ns.clone(), key.to_owned());
        self.change("put", ctx, |store, ctx| async move {
            store.put_with_options(&ctx, &ns, &key, value, options).await
        })
        .await
    }

    async fn get(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<Option<V>> {
        self.read("get", ctx, self.store.get(ctx, ns, key)).await
    }

    async fn delete(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<()> {
        let (ns, key) = (ns.clone(), key.to_owned());
        self.change("delete", ctx, |store, ctx| async move { store.delete(&ctx, &ns, &key).await })
            .await
    }

    async fn list(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        prefix: Option<&str>,
    ) -> Result<Vec<String>> {
        self.read("list", ctx, self.store.list(ctx, ns, prefix)).await
    }

    async fn put(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str, value: V) -> Result<()> {
        let (ns, key) = (ns.clone(), key.to_owned());
        self.change("put", ctx, |store, ctx| async move { store.put(&ctx, &ns, &key, value).await })
            .await
    }

    async fn list_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
    ) -> Result<Vec<Namespace>> {
        self.read("list_namespaces", ctx, self.store.list_namespaces(ctx, prefix)).await
    }

    async fn evict_expired(&self, ctx: &ExecutionContext) -> Result<usize> {
        self.change(
            "evict_expired",
            ctx,
            |store, ctx| async move { store.evict_expired(&ctx).await },
        )
        .await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<V: Send + 'static> EntryStore<V> for Faulty<V> {
    async fn get_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<V>>> {
        if !options.may_write() {
            return self.read("get_entry", ctx, self.store.get_entry(ctx, ns, key, options)).await;
        }
        let (ns, key) = (ns.clone(), key.to_owned());
        self.change("get_entry", ctx, |store, ctx| async move {
            store.get_entry(&ctx, &ns, &key, options).await
        })
        .await
    }

    async fn get_many(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
        options: GetOptions,
    ) -> Result<Vec<Result<Option<Entry<V>>>>> {
        if !options.may_write() {
            return self.read("get_many", ctx, self.store.get_many(ctx, ns, keys, options)).await;
        }
        let ns = ns.clone();
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        self.change("get_many", ctx, |store, ctx| async move {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            store.get_many(&ctx, &ns, &keys, options).await
        })
        .await
    }

    async fn stat(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Option<EntryStat>>> {
        self.read("stat", ctx, self.store.stat(ctx, ns, keys)).await
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
        let (ns, key) = (ns.clone(), key.to_owned());
        self.change("put_entry", ctx, |store, ctx| async move {
            store.put_entry(&ctx, &ns, &key, value, options, condition).await
        })
        .await
    }

    async fn delete_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        condition: Condition,
    ) -> Result<bool> {
        let (ns, key) = (ns.clone(), key.to_owned());
        self.change("delete_entry", ctx, |store, ctx| async move {
            store.delete_entry(&ctx, &ns, &key, condition).await
        })
        .await
    }

    async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        batch: Batch<V>,
    ) -> Result<Vec<Written>> {
        let ns = ns.clone();
        self.change("write", ctx, |store, ctx| async move { store.write(&ctx, &ns, batch).await })
            .await
    }

    async fn scan(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        options: ScanOptions,
    ) -> Result<Page<ScanItem<V>, String>> {
        if !options.is_refreshing() {
            return self.read("scan", ctx, self.store.scan(ctx, ns, options)).await;
        }
        let ns = ns.clone();
        self.change("scan", ctx, |store, ctx| async move { store.scan(&ctx, &ns, options).await })
            .await
    }

    async fn scan_recursive(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        options: RecursiveScanOptions,
    ) -> Result<Page<(Namespace, ScanItem<V>), Position>> {
        self.read("scan_recursive", ctx, self.store.scan_recursive(ctx, prefix, options)).await
    }

    async fn scan_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        after: Option<&Namespace>,
        limit: usize,
    ) -> Result<Page<Namespace>> {
        let call = self.store.scan_namespaces(ctx, prefix, after, limit);
        self.read("scan_namespaces", ctx, call).await
    }

    async fn scan_tenants(
        &self,
        ctx: &ExecutionContext,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<Page<TenantId>> {
        self.read("scan_tenants", ctx, self.store.scan_tenants(ctx, after, limit)).await
    }

    async fn touch(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        expiry: Expiry,
        condition: Condition,
    ) -> Result<bool> {
        let (ns, key) = (ns.clone(), key.to_owned());
        self.change("touch", ctx, |store, ctx| async move {
            store.touch(&ctx, &ns, &key, expiry, condition).await
        })
        .await
    }

    async fn take(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Entry<V>>> {
        let (ns, key) = (ns.clone(), key.to_owned());
        self.change("take", ctx, |store, ctx| async move { store.take(&ctx, &ns, &key).await })
            .await
    }

    async fn delete_prefix(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key_prefix: &str,
        limit: usize,
    ) -> Result<Erased> {
        let (ns, key_prefix) = (ns.clone(), key_prefix.to_owned());
        self.change("delete_prefix", ctx, |store, ctx| async move {
            store.delete_prefix(&ctx, &ns, &key_prefix, limit).await
        })
        .await
    }

    async fn erase(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        limit: usize,
    ) -> Result<Erased> {
        let prefix = prefix.clone();
        self.change(
            "erase",
            ctx,
            |store, ctx| async move { store.erase(&ctx, &prefix, limit).await },
        )
        .await
    }

    async fn usage(&self, ctx: &ExecutionContext, prefix: &NamespacePrefix) -> Result<Usage> {
        self.read("usage", ctx, self.store.usage(ctx, prefix)).await
    }

    async fn current_time(&self, ctx: &ExecutionContext, ns: &Namespace) -> Result<Timestamp> {
        self.read("current_time", ctx, self.store.current_time(ctx, ns)).await
    }

    delegate!(V, |layer| layer.store => max_value_bytes);
}
