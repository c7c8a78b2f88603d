//! [`Timeout`]: a layer that sets deadlines.

use std::time::Duration;

use async_trait::async_trait;
use cubbyhole_core::{
    Backend, Batch, Condition, Entry, EntryStat, EntryStore, Erased, Error, ErrorKind,
    ExecutionContext, Expiry, GetOptions, Namespace, NamespacePrefix, Page, Position, PutOptions,
    RecursiveScanOptions, Result, ScanItem, ScanOptions, Store, TenantId, Timestamp, Usage,
    Version, Written, delegate,
};

/// The timeouts of a [`Timeout`] layer, by class of call. By default no class has one.
///
/// | class | calls |
/// |---|---|
/// | read | `get`, `get_entry`, `get_many`, `stat`, `current_time` |
/// | write | `put`, `put_with_options`, `put_entry`, `delete`, `delete_entry`, `write`, `touch`, `take` |
/// | walk | `list`, `list_namespaces`, `scan`, `scan_recursive`, `scan_namespaces`, `scan_tenants`, `usage`, `erase`, `delete_prefix`, `evict_expired` |
///
/// A call whose cost depends on the number of entries is a walk, also if it deletes entries.
///
/// ```
/// use std::time::Duration;
/// use cubbyhole_layers::Timeouts;
///
/// let timeouts = Timeouts::new()
///     .with_read(Duration::from_secs(1))
///     .with_write(Duration::from_secs(2))
///     .with_walk(Duration::from_secs(30));
/// assert!(timeouts.check().is_ok());
/// assert!(Timeouts::new().with_read(Duration::ZERO).check().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    read: Option<Duration>,
    write: Option<Duration>,
    walk: Option<Duration>,
}

impl Timeouts {
    /// Creates timeouts of which none is set.
    #[must_use]
    pub const fn new() -> Self {
        Self { read: None, write: None, walk: None }
    }

    /// Sets the timeout of reads of single entries.
    #[must_use]
    pub const fn with_read(mut self, timeout: Duration) -> Self {
        self.read = Some(timeout);
        self
    }

    /// Sets the timeout of writes.
    #[must_use]
    pub const fn with_write(mut self, timeout: Duration) -> Self {
        self.write = Some(timeout);
        self
    }

    /// Sets the timeout of lists, scans, counts, erasures and sweeps.
    #[must_use]
    pub const fn with_walk(mut self, timeout: Duration) -> Self {
        self.walk = Some(timeout);
        self
    }

    /// Checks that no timeout is zero.
    ///
    /// # Errors
    /// `InvalidArgument` that names the timeout.
    pub fn check(&self) -> Result<()> {
        for class in [Class::Read, Class::Write, Class::Walk] {
            if self.of(class).is_some_and(|timeout| timeout.is_zero()) {
                let name = class.name();
                return Err(Error::invalid_argument(format!(
                    "the {name} timeout must be more than zero; leave it out for no timeout"
                )));
            }
        }
        Ok(())
    }

    const fn of(&self, class: Class) -> Option<Duration> {
        match class {
            Class::Read => self.read,
            Class::Write => self.write,
            Class::Walk => self.walk,
        }
    }
}

/// The class of a call, which decides its timeout.
#[derive(Debug, Clone, Copy)]
enum Class {
    Read,
    Write,
    Walk,
}

impl Class {
    const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Walk => "walk",
        }
    }
}

/// A layer that gives a deadline to every call without one.
///
/// The class of the call selects the timeout: see [`Timeouts`]. A context that already has a deadline
/// is passed on unchanged, whether it ends earlier or later than the timeout. `close` and `compact`
/// get no timeout.
///
/// The inner store enforces the deadline. The layer never drops a call in flight, so the error still
/// reports correctly whether a write [may have been applied](Error::may_have_been_applied). A store that
/// ignores its context, such as `InMemoryStore`, never times out. A call with a timeout needs a tokio
/// runtime with timers if the inner store waits.
///
/// # Errors
/// When the timeout passes, the error is `DeadlineExceeded` and its message names the timeout. All
/// other errors are those of the inner store.
///
/// ```
/// use std::time::Duration;
/// use cubbyhole_core::{ExecutionContext, Namespace, Store};
/// use cubbyhole_layers::{Timeout, Timeouts};
/// use cubbyhole_memory::InMemoryStore;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole_core::Result<()> {
/// let timeouts = Timeouts::new().with_read(Duration::from_secs(1));
/// let store = Timeout::new(InMemoryStore::<u32>::new(), timeouts)?;
/// let ns = Namespace::parse("acme:counters")?;
/// assert_eq!(store.get(&ExecutionContext::new(), &ns, "visits").await?, None);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Timeout<S> {
    inner: S,
    timeouts: Timeouts,
}

impl<S> Timeout<S> {
    /// Wraps `inner`.
    ///
    /// # Errors
    /// The errors of [`Timeouts::check`].
    pub fn new(inner: S, timeouts: Timeouts) -> Result<Self> {
        timeouts.check()?;
        Ok(Self { inner, timeouts })
    }

