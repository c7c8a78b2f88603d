//! The store: which function each method calls, and with what.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use cubbyhole_core::limits::{
    MAX_PAGE_BYTES, MAX_PAGE_ITEMS, check_key, check_keys, check_page_limit, check_prefix,
    check_value_bytes,
};
use cubbyhole_core::{
    Backend, Batch, Compaction, Condition, Entry, EntryStore, Erased, Error, ExecutionContext,
    Expiry, GetOptions, Namespace, NamespacePrefix, Page, PutOptions, Result, ResultExt, ScanItem,
    ScanOptions, Store, TenantId, Timestamp, Usage, Version,
};
use uuid::Uuid;

use crate::arguments::{at_most, expected, expiry, location, past_prefix, ttl_millis};
use crate::call::Caller;
use crate::config::Config;
use crate::error::Effect::{Read, Write};
use crate::functions::{Function, Name, Tenant, Value, param};
use crate::pool::Pool;
use crate::{arguments, inspect, migrate, rows};

/// A store in a PostgreSQL database. Cloning it is cheap and shares the pool of connections.
///
/// Every call is one network round trip, with row security on. [`migrate`](crate::migrate) creates the
/// schema, and [`Config`] says how the database is reached. Calls need the tokio runtime in
/// which the store was opened, with timers and I/O: elsewhere they answer `InvalidArgument`.
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
#[derive(Clone)]
pub struct PostgresStore {
    caller: Caller,
    max_value_bytes: usize,
}

impl PostgresStore {
    /// Connects, and makes sure that the schema is there and that row security binds the role.
    ///
    /// # Errors
    /// `Unavailable` if the server cannot be reached, or the schema is not there or too old;
    /// `Unsupported` if the schema is newer than this build, or the server older than 15;
    /// `PermissionDenied` if the server refuses the user, or row security does not bind it;
    /// `InvalidArgument` behind a pooler that assigns a server connection to each transaction,
    /// unless the configuration says so ([`Pooler::Transaction`](crate::Pooler::Transaction)).
    pub async fn open(ctx: &ExecutionContext, config: Config) -> Result<Self> {
        let open = async {
            ctx.begin_in_runtime().await?;
            if config.migrate {
                migrate::migrate(ctx, &config).await?;
            }
            let max_value_bytes = config.max_value_bytes;
            let pool = Pool::new(config)?;
            let lease = pool.acquire(ctx).await?;
            let checks = inspect::admit(pool.connector(), &lease.connection);
            ctx.race(checks).await??;
            Ok(Self { caller: Caller::new(pool), max_value_bytes })
        };
        open.await.in_operation("open")
    }

    /// How many connections are open, and how many of those are in use.
    #[must_use]
    pub fn connections(&self) -> (usize, usize) {
        self.caller.pool.occupation()
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
        check_value_bytes(value.len(), self.max_value_bytes)?;
        options.expiry().check()?;
        let version = options.version_or_draw();
        let (ttl, instant) = expiry(options.expiry());
        let mut params = location(ns, key);
        params.extend([
            param(Value(value)),
            param(Uuid::from_bytes(version.to_bytes())),
            param(ttl),
            param(instant),
        ]);
        let Some(expected) = expected(condition) else {
            self.caller.call(ctx, Write, Function::Put, params).await?;
            return Ok(version);
        };
        params.push(param(expected));
        let rows = self.caller.call(ctx, Write, Function::PutIf, params).await?;
        let row = rows::first(&rows)?;
        if rows::column(row, "written")? {
            return Ok(version);
        }
        Err(Error::conflict(rows::version(row, "current")?))
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
        let mut params = location(ns, key);
        let Some(expected) = expected(condition) else {
            let rows = self.caller.call(ctx, Write, Function::Delete, params).await?;
            return rows::scalar(&rows);
        };
        params.push(param(expected));
        let rows = self.caller.call(ctx, Write, Function::DeleteIf, params).await?;
        let row = rows::first(&rows)?;
        if rows::column(row, "held")? {
            return Ok(expected.is_some());
        }
        Err(Error::conflict(rows::version(row, "current")?))
    }

    async fn evict(&self, ctx: &ExecutionContext) -> Result<usize> {
        let limit = i32::try_from(MAX_PAGE_ITEMS).unwrap_or(i32::MAX);
        let mut removed = 0;
        loop {
            let step = async {
                self.caller.begin(ctx).await?;
                let params = vec![param(limit)];
                let rows = self.caller.call(ctx, Write, Function::Evict, params).await?;
                rows::scalar::<i64>(&rows)
            };
            match step.await {
                Ok(count) => {
                    removed += usize::try_from(count).unwrap_or(0);
                    // What others hold is left to them or to the next sweep.
                    if count < i64::from(limit) {
                        return Ok(removed);
                    }
                }
                Err(error) if removed > 0 => return Err(error.with_unknown_outcome()),
                Err(error) => return Err(error),
            }
        }
    }

