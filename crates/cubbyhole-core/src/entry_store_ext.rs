//! [`EntryStoreExt`]: operations that are built on [`EntryStore`].

use async_trait::async_trait;

use crate::backoff::Backoff;
use crate::limits::MAX_PAGE_ITEMS;
use crate::{
    Condition, Entry, EntryStore, ErrorKind, ExecutionContext, GetOptions, Namespace,
    NamespacePrefix, PutOptions, Result, ResultExt, Version,
};

/// The decision of an [`update`](EntryStoreExt::update).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update<V> {
    /// Writes this value with default options.
    Put(V),
    /// Writes this value with these options.
    PutWith(V, PutOptions),
    /// Removes the entry.
    Delete,
    /// Changes nothing.
    Keep,
}

/// Operations of every [`EntryStore`], including `dyn` stores.
#[async_trait]
pub trait EntryStoreExt<V: Send + 'static>: EntryStore<V> {
    /// Updates an entry by optimistic concurrency: read, decide, write on condition, retry on
    /// conflict. Returns the new version, or `None` if nothing was put.
    ///
    /// `decide` receives the current entry, or `None` if it is absent. It runs again for each attempt.
    /// Attempts are repeated until the context ends, with exponential backoff and full jitter. The
    /// maximum pause doubles from 1 ms to 50 ms. If an attempt takes longer than 1 ms, that time is the
    /// unit instead. A pause is at most 1 s. Without a tokio runtime with timers the call yields
    /// instead of sleeping.
    ///
    /// ```
    /// use cubbyhole::{EntryStoreExt, ExecutionContext, InMemoryStore, Namespace, Update};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let store = InMemoryStore::<u32>::new();
    /// let ctx = ExecutionContext::new();
    /// let ns = Namespace::parse("acme:counters")?;
    ///
    /// let next = |entry: Option<cubbyhole::Entry<u32>>| {
    ///     Ok(Update::Put(entry.map_or(0, |entry| entry.value) + 1))
    /// };
    /// store.update(&ctx, &ns, "visits", next).await?;
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// - The error of `decide`.
    /// - `Cancelled` or `DeadlineExceeded`: the context ended.
    /// - Any error of the backend. A write of unknown outcome is not repeated.
    async fn update<F>(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        mut decide: F,
    ) -> Result<Option<Version>>
    where
        F: FnMut(Option<Entry<V>>) -> Result<Update<V>> + Send,
    {
        let mut backoff = Backoff::new();
        loop {
            ctx.begin().await.in_operation("update")?;
            let entry = self.get_entry(ctx, ns, key, GetOptions::new()).await?;
            let read = entry.as_ref().map(|entry| entry.meta.version);
            let condition = read.map_or(Condition::IfAbsent, Condition::IfVersion);
            let done = match decide(entry)? {
                Update::Put(value) => self
                    .put_entry(ctx, ns, key, value, PutOptions::default(), condition)
                    .await
                    .map(Some),
                Update::PutWith(value, options) => {
                    self.put_entry(ctx, ns, key, value, options, condition).await.map(Some)
                }
                Update::Delete => self.delete_entry(ctx, ns, key, condition).await.map(|_| None),
                Update::Keep => return Ok(None),
            };
            match done {
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    backoff.pause(ctx).await.in_operation("update")?;
                }
                done => return done,
            }
        }
    }

    /// Removes all entries under `prefix` in steps, and returns the number of live entries removed.
    ///
    /// Call [`erase`](EntryStore::erase) directly to show progress. An interrupted erasure is
    /// continued by calling this again.
    ///
    /// # Errors
    /// - `Cancelled` or `DeadlineExceeded`: the context ended.
    /// - Any error of the backend. Entries that were removed before the error stay removed.
    ///
    /// ```
    /// use cubbyhole::{
    ///     EntryStoreExt, ExecutionContext, InMemoryStore, Namespace, NamespacePrefix, Store,
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let store = InMemoryStore::<u32>::new();
    /// store.put(&ctx, &Namespace::parse("acme:agent-7")?, "n", 1).await?;
    /// assert_eq!(store.erase_all(&ctx, &NamespacePrefix::parse("acme")?).await?, 1);
    /// # Ok(())
    /// # }
    /// ```
    async fn erase_all(&self, ctx: &ExecutionContext, prefix: &NamespacePrefix) -> Result<u64> {
        let mut removed = 0;
        loop {
            let step = async {
                ctx.begin().await.in_operation("erase")?;
                self.erase(ctx, prefix, MAX_PAGE_ITEMS).await
            };
            let step = match step.await {
                Err(error) if removed > 0 => return Err(error.with_unknown_outcome()),
                step => step?,
            };
            removed += step.removed;
            if step.done {
                return Ok(removed);
            }
        }
    }
}

impl<V: Send + 'static, S: EntryStore<V> + ?Sized> EntryStoreExt<V> for S {}
