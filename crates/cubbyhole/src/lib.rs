//! A namespaced key/value store for services and agents with many tenants: one trait,
//! [`Store`], and one behaviour on every backend.
//!
//! [`open`] opens a backend by URL; `.typed::<V>()` makes it a store of your own type. Everything
//! of `cubbyhole-core` is re-exported here; start reading at [`Store`] and [`EntryStore`].
//!
//! With the feature `telemetry`, on by default, what is opened tells of every call: spans and events
//! through `tracing`, and metrics through `metrics`; never a key or a value. `cubbyhole-telemetry`
//! lists them.
//!
//! ```
//! use cubbyhole::{ExecutionContext, Namespace, Store, TypedExt};
//!
//! # #[tokio::main] async fn main() -> cubbyhole::Result<()> {
//! let ctx = ExecutionContext::new();
//! let store = cubbyhole::open(&ctx, "memory:").await?.typed::<String>();
//! let ns = Namespace::parse("acme:agent-7")?;
//!
//! store.put(&ctx, &ns, "greeting", "hello".to_owned()).await?;
//! assert_eq!(store.get(&ctx, &ns, "greeting").await?.as_deref(), Some("hello"));
//! # Ok(())
//! # }
//! ```

#[cfg(all(
    doctest,
    feature = "embedded",
    feature = "postgres",
    feature = "redis",
    feature = "telemetry"
))]
mod pages;
mod url;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub use cubbyhole_core::*;
pub use cubbyhole_memory::{InMemoryStore, InMemoryStoreBuilder};

/// The embedded backend: a file on this machine.
#[cfg(feature = "embedded")]
pub mod embedded {
    pub use cubbyhole_embedded::*;
}

/// The PostgreSQL backend.
#[cfg(feature = "postgres")]
pub mod postgres {
    pub use cubbyhole_postgres::*;
}

/// The Redis and Redis Cluster backend.
#[cfg(feature = "redis")]
pub mod redis {
    pub use cubbyhole_redis::*;
}

/// Spans, events and metrics of every call.
#[cfg(feature = "telemetry")]
pub mod telemetry {
    pub use cubbyhole_telemetry::*;
}

use url::StoreUrl;

/// Opens the backend that `url` names, creating an embedded file that is not there yet.
///
/// | URL | backend |
/// |---|---|
/// | `memory:` | a new, empty store in this process |
/// | `redb:PATH`, `redb:PATH?durability=relaxed`, `redb:PATH?read_only=true` | a file on this machine; `%3F` in the path is `?`, `%25` is `%` |
/// | `postgres://USER:PASSWORD@HOST/DATABASE` | a PostgreSQL database; the feature `postgres` |
/// | `redis://USER:PASSWORD@HOST:PORT`, `rediss://…` | a Redis server; the feature `redis` |
/// | `redis+cluster://HOST:PORT,HOST:PORT` | a Redis Cluster; the feature `redis` |
///
/// # Errors
/// `InvalidArgument` for a URL that is none of these or holds a control character; `Unsupported` for a backend that this build
/// was made without; what the backend meets. No message holds a password.
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

/// Brings what is stored at `url` to the form that this build writes, with a role that may; the
/// application's role needs no such right. Connects by itself, past the start-up checks of
/// [`open`]. Returns what was done, a line each: nothing if it was up to date.
///
/// # Errors
/// As [`open`]; an embedded file that is not there is `Unavailable` and is not created. A schema in
/// PostgreSQL is.
pub async fn migrate(ctx: &ExecutionContext, url: &str) -> Result<Vec<String>> {
    match StoreUrl::parse(url)? {
        #[cfg(feature = "postgres")]
        StoreUrl::Postgres(config) => cubbyhole_postgres::migrate(ctx, &config).await,
        // The others have no older form yet: opening is the whole of it.
        other => {
            let store = OpenOptions::new().with_create(false).open_parsed(ctx, other).await?;
            store.close(ctx).await?;
            Ok(Vec::new())
        }
    }
}

/// Looks a store over: whether it can be opened, what it holds, and what should be looked after.
/// Works too where [`open`] refuses: what it finds is in the [`Diagnosis`].
///
/// # Errors
/// For a URL that names no backend, and the context's end.
pub async fn diagnose(ctx: &ExecutionContext, url: &str) -> Result<Diagnosis> {
    match StoreUrl::parse(url)? {
        StoreUrl::Memory => {
            ctx.begin().await?;
            let mut diagnosis = Diagnosis::default();
            diagnosis.ok("connection", "in memory: it lives and ends with its process");
            Ok(diagnosis)
        }
        #[cfg(feature = "embedded")]
        StoreUrl::Embedded(config) => cubbyhole_embedded::diagnose(ctx, &config).await,
        #[cfg(feature = "postgres")]
        StoreUrl::Postgres(config) => cubbyhole_postgres::diagnose(ctx, &config).await,
        #[cfg(feature = "redis")]
        StoreUrl::Redis(config) => cubbyhole_redis::diagnose(ctx, &config).await,
    }
}

