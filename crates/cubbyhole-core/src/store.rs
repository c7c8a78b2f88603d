//! The core trait. Every store implements it.

use async_trait::async_trait;

use crate::{ExecutionContext, Namespace, NamespacePrefix, PutOptions, Result, runtime};

/// A persistent or in-memory key/value store, scoped by [`Namespace`].
///
/// A store implements four methods. The default bodies of the others serve stores that cannot
/// enumerate namespaces or that need no sweeping. Every method takes an [`ExecutionContext`], which
/// carries the caller's cancellation and deadline to remote backends.
///
/// # Guarantees
///
/// - **Isolation.** A call sees only entries of the namespace that it names. Names and keys are
///   literal text: no character has a special meaning. A key is at most
///   [`MAX_KEY_BYTES`](crate::limits::MAX_KEY_BYTES) bytes long and contains no NUL.
/// - **Expiry.** An expired entry is absent for every operation, whether it was swept or not. The
///   backend's clock decides, to the millisecond.
/// - **Errors.** A call that fails with
///   [`may_have_been_applied`](crate::Error::may_have_been_applied) `== false` changed nothing.
/// - **Scheduling.** Every call takes part in tokio's cooperative scheduling, even if it needs no I/O
///   or fails. A loop over calls lets other tasks run and can be timed out. An implementation awaits
///   [`ExecutionContext::begin`] first.
///
/// The conformance suite `cubbyhole-conformance` tests each of them.
///
/// # Implementing a store
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::{Mutex, PoisonError};
///
/// use cubbyhole::{
///     ExecutionContext, Namespace, PutOptions, Result, Store, async_trait, limits,
/// };
///
/// #[derive(Default)]
/// struct MapStore(Mutex<BTreeMap<(Namespace, String), String>>);
///
/// #[async_trait]
/// impl Store<String> for MapStore {
///     async fn put_with_options(
///         &self,
///         ctx: &ExecutionContext,
///         ns: &Namespace,
///         key: &str,
///         value: String,
///         options: PutOptions,
///     ) -> Result<()> {
///         ctx.begin().await?;
///         limits::check_key(key)?;
///         if options.ttl_only()?.is_some() {
///             return Err(cubbyhole::Error::unsupported("this store has no TTLs"));
///         }
///         let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
///         map.insert((ns.clone(), key.to_owned()), value);
///         Ok(())
///     }
///
///     async fn get(
///         &self,
///         ctx: &ExecutionContext,
///         ns: &Namespace,
///         key: &str,
///     ) -> Result<Option<String>> {
///         ctx.begin().await?;
///         limits::check_key(key)?;
///         let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
///         Ok(map.get(&(ns.clone(), key.to_owned())).cloned())
///     }
///
///     async fn delete(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<()> {
///         ctx.begin().await?;
///         limits::check_key(key)?;
///         let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
///         map.remove(&(ns.clone(), key.to_owned()));
///         Ok(())
///     }
///
///     async fn list(
///         &self,
///         ctx: &ExecutionContext,
///         ns: &Namespace,
///         prefix: Option<&str>,
///     ) -> Result<Vec<String>> {
///         ctx.begin().await?;
///         limits::check_prefix(prefix)?;
///         let prefix = prefix.unwrap_or("");
///         let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
///         Ok(map
///             .range((ns.clone(), prefix.to_owned())..)
///             .take_while(|((n, k), _)| n == ns && k.starts_with(prefix))
///             .map(|((_, k), _)| k.clone())
///             .collect())
///     }
/// }
/// ```
#[async_trait]
pub trait Store<V: Send + 'static>: Send + Sync + 'static {
    /// Inserts or replaces the value of `key`, with options for this write such as a TTL.
    ///
    /// The new options replace the old ones: a write without a TTL removes the TTL of the entry.
    ///
    /// # Errors
    /// - `InvalidArgument`: the key is invalid, the TTL is zero or overflows, or the value is larger
    ///   than the store's limit.
    /// - `Codec`: the codec cannot encode the value, or could not read it back.
    /// - Any error of the backend.
    ///
    /// ```
    /// use cubbyhole::{ExecutionContext, InMemoryStore, Namespace, PutOptions, Store};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// use std::time::Duration;
    ///
    /// let ctx = ExecutionContext::new();
    /// let store = InMemoryStore::<String>::new();
    /// let ns = Namespace::parse("acme:agent-7")?;
    ///
    /// let minute = PutOptions::new().with_ttl(Duration::from_secs(60));
    /// store.put_with_options(&ctx, &ns, "typing", "yes".to_owned(), minute).await?;
    /// # Ok(())
    /// # }
    /// ```
    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: V,
        options: PutOptions,
    ) -> Result<()>;

    /// Returns the value of `key`, or `None` if the entry is absent or expired.
    ///
    /// # Errors
    /// - `InvalidArgument`: the key is invalid.
    /// - Any error of the backend.
    ///
    /// ```
    /// use cubbyhole::{ExecutionContext, InMemoryStore, Namespace, Store};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let store = InMemoryStore::<String>::new();
    /// let ns = Namespace::parse("acme:agent-7")?;
    /// assert_eq!(store.get(&ctx, &ns, "greeting").await?, None);
    /// # Ok(())
    /// # }
    /// ```
    async fn get(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<Option<V>>;

    /// Removes the entry of `key`. Idempotent: removing an absent entry succeeds.
    ///
    /// # Errors
    /// - `InvalidArgument`: the key is invalid.
    /// - Any error of the backend.
    ///
    /// ```
    /// use cubbyhole::{ExecutionContext, InMemoryStore, Namespace, Store};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let store = InMemoryStore::<String>::new();
    /// let ns = Namespace::parse("acme:agent-7")?;
    /// store.put(&ctx, &ns, "draft", "Dear".to_owned()).await?;
    /// store.delete(&ctx, &ns, "draft").await?;
    /// store.delete(&ctx, &ns, "draft").await?;
    /// assert_eq!(store.get(&ctx, &ns, "draft").await?, None);
    /// # Ok(())
    /// # }
    /// ```
    async fn delete(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<()>;

    /// Lists the keys of `ns` that start with `prefix`, or all keys of `ns`.
    ///
    /// The stores of this project return keys in ascending byte order. The trait does not require an
    /// order. The list is not paged: use [`EntryStore::scan`](crate::EntryStore::scan) for namespaces
    /// with many entries.
    ///
    /// # Errors
    /// - `InvalidArgument`: the prefix is longer than a key may be, or contains NUL.
    /// - Any error of the backend.
    ///
    /// ```
    /// use cubbyhole::{ExecutionContext, InMemoryStore, Namespace, Store};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let store = InMemoryStore::<u64>::new();
    /// let ns = Namespace::parse("acme:agent-7:chat")?;
    /// for key in ["turn-1", "turn-2", "title"] {
    ///     store.put(&ctx, &ns, key, 0).await?;
    /// }
    /// assert_eq!(store.list(&ctx, &ns, Some("turn-")).await?, ["turn-1", "turn-2"]);
    /// # Ok(())
    /// # }
    /// ```
    async fn list(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        prefix: Option<&str>,
    ) -> Result<Vec<String>>;

    /// Inserts or replaces the value of `key` with the default options: no TTL.
    ///
    /// # Errors
    /// The errors of [`put_with_options`](Self::put_with_options).
    ///
    /// ```
    /// use cubbyhole::{ExecutionContext, InMemoryStore, Namespace, Store};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let store = InMemoryStore::<String>::new();
    /// let ns = Namespace::parse("acme:agent-7")?;
    /// store.put(&ctx, &ns, "greeting", "hello".to_owned()).await?;
    /// assert_eq!(store.get(&ctx, &ns, "greeting").await?.as_deref(), Some("hello"));
    /// # Ok(())
    /// # }
    /// ```
    async fn put(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str, value: V) -> Result<()> {
        self.put_with_options(ctx, ns, key, value, PutOptions::default()).await
    }

    /// Lists the namespaces under `prefix` that contain at least one live entry, in byte order of
    /// their text form.
    ///
    /// The default body returns an empty list. It is for stores that cannot enumerate.
    ///
    /// # Errors
    /// Any error of the backend.
    ///
    /// ```
    /// use cubbyhole::{ExecutionContext, InMemoryStore, Namespace, NamespacePrefix, Store};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let store = InMemoryStore::<u64>::new();
    /// for name in ["acme:agent-7", "acme:agent-7:chat", "acme:agent-70"] {
    ///     store.put(&ctx, &Namespace::parse(name)?, "k", 0).await?;
    /// }
    /// let prefix = NamespacePrefix::from(Namespace::parse("acme:agent-7")?);
    /// let found = store.list_namespaces(&ctx, &prefix).await?;
    /// assert_eq!(found, [Namespace::parse("acme:agent-7")?, Namespace::parse("acme:agent-7:chat")?]);
    /// # Ok(())
    /// # }
    /// ```
    async fn list_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
    ) -> Result<Vec<Namespace>> {
        let _ = (ctx, prefix);
        runtime::cooperate().await;
        Ok(Vec::new())
    }

    /// Removes expired entries to free their space, and returns how many it removed.
    ///
    /// Expired entries are absent for every operation even before they are swept. Several sweepers
    /// may run concurrently. [`Sweeper`](crate::Sweeper) calls this method periodically. The default
    /// body returns `Ok(0)`, for stores that remove expired entries without help.
    ///
    /// # Errors
    /// Any error of the backend. Entries that were removed before the error stay removed.
    ///
    /// ```
    /// use cubbyhole::{ExecutionContext, InMemoryStore, ManualClock, Namespace, PutOptions, Store};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// use std::time::Duration;
    ///
    /// let ctx = ExecutionContext::new();
    /// let clock = ManualClock::default();
    /// let store = InMemoryStore::<u64>::builder().with_clock(clock.clone()).build();
    /// let ns = Namespace::parse("acme:sessions")?;
    /// let minute = PutOptions::new().with_ttl(Duration::from_secs(60));
    /// store.put_with_options(&ctx, &ns, "s-1", 0, minute).await?;
    ///
    /// clock.advance(Duration::from_secs(60));
    /// assert_eq!(store.get(&ctx, &ns, "s-1").await?, None);
    /// assert_eq!(store.evict_expired(&ctx).await?, 1);
    /// # Ok(())
    /// # }
    /// ```
    async fn evict_expired(&self, ctx: &ExecutionContext) -> Result<usize> {
        let _ = ctx;
        runtime::cooperate().await;
        Ok(0)
    }
}
