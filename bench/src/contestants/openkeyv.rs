//! `openkeyv`, whose collections are our namespaces. It has no lists of a part of them, no pages,
//! and several entries are not written in one step.

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
use crate::contestant::Contestant;
use crate::data::{Names, Place, Value, Values};
use crate::workload::{Ability, BATCH};

const IN_FLIGHT: usize = 16;
const ALL: &[Ability] =
    &[Ability::Get, Ability::Put, Ability::List, Ability::Sweep, Ability::Append, Ability::Batch];

/// One of its stores, with what not all of them can.
pub trait Known: AsyncKeyValue + AsyncEnumerateKeys + AsyncCull + Send + Sync + 'static {
    const ABILITIES: &'static [Ability] = ALL;

    /// Itself, if it can write conditionally.
    fn swapping(&self) -> Option<&dyn AsyncCompareAndSwap>;
}

impl Known for MemoryStore {
    fn swapping(&self) -> Option<&dyn AsyncCompareAndSwap> {
        Some(self)
    }
}

impl Known for PostgresStore {
    fn swapping(&self) -> Option<&dyn AsyncCompareAndSwap> {
        Some(self)
    }
}

impl Known for RedisStore {
    // Its sweep does nothing: Redis does it.
    const ABILITIES: &'static [Ability] =
        &[Ability::Get, Ability::Put, Ability::List, Ability::Append, Ability::Batch];

    fn swapping(&self) -> Option<&dyn AsyncCompareAndSwap> {
        Some(self)
    }
}

impl Known for SqliteStore {
    const ABILITIES: &'static [Ability] =
        &[Ability::Get, Ability::Put, Ability::List, Ability::Sweep, Ability::Batch];

    fn swapping(&self) -> Option<&dyn AsyncCompareAndSwap> {
        None
    }
}

/// A store of theirs.
pub struct OpenKeyv<S> {
    store: Arc<S>,
    names: Arc<Names>,
}

impl<S: Known> OpenKeyv<S> {
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
                        .filter(|(key, _)| Place { namespace, key: *key }.expires() == expires)
                        .collect();
                    let keys: Vec<String> =
                        chosen.iter().map(|(_, name)| (*name).clone()).collect();
                    let values: Vec<_> =
                        chosen.iter().map(|(key, _)| form(values.nth(namespace + key))).collect();
                    let ttl = expires.then(|| TTL.as_secs_f64());
                    let collection = Some(names.namespaces[namespace].as_str());
                    store.put_many(&keys, &values, collection, ttl).await?;
                }
                Ok(())
            }
        })
        .await
    }

    /// Puts so many entries that expire at once, in a collection aside.
    pub async fn put_expiring(&self, count: usize, values: &Values) -> Result<()> {
        let keys: Vec<String> = (0..count).map(|key| format!("k{key}")).collect();
        let values: Vec<_> = (0..count).map(|key| form(values.nth(key))).collect();
        self.store.put_many(&keys, &values, Some("expiring"), Some(0.001)).await?;
        Ok(())
    }
}

fn form(value: &Value) -> openkeyv::value::Value {
    openkeyv::value::Value::binary(value.owned())
}

impl<S: Known> Contestant for OpenKeyv<S> {
    const ABILITIES: &'static [Ability] = S::ABILITIES;

    async fn get(&self, place: Place) -> Result<Option<usize>> {
        let (ns, key) = self.names.rendered(place);
        Ok(self.store.get(key, Some(ns)).await?.map(|value| value.len()))
    }

    async fn put(&self, place: Place, value: &Value) -> Result<()> {
        let (ns, key) = self.names.rendered(place);
        Ok(self.store.put(key, form(value), Some(ns), None).await?)
    }

    async fn list(&self, namespace: usize) -> Result<usize> {
        let ns = self.names.namespaces[namespace].as_str();
        Ok(self.store.keys(Some(ns), None).await?.len())
    }

    async fn sweep(&self) -> Result<Option<usize>> {
        self.store.cull().await?;
        Ok(None)
    }

    async fn append(&self, place: Place, value: &Value) -> Result<()> {
        let (ns, key) = self.names.rendered(place);
        let store = self.store.swapping().ok_or("it does not write conditionally")?;
        loop {
            let current = store.get_with_revision(key, Some(ns)).await?;
            let current = current.ok_or("the entry to append to is not there")?.revision;
            let swap = store.compare_and_swap(key, Some(&current), form(value), Some(ns), None);
            if let CompareAndSwapResult::Applied { .. } = swap.await? {
                return Ok(());
            }
        }
    }

    async fn batch(&self, namespace: usize, values: [&Value; BATCH]) -> Result<()> {
        let values = values.map(form);
        let ns = self.names.namespaces[namespace].as_str();
        Ok(self.store.put_many(&self.names.keys[..BATCH], &values, Some(ns), None).await?)
    }
}
