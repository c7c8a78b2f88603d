//! The store: each method validates its arguments and calls the module that does the work.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use cubbyhole_core::limits::{
    check_key, check_keys, check_page_limit, check_prefix, check_value_bytes,
};
use cubbyhole_core::{
    Backend, Batch, Compaction, Condition, Entry, EntryStat, EntryStore, Erased, ExecutionContext,
    Expiry, GetOptions, Namespace, NamespacePrefix, Operation, Page, Position, PutOptions,
    RecursiveScanOptions, Result, ResultExt, ScanItem, ScanOptions, Store, TenantId, Timestamp,
    Usage, Version, Written,
};

use crate::change::{Change, NewEntry};
use crate::cluster::{Caller, Servers};
use crate::config::Config;
use crate::entries::Entries;
use crate::entry_reply::EntryReply;
use crate::listing::Listing;
use crate::recursive_scan::RecursiveScan;
use crate::registry::Registry;
use crate::removal::{Erasure, PrefixDeletion, Sweep};
use crate::usage::UsageCounter;

/// A store on a Redis server or a Redis Cluster.
///
/// No schema or other setup is needed. The store reconnects and follows failovers automatically.
/// Clones are cheap and share the connections.
///
/// Use the store in the tokio runtime in which it was opened. The runtime needs timers and I/O;
/// otherwise calls fail with `InvalidArgument`.
///
/// ```no_run
/// use cubbyhole_core::{ExecutionContext, Namespace, Store, TypedExt};
/// use cubbyhole_redis::{Config, RedisStore};
///
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let ctx = ExecutionContext::new();
/// let config = Config::from_url("redis+cluster://10.0.0.1:7000,10.0.0.2:7000")?;
/// let store = RedisStore::open(&ctx, config).await?.typed::<String>();
/// let ns = Namespace::parse("acme:agent-7")?;
/// store.put(&ctx, &ns, "greeting", "hello".to_owned()).await?;
/// assert_eq!(store.get(&ctx, &ns, "greeting").await?.as_deref(), Some("hello"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisStore {
    caller: Caller,
}

impl RedisStore {
    /// Connects, and checks the version, the mode and the permissions of the servers.
    ///
    /// # Errors
    /// - `Unavailable` if no server can be reached.
    /// - `Unsupported` if a server is older than Redis 7.
    /// - `PermissionDenied` if a server rejects the user, or the user lacks a permission.
    /// - `InvalidArgument` if the URL names a cluster and the server is not part of one, or the
    ///   reverse.
    pub async fn open(ctx: &ExecutionContext, config: Config) -> Result<Self> {
        let open = async {
            ctx.begin_in_runtime().await?;
            let caller = Caller::new(config)?;
            Servers::new(&caller).admit(ctx).await?;
            caller.spawn_map_refresh();
            Ok(Self { caller })
        };
        open.await.in_operation("open")
    }

