//! [`EmbeddedStore`] and its trait implementations.

mod entry_store;
mod extend;
mod open;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cubbyhole_core::limits::{MAX_PAGE_ITEMS, check_key, check_prefix, check_value_bytes};
use cubbyhole_core::{
    Backend, Bytes, ClockAhead, Compaction, Condition, Entry, ErrorKind, ExecutionContext,
    Namespace, NamespacePrefix, Page, PutOptions, Result, ResultExt, ScanItem, ScanOptions, Store,
    Timestamp, Version,
};

use crate::call::begin;
use crate::config::Config;
use crate::engine::Snapshot;
use crate::engine::format::FORMAT;
use crate::error::Failure;
use crate::reader::Reader;
use crate::writer::Writer;

/// A store in one file on this machine. Clones are cheap and share the file.
///
/// **Writes.** One thread commits the writes of all callers in groups. A write returns when it is
/// on disk, or earlier with [`Durability::Relaxed`](crate::Durability::Relaxed).
///
/// **Reads.** Reads see the last commit. A short read runs on the caller's thread. A read that
/// needs more than 512 steps or 256 KiB, or that may wait for the disk, runs in the runtime's
/// blocking pool. So calls need a tokio runtime, with timers if the context has a deadline;
/// otherwise they fail with `InvalidArgument`.
///
/// **Closing.** [`Backend::close`] writes the queued requests, closes the file and returns errors.
/// Dropping the last clone does the same, blocks until the file is closed, and ignores errors.
///
/// **Erasure.** [`compact`](Backend::compact), and closing after
/// [`erase`](cubbyhole_core::EntryStore::erase),
/// rewrite the file. Afterwards it contains no byte of an erased, deleted or overwritten entry.
/// This needs time and free space in proportion to the size of the store.
///
/// **Processes.** One process can have the file open for writing, or any number of processes can
/// have it open [read-only](Config::with_read_only).
///
/// ```
/// use cubbyhole_core::{ExecutionContext, Namespace, Store, TypedExt};
/// use cubbyhole_embedded::{Config, EmbeddedStore};
///
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("state.redb");
/// let ctx = ExecutionContext::new();
/// let store = EmbeddedStore::open(&ctx, Config::new(path)).await?.typed::<String>();
/// let ns = Namespace::parse("acme:agent-7")?;
/// store.put(&ctx, &ns, "greeting", "hello".to_owned()).await?;
/// assert_eq!(store.get(&ctx, &ns, "greeting").await?.as_deref(), Some("hello"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EmbeddedStore {
    reader: Arc<Reader>,
    // Declared after the reader, so the reader is dropped first and dropping the writer closes the
    // file.
    writer: Arc<Writer>,
    max_value_bytes: usize,
}

impl EmbeddedStore {
    /// Opens the file that `config` names, and creates it if it is missing, unless `config` says
    /// otherwise.
    ///
    /// After a crash, opening replays the log: up to 1,024 changes.
    ///
    /// # Errors
    /// | kind | cause |
    /// |---|---|
    /// | `Unavailable` | the file or its folder is missing, or the file is open elsewhere |
    /// | `InvalidArgument` | the file is not a store, or there is no tokio runtime |
    /// | `Unsupported` | the file has another format |
    /// | `Corrupt` | the file is damaged |
    /// | `PermissionDenied` | permissions or a read-only volume forbid reading or writing |
    /// | `ResourceExhausted` | the disk is full |
    /// | `Cancelled`, `DeadlineExceeded` | the context has ended |
    pub async fn open(ctx: &ExecutionContext, config: Config) -> Result<Self> {
        begin(ctx, "open").await?;
        Self::open_when_free(ctx, config).await.in_operation("open")
    }

