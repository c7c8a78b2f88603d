//! A namespaced key/value store for services and AI agents that keep state for many tenants.
//!
//! One trait, [`Store`], has the same behaviour in memory, in an embedded file, on PostgreSQL, on
//! Redis and on Redis Cluster. A program chooses the backend with a URL.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//!
//! use cubbyhole::{ExecutionContext, Namespace, PutOptions, Store, TypedExt};
//!
//! # #[tokio::main] async fn main() -> cubbyhole::Result<()> {
//! let ctx = ExecutionContext::new().with_timeout(Duration::from_secs(5));
//! let store = cubbyhole::open(&ctx, "memory:").await?.typed::<String>();
//! let chat = Namespace::parse("acme:agent-7:chat")?;
//!
//! store.put(&ctx, &chat, "turn-1", "hello".to_owned()).await?;
//! let hour = PutOptions::new().with_ttl(Duration::from_secs(3600));
//! store.put_with_options(&ctx, &chat, "draft", "not sent yet".to_owned(), hour).await?;
//!
//! assert_eq!(store.get(&ctx, &chat, "turn-1").await?.as_deref(), Some("hello"));
//! assert_eq!(store.list(&ctx, &chat, Some("turn-")).await?, ["turn-1"]);
//! # Ok(())
//! # }
//! ```
//!
//! [`open`] returns a store of bytes. [`typed`](TypedExt::typed) turns it into a store of any type
//! that serde supports, encoded as JSON.
//!
//! # Backends
//!
//! | URL | data is stored in | Cargo feature |
//! |---|---|---|
//! | `memory:` | the memory of this process | always included |
//! | `redb:PATH` | one file on this machine | `embedded`, on by default |
//! | `postgres://…` | a PostgreSQL database | `postgres` |
//! | `redis://…`, `rediss://…` | a Redis server | `redis` |
//! | `redis+cluster://…`, `rediss+cluster://…` | a Redis Cluster | `redis` |
//!
//! [`open`] describes each form of URL. [`StoreUrl`] parses a URL in advance and shows it without
//! its password.
//!
//! # Where to start
//!
//! | to | read |
//! |---|---|
//! | put, get, delete and list entries | [`Store`] |
//! | write conditionally, in batches or page by page; erase a tenant | [`EntryStore`] |
//! | read, change and write with retries on conflict | [`EntryStoreExt::update`] |
//! | name namespaces and prefixes | [`Namespace`], [`NamespacePrefix`] |
//! | set a deadline or cancel a call | [`ExecutionContext`] |
//! | set or extend an expiry | [`PutOptions`], [`GetOptions`], [`EntryStore::touch`] |
//! | remove expired entries in the background | [`Sweeper`] |
//! | open read-only or with other options | [`OpenOptions`] |
//! | limit, cache, retry, compress or encrypt | [`layers::Layers`] |
//! | migrate, check or repair a store | [`migrate`], [`diagnose`], [`repair`] |
//! | unit-test code that uses a store | [`InMemoryStore`], [`ManualClock`] |
//!
//! Everything of `cubbyhole-core` is re-exported at the root. Each backend has a module, with its
//! store, its `Config` and its defaults:
//!
//! | module | contents |
//! |---|---|
//! | `embedded` | `EmbeddedStore`: the file backend |
//! | `postgres` | `PostgresStore`: the PostgreSQL backend |
//! | `redis` | `RedisStore`: the Redis and Redis Cluster backend |
//! | [`layers`] | `Layers`, and each layer: scopes, limits, TTL policies, cache, timeouts, retries, compression, encryption |
//! | `telemetry` | `Instrumented`: the layer that records spans, events and metrics |
//! | [`limits`] | the limits on names, values, pages and batches |
//!
//! # Errors
//!
//! Every call returns [`Error`], whose [`kind`](Error::kind) says what the caller can do: fix the
//! call (`InvalidArgument`), read again (`Conflict`), try again later (`Unavailable`), and so on.
//! [`Error::may_have_been_applied`] says whether a failed write may have taken effect. No message
//! holds a value or a password.
//!
//! # Telemetry
//!
//! With the feature `telemetry`, on by default, every opened store emits spans and events through
//! `tracing` and metrics through `metrics`. They never hold a key or a value. The module
//! `telemetry` lists them.

