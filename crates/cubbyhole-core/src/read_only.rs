//! [`ReadOnly`]: a layer that refuses writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use crate::{
    Backend, Batch, Compaction, Condition, Entry, EntryStore, Erased, Error, ExecutionContext,
    Expiry, GetOptions, Namespace, NamespacePrefix, Page, PutOptions, Result, ScanItem,
    ScanOptions, Store, Version, Written, delegate,
};

/// A layer that passes reads to the inner store and refuses every write with `PermissionDenied`.
///
/// It refuses puts, deletes, batches, `take`, `touch`, reads that extend a TTL, `erase`,
/// `evict_expired` and `compact`. The inner store does not see these calls. The layer protects against
/// mistakes in this program. To enforce it in the database, use a role without write privileges.
///
/// ```
/// use cubbyhole::{ErrorKind, ExecutionContext, InMemoryStore, Namespace, ReadOnly, Store};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme:agent-7")?);
/// let store = InMemoryStore::<u64>::new();
/// store.put(&ctx, &ns, "visits", 7).await?;
///
/// let store = ReadOnly::new(store);
/// assert_eq!(store.get(&ctx, &ns, "visits").await?, Some(7));
/// let refused = store.put(&ctx, &ns, "visits", 8).await.unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ReadOnly<S> {
    inner: S,
    /// True once the store was closed through this layer. Shared by all clones.
    closed: Arc<AtomicBool>,
}

impl<S> ReadOnly<S> {
    /// Wraps `inner`.
    #[must_use]
    pub fn new(inner: S) -> Self {
        Self { inner, closed: Arc::default() }
    }

    /// Returns the inner store.
    #[must_use]
    pub const fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S> ReadOnly<S> {
    async fn refuse<T>(&self, ctx: &ExecutionContext, operation: &'static str) -> Result<T> {
        let refused = ctx.begin().await.and_then(|()| {
            if self.closed.load(Ordering::Acquire) {
                return Err(Error::closed());
            }
            Err(Error::permission_denied(
                "the store is open read-only; open it for writing to change it",
            ))
        });
        refused.map_err(|error| error.in_operation(operation))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<V: Send + 'static, S: Store<V>> Store<V> for ReadOnly<S> {
    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        _: &Namespace,
        _: &str,
        _: V,
        _: PutOptions,
    ) -> Result<()> {
        self.refuse(ctx, "put").await
    }

    async fn delete(&self, ctx: &ExecutionContext, _: &Namespace, _: &str) -> Result<()> {
        self.refuse(ctx, "delete").await
    }

    async fn put(&self, ctx: &ExecutionContext, _: &Namespace, _: &str, _: V) -> Result<()> {
        self.refuse(ctx, "put").await
    }

    async fn evict_expired(&self, ctx: &ExecutionContext) -> Result<usize> {
        self.refuse(ctx, "evict_expired").await
    }

    delegate!(V, |layer| layer.inner => get, list, list_namespaces);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<V: Send + 'static, S: EntryStore<V>> EntryStore<V> for ReadOnly<S> {
    async fn get_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<V>>> {
        if options.may_write() {
            return self.refuse(ctx, "get_entry").await;
        }
        self.inner.get_entry(ctx, ns, key, options).await
    }

    async fn get_many(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
        options: GetOptions,
    ) -> Result<Vec<Result<Option<Entry<V>>>>> {
        if options.may_write() {
            return self.refuse(ctx, "get_many").await;
        }
        self.inner.get_many(ctx, ns, keys, options).await
    }

    async fn scan(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        options: ScanOptions,
    ) -> Result<Page<ScanItem<V>, String>> {
        if options.is_refreshing() {
            return self.refuse(ctx, "scan").await;
        }
        self.inner.scan(ctx, ns, options).await
    }

    async fn put_entry(
        &self,
        ctx: &ExecutionContext,
        _: &Namespace,
        _: &str,
        _: V,
        _: PutOptions,
        _: Condition,
    ) -> Result<Version> {
        self.refuse(ctx, "put_entry").await
    }

    async fn delete_entry(
        &self,
        ctx: &ExecutionContext,
        _: &Namespace,
        _: &str,
        _: Condition,
    ) -> Result<bool> {
        self.refuse(ctx, "delete_entry").await
    }

    async fn write(
        &self,
        ctx: &ExecutionContext,
        _: &Namespace,
        _: Batch<V>,
    ) -> Result<Vec<Written>> {
        self.refuse(ctx, "write").await
    }

    async fn touch(
        &self,
        ctx: &ExecutionContext,
        _: &Namespace,
        _: &str,
        _: Expiry,
        _: Condition,
    ) -> Result<bool> {
        self.refuse(ctx, "touch").await
    }

    async fn take(
        &self,
        ctx: &ExecutionContext,
        _: &Namespace,
        _: &str,
    ) -> Result<Option<Entry<V>>> {
        self.refuse(ctx, "take").await
    }

    async fn delete_prefix(
        &self,
        ctx: &ExecutionContext,
        _: &Namespace,
        _: &str,
        _: usize,
    ) -> Result<Erased> {
        self.refuse(ctx, "delete_prefix").await
    }

    async fn erase(&self, ctx: &ExecutionContext, _: &NamespacePrefix, _: usize) -> Result<Erased> {
        self.refuse(ctx, "erase").await
    }

    delegate!(V, |layer| layer.inner =>
        stat, scan_recursive, scan_namespaces, scan_tenants, usage, current_time,
        max_value_bytes
    );
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Backend> Backend for ReadOnly<S> {
    async fn close(&self, ctx: &ExecutionContext) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        self.inner.close(ctx).await
    }

    async fn compact(&self, ctx: &ExecutionContext) -> Result<Compaction> {
        self.refuse(ctx, "compact").await
    }
}
