//! A cache and maps, as alternatives to an in-memory store. Their keys are namespace, NUL and key.
//! They have no namespaces, so listing would need a scan of all entries.

use std::sync::{Arc, PoisonError, RwLock};

use cubbyhole::Bytes;
use dashmap::DashMap;
use hashbrown::HashMap;
use moka::future::Cache;

use crate::Result;
use crate::candidate::Candidate;
use crate::data::{EntryId, Names, Value, Values};
use crate::workload::Ability;

const ABILITIES: &[Ability] = &[Ability::Get, Ability::Put];

/// A hash map behind a lock: the limit in memory.
pub struct LockedHashMap {
    map: RwLock<HashMap<String, Bytes>>,
    names: Arc<Names>,
}

/// `dashmap::DashMap`.
pub struct DashMapStore {
    map: DashMap<String, Bytes>,
    names: Arc<Names>,
}

/// `moka::future::Cache`, unbounded.
pub struct MokaCache {
    cache: Cache<String, Bytes>,
    names: Arc<Names>,
}

/// The entries that each of them is filled with.
fn entries<'a>(names: &'a Names, values: &'a Values) -> impl Iterator<Item = (String, Bytes)> + 'a {
    (0..names.entries())
        .map(|index| (names.location(EntryId::nth(index)), values.nth(index).owned()))
}

impl LockedHashMap {
    pub fn filled(names: &Arc<Names>, values: &Values) -> Self {
        Self { map: RwLock::new(entries(names, values).collect()), names: Arc::clone(names) }
    }
}

impl DashMapStore {
    pub fn filled(names: &Arc<Names>, values: &Values) -> Self {
        Self { map: entries(names, values).collect(), names: Arc::clone(names) }
    }
}

impl MokaCache {
    pub async fn filled(names: &Arc<Names>, values: &Values) -> Self {
        let cache = Cache::builder().build();
        for (location, value) in entries(names, values) {
            cache.insert(location, value).await;
        }
        cache.run_pending_tasks().await;
        Self { cache, names: Arc::clone(names) }
    }
}

impl Candidate for LockedHashMap {
    const ABILITIES: &'static [Ability] = ABILITIES;

    async fn get(&self, id: EntryId) -> Result<Option<usize>> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let value = self.names.with_location(id, |location| map.get(location).cloned());
        Ok(value.map(|value| value.len()))
    }

    async fn put(&self, id: EntryId, value: &Value) -> Result<()> {
        let location = self.names.location(id);
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        map.insert(location, value.owned());
        Ok(())
    }
}

impl Candidate for DashMapStore {
    const ABILITIES: &'static [Ability] = ABILITIES;

    async fn get(&self, id: EntryId) -> Result<Option<usize>> {
        let found = |location: &str| self.map.get(location).map(|value| value.value().clone());
        Ok(self.names.with_location(id, found).map(|value| value.len()))
    }

    async fn put(&self, id: EntryId, value: &Value) -> Result<()> {
        self.map.insert(self.names.location(id), value.owned());
        Ok(())
    }
}

impl Candidate for MokaCache {
    const ABILITIES: &'static [Ability] = ABILITIES;

    async fn get(&self, id: EntryId) -> Result<Option<usize>> {
        let location = self.names.location(id);
        Ok(self.cache.get(&location).await.map(|value| value.len()))
    }

    async fn put(&self, id: EntryId, value: &Value) -> Result<()> {
        self.cache.insert(self.names.location(id), value.owned()).await;
        Ok(())
    }
}