#[cfg(all(
    doctest,
    feature = "cache",
    feature = "compression",
    feature = "embedded",
    feature = "encryption",
    feature = "limits",
    feature = "postgres",
    feature = "redis",
    feature = "telemetry"
))]
mod pages;
mod store_url;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub use cubbyhole_core::*;
pub use cubbyhole_memory::{InMemoryStore, InMemoryStoreBuilder};

/// The embedded backend: one file on this machine.
#[cfg(feature = "embedded")]
pub mod embedded {
    pub use cubbyhole_embedded::{
        Config, DEFAULT_CACHE_BYTES, Durability, EmbeddedStore, RELAXED_FLUSH_INTERVAL,
        StorageBackend, is_store_file,
    };
}

/// The PostgreSQL backend.
#[cfg(feature = "postgres")]
pub mod postgres {
    pub use cubbyhole_postgres::{
        Config, DEFAULT_ACQUIRE_TIMEOUT, DEFAULT_CONNECT_TIMEOUT, DEFAULT_IDLE_TIMEOUT,
        DEFAULT_POOL_SIZE, DEFAULT_SCHEMA, Pooler, PostgresStore,
    };
}

/// The Redis and Redis Cluster backend.
#[cfg(feature = "redis")]
pub mod redis {
    pub use cubbyhole_redis::{
        Config, DEFAULT_CONNECT_TIMEOUT, DEFAULT_CONNECTIONS, DEFAULT_PREFIX,
        DEFAULT_RETRY_TIMEOUT, DEFAULT_WAIT_CONNECTIONS, DEFAULT_WAIT_TIMEOUT, RedisStore,
    };
}

/// Layers: stores that wrap a store, and [`Layers`], which composes them in one order.
pub mod layers {
    pub use cubbyhole_layers::*;
}

/// The telemetry layer: spans, events and metrics of every call.
#[cfg(feature = "telemetry")]
pub mod telemetry {
    pub use cubbyhole_telemetry::{Instrumented, describe_metrics, metric_names};
}

pub use store_url::{BackendKind, StoreUrl};

use layers::Layers;
use store_url::BackendConfig;

/// Opens a store by URL. A missing embedded file is created.
///
/// | URL | backend |
/// |---|---|
/// | `memory:` | a new, empty store in the memory of this process |
/// | `redb:PATH` | a file on this machine. Write `?` in the path as `%3F` and `%` as `%25`. Options: `?durability=relaxed`, `?read_only=true` |
/// | `postgres://USER:PASSWORD@HOST/DATABASE` | a PostgreSQL database. Needs the feature `postgres` |
/// | `redis://USER:PASSWORD@HOST:PORT`, `rediss://…` | a Redis server, without and with TLS. Needs the feature `redis` |
/// | `redis+cluster://HOST:PORT,HOST:PORT` | a Redis Cluster, by some of its nodes. Needs the feature `redis` |
///
/// The `Config` of each backend documents the options of its URL. [`OpenOptions`] has the settings
/// that apply to every backend.
///
/// # Errors
/// - The errors of [`StoreUrl::parse`] for the URL.
/// - Any error of the backend, such as `Unavailable` if a server cannot be reached or another
///   process has the file open.
///
/// No message holds a password.
///
/// ```
/// use cubbyhole::{ExecutionContext, Namespace, Store, TypedExt};
///
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("state.redb");
/// let ctx = ExecutionContext::new();
/// let store = cubbyhole::open(&ctx, &format!("redb:{}", path.display())).await?;
/// let store = store.typed::<Vec<u32>>();
/// store.put(&ctx, &Namespace::parse("acme")?, "sizes", vec![1, 2, 3]).await?;
/// # Ok(())
/// # }
/// ```
pub async fn open(ctx: &ExecutionContext, url: &str) -> Result<Arc<dyn Backend>> {
    OpenOptions::new().open(ctx, url).await
}