    async fn namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        after: Option<&Namespace>,
        limit: Option<usize>,
    ) -> Result<Vec<Namespace>> {
        self.caller.begin(ctx).await?;
        let params = vec![
            param(Tenant(prefix.tenant())),
            param(Name(prefix.as_namespace().clone())),
            param(after.cloned().map(Name)),
            param(limit.map(at_most)),
        ];
        let rows = self.caller.call(ctx, Read, Function::Namespaces, params).await?;
        rows::namespaces(&rows)
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
            let rows = self.caller.call(ctx, Read, Function::Get, location(ns, key)).await?;
            let value: Option<&[u8]> = rows::scalar(&rows)?;
            Ok(value.map(Bytes::copy_from_slice))
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
            let prefix = prefix.unwrap_or("");
            let mut params = location(ns, prefix);
            params.push(param(past_prefix(prefix)));
            let rows = self.caller.call(ctx, Read, Function::List, params).await?;
            rows::keys(&rows)
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
        self.put_with_options(ctx, ns, key, value, PutOptions::default()).await
    }

    async fn list_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
    ) -> Result<Vec<Namespace>> {
        self.namespaces(ctx, prefix, None, None).await.in_operation("list_namespaces")
    }

    async fn evict_expired(&self, ctx: &ExecutionContext) -> Result<usize> {
        self.evict(ctx).await.in_operation("evict_expired")
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
        let get = async {
            self.caller.begin(ctx).await?;
            check_key(key)?;
            let extend = options.extended_ttl();
            if let Some(ttl) = extend {
                Expiry::After(ttl).check()?;
            }
            let mut params = location(ns, key);
            params.push(param(extend.map(ttl_millis)));
            let effect = if extend.is_some() { Write } else { Read };
            let rows = self.caller.call(ctx, effect, Function::GetEntry, params).await?;
            rows::optional_entry(&rows)
        };
        get.await.in_operation("get_entry")
    }

    async fn get_many(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Result<Option<Entry<Bytes>>>>> {
        let get = async {
            self.caller.begin(ctx).await?;
            check_keys(keys)?;
            if keys.is_empty() {
                return Ok(Vec::new());
            }
            let wanted: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
            let params = vec![param(Tenant(ns.tenant())), param(Name(ns.clone())), param(wanted)];
            let rows = self.caller.call(ctx, Read, Function::GetMany, params).await?;
            rows::entries_by_key(&rows, keys)
        };
        get.await.in_operation("get_many")
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
    ) -> Result<Vec<Option<Version>>> {
        let write = async {
            self.caller.begin(ctx).await?;
            batch.check(self.max_value_bytes, |value| Some(value.len()))?;
            if batch.is_empty() {
                return Ok(Vec::new());
            }
            let (params, versions) = arguments::batch(ns, batch);
            let rows = self.caller.call(ctx, Write, Function::WriteBatch, params).await?;
            rows::batch_outcome(&rows)?;
            Ok(versions)
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
            let prefix = options.prefix().unwrap_or("");
            // No key holds NUL, so that the least one past `after` ends with U+0001.
            let past = options.after().map(|after| format!("{after}\u{1}"));
            let from = past.as_deref().unwrap_or("").max(prefix);
            let mut params = location(ns, from);
            params.extend([
                param(past_prefix(prefix)),
                param(i32::try_from(at_most(options.limit())).unwrap_or(i32::MAX)),
                param(i64::try_from(MAX_PAGE_BYTES).unwrap_or(i64::MAX)),
                param(options.values()),
            ]);
            let rows = self.caller.call(ctx, Read, Function::Scan, params).await?;
            rows::page(&rows, &options)
        };
        scan.await.in_operation("scan")
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
            let found = self.namespaces(ctx, prefix, after, Some(limit)).await?;
            Ok(rows::cut(found, limit))
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
            let most = i32::try_from(at_most(limit)).unwrap_or(i32::MAX);
            let params = vec![param(after.cloned().map(Tenant)), param(most)];
            let rows = self.caller.call(ctx, Read, Function::Tenants, params).await?;
            Ok(rows::cut(rows::tenants(&rows)?, limit))
        };
        scan.await.in_operation("scan_tenants")
    }

    async fn touch(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        new_expiry: Expiry,
    ) -> Result<bool> {
        let touch = async {
            self.caller.begin(ctx).await?;
            check_key(key)?;
            new_expiry.check()?;
            let (ttl, instant) = expiry(new_expiry);
            let mut params = location(ns, key);
            params.extend([param(ttl), param(instant)]);
            let rows = self.caller.call(ctx, Write, Function::Touch, params).await?;
            rows::scalar(&rows)
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
            let rows = self.caller.call(ctx, Write, Function::Take, location(ns, key)).await?;
            // It is gone, whatever it was.
            rows::optional_entry(&rows).map_err(Error::with_unknown_outcome)
        };
        take.await.in_operation("take")
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
            let params = vec![
                param(Tenant(prefix.tenant())),
                param(Name(prefix.as_namespace().clone())),
                param(i64::try_from(limit).unwrap_or(i64::MAX)),
            ];
            let rows = self.caller.call(ctx, Write, Function::Erase, params).await?;
            rows::erased(&rows)
        };
        erase.await.in_operation("erase")
    }

    async fn usage(&self, ctx: &ExecutionContext, prefix: &NamespacePrefix) -> Result<Usage> {
        let usage = async {
            self.caller.begin(ctx).await?;
            let params =
                vec![param(Tenant(prefix.tenant())), param(Name(prefix.as_namespace().clone()))];
            let rows = self.caller.call(ctx, Read, Function::Usage, params).await?;
            rows::usage(&rows)
        };
        usage.await.in_operation("usage")
    }

    async fn current_time(&self, ctx: &ExecutionContext, _ns: &Namespace) -> Result<Timestamp> {
        self.caller.current_time(ctx).await.in_operation("current_time")
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for PostgresStore {
    async fn close(&self, ctx: &ExecutionContext) -> Result<()> {
        self.caller.pool.close(ctx).await.in_operation("close")
    }

    /// Runs `VACUUM` on the table, as its owner; autovacuum does the same.
    async fn compact(&self, ctx: &ExecutionContext) -> Result<Compaction> {
        self.caller.begin(ctx).await.in_operation("compact")?;
        let schema = self.caller.pool.config().schema().to_owned();
        let compact =
            self.caller.run(ctx, Read, |lease, stopped| inspect::compact(lease, schema, stopped));
        compact.await.in_operation("compact")
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("config", self.caller.pool.config()).finish()
    }
}
