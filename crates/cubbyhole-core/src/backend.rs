//! [`Backend`]: a store that is opened and closed.

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{EntryStore, ExecutionContext, Result};

/// A store over [`Bytes`] that `open(url)` can return.
#[async_trait]
pub trait Backend: EntryStore<Bytes> {
    /// Finishes in-flight writes, makes them durable, and releases files and connections.
    ///
    /// Later calls return `InvalidArgument`. Closing twice succeeds. Dropping a backend closes it too,
    /// but cannot report errors.
    ///
    /// # Errors
    /// Any error of the backend. The backend is closed nevertheless.
    ///
    /// ```
    /// use cubbyhole::{Backend, ErrorKind, ExecutionContext, Namespace, Store};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let store = cubbyhole::open(&ctx, "memory:").await?;
    /// store.close(&ctx).await?;
    /// let ns = Namespace::parse("acme")?;
    /// assert_eq!(store.get(&ctx, &ns, "k").await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    /// # Ok(())
    /// # }
    /// ```
    async fn close(&self, ctx: &ExecutionContext) -> Result<()>;

    /// Returns space of deleted and expired entries to the operating system, if the engine can.
    ///
    /// - Memory: does nothing.
    /// - Embedded: moves the data to the front of the file and truncates the file. Other calls wait
    ///   until it is done.
    /// - PostgreSQL: runs `VACUUM` on the table of entries, as autovacuum does. The role must own the
    ///   table, which the application's role does not. Other calls do not wait.
    /// - Redis: runs `MEMORY PURGE` on each server. The reported sizes are those of the whole server.
    ///
    /// # Errors
    /// - `PermissionDenied`: the role is not allowed to compact.
    /// - Any error of the backend.
    ///
    /// ```
    /// use cubbyhole::{Backend, ExecutionContext};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let store = cubbyhole::open(&ctx, "memory:").await?;
    /// let compaction = store.compact(&ctx).await?;
    /// assert_eq!(compaction.bytes_before, None);
    /// # Ok(())
    /// # }
    /// ```
    async fn compact(&self, ctx: &ExecutionContext) -> Result<Compaction>;
}

/// The result of [`Backend::compact`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Compaction {
    /// Size in bytes before compaction, if the engine reports it.
    pub bytes_before: Option<u64>,
    /// Size in bytes after compaction, if the engine reports it.
    pub bytes_after: Option<u64>,
}
