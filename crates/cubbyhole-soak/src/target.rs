//! The backends under load: opens each one, measures it from outside of the process and removes it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use clap::ValueEnum;
use cubbyhole::{Backend, ExecutionContext, OpenOptions};
use serde::Serialize;
use tempfile::TempDir;

use crate::postgres::Schema;
use crate::redis_keys::KeyPrefix;

/// The cache size of the embedded store. It is smaller than the file, so the cache is full at the
/// start and does not appear as growth.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// The backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendName {
    /// The in-memory store.
    Memory,
    /// An embedded file in a temporary folder.
    Embedded,
    /// The server at `CUBBYHOLE_TEST_POSTGRES_URL`, whose role can create schemas and roles.
    Postgres,
    /// The server at `CUBBYHOLE_TEST_REDIS_URL`.
    Redis,
    /// The cluster at `CUBBYHOLE_TEST_REDIS_CLUSTER_URL`.
    RedisCluster,
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.pad(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// An opened backend.
pub struct Target {
    /// The backend.
    pub name: BackendName,
    store: Arc<dyn Backend>,
    external: External,
}

/// The part of a backend outside of this process.
enum External {
    Nothing,
    File { path: PathBuf, _folder: TempDir },
    Postgres(Box<Schema>),
    Redis(KeyPrefix),
}

impl Target {
    /// Opens an empty store with its own file, schema or key prefix.
    ///
    /// # Errors
    /// The error of the backend, or a missing environment variable.
    pub async fn open(ctx: &ExecutionContext, name: BackendName) -> Result<Self, String> {
        let opened = Self::open_named(ctx, name).await;
        opened.map_err(|error| format!("cannot open {name}: {error}"))
    }

    async fn open_named(ctx: &ExecutionContext, name: BackendName) -> Result<Self, String> {
        let (external, url) = match name {
            BackendName::Memory => (External::Nothing, "memory:".to_owned()),
            BackendName::Embedded => {
                let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
                let path = folder.path().join("soak.redb");
                let url = format!("redb:{}", path.display());
                (External::File { path, _folder: folder }, url)
            }
            BackendName::Postgres => {
                let schema = Schema::new(ctx, &server("CUBBYHOLE_TEST_POSTGRES_URL")?).await?;
                let url = schema.url().to_owned();
                (External::Postgres(Box::new(schema)), url)
            }
            BackendName::Redis | BackendName::RedisCluster => {
                let variable = match name {
                    BackendName::Redis => "CUBBYHOLE_TEST_REDIS_URL",
                    _ => "CUBBYHOLE_TEST_REDIS_CLUSTER_URL",
                };
                let key_prefix = KeyPrefix::new(&server(variable)?).await?;
                let url = key_prefix.url().to_owned();
                (External::Redis(key_prefix), url)
            }
        };
        let options = OpenOptions::new().with_cache_bytes(CACHE_BYTES);
        let store = options.open(ctx, &url).await.map_err(|error| error.to_string())?;
        Ok(Self { name, store, external })
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Backend> {
        &self.store
    }

    /// The bytes that the backend stores: the file, the tables, or the memory of the servers.
    pub(crate) async fn stored(&mut self) -> Result<Option<u64>, String> {
        match &mut self.external {
            External::Nothing => Ok(None),
            External::File { path, .. } => {
                let file = std::fs::metadata(path).map_err(|error| error.to_string())?;
                Ok(Some(file.len()))
            }
            External::Postgres(schema) => schema.bytes().await.map(Some),
            External::Redis(key_prefix) => key_prefix.bytes().await.map(Some),
        }
    }

    /// The number of connections, as the server counts them.
    pub(crate) async fn connections(&mut self) -> Result<Option<u64>, String> {
        match &mut self.external {
            External::Nothing | External::File { .. } => Ok(None),
            External::Postgres(schema) => schema.connections().await.map(Some),
            External::Redis(key_prefix) => key_prefix.connections().await.map(Some),
        }
    }

    /// Closes the store and removes its data.
    pub(crate) async fn remove(mut self, ctx: &ExecutionContext) -> Result<(), String> {
        self.store
            .close(ctx)
            .await
            .map_err(|error| format!("cannot close {}: {error}", self.name))?;
        let removed = match &mut self.external {
            External::Nothing | External::File { .. } => Ok(()),
            External::Postgres(schema) => schema.remove().await,
            External::Redis(key_prefix) => key_prefix.remove().await,
        };
        removed.map_err(|error| format!("cannot remove the data of {}: {error}", self.name))
    }
}

fn server(variable: &str) -> Result<String, String> {
    std::env::var(variable).map_err(|_| {
        format!("{variable} is not set; `cargo xtask soak` starts a private server and sets it")
    })
}