/// Migrates a store to the current format. Returns one line for each change, and none if the store
/// was up to date.
///
/// On PostgreSQL this creates or upgrades the schema and its roles. Connect as a role with the
/// privileges for that; the application's role does not need them. The start-up checks of [`open`]
/// are skipped. An embedded file of an earlier format gets the current one; no other process may have
/// it open. The other backends have had one format so far, and are only opened and closed.
///
/// # Errors
/// The same errors as [`open`]. A missing embedded file is `Unavailable`, and is not created.
pub async fn migrate(ctx: &ExecutionContext, url: &str) -> Result<Vec<String>> {
    match StoreUrl::parse(url)?.config {
        #[cfg(feature = "postgres")]
        BackendConfig::Postgres(config) => cubbyhole_postgres::migrate(ctx, &config).await,
        #[cfg(feature = "embedded")]
        BackendConfig::Embedded(config) => {
            Box::pin(cubbyhole_embedded::migrate(ctx, &config)).await
        }
        // The other backends have no older format: opening checks the current one.
        other => {
            let store = OpenOptions::new().with_create(false).open_config(ctx, other).await?;
            store.close(ctx).await?;
            Ok(Vec::new())
        }
    }
}

/// Checks a store's health: whether it opens, how large it is, and what needs attention.
///
/// Problems are reported in the [`Diagnosis`], also if the store cannot be opened.
///
/// # Errors
/// The errors of [`StoreUrl::parse`], and `Cancelled` or `DeadlineExceeded` if the context ends.
pub async fn diagnose(ctx: &ExecutionContext, url: &str) -> Result<Diagnosis> {
    match StoreUrl::parse(url)?.config {
        BackendConfig::Memory => {
            ctx.begin().await?;
            let mut diagnosis = Diagnosis::default();
            diagnosis.ok("connection", "in memory: the data is lost when the process ends");
            Ok(diagnosis)
        }
        #[cfg(feature = "embedded")]
        BackendConfig::Embedded(config) => cubbyhole_embedded::diagnose(ctx, &config).await,
        #[cfg(feature = "postgres")]
        BackendConfig::Postgres(config) => cubbyhole_postgres::diagnose(ctx, &config).await,
        #[cfg(feature = "redis")]
        BackendConfig::Redis(config) => cubbyhole_redis::diagnose(ctx, &config).await,
    }
}

/// Repairs a store with the default options. Returns one line for each repair, and none if nothing
/// was wrong. See [`repair_with_options`].
///
/// # Errors
/// The same errors as [`repair_with_options`], and the [`failure`](RepairReport::failure) of its
/// report.
pub async fn repair(ctx: &ExecutionContext, url: &str) -> Result<Vec<String>> {
    let report = repair_with_options(ctx, url, &RepairOptions::new()).await?;
    report.failure.map_or(Ok(report.repaired), Err)
}

/// Repairs a store's bookkeeping. The duration depends on the size of the store.
///
/// - **Redis**: rebuilds indexes from the entries. A failover can lose the registrations of
///   namespaces and tenants. Eviction, or another program, can delete the index of a namespace.
///   [`RepairOptions::with_orphans`] decides about values that no index lists. The store can be
///   used during the repair.
/// - **Embedded file**: sets the store's time back to this machine's clock if it is ahead, because
///   the clock was ahead once. This can revive expired entries; the report counts them. With
///   [`ClockAction::Report`] nothing is changed. No other process may have the file open.
///
/// The other backends have nothing to repair, and are only opened and closed. A missing embedded
/// file is not created.
///
/// # Errors
/// The same errors as [`open`]. An error that stops a repair halfway is in the [`RepairReport`].
///
/// ```
/// use cubbyhole::{ExecutionContext, OrphanAction, RepairOptions};
///
/// # #[tokio::main] async fn main() -> cubbyhole::Result<()> {
/// let ctx = ExecutionContext::new();
/// let options = RepairOptions::new().with_orphans(OrphanAction::List);
/// let report = cubbyhole::repair_with_options(&ctx, "memory:", &options).await?;
/// assert_eq!((report.orphans.values, report.repaired.len()), (0, 0));
/// # Ok(())
/// # }
/// ```
pub async fn repair_with_options(
    ctx: &ExecutionContext,
    url: &str,
    options: &RepairOptions,
) -> Result<RepairReport> {
    match StoreUrl::parse(url)?.config {
        #[cfg(feature = "redis")]
        BackendConfig::Redis(config) => {
            cubbyhole_redis::repair_with_options(ctx, *config, options).await
        }
        #[cfg(feature = "embedded")]
        BackendConfig::Embedded(config) => {
            cubbyhole_embedded::repair_with_options(ctx, &config, options).await
        }
        other => {
            let _ = options;
            let store = OpenOptions::new().with_create(false).open_config(ctx, other).await?;
            store.close(ctx).await?;
            Ok(RepairReport::default())
        }
    }
}

