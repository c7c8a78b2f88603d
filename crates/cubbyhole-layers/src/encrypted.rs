//! `Encrypted`: values encrypted with a key for each tenant.

mod cipher;
mod data_keys;
mod key_file;
mod key_ring;
mod key_store;
mod options;
mod provider;
mod record;
mod reencrypt;
mod sealer;
mod secret_key;
mod store;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::{
    Bytes, Clock, EntryStore, ExecutionContext, Page, Result, ResultExt, TenantId,
};

use crate::transform::Transformed;
use data_keys::DataKeys;
use key_store::Records;
use sealer::Sealer;

pub use key_file::KeyFile;
pub use key_ring::KeyRing;
pub use key_store::KeyStore;
pub use options::{Plaintext, ReencryptStep, Rekeyed, Shredded, UnreadableEntry};
pub use provider::{KeyProvider, WrappedKey};
pub use secret_key::SecretKey;

/// A layer that encrypts values; it does not encrypt the names of tenants, namespaces and keys, because
/// listing needs them.
///
/// Expiries, versions and sizes are not encrypted either.
///
/// # Keys
///
/// Every tenant has its own random data key, which the layer creates with the first value. A
/// [`KeyProvider`] wraps the data keys, and a [`KeyStore`] stores them. [`shred`](Self::shred) destroys
/// the data keys of a tenant, and with them all its values. To replace a wrapping key, call
/// [`rekey`](Self::rekey) and then [`reencrypt_step`](Self::reencrypt_step).
///
/// The layer caches unwrapped data keys. It reads the key store again after the maximum age, 60 s by
/// default. A shredding or a new data key therefore reaches other processes after that time at the
/// latest. If the key store is unreachable then, calls on values fail.
///
/// The tenant `cubbyhole.keys` is reserved. Every call that names it returns `PermissionDenied`, and
/// `scan_tenants` leaves it out.
///
/// # Encryption
///
/// The algorithm is XChaCha20-Poly1305, with a random nonce for each write. Namespace and key are
/// authenticated: a stored value that was damaged, or copied to another entry, is `Corrupt`. An older
/// value of the same entry is not detected.
///
/// A stored value is 54 bytes longer than the value. [`max_value_bytes`](EntryStore::max_value_bytes) is
/// therefore 54 bytes lower than that of the inner store, and the values of a batch count with these
/// bytes. `usage`, `stat` and `scan` report the sizes of stored values.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
///
/// use cubbyhole_core::{Bytes, ExecutionContext, Namespace, Store};
/// use cubbyhole_layers::{Encrypted, KeyRing};
/// use cubbyhole_memory::InMemoryStore;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole_core::Result<()> {
/// let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme:agent-7")?);
/// let inner = InMemoryStore::<Bytes>::new();
/// let store = Encrypted::new(inner.clone(), Arc::new(KeyRing::generate()?));
///
/// store.put(&ctx, &ns, "plan", "buy milk".into()).await?;
/// assert_eq!(store.get(&ctx, &ns, "plan").await?.unwrap(), "buy milk");
/// assert_eq!(inner.get(&ctx, &ns, "plan").await?.unwrap().len(), "buy milk".len() + 54);
/// # Ok(())
/// # }
/// ```
pub struct Encrypted<S> {
    sealed: Transformed<Sealer, Arc<S>>,
}

impl<S: EntryStore<Bytes>> Encrypted<S> {
    /// Encrypts the values of `inner`. The data keys are [in the same store](KeyStore::in_store), and
    /// values that are not encrypted are [refused](Plaintext::Refuse).
    #[must_use]
    pub fn new(inner: S, provider: Arc<dyn KeyProvider>) -> Self {
        let inner = Arc::new(inner);
        let values: Arc<dyn EntryStore<Bytes>> = Arc::<S>::clone(&inner);
        let keys = DataKeys::new(provider, Records::new(values));
        let transform = Sealer { keys, plaintext: Plaintext::Refuse };
        Self { sealed: Transformed { transform, inner } }
    }

