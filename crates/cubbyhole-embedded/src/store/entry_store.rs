//! The implementation of [`EntryStore`].

use async_trait::async_trait;
use cubbyhole_core::limits::{check_key, check_keys, check_page_limit, check_prefix};
use cubbyhole_core::{
    Batch, Bytes, Condition, Entry, EntryStat, EntryStore, Erased, ExecutionContext, Expiry,
    GetOptions, Namespace, NamespacePrefix, Operation, Page, Position, PutOptions,
    RecursiveScanOptions, Result, ResultExt, ScanItem, ScanOptions, TenantId, Timestamp, Usage,
    Version, Written,
};

use super::EmbeddedStore;
use super::extend::with_meta;
use crate::call::begin;

fn names_page<T: Clone>((items, more): (Vec<T>, bool)) -> Page<T> {
    let next = if more { items.last().cloned() } else { None };
    Page { items, next }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl EntryStore<Bytes> for EmbeddedStore {
    async fn get_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<Bytes>>> {
        begin(ctx, "get_entry").await?;
        let get = async {
            self.check_extension(options)?;
            let mut read = self.lookup(ctx, ns, key).await?;
            let meta = read.as_ref().map(|entry| entry.meta);
            let due = self.due(ns, std::iter::once((key, meta)), options)?;
            for (_, meta) in self.extend(ctx, due).await? {
                read = with_meta(read, meta);
            }
            Ok(read)
        };
        get.await.in_operation("get_entry")
    }

    async fn get_many(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
        options: GetOptions,
    ) -> Result<Vec<Result<Option<Entry<Bytes>>>>> {
        begin(ctx, "get_many").await?;
        let get = async {
            check_keys(keys)?;
            self.check_extension(options)?;
            let mut read = self.lookup_many(ctx, ns, keys).await?;
            let metas = read.iter().map(|entry| Some(entry.as_ref().ok()?.as_ref()?.meta));
            let due = self.due(ns, keys.iter().copied().zip(metas), options)?;
            for (position, meta) in self.extend(ctx, due).await? {
                if let Some(Ok(entry)) = read.get_mut(position) {
                    *entry = with_meta(entry.take(), meta);
                }
            }
            Ok(read)
        };
        get.await.in_operation("get_many")
    }

    async fn stat(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Option<EntryStat>>> {
        begin(ctx, "stat").await?;
        check_keys(keys).in_operation("stat")?;
        let ns = ns.clone();
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let stat = self
            .reader
            .run(ctx, move |snapshot| keys.iter().map(|key| snapshot.stat(&ns, key)).collect());
        stat.await.in_operation("stat")
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
        begin(ctx, "put_entry").await?;
        self.put_if(ctx, ns, key, value, options, condition).await.in_operation("put_entry")
    }

    async fn delete_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        condition: Condition,
    ) -> Result<bool> {
        begin(ctx, "delete_entry").await?;
        self.delete_if(ctx, ns, key, condition).await.in_operation("delete_entry")
    }

    async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        batch: Batch<Bytes>,
    ) -> Result<Vec<Written>> {
        begin(ctx, "write").await?;
        batch.check(self.max_value_bytes, |value| Some(value.len())).in_operation("write")?;
        let ns = ns.clone();
        let value_bytes = |operation: &Operation<Bytes>| match operation {
            Operation::Put { value, .. } => value.len(),
            Operation::Delete { .. } => 0,
        };
        let bytes = batch.operations().iter().map(value_bytes).sum();
        self.writer
            .submit(ctx, bytes, move |tables| tables.write(&ns, &batch))
            .await
            .in_operation("write")
    }

    async fn scan(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        options: ScanOptions,
    ) -> Result<Page<ScanItem<Bytes>, String>> {
        begin(ctx, "scan").await?;
        let scan = async {
            options.check()?;
            let extension = match options.is_refreshing() {
                true => GetOptions::new().refreshing(),
                false => GetOptions::new(),
            };
            self.check_extension(extension)?;
            let mut page = self.page(ctx, ns, options).await?;
            let metas = page.items.iter().map(|item| (item.key.as_str(), Some(item.meta)));
            let due = self.due(ns, metas, extension)?;
            // From the last one, so a removal does not move the others.
            for (position, meta) in self.extend(ctx, due).await?.into_iter().rev() {
                match (page.items.get_mut(position), meta) {
                    (Some(item), Some(meta)) => item.meta = meta,
                    (Some(_), None) => drop(page.items.remove(position)),
                    (None, _) => {}
                }
            }
            Ok(page)
        };
        scan.await.in_operation("scan")
    }

    async fn scan_recursive(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        options: RecursiveScanOptions,
    ) -> Result<Page<(Namespace, ScanItem<Bytes>), Position>> {
        begin(ctx, "scan_recursive").await?;
        options.check(prefix).in_operation("scan_recursive")?;
        let prefix = prefix.clone();
        self.reader
            .run(ctx, move |snapshot| snapshot.scan_recursive(&prefix, &options))
            .await
            .in_operation("scan_recursive")
    }

    async fn scan_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        after: Option<&Namespace>,
        limit: usize,
    ) -> Result<Page<Namespace>> {
        begin(ctx, "scan_namespaces").await?;
        check_page_limit(limit).in_operation("scan_namespaces")?;
        let (prefix, after) = (prefix.clone(), after.cloned());
        self.reader
            .run(ctx, move |snapshot| snapshot.namespaces(&prefix, after.as_ref(), limit))
            .await
            .map(names_page)
            .in_operation("scan_namespaces")
    }

    async fn scan_tenants(
        &self,
        ctx: &ExecutionContext,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<Page<TenantId>> {
        begin(ctx, "scan_tenants").await?;
        check_page_limit(limit).in_operation("scan_tenants")?;
        let after = after.cloned();
        self.reader
            .run(ctx, move |snapshot| snapshot.tenants(after.as_ref(), limit))
            .await
            .map(names_page)
            .in_operation("scan_tenants")
    }

    async fn touch(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        expiry: Expiry,
        condition: Condition,
    ) -> Result<bool> {
        begin(ctx, "touch").await?;
        check_key(key).in_operation("touch")?;
        expiry.check().in_operation("touch")?;
        let (ns, key) = (ns.clone(), key.to_owned());
        self.writer
            .submit(ctx, 0, move |tables| tables.touch(&ns, &key, expiry, condition))
            .await
            .in_operation("touch")
    }

    async fn take(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Entry<Bytes>>> {
        begin(ctx, "take").await?;
        check_key(key).in_operation("take")?;
        let (ns, key) = (ns.clone(), key.to_owned());
        self.writer.submit(ctx, 0, move |tables| tables.take(&ns, &key)).await.in_operation("take")
    }

    async fn delete_prefix(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key_prefix: &str,
        limit: usize,
    ) -> Result<Erased> {
        begin(ctx, "delete_prefix").await?;
        check_prefix(Some(key_prefix)).in_operation("delete_prefix")?;
        check_page_limit(limit).in_operation("delete_prefix")?;
        let (ns, key_prefix) = (ns.clone(), key_prefix.to_owned());
        self.writer
            .submit(ctx, 0, move |tables| tables.delete_prefix(&ns, &key_prefix, limit))
            .await
            .in_operation("delete_prefix")
    }

    async fn erase(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        limit: usize,
    ) -> Result<Erased> {
        begin(ctx, "erase").await?;
        check_page_limit(limit).in_operation("erase")?;
        let prefix = prefix.clone();
        self.writer
            .submit(ctx, 0, move |tables| tables.erase(&prefix, limit))
            .await
            .in_operation("erase")
    }

    async fn usage(&self, ctx: &ExecutionContext, prefix: &NamespacePrefix) -> Result<Usage> {
        begin(ctx, "usage").await?;
        let prefix = prefix.clone();
        self.reader.run(ctx, move |snapshot| snapshot.usage(&prefix)).await.in_operation("usage")
    }

    async fn current_time(&self, ctx: &ExecutionContext, _ns: &Namespace) -> Result<Timestamp> {
        begin(ctx, "current_time").await?;
        self.reader.run(ctx, |snapshot| Ok(snapshot.now())).await.in_operation("current_time")
    }

    fn max_value_bytes(&self) -> Option<usize> {
        Some(self.max_value_bytes)
    }
}