    /// Returns the inner store.
    #[must_use]
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    /// Returns the context with the deadline of its class, or `None` if the context stays as it is.
    fn limited(&self, ctx: &ExecutionContext, class: Class) -> Option<ExecutionContext> {
        let timeout = self.timeouts.of(class).filter(|_| ctx.deadline().is_none())?;
        Some(ctx.clone().with_timeout(timeout))
    }

    /// Makes the error of a passed timeout name that timeout.
    fn explain(&self, error: Error, class: Class) -> Error {
        match self.timeouts.of(class) {
            Some(timeout) if error.kind() == ErrorKind::DeadlineExceeded => {
                error.with_message(format!("the {} timeout of {timeout:?} passed", class.name()))
            }
            _ => error,
        }
    }
}

/// Calls the inner store with the context of the class. Returns the answer of the call.
macro_rules! limit {
    ($this:ident, $ctx:ident, $class:ident, $method:ident($($arg:ident),*)) => {
        match $this.limited($ctx, Class::$class) {
            None => $this.inner.$method($ctx, $($arg),*).await,
            Some(limited) => {
                let answer = $this.inner.$method(&limited, $($arg),*).await;
                answer.map_err(|error| $this.explain(error, Class::$class))
            }
        }
    };
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<V: Send + 'static, S: Store<V>> Store<V> for Timeout<S> {
    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: V,
        options: PutOptions,
    ) -> Result<()> {
        limit!(self, ctx, Write, put_with_options(ns, key, value, options))
    }

    async fn get(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<Option<V>> {
        limit!(self, ctx, Read, get(ns, key))
    }

    async fn delete(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<()> {
        limit!(self, ctx, Write, delete(ns, key))
    }

    async fn list(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        prefix: Option<&str>,
    ) -> Result<Vec<String>> {
        limit!(self, ctx, Walk, list(ns, prefix))
    }

    async fn put(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str, value: V) -> Result<()> {
        limit!(self, ctx, Write, put(ns, key, value))
    }

    async fn list_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
    ) -> Result<Vec<Namespace>> {
        limit!(self, ctx, Walk, list_namespaces(prefix))
    }

    async fn evict_expired(&self, ctx: &ExecutionContext) -> Result<usize> {
        limit!(self, ctx, Walk, evict_expired())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<V: Send + 'static, S: EntryStore<V>> EntryStore<V> for Timeout<S> {
    async fn get_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<V>>> {
        limit!(self, ctx, Read, get_entry(ns, key, options))
    }

    async fn get_many(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
        options: GetOptions,
    ) -> Result<Vec<Result<Option<Entry<V>>>>> {
        limit!(self, ctx, Read, get_many(ns, keys, options))
    }

    async fn stat(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Option<EntryStat>>> {
        limit!(self, ctx, Read, stat(ns, keys))
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
        limit!(self, ctx, Write, put_entry(ns, key, value, options, condition))
    }

    async fn delete_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        condition: Condition,
    ) -> Result<bool> {
        limit!(self, ctx, Write, delete_entry(ns, key, condition))
    }

    async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        batch: Batch<V>,
    ) -> Result<Vec<Written>> {
        limit!(self, ctx, Write, write(ns, batch))
    }

    async fn scan(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        options: ScanOptions,
    ) -> Result<Page<ScanItem<V>, String>> {
        limit!(self, ctx, Walk, scan(ns, options))
    }

    async fn scan_recursive(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        options: RecursiveScanOptions,
    ) -> Result<Page<(Namespace, ScanItem<V>), Position>> {
        limit!(self, ctx, Walk, scan_recursive(prefix, options))
    }

    async fn scan_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        after: Option<&Namespace>,
        limit: usize,
    ) -> Result<Page<Namespace>> {
        limit!(self, ctx, Walk, scan_namespaces(prefix, after, limit))
    }

    async fn scan_tenants(
        &self,
        ctx: &ExecutionContext,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<Page<TenantId>> {
        limit!(self, ctx, Walk, scan_tenants(after, limit))
    }

    async fn touch(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        expiry: Expiry,
        condition: Condition,
    ) -> Result<bool> {
        limit!(self, ctx, Write, touch(ns, key, expiry, condition))
    }

    async fn take(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Entry<V>>> {
        limit!(self, ctx, Write, take(ns, key))
    }

    async fn delete_prefix(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key_prefix: &str,
        limit: usize,
    ) -> Result<Erased> {
        limit!(self, ctx, Walk, delete_prefix(ns, key_prefix, limit))
    }

    async fn erase(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        limit: usize,
    ) -> Result<Erased> {
        limit!(self, ctx, Walk, erase(prefix, limit))
    }

    async fn usage(&self, ctx: &ExecutionContext, prefix: &NamespacePrefix) -> Result<Usage> {
        limit!(self, ctx, Walk, usage(prefix))
    }

    async fn current_time(&self, ctx: &ExecutionContext, ns: &Namespace) -> Result<Timestamp> {
        limit!(self, ctx, Read, current_time(ns))
    }

    delegate!(V, |layer| layer.inner => max_value_bytes);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Backend> Backend for Timeout<S> {
    delegate!((), |layer| layer.inner => close, compact);
}
