//! The stores that are measured.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{
    Backend, Batch, Bytes, Condition, EmbeddedConfig, EmbeddedStore, ExecutionContext,
    InMemoryStore, PutOptions, ScanOptions,
};
use cubbyhole_redis::RedisStore;

use crate::Result;
use crate::data::{Names, Place};

/// Long after the run.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// A store as the workloads see it. Each contestant keeps the names in the form that its store
/// takes, and is told places. Answers are counts, which the workloads check: a store that finds
/// nothing must not look fast.
///
/// The futures are not boxed here, so that a contestant costs what its store costs.
pub trait Contestant: Send + Sync + 'static {
    /// Names of what it holds.
    fn names(&self) -> &Names;

    /// Fills one namespace, with a TTL for the places that [expire](Place::expires).
    fn load(&self, namespace: usize, values: Vec<Bytes>)
    -> impl Future<Output = Result<()>> + Send;

    /// The length of the value, if there is one.
    fn get(&self, place: Place) -> impl Future<Output = Result<Option<usize>>> + Send;

    /// How many keys the namespace has.
    fn list(&self, namespace: usize) -> impl Future<Output = Result<usize>> + Send;

    /// How many namespaces the tenant has.
    fn list_namespaces(&self, tenant: usize) -> impl Future<Output = Result<usize>> + Send;

    /// How many entries with their values are on the first page of at most `limit`.
    fn scan(&self, namespace: usize, limit: usize) -> impl Future<Output = Result<usize>> + Send;

    /// How many expired entries a sweep removed.
    fn sweep(&self) -> impl Future<Output = Result<usize>> + Send;

    fn put(&self, place: Place, value: Bytes) -> impl Future<Output = Result<()>> + Send;

    /// How many commits there were so far, where the store counts them.
    fn commits(&self) -> Option<u64>;
}

/// A backend of Cubbyhole, through its traits.
pub struct Ours<S> {
    store: S,
    names: Arc<Names>,
    ctx: ExecutionContext,
    commits: fn(&S) -> Option<u64>,
}

impl Ours<InMemoryStore<Bytes>> {
    /// As `open("memory:")` makes it.
    pub fn in_memory(names: Arc<Names>) -> Self {
        let store = InMemoryStore::builder().with_value_size(Bytes::len).build();
        Self { store, names, ctx: ExecutionContext::new(), commits: |_| None }
    }
}

impl Ours<EmbeddedStore> {
    /// As `open("redb:PATH")` makes it.
    pub async fn embedded(names: Arc<Names>, config: EmbeddedConfig) -> Result<Self> {
        let ctx = ExecutionContext::new();
        let store = EmbeddedStore::open(&ctx, config).await?;
        Ok(Self { store, names, ctx, commits: |store| Some(store.commits()) })
    }
}

impl Ours<RedisStore> {
    pub fn redis(names: Arc<Names>, store: RedisStore) -> Self {
        Self { store, names, ctx: ExecutionContext::new(), commits: |_| None }
    }
}

impl<S: Backend> Ours<S> {
    pub async fn close(&self) -> Result<()> {
        Ok(self.store.close(&self.ctx).await?)
    }
}

impl<S: Backend> Contestant for Ours<S> {
    fn names(&self) -> &Names {
        &self.names
    }

    async fn load(&self, namespace: usize, values: Vec<Bytes>) -> Result<()> {
        let mut batch = Batch::new();
        for (key, value) in values.into_iter().enumerate() {
            let options = match (Place { namespace, key }).expires() {
                true => PutOptions::new().with_ttl(TTL),
                false => PutOptions::new(),
            };
            batch = batch.put_with(&self.names.keys[key], value, options, Condition::Always);
        }
        self.store.write(&self.ctx, &self.names.namespaces[namespace], batch).await?;
        Ok(())
    }

    async fn get(&self, place: Place) -> Result<Option<usize>> {
        let ns = &self.names.namespaces[place.namespace];
        let value = self.store.get(&self.ctx, ns, &self.names.keys[place.key]).await?;
        Ok(value.map(|value| value.len()))
    }

    async fn list(&self, namespace: usize) -> Result<usize> {
        Ok(self.store.list(&self.ctx, &self.names.namespaces[namespace], None).await?.len())
    }

    async fn list_namespaces(&self, tenant: usize) -> Result<usize> {
        Ok(self.store.list_namespaces(&self.ctx, &self.names.tenants[tenant]).await?.len())
    }

    async fn scan(&self, namespace: usize, limit: usize) -> Result<usize> {
        let options = ScanOptions::new().with_limit(limit);
        let page = self.store.scan(&self.ctx, &self.names.namespaces[namespace], options).await?;
        let readable = page.items.iter().filter(|item| matches!(&item.value, Some(Ok(_))));
        Ok(readable.count())
    }

    async fn sweep(&self) -> Result<usize> {
        Ok(self.store.evict_expired(&self.ctx).await?)
    }

    async fn put(&self, place: Place, value: Bytes) -> Result<()> {
        let ns = &self.names.namespaces[place.namespace];
        Ok(self.store.put(&self.ctx, ns, &self.names.keys[place.key], value).await?)
    }

    fn commits(&self) -> Option<u64> {
        (self.commits)(&self.store)
    }
}
