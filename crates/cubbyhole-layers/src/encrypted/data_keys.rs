//! The data keys of tenants, unwrapped and cached.

mod change;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use cubbyhole_core::{
    Backoff, Clock, Condition, Error, ExecutionContext, Result, SystemClock, Version,
};
use hashbrown::HashMap;

use super::cipher::Cipher;
use super::key_store::{RecordWrite, Records, restate, shown};
use super::record::{DataKeyId, Record, WrappedDataKey};
use super::{KeyProvider, SecretKey};

pub(super) const DEFAULT_MAX_AGE: Duration = Duration::from_secs(60);
/// The maximum number of tenants in the cache. A further tenant clears it.
const MAX_TENANTS: usize = 10_000;
/// How often a call creates a record whose write has an unknown outcome.
const MAX_ATTEMPTS: usize = 5;
/// Distinguishes a wrapped data key from anything else that a key provider wraps.
const WRAPPING_LABEL: &[u8] = b"cubbyhole/data-key/1\0";

/// Creates, reads and caches data keys. Clones share the cache.
#[derive(Clone)]
pub(super) struct DataKeys {
    pub(super) provider: Arc<dyn KeyProvider>,
    pub(super) records: Records,
    pub(super) max_age: Duration,
    pub(super) clock: Arc<dyn Clock>,
    cache: Arc<Cache>,
}

/// The data keys of a tenant at one version of its record.
pub(super) struct TenantKeys {
    version: Version,
    state: State,
}

enum State {
    /// At least one key, the current one first.
    Keys(Vec<DataKey>),
    Shredded,
}

/// A data key, unwrapped when it is first used.
pub(super) struct DataKey {
    pub(super) id: DataKeyId,
    wrapped: WrappedDataKey,
    cipher: OnceLock<Cipher>,
}

#[derive(Default)]
struct Cache {
    /// By the tenant's name as it is written in a namespace.
    tenants: RwLock<HashMap<Arc<str>, Cached>>,
    /// The number of shreddings in this process.
    shreddings: AtomicU64,
}

struct Cached {
    keys: Arc<TenantKeys>,
    /// The clock's `elapsed` before the record was read.
    read_at: Duration,
}

impl TenantKeys {
    /// Returns all keys, the current one first.
    pub(super) fn keys(&self, tenant: &str) -> Result<&[DataKey]> {
        match &self.state {
            State::Keys(keys) => Ok(keys),
            State::Shredded => Err(Error::corrupt(format!(
                "the value cannot be read: tenant `{}` was shredded, and its data keys are \
                 destroyed",
                shown(tenant)
            ))),
        }
    }

    /// Returns the key for new values.
    pub(super) fn current(&self, tenant: &str) -> Result<&DataKey> {
        match &self.state {
            State::Keys(keys) => {
                keys.first().ok_or_else(|| Error::internal("a record without a data key"))
            }
            State::Shredded => Err(Error::permission_denied(format!(
                "tenant `{}` was shredded and takes no more values; use another tenant",
                shown(tenant)
            ))),
        }
    }
}

impl DataKeys {
    pub(super) fn new(provider: Arc<dyn KeyProvider>, records: Records) -> Self {
        let clock = Arc::new(SystemClock);
        Self { provider, records, max_age: DEFAULT_MAX_AGE, clock, cache: Arc::default() }
    }

    /// Clears the cache, for another key store or clock.
    pub(super) fn reset_cache(&mut self) {
        self.cache = Arc::default();
    }

    /// Returns the keys of a tenant from the cache, if they are not older than the maximum age.
    fn cached(&self, tenant: &str) -> Option<Arc<TenantKeys>> {
        let now = self.clock.elapsed();
        let tenants = self.cache.tenants.read().unwrap_or_else(PoisonError::into_inner);
        let cached = tenants.get(tenant)?;
        (now.saturating_sub(cached.read_at) < self.max_age).then(|| Arc::clone(&cached.keys))
    }

    /// Returns the keys of a tenant, or `None` if it has none.
    pub(super) async fn get(
        &self,
        ctx: &ExecutionContext,
        tenant: &str,
    ) -> Result<Option<Arc<TenantKeys>>> {
        match self.cached(tenant) {
            Some(keys) => Ok(Some(keys)),
            None => self.read(ctx, tenant).await,
        }
    }

    /// Returns the keys of a tenant, and creates the first one if it has none.
    pub(super) async fn get_or_create(
        &self,
        ctx: &ExecutionContext,
        tenant: &str,
    ) -> Result<Arc<TenantKeys>> {
        if let Some(keys) = self.get(ctx, tenant).await? {
            return Ok(keys);
        }
        let (data_key, first) = self.create(ctx, tenant).await?;
        let record = Record::Keys(vec![first]);
        let mut backoff = Backoff::new();
        for _ in 0..MAX_ATTEMPTS {
            // A concurrent creation or shredding wins: the condition fails, and its record is read.
            let began = self.begin();
            let written = self.records.write(ctx, tenant, &record, Condition::IfAbsent).await;
            // The value was not written yet, so the outcome of this call is known.
            let written = written.map_err(|error| restate_certain(&error))?;
            if let RecordWrite::Done(version) = written {
                let keys = TenantKeys::new(version, record, None);
                if let State::Keys(keys) = &keys.state
                    && let Some(first) = keys.first()
                {
                    let _ = first.cipher.set(Cipher::new(&data_key));
                }
                return Ok(self.keep(tenant, keys, began));
            }
            if let Some(keys) = self.read(ctx, tenant).await? {
                return Ok(keys);
            }
            backoff.pause(ctx).await?;
        }
        Err(Error::unavailable(format!(
            "the key store did not confirm the first data key of tenant `{}`",
            shown(tenant)
        )))
    }

