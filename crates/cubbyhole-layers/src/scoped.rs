//! `Scoped`: a store that is limited to one prefix.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;

use async_trait::async_trait;
use cubbyhole_core::{
    Backend, Batch, Compaction, Condition, Entry, EntryStat, EntryStore, Erased, Error,
    ExecutionContext, Expiry, GetOptions, Namespace, NamespacePrefix, Page, Position, PutOptions,
    RecursiveScanOptions, Result, ResultExt, ScanItem, ScanOptions, Store, TenantId, Timestamp,
    Usage, Version, Written, delegate,
};

/// A store that is limited to the namespaces under one prefix: its *scope*.
///
/// No argument can name anything outside the scope, and no result contains anything outside it. A
/// refusal is the same whether the name outside exists or not. Use it to give a part of a program, or
/// a client of a server, access to one tenant or to a part of one.
///
/// # Names
///
/// | constructor | name in a call | name in the inner store |
/// |---|---|---|
/// | [`relative`](Self::relative) with the scope `acme:app` | `agent-7:chat` | `acme:app:agent-7:chat` |
/// | [`within`](Self::within) with the scope `acme:app` | `acme:app:agent-7:chat` | the same |
///
/// With relative names, the scope is prepended to names in arguments and removed from names in
/// results. The namespace `acme:app` itself has no relative name, so its entries are out of reach. A
/// relative name is shorter than [`MAX_NAMESPACE_BYTES`](cubbyhole_core::limits::MAX_NAMESPACE_BYTES)
/// by the length of the scope and one byte.
///
/// With absolute names, a name outside the scope is `PermissionDenied`. This includes a prefix that
/// contains the scope, and the position after which a page starts.
///
/// # Operations on a whole store
///
/// `scan_tenants`, `evict_expired` and `compact` are `PermissionDenied`: they have effects or results
/// outside every scope. Run the [`Sweeper`](cubbyhole_core::Sweeper) on the inner store. `close`
/// closes the inner store.
///
/// # Nesting
///
/// A scope of a scope can only narrow it: the inner one checks every name that the outer one makes.
///
/// ```
/// use cubbyhole_core::{ErrorKind, ExecutionContext, Namespace, NamespacePrefix, Store};
/// use cubbyhole_layers::Scoped;
/// use cubbyhole_memory::InMemoryStore;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole_core::Result<()> {
/// let ctx = ExecutionContext::new();
/// let store = InMemoryStore::<u32>::new();
/// let scope = NamespacePrefix::parse("acme:app")?;
///
/// let app = Scoped::relative(store.clone(), scope.clone());
/// app.put(&ctx, &Namespace::parse("agent-7")?, "visits", 7).await?;
/// let absolute = Namespace::parse("acme:app:agent-7")?;
/// assert_eq!(store.get(&ctx, &absolute, "visits").await?, Some(7));
///
/// let app = Scoped::within(store, scope);
/// assert_eq!(app.get(&ctx, &absolute, "visits").await?, Some(7));
/// let outside = app.get(&ctx, &Namespace::parse("globex")?, "visits").await;
/// assert_eq!(outside.unwrap_err().kind(), ErrorKind::PermissionDenied);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Scoped<S> {
    inner: S,
    scope: NamespacePrefix,
    names: Names,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Relative,
    Absolute,
}

impl<S> Scoped<S> {
    /// Limits `inner` to `scope`. Names in calls and results are relative to the scope.
    #[must_use]
    pub const fn relative(inner: S, scope: NamespacePrefix) -> Self {
        Self { inner, scope, names: Names::Relative }
    }

    /// Limits `inner` to `scope`. Names in calls and results are absolute.
    #[must_use]
    pub const fn within(inner: S, scope: NamespacePrefix) -> Self {
        Self { inner, scope, names: Names::Absolute }
    }

    /// Returns the scope.
    #[must_use]
    pub const fn scope(&self) -> &NamespacePrefix {
        &self.scope
    }

