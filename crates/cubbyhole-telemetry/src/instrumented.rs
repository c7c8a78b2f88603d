//! `Instrumented`: the layer that reports every method of a store.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use cubbyhole_core::{
    Backend, Batch, Compaction, Condition, Entry, EntryStat, EntryStore, Erased, Error,
    ExecutionContext, Expiry, GetOptions, Namespace, NamespacePrefix, Page, Position, PutOptions,
    RecursiveScanOptions, Result, ScanItem, ScanOptions, Store, TenantId, Timestamp, Usage,
    Version, Written,
};

use crate::call::Call;
use crate::operation::Operation;
use crate::outcome::Summary;
use crate::signals::{Signals, describe_metrics};

/// A store that emits a span, an event and metrics for every call to the store that it wraps.
///
/// The [crate documentation](crate) lists them. The layer changes no argument and no result.
///
/// `cubbyhole::open` returns wrapped stores. Wrap a store that you build yourself, and wrap it only
/// once: two layers count each call twice. A layer above `Typed` also reports values that the codec
/// rejects; a layer below it reports only the calls of the backend.
///
/// ```
/// use cubbyhole_core::{ExecutionContext, Namespace, Store};
/// use cubbyhole_memory::InMemoryStore;
/// use cubbyhole_telemetry::Instrumented;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let store = Instrumented::new(InMemoryStore::<u64>::new(), "memory");
/// let ctx = ExecutionContext::new();
/// let ns = Namespace::parse("acme:counters")?;
///
/// // Counted as cubbyhole_operations_total{backend="memory",operation="get",outcome="not_found"}
/// assert_eq!(store.get(&ctx, &ns, "visits").await?, None);
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Clone)]
pub struct Instrumented<S> {
    inner: S,
    signals: Arc<Signals>,
}

impl<S> Instrumented<S> {
    /// Wraps `inner`.
    ///
    /// `backend` names the store in every span, event and label. Use one of a few fixed names, such
    /// as `memory` or `redis`, and never a URL, which may contain a password.
    #[must_use]
    pub fn new(inner: S, backend: impl Into<Arc<str>>) -> Self {
        Self::with_signals(inner, Signals::new(backend.into()))
    }

    /// Awaits `opening`, reports it as the operation `open`, and wraps the opened store.
    ///
    /// # Errors
    /// The errors of `opening`.
    ///
    /// ```
    /// use cubbyhole_core::{Error, ErrorKind};
    /// use cubbyhole_memory::InMemoryStore;
    /// use cubbyhole_telemetry::Instrumented;
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let opening = async { Err::<InMemoryStore<u64>, _>(Error::unavailable("no such server")) };
    /// let opened = Instrumented::open(opening, "ours").await;
    /// assert_eq!(opened.err().map(|error| error.kind()), Some(ErrorKind::Unavailable));
    /// # });
    /// ```
    pub async fn open(
        opening: impl Future<Output = Result<S>>,
        backend: impl Into<Arc<str>>,
    ) -> Result<Self> {
        let signals = Signals::new(backend.into());
        let call = Call::begin(&signals, Operation::Open, None);
        let inner = call.run(opening, Summary::done).await?;
        Ok(Self::with_signals(inner, signals))
    }

    /// Returns the wrapped store. Calls on it are not reported.
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    /// Unwraps the store.
    pub fn into_inner(self) -> S {
        self.inner
    }

    fn with_signals(inner: S, signals: Signals) -> Self {
        describe_metrics();
        Self { inner, signals: Arc::new(signals) }
    }

    fn call<'a>(&'a self, operation: Operation, ns: Option<&'a Namespace>) -> Call<'a> {
        Call::begin(&self.signals, operation, ns)
    }
}

