//! [`PostgresStore`]: opening, and the implementations of the store traits.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use cubbyhole_core::{
    Backend, Batch, Compaction, Condition, Entry, EntryStat, EntryStore, Erased, ExecutionContext,
    Expiry, GetOptions, Namespace, NamespacePrefix, Page, Position, PutOptions,
    RecursiveScanOptions, Result, ResultExt, ScanItem, ScanOptions, Store, TenantId, Timestamp,
    Usage, Version, Written,
};

use crate::call::Caller;
use crate::config::Config;
use crate::operations::Operations;
use crate::pool::Pool;
use crate::{inspect, migrate};

/// A store in a PostgreSQL database.
///
/// Clones are cheap and share one connection pool. Dropping the last clone closes the connections;
/// [`close`](Backend::close) also waits for calls in flight.
///
/// [`migrate`](crate::migrate()) creates the schema that the store needs, and [`Config`] holds the
/// connection settings. Every call must run in the tokio runtime in which the store was opened,
/// with timers and I/O enabled. Elsewhere calls return `InvalidArgument`.
///
/// ```no_run
/// use cubbyhole_core::{ExecutionContext, Namespace, Store, TypedExt};
/// use cubbyhole_postgres::{Config, PostgresStore};
///
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let ctx = ExecutionContext::new();
/// let config = Config::from_url("postgres://app:secret@localhost/state")?;
/// let store = PostgresStore::open(&ctx, config).await?.typed::<String>();
/// let ns = Namespace::parse("acme:agent-7")?;
/// store.put(&ctx, &ns, "greeting", "hello".to_owned()).await?;
/// assert_eq!(store.get(&ctx, &ns, "greeting").await?.as_deref(), Some("hello"));
/// # Ok(())
/// # }
/// ```
///
/// # Costs
/// Each call is one network round trip and occupies one connection of the pool until it ends. These
/// methods differ:
///
/// - `list_namespaces` and `scan_namespaces` make one index lookup for each namespace.
/// - `usage` reads every entry under the prefix.
/// - A refreshing `scan` reads its page twice. A refreshing read writes only if a refresh is due.
/// - `evict_expired` makes one round trip for every 1,000 expired entries.
///
/// `scan_tenants` requires the role `<schema>_operator`, and `compact` the owner of the table.
#[derive(Clone)]
pub struct PostgresStore {
    operations: Operations,
}

impl PostgresStore {
    /// Connects, and checks that the schema exists and that row security applies to the role.
    ///
    /// # Errors
    /// - `Unavailable` if the server is unreachable, or the schema is missing or outdated.
    /// - `Unsupported` if the schema is newer than this build, or the server is older than version
    ///   15.
    /// - `PermissionDenied` if the server rejects the user, or the role bypasses row security.
    /// - `InvalidArgument` behind a pooler in transaction mode, unless the configuration has
    ///   [`Pooler::Transaction`](crate::Pooler::Transaction).
    /// - The same errors as [`migrate`](crate::migrate()), with [`Config::with_migrations`].
    pub async fn open(ctx: &ExecutionContext, config: Config) -> Result<Self> {
        let open = async {
            ctx.begin_in_runtime().await?;
            if config.migrate {
                migrate::migrate(ctx, &config).await?;
            }
            let max_value_bytes = config.max_value_bytes;
            let pool = Pool::new(config)?;
            let lease = pool.acquire(ctx).await?;
            let checks = inspect::check_usable(pool.connector(), &lease.connection);
            ctx.race(checks).await??;
            Ok(Self { operations: Operations { caller: Caller::new(pool), max_value_bytes } })
        };
        open.await.in_operation("open")
    }