    /// Sets where the data keys are stored. Values are unreadable with another key store than the one
    /// that they were written with.
    #[must_use]
    pub fn with_key_store(mut self, store: KeyStore) -> Self {
        let keys = &mut self.sealed.transform.keys;
        keys.records.place = store;
        keys.reset_cache();
        self
    }

    /// Sets whether values that are not encrypted are readable.
    #[must_use]
    pub fn with_plaintext(mut self, plaintext: Plaintext) -> Self {
        self.sealed.transform.plaintext = plaintext;
        self
    }

    /// Sets how long data keys are used before the key store is read again. The default is 60 s. With
    /// zero, every call reads the key store.
    #[must_use]
    pub fn with_key_max_age(mut self, age: Duration) -> Self {
        self.sealed.transform.keys.max_age = age;
        self
    }

    /// Sets the clock that measures the age of cached data keys. The default is the system clock.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        let keys = &mut self.sealed.transform.keys;
        keys.clock = Arc::new(clock);
        keys.reset_cache();
        self
    }

    /// Destroys the data keys of a tenant, so its values become unreadable.
    ///
    /// Afterwards, reading a value of the tenant returns `Corrupt`, and writing one returns
    /// `PermissionDenied`. Listing, deleting and erasing still work. The tenant stays shredded.
    /// Shredding a tenant again, or one without values, succeeds.
    ///
    /// Other processes can use cached keys until their maximum age. Values that they write until then
    /// are lost too. [`KeyStore`] describes which backups the shredding reaches. The key store can keep the
    /// old record for some time, for example in its write-ahead log. Values that were never encrypted are
    /// not destroyed: [erase](EntryStore::erase) them.
    ///
    /// # Errors
    /// - `PermissionDenied`: the tenant is the reserved one.
    /// - Any error of the key store. Repeating the call is safe.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use cubbyhole_core::{Bytes, ErrorKind, ExecutionContext, Namespace, Store};
    /// use cubbyhole_layers::{Encrypted, KeyRing};
    /// use cubbyhole_memory::InMemoryStore;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole_core::Result<()> {
    /// let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme:agent-7")?);
    /// let inner = InMemoryStore::<Bytes>::new();
    /// let store = Encrypted::new(inner, Arc::new(KeyRing::generate()?));
    /// store.put(&ctx, &ns, "plan", "buy milk".into()).await?;
    ///
    /// let shredded = store.shred(&ctx, &ns.tenant()).await?;
    /// assert_eq!(shredded.data_keys, 1);
    /// let error = store.get(&ctx, &ns, "plan").await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Corrupt);
    /// assert!(error.message().contains("shredded"));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn shred(&self, ctx: &ExecutionContext, tenant: &TenantId) -> Result<Shredded> {
        if store::is_reserved(tenant.as_rendered()) {
            return store::refuse(ctx, "shred").await;
        }
        self.keys().shred(ctx, tenant.as_rendered()).await.in_operation("shred")
    }

    /// Wraps the data keys of a tenant with the provider's current key, after that key was rotated.
    ///
    /// If the tenant's current data key was wrapped with another key, the tenant also gets a new one for
    /// new values. The older data keys stay: they decrypt the values that exist and those that other
    /// processes write until they read the key store again.
    /// [`reencrypt_step`](Self::reencrypt_step) then rewrites the values with the new data key.
    ///
    /// Give every process the new wrapping key first: a process without it cannot read new values. A
    /// [`KeyFile`] is read again when that key is missing.
    ///
    /// Once all tenants are rekeyed, data no longer depends on the old wrapping key. Backups still do.
    ///
    /// # Errors
    /// - `PermissionDenied`: the tenant is the reserved one.
    /// - `Unavailable`: the provider does not have a key that wraps one of the data keys.
    /// - Any error of the key store and the key provider. Repeating the call is safe.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use cubbyhole_core::{Bytes, ExecutionContext, Namespace, Store};
    /// use cubbyhole_layers::{Encrypted, KeyRing};
    /// use cubbyhole_memory::InMemoryStore;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole_core::Result<()> {
    /// let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme:agent-7")?);
    /// let inner = InMemoryStore::<Bytes>::new();
    /// let mut ring = KeyRing::generate()?;
    /// let store = Encrypted::new(inner.clone(), Arc::new(ring.clone()));
    /// store.put(&ctx, &ns, "plan", "buy milk".into()).await?;
    ///
    /// ring.rotate()?;
    /// let store = Encrypted::new(inner, Arc::new(ring));
    /// let rekeyed = store.rekey(&ctx, &ns.tenant()).await?;
    /// assert!(rekeyed.new_data_key);
    /// assert_eq!(rekeyed.rewrapped, 1);
    /// assert_eq!(store.get(&ctx, &ns, "plan").await?.unwrap(), "buy milk");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn rekey(&self, ctx: &ExecutionContext, tenant: &TenantId) -> Result<Rekeyed> {
        if store::is_reserved(tenant.as_rendered()) {
            return store::refuse(ctx, "rekey").await;
        }
        self.keys().rekey(ctx, tenant.as_rendered()).await.in_operation("rekey")
    }

    /// Returns one page of the tenants that have data keys or were shredded: at most `limit` tenants
    /// after `after`, in byte order of their text form.
    ///
    /// Call [`rekey`](Self::rekey) for each of them after a rotation.
    /// [`scan_tenants`](EntryStore::scan_tenants) is not enough: it leaves out tenants whose entries
    /// have all expired or were erased, and they keep their data keys.
    ///
    /// # Errors
    /// - `InvalidArgument`: the limit is not in 1 to 1,000.
    /// - `Corrupt`: a record has a wrong name.
    /// - Any error of the key store.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use cubbyhole_core::{Bytes, ExecutionContext, Namespace, Store};
    /// use cubbyhole_layers::{Encrypted, KeyRing};
    /// use cubbyhole_memory::InMemoryStore;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole_core::Result<()> {
    /// let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme:agent-7")?);
    /// let inner = InMemoryStore::<Bytes>::new();
    /// let store = Encrypted::new(inner, Arc::new(KeyRing::generate()?));
    /// store.put(&ctx, &ns, "plan", "buy milk".into()).await?;
    /// store.delete(&ctx, &ns, "plan").await?;
    ///
    /// let page = store.scan_keyed_tenants(&ctx, None, 100).await?;
    /// assert_eq!(page.items, [ns.tenant()]);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn scan_keyed_tenants(
        &self,
        ctx: &ExecutionContext,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<Page<TenantId>> {
        self.keys().records.scan(ctx, after, limit).await.in_operation("scan_keyed_tenants")
    }
}

impl<S> Encrypted<S> {
    /// Returns the inner store, whose values are encrypted.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.sealed.inner
    }

    /// Returns where the data keys are stored.
    #[must_use]
    pub const fn key_store(&self) -> &KeyStore {
        &self.sealed.transform.keys.records.place
    }

    const fn keys(&self) -> &DataKeys {
        &self.sealed.transform.keys
    }
}

/// Clones share the inner store and the cached data keys.
impl<S> Clone for Encrypted<S> {
    fn clone(&self) -> Self {
        let Transformed { transform, inner } = &self.sealed;
        Self { sealed: Transformed { transform: transform.clone(), inner: Arc::clone(inner) } }
    }
}

/// Shows the options and the ids of wrapping keys, and neither values nor keys.
impl<S> fmt::Debug for Encrypted<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sealer { keys, plaintext } = &self.sealed.transform;
        f.debug_struct("Encrypted")
            .field("keys", keys)
            .field("plaintext", plaintext)
            .finish_non_exhaustive()
    }
}