impl<S: fmt::Debug> fmt::Debug for Instrumented<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instrumented")
            .field("inner", &self.inner)
            .field("backend", &self.signals.backend())
            .finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<V: Send + 'static, S: Store<V>> Store<V> for Instrumented<S> {
    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: V,
        options: PutOptions,
    ) -> Result<()> {
        let call = self.call(Operation::Put, Some(ns));
        call.run(self.inner.put_with_options(ctx, ns, key, value, options), Summary::done).await
    }

    async fn get(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<Option<V>> {
        let call = self.call(Operation::Get, Some(ns));
        call.run(self.inner.get(ctx, ns, key), Summary::option).await
    }

    async fn delete(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<()> {
        let call = self.call(Operation::Delete, Some(ns));
        call.run(self.inner.delete(ctx, ns, key), Summary::done).await
    }

    async fn list(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        prefix: Option<&str>,
    ) -> Result<Vec<String>> {
        let call = self.call(Operation::List, Some(ns));
        call.run(self.inner.list(ctx, ns, prefix), Summary::done).await
    }

    async fn put(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str, value: V) -> Result<()> {
        let call = self.call(Operation::Put, Some(ns));
        call.run(self.inner.put(ctx, ns, key, value), Summary::done).await
    }

    async fn list_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
    ) -> Result<Vec<Namespace>> {
        let call = self.call(Operation::ListNamespaces, Some(prefix.as_namespace()));
        call.run(self.inner.list_namespaces(ctx, prefix), Summary::done).await
    }

    async fn evict_expired(&self, ctx: &ExecutionContext) -> Result<usize> {
        let call = self.call(Operation::EvictExpired, None);
        let removed = |removed: &usize| Summary::Removed(*removed as u64);
        call.run(self.inner.evict_expired(ctx), removed).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<V: Send + 'static, S: EntryStore<V>> EntryStore<V> for Instrumented<S> {
    async fn get_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<V>>> {
        let call = self.call(Operation::GetEntry, Some(ns));
        call.run(self.inner.get_entry(ctx, ns, key, options), Summary::option).await
    }

    async fn get_many(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
        options: GetOptions,
    ) -> Result<Vec<Result<Option<Entry<V>>>>> {
        let call = self.call(Operation::GetMany, Some(ns));
        let errors = |answers: &Vec<Result<Option<Entry<V>>>>| {
            Summary::values(answers.iter().filter_map(|answer| answer.as_ref().err()))
        };
        call.run(self.inner.get_many(ctx, ns, keys, options), errors).await
    }

    async fn stat(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Option<EntryStat>>> {
        let call = self.call(Operation::Stat, Some(ns));
        call.run(self.inner.stat(ctx, ns, keys), Summary::done).await
    }

    async fn put_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: V,
        options: PutOptions,
        condition: Condition,
    ) -> Result<Version> {
        let call = self.call(Operation::PutEntry, Some(ns));
        let putting = self.inner.put_entry(ctx, ns, key, value, options, condition);
        call.run(putting, Summary::done).await
    }

    async fn delete_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        condition: Condition,
    ) -> Result<bool> {
        let call = self.call(Operation::DeleteEntry, Some(ns));
        let found = |found: &bool| Summary::Found(*found);
        call.run(self.inner.delete_entry(ctx, ns, key, condition), found).await
    }

    async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        batch: Batch<V>,
    ) -> Result<Vec<Written>> {
        let call = self.call(Operation::Write, Some(ns));
        call.run(self.inner.write(ctx, ns, batch), Summary::done).await
    }

    async fn scan(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        options: ScanOptions,
    ) -> Result<Page<ScanItem<V>, String>> {
        let call = self.call(Operation::Scan, Some(ns));
        let errors =
            |page: &Page<ScanItem<V>, String>| Summary::values(page.items.iter().filter_map(error));
        call.run(self.inner.scan(ctx, ns, options), errors).await
    }

    async fn scan_recursive(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        options: RecursiveScanOptions,
    ) -> Result<Page<(Namespace, ScanItem<V>), Position>> {
        let call = self.call(Operation::ScanRecursive, Some(prefix.as_namespace()));
        let errors = |page: &Page<(Namespace, ScanItem<V>), Position>| {
            Summary::values(page.items.iter().filter_map(|(_, item)| error(item)))
        };
        call.run(self.inner.scan_recursive(ctx, prefix, options), errors).await
    }

    async fn scan_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        after: Option<&Namespace>,
        limit: usize,
    ) -> Result<Page<Namespace>> {
        let call = self.call(Operation::ScanNamespaces, Some(prefix.as_namespace()));
        call.run(self.inner.scan_namespaces(ctx, prefix, after, limit), Summary::done).await
    }

    async fn scan_tenants(
        &self,
        ctx: &ExecutionContext,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<Page<TenantId>> {
        let call = self.call(Operation::ScanTenants, None);
        call.run(self.inner.scan_tenants(ctx, after, limit), Summary::done).await
    }

    async fn touch(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        expiry: Expiry,
        condition: Condition,
    ) -> Result<bool> {
        let call = self.call(Operation::Touch, Some(ns));
        let found = |found: &bool| Summary::Found(*found);
        call.run(self.inner.touch(ctx, ns, key, expiry, condition), found).await
    }

    async fn take(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Entry<V>>> {
        let call = self.call(Operation::Take, Some(ns));
        call.run(self.inner.take(ctx, ns, key), Summary::option).await
    }

    async fn delete_prefix(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key_prefix: &str,
        limit: usize,
    ) -> Result<Erased> {
        let call = self.call(Operation::DeletePrefix, Some(ns));
        let removed = |erased: &Erased| Summary::Removed(erased.removed);
        call.run(self.inner.delete_prefix(ctx, ns, key_prefix, limit), removed).await
    }

    async fn erase(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        limit: usize,
    ) -> Result<Erased> {
        let call = self.call(Operation::Erase, Some(prefix.as_namespace()));
        let removed = |erased: &Erased| Summary::Removed(erased.removed);
        call.run(self.inner.erase(ctx, prefix, limit), removed).await
    }

    async fn usage(&self, ctx: &ExecutionContext, prefix: &NamespacePrefix) -> Result<Usage> {
        let call = self.call(Operation::Usage, Some(prefix.as_namespace()));
        call.run(self.inner.usage(ctx, prefix), Summary::done).await
    }

    async fn current_time(&self, ctx: &ExecutionContext, ns: &Namespace) -> Result<Timestamp> {
        let call = self.call(Operation::CurrentTime, Some(ns));
        call.run(self.inner.current_time(ctx, ns), Summary::done).await
    }

    fn max_value_bytes(&self) -> Option<usize> {
        self.inner.max_value_bytes()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Backend> Backend for Instrumented<S> {
    async fn close(&self, ctx: &ExecutionContext) -> Result<()> {
        let call = self.call(Operation::Close, None);
        call.run(self.inner.close(ctx), Summary::done).await
    }

    async fn compact(&self, ctx: &ExecutionContext) -> Result<Compaction> {
        let call = self.call(Operation::Compact, None);
        call.run(self.inner.compact(ctx), Summary::done).await
    }
}

/// The error of the item's value.
fn error<V>(item: &ScanItem<V>) -> Option<&Error> {
    item.value.as_ref().and_then(|value| value.as_ref().err())
}
