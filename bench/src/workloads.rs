//! What is done to a contestant.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cubbyhole::Bytes;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::Result;
use crate::contestant::Contestant;
use crate::data::{self, KEYS, NAMESPACES_OF_A_TENANT, Place, VALUE_BYTES};
use crate::harness::Case;

/// A read by one caller, at a random place each time.
#[derive(Debug, Clone, Copy)]
pub enum Read {
    Get,
    List,
    ListNamespaces,
    Scan,
    Sweep,
}

impl Read {
    pub const ALL: [Self; 5] =
        [Self::Get, Self::List, Self::ListNamespaces, Self::Scan, Self::Sweep];

    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list a namespace of 100 keys",
            Self::ListNamespaces => "list_namespaces of a tenant of 10",
            Self::Scan => "scan a page of 100 with values",
            Self::Sweep => "evict_expired, nothing to remove",
        }
    }

    /// This read in so many of the tenants.
    pub fn case<'a, C: Contestant>(
        self,
        runtime: &'a Runtime,
        contestant: &'a C,
        tenants: usize,
    ) -> Case<'a> {
        let mut random = fastrand::Rng::with_seed(42);
        Case::new(move |operations| {
            runtime.block_on(async {
                let start = Instant::now();
                for _ in 0..operations {
                    let place = Place::random(&mut random, contestant.names(), tenants);
                    self.perform(contestant, place).await?;
                }
                Ok(start.elapsed())
            })
        })
    }

    async fn perform<C: Contestant>(self, on: &C, place: Place) -> Result<()> {
        let (answer, expected) = match self {
            Self::Get => (on.get(place).await?.unwrap_or_default(), VALUE_BYTES),
            Self::List => (on.list(place.namespace).await?, KEYS),
            Self::ListNamespaces => {
                (on.list_namespaces(place.tenant()).await?, NAMESPACES_OF_A_TENANT)
            }
            Self::Scan => (on.scan(place.namespace, KEYS).await?, KEYS),
            Self::Sweep => (on.sweep().await?, 0),
        };
        if answer == expected {
            return Ok(());
        }
        Err(format!("{}: {answer} in place of {expected} at {place:?}", self.name()).into())
    }
}

/// Fills the contestant with such values, a batch for each namespace, several in flight.
pub fn load<C: Contestant>(
    runtime: &Runtime,
    contestant: &Arc<C>,
    value: fn(&mut fastrand::Rng) -> Bytes,
) -> Result<Duration> {
    const IN_FLIGHT: u64 = 16;
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let mut loaders = JoinSet::new();
    for loader in 0..IN_FLIGHT {
        let (contestant, next) = (Arc::clone(contestant), Arc::clone(&next));
        let mut random = fastrand::Rng::with_seed(loader);
        let load = async move {
            let names = contestant.names();
            loop {
                let namespace = next.fetch_add(1, Ordering::Relaxed);
                if namespace >= names.namespaces.len() {
                    return Ok(());
                }
                let values = names.keys.iter().map(|_| value(&mut random)).collect();
                contestant.load(namespace, values).await?;
            }
        };
        loaders.spawn_on(load, runtime.handle());
    }
    join(runtime, loaders)?;
    Ok(start.elapsed())
}

/// What the callers of [`put`] did together.
pub struct Puts {
    pub per_second: f64,
    pub per_commit: Option<f64>,
}

/// So many callers put at random places, each one after the other, for about `time`.
pub fn put<C: Contestant>(
    runtime: &Runtime,
    contestant: &Arc<C>,
    callers: u64,
    time: Duration,
) -> Result<Puts> {
    let before = contestant.commits();
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let contestant = Arc::clone(contestant);
        let mut random = fastrand::Rng::with_seed(caller);
        let puts = async move {
            let mut done = 0_u64;
            while start.elapsed() < time {
                let place = Place::anywhere(&mut random, contestant.names());
                contestant.put(place, data::value(&mut random)).await?;
                done += 1;
            }
            Ok(done)
        };
        tasks.spawn_on(puts, runtime.handle());
    }
    let done = join(runtime, tasks)?.into_iter().sum::<u64>() as f64;
    let commits = contestant.commits().zip(before).map(|(after, before)| after - before);
    Ok(Puts {
        per_second: done / start.elapsed().as_secs_f64(),
        per_commit: commits.map(|commits| done / commits as f64),
    })
}

/// The answers of all, or the first error.
fn join<T: 'static>(runtime: &Runtime, mut tasks: JoinSet<Result<T>>) -> Result<Vec<T>> {
    runtime.block_on(async {
        let mut answers = Vec::new();
        while let Some(answer) = tasks.join_next().await {
            answers.push(answer??);
        }
        Ok(answers)
    })
}
