//! Writes to a cluster that wait for a replica, beside those that do not.

use std::sync::Arc;

use cubbyhole::{Bytes, EntryStore, ExecutionContext};
use cubbyhole_redis::{RedisConfig, RedisStore};
use cubbyhole_test_servers::RedisCluster;
use tokio::runtime::Runtime;

use super::contestants::{SERVER, encoded};
use crate::callers::{self, Work, work};
use crate::data::{KEYS, NAMESPACES_OF_A_TENANT, Names, Place};
use crate::harness::{Settings, exactly, interleave};
use crate::report::Comparison;
use crate::{REDIS, Result};

const OTHER: &str = "without waiting";
const ENTRIES: usize = 10 * NAMESPACES_OF_A_TENANT * KEYS;

/// Shown as what the waiting ones reach of the others.
pub fn rows(runtime: &Runtime, settings: &Settings) -> Result<Vec<Comparison>> {
    let cluster = RedisCluster::start_with(&SERVER)?;
    let names = Arc::new(Names::of(ENTRIES)?);
    let config = RedisConfig::from_url(cluster.url())?;
    let both = [config.clone().with_wait_for_replicas(1), config];
    let mut works = Vec::new();
    for config in both {
        let store = runtime.block_on(RedisStore::open(&ExecutionContext::new(), config))?;
        works.push(put(Arc::new(store), &names));
    }
    let mut rows = Vec::new();
    for callers in [1, 16, 64] {
        let settings = callers::settings(settings, callers);
        let case = |work: &Work<Place>| {
            let names = Arc::clone(&names);
            let draw = move |random: &mut fastrand::Rng| Place::anywhere(random, &names);
            callers::case(runtime, callers, draw, Arc::clone(work))
        };
        let mut cases: Vec<_> = works.iter().map(case).collect();
        let [waiting, other] = exactly(interleave(&settings, &mut cases)?)?;
        let operation = format!("put, wait_replicas=1, {}", callers::count(callers));
        rows.push(Comparison::new(REDIS, operation, &waiting, OTHER, other));
    }
    Ok(rows)
}

fn put(store: Arc<dyn EntryStore<Bytes>>, names: &Arc<Names>) -> Work<Place> {
    let names = Arc::clone(names);
    work(move |place: Place| {
        let (store, names) = (Arc::clone(&store), Arc::clone(&names));
        async move {
            let (ns, key) = (&names.namespaces[place.namespace], &names.keys[place.key]);
            Ok(store.put(&ExecutionContext::new(), ns, key, encoded()).await?)
        }
    })
}
