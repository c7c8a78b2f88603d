//! [`CubbyholeStore`]: entelix's trait over a store.

use async_trait::async_trait;
use cubbyhole_core::Store;
use entelix_core::{ExecutionContext, Result};
use entelix_memory::{Namespace, NamespacePrefix, PutOptions};

use crate::convert;

/// An `entelix_memory::Store<V>` over a Cubbyhole store of `V`.
///
/// [`TypedExt::typed`](cubbyhole_core::TypedExt::typed) makes a store of `V` from a store of bytes. The
/// crate's documentation says how arguments and errors are converted.
///
/// ```
/// use cubbyhole::TypedExt;
/// use cubbyhole_entelix::CubbyholeStore;
/// use entelix_core::{ExecutionContext, TenantId};
/// use entelix_memory::{Namespace, Store};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = cubbyhole::open(&cubbyhole::ExecutionContext::new(), "memory:").await?;
/// let store = CubbyholeStore::new(store.typed::<String>());
///
/// let (ctx, ns) = (ExecutionContext::new(), Namespace::new(TenantId::new("acme")));
/// store.put(&ctx, &ns, "city", "Oslo".to_owned()).await?;
/// assert_eq!(store.get(&ctx, &ns, "city").await?.as_deref(), Some("Oslo"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct CubbyholeStore<S> {
    inner: S,
}

impl<S> CubbyholeStore<S> {
    /// Wraps a Cubbyhole store.
    #[must_use]
    pub fn new(inner: S) -> Self {
        Self { inner }
    }

    /// Returns the Cubbyhole store.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Returns the Cubbyhole store, by value.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<V, S> entelix_memory::Store<V> for CubbyholeStore<S>
where
    V: Clone + Send + Sync + 'static,
    S: Store<V>,
{
    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: V,
        options: PutOptions,
    ) -> Result<()> {
        let (ctx, ns, options) =
            (convert::context(ctx), convert::namespace(ns)?, convert::put_options(&options));
        let put = self.inner.put_with_options(&ctx, &ns, key, value, options);
        put.await.map_err(convert::error)
    }

    async fn put(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str, value: V) -> Result<()> {
        let (ctx, ns) = (convert::context(ctx), convert::namespace(ns)?);
        self.inner.put(&ctx, &ns, key, value).await.map_err(convert::error)
    }

    async fn get(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<Option<V>> {
        let (ctx, ns) = (convert::context(ctx), convert::namespace(ns)?);
        self.inner.get(&ctx, &ns, key).await.map_err(convert::error)
    }

    async fn delete(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<()> {
        let (ctx, ns) = (convert::context(ctx), convert::namespace(ns)?);
        self.inner.delete(&ctx, &ns, key).await.map_err(convert::error)
    }

    async fn list(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        prefix: Option<&str>,
    ) -> Result<Vec<String>> {
        let (ctx, ns) = (convert::context(ctx), convert::namespace(ns)?);
        self.inner.list(&ctx, &ns, prefix).await.map_err(convert::error)
    }

    async fn list_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
    ) -> Result<Vec<Namespace>> {
        let (ctx, prefix) = (convert::context(ctx), convert::prefix(prefix)?);
        let found = self.inner.list_namespaces(&ctx, &prefix).await.map_err(convert::error)?;
        found.iter().map(convert::namespace_back).collect()
    }

    async fn evict_expired(&self, ctx: &ExecutionContext) -> Result<usize> {
        self.inner.evict_expired(&convert::context(ctx)).await.map_err(convert::error)
    }
}
