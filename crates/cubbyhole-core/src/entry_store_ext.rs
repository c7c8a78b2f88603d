//! [`EntryStoreExt`]: operations that are built on [`EntryStore`].

use async_trait::async_trait;

use crate::backoff::Backoff;
use crate::limits::{MAX_KEY_BYTES, MAX_PAGE_ITEMS, check_prefix};
use crate::{
    Batch, Condition, Entry, EntryStore, Error, ErrorKind, ExecutionContext, GetOptions, Namespace,
    NamespacePrefix, PutOptions, Result, ResultExt, ScanItem, ScanOptions, Version,
};

/// The number of digits in the keys of [`EntryStoreExt::append`].
const SEQUENCE_DIGITS: usize = 20;
/// The greatest number with [`SEQUENCE_DIGITS`] digits.
const MAX_SEQUENCE: u128 = 10_u128.pow(SEQUENCE_DIGITS as u32) - 1;

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
    /// Inserts an entry and returns its version. Fails if there is a live entry.
    ///
    /// # Errors
    /// - `Conflict`: there is a live entry. The error has its [version](Error::current_version).
    /// - The errors of [`EntryStore::put_entry`].
    ///
    /// ```
    /// use cubbyhole::{
    ///     EntryStoreExt, ErrorKind, ExecutionContext, InMemoryStore, Namespace, PutOptions,
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme:users")?);
    /// let store = InMemoryStore::<u32>::new();
    /// store.insert(&ctx, &ns, "ada", 1, PutOptions::new()).await?;
    /// let second = store.insert(&ctx, &ns, "ada", 2, PutOptions::new()).await;
    /// assert_eq!(second.unwrap_err().kind(), ErrorKind::Conflict);
    /// # Ok(())
    /// # }
    /// ```
    async fn insert(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: V,
        options: PutOptions,
    ) -> Result<Version> {
        self.put_entry(ctx, ns, key, value, options, Condition::IfAbsent).await
    }

    /// Replaces the entry that has this version, and returns the new version. The new entry does not
    /// expire; use [`EntryStore::put_entry`] for other options.
    ///
    /// # Errors
    /// - `Conflict`: the entry is absent or has another version. The error has its
    ///   [version](Error::current_version).
    /// - The errors of [`EntryStore::put_entry`].
    ///
    /// ```
    /// use cubbyhole::{EntryStoreExt, ExecutionContext, InMemoryStore, Namespace, PutOptions, Store};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme:users")?);
    /// let store = InMemoryStore::<u32>::new();
    /// let version = store.insert(&ctx, &ns, "ada", 1, PutOptions::new()).await?;
    /// store.replace(&ctx, &ns, "ada", 2, version).await?;
    /// assert_eq!(store.get(&ctx, &ns, "ada").await?, Some(2));
    /// # Ok(())
    /// # }
    /// ```
    async fn replace(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: V,
        version: Version,
    ) -> Result<Version> {
        let condition = Condition::IfVersion(version);
        self.put_entry(ctx, ns, key, value, PutOptions::new(), condition).await
    }

    /// Appends values to a sequence and returns their keys: `prefix` and 20 digits, counted from
    /// zero. The byte order of the keys is therefore the order of the values.
    ///
    /// The first value gets the number after the highest live one. The values are written atomically,
    /// with [`Condition::IfAbsent`]. If another caller took a number, the call reads the highest number
    /// again, with the pauses of [`update`](Self::update). Concurrent appends therefore leave no gap.
    /// Keys under the prefix that do not end in 20 digits are ignored. Without a conflict the call
    /// takes one page of one key and one batch.
    ///
    /// # Errors
    /// - `InvalidArgument`: the prefix leaves no room for 20 digits, there are more values than
    ///   [`MAX_BATCH_OPERATIONS`](crate::limits::MAX_BATCH_OPERATIONS), no number is left, or the
    ///   options have a version and there are several values.
    /// - `Cancelled` or `DeadlineExceeded`: the context ended.
    /// - Any error of the backend. A write of unknown outcome is not repeated.
    ///
    /// ```
    /// use cubbyhole::{EntryStoreExt, ExecutionContext, InMemoryStore, Namespace, PutOptions};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme:agent-7:chat")?);
    /// let store = InMemoryStore::<String>::new();
    /// let turns = vec!["Hello".to_owned(), "Good morning".to_owned()];
    /// let keys = store.append(&ctx, &ns, "turn-", turns, PutOptions::new()).await?;
    /// assert_eq!(keys, ["turn-00000000000000000000", "turn-00000000000000000001"]);
    /// # Ok(())
    /// # }
    /// ```
    async fn append(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        prefix: &str,
        values: Vec<V>,
        options: PutOptions,
    ) -> Result<Vec<String>>
    where
        V: Clone,
    {
        ctx.begin().await.in_operation("append")?;
        check_sequence(prefix, values.len(), options).in_operation("append")?;
        if values.is_empty() {
            // Without values too, a closed or read-only store rejects the call.
            return self.write(ctx, ns, Batch::new()).await.map(|_| Vec::new());
        }
        let mut backoff = Backoff::new();
        loop {
            let first = match highest(self, ctx, ns, prefix).await? {
                Some(number) => number + 1,
                None => 0,
            };
            if first + values.len() as u128 - 1 > MAX_SEQUENCE {
                let message = format!("no number of {SEQUENCE_DIGITS} digits is left");
                return Err(Error::invalid_argument(message).in_operation("append"));
            }
            let keys: Vec<String> =
                (first..).take(values.len()).map(|number| sequence_key(prefix, number)).collect();
            let mut batch = Batch::new();
            for (key, value) in keys.iter().zip(&values) {
                batch = batch.put_with(key, value.clone(), options, Condition::IfAbsent);
            }
            match self.write(ctx, ns, batch).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    backoff.pause(ctx).await.in_operation("append")?;
                }
                written => return written.map(|_| keys),
            }
        }
    }

    /// Returns the last `n` entries whose keys start with `prefix`, in ascending order: the newest
    /// entries of a sequence of [`append`](Self::append).
    ///
    /// The call reads `n` entries, regardless of how many there are, in pages of at most
    /// [`MAX_PAGE_ITEMS`].
    ///
    /// # Errors
    /// - `InvalidArgument`: the prefix is invalid.
    /// - Any error of the backend.
    ///
    /// ```
    /// use cubbyhole::{EntryStoreExt, ExecutionContext, InMemoryStore, Namespace, PutOptions};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme:agent-7:chat")?);
    /// let store = InMemoryStore::<u32>::new();
    /// store.append(&ctx, &ns, "turn-", (0..100).collect(), PutOptions::new()).await?;
    ///
    /// let mut turns = Vec::new();
    /// for item in store.last(&ctx, &ns, "turn-", 3).await? {
    ///     turns.extend(item.into_entry().transpose()?.map(|entry| entry.value));
    /// }
    /// assert_eq!(turns, [97, 98, 99]);
    /// # Ok(())
    /// # }
    /// ```
    async fn last(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        prefix: &str,
        n: usize,
    ) -> Result<Vec<ScanItem<V>>> {
        let mut items = Vec::new();
        let mut options = ScanOptions::new().with_prefix(prefix).reversed();
        if n == 0 {
            // A closed store and an invalid prefix are errors for any `n`.
            self.scan(ctx, ns, options.keys_only().with_limit(1)).await?;
            return Ok(items);
        }
        loop {
            options = options.with_limit((n - items.len()).min(MAX_PAGE_ITEMS));
            let page = self.scan(ctx, ns, options.clone()).await.in_operation("last")?;
            items.extend(page.items);
            match page.next {
                Some(next) if items.len() < n => options = options.with_after(next),
                _ => break,
            }
        }
        items.reverse();
        Ok(items)
    }

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
            let entry = self.get_entry(ctx, ns, key, GetOptions::new().fresh()).await?;
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

