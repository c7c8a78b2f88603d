//! A layer that adds a fault to a sound store.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use cubbyhole_core::{
    Batch, Condition, EntryStore, ExecutionContext, GetOptions, Namespace, Operation, PutOptions,
    Result, Store, Version, Written, async_trait, delegate,
};

use crate::Sample;

/// A fault that [`FaultyStore`] adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Some reads return the result of an earlier read.
    StaleRead,
    /// Some puts are acknowledged but not written.
    LostUpdate,
    /// A condition is checked in a separate step before the write.
    ConditionOutside,
    /// The operations of a batch are written one after the other.
    TornBatch,
}

impl Fault {
    /// All faults.
    pub const ALL: [Self; 4] =
        [Self::StaleRead, Self::LostUpdate, Self::ConditionOutside, Self::TornBatch];
}

/// A layer that adds one fault to a store, and passes all other calls on. Use it to show that a
/// test of histories can fail on your store.
pub struct FaultyStore<V: Sample> {
    store: Arc<dyn EntryStore<V>>,
    fault: Fault,
    state: Mutex<FaultState<V>>,
}

struct FaultState<V> {
    random: fastrand::Rng,
    read: HashMap<(Namespace, String), Option<V>>,
}

impl<V: Sample> fmt::Debug for FaultyStore<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore").field("fault", &self.fault).finish_non_exhaustive()
    }
}

impl<V: Sample> FaultyStore<V> {
    /// Adds `fault` to `store`. `seed` determines which calls are affected.
    #[must_use]
    pub fn new(store: Arc<dyn EntryStore<V>>, fault: Fault, seed: u64) -> Self {
        let state = FaultState { random: fastrand::Rng::with_seed(seed), read: HashMap::new() };
        Self { store, fault, state: Mutex::new(state) }
    }

    fn state<T>(&self, with: impl FnOnce(&mut FaultState<V>) -> T) -> T {
        with(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns true for one call in `one_in`, if the store has this fault.
    fn strikes(&self, fault: Fault, one_in: u32) -> bool {
        self.fault == fault && self.state(|state| state.random.u32(..one_in)) == 0
    }

    async fn check(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        condition: Condition,
    ) -> Result<()> {
        let entry = self.store.get_entry(ctx, ns, key, GetOptions::new()).await?;
        condition.check(entry.map(|entry| entry.meta.version))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<V: Sample> Store<V> for FaultyStore<V> {
    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: V,
        options: PutOptions,
    ) -> Result<()> {
        if self.strikes(Fault::LostUpdate, 50) {
            return Ok(());
        }
        self.store.put_with_options(ctx, ns, key, value, options).await
    }

    async fn get(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<Option<V>> {
        let location = (ns.clone(), key.to_owned());
        let earlier = self.state(|state| state.read.get(&location).cloned());
        if let Some(earlier) = earlier.filter(|_| self.strikes(Fault::StaleRead, 20)) {
            return Ok(earlier);
        }
        let value = self.store.get(ctx, ns, key).await?;
        self.state(|state| state.read.insert(location, value.clone()));
        Ok(value)
    }

    async fn put(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str, value: V) -> Result<()> {
        self.put_with_options(ctx, ns, key, value, PutOptions::new()).await
    }

    delegate!(V, |layer| layer.store => delete, list, list_namespaces, evict_expired);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<V: Sample> EntryStore<V> for FaultyStore<V> {
    async fn put_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: V,
        options: PutOptions,
        condition: Condition,
    ) -> Result<Version> {
        if self.fault != Fault::ConditionOutside {
            return self.store.put_entry(ctx, ns, key, value, options, condition).await;
        }
        self.check(ctx, ns, key, condition).await?;
        // Simulates a second round trip to a server: other clients run in between.
        tokio::task::yield_now().await;
        self.store.put_entry(ctx, ns, key, value, options, Condition::Always).await
    }

    async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        batch: Batch<V>,
    ) -> Result<Vec<Written>> {
        if self.fault != Fault::TornBatch {
            return self.store.write(ctx, ns, batch).await;
        }
        for operation in batch.operations() {
            self.check(ctx, ns, operation.key(), operation.condition()).await?;
        }
        let mut written = Vec::with_capacity(batch.len());
        for operation in batch.into_operations() {
            written.push(match operation {
                Operation::Put { key, value, options, .. } => {
                    let always = Condition::Always;
                    let put = self.store.put_entry(ctx, ns, &key, value, options, always);
                    Written::Put(put.await?)
                }
                Operation::Delete { key, .. } => {
                    let always = Condition::Always;
                    Written::Deleted(self.store.delete_entry(ctx, ns, &key, always).await?)
                }
            });
            tokio::task::yield_now().await;
        }
        Ok(written)
    }

    delegate!(V, |layer| layer.store =>
        get_entry, get_many, stat, delete_entry, scan, scan_recursive, scan_namespaces,
        scan_tenants, touch, take, delete_prefix, erase, usage, current_time,
        max_value_bytes
    );
}
