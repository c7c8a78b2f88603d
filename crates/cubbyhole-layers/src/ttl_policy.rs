//! `TtlPolicy`: a default and a maximum TTL.

mod rule;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;

use async_trait::async_trait;
use cubbyhole_core::{
    Backend, Batch, Condition, Entry, EntryStore, Error, ExecutionContext, Expiry, GetOptions,
    Namespace, NamespacePrefix, Operation, PutOptions, Result, ResultExt, Store, Version, Written,
    delegate,
};

pub use rule::{TooLong, TtlRule};

/// A layer with a default and a maximum TTL for each namespace.
///
/// One rule is for all namespaces. [`with_rule`](Self::with_rule) sets another rule for a prefix. The
/// longest prefix that matches by whole segments applies, alone: rules are not merged.
///
/// The rule applies to every put, to each put of a batch, to [`touch`](EntryStore::touch), and to
/// reads [that extend a TTL](GetOptions::with_extended_ttl):
///
/// | expiry | with a default | only a maximum |
/// |---|---|---|
/// | [`Never`](Expiry::Never) | the default | too long |
/// | [`After`](Expiry::After), [`Idle`](Expiry::Idle) | too long beyond the maximum | the same |
/// | [`At`](Expiry::At) | too long if later than the backend's time plus the maximum | the same |
/// | [`IdleUntil`](Expiry::IdleUntil) | both checks | the same |
///
/// [`TooLong`] decides whether a TTL that is too long is shortened or refused with
/// `InvalidArgument`. A refused call has no effect. A TTL that no store accepts, such as zero, is not
/// shortened: the inner store refuses it.
///
/// # Limits
///
/// - The maximum applies to each period. An entry that is touched or refreshed again and again can
///   live longer in total.
/// - Entries that were written without this layer, or under another rule, keep their expiry. A
///   refreshing read restarts the idle TTL that is stored with the entry.
/// - The store rounds TTLs up to whole milliseconds after the comparison.
///
/// # Cost
///
/// Calls that set no expiry go directly to the inner store. If a maximum applies, a write with an
/// instant of expiry (`At`, `IdleUntil`) first asks the inner store for its
/// [time](EntryStore::current_time), which is one more round trip. A batch asks once.
///
/// ```
/// use std::time::Duration;
///
/// use cubbyhole_core::{
///     EntryStore, ExecutionContext, GetOptions, Namespace, NamespacePrefix, Store,
/// };
/// use cubbyhole_layers::{TtlPolicy, TtlRule};
/// use cubbyhole_memory::InMemoryStore;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole_core::Result<()> {
/// const DAY: Duration = Duration::from_secs(24 * 60 * 60);
///
/// let month = TtlRule::new().with_default(30 * DAY).with_max(90 * DAY);
/// let drafts = NamespacePrefix::parse("acme:drafts")?;
/// let store = TtlPolicy::new(InMemoryStore::<String>::new(), month)?
///     .with_rule(drafts, TtlRule::new().with_default(DAY))?;
///
/// let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme:drafts:7")?);
/// store.put(&ctx, &ns, "title", "Dear".to_owned()).await?;
/// let entry = store.get_entry(&ctx, &ns, "title", GetOptions::new()).await?.unwrap();
/// let expires_at = entry.meta.expires_at.unwrap();
/// assert_eq!(expires_at.saturating_since(entry.meta.updated_at), DAY);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct TtlPolicy<S> {
    inner: S,
    rule_for_all: TtlRule,
    /// Sorted by length, the longest prefix first.
    rules: Vec<(NamespacePrefix, TtlRule)>,
}

impl<S> TtlPolicy<S> {
    /// Wraps `inner`. `rule_for_all` applies to namespaces without a more specific rule.
    ///
    /// # Errors
    /// The errors of [`TtlRule::check`].
    pub fn new(inner: S, rule_for_all: TtlRule) -> Result<Self> {
        rule_for_all.check()?;
        Ok(Self { inner, rule_for_all, rules: Vec::new() })
    }

    /// Sets the rule for the namespaces that `prefix` matches. It replaces an earlier rule of the same
    /// prefix.
    ///
    /// # Errors
    /// The errors of [`TtlRule::check`].
    pub fn with_rule(mut self, prefix: NamespacePrefix, rule: TtlRule) -> Result<Self> {
        rule.check()?;
        self.rules.retain(|(other, _)| *other != prefix);
        self.rules.push((prefix, rule));
        self.rules.sort_by_key(|(prefix, _)| Reverse(prefix.as_str().len()));
        Ok(self)
    }

    /// Returns the inner store.
    #[must_use]
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    fn rule(&self, ns: &Namespace) -> &TtlRule {
        let found = self.rules.iter().find(|(prefix, _)| prefix.matches(ns));
        found.map_or(&self.rule_for_all, |(_, rule)| rule)
    }

