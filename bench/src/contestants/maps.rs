//! What people take in place of a store in memory: a cache and maps, by namespace, NUL and key.
//! They know no namespaces, so that nothing can be listed but by going through everything.

use std::sync::{Arc, PoisonError, RwLock};

use cubbyhole::Bytes;
use dashmap::DashMap;
use hashbrown::HashMap;
use moka::future::Cache;

use crate::Result;
use crate::contestant::Contestant;
use crate::data::{Names, Place, Value, Values};
use crate::workload::Ability;

const ABILITIES: &[Ability] = &[Ability::Get, Ability::Put];

/// A hash map behind a lock: the limit.
pub struct Locked {
    map: RwLock<HashMap<String, Bytes>>,
    names: Arc<Names>,
}

/// `dashmap::DashMap`.
pub struct Dash {
    map: DashMap<String, Bytes>,
    names: Arc<Names>,
}

/// `moka::future::Cache`, without a bound.
pub struct Moka {
    cache: Cache<String, Bytes>,
    names: Arc<Names>,
}

/// What each of them is filled with.
fn entries<'a>(names: &'a Names, values: &'a Values) -> impl Iterator<Item = (String, Bytes)> + 'a {
    (0..names.entries()).map(|index| (names.location(Place::nth(index)), values.nth(index).owned()))
}

impl Locked {
    pub fn filled(names: &Arc<Names>, values: &Values) -> Self {
        Self { map: RwLock::new(entries(names, values).collect()), names: Arc::clone(names) }
    }
}

impl Dash {
    pub fn filled(names: &Arc<Names>, values: &Values) -> Self {
        Self { map: entries(names, values).collect(), names: Arc::clone(names) }
    }
}

impl Moka {
    pub async fn filled(names: &Arc<Names>, values: &Values) -> Self {
        let cache = Cache::builder().build();
        for (location, value) in entries(names, values) {
            cache.insert(location, value).await;
        }
        cache.run_pending_tasks().await;
        Self { cache, names: Arc::clone(names) }
    }
}

impl Contestant for Locked {
    const ABILITIES: &'static [Ability] = ABILITIES;

    async fn get(&self, place: Place) -> Result<Option<usize>> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let value = self.names.with_location(place, |location| map.get(location).cloned());
        Ok(value.map(|value| value.len()))
    }

    async fn put(&self, place: Place, value: &Value) -> Result<()> {
        let location = self.names.location(place);
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        map.insert(location, value.owned());
        Ok(())
    }
}

impl Contestant for Dash {
    const ABILITIES: &'static [Ability] = ABILITIES;

    async fn get(&self, place: Place) -> Result<Option<usize>> {
        let found = |location: &str| self.map.get(location).map(|value| value.value().clone());
        Ok(self.names.with_location(place, found).map(|value| value.len()))
    }

    async fn put(&self, place: Place, value: &Value) -> Result<()> {
        self.map.insert(self.names.location(place), value.owned());
        Ok(())
    }
}

impl Contestant for Moka {
    const ABILITIES: &'static [Ability] = ABILITIES;

    async fn get(&self, place: Place) -> Result<Option<usize>> {
        let location = self.names.location(place);
        Ok(self.cache.get(&location).await.map(|value| value.len()))
    }

    async fn put(&self, place: Place, value: &Value) -> Result<()> {
        self.cache.insert(self.names.location(place), value.owned()).await;
        Ok(())
    }
}
