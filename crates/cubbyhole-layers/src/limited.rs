//! `Limited`: value sizes, call rates and concurrency for each tenant.

mod limits;
mod tenants;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use cubbyhole_core::{
    Backend, Batch, Bytes, Clock, Condition, Entry, EntryStat, EntryStore, Erased, Error,
    ExecutionContext, Expiry, GetOptions, Namespace, NamespacePrefix, Operation, Page, Position,
    PutOptions, RecursiveScanOptions, Result, ResultExt, ScanItem, ScanOptions, Store, SystemClock,
    Timestamp, Usage, Version, Written, delegate,
};

pub use limits::Limits;
use tenants::{Permit, Tenants};

/// A layer that limits each tenant separately: the size of its values, its rate of calls, and its
/// calls in flight.
///
/// A call beyond a limit is refused before any work. It never waits in a queue.
///
/// | limit | error | [`retry_after`](Error::retry_after) |
/// |---|---|---|
/// | value size | `InvalidArgument` | none |
/// | rate | `RateLimited` | the time until the next call is admitted |
/// | concurrency | `RateLimited` | none: the end of a call in flight is unknown |
///
/// A call counts once, whether it succeeds or not, and regardless of how many keys it names. A batch
/// and [`get_many`](EntryStore::get_many) are therefore one call. A call that is refused for its value
/// or for concurrency does not count. A call ends when its future completes or is dropped.
///
/// Calls that name no tenant are not limited: [`scan_tenants`](EntryStore::scan_tenants),
/// [`evict_expired`](Store::evict_expired), [`close`](Backend::close) and
/// [`compact`](Backend::compact).
///
/// The limits are those of this process: two processes admit twice as much. Clones share them. The
/// layer keeps a state of about 200 bytes for each tenant that called recently: at most 1,024 states,
/// or twice as many as tenants were active at the same time.
///
/// ```
/// use cubbyhole_core::{Bytes, ErrorKind, ExecutionContext, Namespace, Store};
/// use cubbyhole_layers::{Limited, Limits};
/// use cubbyhole_memory::InMemoryStore;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole_core::Result<()> {
/// let limits = Limits::new().with_value_bytes(1024).with_rate(1, Some(2));
/// let store = Limited::new(InMemoryStore::<Bytes>::new(), limits)?;
///
/// let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme:agent-7")?);
/// store.get(&ctx, &ns, "a").await?;
/// store.get(&ctx, &ns, "b").await?;
/// let refused = store.get(&ctx, &ns, "c").await.unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::RateLimited);
/// assert!(refused.retry_after().is_some());
///
/// let other = Namespace::parse("globex:agent-7")?;
/// store.get(&ctx, &other, "a").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Limited<S> {
    inner: S,
    value_bytes: Option<usize>,
    /// Shared by all clones.
    tenants: Arc<Tenants>,
}

impl<S> Limited<S> {
    /// Wraps `inner`.
    ///
    /// # Errors
    /// The errors of [`Limits::check`].
    pub fn new(inner: S, limits: Limits) -> Result<Self> {
        Self::with_clock(inner, limits, SystemClock)
    }

    /// Wraps `inner`. The [monotonic time](Clock::elapsed) of `clock` decides rates.
    ///
    /// # Errors
    /// The errors of [`Limits::check`].
    pub fn with_clock(inner: S, limits: Limits, clock: impl Clock) -> Result<Self> {
        limits.check()?;
        let tenants = Arc::new(Tenants::new(limits, Arc::new(clock)));
        Ok(Self { inner, value_bytes: limits.value_bytes, tenants })
    }

    /// Returns the inner store.
    #[must_use]
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    async fn admit(
        &self,
        ctx: &ExecutionContext,
        operation: &'static str,
        ns: &Namespace,
    ) -> Result<Permit> {
        self.admit_with(ctx, operation, ns, 0).await
    }

    /// Admits a call with values of at most `value_bytes`.
    async fn admit_with(
        &self,
        ctx: &ExecutionContext,
        operation: &'static str,
        ns: &Namespace,
        value_bytes: usize,
    ) -> Result<Permit> {
        let admitted = match self.value_bytes {
            Some(limit) if value_bytes > limit => Err(Error::invalid_argument(format!(
                "the value has {value_bytes} bytes, more than the limit of {limit} for a tenant \
                 (value_bytes)"
            ))),
            _ => self.tenants.admit(ns.as_str()),
        };
        match admitted {
            Ok(permit) => Ok(permit),
            // The inner store does this for the calls that it sees.
            Err(error) => ctx.begin().await.and(Err(error)).in_operation(operation),
        }
    }
}

