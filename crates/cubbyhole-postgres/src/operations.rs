//! The operations of the store: each method checks its arguments, calls one SQL function and
//! converts the rows.

use bytes::Bytes;
use cubbyhole_core::limits::{
    MAX_PAGE_BYTES, MAX_PAGE_ITEMS, check_key, check_keys, check_page_limit, check_prefix,
    check_value_bytes,
};
use cubbyhole_core::{
    Batch, Compaction, Condition, Entry, Erased, Error, ExecutionContext, Expiry, GetOptions,
    Namespace, NamespacePrefix, Page, PutOptions, Result, ScanItem, ScanOptions, TenantId,
    Timestamp, Usage, Version,
};

use crate::arguments::{
    self, expected_version, expiry, limit_plus_one, location, prefix_end, ttl_millis, version_uuid,
};
use crate::call::Caller;
use crate::error::Effect::{Read, Write};
use crate::functions::{Function, NamespaceParam, TenantParam, ValueParam, param};
use crate::{compact, rows};

#[derive(Clone)]
pub(crate) struct Operations {
    pub(crate) caller: Caller,
    pub(crate) max_value_bytes: usize,
}

impl Operations {
    pub(crate) async fn get(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Bytes>> {
        self.caller.begin(ctx).await?;
        check_key(key)?;
        let rows = self.caller.call(ctx, Read, Function::Get, location(ns, key)).await?;
        let value: Option<&[u8]> = rows::scalar(&rows)?;
        Ok(value.map(Bytes::copy_from_slice))
    }

    pub(crate) async fn get_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<Bytes>>> {
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
    }

    pub(crate) async fn get_many(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Result<Option<Entry<Bytes>>>>> {
        self.caller.begin(ctx).await?;
        check_keys(keys)?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let owned: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let mut params = Vec::with_capacity(3);
        params.extend(arguments::namespace(ns));
        params.push(param(owned));
        let rows = self.caller.call(ctx, Read, Function::GetMany, params).await?;
        rows::entries_by_key(&rows, keys)
    }

    pub(crate) async fn put(
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
            param(ValueParam(value)),
            param(version_uuid(version)),
            param(ttl),
            param(instant),
        ]);
        let Some(expected) = expected_version(condition) else {
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

    /// Returns whether a live entry was deleted.
    pub(crate) async fn delete(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        condition: Condition,
    ) -> Result<bool> {
        self.caller.begin(ctx).await?;
        check_key(key)?;
        let mut params = location(ns, key);
        let Some(expected) = expected_version(condition) else {
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

    pub(crate) async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        batch: Batch<Bytes>,
    ) -> Result<Vec<Option<Version>>> {
        self.caller.begin(ctx).await?;
        batch.check(self.max_value_bytes, |value| Some(value.len()))?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let (params, versions) = arguments::batch(ns, batch);
        let rows = self.caller.call(ctx, Write, Function::WriteBatch, params).await?;
        rows::batch_outcome(&rows)?;
        Ok(versions)
    }

    pub(crate) async fn touch(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        new_expiry: Expiry,
    ) -> Result<bool> {
        self.caller.begin(ctx).await?;
        check_key(key)?;
        new_expiry.check()?;
        let (ttl, instant) = expiry(new_expiry);
        let mut params = location(ns, key);
        params.extend([param(ttl), param(instant)]);
        let rows = self.caller.call(ctx, Write, Function::Touch, params).await?;
        rows::scalar(&rows)
    }

    pub(crate) async fn take(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Entry<Bytes>>> {
        self.caller.begin(ctx).await?;
        check_key(key)?;
        let rows = self.caller.call(ctx, Write, Function::Take, location(ns, key)).await?;
        // The entry is deleted even if its row is unreadable.
        rows::optional_entry(&rows).map_err(Error::with_unknown_outcome)
    }

    pub(crate) async fn list(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        prefix: Option<&str>,
    ) -> Result<Vec<String>> {
        self.caller.begin(ctx).await?;
        check_prefix(prefix)?;
        let prefix = prefix.unwrap_or("");
        let mut params = location(ns, prefix);
        params.push(param(prefix_end(prefix)));
        let rows = self.caller.call(ctx, Read, Function::List, params).await?;
        rows::keys(&rows)
    }

    pub(crate) async fn scan(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        options: ScanOptions,
    ) -> Result<Page<ScanItem<Bytes>, String>> {
        self.caller.begin(ctx).await?;
        options.check()?;
        let prefix = options.prefix().unwrap_or("");
        // No key contains NUL, so every key greater than `after` is at least `after` and U+0001.
        let start = options.after().map(|after| format!("{after}\u{1}"));
        let from = start.as_deref().unwrap_or("").max(prefix);
        let mut params = location(ns, from);
        params.extend([
            param(prefix_end(prefix)),
            param(i32::try_from(limit_plus_one(options.limit())).unwrap_or(i32::MAX)),
            param(i64::try_from(MAX_PAGE_BYTES).unwrap_or(i64::MAX)),
            param(options.values()),
        ]);
        let rows = self.caller.call(ctx, Read, Function::Scan, params).await?;
        rows::page(&rows, &options)
    }

    /// The namespaces under `prefix` after `after`: all of them, or `limit` and one more.
    pub(crate) async fn namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        after: Option<&Namespace>,
        limit: Option<usize>,
    ) -> Result<Vec<Namespace>> {
        self.caller.begin(ctx).await?;
        let mut params = arguments::prefix(prefix);
        params.push(param(after.cloned().map(NamespaceParam)));
        params.push(param(limit.map(limit_plus_one)));
        let rows = self.caller.call(ctx, Read, Function::Namespaces, params).await?;
        rows::namespaces(&rows)
    }

    pub(crate) async fn scan_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        after: Option<&Namespace>,
        limit: usize,
    ) -> Result<Page<Namespace>> {
        self.caller.begin(ctx).await?;
        check_page_limit(limit)?;
        let found = self.namespaces(ctx, prefix, after, Some(limit)).await?;
        Ok(Page::from_items(found, limit))
    }

    pub(crate) async fn scan_tenants(
        &self,
        ctx: &ExecutionContext,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<Page<TenantId>> {
        self.caller.begin(ctx).await?;
        check_page_limit(limit)?;
        let fetched = i32::try_from(limit_plus_one(limit)).unwrap_or(i32::MAX);
        let params = vec![param(after.cloned().map(TenantParam)), param(fetched)];
        let rows = self.caller.call(ctx, Read, Function::Tenants, params).await?;
        Ok(Page::from_items(rows::tenants(&rows)?, limit))
    }

    pub(crate) async fn usage(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
    ) -> Result<Usage> {
        self.caller.begin(ctx).await?;
        let params = arguments::prefix(prefix);
        let rows = self.caller.call(ctx, Read, Function::Usage, params).await?;
        rows::usage(&rows)
    }

    pub(crate) async fn erase(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        limit: usize,
    ) -> Result<Erased> {
        self.caller.begin(ctx).await?;
        check_page_limit(limit)?;
        let mut params = arguments::prefix(prefix);
        params.push(param(i64::try_from(limit).unwrap_or(i64::MAX)));
        let rows = self.caller.call(ctx, Write, Function::Erase, params).await?;
        rows::erased(&rows)
    }

    /// Removes expired entries in steps of [`MAX_PAGE_ITEMS`] until a step finds fewer.
    pub(crate) async fn evict_expired(&self, ctx: &ExecutionContext) -> Result<usize> {
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
                    // The server skips rows that other transactions lock. A later sweep finds
                    // them.
                    if count < i64::from(limit) {
                        return Ok(removed);
                    }
                }
                Err(error) if removed > 0 => return Err(error.with_unknown_outcome()),
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) async fn current_time(&self, ctx: &ExecutionContext) -> Result<Timestamp> {
        self.caller.begin(ctx).await?;
        let rows = self.caller.call(ctx, Read, Function::Clock, Vec::new()).await?;
        rows::instant(rows::scalar(&rows)?)
    }

    pub(crate) async fn compact(&self, ctx: &ExecutionContext) -> Result<Compaction> {
        self.caller.begin(ctx).await?;
        let schema = self.caller.pool.config().schema().to_owned();
        let compact = |lease, stopped| compact::compact(lease, schema, stopped);
        self.caller.run(ctx, Read, compact).await
    }
}