/// Options for opening a store. [`OpenOptions::new`] has the settings of [`open`].
///
/// ```
/// use cubbyhole::{ErrorKind, ExecutionContext, OpenOptions};
///
/// # #[tokio::main] async fn main() {
/// let ctx = ExecutionContext::new();
/// let missing = OpenOptions::new().with_create(false).open(&ctx, "redb:/no/such/file").await;
/// assert_eq!(missing.err().map(|error| error.kind()), Some(ErrorKind::Unavailable));
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct OpenOptions {
    create: bool,
    read_only: bool,
    cache_bytes: Option<usize>,
    lock_wait: Duration,
    layers: Layers,
}

impl OpenOptions {
    /// Returns the defaults: create a missing file, allow writes, do not wait for a lock.
    #[must_use]
    pub fn new() -> Self {
        Self {
            create: true,
            read_only: false,
            cache_bytes: None,
            lock_wait: Duration::ZERO,
            layers: Layers::new(),
        }
    }

    /// Sets whether a missing embedded file is created. If not, opening fails with `Unavailable`.
    /// On by default; the other backends ignore it.
    #[must_use]
    pub fn with_create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Sets whether the store rejects writes. Off by default.
    ///
    /// A read-only store returns `PermissionDenied` for puts, deletes, batches, `take`, `touch`,
    /// reads that extend a TTL, `erase`, `evict_expired` and `compact`.
    ///
    /// - **Embedded file**: the file is opened without writing to it, so it may be on a read-only
    ///   volume. A missing file is not created. See `embedded::Config::with_read_only`.
    /// - **Other backends**: the store rejects the call before it reaches the server. To enforce
    ///   this on the server, connect as a role without write privileges.
    ///
    /// ```
    /// use cubbyhole::{ErrorKind, ExecutionContext, Namespace, OpenOptions, Store};
    ///
    /// # #[tokio::main] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let store = OpenOptions::new().with_read_only(true).open(&ctx, "memory:").await?;
    /// let ns = Namespace::parse("acme:agent-7")?;
    /// let refused = store.put(&ctx, &ns, "greeting", "hello".into()).await;
    /// assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Sets the size of the backend's page cache. Only the embedded backend has one; its default is
    /// `embedded::DEFAULT_CACHE_BYTES`.
    #[must_use]
    pub fn with_cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = Some(bytes);
        self
    }

    /// Sets how long opening waits while another process has the embedded file open. Zero by
    /// default; the other backends ignore it.
    #[must_use]
    pub fn with_lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// Sets the layers around the backend. The default is no layers.
    ///
    /// With telemetry, calls are then reported twice: with the label `store` outside the layers, and
    /// with the name of the backend inside them. The difference is the work of the layers, such as
    /// cache hits and retries.
    ///
    /// ```
    /// use cubbyhole::layers::{Layers, RetryOptions};
    /// use cubbyhole::{ErrorKind, ExecutionContext, Namespace, NamespacePrefix, OpenOptions, Store};
    ///
    /// # #[tokio::main] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let layers = Layers::new()
    ///     .with_retry(RetryOptions::new())
    ///     .with_scope(NamespacePrefix::parse("acme")?);
    /// let store = OpenOptions::new().with_layers(layers).open(&ctx, "memory:").await?;
    ///
    /// store.put(&ctx, &Namespace::parse("acme:agent-7")?, "n", "1".into()).await?;
    /// let outside = store.get(&ctx, &Namespace::parse("globex")?, "n").await;
    /// assert_eq!(outside.unwrap_err().kind(), ErrorKind::PermissionDenied);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_layers(mut self, layers: Layers) -> Self {
        self.layers = layers;
        self
    }

    /// Opens a store by URL, with these options.
    ///
    /// # Errors
    /// The same errors as [`open`].
    pub async fn open(&self, ctx: &ExecutionContext, url: &str) -> Result<Arc<dyn Backend>> {
        self.open_config(ctx, StoreUrl::parse(url)?.config).await
    }

    /// Opens the store of a parsed URL, with these options.
    ///
    /// # Errors
    /// The same errors as [`open`], except those of parsing the URL.
    pub async fn open_url(
        &self,
        ctx: &ExecutionContext,
        url: &StoreUrl,
    ) -> Result<Arc<dyn Backend>> {
        self.open_config(ctx, url.config.clone()).await
    }

    /// Opens the store and returns its encryption layer, for the operations on keys. The other layers
    /// are left out.
    ///
    /// The layer has its own cache of data keys. A service that has the store open uses its cached keys
    /// for up to 60 seconds after a shredding. To shred in a running service, keep a clone of its
    /// [`Encrypted`](layers::Encrypted) layer: an embedded file cannot be opened twice.
    ///
    /// Close the layer at the end; that closes the store.
    ///
    /// # Errors
    /// - `InvalidArgument`: the layers have no encryption.
    /// - `PermissionDenied`: the options are read-only. The operations on keys write.
    /// - The same errors as [`open`].
    #[cfg(feature = "encryption")]
    pub async fn open_encrypted(
        &self,
        ctx: &ExecutionContext,
        url: &str,
    ) -> Result<layers::Encrypted<Arc<dyn Backend>>> {
        let Some(encryption) = self.layers.encryption() else {
            return Err(Error::invalid_argument(
                "the store has no layer `encryption`; configure it to use its keys",
            ));
        };
        if self.is_read_only() {
            let message = "the store is open read-only; open it for writing to change its keys";
            return Err(Error::permission_denied(message));
        }
        // Before the backend is opened, which can create a file.
        self.layers.check().in_operation("open")?;
        let backend = self.open_backend(ctx, StoreUrl::parse(url)?.config).await?;
        Ok(encryption.around(backend))
    }

    async fn open_config(
        &self,
        ctx: &ExecutionContext,
        config: BackendConfig,
    ) -> Result<Arc<dyn Backend>> {
        // Before the backend is opened, which can create a file.
        self.layers.check().in_operation("open")?;
        let backend = self.open_backend(ctx, config).await?;
        if self.layers.is_empty() {
            return Ok(backend);
        }
        let store = self.layers.around(backend).in_operation("open")?;
        #[cfg(feature = "telemetry")]
        let store = Arc::new(telemetry::Instrumented::new(store, "store"));
        Ok(store)
    }

    async fn open_backend(
        &self,
        ctx: &ExecutionContext,
        config: BackendConfig,
    ) -> Result<Arc<dyn Backend>> {
        match config {
            BackendConfig::Memory => {
                let opening = async {
                    ctx.begin().await?;
                    Ok(InMemoryStore::builder().with_value_size(Bytes::len).build())
                };
                self.opened("memory", opening).await
            }
            #[cfg(feature = "embedded")]
            BackendConfig::Embedded(config) => {
                let read_only = self.is_read_only() || config.is_read_only();
                let mut config = config
                    .with_create(self.create)
                    .with_read_only(read_only)
                    .with_lock_wait(self.lock_wait);
                if let Some(bytes) = self.cache_bytes {
                    config = config.with_cache_bytes(bytes);
                }
                // `EmbeddedStore` rejects writes itself, so no `ReadOnly` layer is needed.
                opened("embedded", Box::pin(embedded::EmbeddedStore::open(ctx, config))).await
            }
            #[cfg(feature = "postgres")]
            BackendConfig::Postgres(config) => {
                self.opened("postgres", Box::pin(postgres::PostgresStore::open(ctx, *config))).await
            }
            #[cfg(feature = "redis")]
            BackendConfig::Redis(config) => {
                self.opened("redis", Box::pin(redis::RedisStore::open(ctx, *config))).await
            }
        }
    }

    fn is_read_only(&self) -> bool {
        self.read_only || self.layers.is_read_only()
    }

    /// Calls [`opened`], with a `ReadOnly` layer if the options ask for one.
    async fn opened<S: Backend>(
        &self,
        name: &'static str,
        opening: impl Future<Output = Result<S>>,
    ) -> Result<Arc<dyn Backend>> {
        match self.is_read_only() {
            true => opened(name, async { opening.await.map(ReadOnly::new) }).await,
            false => opened(name, opening).await,
        }
    }
}

/// Opens a backend and wraps it in `Instrumented`. Callers box the connecting future because it is
/// tens of kilobytes: unboxed, it would inflate every future that opens a store.
async fn opened<S: Backend>(
    name: &'static str,
    opening: impl Future<Output = Result<S>>,
) -> Result<Arc<dyn Backend>> {
    #[cfg(feature = "telemetry")]
    let store = telemetry::Instrumented::open(opening, name).await?;
    #[cfg(not(feature = "telemetry"))]
    let (store, _) = (opening.await?, name);
    Ok(Arc::new(store))
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}
