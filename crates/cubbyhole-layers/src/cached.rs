//! A layer that keeps entries in memory.

mod backend_time;
mod entries;
mod location;
mod options;
#[cfg(test)]
mod tests;
mod writes;

use std::fmt;
use std::sync::Arc;

use cubbyhole_core::{
    Backend, Batch, Bytes, Condition, Entry, EntryStore, Erased, ErrorKind, ExecutionContext,
    Expiry, GetOptions, Namespace, NamespacePrefix, Operation, Page, PutOptions, Result, ResultExt,
    ScanItem, ScanOptions, Store, Version, Written, async_trait, delegate,
};

use entries::{Entries, Miss};
use location::Location;
pub use options::CacheOptions;

/// A cache in front of a store: a cached entry can be up to `max_stale` (default 5 seconds) behind the
/// writes of other processes.
///
/// `get` and a plain `get_entry` are answered from memory if the same key was read before. The cache
/// also keeps the absence of an entry. All other calls go to the inner store: a page, a batch of reads
/// or a statistic is a snapshot, into which cached entries cannot be mixed.
///
/// # Guarantees
///
/// - **Own writes.** Within one process, a read sees every write that completed before it through this
///   layer or a clone of it. A slow read never puts the value from before a write back into the cache.
/// - **Other writes.** An entry is served for at most [`max_stale`](CacheOptions::max_stale) after the
///   start of the read that filled the cache. Writes of other processes, and writes to the inner store
///   past this layer, are seen after that time at the latest.
/// - **Expiry.** No entry is served after it expired by the backend's clock. This machine's wall clock
///   has no influence. When the layer reads an entry that expires, it asks the backend for its time. It
///   uses the answer for a minute, for entries of the same namespace. It asks more often if a request
///   fails, if misses are concurrent, or if more than 4,096 namespaces are in use. If the backend's
///   clock is set forward in that minute, an entry may be served after its expiry, for at most
///   `max_stale`.
/// - **Fresh reads.** [`GetOptions::fresh`] and reads that extend a TTL always go to the inner store.
///   [`update`](cubbyhole_core::EntryStoreExt::update) reads this way.
/// - **Unknown outcomes.** A write that was dropped, or whose outcome is unknown, may still be applied.
///   For 10 seconds afterwards, its key is not cached.
///
/// # Limits
///
/// The cache takes at most [`bytes`](CacheOptions::with_bytes) (default 64 MiB) and evicts the entries
/// that are read least often. `erase`, `delete_prefix` and a refreshing `scan` clear the cache. While a
/// write is in flight, about a thousandth of the other keys cannot enter the cache.
///
/// Cached values are plaintext if the layer is outside of `Encrypted`.
///
/// ```
/// use cubbyhole_core::{ExecutionContext, Namespace, Store};
/// use cubbyhole_layers::{CacheOptions, Cached};
/// use cubbyhole_memory::InMemoryStore;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole_core::Result<()> {
/// let ctx = ExecutionContext::new();
/// let ns = Namespace::parse("acme:agent-7")?;
/// let shared = InMemoryStore::new();
/// let store = Cached::new(shared.clone(), CacheOptions::new())?;
///
/// store.put(&ctx, &ns, "greeting", "hello".into()).await?;
/// assert_eq!(store.get(&ctx, &ns, "greeting").await?, Some("hello".into()));
///
/// // A write past the layer is seen after `max_stale`.
/// shared.put(&ctx, &ns, "greeting", "hi".into()).await?;
/// assert_eq!(store.get(&ctx, &ns, "greeting").await?, Some("hello".into()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Cached<S> {
    inner: S,
    /// Shared by all clones.
    entries: Arc<Entries>,
}

impl<S> Cached<S> {
    /// Wraps `inner` with an empty cache.
    ///
    /// # Errors
    /// `InvalidArgument`: the errors of [`CacheOptions::check`].
    pub fn new(inner: S, options: CacheOptions) -> Result<Self> {
        options.check()?;
        Ok(Self { inner, entries: Arc::new(Entries::new(options)) })
    }

    /// Returns the inner store. Writes to it are seen through the layer after `max_stale`.
    #[must_use]
    pub const fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S> fmt::Debug for Cached<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, entries) = self.entries.size();
        f.debug_struct("Cached")
            .field("limit_bytes", &self.entries.limit_bytes())
            .field("bytes", &bytes)
            .field("entries", &entries)
            .finish_non_exhaustive()
    }
}

