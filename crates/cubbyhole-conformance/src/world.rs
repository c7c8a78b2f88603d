//! The fixture of a case.

mod concurrent;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::{
    Condition, Entry, EntryStore, ErrorKind, ExecutionContext, Expiry, GetOptions, Namespace,
    NamespacePrefix, Page, Position, PutOptions, RecursiveScanOptions, Result, ScanItem,
    ScanOptions, Store, TenantId, Timestamp, Version,
};

use crate::calls::CallTarget;
use crate::outcome::{Outcome, Stop};
use crate::{Capabilities, Harness, Sample};

/// The fixture of a case: a store, a fresh tenant in it, and the clock of the harness.
pub(crate) struct World<V: Sample> {
    harness: Arc<dyn Harness<Value = V>>,
    capabilities: Arc<Capabilities>,
    store: Arc<dyn EntryStore<V>>,
    tenant: TenantId,
    ctx: ExecutionContext,
}

impl<V: Sample> Clone for World<V> {
    fn clone(&self) -> Self {
        Self {
            harness: Arc::clone(&self.harness),
            capabilities: Arc::clone(&self.capabilities),
            store: Arc::clone(&self.store),
            tenant: self.tenant.clone(),
            ctx: self.ctx.clone(),
        }
    }
}

impl<V: Sample> fmt::Debug for World<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl<V: Sample> World<V> {
    pub(crate) fn new(
        harness: Arc<dyn Harness<Value = V>>,
        store: Arc<dyn EntryStore<V>>,
    ) -> Result<Self> {
        Ok(Self {
            capabilities: Arc::new(harness.capabilities()),
            harness,
            store,
            tenant: fresh_tenant()?,
            ctx: ExecutionContext::new(),
        })
    }

    /// Returns the fixture for the same store with another fresh tenant.
    pub(crate) fn with_fresh_tenant(&self) -> Result<Self> {
        Ok(Self { tenant: fresh_tenant()?, ..self.clone() })
    }

    pub(crate) fn store(&self) -> &Arc<dyn EntryStore<V>> {
        &self.store
    }

    /// Returns a target for calls of every method, with a separate context.
    pub(crate) fn target(&self) -> Result<CallTarget<V>> {
        Ok(CallTarget {
            store: Arc::clone(&self.store),
            ctx: self.ctx.child(),
            ns: self.ns(&["calls"])?,
            empty_prefix: fresh_tenant()?.into(),
        })
    }

    /// Returns the same target for a closed store.
    pub(crate) async fn closed(&self) -> Outcome<CallTarget<V>> {
        let closed = self.harness.closed_store().await;
        let store = closed.ok_or_else(|| {
            Stop::ignored("the harness has no closed store: `Harness::closed_store`")
        })?;
        Ok(CallTarget { store, ..self.target()? })
    }

    pub(crate) fn core(&self) -> Arc<dyn Store<V>> {
        Arc::clone(&self.store) as Arc<dyn Store<V>>
    }

    pub(crate) fn ctx(&self) -> &ExecutionContext {
        &self.ctx
    }

    pub(crate) fn can(&self) -> &Capabilities {
        &self.capabilities
    }

    // Names.

    pub(crate) fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Returns another tenant: the name of the case's tenant, followed by `suffix`.
    pub(crate) fn tenant_with(&self, suffix: &str) -> Result<TenantId> {
        TenantId::new(format!("{}{suffix}", self.tenant.as_str()))
    }

    /// Returns the namespace of the case's tenant and these segments.
    pub(crate) fn ns(&self, segments: &[&str]) -> Result<Namespace> {
        Namespace::from_parts(self.tenant.as_str(), segments)
    }

    /// Returns the prefix that matches all data of the case's tenant.
    pub(crate) fn everything(&self) -> NamespacePrefix {
        self.tenant.clone().into()
    }

    // Capabilities. Without them, the case is ignored.

    pub(crate) fn needs_namespaces(&self) -> Outcome {
        self.needs(self.capabilities.lists_namespaces, "the store does not list namespaces")
    }