    /// Returns the number of transactions committed since the store was opened. The number of
    /// writes divided by it is the average size of a group commit.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.writer.commits()
    }

    /// Reads all entries and checks that the tables are consistent.
    ///
    /// Every entry and its value must be readable, and the expiry index must contain exactly the
    /// entries that expire. Use it to check a copy before you rely on it as a backup. Other calls
    /// can run at the same time.
    ///
    /// ```
    /// # use cubbyhole_core::ExecutionContext;
    /// # use cubbyhole_embedded::{Config, EmbeddedStore};
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("backup.redb");
    /// # let ctx = ExecutionContext::new();
    /// # drop(EmbeddedStore::open(&ctx, Config::new(&path)).await?);
    /// let backup = EmbeddedStore::open(&ctx, Config::new(path).with_read_only(true)).await?;
    /// backup.verify(&ctx).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Corrupt` with the number of inconsistencies; `Cancelled` or `DeadlineExceeded` if the
    /// context ends.
    pub async fn verify(&self, ctx: &ExecutionContext) -> Result<()> {
        begin(ctx, "verify").await?;
        let verified = self.reader.run(ctx, |snapshot| snapshot.verify()).await;
        verified.and_then(|found| found.verdict()).in_operation("verify")
    }

    /// The format version of the file.
    pub(crate) async fn format(&self, ctx: &ExecutionContext) -> Result<u32> {
        self.reader.run(ctx, |snapshot| snapshot.format()).await
    }

    /// Gives a file of an earlier format the current one. Returns the earlier format, or `None` if
    /// the file had the current one.
    pub(crate) async fn upgrade_format(&self, ctx: &ExecutionContext) -> Result<Option<u32>> {
        // Checks first, so a file that is open read-only is refused only if it needs an upgrade.
        if self.format(ctx).await? == FORMAT {
            return Ok(None);
        }
        self.writer.submit(ctx, 0, |tables| tables.upgrade_format()).await
    }

    /// Returns the number of entries, expired ones included, and the number of expired ones.
    pub(crate) async fn counts(&self, ctx: &ExecutionContext) -> Result<(u64, u64)> {
        self.reader.run(ctx, |snapshot| snapshot.counts()).await
    }

    /// The time by which the store's time is ahead of the clock.
    pub(crate) fn clock_lead(&self) -> Duration {
        self.reader.lead()
    }

    /// Counts the entries that the store's time and the clock judge differently.
    pub(crate) async fn ahead_of(
        &self,
        ctx: &ExecutionContext,
        wall: Timestamp,
    ) -> Result<ClockAhead> {
        self.reader.run(ctx, move |snapshot| snapshot.ahead_of(wall)).await
    }

    async fn lookup(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Entry<Bytes>>> {
        check_key(key)?;
        let (ns, key) = (ns.clone(), key.to_owned());
        self.reader.run(ctx, move |snapshot| snapshot.get(&ns, &key)).await
    }

    async fn lookup_many(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Result<Option<Entry<Bytes>>>>> {
        let ns = ns.clone();
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let read = move |snapshot: &Snapshot<'_>| {
            let one = |key: &String| match snapshot.get(&ns, key) {
                Ok(entry) => Ok(Ok(entry)),
                // A damaged entry fails only its key. The end of the context fails the whole call.
                Err(Failure::Refused(error)) if error.kind() == ErrorKind::Corrupt => {
                    Ok(Err(error.in_operation("get_many")))
                }
                Err(failure) => Err(failure),
            };
            keys.iter().map(one).collect()
        };
        self.reader.run(ctx, read).await
    }

    async fn page(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        options: ScanOptions,
    ) -> Result<Page<ScanItem<Bytes>, String>> {
        let ns = ns.clone();
        self.reader.run(ctx, move |snapshot| snapshot.scan(&ns, &options)).await
    }

    async fn put_if(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
        options: PutOptions,
        condition: Condition,
    ) -> Result<Version> {
        check_key(key)?;
        check_value_bytes(value.len(), self.max_value_bytes)?;
        options.expiry().check()?;
        let (ns, key) = (ns.clone(), key.to_owned());
        let version = options.version_or_draw();
        self.writer
            .submit(ctx, value.len(), move |tables| {
                tables.put(&ns, &key, &value, version, options.expiry(), condition)
            })
            .await
    }

    async fn delete_if(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        condition: Condition,
    ) -> Result<bool> {
        check_key(key)?;
        let (ns, key) = (ns.clone(), key.to_owned());
        self.writer.submit(ctx, 0, move |tables| tables.delete(&ns, &key, condition)).await
    }

    async fn evict(&self, ctx: &ExecutionContext) -> Result<usize> {
        ctx.check()?;
        self.writer.check_writable()?;
        let mut removed = 0;
        let swept: Result<()> = async {
            // Checks first, so a store without expired entries is not written.
            while self.reader.run(ctx, |snapshot| snapshot.has_expired()).await? {
                removed +=
                    self.writer.submit(ctx, 0, |tables| tables.evict(MAX_PAGE_ITEMS)).await?;
            }
            Ok(())
        }
        .await;
        match swept {
            Err(error) if removed > 0 => Err(error.with_unknown_outcome()),
            swept => swept.map(|()| removed),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store<Bytes> for EmbeddedStore {
    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
        options: PutOptions,
    ) -> Result<()> {
        begin(ctx, "put").await?;
        let put = self.put_if(ctx, ns, key, value, options, Condition::Always);
        put.await.map(drop).in_operation("put")
    }

    async fn get(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Bytes>> {
        begin(ctx, "get").await?;
        let entry = self.lookup(ctx, ns, key).await.in_operation("get")?;
        Ok(entry.map(|entry| entry.value))
    }

    async fn delete(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<()> {
        begin(ctx, "delete").await?;
        self.delete_if(ctx, ns, key, Condition::Always).await.map(drop).in_operation("delete")
    }

    async fn list(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        prefix: Option<&str>,
    ) -> Result<Vec<String>> {
        begin(ctx, "list").await?;
        check_prefix(prefix).in_operation("list")?;
        let (ns, prefix) = (ns.clone(), prefix.unwrap_or("").to_owned());
        self.reader.run(ctx, move |snapshot| snapshot.list(&ns, &prefix)).await.in_operation("list")
    }

    async fn put(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
    ) -> Result<()> {
        self.put_with_options(ctx, ns, key, value, PutOptions::default()).await
    }

    async fn list_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
    ) -> Result<Vec<Namespace>> {
        begin(ctx, "list_namespaces").await?;
        let prefix = prefix.clone();
        let list =
            self.reader.run(ctx, move |snapshot| snapshot.namespaces(&prefix, None, usize::MAX));
        list.await.map(|(namespaces, _)| namespaces).in_operation("list_namespaces")
    }

    async fn evict_expired(&self, ctx: &ExecutionContext) -> Result<usize> {
        begin(ctx, "evict_expired").await?;
        self.evict(ctx).await.in_operation("evict_expired")
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for EmbeddedStore {
    /// Closes the file, even if the context ends. After an erasure the file is rewritten first. If
    /// that fails, the call returns the error, the erased entries stay absent, and the next clean
    /// close repeats the rewriting.
    async fn close(&self, ctx: &ExecutionContext) -> Result<()> {
        // Starts closing first, so the file is closed even without a runtime or with an ended
        // context.
        let closing = self.writer.begin_close();
        begin(ctx, "close").await?;
        closing.wait(ctx).await.in_operation("close")
    }

    /// Returns free space to the file system and removes all bytes of deleted and overwritten
    /// entries. Fails with `ResourceExhausted` if there is too little space to rewrite the entries.
    /// In this case the free space is returned, but bytes of deleted entries may remain.
    async fn compact(&self, ctx: &ExecutionContext) -> Result<Compaction> {
        begin(ctx, "compact").await?;
        self.writer.compact(ctx).await.in_operation("compact")
    }
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore").field("path", &self.reader.path()).finish()
    }
}