impl<S: EntryStore<Bytes>> Cached<S> {
    /// Reads from the inner store, which also checks the context and the key, and fills the cache.
    async fn read(
        &self,
        ctx: &ExecutionContext,
        location: Location<'_>,
        miss: Miss,
    ) -> Result<Option<Entry<Bytes>>> {
        let Location { ns, key, .. } = location;
        let entry = self.inner.get_entry(ctx, ns, key, GetOptions::new()).await?;
        self.entries.fill(&self.inner, ctx, location, miss, entry.as_ref()).await;
        Ok(entry)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: EntryStore<Bytes>> Store<Bytes> for Cached<S> {
    async fn get(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Bytes>> {
        let location = self.entries.location(ns, key);
        let miss = match self.entries.find(location) {
            Ok(found) => {
                let value = found.map(|entry| entry.value);
                ctx.begin().await.in_operation("get")?;
                return Ok(value);
            }
            Err(miss) => miss,
        };
        // Boxed: otherwise a hit would allocate the large future of a miss.
        match Box::pin(self.read(ctx, location, miss)).await {
            Ok(entry) => Ok(entry.map(|entry| entry.value)),
            // The call is wrong, or there is no `get_entry`: the error then names the call that was made.
            Err(error)
                if matches!(error.kind(), ErrorKind::InvalidArgument | ErrorKind::Unsupported) =>
            {
                self.inner.get(ctx, ns, key).await
            }
            Err(error) => Err(error),
        }
    }

    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
        options: PutOptions,
    ) -> Result<()> {
        let location = [self.entries.location(ns, key)];
        let write = self.entries.write(&location);
        write.finish(self.inner.put_with_options(ctx, ns, key, value, options).await)
    }

    async fn put(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
    ) -> Result<()> {
        let location = [self.entries.location(ns, key)];
        let write = self.entries.write(&location);
        write.finish(self.inner.put(ctx, ns, key, value).await)
    }

    async fn delete(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<()> {
        let location = [self.entries.location(ns, key)];
        let write = self.entries.write(&location);
        write.finish(self.inner.delete(ctx, ns, key).await)
    }

    // `evict_expired` removes only entries that have expired by the backend's clock. The cache does not
    // serve them any more, so it has nothing to invalidate.
    delegate!(Bytes, |layer| layer.inner => list, list_namespaces, evict_expired);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: EntryStore<Bytes>> EntryStore<Bytes> for Cached<S> {
    async fn get_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<Bytes>>> {
        if options.may_write() {
            let location = [self.entries.location(ns, key)];
            let write = self.entries.write(&location);
            return write.finish(self.inner.get_entry(ctx, ns, key, options).await);
        }
        if options.is_fresh() {
            return self.inner.get_entry(ctx, ns, key, options).await;
        }
        let location = self.entries.location(ns, key);
        match self.entries.find(location) {
            Ok(found) => {
                ctx.begin().await.in_operation("get_entry")?;
                Ok(found)
            }
            Err(miss) => Box::pin(self.read(ctx, location, miss)).await,
        }
    }

    async fn get_many(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
        options: GetOptions,
    ) -> Result<Vec<Result<Option<Entry<Bytes>>>>> {
        if !options.may_write() {
            return self.inner.get_many(ctx, ns, keys, options).await;
        }
        let locations: Vec<_> = keys.iter().map(|key| self.entries.location(ns, key)).collect();
        let write = self.entries.write(&locations);
        write.finish(self.inner.get_many(ctx, ns, keys, options).await)
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
        let location = [self.entries.location(ns, key)];
        let write = self.entries.write(&location);
        write.finish(self.inner.put_entry(ctx, ns, key, value, options, condition).await)
    }

    async fn delete_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        condition: Condition,
    ) -> Result<bool> {
        let location = [self.entries.location(ns, key)];
        let write = self.entries.write(&location);
        write.finish(self.inner.delete_entry(ctx, ns, key, condition).await)
    }

    async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        batch: Batch<Bytes>,
    ) -> Result<Vec<Written>> {
        // The inner store consumes the batch and with it the keys.
        let keys: Vec<String> =
            batch.operations().iter().map(Operation::key).map(Into::into).collect();
        let locations: Vec<_> = keys.iter().map(|key| self.entries.location(ns, key)).collect();
        let write = self.entries.write(&locations);
        write.finish(self.inner.write(ctx, ns, batch).await)
    }

    async fn touch(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        expiry: Expiry,
        condition: Condition,
    ) -> Result<bool> {
        let location = [self.entries.location(ns, key)];
        let write = self.entries.write(&location);
        write.finish(self.inner.touch(ctx, ns, key, expiry, condition).await)
    }

    async fn take(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Entry<Bytes>>> {
        let location = [self.entries.location(ns, key)];
        let write = self.entries.write(&location);
        write.finish(self.inner.take(ctx, ns, key).await)
    }

    async fn scan(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        options: ScanOptions,
    ) -> Result<Page<ScanItem<Bytes>, String>> {
        if !options.is_refreshing() {
            return self.inner.scan(ctx, ns, options).await;
        }
        let write = self.entries.write_bulk();
        write.finish(self.inner.scan(ctx, ns, options).await)
    }

    async fn delete_prefix(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key_prefix: &str,
        limit: usize,
    ) -> Result<Erased> {
        let write = self.entries.write_bulk();
        write.finish(self.inner.delete_prefix(ctx, ns, key_prefix, limit).await)
    }

    async fn erase(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        limit: usize,
    ) -> Result<Erased> {
        let write = self.entries.write_bulk();
        write.finish(self.inner.erase(ctx, prefix, limit).await)
    }

    delegate!(Bytes, |layer| layer.inner =>
        stat, scan_recursive, scan_namespaces, scan_tenants, usage, current_time,
        max_value_bytes
    );
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Backend> Backend for Cached<S> {
    async fn close(&self, ctx: &ExecutionContext) -> Result<()> {
        // Every read then reaches the inner store, which refuses it.
        self.entries.close();
        self.inner.close(ctx).await
    }

    delegate!(Bytes, |layer| layer.inner => compact);
}
