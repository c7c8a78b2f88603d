//! Stores on every backend, for the tests of the integrations.
//!
//! [`on_every_backend!`] runs a test in memory, in a file, on PostgreSQL, on Redis and on Redis
//! Cluster. The servers are those of `cubbyhole-testkit`: private ones, or those that environment
//! variables name.
#![cfg(unix)]
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a panic fails the test that calls a helper"
)]

use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{Backend, EntryStore, EntryStoreExt, ExecutionContext, NamespacePrefix, Store};
use cubbyhole_testkit::shared;
use tempfile::TempDir;

/// The programs of the guide compile.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guides/integrations.md")]
mod guide {}

/// Returns a context whose deadline only a test that hangs reaches.
#[must_use]
pub fn ctx() -> ExecutionContext {
    ExecutionContext::new().with_timeout(Duration::from_secs(60))
}

/// Waits until `condition` holds. Only a test that hangs reaches the time limit.
pub async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let limit = ctx();
    while !condition().await {
        assert!(limit.sleep(Duration::from_millis(5)).await.is_ok(), "timed out: {what}");
    }
}

/// An empty store that the test owns. Dropping this removes its data from the server.
#[derive(Debug)]
pub struct TestStore {
    url: String,
    cleanup: Cleanup,
}

#[derive(Debug)]
enum Cleanup {
    /// The data ends with the process.
    Memory,
    /// The folder is removed when it is dropped.
    Folder {
        _folder: TempDir,
    },
    Postgres(shared::Schema),
    Redis,
}

impl TestStore {
    /// An in-memory store. Each call of [`open`](Self::open) returns a new one.
    #[must_use]
    pub fn memory() -> Self {
        Self { url: "memory:".to_owned(), cleanup: Cleanup::Memory }
    }

    /// An embedded file in a temporary folder.
    #[must_use]
    pub fn file() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let url = format!("redb:{}", folder.path().join("store.redb").display());
        Self { url, cleanup: Cleanup::Folder { _folder: folder } }
    }

    /// A new schema on PostgreSQL. The store connects with the rights of an application.
    #[must_use]
    pub fn postgres() -> Self {
        let schema = shared::Schema::new("integrations").expect("a PostgreSQL server");
        let (admin_url, create_login) = (schema.admin_url.clone(), schema.create_login());
        in_own_runtime(async move {
            cubbyhole::migrate(&ctx(), &admin_url).await.expect("a migrated schema");
            execute(&create_login).await;
        });
        Self { url: schema.url.clone(), cleanup: Cleanup::Postgres(schema) }
    }

    /// A new key prefix on a Redis server.
    #[must_use]
    pub fn redis() -> Self {
        let server = shared::redis_url().expect("a Redis server");
        Self { url: shared::with_new_prefix(server, "integrations"), cleanup: Cleanup::Redis }
    }

    /// A new key prefix on a Redis Cluster.
    #[must_use]
    pub fn redis_cluster() -> Self {
        let cluster = shared::redis_cluster_url().expect("a Redis Cluster");
        Self { url: shared::with_new_prefix(cluster, "integrations"), cleanup: Cleanup::Redis }
    }

    /// Opens the store. A second call on a server returns a second client of the same data.
    pub async fn open(&self) -> Arc<dyn Backend> {
        match cubbyhole::open(&ctx(), &self.url).await {
            Ok(store) => store,
            Err(error) => panic!("{}: {error}", self.url),
        }
    }
}

impl Drop for TestStore {
    fn drop(&mut self) {
        match &self.cleanup {
            Cleanup::Memory | Cleanup::Folder { .. } => {}
            Cleanup::Postgres(schema) => {
                let drop_all = schema.drop_all();
                in_own_runtime(async move { execute(&drop_all).await });
            }
            Cleanup::Redis => {
                let url = self.url.clone();
                in_own_runtime(async move { erase_everything(&url).await });
            }
        }
    }
}

/// Runs a future on a separate thread, because the caller may be inside a runtime.
fn in_own_runtime(future: impl Future<Output = ()> + Send + 'static) {
    let thread = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(future);
    });
    // A failed cleanup must not hide the failure of the test.
    if thread.join().is_err() && !std::thread::panicking() {
        panic!("the preparation or the cleanup of a store failed");
    }
}

async fn execute(sql: &str) {
    let url = shared::postgres_url().expect("a PostgreSQL server");
    let connected = tokio_postgres::connect(url, tokio_postgres::NoTls).await;
    let (client, connection) = connected.expect("a connection as administrator");
    tokio::spawn(connection);
    client.batch_execute(sql).await.expect("the SQL of the preparation or the cleanup");
}

async fn erase_everything(url: &str) {
    let erased = async {
        let store = cubbyhole::open(&ctx(), url).await?;
        for tenant in store.scan_tenants(&ctx(), None, 1000).await?.items {
            store.erase_all(&ctx(), &NamespacePrefix::from(tenant)).await?;
        }
        store.evict_expired(&ctx()).await?;
        store.close(&ctx()).await
    };
    erased.await.expect("an erased store");
}

/// Runs each test function on every backend. The functions take a [`TestStore`] by reference and are
/// in the module that calls the macro.
#[macro_export]
macro_rules! on_every_backend {
    ($($test:ident),* $(,)?) => {
        $($crate::on_backends! { (memory file postgres redis redis_cluster) $test })*
    };
}

/// Runs a test function on some backends, as [`on_every_backend!`] does.
#[macro_export]
macro_rules! on_backends {
    (($($backend:ident)*) $test:ident) => {
        mod $test {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $backend() {
                    super::$test(&$crate::TestStore::$backend()).await;
                }
            )*
        }
    };
}