    pub(crate) fn needs_kept_expired(&self) -> Outcome {
        self.needs(self.capabilities.keeps_expired, "the store does not keep expired entries")
    }

    pub(crate) fn needs_tenants(&self) -> Outcome {
        self.needs(self.capabilities.sees_tenants, "the role is not allowed to see across tenants")
    }

    pub(crate) fn needs_context(&self) -> Outcome {
        self.needs(self.capabilities.honours_context, "the store ignores its context")
    }

    pub(crate) fn needs_put_options(&self) -> Outcome {
        self.needs(
            self.capabilities.all_put_options,
            "the store supports no write option except the TTL",
        )
    }

    pub(crate) fn needs_exact_clock(&self) -> Outcome {
        self.needs(
            self.capabilities.real_time.is_none(),
            "needs a clock that the harness can move, to be exact to the millisecond",
        )
    }

    /// Returns the size limit of values.
    pub(crate) fn needs_value_limit(&self) -> Outcome<usize> {
        self.needs(self.capabilities.knows_value_bytes, "the store does not know value sizes")?;
        Ok(self.capabilities.max_value_bytes)
    }

    pub(crate) fn needs_value_sizes(&self) -> Outcome {
        self.needs_value_limit()?;
        let reports = self.capabilities.reports_value_sizes;
        self.needs(reports, "the store reports the sizes of its stored form")
    }

    /// Returns a value with exactly this encoded size.
    pub(crate) fn sized(&self, bytes: usize) -> Outcome<V> {
        V::sized(bytes).ok_or_else(|| {
            Stop::ignored("the value type has no values of a given size: `Sample::sized`")
        })
    }

    fn needs(&self, has: bool, reason: &str) -> Outcome {
        if has { Ok(()) } else { Err(Stop::ignored(reason)) }
    }

    // Time.

    /// Returns a TTL that ends during [`expire`](Self::expire).
    pub(crate) fn short(&self) -> Duration {
        self.capabilities.real_time.unwrap_or(Duration::from_secs(1))
    }

    /// Returns a TTL that is longer than any case.
    pub(crate) fn long(&self) -> Duration {
        Duration::from_secs(86_400)
    }

    /// Advances the clock until every [`short`](Self::short) TTL has ended.
    pub(crate) async fn expire(&self) {
        let margin = self.capabilities.real_time.unwrap_or_default();
        self.harness.advance(self.short() + margin).await;
    }

    /// Sets the clock back without time passing. The case is ignored if the harness cannot do this.
    pub(crate) async fn set_clock_back(&self, duration: Duration) -> Outcome {
        let done = self.harness.set_clock_back(duration).await;
        self.needs(done, "needs a clock that the harness can set back: `Harness::set_clock_back`")
    }

    /// Runs steps that must end before the first [`short`](Self::short) TTL that they set. With a
    /// real clock, a busy machine may be too slow, so the steps are repeated until they are fast
    /// enough.
    pub(crate) async fn in_time<T, F>(&self, steps: impl Fn() -> F) -> Outcome<T>
    where
        F: Future<Output = Outcome<T>>,
    {
        const MAX_ATTEMPTS: usize = 20;
        let Some(short) = self.capabilities.real_time else {
            return steps().await;
        };
        for _ in 1..MAX_ATTEMPTS {
            let limit = self.ctx.child().with_timeout(short);
            let outcome = steps().await;
            if limit.check().is_ok() {
                return outcome;
            }
        }
        steps().await
    }

    pub(crate) async fn advance_millis(&self, millis: u64) {
        self.harness.advance(Duration::from_millis(millis)).await;
    }

    // Calls that most cases make. A number selects a sample value.

    pub(crate) async fn put(&self, ns: &Namespace, key: &str, number: u64) -> Result<()> {
        self.store.put(&self.ctx, ns, key, V::sample(number)).await
    }

