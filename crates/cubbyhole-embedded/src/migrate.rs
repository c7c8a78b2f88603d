//! Migration: gives a file of an earlier format the current one.

use cubbyhole_core::{Backend, ExecutionContext, Result, ResultExt};

use crate::config::Config;
use crate::engine::format::FORMAT;
use crate::store::EmbeddedStore;
use crate::url_path::shown;

/// Gives a file of an earlier format the current one. Returns one line of text for each change, or
/// nothing if the file has the current format.
///
/// Earlier formats need no migration: this build reads and writes them. After it, earlier builds
/// refuse the file. A missing file is not created.
///
/// ```
/// # use cubbyhole_core::ExecutionContext;
/// # use cubbyhole_embedded::{Config, EmbeddedStore, migrate};
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let config = Config::new(folder.path().join("state.redb"));
/// # let ctx = ExecutionContext::new();
/// # drop(EmbeddedStore::open(&ctx, config.clone()).await?);
/// assert!(migrate(&ctx, &config).await?.is_empty());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// - The errors of [`EmbeddedStore::open`] for a file that must exist.
/// - `PermissionDenied` if the configuration is read-only and the file has an earlier format.
/// - The errors of closing the file.
pub async fn migrate(ctx: &ExecutionContext, config: &Config) -> Result<Vec<String>> {
    let migrate = async {
        let store = EmbeddedStore::open(ctx, config.clone().with_create(false)).await?;
        let upgraded = store.upgrade_format(ctx).await;
        let closed = store.close(ctx).await;
        let earlier = upgraded?;
        closed?;
        let line = |earlier| format!("{}: format {earlier} to {FORMAT}", shown(config.path()));
        Ok(earlier.map(line).into_iter().collect())
    };
    migrate.await.in_operation("migrate")
}
