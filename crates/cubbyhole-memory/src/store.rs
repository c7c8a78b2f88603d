//! [`InMemoryStore`].

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::operations::{Operations, ValueSize};
use crate::shards::Shards;
use cubbyhole_core::limits::{self, DEFAULT_MAX_VALUE_BYTES};
use cubbyhole_core::runtime::cooperate;
use cubbyhole_core::{
    Backend, Batch, Clock, Compaction, Condition, Entry, EntryStat, EntryStore, Erased,
    ExecutionContext, Expiry, GetOptions, HighWaterClock, Namespace, NamespacePrefix, Page,
    Position, PutOptions, RecursiveScanOptions, Result, ResultExt, ScanItem, ScanOptions, Store,
    SystemClock, TenantId, Timestamp, Usage, Version, Written,
};

/// An in-memory store of any cloneable type. It uses no codec. Clones of the store share its entries.
///
/// `get` is a hash lookup without allocation. The cost of listings, pages and sweeps is proportional to
/// the entries that they return or remove, plus the expired, unswept entries in their range. The store
/// needs no tokio runtime. In a runtime its calls take part in cooperative scheduling. Calls ignore
/// their context.
///
/// `V::clone` and the size function run under a lock that several namespaces share. They must not call
/// the store. Wrap large values in an `Arc`. A namespace has at most 2³² - 1 entries.
///
/// The store limits value sizes and reports [`Usage::bytes`] only if it has a
/// [size function](InMemoryStoreBuilder::with_value_size).
///
/// ```
/// use cubbyhole_core::{ExecutionContext, Namespace, Store};
/// use cubbyhole_memory::InMemoryStore;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let store = InMemoryStore::<u64>::new();
/// let ctx = ExecutionContext::new();
/// let ns = Namespace::parse("acme:counters")?;
/// store.put(&ctx, &ns, "visits", 1).await?;
/// assert_eq!(store.list(&ctx, &ns, None).await?, ["visits"]);
/// # Ok(())
/// # })
/// # }
/// ```
pub struct InMemoryStore<V> {
    operations: Arc<Operations<V>>,
}

impl<V: Clone + Send + Sync + 'static> InMemoryStore<V> {
    /// Creates an empty store that uses the system clock.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Returns a builder, to set the clock, a size function or the maximum value size.
    #[must_use]
    pub fn builder() -> InMemoryStoreBuilder<V> {
        InMemoryStoreBuilder {
            clock: Arc::new(SystemClock),
            max_value_bytes: DEFAULT_MAX_VALUE_BYTES,
            value_size: None,
        }
    }
}

/// Builds an [`InMemoryStore`].
pub struct InMemoryStoreBuilder<V> {
    clock: Arc<dyn Clock>,
    max_value_bytes: usize,
    value_size: Option<ValueSize<V>>,
}

