//! The backends under load: how each is opened, what can be measured of it from outside, and how it
//! is taken away again.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use clap::ValueEnum;
use cubbyhole::{Backend, ExecutionContext, OpenOptions};
use serde::Serialize;
use tempfile::TempDir;

use crate::postgres::Schema;
use crate::redis_servers::Keyspace;

/// The cache of the embedded store: smaller than the file, so that it is full when the run begins
/// and is not what grows.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// The backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendName {
    /// In this process.
    Memory,
    /// In a file, in a temporary folder.
    Embedded,
    /// On the server that `CUBBYHOLE_TEST_POSTGRES_URL` names, as an administrator.
    Postgres,
    /// On the server that `CUBBYHOLE_TEST_REDIS_URL` names.
    Redis,
    /// On the cluster that `CUBBYHOLE_TEST_REDIS_CLUSTER_URL` names.
    RedisCluster,
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.pad(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// A backend that was opened for the run.
pub struct Target {
    /// Which.
    pub name: BackendName,
    store: Arc<dyn Backend>,
    outside: Outside,
}

/// What of it is not in this process.
enum Outside {
    Nothing,
    File { path: PathBuf, _folder: TempDir },
    Postgres(Box<Schema>),
    Redis(Keyspace),
}

impl Target {
    /// Opens it, in a place of its own that holds nothing.
    ///
    /// # Errors
    /// What stands in the way.
    pub async fn open(ctx: &ExecutionContext, name: BackendName) -> Result<Self, String> {
        let opened = Self::open_named(ctx, name).await;
        opened.map_err(|error| format!("{name} cannot be opened: {error}"))
    }

    async fn open_named(ctx: &ExecutionContext, name: BackendName) -> Result<Self, String> {
        let (outside, url) = match name {
            BackendName::Memory => (Outside::Nothing, "memory:".to_owned()),
            BackendName::Embedded => {
                let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
                let path = folder.path().join("soak.redb");
                let url = format!("redb:{}", path.display());
                (Outside::File { path, _folder: folder }, url)
            }
            BackendName::Postgres => {
                let schema = Schema::new(ctx, &server("CUBBYHOLE_TEST_POSTGRES_URL")?).await?;
                let url = schema.url().to_owned();
                (Outside::Postgres(Box::new(schema)), url)
            }
            BackendName::Redis | BackendName::RedisCluster => {
                let variable = match name {
                    BackendName::Redis => "CUBBYHOLE_TEST_REDIS_URL",
                    _ => "CUBBYHOLE_TEST_REDIS_CLUSTER_URL",
                };
                let keyspace = Keyspace::new(&server(variable)?).await?;
                let url = keyspace.url().to_owned();
                (Outside::Redis(keyspace), url)
            }
        };
        let options = OpenOptions::new().with_cache_bytes(CACHE_BYTES);
        let store = options.open(ctx, &url).await.map_err(|error| error.to_string())?;
        Ok(Self { name, store, outside })
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Backend> {
        &self.store
    }

    /// What it takes outside of this process: of a file, of tables, of the servers' memory.
    pub(crate) async fn stored(&mut self) -> Result<Option<u64>, String> {
        match &mut self.outside {
            Outside::Nothing => Ok(None),
            Outside::File { path, .. } => {
                let file = std::fs::metadata(path).map_err(|error| error.to_string())?;
                Ok(Some(file.len()))
            }
            Outside::Postgres(schema) => schema.bytes().await.map(Some),
            Outside::Redis(keyspace) => keyspace.bytes().await.map(Some),
        }
    }

    /// Its connections, as the server counts them.
    pub(crate) async fn connections(&mut self) -> Result<Option<u64>, String> {
        match &mut self.outside {
            Outside::Nothing | Outside::File { .. } => Ok(None),
            Outside::Postgres(schema) => schema.connections().await.map(Some),
            Outside::Redis(keyspace) => keyspace.connections().await.map(Some),
        }
    }

    /// Closes the store and removes all that it left.
    pub(crate) async fn remove(mut self, ctx: &ExecutionContext) -> Result<(), String> {
        self.store
            .close(ctx)
            .await
            .map_err(|error| format!("{} at closing: {error}", self.name))?;
        let removed = match &mut self.outside {
            Outside::Nothing | Outside::File { .. } => Ok(()),
            Outside::Postgres(schema) => schema.remove().await,
            Outside::Redis(keyspace) => keyspace.remove().await,
        };
        removed.map_err(|error| format!("{} leaves something behind: {error}", self.name))
    }
}

fn server(variable: &str) -> Result<String, String> {
    std::env::var(variable).map_err(|_| {
        format!("{variable} is not set; `cargo xtask soak` starts a private server and sets it")
    })
}
