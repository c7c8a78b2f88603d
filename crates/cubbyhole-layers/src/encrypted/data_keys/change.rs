//! Changes of a tenant's record: shredding, and a new wrapping key.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use cubbyhole_core::{Backoff, Condition, Error, ExecutionContext, Result, Version};

use super::{Cached, DataKeys, TenantKeys};
use crate::encrypted::key_store::{RecordWrite, restate, shown};
use crate::encrypted::record::Record;
use crate::encrypted::{Rekeyed, Shredded};

impl DataKeys {
    /// Replaces the record of a tenant by the mark of a shredded one.
    pub(in crate::encrypted) async fn shred(
        &self,
        ctx: &ExecutionContext,
        tenant: &str,
    ) -> Result<Shredded> {
        let (mut backoff, mut unknown) = (Backoff::new(), None);
        loop {
            let shredded = self.try_shred(ctx, tenant, &mut unknown).await;
            if let Some(shredded) = marked(shredded, &unknown)? {
                return Ok(shredded);
            }
            marked(backoff.pause(ctx).await, &unknown)?;
        }
    }

    /// Shreds once. Returns `None` if another change came first, or the outcome is unknown.
    async fn try_shred(
        &self,
        ctx: &ExecutionContext,
        tenant: &str,
        unknown: &mut Option<(Version, Shredded)>,
    ) -> Result<Option<Shredded>> {
        let stored = self.records.read(ctx, tenant).await?;
        let (condition, destroyed) = match &stored {
            None => (Condition::IfAbsent, 0),
            Some(stored) => {
                let count = match &stored.record {
                    Ok(Record::Shredded) => {
                        let keys = TenantKeys::new(stored.version, Record::Shredded, None);
                        self.keep_shredded(tenant, keys);
                        let ours = unknown.filter(|(version, _)| *version == stored.version);
                        let already = Shredded { data_keys: 0, already: true };
                        return Ok(Some(ours.map_or(already, |(_, shredded)| shredded)));
                    }
                    Ok(Record::Keys(keys)) => keys.len(),
                    // A damaged record is destroyed too.
                    Err(_) => 0,
                };
                (Condition::IfVersion(stored.version), count)
            }
        };
        let shredded = Shredded { data_keys: destroyed, already: false };
        match self.records.write(ctx, tenant, &Record::Shredded, condition).await? {
            RecordWrite::Done(version) => {
                self.keep_shredded(tenant, TenantKeys::new(version, Record::Shredded, None));
                Ok(Some(shredded))
            }
            RecordWrite::Lost => Ok(None),
            RecordWrite::Unknown(version) => {
                *unknown = Some((version, shredded));
                Ok(None)
            }
        }
    }

    /// Caches that a tenant is shredded. Readers of its record that are in flight cannot undo it.
    fn keep_shredded(&self, tenant: &str, keys: TenantKeys) {
        let cached = Cached { keys: keys.into(), read_at: self.clock.elapsed() };
        let mut tenants = self.cache.tenants.write().unwrap_or_else(PoisonError::into_inner);
        self.cache.shreddings.fetch_add(1, Ordering::AcqRel);
        tenants.insert(tenant.into(), cached);
    }

    /// Wraps a tenant's data keys with the provider's current key, and creates a new current data key
    /// if the present one is wrapped with another.
    pub(in crate::encrypted) async fn rekey(
        &self,
        ctx: &ExecutionContext,
        tenant: &str,
    ) -> Result<Rekeyed> {
        let (mut backoff, mut unknown) = (Backoff::new(), None);
        loop {
            let rekeyed = self.try_rekey(ctx, tenant, &mut unknown).await;
            if let Some(rekeyed) = marked(rekeyed, &unknown)? {
                return Ok(rekeyed);
            }
            marked(backoff.pause(ctx).await, &unknown)?;
        }
    }

    /// Rekeys once. Returns `None` if another change came first, or the outcome is unknown.
    async fn try_rekey(
        &self,
        ctx: &ExecutionContext,
        tenant: &str,
        unknown: &mut Option<(Version, Rekeyed)>,
    ) -> Result<Option<Rekeyed>> {
        let Some(stored) = self.records.read(ctx, tenant).await? else {
            return Ok(Some(Rekeyed::default()));
        };
        if let Some((_, rekeyed)) = unknown.filter(|(version, _)| *version == stored.version) {
            self.read(ctx, tenant).await?;
            return Ok(Some(rekeyed));
        }
        let record = stored.record.map_err(|error| {
            restate(&error, &format!("cannot read the data keys of tenant `{}`", shown(tenant)))
        })?;
        let Record::Keys(old) = record else {
            return Ok(Some(Rekeyed { shredded: true, ..Rekeyed::default() }));
        };
        let ring_key = self.provider.current_key_id(ctx).await?;
        let mut rekeyed = Rekeyed::default();
        let mut keys = Vec::with_capacity(old.len() + 1);
        if old.first().is_some_and(|current| current.wrapped.key_id != ring_key) {
            keys.push(self.create(ctx, tenant).await?.1);
            rekeyed.new_data_key = true;
        }
        for key in old {
            if key.wrapped.key_id == ring_key {
                keys.push(key);
                continue;
            }
            // Values and other processes still use it.
            let secret = self.unwrap(ctx, tenant, &key).await?;
            keys.push(self.wrap(ctx, tenant, key.id, &secret).await?);
            rekeyed.rewrapped += 1;
        }
        if rekeyed == Rekeyed::default() {
            return Ok(Some(rekeyed));
        }
        let condition = Condition::IfVersion(stored.version);
        match self.records.write(ctx, tenant, &Record::Keys(keys), condition).await? {
            RecordWrite::Done(_) => {
                self.read(ctx, tenant).await?;
                Ok(Some(rekeyed))
            }
            RecordWrite::Lost => Ok(None),
            RecordWrite::Unknown(version) => {
                *unknown = Some((version, rekeyed));
                Ok(None)
            }
        }
    }
}

/// Marks an error after an attempt of unknown outcome: the attempt may have been applied.
fn marked<T, A>(result: Result<T>, unknown: &Option<A>) -> Result<T> {
    match unknown {
        Some(_) => result.map_err(Error::with_unknown_outcome),
        None => result,
    }
}