/// Checks the arguments of an append.
fn check_sequence(prefix: &str, values: usize, options: PutOptions) -> Result<()> {
    check_prefix(Some(prefix))?;
    let most = MAX_KEY_BYTES - SEQUENCE_DIGITS;
    if prefix.len() > most {
        return Err(Error::invalid_argument(format!(
            "the prefix has {} bytes; with {SEQUENCE_DIGITS} digits behind it, at most {most} fit \
             into a key (MAX_KEY_BYTES)",
            prefix.len()
        )));
    }
    if options.version().is_some() && values > 1 {
        return Err(Error::invalid_argument(
            "a version is for one write; omit `with_version` to append several values",
        ));
    }
    Ok(())
}

fn sequence_key(prefix: &str, number: u128) -> String {
    format!("{prefix}{number:0SEQUENCE_DIGITS$}")
}

/// The highest number of a live key of the sequence.
async fn highest<V: Send + 'static, S: EntryStore<V> + ?Sized>(
    store: &S,
    ctx: &ExecutionContext,
    ns: &Namespace,
    prefix: &str,
) -> Result<Option<u128>> {
    // `:` follows the digits. If it does not fit, the prefix leaves no room for digits either.
    let mut options = ScanOptions::new()
        .with_prefix(prefix)
        .with_after(format!("{prefix}:"))
        .reversed()
        .keys_only()
        .with_limit(1);
    loop {
        let page = store.scan(ctx, ns, options.clone()).await.in_operation("append")?;
        let numbers = page.items.iter().filter_map(|item| sequence_number(prefix, &item.key));
        if let Some(number) = numbers.max() {
            return Ok(Some(number));
        }
        let Some(next) = page.next else { return Ok(None) };
        // Other keys are in the way. Read them in larger pages.
        let limit = (options.limit() * 10).min(MAX_PAGE_ITEMS);
        options = options.with_after(next).with_limit(limit);
    }
}

fn sequence_number(prefix: &str, key: &str) -> Option<u128> {
    let digits = key.strip_prefix(prefix)?;
    let is_number = digits.len() == SEQUENCE_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}
