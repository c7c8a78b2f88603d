//! What every store of this project adds to the core trait.

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    Batch, Condition, Entry, Error, ExecutionContext, Expiry, GetOptions, Namespace,
    NamespacePrefix, Page, PutOptions, Result, ScanItem, ScanOptions, Store, TenantId, Timestamp,
    Version, runtime,
};

/// Versions, conditions, batches, pages, atomic take and erasure, on top of [`Store`].
///
/// Every method has a default body that answers `Unsupported`, so that a store with only the core
/// trait writes `impl EntryStore<V> for Mine {}`, and a new method is a minor release. See
/// [`EntryStoreExt`](crate::EntryStoreExt) for what is built on these: `update`, `erase_all`.
///
/// ```
/// use cubbyhole::{
///     Condition, EntryStore, ErrorKind, ExecutionContext, InMemoryStore, Namespace, PutOptions,
/// };
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let store = InMemoryStore::<u32>::new();
/// let ctx = ExecutionContext::new();
/// let ns = Namespace::parse("acme:counters")?;
///
/// let first = store.put_entry(&ctx, &ns, "n", 1, PutOptions::new(), Condition::IfAbsent).await?;
/// let second =
///     store.put_entry(&ctx, &ns, "n", 2, PutOptions::new(), Condition::IfVersion(first)).await?;
///
/// let lost = store.put_entry(&ctx, &ns, "n", 3, PutOptions::new(), Condition::IfVersion(first));
/// let error = lost.await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Conflict);
/// assert_eq!(error.current_version(), Some(second));
/// # Ok(())
/// # })
/// # }
/// ```
#[async_trait]
pub trait EntryStore<V: Send + 'static>: Store<V> {
    /// Reads the whole entry; with [`GetOptions::with_extended_ttl`] it also extends its TTL in
    /// the same step. Extending changes neither version nor `updated_at`.
    ///
    /// # Errors
    /// `InvalidArgument` for a bad key or TTL; what the backend meets.
    async fn get_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<V>>> {
        let _ = (ctx, ns, key, options);
        Err(unsupported("get_entry").await)
    }

    /// Reads many keys of one namespace, at most
    /// [`MAX_GET_MANY_KEYS`](crate::limits::MAX_GET_MANY_KEYS). The answers stand in the order
    /// asked, also for a key that is asked twice, and are of one instant: a batch is seen whole or
    /// not at all. Each value has its own `Result`, so that one unreadable value hides no other.
    ///
    /// # Errors
    /// `InvalidArgument` for a bad key or too many; what the backend meets.
    async fn get_many(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Result<Option<Entry<V>>>>> {
        let _ = (ctx, ns, keys);
        Err(unsupported("get_many").await)
    }

    /// Inserts or replaces `value` if `condition` holds, and returns the version written.
    /// Overwriting keeps `created_at`.
    ///
    /// # Errors
    /// `Conflict` with the current version if the condition does not hold; otherwise as
    /// [`Store::put_with_options`].
    async fn put_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: V,
        options: PutOptions,
        condition: Condition,
    ) -> Result<Version> {
        let _ = (ctx, ns, key, value, options, condition);
        Err(unsupported("put_entry").await)
    }

    /// Removes the entry if `condition` holds, and tells whether there was a live one.
    ///
    /// # Errors
    /// `Conflict` with the current version if the condition does not hold; what the backend meets.
    async fn delete_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        condition: Condition,
    ) -> Result<bool> {
        let _ = (ctx, ns, key, condition);
        Err(unsupported("delete_entry").await)
    }

    /// Applies a batch, all or nothing. Conditions are judged against the state before the batch.
    /// Returns for each operation the version written, `None` for a delete.
    ///
    /// # Errors
    /// `Conflict` with [`batch_index`](Error::batch_index) if a condition does not hold;
    /// `InvalidArgument` as [`Batch::check`]; what the backend meets. Nothing is written then.
    async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        batch: Batch<V>,
    ) -> Result<Vec<Option<Version>>> {
        let _ = (ctx, ns, batch);
        Err(unsupported("write").await)
    }

    /// One page of the entries of `ns`, in ascending byte order of their keys. It costs what it
    /// returns plus the expired, unswept entries that it passes.
    ///
    /// # Errors
    /// `InvalidArgument` as [`ScanOptions::check`]; what the backend meets.
    async fn scan(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        options: ScanOptions,
    ) -> Result<Page<ScanItem<V>, String>> {
        let _ = (ctx, ns, options);
        Err(unsupported("scan").await)
    }

    /// One page of [`Store::list_namespaces`]: those past `after`, at most `limit`, 1 to
    /// [`MAX_PAGE_ITEMS`](crate::limits::MAX_PAGE_ITEMS).
    ///
    /// # Errors
    /// `InvalidArgument` for a bad limit; what the backend meets.
    async fn scan_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        after: Option<&Namespace>,
        limit: usize,
    ) -> Result<Page<Namespace>> {
        let _ = (ctx, prefix, after, limit);
        Err(unsupported("scan_namespaces").await)
    }

    /// One page of the tenants that hold at least one live entry, in byte order of their rendered
    /// names: those past `after`, at most `limit`. For operators.
    ///
    /// # Errors
    /// `PermissionDenied` where the role may not see across tenants; `InvalidArgument` for a bad
    /// limit; what the backend meets.
    async fn scan_tenants(
        &self,
        ctx: &ExecutionContext,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<Page<TenantId>> {
        let _ = (ctx, after, limit);
        Err(unsupported("scan_tenants").await)
    }

    /// Sets a new expiry, or none, without the caller's passing the value again; tells whether
    /// there was a live entry. Changes neither version nor `updated_at`.
    ///
    /// # Errors
    /// `InvalidArgument` for a bad key or TTL; what the backend meets.
    async fn touch(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        expiry: Expiry,
    ) -> Result<bool> {
        let _ = (ctx, ns, key, expiry);
        Err(unsupported("touch").await)
    }

    /// Reads and removes an entry in one atomic step: of several that take it at once, one gets
    /// it. A value that cannot be decoded is not removed.
    ///
    /// # Errors
    /// `InvalidArgument` for a bad key; what the backend meets.
    async fn take(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Entry<V>>> {
        let _ = (ctx, ns, key);
        Err(unsupported("take").await)
    }

    /// One bounded step of removing everything under `prefix`: at most `limit` entries, 1 to
    /// [`MAX_PAGE_ITEMS`](crate::limits::MAX_PAGE_ITEMS). Repeat until [`Erased::done`], also
    /// after an interruption; [`erase_all`](crate::EntryStoreExt::erase_all) does. Writes that
    /// arrive behind it may survive.
    ///
    /// # Errors
    /// `InvalidArgument` for a bad limit; what the backend meets.
    async fn erase(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        limit: usize,
    ) -> Result<Erased> {
        let _ = (ctx, prefix, limit);
        Err(unsupported("erase").await)
    }

    /// Counts what is stored under `prefix`.
    ///
    /// # Errors
    /// What the backend meets.
    async fn usage(&self, ctx: &ExecutionContext, prefix: &NamespacePrefix) -> Result<Usage> {
        let _ = (ctx, prefix);
        Err(unsupported("usage").await)
    }

    /// Returns the store's time: the instant by which the entries of `ns` are judged at the moment. It
    /// may differ from this machine's clock: it is that of the server, or the high-water mark of the
    /// store's own clock. Compare instants of expiry with it, for instance to show how long an entry
    /// has left.
    ///
    /// # Errors
    /// What the backend meets.
    ///
    /// ```
    /// use cubbyhole::{EntryStore, ExecutionContext, GetOptions, InMemoryStore, Namespace};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let store = InMemoryStore::<u32>::new();
    /// let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme:sessions")?);
    /// let now = store.current_time(&ctx, &ns).await?;
    /// let entry = store.get_entry(&ctx, &ns, "s-1", GetOptions::new()).await?;
    /// let expires_at = entry.and_then(|entry| entry.meta.expires_at);
    /// let left = expires_at.map(|expires_at| expires_at.saturating_since(now));
    /// # assert_eq!(left, None);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    async fn current_time(&self, ctx: &ExecutionContext, ns: &Namespace) -> Result<Timestamp> {
        let _ = (ctx, ns);
        Err(unsupported("current_time").await)
    }
}

