//! How much memory the server takes for an entry: the store's, and its keys and values alone.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{cmd, pipe};
use cubbyhole::{Batch, Bytes, Condition, EntryStore, ExecutionContext, Namespace, PutOptions};
use cubbyhole_redis::{DEFAULT_PREFIX, RedisStore};
use cubbyhole_test_servers::RedisServer;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::Scale;
use super::contestants::{self, encoded};
use crate::data::NAMESPACES_OF_A_TENANT;
use crate::report::Size;
use crate::{REDIS, Result};

const PER_NAMESPACE: [usize; 3] = [1, 100, 10_000];
const TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// How many entries are written at once.
const STEP: usize = 1000;
const IN_FLIGHT: usize = 64;

/// Entries that lie so.
#[derive(Clone, Copy)]
struct Shape {
    entries: usize,
    per_namespace: usize,
    expires: bool,
}

impl Shape {
    fn namespaces(self) -> usize {
        self.entries.div_ceil(self.per_namespace)
    }

    fn namespace(index: usize) -> Result<Namespace> {
        let tenant = format!("tenant-{:05}", index / NAMESPACES_OF_A_TENANT);
        let agent = format!("agent-{}", index % NAMESPACES_OF_A_TENANT);
        Ok(Namespace::from_parts(&tenant, [agent])?)
    }

    /// The keys of a namespace, of 16 bytes each, in steps.
    fn keys(self, index: usize) -> Vec<Vec<String>> {
        let count = self.per_namespace.min(self.entries - index * self.per_namespace);
        let keys: Vec<String> = (0..count).map(|key| format!("message-{key:08}")).collect();
        keys.chunks(STEP).map(<[String]>::to_vec).collect()
    }
}

pub fn rows(runtime: &Runtime, scale: &Scale) -> Result<Vec<Size>> {
    let server = contestants::server()?;
    let store: Arc<RedisStore> =
        Arc::new(runtime.block_on(contestants::open(server.url(), DEFAULT_PREFIX))?);
    let bare = runtime.block_on(contestants::bare(server.url()))?;
    let mut rows = Vec::new();
    // Once for nothing, so that the scripts are loaded and the buffers are there.
    runtime.block_on(fill(&store, Shape { entries: 1000, per_namespace: 1, expires: true }))?;
    for per_namespace in PER_NAMESPACE {
        for expires in [false, true] {
            let shape = Shape { entries: scale.sized, per_namespace, expires };
            let [ours, bare] = [
                measure(&server, scale, || runtime.block_on(fill(&store, shape)))?,
                measure(&server, scale, || runtime.block_on(fill_bare(&bare, shape)))?,
            ];
            let ttl = if expires { ", with TTL" } else { "" };
            let what = format!("keys of 16, values of 256, {per_namespace} together{ttl}");
            rows.push(Size { store: REDIS, what, ours, bare });
        }
    }
    Ok(rows)
}

/// What each entry adds to an empty server.
fn measure(server: &RedisServer, scale: &Scale, fill: impl FnOnce() -> Result<()>) -> Result<f64> {
    let used = || -> Result<f64> {
        thread::sleep(scale.settling);
        Ok(contestants::info(server, "memory", "used_memory")?.parse()?)
    };
    server.cli(&["FLUSHALL"])?;
    let before = used()?;
    fill()?;
    Ok((used()? - before) / scale.sized as f64)
}

async fn fill(store: &Arc<RedisStore>, shape: Shape) -> Result<()> {
    let mut filling = JoinSet::new();
    for index in 0..shape.namespaces() {
        let (store, ns) = (Arc::clone(store), Shape::namespace(index)?);
        filling.spawn(async move {
            for keys in shape.keys(index) {
                let put = |batch: Batch<Bytes>, key: String| {
                    let options = PutOptions::new();
                    let options = if shape.expires { options.with_ttl(TTL) } else { options };
                    batch.put_with(key, encoded(), options, Condition::Always)
                };
                let batch = keys.into_iter().fold(Batch::new(), put);
                store.write(&ExecutionContext::new(), &ns, batch).await?;
            }
            Result::<()>::Ok(())
        });
        if filling.len() >= IN_FLIGHT
            && let Some(done) = filling.join_next().await
        {
            done??;
        }
    }
    while let Some(done) = filling.join_next().await {
        done??;
    }
    Ok(())
}

/// The same names and values, and nothing else.
async fn fill_bare(bare: &MultiplexedConnection, shape: Shape) -> Result<()> {
    let mut sets = pipe();
    for index in 0..shape.namespaces() {
        let ns = Shape::namespace(index)?;
        for key in shape.keys(index).into_iter().flatten() {
            let name = format!("{DEFAULT_PREFIX}{{{}}}v{key}", ns.as_str());
            let mut set = cmd("SET");
            set.arg(name).arg(&*encoded());
            if shape.expires {
                set.arg("EX").arg(TTL.as_secs());
            }
            sets.add_command(set).ignore();
            if sets.len() == STEP {
                sets.query_async::<()>(&mut bare.clone()).await?;
                sets.clear();
            }
        }
    }
    if !sets.is_empty() {
        sets.query_async::<()>(&mut bare.clone()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_holds_as_many_as_it_says() {
        for per_namespace in PER_NAMESPACE {
            let shape = Shape { entries: 12_345, per_namespace, expires: false };
            let keys = (0..shape.namespaces()).flat_map(|index| shape.keys(index));
            assert_eq!(keys.map(|step| step.len()).sum::<usize>(), shape.entries);
        }
        assert_eq!(Shape::namespace(21).unwrap().as_str(), "tenant-00002:agent-1");
    }
}