    const fn entries(&self) -> Entries<'_> {
        Entries::new(&self.caller)
    }

    fn value_limit(&self) -> usize {
        self.caller.config().max_value_bytes
    }

    async fn put_if(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
        options: PutOptions,
        condition: Condition,
    ) -> Result<Version> {
        self.caller.begin(ctx).await?;
        check_key(key)?;
        check_value_bytes(value.len(), self.value_limit())?;
        options.expiry().check()?;
        let version = options.version_or_draw();
        let put = NewEntry { value: &value, version, expiry: options.expiry() };
        let change = Change { key, condition, put: Some(put) };
        self.entries().write(ctx, ns, &[change]).await?;
        Ok(version)
    }

    async fn delete_if(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        condition: Condition,
    ) -> Result<bool> {
        self.caller.begin(ctx).await?;
        check_key(key)?;
        let change = Change { key, condition, put: None };
        Ok(!self.entries().write(ctx, ns, &[change]).await?.is_empty())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store<Bytes> for RedisStore {
    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
        options: PutOptions,
    ) -> Result<()> {
        let put = self.put_if(ctx, ns, key, value, options, Condition::Always);
        put.await.map(drop).in_operation("put")
    }

    async fn get(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Bytes>> {
        let get = async {
            self.caller.begin(ctx).await?;
            check_key(key)?;
            self.entries().get(ctx, ns, key).await
        };
        get.await.in_operation("get")
    }

    async fn delete(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<()> {
        self.delete_if(ctx, ns, key, Condition::Always).await.map(drop).in_operation("delete")
    }

    async fn list(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        prefix: Option<&str>,
    ) -> Result<Vec<String>> {
        let list = async {
            self.caller.begin(ctx).await?;
            check_prefix(prefix)?;
            Listing::new(&self.caller).list(ctx, ns, prefix.unwrap_or("")).await
        };
        list.await.in_operation("list")
    }

    async fn put(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
    ) -> Result<()> {
        let put = self.put_if(ctx, ns, key, value, PutOptions::default(), Condition::Always);
        put.await.map(drop).in_operation("put")
    }

    async fn list_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
    ) -> Result<Vec<Namespace>> {
        let list = async {
            self.caller.begin(ctx).await?;
            let all = Registry::new(&self.caller).namespaces(ctx, prefix, None, usize::MAX).await?;
            Ok(all.items)
        };
        list.await.in_operation("list_namespaces")
    }

    async fn evict_expired(&self, ctx: &ExecutionContext) -> Result<usize> {
        let evict = async {
            self.caller.begin(ctx).await?;
            let removed = Sweep::new(ctx, &self.caller).run().await?;
            Ok(usize::try_from(removed).unwrap_or(usize::MAX))
        };
        evict.await.in_operation("evict_expired")
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl EntryStore<Bytes> for RedisStore {
    async fn get_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<Bytes>>> {
        let get = async {
            self.caller.begin(ctx).await?;
            check_key(key)?;
            options.check()?;
            let mut entries = self.entries().read(ctx, ns, &[key], options).await?;
            entries.pop().map_or(Ok(None), EntryReply::into_entry)
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
        let get = async {
            self.caller.begin(ctx).await?;
            check_keys(keys)?;
            options.check()?;
            if keys.is_empty() {
                return Ok(Vec::new());
            }
            let entries = self.entries().read(ctx, ns, keys, options).await?;
            Ok(entries.into_iter().map(EntryReply::into_entry).collect())
        };
        get.await.in_operation("get_many")
    }

    async fn stat(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Option<EntryStat>>> {
        let stat = async {
            self.caller.begin(ctx).await?;
            check_keys(keys)?;
            if keys.is_empty() {
                return Ok(Vec::new());
            }
            self.entries().stat(ctx, ns, keys).await
        };
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
        self.put_if(ctx, ns, key, value, options, condition).await.in_operation("put_entry")
    }

    async fn delete_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        condition: Condition,
    ) -> Result<bool> {
        self.delete_if(ctx, ns, key, condition).await.in_operation("delete_entry")
    }

    async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        batch: Batch<Bytes>,
    ) -> Result<Vec<Written>> {
        let write = async {
            self.caller.begin(ctx).await?;
            batch.check(self.value_limit(), |value| Some(value.len()))?;
            if batch.is_empty() {
                return Ok(Vec::new());
            }
            let changes: Vec<Change<'_>> = batch.operations().iter().map(change).collect();
            let written = self.entries().write(ctx, ns, &changes).await;
            // A batch of one reports an index, too.
            let deletes = written.map_err(|error| {
                let index = error.batch_index().unwrap_or(0);
                error.at_batch_index(index)
            })?;
            let mut deletes = deletes.into_iter().peekable();
            let result = |(index, change): (u64, &Change<'_>)| match &change.put {
                Some(put) => Written::Put(put.version),
                None => Written::Deleted(deletes.next_if_eq(&index).is_some()),
            };
            Ok((0..).zip(&changes).map(result).collect())
        };
        write.await.in_operation("write")
    }

    async fn scan(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        options: ScanOptions,
    ) -> Result<Page<ScanItem<Bytes>, String>> {
        let scan = async {
            self.caller.begin(ctx).await?;
            options.check()?;
            Listing::new(&self.caller).scan(ctx, ns, &options).await
        };
        scan.await.in_operation("scan")
    }

    async fn scan_recursive(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        options: RecursiveScanOptions,
    ) -> Result<Page<(Namespace, ScanItem<Bytes>), Position>> {
        let scan = async {
            self.caller.begin(ctx).await?;
            options.check(prefix)?;
            RecursiveScan::new(ctx, &self.caller, prefix, &options).run().await
        };
        scan.await.in_operation("scan_recursive")
    }

    async fn scan_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        after: Option<&Namespace>,
        limit: usize,
    ) -> Result<Page<Namespace>> {
        let scan = async {
            self.caller.begin(ctx).await?;
            check_page_limit(limit)?;
            Registry::new(&self.caller).namespaces(ctx, prefix, after, limit).await
        };
        scan.await.in_operation("scan_namespaces")
    }

    async fn scan_tenants(
        &self,
        ctx: &ExecutionContext,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<Page<TenantId>> {
        let scan = async {
            self.caller.begin(ctx).await?;
            check_page_limit(limit)?;
            Registry::new(&self.caller).tenants(ctx, after, limit).await
        };
        scan.await.in_operation("scan_tenants")
    }

    async fn touch(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        expiry: Expiry,
        condition: Condition,
    ) -> Result<bool> {
        let touch = async {
            self.caller.begin(ctx).await?;
            check_key(key)?;
            expiry.check()?;
            self.entries().touch(ctx, ns, key, expiry, condition).await
        };
        touch.await.in_operation("touch")
    }

    async fn take(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Entry<Bytes>>> {
        let take = async {
            self.caller.begin(ctx).await?;
            check_key(key)?;
            self.entries().take(ctx, ns, key).await
        };
        take.await.in_operation("take")
    }

    async fn delete_prefix(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key_prefix: &str,
        limit: usize,
    ) -> Result<Erased> {
        let delete = async {
            self.caller.begin(ctx).await?;
            check_prefix(Some(key_prefix))?;
            check_page_limit(limit)?;
            PrefixDeletion::new(&self.caller, ns, key_prefix).run(ctx, limit).await
        };
        delete.await.in_operation("delete_prefix")
    }

    async fn erase(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        limit: usize,
    ) -> Result<Erased> {
        let erase = async {
            self.caller.begin(ctx).await?;
            check_page_limit(limit)?;
            Erasure::new(ctx, &self.caller, prefix).run(limit).await
        };
        erase.await.in_operation("erase")
    }

    async fn usage(&self, ctx: &ExecutionContext, prefix: &NamespacePrefix) -> Result<Usage> {
        let usage = async {
            self.caller.begin(ctx).await?;
            UsageCounter::new(&self.caller).of_prefix(ctx, prefix).await
        };
        usage.await.in_operation("usage")
    }

    async fn current_time(&self, ctx: &ExecutionContext, ns: &Namespace) -> Result<Timestamp> {
        let time = async {
            self.caller.begin(ctx).await?;
            self.entries().current_time(ctx, ns).await
        };
        time.await.in_operation("current_time")
    }

    fn max_value_bytes(&self) -> Option<usize> {
        Some(self.caller.config().max_value_bytes)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for RedisStore {
    async fn close(&self, ctx: &ExecutionContext) -> Result<()> {
        self.caller.close(ctx).await.in_operation("close")
    }

    /// Asks the masters to return free memory to the operating system (`MEMORY PURGE`). The
    /// reported bytes are the resident memory of the whole servers.
    async fn compact(&self, ctx: &ExecutionContext) -> Result<Compaction> {
        let compact = async {
            self.caller.begin(ctx).await?;
            let servers = Servers::new(&self.caller);
            ctx.race(servers.purge()).await?
        };
        compact.await.in_operation("compact")
    }
}

fn change(operation: &Operation<Bytes>) -> Change<'_> {
    match operation {
        Operation::Put { key, value, options, condition } => {
            let version = options.version_or_draw();
            let put = NewEntry { value, version, expiry: options.expiry() };
            Change { key, condition: *condition, put: Some(put) }
        }
        Operation::Delete { key, condition } => Change { key, condition: *condition, put: None },
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("config", self.caller.config()).finish()
    }
}
