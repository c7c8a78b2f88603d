//! What is built on the methods of [`EntryStore`], for every store alike.

use async_trait::async_trait;

use crate::backoff::Backoff;
use crate::limits::MAX_PAGE_ITEMS;
use crate::{
    Condition, Entry, EntryStore, ErrorKind, ExecutionContext, GetOptions, Namespace,
    NamespacePrefix, PutOptions, Result, ResultExt, Version,
};

/// What an [`update`](EntryStoreExt::update) decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update<V> {
    /// Write this value, without a TTL.
    Put(V),
    /// Write this value with these options.
    PutWith(V, PutOptions),
    /// Remove the entry.
    Delete,
    /// Leave it as it is.
    Keep,
}

/// Extensions of every [`EntryStore`], `dyn` stores included.
#[async_trait]
pub trait EntryStoreExt<V: Send + 'static>: EntryStore<V> {
    /// Reads the entry, asks `decide` what to do, and does it if the entry is still at the version
    /// read; otherwise begins again, until the context ends. Returns the version written, `None`
    /// if nothing was put.
    ///
    /// `decide` gets `None` for an absent entry, and may run many times. Attempts that lose against
    /// other callers are repeated with exponential backoff and full jitter, within the context. The
    /// longest pause doubles from 1 ms to 50 ms, or from the time that an attempt takes to 50 times
    /// that if attempts take longer, and is 1 s at most. Without a tokio runtime with timers the
    /// call yields instead.
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
    /// What `decide` answers, the context's end, and what the backend meets. A write whose outcome
    /// is unknown is not repeated.
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

    /// Removes everything under `prefix`, step by step, and returns how many live entries were
    /// removed. Call [`erase`](EntryStore::erase) yourself to show progress. Can be repeated after
    /// an interruption.
    ///
    /// # Errors
    /// The context's end, and what the backend meets; what was removed stays removed.
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
