//! [`KeyStore`]: where the wrapped data keys are.

use std::fmt;
use std::sync::Arc;

use cubbyhole_core::{
    Bytes, Condition, EntryStore, Error, ErrorKind, ExecutionContext, GetOptions, Namespace, Page,
    PutOptions, Result, ScanOptions, TenantId, Version,
};

use super::record::Record;

/// The tenant that has the records. It contains no character that is escaped in a namespace.
pub(super) const RESERVED_TENANT: &str = "cubbyhole.keys";

/// Where the data keys of tenants are stored, wrapped by a [`KeyProvider`](crate::KeyProvider).
///
/// The choice decides what [`shred`](crate::Encrypted::shred) reaches:
///
/// - [`in_store`](Self::in_store): next to the values. A backup of the store contains the data keys
///   too. Values in a backup from before the shredding stay readable to anyone who has the backup and
///   the wrapping keys.
/// - [`apart`](Self::apart): in another store, with its own backups. Backups of the values alone become
///   unreadable. Keep the backups of the key store for a short time only.
///
/// In both cases the records are in the tenant `cubbyhole.keys`, one entry for each tenant. The database
/// role needs access to that tenant.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
///
/// use cubbyhole_core::Bytes;
/// use cubbyhole_layers::{Encrypted, KeyRing, KeyStore};
/// use cubbyhole_memory::InMemoryStore;
///
/// # fn main() -> cubbyhole_core::Result<()> {
/// let values = InMemoryStore::<Bytes>::new();
/// let keys = InMemoryStore::<Bytes>::new();
/// let store = Encrypted::new(values, Arc::new(KeyRing::generate()?))
///     .with_key_store(KeyStore::apart(Arc::new(keys)));
/// assert!(!store.key_store().is_in_store());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct KeyStore(Option<Arc<dyn EntryStore<Bytes>>>);

impl KeyStore {
    /// The data keys are in the same store as the values.
    #[must_use]
    pub const fn in_store() -> Self {
        Self(None)
    }

    /// The data keys are in `store`. Do not use a store that evicts entries or limits their TTL.
    #[must_use]
    pub fn apart(store: Arc<dyn EntryStore<Bytes>>) -> Self {
        Self(Some(store))
    }

    /// Returns whether the data keys are in the same store as the values.
    #[must_use]
    pub const fn is_in_store(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_in_store() { "KeyStore::in_store" } else { "KeyStore::apart" })
    }
}

/// The records of all tenants.
#[derive(Clone)]
pub(super) struct Records {
    pub(super) place: KeyStore,
    values: Arc<dyn EntryStore<Bytes>>,
}

/// The stored record of a tenant.
pub(super) struct Stored {
    pub(super) version: Version,
    /// An error if the record is damaged.
    pub(super) record: Result<Record>,
}

/// The result of a conditional write of a record.
pub(super) enum RecordWrite {
    /// The record has this version.
    Done(Version),
    /// The condition does not hold.
    Lost,
    /// The connection was lost. The record was written if it has this version.
    Unknown(Version),
}

impl Records {
    pub(super) fn new(values: Arc<dyn EntryStore<Bytes>>) -> Self {
        Self { place: KeyStore::in_store(), values }
    }

    fn store(&self) -> &dyn EntryStore<Bytes> {
        &**self.place.0.as_ref().unwrap_or(&self.values)
    }

    /// Reads the record of a tenant.
    pub(super) async fn read(
        &self,
        ctx: &ExecutionContext,
        tenant: &str,
    ) -> Result<Option<Stored>> {
        let (namespace, options) = (namespace()?, GetOptions::new().fresh());
        let entry = self.store().get_entry(ctx, &namespace, tenant, options).await;
        let entry = entry.map_err(|error| explain(&error, "read", tenant))?;
        Ok(entry.map(|entry| Stored {
            version: entry.meta.version,
            record: Record::decode(&entry.value),
        }))
    }

    /// Returns one page of the tenants that have a record, in byte order of their text form.
    pub(super) async fn scan(
        &self,
        ctx: &ExecutionContext,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<Page<TenantId>> {
        let mut options = ScanOptions::new().keys_only().with_limit(limit);
        if let Some(after) = after {
            options = options.with_after(after.as_rendered());
        }
        let page = self.store().scan(ctx, &namespace()?, options).await?;
        let tenant = |key: &str| {
            Namespace::parse(key).map(|namespace| namespace.tenant()).map_err(|error| {
                Error::corrupt("the name of a record of data keys is no tenant").with_source(error)
            })
        };
        let items: Result<Vec<TenantId>> =
            page.items.iter().map(|item| tenant(&item.key)).collect();
        Ok(Page { items: items?, next: page.next.as_deref().map(tenant).transpose()? })
    }

    /// Writes the record of a tenant on a condition, which makes repeating safe.
    ///
    /// # Errors
    /// An error of unknown outcome is returned with its mark if reading the record would not settle it: a
    /// record that replicas or a disk have not confirmed is visible, and can still be lost.
    pub(super) async fn write(
        &self,
        ctx: &ExecutionContext,
        tenant: &str,
        record: &Record,
        condition: Condition,
    ) -> Result<RecordWrite> {
        let value = record.encode()?;
        let (namespace, version) = (namespace()?, Version::draw());
        let options = PutOptions::new().with_version(version);
        let written =
            self.store().put_entry(ctx, &namespace, tenant, value, options, condition).await;
        let Err(error) = written else { return Ok(RecordWrite::Done(version)) };
        if error.kind() == ErrorKind::Conflict {
            return Ok(RecordWrite::Lost);
        }
        let explained = explain(&error, "write", tenant);
        if !error.may_have_been_applied() {
            return Err(explained);
        }
        if error.kind() == ErrorKind::Unavailable && !error.is_permanent() {
            return Ok(RecordWrite::Unknown(version));
        }
        Err(explained.with_unknown_outcome())
    }
}

fn namespace() -> Result<Namespace> {
    Namespace::parse(RESERVED_TENANT)
}

/// Adds the purpose of the call to the error of the key store.
fn explain(error: &Error, verb: &str, tenant: &str) -> Error {
    restate(error, &format!("cannot {verb} the data keys of tenant `{}`", shown(tenant)))
}

/// Returns the error with a message that begins with `what`. Keeps what decides about a retry.
pub(super) fn restate(error: &Error, what: &str) -> Error {
    let message = format!("{what}: {}", error.message());
    let restated = match error.kind() {
        ErrorKind::RateLimited => Error::rate_limited(message, error.retry_after()),
        kind => Error::new(kind, message),
    };
    let retryable = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::RateLimited);
    let restated = restated.with_source(error.clone());
    // An unknown outcome of the record is not retryable either.
    if retryable && !error.is_retryable() { restated.permanent() } else { restated }
}

/// Returns the name of a tenant as messages show it.
pub(super) fn shown(rendered: &str) -> String {
    Namespace::parse(rendered).map_or_else(
        |_| rendered.to_owned(),
        |namespace| TenantId::as_str(&namespace.tenant()).to_owned(),
    )
}
