//! `openkeyv`, with one collection for each of our namespaces. It cannot list namespaces by prefix,
//! has no pages, and writes several entries without atomicity.

use std::sync::Arc;

use openkeyv::protocol::{
    AsyncCompareAndSwap, AsyncCull, AsyncEnumerateKeys, AsyncKeyValue, CompareAndSwapResult,
};
use openkeyv::store::memory::MemoryStore;
use openkeyv::store::postgres::PostgresStore;
use openkeyv::store::redis::RedisStore;
use openkeyv::store::sqlite::SqliteStore;

use super::each_namespace;
use super::ours::TTL;
use crate::Result;
use crate::candidate::Candidate;
use crate::data::{EntryId, Names, Value, Values};
use crate::workload::{Ability, BATCH};

const IN_FLIGHT: usize = 16;
const ALL: &[Ability] =
    &[Ability::Get, Ability::Put, Ability::List, Ability::Sweep, Ability::Append, Ability::Batch];

/// The abilities of an openkeyv store.
pub trait StoreAbilities:
    AsyncKeyValue + AsyncEnumerateKeys + AsyncCull + Send + Sync + 'static
{
    const ABILITIES: &'static [Ability] = ALL;

    /// Returns the store if it supports compare-and-swap.
    fn as_compare_and_swap(&self) -> Option<&dyn AsyncCompareAndSwap>;
}

impl StoreAbilities for MemoryStore {
    fn as_compare_and_swap(&self) -> Option<&dyn AsyncCompareAndSwap> {
        Some(self)
    }
}

impl StoreAbilities for PostgresStore {
    fn as_compare_and_swap(&self) -> Option<&dyn AsyncCompareAndSwap> {
        Some(self)
    }
}

impl StoreAbilities for RedisStore {
    // Its sweep does nothing, because Redis removes expired entries.
    const ABILITIES: &'static [Ability] =
        &[Ability::Get, Ability::Put, Ability::List, Ability::Append, Ability::Batch];

    fn as_compare_and_swap(&self) -> Option<&dyn AsyncCompareAndSwap> {
        Some(self)
    }
}

impl StoreAbilities for SqliteStore {
    const ABILITIES: &'static [Ability] =
        &[Ability::Get, Ability::Put, Ability::List, Ability::Sweep, Ability::Batch];

    fn as_compare_and_swap(&self) -> Option<&dyn AsyncCompareAndSwap> {
        None
    }
}

/// An openkeyv store.
pub struct OpenKeyv<S> {
    store: Arc<S>,
    names: Arc<Names>,
}

impl<S: StoreAbilities> OpenKeyv<S> {
    pub fn new(store: S, names: &Arc<Names>) -> Self {
        Self { store: Arc::new(store), names: Arc::clone(names) }
    }

    pub async fn fill(&self, values: &Arc<Values>) -> Result<()> {
        let (store, names, values) =
            (Arc::clone(&self.store), Arc::clone(&self.names), Arc::clone(values));
        each_namespace(&self.names, IN_FLIGHT, move |namespace| {
            let (store, names, values) =
                (Arc::clone(&store), Arc::clone(&names), Arc::clone(&values));
            async move {
                for expires in [false, true] {
                    let keys = names.keys.iter().enumerate();
                    let chosen: Vec<_> = keys
                        .filter(|(key, _)| EntryId { namespace, key: *key }.expires() == expires)
                        .collect();
                    let keys: Vec<String> =
                        chosen.iter().map(|(_, name)| (*name).clone()).collect();
                    let values: Vec<_> =
                        chosen.iter().map(|(key, _)| binary(values.nth(namespace + key))).collect();
                    let ttl = expires.then(|| TTL.as_secs_f64());
                    let collection = Some(names.namespaces[namespace].as_str());
                    store.put_many(&keys, &values, collection, ttl).await?;
                }
                Ok(())
            }
        })
        .await
    }

    /// Puts `count` entries with a TTL of 1 ms in a separate collection.
    pub async fn put_expiring(&self, count: usize, values: &Values) -> Result<()> {
        let keys: Vec<String> = (0..count).map(|key| format!("k{key}")).collect();
        let values: Vec<_> = (0..count).map(|key| binary(values.nth(key))).collect();
        self.store.put_many(&keys, &values, Some("expiring"), Some(0.001)).await?;
        Ok(())
    }
}

fn binary(value: &Value) -> openkeyv::value::Value {
    openkeyv::value::Value::binary(value.owned())
}

impl<S: StoreAbilities> Candidate for OpenKeyv<S> {
    const ABILITIES: &'static [Ability] = S::ABILITIES;

    async fn get(&self, id: EntryId) -> Result<Option<usize>> {
        let (ns, key) = self.names.rendered(id);
        Ok(self.store.get(key, Some(ns)).await?.map(|value| value.len()))
    }

    async fn put(&self, id: EntryId, value: &Value) -> Result<()> {
        let (ns, key) = self.names.rendered(id);
        Ok(self.store.put(key, binary(value), Some(ns), None).await?)
    }

    async fn list(&self, namespace: usize) -> Result<usize> {
        let ns = self.names.namespaces[namespace].as_str();
        Ok(self.store.keys(Some(ns), None).await?.len())
    }

    async fn sweep(&self) -> Result<Option<usize>> {
        self.store.cull().await?;
        Ok(None)
    }

    async fn append(&self, id: EntryId, value: &Value) -> Result<()> {
        let (ns, key) = self.names.rendered(id);
        let store = self.store.as_compare_and_swap().ok_or("the store has no compare-and-swap")?;
        loop {
            let current = store.get_with_revision(key, Some(ns)).await?;
            let current = current.ok_or("the entry to append to does not exist")?.revision;
            let swap = store.compare_and_swap(key, Some(&current), binary(value), Some(ns), None);
            if let CompareAndSwapResult::Applied { .. } = swap.await? {
                return Ok(());
            }
        }
    }

    async fn batch(&self, namespace: usize, values: [&Value; BATCH]) -> Result<()> {
        let values = values.map(binary);
        let ns = self.names.namespaces[namespace].as_str();
        Ok(self.store.put_many(&self.names.keys[..BATCH], &values, Some(ns), None).await?)
    }
}