    async fn expiry<V: Send + 'static>(
        &self,
        ctx: &ExecutionContext,
        operation: &'static str,
        ns: &Namespace,
        expiry: Expiry,
    ) -> Result<Expiry>
    where
        S: EntryStore<V>,
    {
        let rule = self.rule(ns);
        let latest = if rule.needs_time(expiry) {
            rule.latest(self.inner.current_time(ctx, ns).await.in_operation(operation)?)
        } else {
            None
        };
        match rule.apply(expiry, latest) {
            Ok(expiry) => Ok(expiry),
            Err(error) => refuse(ctx, operation, error).await,
        }
    }

    /// Applies the rule to the TTL that a read extends to.
    async fn read(
        &self,
        ctx: &ExecutionContext,
        operation: &'static str,
        ns: &Namespace,
        options: GetOptions,
    ) -> Result<GetOptions> {
        match options.extended_ttl().map(|ttl| self.rule(ns).ttl(ttl)) {
            None => Ok(options),
            Some(Ok(ttl)) => Ok(options.with_extended_ttl(ttl)),
            Some(Err(error)) => refuse(ctx, operation, error).await,
        }
    }

    async fn batch<V: Send + 'static>(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        batch: Batch<V>,
    ) -> Result<Batch<V>>
    where
        S: EntryStore<V>,
    {
        let rule = self.rule(ns);
        if rule.is_empty() {
            return Ok(batch);
        }
        let needs_time = |operation: &Operation<V>| match operation {
            Operation::Put { options, .. } => rule.needs_time(options.expiry()),
            Operation::Delete { .. } => false,
        };
        // Evaluated before the await: a `&Batch<V>` across it would require `V: Sync`.
        let needs_time = batch.operations().iter().any(needs_time);
        let latest = if needs_time {
            rule.latest(self.inner.current_time(ctx, ns).await.in_operation("write")?)
        } else {
            None
        };
        let limited: Result<Batch<V>> = batch
            .into_operations()
            .into_iter()
            .map(|operation| match operation {
                Operation::Put { key, value, options, condition } => {
                    let options = options.with_expiry(rule.apply(options.expiry(), latest)?);
                    Ok(Operation::Put { key, value, options, condition })
                }
                delete @ Operation::Delete { .. } => Ok(delete),
            })
            .collect();
        match limited {
            Ok(batch) => Ok(batch),
            Err(error) => refuse(ctx, "write", error).await,
        }
    }
}

/// Cooperates with the scheduler before a call fails that has not reached the inner store.
async fn refuse<T>(ctx: &ExecutionContext, operation: &'static str, error: Error) -> Result<T> {
    ctx.begin().await.and(Err(error)).in_operation(operation)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<V: Send + 'static, S: EntryStore<V>> Store<V> for TtlPolicy<S> {
    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: V,
        options: PutOptions,
    ) -> Result<()> {
        let options = options.with_expiry(self.expiry(ctx, "put", ns, options.expiry()).await?);
        self.inner.put_with_options(ctx, ns, key, value, options).await
    }

    async fn put(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str, value: V) -> Result<()> {
        match self.expiry(ctx, "put", ns, Expiry::Never).await? {
            Expiry::Never => self.inner.put(ctx, ns, key, value).await,
            expiry => {
                let options = PutOptions::new().with_expiry(expiry);
                self.inner.put_with_options(ctx, ns, key, value, options).await
            }
        }
    }

    delegate!(V, |layer| layer.inner => get, delete, list, list_namespaces, evict_expired);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<V: Send + 'static, S: EntryStore<V>> EntryStore<V> for TtlPolicy<S> {
    async fn get_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<V>>> {
        let options = self.read(ctx, "get_entry", ns, options).await?;
        self.inner.get_entry(ctx, ns, key, options).await
    }

    async fn get_many(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
        options: GetOptions,
    ) -> Result<Vec<Result<Option<Entry<V>>>>> {
        let options = self.read(ctx, "get_many", ns, options).await?;
        self.inner.get_many(ctx, ns, keys, options).await
    }

    async fn put_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: V,
        options: PutOptions,
        condition: Condition,
    ) -> Result<Version> {
        let expiry = self.expiry(ctx, "put_entry", ns, options.expiry()).await?;
        self.inner.put_entry(ctx, ns, key, value, options.with_expiry(expiry), condition).await
    }

    async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        batch: Batch<V>,
    ) -> Result<Vec<Written>> {
        let batch = self.batch(ctx, ns, batch).await?;
        self.inner.write(ctx, ns, batch).await
    }

    async fn touch(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        expiry: Expiry,
        condition: Condition,
    ) -> Result<bool> {
        let expiry = self.expiry(ctx, "touch", ns, expiry).await?;
        self.inner.touch(ctx, ns, key, expiry, condition).await
    }

    delegate!(V, |layer| layer.inner =>
        stat, delete_entry, scan, scan_recursive, scan_namespaces, scan_tenants, take,
        delete_prefix, erase, usage, current_time, max_value_bytes
    );
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Backend> Backend for TtlPolicy<S> {
    delegate!(cubbyhole_core::Bytes, |layer| layer.inner => close, compact);
}
