//! The operations of the store: each method checks its arguments, calls one SQL function and
//! converts the rows.

use bytes::Bytes;
use cubbyhole_core::limits::{
    MAX_PAGE_BYTES, MAX_PAGE_ITEMS, check_key, check_keys, check_page_limit, check_prefix,
    check_value_bytes,
};
use cubbyhole_core::{
    Batch, Compaction, Condition, Entry, EntryStat, Erased, Error, ExecutionContext, Expiry,
    GetOptions, Namespace, NamespacePrefix, Page, Position, PutOptions, RecursiveScanOptions,
    Result, ScanItem, ScanOptions, TenantId, Timestamp, Usage, Version, Written,
};

use crate::arguments::{
    self, ExpiryColumns, limit_plus_one, location, prefix_end, ttl_millis, version_uuid,
};
use crate::call::Caller;
use crate::error::Effect::{self, Read, Write};
use crate::functions::{Function, NamespaceParam, Param, TenantParam, ValueParam, param};
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
        options.check()?;
        let mut params = location(ns, key);
        params.extend(read_params(options));
        let effect = read_effect(options.may_write());
        let rows = self.caller.call(ctx, effect, Function::GetEntry, params).await?;
        rows::optional_entry(&rows)
    }

    pub(crate) async fn get_many(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
        options: GetOptions,
    ) -> Result<Vec<Result<Option<Entry<Bytes>>>>> {
        self.caller.begin(ctx).await?;
        check_keys(keys)?;
        options.check()?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut params = arguments::keys(ns, keys, options.may_write());
        params.extend(read_params(options));
        let effect = read_effect(options.may_write());
        let rows = self.caller.call(ctx, effect, Function::GetMany, params).await?;
        rows::entries_by_key(&rows, keys)
    }

    pub(crate) async fn stat(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Option<EntryStat>>> {
        self.caller.begin(ctx).await?;
        check_keys(keys)?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let params = arguments::keys(ns, keys, false);
        let rows = self.caller.call(ctx, Read, Function::Stat, params).await?;
        rows::stats_by_key(&rows, keys)
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
        let mut params = location(ns, key);
        params.extend([param(ValueParam(value)), param(version_uuid(version))]);
        params.extend(ExpiryColumns::new(options.expiry()).params());
        if condition == Condition::Always {
            self.caller.call(ctx, Write, Function::Put, params).await?;
            return Ok(version);
        }
        params.extend(arguments::condition(condition));
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
        if condition == Condition::Always {
            let rows = self.caller.call(ctx, Write, Function::Delete, params).await?;
            return rows::scalar(&rows);
        }
        params.extend(arguments::condition(condition));
        let rows = self.caller.call(ctx, Write, Function::DeleteIf, params).await?;
        let row = rows::first(&rows)?;
        if rows::column(row, "held")? {
            return Ok(condition != Condition::IfAbsent);
        }
        Err(Error::conflict(rows::version(row, "current")?))
    }

    pub(crate) async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        batch: Batch<Bytes>,
    ) -> Result<Vec<Written>> {
        self.caller.begin(ctx).await?;
        batch.check(self.max_value_bytes, |value| Some(value.len()))?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let (params, written) = arguments::batch(ns, batch);
        let rows = self.caller.call(ctx, Write, Function::WriteBatch, params).await?;
        rows::batch_outcome(&rows, written)
    }

    pub(crate) async fn touch(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        new_expiry: Expiry,
        condition: Condition,
    ) -> Result<bool> {
        self.caller.begin(ctx).await?;
        check_key(key)?;
        new_expiry.check()?;
        let mut params = location(ns, key);
        params.extend(ExpiryColumns::new(new_expiry).params());
        params.extend(arguments::condition(condition));
        let rows = self.caller.call(ctx, Write, Function::Touch, params).await?;
        let row = rows::first(&rows)?;
        if rows::column(row, "held")? {
            return rows::column(row, "touched");
        }
        Err(Error::conflict(rows::version(row, "current")?))
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
        let (mut start, mut end) = (prefix.to_owned(), prefix_end(prefix));
        match options.after() {
            Some(after) if options.is_reversed() => {
                let after = after.to_owned();
                end = Some(match end {
                    Some(end) => end.min(after),
                    None => after,
                });
            }
            // No key contains NUL, so every key greater than `after` is at least `after` and U+0001.
            Some(after) => start = start.max(format!("{after}\u{1}")),
            None => {}
        }
        let mut params = location(ns, &start);
        params.push(param(end));
        params.extend(page_params(options.limit(), options.values()));
        params.push(param(options.is_reversed()));
        let function =
            if options.is_refreshing() { Function::ScanRefreshing } else { Function::Scan };
        let effect = read_effect(options.is_refreshing());
        let rows = self.caller.call(ctx, effect, function, params).await?;
        rows::page(&rows, options.values())
    }

    pub(crate) async fn scan_recursive(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        options: RecursiveScanOptions,
    ) -> Result<Page<(Namespace, ScanItem<Bytes>), Position>> {
        self.caller.begin(ctx).await?;
        options.check(prefix)?;
        let mut params = arguments::prefix(prefix);
        let after = options.after();
        params.push(param(after.map(|after| NamespaceParam(after.namespace.clone()))));
        params.push(param(after.map(|after| after.key.clone())));
        params.extend(page_params(options.limit(), options.values()));
        let rows = self.caller.call(ctx, Read, Function::ScanRecursive, params).await?;
        rows::recursive_page(&rows, options.values())
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

    pub(crate) async fn delete_prefix(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key_prefix: &str,
        limit: usize,
    ) -> Result<Erased> {
        self.caller.begin(ctx).await?;
        check_prefix(Some(key_prefix))?;
        check_page_limit(limit)?;
        let mut params = location(ns, key_prefix);
        params.push(param(prefix_end(key_prefix)));
        params.push(param(i64::try_from(limit).unwrap_or(i64::MAX)));
        let rows = self.caller.call(ctx, Write, Function::DeletePrefix, params).await?;
        rows::erased(&rows)
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

/// The TTL to extend to, and whether to restart idle TTLs.
fn read_params(options: GetOptions) -> [Param; 2] {
    [param(options.extended_ttl().map(ttl_millis)), param(options.is_refreshing())]
}

/// The effect of a read that may extend an expiry: a lost connection then leaves its outcome unknown.
fn read_effect(may_write: bool) -> Effect {
    if may_write { Write } else { Read }
}

/// The limits of a page and whether it has values.
fn page_params(limit: usize, values: bool) -> [Param; 3] {
    [
        param(i32::try_from(limit_plus_one(limit)).unwrap_or(i32::MAX)),
        param(i64::try_from(MAX_PAGE_BYTES).unwrap_or(i64::MAX)),
        param(values),
    ]
}
