//! The candidates: adapters for Cubbyhole, its peers and the bare engines.

pub mod bare_redis;
pub mod entelix;
pub mod group_commit;
pub mod maps;
pub mod openkeyv;
pub mod ours;
pub mod raw_redb;
pub mod sql;
pub mod sqlite;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinSet;

use crate::Result;
use crate::data::Names;

/// Calls `fill` for each namespace, with `in_flight` calls in flight.
pub async fn each_namespace<F>(
    names: &Arc<Names>,
    in_flight: usize,
    fill: impl Fn(usize) -> F + Clone + Send + 'static,
) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut fillers: JoinSet<Result<()>> = JoinSet::new();
    for _ in 0..in_flight {
        let (next, names, fill) = (Arc::clone(&next), Arc::clone(names), fill.clone());
        fillers.spawn(async move {
            loop {
                let namespace = next.fetch_add(1, Ordering::Relaxed);
                if namespace >= names.filled() {
                    return Ok(());
                }
                fill(namespace).await?;
            }
        });
    }
    while let Some(filled) = fillers.join_next().await {
        filled??;
    }
    Ok(())
}