    pub(crate) async fn put_all(&self, ns: &Namespace, keys: &[&str]) -> Result<()> {
        for (number, key) in keys.iter().enumerate() {
            self.put(ns, key, number as u64).await?;
        }
        Ok(())
    }

    pub(crate) async fn put_for(
        &self,
        ns: &Namespace,
        key: &str,
        number: u64,
        ttl: Duration,
    ) -> Result<()> {
        let options = PutOptions::new().with_ttl(ttl);
        self.store.put_with_options(&self.ctx, ns, key, V::sample(number), options).await
    }

    /// Writes an entry with an expiry in the past, so the case need not wait.
    pub(crate) async fn put_expired(&self, ns: &Namespace, key: &str) -> Result<Version> {
        let options = PutOptions::new().with_expires_at(Timestamp::EPOCH);
        self.put_entry(ns, key, 0, options, Condition::Always).await
    }

    pub(crate) async fn put_entry(
        &self,
        ns: &Namespace,
        key: &str,
        number: u64,
        options: PutOptions,
        condition: Condition,
    ) -> Result<Version> {
        let value = V::sample(number);
        self.store.put_entry(&self.ctx, ns, key, value, options, condition).await
    }

    pub(crate) async fn get(&self, ns: &Namespace, key: &str) -> Result<Option<V>> {
        self.store.get(&self.ctx, ns, key).await
    }

    /// Returns the number of the sample value at a key, or `None` if the key is absent.
    pub(crate) async fn number(&self, ns: &Namespace, key: &str) -> Outcome<Option<u64>> {
        let Some(value) = self.get(ns, key).await? else {
            return Ok(None);
        };
        number_of(&value).map(Some)
    }

    pub(crate) async fn entry(&self, ns: &Namespace, key: &str) -> Result<Option<Entry<V>>> {
        self.store.get_entry(&self.ctx, ns, key, GetOptions::new()).await
    }

    /// Returns the entry at a key. The case fails if the key is absent.
    pub(crate) async fn live(&self, ns: &Namespace, key: &str) -> Outcome<Entry<V>> {
        let entry = self.entry(ns, key).await?;
        entry.ok_or_else(|| {
            Stop::failed(format!("the entry {key:?} in {ns:?} must exist, but is absent"))
        })
    }

    /// Touches an entry without a condition.
    pub(crate) async fn touch(&self, ns: &Namespace, key: &str, expiry: Expiry) -> Result<bool> {
        self.store.touch(&self.ctx, ns, key, expiry, Condition::Always).await
    }

