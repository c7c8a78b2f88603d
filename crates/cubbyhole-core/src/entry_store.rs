//! [`EntryStore`], which every store of this project implements.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    Batch, Condition, Entry, EntryStat, Error, ExecutionContext, Expiry, GetOptions, Namespace,
    NamespacePrefix, Page, Position, PutOptions, RecursiveScanOptions, Result, ScanItem,
    ScanOptions, Store, TenantId, Timestamp, Version, Written, runtime,
};

/// Versions, conditional writes, batches, pages, atomic take and erasure, on top of [`Store`].
///
/// Every method has a default body that returns `Unsupported`. A store with only the core trait
/// writes `impl EntryStore<V> for MyStore {}`, and adding a method to this trait is a minor release.
/// [`EntryStoreExt`](crate::EntryStoreExt) adds `insert`, `replace`,
/// `update`, `append`, `last` and `erase_all` to every implementation.
///
/// # Cost
///
/// On PostgreSQL every call is one round trip. On Redis a call on entries is one round trip, except
/// where its method says otherwise; the first write to a namespace adds two to four, to register it.
/// In memory and in the embedded file, reads need no round trip, and a durable write waits for one
/// fsync that concurrent writes share.
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
    /// Returns the entry of `key` with its metadata, or `None` if it is absent or expired.
    ///
    /// With [`GetOptions::refreshing`] the call also restarts the idle TTL of the entry, and with
    /// [`GetOptions::with_extended_ttl`] it extends any TTL, atomically. Neither changes the version or
    /// `updated_at`. The metadata has the new expiry.
    ///
    /// # Errors
    /// - `InvalidArgument`: the key or the TTL is invalid.
    /// - Any error of the backend.
    ///
    /// ```
    /// use cubbyhole::{
    ///     EntryStore, ExecutionContext, GetOptions, InMemoryStore, Namespace, PutOptions, Store,
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// use std::time::Duration;
    ///
    /// let ctx = ExecutionContext::new();
    /// let store = InMemoryStore::<u32>::new();
    /// let ns = Namespace::parse("acme:sessions")?;
    /// let half_hour = Duration::from_secs(1800);
    /// store.put_with_options(&ctx, &ns, "s-1", 7, PutOptions::new().with_ttl(half_hour)).await?;
    ///
    /// // Every read restarts the half hour.
    /// let read = GetOptions::new().with_extended_ttl(half_hour);
    /// let session = store.get_entry(&ctx, &ns, "s-1", read).await?;
    /// assert_eq!(session.map(|entry| entry.value), Some(7));
    /// # Ok(())
    /// # }
    /// ```
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
    /// [`MAX_GET_MANY_KEYS`](crate::limits::MAX_GET_MANY_KEYS).
    ///
    /// The results have the order of `keys`; a key may occur twice. They are a snapshot of one
    /// instant, so a concurrent batch is visible whole or not at all. Each value has its own
    /// `Result`: one unreadable value does not hide the others. The options apply to each entry.
    ///
    /// # Errors
    /// - `InvalidArgument`: a key or the TTL is invalid, or there are too many keys.
    /// - Any error of the backend.
    ///
    /// ```
    /// use cubbyhole::{EntryStore, ExecutionContext, GetOptions, InMemoryStore, Namespace, Store};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let store = InMemoryStore::<u32>::new();
    /// let ns = Namespace::parse("acme:counters")?;
    ///
    /// store.put(&ctx, &ns, "a", 1).await?;
    /// let options = GetOptions::new();
    /// let entries = store.get_many(&ctx, &ns, &["a", "b"], options).await?;
    /// let values: Vec<Option<u32>> = entries
    ///     .into_iter()
    ///     .map(|entry| Ok(entry?.map(|entry| entry.value)))
    ///     .collect::<cubbyhole::Result<_>>()?;
    /// assert_eq!(values, [Some(1), None]);
    /// # Ok(())
    /// # }
    /// ```
    async fn get_many(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
        options: GetOptions,
    ) -> Result<Vec<Result<Option<Entry<V>>>>> {
        let _ = (ctx, ns, keys, options);
        Err(unsupported("get_many").await)
    }

    /// Returns the metadata and the sizes of many entries without reading their values, at most
    /// [`MAX_GET_MANY_KEYS`](crate::limits::MAX_GET_MANY_KEYS).
    ///
    /// The results have the order of `keys`, and are `None` for absent entries. They are a snapshot of
    /// one instant. On both servers the call is one round trip.
    ///
    /// # Errors
    /// - `InvalidArgument`: a key is invalid, or there are too many.
    /// - Any error of the backend.
    ///
    /// ```
    /// use cubbyhole::{Bytes, EntryStore, ExecutionContext, Namespace, Store};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let store = cubbyhole::open(&ctx, "memory:").await?;
    /// let ns = Namespace::parse("acme:files")?;
    ///
    /// store.put(&ctx, &ns, "a", Bytes::from("12345")).await?;
    /// let stats = store.stat(&ctx, &ns, &["a", "b"]).await?;
    /// assert_eq!(stats[0].and_then(|stat| stat.value_bytes), Some(5));
    /// assert_eq!(stats[1], None);
    /// # Ok(())
    /// # }
    /// ```
    async fn stat(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Option<EntryStat>>> {
        let _ = (ctx, ns, keys);
        Err(unsupported("stat").await)
    }

    /// Inserts or replaces the value of `key` if `condition` holds, and returns the new version.
    ///
    /// Overwriting a live entry keeps its `created_at`.
    ///
    /// # Errors
    /// - `Conflict`: the condition does not hold. The error has the
    ///   [current version](Error::current_version).
    /// - The errors of [`Store::put_with_options`].
    ///
    /// ```
    /// use cubbyhole::{
    ///     Condition, EntryStore, ErrorKind, ExecutionContext, InMemoryStore, Namespace,
    ///     PutOptions,
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let store = InMemoryStore::<u32>::new();
    /// let ns = Namespace::parse("acme:counters")?;
    ///
    /// let new = PutOptions::new;
    /// let version = store.put_entry(&ctx, &ns, "n", 1, new(), Condition::IfAbsent).await?;
    /// store.put_entry(&ctx, &ns, "n", 2, new(), Condition::IfVersion(version)).await?;
    ///
    /// // Another writer has changed the entry since `version`.
    /// let late = store.put_entry(&ctx, &ns, "n", 3, new(), Condition::IfVersion(version)).await;
    /// assert_eq!(late.unwrap_err().kind(), ErrorKind::Conflict);
    /// # Ok(())
    /// # }
    /// ```
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

    /// Removes the entry of `key` if `condition` holds. Returns whether a live entry was removed.
    ///
    /// # Errors
    /// - `Conflict`: the condition does not hold. The error has the
    ///   [current version](Error::current_version).
    /// - `InvalidArgument`: the key is invalid.
    /// - Any error of the backend.
    ///
    /// ```
    /// use cubbyhole::{Condition, EntryStore, ExecutionContext, InMemoryStore, Namespace, Store};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let store = InMemoryStore::<u32>::new();
    /// let ns = Namespace::parse("acme:counters")?;
    ///
    /// store.put(&ctx, &ns, "n", 1).await?;
    /// assert!(store.delete_entry(&ctx, &ns, "n", Condition::Always).await?);
    /// assert!(!store.delete_entry(&ctx, &ns, "n", Condition::Always).await?);
    /// # Ok(())
    /// # }
    /// ```
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

    /// Applies a batch of writes to one namespace atomically.
    ///
    /// Conditions are evaluated against the state before the batch. Returns one result for each
    /// operation: the new version of a put, and whether a delete removed a live entry.
    ///
    /// # Errors
    /// On an error nothing is written, unless
    /// [`may_have_been_applied`](Error::may_have_been_applied) is true.
    ///
    /// - `Conflict`: a condition does not hold. The error has the
    ///   [index of the operation](Error::batch_index).
    /// - `InvalidArgument`: the errors of [`Batch::check`].
    /// - Any error of the backend.
    ///
    /// ```
    /// use cubbyhole::{
    ///     Batch, Condition, EntryStore, ExecutionContext, InMemoryStore, Namespace, PutOptions,
    ///     Written,
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let store = InMemoryStore::<u32>::new();
    /// let ns = Namespace::parse("acme:counters")?;
    ///
    /// let batch = Batch::new()
    ///     .put("a", 1)
    ///     .put_with("b", 2, PutOptions::new(), Condition::IfAbsent)
    ///     .delete("c");
    /// let written = store.write(&ctx, &ns, batch).await?;
    /// assert!(matches!(written[0], Written::Put(_)));
    /// assert_eq!(written[2], Written::Deleted(false));
    /// # Ok(())
    /// # }
    /// ```
    async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        batch: Batch<V>,
    ) -> Result<Vec<Written>> {
        let _ = (ctx, ns, batch);
        Err(unsupported("write").await)
    }

    /// Returns one page of the entries of `ns`, in ascending byte order of their keys, or in descending
    /// order with [`ScanOptions::reversed`].
    ///
    /// The cost is proportional to the returned entries plus the expired, unswept entries in their
    /// range, in both directions. On Redis a page with values takes two round trips, or more if the values are large; a
    /// page of keys takes one.
    ///
    /// # Errors
    /// - `InvalidArgument`: the errors of [`ScanOptions::check`].
    /// - Any error of the backend.
    ///
    /// ```
    /// use cubbyhole::{EntryStore, ExecutionContext, InMemoryStore, Namespace, ScanOptions, Store};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let store = InMemoryStore::<u32>::new();
    /// let ns = Namespace::parse("acme:counters")?;
    ///
    /// for key in ["a", "b", "c"] {
    ///     store.put(&ctx, &ns, key, 0).await?;
    /// }
    /// let mut keys = Vec::new();
    /// let mut options = ScanOptions::new().with_limit(2);
    /// loop {
    ///     let page = store.scan(&ctx, &ns, options.clone()).await?;
    ///     keys.extend(page.items.into_iter().map(|item| item.key));
    ///     let Some(last) = page.next else { break };
    ///     options = options.with_after(last);
    /// }
    /// assert_eq!(keys, ["a", "b", "c"]);
    /// # Ok(())
    /// # }
    /// ```
    async fn scan(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        options: ScanOptions,
    ) -> Result<Page<ScanItem<V>, String>> {
        let _ = (ctx, ns, options);
        Err(unsupported("scan").await)
    }

    /// Returns one page of the entries of all namespaces under `prefix`, ordered by the text of the
    /// namespace, then by the key.
    ///
    /// The page has the limits of a [`scan`](Self::scan). The cost is proportional to the returned
    /// entries. On Redis the store asks several namespaces at the same time.
    ///
    /// # Errors
    /// - `InvalidArgument`: the errors of [`RecursiveScanOptions::check`].
    /// - Any error of the backend.
    ///
    /// ```
    /// use cubbyhole::{
    ///     EntryStore, ExecutionContext, InMemoryStore, Namespace, NamespacePrefix,
    ///     RecursiveScanOptions, Store,
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let store = InMemoryStore::<u32>::new();
    /// store.put(&ctx, &Namespace::parse("acme:agent-7")?, "n", 1).await?;
    /// store.put(&ctx, &Namespace::parse("acme:agent-7:chat")?, "turn-1", 2).await?;
    ///
    /// let prefix = NamespacePrefix::parse("acme:agent-7")?;
    /// let mut options = RecursiveScanOptions::new().with_limit(1);
    /// let mut found = Vec::new();
    /// loop {
    ///     let page = store.scan_recursive(&ctx, &prefix, options.clone()).await?;
    ///     found.extend(page.items.into_iter().map(|(ns, item)| format!("{ns} {}", item.key)));
    ///     let Some(last) = page.next else { break };
    ///     options = options.with_after(last);
    /// }
    /// assert_eq!(found, ["acme:agent-7 n", "acme:agent-7:chat turn-1"]);
    /// # Ok(())
    /// # }
    /// ```
    async fn scan_recursive(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        options: RecursiveScanOptions,
    ) -> Result<Page<(Namespace, ScanItem<V>), Position>> {
        let _ = (ctx, prefix, options);
        Err(unsupported("scan_recursive").await)
    }

    /// Returns one page of [`Store::list_namespaces`]: at most `limit` namespaces after `after`.
    ///
    /// `limit` is 1 to [`MAX_PAGE_ITEMS`](crate::limits::MAX_PAGE_ITEMS). On Redis a page takes two to
    /// three round trips, because each namespace is asked whether it has a live entry.
    ///
    /// # Errors
    /// - `InvalidArgument`: the limit is out of range.
    /// - Any error of the backend.
    ///
    /// ```
    /// use cubbyhole::{
    ///     EntryStore, ExecutionContext, InMemoryStore, Namespace, NamespacePrefix, Store,
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let store = InMemoryStore::<u32>::new();
    /// let ns = Namespace::parse("acme:counters")?;
    ///
    /// store.put(&ctx, &ns, "n", 1).await?;
    /// let all = NamespacePrefix::from(ns.tenant());
    /// let page = store.scan_namespaces(&ctx, &all, None, 100).await?;
    /// assert_eq!((page.items, page.next), (vec![ns], None));
    /// # Ok(())
    /// # }
    /// ```
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

    /// Returns one page of the tenants that have at least one live entry: at most `limit` tenants
    /// after `after`, in byte order of their text form. For operators.
    ///
    /// `limit` is 1 to [`MAX_PAGE_ITEMS`](crate::limits::MAX_PAGE_ITEMS). On Redis a page takes about
    /// four round trips.
    ///
    /// # Errors
    /// - `PermissionDenied`: the database role is not allowed to read across tenants.
    /// - `InvalidArgument`: the limit is out of range.
    /// - Any error of the backend.
    ///
    /// ```
    /// use cubbyhole::{EntryStore, ExecutionContext, InMemoryStore, Namespace, Store};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let store = InMemoryStore::<u32>::new();
    /// let ns = Namespace::parse("acme:counters")?;
    ///
    /// store.put(&ctx, &ns, "n", 1).await?;
    /// let page = store.scan_tenants(&ctx, None, 100).await?;
    /// assert_eq!(page.items, [ns.tenant()]);
    /// # Ok(())
    /// # }
    /// ```
    async fn scan_tenants(
        &self,
        ctx: &ExecutionContext,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<Page<TenantId>> {
        let _ = (ctx, after, limit);
        Err(unsupported("scan_tenants").await)
    }

    /// Sets or removes the expiry of an entry if `condition` holds, without rewriting its value.
    /// Returns whether there was a live entry.
    ///
    /// Changes neither the version nor `updated_at`. With [`Condition::IfVersion`] a holder extends a
    /// lease only while it still holds it.
    ///
    /// # Errors
    /// - `Conflict`: the condition does not hold. The error has the
    ///   [current version](Error::current_version).
    /// - `InvalidArgument`: the key or the TTL is invalid.
    /// - Any error of the backend.
    ///
    /// ```
    /// use cubbyhole::{
    ///     Condition, EntryStore, ExecutionContext, Expiry, InMemoryStore, Namespace, PutOptions,
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// use std::time::Duration;
    ///
    /// let ctx = ExecutionContext::new();
    /// let store = InMemoryStore::<u32>::new();
    /// let ns = Namespace::parse("acme:counters")?;
    ///
    /// let minute = Expiry::After(Duration::from_secs(60));
    /// let options = PutOptions::new().with_expiry(minute);
    /// let version = store.put_entry(&ctx, &ns, "lease", 1, options, Condition::IfAbsent).await?;
    /// assert!(store.touch(&ctx, &ns, "lease", minute, Condition::IfVersion(version)).await?);
    /// assert!(store.touch(&ctx, &ns, "lease", Expiry::Never, Condition::Always).await?);
    /// assert!(!store.touch(&ctx, &ns, "absent", Expiry::Never, Condition::Always).await?);
    /// # Ok(())
    /// # }
    /// ```
    async fn touch(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        expiry: Expiry,
        condition: Condition,
    ) -> Result<bool> {
        let _ = (ctx, ns, key, expiry, condition);
        Err(unsupported("touch").await)
    }

    /// Reads and removes an entry atomically. Of several concurrent callers exactly one gets it.
    ///
    /// A value that cannot be decoded is not removed. [`Typed`](crate::Typed) therefore takes two
    /// calls: it reads and decodes, then deletes the version that it read.
    ///
    /// # Errors
    /// - `InvalidArgument`: the key is invalid.
    /// - Any error of the backend.
    ///
    /// ```
    /// use cubbyhole::{EntryStore, ExecutionContext, InMemoryStore, Namespace, Store};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let store = InMemoryStore::<u32>::new();
    /// let ns = Namespace::parse("acme:counters")?;
    ///
    /// store.put(&ctx, &ns, "job-1", 42).await?;
    /// let job = store.take(&ctx, &ns, "job-1").await?;
    /// assert_eq!(job.map(|entry| entry.value), Some(42));
    /// assert!(store.take(&ctx, &ns, "job-1").await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    async fn take(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Entry<V>>> {
        let _ = (ctx, ns, key);
        Err(unsupported("take").await)
    }

    /// Removes at most `limit` entries of `ns` whose keys start with `key_prefix`: one step of a
    /// deletion in bounded steps. An empty prefix matches every key.
    ///
    /// Repeat the call until [`Erased::done`]. `limit` is 1 to
    /// [`MAX_PAGE_ITEMS`](crate::limits::MAX_PAGE_ITEMS). A step takes effect completely or not at all,
    /// but it is not a snapshot: an entry that is written during the step may remain although another
    /// one was removed later.
    ///
    /// # Errors
    /// - `InvalidArgument`: the prefix or the limit is invalid.
    /// - Any error of the backend.
    ///
    /// ```
    /// use cubbyhole::{EntryStore, ExecutionContext, InMemoryStore, Namespace, Store};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let store = InMemoryStore::<u32>::new();
    /// let ns = Namespace::parse("acme:agent-7:chat")?;
    /// for key in ["turn-1", "turn-2", "summary"] {
    ///     store.put(&ctx, &ns, key, 0).await?;
    /// }
    /// while !store.delete_prefix(&ctx, &ns, "turn-", 1000).await?.done {}
    /// assert_eq!(store.list(&ctx, &ns, None).await?, ["summary"]);
    /// # Ok(())
    /// # }
    /// ```
    async fn delete_prefix(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key_prefix: &str,
        limit: usize,
    ) -> Result<Erased> {
        let _ = (ctx, ns, key_prefix, limit);
        Err(unsupported("delete_prefix").await)
    }

    /// Removes at most `limit` entries under `prefix`: one bounded step of an erasure.
    ///
    /// Repeat the call until [`Erased::done`] is true, as
    /// [`erase_all`](crate::EntryStoreExt::erase_all) does. An interrupted erasure is continued by
    /// calling it again. Entries that are written during an erasure may survive it. `limit` is 1 to
    /// [`MAX_PAGE_ITEMS`](crate::limits::MAX_PAGE_ITEMS).
    ///
    /// # Errors
    /// - `InvalidArgument`: the limit is out of range.
    /// - Any error of the backend.
    ///
    /// ```
    /// use cubbyhole::{
    ///     EntryStore, ExecutionContext, InMemoryStore, Namespace, NamespacePrefix, Store,
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let store = InMemoryStore::<u32>::new();
    /// let ns = Namespace::parse("acme:counters")?;
    ///
    /// store.put(&ctx, &ns, "n", 1).await?;
    /// let tenant = NamespacePrefix::from(ns.tenant());
    /// while !store.erase(&ctx, &tenant, 1000).await?.done {}
    /// assert_eq!(store.get(&ctx, &ns, "n").await?, None);
    /// # Ok(())
    /// # }
    /// ```
    async fn erase(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        limit: usize,
    ) -> Result<Erased> {
        let _ = (ctx, prefix, limit);
        Err(unsupported("erase").await)
    }

    /// Counts the entries and bytes under `prefix`.
    ///
    /// The cost is proportional to the number of entries, on every backend.
    ///
    /// # Errors
    /// Any error of the backend.
    ///
    /// ```
    /// use cubbyhole::{
    ///     EntryStore, ExecutionContext, InMemoryStore, Namespace, NamespacePrefix, Store,
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let store = InMemoryStore::<u32>::new();
    /// let ns = Namespace::parse("acme:counters")?;
    ///
    /// store.put(&ctx, &ns, "n", 1).await?;
    /// let usage = store.usage(&ctx, &NamespacePrefix::from(ns.tenant())).await?;
    /// assert_eq!((usage.namespaces, usage.entries), (1, 1));
    /// # Ok(())
    /// # }
    /// ```
    async fn usage(&self, ctx: &ExecutionContext, prefix: &NamespacePrefix) -> Result<Usage> {
        let _ = (ctx, prefix);
        Err(unsupported("usage").await)
    }

    /// Returns the store's current time: the time that decides which entries of `ns` have expired.
    ///
    /// It may differ from this machine's clock. On PostgreSQL and Redis it is the server's time; in
    /// memory and in the embedded file it never falls behind the store's high-water mark. Compare
    /// `expires_at` with it, for example to show the remaining TTL of an entry.
    ///
    /// # Errors
    /// Any error of the backend.
    ///
    /// ```
    /// use cubbyhole::{EntryStore, ExecutionContext, GetOptions, InMemoryStore, Namespace};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let store = InMemoryStore::<u32>::new();
    /// let ns = Namespace::parse("acme:sessions")?;
    /// let now = store.current_time(&ctx, &ns).await?;
    /// let entry = store.get_entry(&ctx, &ns, "s-1", GetOptions::new()).await?;
    /// let expires_at = entry.and_then(|entry| entry.meta.expires_at);
    /// let remaining = expires_at.map(|expires_at| expires_at.saturating_since(now));
    /// assert_eq!(remaining, None);
    /// # Ok(())
    /// # }
    /// ```
    async fn current_time(&self, ctx: &ExecutionContext, ns: &Namespace) -> Result<Timestamp> {
        let _ = (ctx, ns);
        Err(unsupported("current_time").await)
    }

    /// Returns the size limit of an encoded value in bytes, or `None` if the store has no limit or
    /// does not know the sizes of values.
    ///
    /// A layer that makes values longer, such as encryption, returns a limit that is lower by as much
    /// as the values grow.
    ///
    /// ```
    /// use cubbyhole::{EntryStore, ExecutionContext, limits};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let store = cubbyhole::open(&ExecutionContext::new(), "memory:").await?;
    /// assert_eq!(store.max_value_bytes(), Some(limits::DEFAULT_MAX_VALUE_BYTES));
    /// # Ok(())
    /// # }
    /// ```
    fn max_value_bytes(&self) -> Option<usize> {
        None
    }
}

/// The result of one step of [`EntryStore::erase`] or [`EntryStore::delete_prefix`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Erased {
    /// Number of live entries that were removed. Expired entries are removed too, but not counted.
    pub removed: u64,
    /// True if no entry is left under the prefix.
    pub done: bool,
}

/// The amount of data under a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Namespaces with at least one live entry.
    pub namespaces: u64,
    /// Live entries.
    pub entries: u64,
    /// Bytes of keys and encoded values of the live entries. `None` if the store does not know sizes.
    pub bytes: Option<u64>,
    /// Expired entries that have not been swept.
    pub expired: u64,
}

async fn unsupported(operation: &'static str) -> Error {
    runtime::cooperate().await;
    Error::unsupported("this store implements only the core trait").in_operation(operation)
}