fn value_bytes(operation: &Operation<Bytes>) -> usize {
    match operation {
        Operation::Put { value, .. } => value.len(),
        Operation::Delete { .. } => 0,
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: EntryStore<Bytes>> Store<Bytes> for Limited<S> {
    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
        options: PutOptions,
    ) -> Result<()> {
        let _permit = self.admit_with(ctx, "put", ns, value.len()).await?;
        self.inner.put_with_options(ctx, ns, key, value, options).await
    }

    async fn get(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Bytes>> {
        let _permit = self.admit(ctx, "get", ns).await?;
        self.inner.get(ctx, ns, key).await
    }

    async fn delete(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<()> {
        let _permit = self.admit(ctx, "delete", ns).await?;
        self.inner.delete(ctx, ns, key).await
    }

    async fn list(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        prefix: Option<&str>,
    ) -> Result<Vec<String>> {
        let _permit = self.admit(ctx, "list", ns).await?;
        self.inner.list(ctx, ns, prefix).await
    }

    async fn put(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
    ) -> Result<()> {
        let _permit = self.admit_with(ctx, "put", ns, value.len()).await?;
        self.inner.put(ctx, ns, key, value).await
    }

    async fn list_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
    ) -> Result<Vec<Namespace>> {
        let _permit = self.admit(ctx, "list_namespaces", prefix.as_namespace()).await?;
        self.inner.list_namespaces(ctx, prefix).await
    }

    delegate!(Bytes, |layer| layer.inner => evict_expired);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: EntryStore<Bytes>> EntryStore<Bytes> for Limited<S> {
    async fn get_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<Bytes>>> {
        let _permit = self.admit(ctx, "get_entry", ns).await?;
        self.inner.get_entry(ctx, ns, key, options).await
    }

    async fn get_many(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
        options: GetOptions,
    ) -> Result<Vec<Result<Option<Entry<Bytes>>>>> {
        let _permit = self.admit(ctx, "get_many", ns).await?;
        self.inner.get_many(ctx, ns, keys, options).await
    }

    async fn stat(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Option<EntryStat>>> {
        let _permit = self.admit(ctx, "stat", ns).await?;
        self.inner.stat(ctx, ns, keys).await
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
        let _permit = self.admit_with(ctx, "put_entry", ns, value.len()).await?;
        self.inner.put_entry(ctx, ns, key, value, options, condition).await
    }

    async fn delete_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        condition: Condition,
    ) -> Result<bool> {
        let _permit = self.admit(ctx, "delete_entry", ns).await?;
        self.inner.delete_entry(ctx, ns, key, condition).await
    }

    async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        batch: Batch<Bytes>,
    ) -> Result<Vec<Written>> {
        let longest = batch.operations().iter().map(value_bytes).max().unwrap_or(0);
        let _permit = self.admit_with(ctx, "write", ns, longest).await?;
        self.inner.write(ctx, ns, batch).await
    }

    async fn scan(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        options: ScanOptions,
    ) -> Result<Page<ScanItem<Bytes>, String>> {
        let _permit = self.admit(ctx, "scan", ns).await?;
        self.inner.scan(ctx, ns, options).await
    }

    async fn scan_recursive(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        options: RecursiveScanOptions,
    ) -> Result<Page<(Namespace, ScanItem<Bytes>), Position>> {
        let _permit = self.admit(ctx, "scan_recursive", prefix.as_namespace()).await?;
        self.inner.scan_recursive(ctx, prefix, options).await
    }

    async fn scan_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        after: Option<&Namespace>,
        limit: usize,
    ) -> Result<Page<Namespace>> {
        let _permit = self.admit(ctx, "scan_namespaces", prefix.as_namespace()).await?;
        self.inner.scan_namespaces(ctx, prefix, after, limit).await
    }

    async fn touch(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        expiry: Expiry,
        condition: Condition,
    ) -> Result<bool> {
        let _permit = self.admit(ctx, "touch", ns).await?;
        self.inner.touch(ctx, ns, key, expiry, condition).await
    }

    async fn take(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Entry<Bytes>>> {
        let _permit = self.admit(ctx, "take", ns).await?;
        self.inner.take(ctx, ns, key).await
    }

    async fn delete_prefix(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key_prefix: &str,
        limit: usize,
    ) -> Result<Erased> {
        let _permit = self.admit(ctx, "delete_prefix", ns).await?;
        self.inner.delete_prefix(ctx, ns, key_prefix, limit).await
    }

    async fn erase(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        limit: usize,
    ) -> Result<Erased> {
        let _permit = self.admit(ctx, "erase", prefix.as_namespace()).await?;
        self.inner.erase(ctx, prefix, limit).await
    }

    async fn usage(&self, ctx: &ExecutionContext, prefix: &NamespacePrefix) -> Result<Usage> {
        let _permit = self.admit(ctx, "usage", prefix.as_namespace()).await?;
        self.inner.usage(ctx, prefix).await
    }

    async fn current_time(&self, ctx: &ExecutionContext, ns: &Namespace) -> Result<Timestamp> {
        let _permit = self.admit(ctx, "current_time", ns).await?;
        self.inner.current_time(ctx, ns).await
    }

    fn max_value_bytes(&self) -> Option<usize> {
        match (self.inner.max_value_bytes(), self.value_bytes) {
            (Some(inner), Some(limit)) => Some(inner.min(limit)),
            (inner, limit) => inner.or(limit),
        }
    }

    delegate!(Bytes, |layer| layer.inner => scan_tenants);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Backend> Backend for Limited<S> {
    delegate!(Bytes, |layer| layer.inner => close, compact);
}