    /// Returns the inner store, which is not limited.
    #[must_use]
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    /// Returns the namespace in the inner store for a name in a call.
    fn absolute<'a>(&self, name: &'a Namespace) -> Result<Cow<'a, Namespace>> {
        match self.names {
            Names::Relative => self.scope.join(name).map(Cow::Owned),
            Names::Absolute if self.scope.matches(name) => Ok(Cow::Borrowed(name)),
            Names::Absolute => Err(Error::permission_denied(
                "the namespace or prefix is outside the scope of this store",
            )),
        }
    }

    /// Returns the namespace in the inner store, or cooperates with the scheduler and refuses.
    async fn enter<'a>(
        &self,
        ctx: &ExecutionContext,
        operation: &'static str,
        name: &'a Namespace,
    ) -> Result<Cow<'a, Namespace>> {
        match self.absolute(name) {
            Ok(absolute) => Ok(absolute),
            Err(error) => {
                ctx.begin().await.in_operation(operation)?;
                Err(error.in_operation(operation))
            }
        }
    }

    /// Returns the prefix in the inner store, or cooperates with the scheduler and refuses.
    async fn enter_prefix<'a>(
        &self,
        ctx: &ExecutionContext,
        operation: &'static str,
        prefix: &'a NamespacePrefix,
    ) -> Result<Cow<'a, NamespacePrefix>> {
        Ok(match self.enter(ctx, operation, prefix.as_namespace()).await? {
            Cow::Borrowed(_) => Cow::Borrowed(prefix),
            Cow::Owned(absolute) => Cow::Owned(absolute.into()),
        })
    }

    /// Returns the name for results of a namespace that the inner store returned.
    ///
    /// # Errors
    /// `Internal` if the inner store returned a namespace that the call did not ask for.
    fn name(&self, absolute: Namespace) -> Result<Namespace> {
        let name = match self.names {
            Names::Relative => self.scope.strip(&absolute),
            Names::Absolute => self.scope.matches(&absolute).then_some(absolute),
        };
        name.ok_or_else(|| Error::internal("the inner store returned a name outside the scope"))
    }

    async fn refuse<T>(&self, ctx: &ExecutionContext, operation: &'static str) -> Result<T> {
        ctx.begin().await.in_operation(operation)?;
        let message = "this call covers the whole store; make it on the store without the scope";
        Err(Error::permission_denied(message).in_operation(operation))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<V: Send + 'static, S: Store<V>> Store<V> for Scoped<S> {
    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: V,
        options: PutOptions,
    ) -> Result<()> {
        let ns = self.enter(ctx, "put", ns).await?;
        self.inner.put_with_options(ctx, &ns, key, value, options).await
    }

    // Written as `#[async_trait]` expands it: an absolute name in the scope needs no second boxed future.
    fn get<'me, 'ctx, 'ns, 'key, 'async_trait>(
        &'me self,
        ctx: &'ctx ExecutionContext,
        ns: &'ns Namespace,
        key: &'key str,
    ) -> Pin<Box<dyn Future<Output = Result<Option<V>>> + Send + 'async_trait>>
    where
        'me: 'async_trait,
        'ctx: 'async_trait,
        'ns: 'async_trait,
        'key: 'async_trait,
        Self: 'async_trait,
    {
        if self.names == Names::Absolute && self.scope.matches(ns) {
            return self.inner.get(ctx, ns, key);
        }
        Box::pin(async move {
            let ns = self.enter(ctx, "get", ns).await?;
            self.inner.get(ctx, &ns, key).await
        })
    }

    async fn delete(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<()> {
        let ns = self.enter(ctx, "delete", ns).await?;
        self.inner.delete(ctx, &ns, key).await
    }

    async fn list(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        prefix: Option<&str>,
    ) -> Result<Vec<String>> {
        let ns = self.enter(ctx, "list", ns).await?;
        self.inner.list(ctx, &ns, prefix).await
    }

    async fn put(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str, value: V) -> Result<()> {
        let ns = self.enter(ctx, "put", ns).await?;
        self.inner.put(ctx, &ns, key, value).await
    }

    async fn list_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
    ) -> Result<Vec<Namespace>> {
        let prefix = self.enter_prefix(ctx, "list_namespaces", prefix).await?;
        let found = self.inner.list_namespaces(ctx, &prefix).await?;
        let names: Result<Vec<Namespace>> = found.into_iter().map(|ns| self.name(ns)).collect();
        names.in_operation("list_namespaces")
    }

    async fn evict_expired(&self, ctx: &ExecutionContext) -> Result<usize> {
        self.refuse(ctx, "evict_expired").await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<V: Send + 'static, S: EntryStore<V>> EntryStore<V> for Scoped<S> {
    async fn get_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<V>>> {
        let ns = self.enter(ctx, "get_entry", ns).await?;
        self.inner.get_entry(ctx, &ns, key, options).await
    }

    async fn get_many(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
        options: GetOptions,
    ) -> Result<Vec<Result<Option<Entry<V>>>>> {
        let ns = self.enter(ctx, "get_many", ns).await?;
        self.inner.get_many(ctx, &ns, keys, options).await
    }

    async fn stat(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Option<EntryStat>>> {
        let ns = self.enter(ctx, "stat", ns).await?;
        self.inner.stat(ctx, &ns, keys).await
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
        let ns = self.enter(ctx, "put_entry", ns).await?;
        self.inner.put_entry(ctx, &ns, key, value, options, condition).await
    }

    async fn delete_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        condition: Condition,
    ) -> Result<bool> {
        let ns = self.enter(ctx, "delete_entry", ns).await?;
        self.inner.delete_entry(ctx, &ns, key, condition).await
    }

    async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        batch: Batch<V>,
    ) -> Result<Vec<Written>> {
        let ns = self.enter(ctx, "write", ns).await?;
        self.inner.write(ctx, &ns, batch).await
    }

    async fn scan(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        options: ScanOptions,
    ) -> Result<Page<ScanItem<V>, String>> {
        let ns = self.enter(ctx, "scan", ns).await?;
        self.inner.scan(ctx, &ns, options).await
    }

    async fn scan_recursive(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        options: RecursiveScanOptions,
    ) -> Result<Page<(Namespace, ScanItem<V>), Position>> {
        // Checked with the names of the caller: the inner store would name the scope in the error.
        if let Err(error) = options.check(prefix) {
            self.enter_prefix(ctx, "scan_recursive", prefix).await?;
            ctx.begin().await.in_operation("scan_recursive")?;
            return Err(error.in_operation("scan_recursive"));
        }
        let absolute = self.enter_prefix(ctx, "scan_recursive", prefix).await?;
        let mut inner = options;
        if let Some(Position { namespace, key }) = inner.after() {
            let namespace = self.enter(ctx, "scan_recursive", namespace).await?.into_owned();
            let after = Position { namespace, key: key.clone() };
            inner = inner.with_after(after);
        }
        let page = self.inner.scan_recursive(ctx, &absolute, inner).await?;
        let named = async {
            let items: Result<Vec<_>> =
                page.items.into_iter().map(|(ns, item)| Ok((self.name(ns)?, item))).collect();
            let next = page.next.map(|Position { namespace, key }| {
                Ok::<_, Error>(Position { namespace: self.name(namespace)?, key })
            });
            Ok(Page { items: items?, next: next.transpose()? })
        };
        named.await.in_operation("scan_recursive")
    }

    async fn scan_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        after: Option<&Namespace>,
        limit: usize,
    ) -> Result<Page<Namespace>> {
        let prefix = self.enter_prefix(ctx, "scan_namespaces", prefix).await?;
        let after = match after {
            Some(after) => Some(self.enter(ctx, "scan_namespaces", after).await?),
            None => None,
        };
        let page = self.inner.scan_namespaces(ctx, &prefix, after.as_deref(), limit).await?;
        let items: Result<Vec<Namespace>> =
            page.items.into_iter().map(|ns| self.name(ns)).collect();
        let next = page.next.map(|ns| self.name(ns)).transpose();
        let (items, next) =
            (items.in_operation("scan_namespaces")?, next.in_operation("scan_namespaces")?);
        Ok(Page { items, next })
    }

    async fn scan_tenants(
        &self,
        ctx: &ExecutionContext,
        _: Option<&TenantId>,
        _: usize,
    ) -> Result<Page<TenantId>> {
        self.refuse(ctx, "scan_tenants").await
    }

    async fn touch(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        expiry: Expiry,
        condition: Condition,
    ) -> Result<bool> {
        let ns = self.enter(ctx, "touch", ns).await?;
        self.inner.touch(ctx, &ns, key, expiry, condition).await
    }

    async fn take(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Entry<V>>> {
        let ns = self.enter(ctx, "take", ns).await?;
        self.inner.take(ctx, &ns, key).await
    }

    async fn delete_prefix(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key_prefix: &str,
        limit: usize,
    ) -> Result<Erased> {
        let ns = self.enter(ctx, "delete_prefix", ns).await?;
        self.inner.delete_prefix(ctx, &ns, key_prefix, limit).await
    }

    async fn erase(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        limit: usize,
    ) -> Result<Erased> {
        let prefix = self.enter_prefix(ctx, "erase", prefix).await?;
        self.inner.erase(ctx, &prefix, limit).await
    }

    async fn usage(&self, ctx: &ExecutionContext, prefix: &NamespacePrefix) -> Result<Usage> {
        let prefix = self.enter_prefix(ctx, "usage", prefix).await?;
        self.inner.usage(ctx, &prefix).await
    }

    async fn current_time(&self, ctx: &ExecutionContext, ns: &Namespace) -> Result<Timestamp> {
        let ns = self.enter(ctx, "current_time", ns).await?;
        self.inner.current_time(ctx, &ns).await
    }

    delegate!(V, |layer| layer.inner => max_value_bytes);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Backend> Backend for Scoped<S> {
    async fn compact(&self, ctx: &ExecutionContext) -> Result<Compaction> {
        self.refuse(ctx, "compact").await
    }

    delegate!((), |layer| layer.inner => close);
}