/// Repairs with [`RepairOptions::new`] and returns what was repaired, a line each: nothing if nothing
/// was wrong. [`repair_with_options`] says what is repaired.
///
/// # Errors
/// As [`repair_with_options`], and the failure that its report holds.
pub async fn repair(ctx: &ExecutionContext, url: &str) -> Result<Vec<String>> {
    let report = repair_with_options(ctx, url, &RepairOptions::new()).await?;
    report.failure.map_or(Ok(report.repaired), Err)
}

/// Repairs what a backend can lose without losing entries. It may take long on a large store.
///
/// - Redis: rebuilds indexes from the entries. A failover can lose registrations of namespaces and
///   tenants, and eviction or another program the index of a namespace; `options` says what happens to
///   values whose index entry is lost. Others may use the store meanwhile.
/// - An embedded file: sets the store's time back to this machine's clock, if that was ahead once. The
///   report says what that revives; [`ClockAction::Report`] only says it. No other process may have
///   the file open.
///
/// Other backends have nothing to repair, and the store is only opened. An embedded file that is not
/// there is not created.
///
/// # Errors
/// As [`open`]. What ends a repair that has begun is in the [`RepairReport`].
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
    match StoreUrl::parse(url)? {
        #[cfg(feature = "redis")]
        StoreUrl::Redis(config) => {
            cubbyhole_redis::repair_with_options(ctx, *config, options).await
        }
        #[cfg(feature = "embedded")]
        StoreUrl::Embedded(config) => {
            cubbyhole_embedded::repair_with_options(ctx, &config, options).await
        }
        other => {
            let _ = options;
            let store = OpenOptions::new().with_create(false).open_parsed(ctx, other).await?;
            store.close(ctx).await?;
            Ok(RepairReport::default())
        }
    }
}

/// How a store is opened, where [`open`]'s way is not the right one.
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
}

impl OpenOptions {
    /// As [`open`] does.
    #[must_use]
    pub fn new() -> Self {
        Self { create: true, read_only: false, cache_bytes: None, lock_wait: Duration::ZERO }
    }

    /// Whether an embedded file that is not there is created; otherwise it is `Unavailable`.
    #[must_use]
    pub fn with_create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Whether the store only reads. Everything that writes is then `PermissionDenied` on every
    /// backend: puts, deletes, batches, `take`, `touch`, reads that extend a TTL, `erase`,
    /// `evict_expired` and `compact`.
    ///
    /// An embedded file is opened without writing to it, so that one on a read-only volume can be
    /// read, and is not created: see `embedded::Config::with_read_only`. On servers the store itself
    /// refuses; a database role without the right to write is what enforces it.
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

    /// The memory that a backend's own cache may take, where it has one.
    #[must_use]
    pub fn with_cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = Some(bytes);
        self
    }

    /// How long to wait while another process has an embedded file open; not at all unless set.
    #[must_use]
    pub fn with_lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// Opens the backend that `url` names.
    ///
    /// # Errors
    /// As [`open`].
    pub async fn open(&self, ctx: &ExecutionContext, url: &str) -> Result<Arc<dyn Backend>> {
        self.open_parsed(ctx, StoreUrl::parse(url)?).await
    }

    async fn open_parsed(&self, ctx: &ExecutionContext, url: StoreUrl) -> Result<Arc<dyn Backend>> {
        match url {
            StoreUrl::Memory => {
                let opening = async {
                    ctx.begin().await?;
                    Ok(InMemoryStore::builder().with_value_size(Bytes::len).build())
                };
                self.opened("memory", opening).await
            }
            #[cfg(feature = "embedded")]
            StoreUrl::Embedded(config) => {
                let read_only = self.read_only || config.is_read_only();
                let mut config = config
                    .with_create(self.create)
                    .with_read_only(read_only)
                    .with_lock_wait(self.lock_wait);
                if let Some(bytes) = self.cache_bytes {
                    config = config.with_cache_bytes(bytes);
                }
                // It refuses writes itself.
                opened("embedded", Box::pin(embedded::EmbeddedStore::open(ctx, config))).await
            }
            #[cfg(feature = "postgres")]
            StoreUrl::Postgres(config) => {
                self.opened("postgres", Box::pin(postgres::PostgresStore::open(ctx, *config))).await
            }
            #[cfg(feature = "redis")]
            StoreUrl::Redis(config) => {
                self.opened("redis", Box::pin(redis::RedisStore::open(ctx, *config))).await
            }
        }
    }

    /// [`opened`], with the layer that refuses writes where the options ask for it.
    async fn opened<S: Backend>(
        &self,
        name: &'static str,
        opening: impl Future<Output = Result<S>>,
    ) -> Result<Arc<dyn Backend>> {
        match self.read_only {
            true => opened(name, async { opening.await.map(ReadOnly::new) }).await,
            false => opened(name, opening).await,
        }
    }
}

/// Waits for a backend, within the layer that tells of its calls where the build has it. What
/// connects comes in a box: it takes tens of kilobytes, which every future that opens a store, and
/// every one around that, would carry and move about its stack.
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
