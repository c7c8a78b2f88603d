//! The core trait: one screen that every store implements.

use async_trait::async_trait;

use crate::{ExecutionContext, Namespace, NamespacePrefix, PutOptions, Result, runtime};

/// A persistent or in-memory key/value store, scoped by [`Namespace`].
///
/// The four required methods make a store; the two lenient defaults are for stores that cannot
/// enumerate or sweep. Every method takes an [`ExecutionContext`], so that remote backends honour
/// the caller's cancellation and deadline.
///
/// # What holds on every store
///
/// - **Isolation.** Nothing written under one namespace is seen under another, and names are
///   literal text: no character means anything special. Keys are at most
///   [`MAX_KEY_BYTES`](crate::limits::MAX_KEY_BYTES) long and hold no NUL.
/// - **Expiry.** From the instant of its expiry on, an entry is absent for every operation, swept
///   or not. The backend's clock decides, to the millisecond.
/// - **Failure.** A call that fails with
///   [`may_have_been_applied`](crate::Error::may_have_been_applied) `== false` changed nothing.
/// - **Scheduling.** Every call takes part in tokio's cooperative scheduling, also one that needs
///   no I/O and one that fails: a loop over calls lets other tasks run and can be timed out. Await
///   [`ExecutionContext::begin`] first.
///
/// The conformance suite `cubbyhole-conformance` holds these, case by case.
///
/// # A store of your own
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
///             return Err(cubbyhole::Error::unsupported("this store knows no TTL"));
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
    /// Inserts or replaces `value` at `(ns, key)` with per-write options: the one required write.
    ///
    /// A write without a TTL over an entry with one removes the TTL.
    ///
    /// # Errors
    /// `InvalidArgument` for a bad key, a TTL of zero or one that overflows, or a value past the
    /// limit; `Codec` for a value that could not be read back; what the backend meets.
    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: V,
        options: PutOptions,
    ) -> Result<()>;

    /// Reads `(ns, key)`: `None` if it is absent or expired.
    ///
    /// # Errors
    /// `InvalidArgument` for a bad key; what the backend meets.
    async fn get(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<Option<V>>;

    /// Removes `(ns, key)`. Idempotent: removing an absent key succeeds.
    ///
    /// # Errors
    /// `InvalidArgument` for a bad key; what the backend meets.
    async fn delete(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<()>;

    /// The keys of `ns` that start with `prefix`, or all of them. Stores of this project answer in
    /// ascending byte order; the trait leaves the order open.
    ///
    /// # Errors
    /// `InvalidArgument` for a bad prefix; what the backend meets.
    async fn list(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        prefix: Option<&str>,
    ) -> Result<Vec<String>>;

    /// Inserts or replaces `value` at `(ns, key)` with the default options: no TTL.
    ///
    /// # Errors
    /// As [`put_with_options`](Self::put_with_options).
    async fn put(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str, value: V) -> Result<()> {
        self.put_with_options(ctx, ns, key, value, PutOptions::default()).await
    }

    /// Every namespace under `prefix` that holds at least one live entry, in byte order of the
    /// rendered form. The default body returns an empty list, for stores that cannot enumerate.
    ///
    /// # Errors
    /// What the backend meets.
    async fn list_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
    ) -> Result<Vec<Namespace>> {
        let _ = (ctx, prefix);
        runtime::cooperate().await;
        Ok(Vec::new())
    }

    /// Sweeps expired entries out of the store and returns how many were removed. They are
    /// invisible before too; this frees their space. The default body returns `Ok(0)`, for stores
    /// that expire by themselves. Safe with several sweepers at once.
    ///
    /// # Errors
    /// What the backend meets; what was removed before stays removed.
    async fn evict_expired(&self, ctx: &ExecutionContext) -> Result<usize> {
        let _ = ctx;
        runtime::cooperate().await;
        Ok(0)
    }
}