    pub(crate) async fn get_many(
        &self,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Result<Option<Entry<V>>>>> {
        self.store.get_many(&self.ctx, ns, keys, GetOptions::new()).await
    }

    pub(crate) async fn delete(&self, ns: &Namespace, key: &str) -> Result<()> {
        self.store.delete(&self.ctx, ns, key).await
    }

    /// Returns the keys, sorted: `Store` does not define an order.
    pub(crate) async fn list(&self, ns: &Namespace, prefix: Option<&str>) -> Result<Vec<String>> {
        let mut keys = self.store.list(&self.ctx, ns, prefix).await?;
        keys.sort_unstable();
        Ok(keys)
    }

    pub(crate) async fn namespaces(&self, prefix: &NamespacePrefix) -> Result<Vec<Namespace>> {
        self.store.list_namespaces(&self.ctx, prefix).await
    }

    pub(crate) async fn page(
        &self,
        ns: &Namespace,
        options: ScanOptions,
    ) -> Result<Page<ScanItem<V>, String>> {
        self.store.scan(&self.ctx, ns, options).await
    }

    /// Returns all items of a scan, page by page.
    pub(crate) async fn pages(
        &self,
        ns: &Namespace,
        mut options: ScanOptions,
    ) -> Outcome<Vec<ScanItem<V>>> {
        let mut items = Vec::new();
        loop {
            let page = self.page(ns, options.clone()).await?;
            if page.items.len() > options.limit() {
                return Err(Stop::failed(format!(
                    "a page with limit {} has {} items",
                    options.limit(),
                    page.items.len()
                )));
            }
            items.extend(page.items);
            let Some(next) = page.next else {
                return Ok(items);
            };
            let is_behind = |after: &str| match options.is_reversed() {
                true => *after <= *next,
                false => *after >= *next,
            };
            if options.after().is_some_and(is_behind) {
                return Err(Stop::failed(format!(
                    "`next` must be after `after`, but it is {next:?}: the scan would not end"
                )));
            }
            options = options.with_after(next);
        }
    }

    pub(crate) async fn recursive_page(
        &self,
        prefix: &NamespacePrefix,
        options: RecursiveScanOptions,
    ) -> Result<Page<(Namespace, ScanItem<V>), Position>> {
        self.store.scan_recursive(&self.ctx, prefix, options).await
    }

    /// Returns all items of a recursive scan, page by page.
    pub(crate) async fn recursive_pages(
        &self,
        prefix: &NamespacePrefix,
        mut options: RecursiveScanOptions,
    ) -> Outcome<Vec<(Namespace, ScanItem<V>)>> {
        let place = |at: &Position| (at.namespace.as_str().to_owned(), at.key.clone());
        let mut items = Vec::new();
        loop {
            let page = self.recursive_page(prefix, options.clone()).await?;
            if page.items.len() > options.limit() {
                return Err(Stop::failed(format!(
                    "a page with limit {} has {} items",
                    options.limit(),
                    page.items.len()
                )));
            }
            items.extend(page.items);
            let Some(next) = page.next else {
                return Ok(items);
            };
            if options.after().is_some_and(|after| place(after) >= place(&next)) {
                return Err(Stop::failed(format!(
                    "`next` must be after `after`, but it is {next:?}: the scan would not end"
                )));
            }
            options = options.with_after(next);
        }
    }

    /// Returns all namespaces under a prefix, page by page.
    pub(crate) async fn namespace_pages(
        &self,
        prefix: &NamespacePrefix,
        limit: usize,
    ) -> Outcome<Vec<Namespace>> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let page = self.store.scan_namespaces(&self.ctx, prefix, after.as_ref(), limit).await?;
            after = add_page(&mut all, page, limit, after.as_ref())?;
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    /// Returns all tenants, page by page.
    pub(crate) async fn tenant_pages(&self, limit: usize) -> Outcome<Vec<TenantId>> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let page = self.store.scan_tenants(&self.ctx, after.as_ref(), limit).await?;
            after = add_page(&mut all, page, limit, after.as_ref())?;
            if after.is_none() {
                return Ok(all);
            }
        }
    }
}

/// Adds the items of a page to `all`, and returns the start of the next page. Checks the size of
/// the page, and that the next page is after this one.
fn add_page<T: Ord>(
    all: &mut Vec<T>,
    page: Page<T>,
    limit: usize,
    after: Option<&T>,
) -> Outcome<Option<T>> {
    if page.items.len() > limit {
        let items = page.items.len();
        return Err(Stop::failed(format!("a page with limit {limit} has {items} items")));
    }
    all.extend(page.items);
    if page.next.is_some() && page.next.as_ref() <= after {
        return Err(Stop::failed("`next` must be after `after`: the scan would not end"));
    }
    Ok(page.next)
}

/// Returns the number of a sample value that a case wrote. Cases use numbers below 2000.
pub(crate) fn number_of<V: Sample>(value: &V) -> Outcome<u64> {
    (0..2000)
        .find(|number| V::sample(*number) == *value)
        .ok_or_else(|| Stop::failed("the store returns a value that the case did not write"))
}

/// Returns a tenant that no other case and no earlier run has used.
fn fresh_tenant() -> Result<TenantId> {
    TenantId::new(format!("case-{}", Version::draw()))
}

/// Returns true if an error is a conflict: a condition does not hold.
pub(crate) fn is_conflict(error: &cubbyhole_core::Error) -> bool {
    error.kind() == ErrorKind::Conflict
}
