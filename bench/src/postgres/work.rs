//! Operations by several callers at places anywhere.

use std::sync::Arc;

use cubbyhole::ExecutionContext;
use entelix_memory::Store as _;
use tokio::runtime::Runtime;

use super::places::Place;
use super::stores::{Ours, Peer, value};
use crate::harness::Case;
use crate::{Result, callers};

pub use crate::callers::work;

pub type Work = callers::Work<Place>;

pub fn get(store: &Ours) -> Work {
    let store = Arc::clone(store);
    work(move |place: Place| {
        let store = Arc::clone(&store);
        async move {
            let ctx = ExecutionContext::new();
            found(store.get(&ctx, &place.namespace()?, &place.key()).await?)
        }
    })
}

pub fn put(store: &Ours) -> Work {
    let store = Arc::clone(store);
    work(move |place: Place| {
        let store = Arc::clone(&store);
        async move {
            let ctx = ExecutionContext::new();
            Ok(store.put(&ctx, &place.namespace()?, &place.key(), value()).await?)
        }
    })
}

pub fn peer_get(store: &Peer) -> Work {
    let store = Arc::clone(store);
    work(move |place: Place| {
        let store = Arc::clone(&store);
        async move {
            let ctx = entelix_core::ExecutionContext::new();
            found(store.get(&ctx, &place.peer_namespace(), &place.key()).await?)
        }
    })
}

pub fn peer_put(store: &Peer) -> Work {
    let store = Arc::clone(store);
    work(move |place: Place| {
        let store = Arc::clone(&store);
        async move {
            let ctx = entelix_core::ExecutionContext::new();
            Ok(store.put(&ctx, &place.peer_namespace(), &place.key(), value()).await?)
        }
    })
}

/// A store that finds nothing must not look fast.
fn found(value: Option<String>) -> Result<()> {
    value.map(drop).ok_or_else(|| "an entry is not there".into())
}

/// Callers at places anywhere.
pub fn case(runtime: &Runtime, callers: u32, work: Work) -> Case<'_> {
    callers::case(runtime, callers, Place::anywhere, work)
}