    /// Returns the number of open connections, and how many of those are in use.
    #[must_use]
    pub fn connections(&self) -> (usize, usize) {
        self.operations.caller.pool.connections()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store<Bytes> for PostgresStore {
    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
        options: PutOptions,
    ) -> Result<()> {
        let put = self.operations.put(ctx, ns, key, value, options, Condition::Always);
        put.await.map(drop).in_operation("put")
    }

    async fn get(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Bytes>> {
        self.operations.get(ctx, ns, key).await.in_operation("get")
    }

    async fn delete(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<()> {
        let delete = self.operations.delete(ctx, ns, key, Condition::Always);
        delete.await.map(drop).in_operation("delete")
    }

    async fn list(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        prefix: Option<&str>,
    ) -> Result<Vec<String>> {
        self.operations.list(ctx, ns, prefix).await.in_operation("list")
    }

    async fn put(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
    ) -> Result<()> {
        self.put_with_options(ctx, ns, key, value, PutOptions::default()).await
    }

    async fn list_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
    ) -> Result<Vec<Namespace>> {
        let namespaces = self.operations.namespaces(ctx, prefix, None, None);
        namespaces.await.in_operation("list_namespaces")
    }

    async fn evict_expired(&self, ctx: &ExecutionContext) -> Result<usize> {
        self.operations.evict_expired(ctx).await.in_operation("evict_expired")
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl EntryStore<Bytes> for PostgresStore {
    async fn get_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<Bytes>>> {
        self.operations.get_entry(ctx, ns, key, options).await.in_operation("get_entry")
    }

    async fn get_many(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
        options: GetOptions,
    ) -> Result<Vec<Result<Option<Entry<Bytes>>>>> {
        self.operations.get_many(ctx, ns, keys, options).await.in_operation("get_many")
    }

    async fn stat(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Option<EntryStat>>> {
        self.operations.stat(ctx, ns, keys).await.in_operation("stat")
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
        let put = self.operations.put(ctx, ns, key, value, options, condition);
        put.await.in_operation("put_entry")
    }

    async fn delete_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        condition: Condition,
    ) -> Result<bool> {
        self.operations.delete(ctx, ns, key, condition).await.in_operation("delete_entry")
    }

    async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        batch: Batch<Bytes>,
    ) -> Result<Vec<Written>> {
        self.operations.write(ctx, ns, batch).await.in_operation("write")
    }

    async fn scan(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        options: ScanOptions,
    ) -> Result<Page<ScanItem<Bytes>, String>> {
        self.operations.scan(ctx, ns, options).await.in_operation("scan")
    }

    async fn scan_recursive(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        options: RecursiveScanOptions,
    ) -> Result<Page<(Namespace, ScanItem<Bytes>), Position>> {
        let scan = self.operations.scan_recursive(ctx, prefix, options);
        scan.await.in_operation("scan_recursive")
    }

    async fn scan_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        after: Option<&Namespace>,
        limit: usize,
    ) -> Result<Page<Namespace>> {
        let scan = self.operations.scan_namespaces(ctx, prefix, after, limit);
        scan.await.in_operation("scan_namespaces")
    }

    async fn scan_tenants(
        &self,
        ctx: &ExecutionContext,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<Page<TenantId>> {
        self.operations.scan_tenants(ctx, after, limit).await.in_operation("scan_tenants")
    }

    async fn touch(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        new_expiry: Expiry,
        condition: Condition,
    ) -> Result<bool> {
        let touch = self.operations.touch(ctx, ns, key, new_expiry, condition);
        touch.await.in_operation("touch")
    }

    async fn take(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Entry<Bytes>>> {
        self.operations.take(ctx, ns, key).await.in_operation("take")
    }

    async fn delete_prefix(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key_prefix: &str,
        limit: usize,
    ) -> Result<Erased> {
        let delete = self.operations.delete_prefix(ctx, ns, key_prefix, limit);
        delete.await.in_operation("delete_prefix")
    }

    async fn erase(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        limit: usize,
    ) -> Result<Erased> {
        self.operations.erase(ctx, prefix, limit).await.in_operation("erase")
    }

    async fn usage(&self, ctx: &ExecutionContext, prefix: &NamespacePrefix) -> Result<Usage> {
        self.operations.usage(ctx, prefix).await.in_operation("usage")
    }

    async fn current_time(&self, ctx: &ExecutionContext, _ns: &Namespace) -> Result<Timestamp> {
        self.operations.current_time(ctx).await.in_operation("current_time")
    }

    fn max_value_bytes(&self) -> Option<usize> {
        Some(self.operations.max_value_bytes)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for PostgresStore {
    async fn close(&self, ctx: &ExecutionContext) -> Result<()> {
        self.operations.caller.pool.close(ctx).await.in_operation("close")
    }

    /// Runs `VACUUM` on the table, as autovacuum does. The role must own the table.
    ///
    /// # Errors
    /// `PermissionDenied` if the role does not own the table; connection errors.
    async fn compact(&self, ctx: &ExecutionContext) -> Result<Compaction> {
        self.operations.compact(ctx).await.in_operation("compact")
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.operations.caller.pool.config();
        f.debug_struct("PostgresStore").field("config", config).finish()
    }
}
