//! Reencryption with the current data key, step by step.

use cubbyhole_core::{
    Backoff, Bytes, Condition, Entry, EntryStore, Error, ErrorKind, ExecutionContext, Expiry,
    GetOptions, Namespace, NamespacePrefix, Position, PutOptions, RecursiveScanOptions, Result,
    ResultExt, ScanItem,
};

use futures_util::future::join_all;

use super::data_keys::TenantKeys;
use super::sealer::{Sealer, tenant_of};
use super::store::{is_reserved, refuse};
use super::{Encrypted, ReencryptStep, UnreadableEntry};
use crate::transform::Transform;

/// How often a step tries to rewrite an entry that others write at the same time. Such an entry gets the
/// current data key with one of its next writes.
const ATTEMPTS: u32 = 3;
/// The entries that a step rewrites at the same time.
const IN_FLIGHT: usize = 16;

/// What became of an entry.
enum Outcome {
    Current,
    Rewritten,
    /// Another caller wrote or removed it.
    Changed,
    Unreadable(UnreadableEntry),
}

/// The end of the rewrite of one entry.
enum Rewrite {
    Ended(Outcome),
    /// The entry stays as it is.
    Unreadable(Error),
}

impl<S: EntryStore<Bytes>> Encrypted<S> {
    /// Encrypts a page of entries with the current data key of their tenant, and returns where the next
    /// step begins.
    ///
    /// The step reads at most `limit` entries under `prefix`, after the position `after`. It decrypts each
    /// of them. It rewrites entries that are encrypted with an older data key. It also rewrites values
    /// that are not encrypted, if [`Plaintext::Accept`](crate::Plaintext::Accept) is set. To process a
    /// whole prefix, call it with the [`next`](ReencryptStep::next) of the previous step until that is
    /// `None`. A walk that was interrupted can continue at its last position, or begin again.
    ///
    /// An entry keeps its version, its expiry and `created_at`; its `updated_at` changes. A concurrent
    /// write of the entry wins. An entry that others keep writing is counted as
    /// [`changed`](ReencryptStep::changed): their next value has the current data key, as soon as they
    /// have read the tenant's record again. A concurrent [`touch`](EntryStore::touch) or refreshing read does not
    /// change the version: between the step's last look at the entry and its write, it can be lost. The
    /// entry then expires when it would have expired without that touch.
    ///
    /// An entry that cannot be decrypted is [reported](ReencryptStep::unreadable) and stays as it is.
    ///
    /// # Errors
    /// - `InvalidArgument`: the limit is not in 1 to 1,000, or `after` is not under the prefix.
    /// - `PermissionDenied`: the prefix is in the reserved tenant.
    /// - Any error of the store, the key store and the key provider. Repeating the step is safe.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use cubbyhole_core::{Bytes, ExecutionContext, Namespace, NamespacePrefix, Store};
    /// use cubbyhole_layers::{Encrypted, KeyRing, Plaintext};
    /// use cubbyhole_memory::InMemoryStore;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole_core::Result<()> {
    /// let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme:agent-7")?);
    /// let inner = InMemoryStore::<Bytes>::new();
    /// inner.put(&ctx, &ns, "plan", "buy milk".into()).await?;
    ///
    /// let store = Encrypted::new(inner.clone(), Arc::new(KeyRing::generate()?))
    ///     .with_plaintext(Plaintext::Accept);
    /// let prefix = NamespacePrefix::parse("acme")?;
    /// let (mut after, mut rewritten) = (None, 0);
    /// loop {
    ///     let step = store.reencrypt_step(&ctx, &prefix, after, 100).await?;
    ///     rewritten += step.rewritten;
    ///     after = step.next;
    ///     if after.is_none() {
    ///         break;
    ///     }
    /// }
    /// assert_eq!(rewritten, 1);
    /// assert_ne!(inner.get(&ctx, &ns, "plan").await?.unwrap(), "buy milk");
    /// assert_eq!(store.get(&ctx, &ns, "plan").await?.unwrap(), "buy milk");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reencrypt_step(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        after: Option<Position>,
        limit: usize,
    ) -> Result<ReencryptStep> {
        self.step(ctx, prefix, after, limit).await.in_operation("reencrypt")
    }

    async fn step(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        after: Option<Position>,
        limit: usize,
    ) -> Result<ReencryptStep> {
        if is_reserved(prefix.as_str()) {
            return refuse(ctx, "reencrypt").await;
        }
        let mut options = RecursiveScanOptions::new().with_limit(limit);
        if let Some(after) = after {
            options = options.with_after(after);
        }
        let page = self.sealed.inner.scan_recursive(ctx, prefix, options).await?;
        let mut step = ReencryptStep { next: page.next, ..ReencryptStep::default() };
        if page.items.is_empty() {
            return Ok(step);
        }
        // Another process may have changed the tenant's keys since they were cached.
        let tenant = tenant_of(prefix.as_namespace());
        let keys = match self.keys().read(ctx, tenant).await? {
            Some(keys) => keys,
            None => self.keys().get_or_create(ctx, tenant).await?,
        };
        let mut items = page.items.into_iter();
        loop {
            ctx.check()?;
            let some = items.by_ref().take(IN_FLIGHT);
            let rewrites =
                some.map(|(namespace, item)| self.reencrypt_item(ctx, &keys, namespace, item));
            let ended = join_all(rewrites).await;
            if ended.is_empty() {
                return Ok(step);
            }
            for outcome in ended {
                step.checked += 1;
                match outcome? {
                    Outcome::Current => {}
                    Outcome::Rewritten => step.rewritten += 1,
                    Outcome::Changed => step.changed += 1,
                    Outcome::Unreadable(entry) => step.unreadable.push(entry),
                }
            }
        }
    }

    async fn reencrypt_item(
        &self,
        ctx: &ExecutionContext,
        keys: &TenantKeys,
        namespace: Namespace,
        item: ScanItem<Bytes>,
    ) -> Result<Outcome> {
        let key = item.key.clone();
        let unreadable = match item.into_entry() {
            Some(Ok(entry)) => {
                match self.reencrypt_entry(ctx, keys, &namespace, &key, entry).await? {
                    Rewrite::Unreadable(error) => error,
                    Rewrite::Ended(outcome) => return Ok(outcome),
                }
            }
            Some(Err(error)) if is_of_the_entry(&error) => error,
            Some(Err(error)) => return Err(error),
            // The item was scanned with its value, so it has one.
            None => return Ok(Outcome::Changed),
        };
        Ok(Outcome::Unreadable(UnreadableEntry { namespace, key, error: unreadable }))
    }

    async fn reencrypt_entry(
        &self,
        ctx: &ExecutionContext,
        keys: &TenantKeys,
        ns: &Namespace,
        key: &str,
        scanned: Entry<Bytes>,
    ) -> Result<Rewrite> {
        let (inner, sealer) = (&*self.sealed.inner, &self.sealed.transform);
        let mut entry = scanned;
        let mut backoff = Backoff::new();
        for attempt in 0..ATTEMPTS {
            let value = match sealer.open(ctx, ns, key, entry.value.clone()).await {
                Ok(value) => value,
                Err(error) if is_of_the_entry(&error) => return Ok(Rewrite::Unreadable(error)),
                Err(error) => return Err(error),
            };
            if Sealer::is_current(keys, ns, &entry.value)? {
                return Ok(Rewrite::Ended(match attempt {
                    0 => Outcome::Current,
                    _ => Outcome::Changed,
                }));
            }
            let stored = sealer.seal_with(ctx, keys, ns, key, &value).await?;
            if let Some(limit) = inner.max_value_bytes().filter(|limit| stored.len() > *limit) {
                let message = format!(
                    "the value is {} bytes too long to be encrypted; shorten or delete it",
                    stored.len() - limit
                );
                return Ok(Rewrite::Unreadable(Error::invalid_argument(message)));
            }
            // The expiry may have been extended since the page was read, which keeps the version.
            let stats = inner.stat(ctx, ns, &[key]).await?;
            let Some(stat) = stats.into_iter().next().flatten() else {
                return Ok(Rewrite::Ended(Outcome::Changed));
            };
            let version = entry.meta.version;
            if stat.meta.version == version {
                let options =
                    PutOptions::new().with_version(version).with_expiry(Expiry::of(&stat.meta));
                let condition = Condition::IfVersion(version);
                match inner.put_entry(ctx, ns, key, stored, options, condition).await {
                    Ok(_) => return Ok(Rewrite::Ended(Outcome::Rewritten)),
                    Err(error) if error.kind() == ErrorKind::Conflict => {}
                    Err(error) => return Err(error),
                }
            }
            let read = inner.get_entry(ctx, ns, key, GetOptions::new().fresh()).await?;
            let Some(read) = read else { return Ok(Rewrite::Ended(Outcome::Changed)) };
            entry = read;
            backoff.pause(ctx).await?;
        }
        Ok(Rewrite::Ended(Outcome::Changed))
    }
}

/// Returns whether an error concerns one entry: damage, or a missing wrapping key. A step reports it
/// and continues.
fn is_of_the_entry(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Corrupt => true,
        ErrorKind::Unavailable => error.is_permanent(),
        _ => false,
    }
}