    /// Reads the record of a tenant, even if its keys are cached.
    pub(super) async fn read(
        &self,
        ctx: &ExecutionContext,
        tenant: &str,
    ) -> Result<Option<Arc<TenantKeys>>> {
        let began = self.begin();
        let Some(stored) = self.records.read(ctx, tenant).await? else { return Ok(None) };
        let record = stored.record.map_err(|error| {
            restate(&error, &format!("cannot read the data keys of tenant `{}`", shown(tenant)))
        })?;
        // Keys that are unwrapped already need not be unwrapped again.
        let known = {
            let tenants = self.cache.tenants.read().unwrap_or_else(PoisonError::into_inner);
            tenants.get(tenant).map(|cached| Arc::clone(&cached.keys))
        };
        let keys = match known {
            Some(known) if known.version == stored.version => known,
            known => Arc::new(TenantKeys::new(stored.version, record, known.as_deref())),
        };
        Ok(Some(self.keep(tenant, keys, began)))
    }

    /// Returns the cipher of a data key.
    pub(super) async fn cipher<'k>(
        &self,
        ctx: &ExecutionContext,
        tenant: &str,
        key: &'k DataKey,
    ) -> Result<&'k Cipher> {
        if let Some(cipher) = key.cipher.get() {
            return Ok(cipher);
        }
        let secret = self.unwrap(ctx, tenant, &key.wrapped).await?;
        Ok(key.cipher.get_or_init(|| Cipher::new(&secret)))
    }

    async fn unwrap(
        &self,
        ctx: &ExecutionContext,
        tenant: &str,
        key: &WrappedDataKey,
    ) -> Result<SecretKey> {
        let associated = wrapping_context(tenant, key.id);
        let secret = self.provider.unwrap(ctx, &key.wrapped, &associated).await;
        secret.map_err(|error| explain(&error, "unwrap", tenant))
    }

    async fn wrap(
        &self,
        ctx: &ExecutionContext,
        tenant: &str,
        id: DataKeyId,
        secret: &SecretKey,
    ) -> Result<WrappedDataKey> {
        let wrapped = self.provider.wrap(ctx, secret, &wrapping_context(tenant, id)).await;
        let wrapped = wrapped.map_err(|error| explain(&error, "wrap", tenant))?;
        Ok(WrappedDataKey { id, wrapped })
    }

    /// Draws a data key and wraps it.
    async fn create(
        &self,
        ctx: &ExecutionContext,
        tenant: &str,
    ) -> Result<(SecretKey, WrappedDataKey)> {
        let secret = SecretKey::generate()?;
        let wrapped = self.wrap(ctx, tenant, DataKeyId::draw()?, &secret).await?;
        Ok((secret, wrapped))
    }

    /// Notes the time and the shreddings before a record is read or written.
    fn begin(&self) -> (Duration, u64) {
        (self.clock.elapsed(), self.cache.shreddings.load(Ordering::Acquire))
    }

    /// Caches keys, unless a tenant was shredded since `began`: the keys could be that tenant's.
    fn keep(
        &self,
        tenant: &str,
        keys: impl Into<Arc<TenantKeys>>,
        (read_at, shreddings): (Duration, u64),
    ) -> Arc<TenantKeys> {
        let keys = keys.into();
        let mut tenants = self.cache.tenants.write().unwrap_or_else(PoisonError::into_inner);
        if self.cache.shreddings.load(Ordering::Acquire) == shreddings {
            if tenants.len() >= MAX_TENANTS && !tenants.contains_key(tenant) {
                tenants.clear();
            }
            // A slow reader must not replace a newer record.
            if tenants.get(tenant).is_none_or(|cached| cached.read_at <= read_at) {
                tenants.insert(tenant.into(), Cached { keys: Arc::clone(&keys), read_at });
            }
        }
        keys
    }
}

impl TenantKeys {
    /// Takes over the unwrapped keys of `known`.
    fn new(version: Version, record: Record, known: Option<&Self>) -> Self {
        let Record::Keys(keys) = record else { return Self { version, state: State::Shredded } };
        let known = match known.map(|known| &known.state) {
            Some(State::Keys(known)) => known.as_slice(),
            _ => &[],
        };
        let keys = keys.into_iter().map(|wrapped| {
            let same = known.iter().find(|key| key.id == wrapped.id);
            let cipher = same.map_or_else(OnceLock::new, |key| key.cipher.clone());
            DataKey { id: wrapped.id, wrapped, cipher }
        });
        Self { version, state: State::Keys(keys.collect()) }
    }
}

impl fmt::Debug for DataKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKeys")
            .field("provider", &self.provider)
            .field("key_store", &self.records.place)
            .field("max_age", &self.max_age)
            .finish_non_exhaustive()
    }
}

/// Returns the associated data of a wrapped data key: label, tenant, NUL, id. A tenant contains no NUL.
fn wrapping_context(tenant: &str, id: DataKeyId) -> Vec<u8> {
    [WRAPPING_LABEL, tenant.as_bytes(), b"\0", &id.0].concat()
}

/// Returns the error without the mark of an unknown outcome, for a call that has not written its entry.
fn restate_certain(error: &Error) -> Error {
    if error.may_have_been_applied() {
        restate(error, "no value was written")
    } else {
        error.clone()
    }
}

/// Adds the purpose of the call to the error of a key provider.
fn explain(error: &Error, verb: &str, tenant: &str) -> Error {
    restate(error, &format!("cannot {verb} a data key of tenant `{}`", shown(tenant)))
}
