//! Operations by several callers at places anywhere.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use cubbyhole::ExecutionContext;
use entelix_memory::Store as _;
use tokio::runtime::Runtime;

use super::places::Place;
use super::stores::{Ours, Peer, value};
use crate::Result;
use crate::harness::Case;

/// One operation at a place. Boxed alike for all that are compared; beside a round trip it is
/// nothing.
pub type Work = Arc<dyn Fn(Place) -> Doing + Send + Sync>;
type Doing = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// Work as a value, from what performs it.
pub fn work<F>(perform: impl Fn(Place) -> F + Send + Sync + 'static) -> Work
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    Arc::new(move |place| Box::pin(perform(place)))
}

pub fn get(store: &Ours) -> Work {
    let store = Arc::clone(store);
    work(move |place| {
        let store = Arc::clone(&store);
        async move {
            let ctx = ExecutionContext::new();
            found(store.get(&ctx, &place.namespace()?, &place.key()).await?)
        }
    })
}

pub fn put(store: &Ours) -> Work {
    let store = Arc::clone(store);
    work(move |place| {
        let store = Arc::clone(&store);
        async move {
            let ctx = ExecutionContext::new();
            Ok(store.put(&ctx, &place.namespace()?, &place.key(), value()).await?)
        }
    })
}

pub fn peer_get(store: &Peer) -> Work {
    let store = Arc::clone(store);
    work(move |place| {
        let store = Arc::clone(&store);
        async move {
            let ctx = entelix_core::ExecutionContext::new();
            found(store.get(&ctx, &place.peer_namespace(), &place.key()).await?)
        }
    })
}

pub fn peer_put(store: &Peer) -> Work {
    let store = Arc::clone(store);
    work(move |place| {
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

/// So many operations, shared out among callers that each make one after the other. Cases go
/// through the same places, other ones each turn.
pub fn case(runtime: &Runtime, callers: u64, work: Work) -> Case<'_> {
    let mut turn = 0;
    Case::new(move |count| {
        turn += 1;
        let start = Instant::now();
        runtime.block_on(async {
            let mut tasks = Vec::new();
            for caller in 0..callers {
                let work = Arc::clone(&work);
                let mut random = fastrand::Rng::with_seed(turn * callers + caller);
                let share = count / callers + u64::from(caller < count % callers);
                tasks.push(tokio::spawn(async move {
                    for _ in 0..share {
                        work(Place::anywhere(&mut random)).await?;
                    }
                    Result::<()>::Ok(())
                }));
            }
            for task in tasks {
                task.await??;
            }
            Result::<()>::Ok(())
        })?;
        Ok(start.elapsed())
    })
}