impl<V: Clone + Send + Sync + 'static> InMemoryStoreBuilder<V> {
    /// Sets the clock that decides expiry. If it steps back, no expired entry becomes live again.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Sets a function that returns the size of a value in bytes. The store then limits and counts sizes.
    #[must_use]
    pub fn with_value_size(mut self, size: impl Fn(&V) -> usize + Send + Sync + 'static) -> Self {
        self.value_size = Some(Box::new(size));
        self
    }

    /// Sets the maximum value size in bytes. The default is 16 MiB. It needs a
    /// [size function](Self::with_value_size).
    #[must_use]
    pub fn with_max_value_bytes(mut self, bytes: usize) -> Self {
        self.max_value_bytes = bytes;
        self
    }

    /// Creates the empty store.
    #[must_use]
    pub fn build(self) -> InMemoryStore<V> {
        InMemoryStore {
            operations: Arc::new(Operations {
                shards: Shards::new(),
                clock: HighWaterClock::new(self.clock, Timestamp::EPOCH),
                max_value_bytes: self.max_value_bytes,
                value_size: self.value_size,
            }),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<V: Clone + Send + Sync + 'static> Store<V> for InMemoryStore<V> {
    async fn put_with_options(
        &self,
        _ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: V,
        options: PutOptions,
    ) -> Result<()> {
        cooperate().await;
        self.operations
            .insert(ns, key, value, options, Condition::Always)
            .map(drop)
            .in_operation("put")
    }

    async fn get(&self, _ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<Option<V>> {
        cooperate().await;
        self.operations.lookup(ns, key, |slot| slot.value().clone()).in_operation("get")
    }

    async fn delete(&self, _ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<()> {
        cooperate().await;
        self.operations.remove_live(ns, key, Condition::Always).map(drop).in_operation("delete")
    }

    async fn list(
        &self,
        _ctx: &ExecutionContext,
        ns: &Namespace,
        prefix: Option<&str>,
    ) -> Result<Vec<String>> {
        cooperate().await;
        self.operations.keys(ns, prefix).in_operation("list")
    }

    async fn put(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str, value: V) -> Result<()> {
        self.put_with_options(ctx, ns, key, value, PutOptions::default()).await
    }

    async fn list_namespaces(
        &self,
        _ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
    ) -> Result<Vec<Namespace>> {
        cooperate().await;
        self.operations.live_namespaces(prefix, None, usize::MAX).in_operation("list_namespaces")
    }

    async fn evict_expired(&self, _ctx: &ExecutionContext) -> Result<usize> {
        cooperate().await;
        self.operations.evict().in_operation("evict_expired")
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<V: Clone + Send + Sync + 'static> EntryStore<V> for InMemoryStore<V> {
    async fn get_entry(
        &self,
        _ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<V>>> {
        cooperate().await;
        self.operations.lookup_entry(ns, key, options).in_operation("get_entry")
    }

    async fn get_many(
        &self,
        _ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
        options: GetOptions,
    ) -> Result<Vec<Result<Option<Entry<V>>>>> {
        cooperate().await;
        let entries = self.operations.lookup_many(ns, keys, options).in_operation("get_many")?;
        Ok(entries.into_iter().map(Ok).collect())
    }

    async fn stat(
        &self,
        _ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Option<EntryStat>>> {
        cooperate().await;
        self.operations.stats(ns, keys).in_operation("stat")
    }

    async fn put_entry(
        &self,
        _ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: V,
        options: PutOptions,
        condition: Condition,
    ) -> Result<Version> {
        cooperate().await;
        self.operations.insert(ns, key, value, options, condition).in_operation("put_entry")
    }

    async fn delete_entry(
        &self,
        _ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        condition: Condition,
    ) -> Result<bool> {
        cooperate().await;
        self.operations
            .remove_live(ns, key, condition)
            .map(|entry| entry.is_some())
            .in_operation("delete_entry")
    }

    async fn write(
        &self,
        _ctx: &ExecutionContext,
        ns: &Namespace,
        batch: Batch<V>,
    ) -> Result<Vec<Written>> {
        cooperate().await;
        self.operations.write_all(ns, batch).in_operation("write")
    }

    async fn scan(
        &self,
        _ctx: &ExecutionContext,
        ns: &Namespace,
        options: ScanOptions,
    ) -> Result<Page<ScanItem<V>, String>> {
        cooperate().await;
        self.operations.scan_page(ns, &options).in_operation("scan")
    }

    async fn scan_recursive(
        &self,
        _ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        options: RecursiveScanOptions,
    ) -> Result<Page<(Namespace, ScanItem<V>), Position>> {
        cooperate().await;
        self.operations.scan_recursive_page(prefix, &options).in_operation("scan_recursive")
    }

    async fn scan_namespaces(
        &self,
        _ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        after: Option<&Namespace>,
        limit: usize,
    ) -> Result<Page<Namespace>> {
        cooperate().await;
        let page = || {
            limits::check_page_limit(limit)?;
            Ok(Page::from_items(self.operations.live_namespaces(prefix, after, limit + 1)?, limit))
        };
        page().in_operation("scan_namespaces")
    }

    async fn scan_tenants(
        &self,
        _ctx: &ExecutionContext,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<Page<TenantId>> {
        cooperate().await;
        let page = || {
            limits::check_page_limit(limit)?;
            Ok(Page::from_items(self.operations.live_tenants(after, limit + 1)?, limit))
        };
        page().in_operation("scan_tenants")
    }

    async fn touch(
        &self,
        _ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        expiry: Expiry,
        condition: Condition,
    ) -> Result<bool> {
        cooperate().await;
        self.operations.set_expiry(ns, key, expiry, condition).in_operation("touch")
    }

    async fn take(
        &self,
        _ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Entry<V>>> {
        cooperate().await;
        self.operations.remove_live(ns, key, Condition::Always).in_operation("take")
    }

    async fn delete_prefix(
        &self,
        _ctx: &ExecutionContext,
        ns: &Namespace,
        key_prefix: &str,
        limit: usize,
    ) -> Result<Erased> {
        cooperate().await;
        self.operations.delete_prefix_step(ns, key_prefix, limit).in_operation("delete_prefix")
    }

    async fn erase(
        &self,
        _ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        limit: usize,
    ) -> Result<Erased> {
        cooperate().await;
        self.operations.erase_step(prefix, limit).in_operation("erase")
    }

    async fn usage(&self, _ctx: &ExecutionContext, prefix: &NamespacePrefix) -> Result<Usage> {
        cooperate().await;
        self.operations.count(prefix).in_operation("usage")
    }

    async fn current_time(&self, _ctx: &ExecutionContext, _ns: &Namespace) -> Result<Timestamp> {
        cooperate().await;
        // Fails if the store is closed.
        drop(self.operations.shards.directory().in_operation("current_time")?);
        Ok(self.operations.now())
    }

    fn max_value_bytes(&self) -> Option<usize> {
        self.operations.value_size.as_ref().map(|_| self.operations.max_value_bytes)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for InMemoryStore<Bytes> {
    async fn close(&self, _ctx: &ExecutionContext) -> Result<()> {
        cooperate().await;
        self.operations.shards.close();
        Ok(())
    }

    async fn compact(&self, _ctx: &ExecutionContext) -> Result<Compaction> {
        cooperate().await;
        drop(self.operations.shards.directory().in_operation("compact")?);
        Ok(Compaction::default())
    }
}

impl<V> Clone for InMemoryStore<V> {
    fn clone(&self) -> Self {
        Self { operations: Arc::clone(&self.operations) }
    }
}

impl<V: Clone + Send + Sync + 'static> Default for InMemoryStore<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V> fmt::Debug for InMemoryStore<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemoryStore").finish_non_exhaustive()
    }
}

impl<V> fmt::Debug for InMemoryStoreBuilder<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemoryStoreBuilder").finish_non_exhaustive()
    }
}