/// What one step of [`EntryStore::erase`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Erased {
    /// How many live entries were removed. Expired ones go too and are not counted.
    pub removed: u64,
    /// Whether nothing is left under the prefix.
    pub done: bool,
}

/// What is stored under a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Namespaces with at least one live entry.
    pub namespaces: u64,
    /// Live entries.
    pub entries: u64,
    /// Bytes of the live entries: key plus encoded value. `None` where the store does not know.
    pub bytes: Option<u64>,
    /// Expired entries that were not swept yet.
    pub expired: u64,
}

/// A store over [`Bytes`] that `open(url)` can return.
#[async_trait]
pub trait Backend: EntryStore<Bytes> {
    /// Finishes what was begun, makes it durable and releases files and connections. Later calls
    /// answer `InvalidArgument`, also those with empty input. Closing again succeeds. A backend
    /// that is dropped closes too; this method reports errors.
    ///
    /// # Errors
    /// What the backend meets; it is closed all the same.
    async fn close(&self, ctx: &ExecutionContext) -> Result<()>;

    /// Returns space that deleted and expired entries took to the system, where the engine can.
    ///
    /// - Memory: does nothing.
    /// - Embedded: moves what is stored to the front of the file and cuts off the rest. Other calls
    ///   wait meanwhile.
    /// - PostgreSQL: runs `VACUUM` on the table of entries, which autovacuum does as well. Only the
    ///   table's owner may; the application's role is not. Other calls do not wait.
    /// - Redis: asks each server to return memory, with `MEMORY PURGE`. The sizes reported are the
    ///   whole server's.
    ///
    /// # Errors
    /// `PermissionDenied` where the role may not; what the backend meets.
    async fn compact(&self, ctx: &ExecutionContext) -> Result<Compaction>;
}

/// What [`Backend::compact`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Compaction {
    /// Bytes taken before, where the engine tells.
    pub bytes_before: Option<u64>,
    /// Bytes taken after, where the engine tells.
    pub bytes_after: Option<u64>,
}

async fn unsupported(operation: &'static str) -> Error {
    runtime::cooperate().await;
    Error::unsupported("this store implements only the core trait").in_operation(operation)
}
