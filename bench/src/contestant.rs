//! Stores as the workloads see them.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::runtime::Runtime;

use crate::Result;
use crate::data::{KEYS, Names, Place, Value, Values};
use crate::harness::Case;
use crate::workload::{Ability, BATCH, Op, Workload};

/// A store as the workloads see it. Each keeps the names in the form that it takes, and is told
/// places. Answers are counts, which are checked: a store that finds nothing must not look fast.
///
/// The futures are not boxed here, so that a contestant costs what its store costs.
pub trait Contestant: Send + Sync + 'static {
    /// What the methods below that it has are.
    const ABILITIES: &'static [Ability];

    /// The length of the value, if there is one.
    fn get(&self, place: Place) -> impl Future<Output = Result<Option<usize>>> + Send;

    fn put(&self, place: Place, value: &Value) -> impl Future<Output = Result<()>> + Send;

    /// How many keys the namespace has.
    fn list(&self, _namespace: usize) -> impl Future<Output = Result<usize>> + Send {
        unable()
    }

    /// How many namespaces the group has.
    fn list_group(&self, _group: usize) -> impl Future<Output = Result<usize>> + Send {
        unable()
    }

    /// How many namespaces there are.
    fn list_all(&self) -> impl Future<Output = Result<usize>> + Send {
        unable()
    }

    /// How many entries with their values stand from there on, at most so many.
    fn page(&self, _from: Place, _limit: usize) -> impl Future<Output = Result<usize>> + Send {
        unable()
    }

    /// How many expired entries a sweep removed; nothing where the store does not tell.
    fn sweep(&self) -> impl Future<Output = Result<Option<usize>>> + Send {
        unable()
    }

    /// Reads the entry and writes it, unless somebody else has written it in between.
    fn append(&self, _place: Place, _value: &Value) -> impl Future<Output = Result<()>> + Send {
        unable()
    }

    /// Writes the first entries of the namespace, one for each value.
    fn batch(
        &self,
        _namespace: usize,
        _values: [&Value; BATCH],
    ) -> impl Future<Output = Result<()>> + Send {
        unable()
    }
}

async fn unable<T>() -> Result<T> {
    Err("the store has no such operation".into())
}

/// A contestant under a name, with what it holds.
pub struct Entered<C> {
    pub name: &'static str,
    pub store: Arc<C>,
    pub names: Arc<Names>,
    pub values: Arc<Values>,
    /// How many entries were inserted since it was filled.
    inserted: Arc<AtomicUsize>,
}

/// A contestant of any type.
pub trait Entrant {
    fn name(&self) -> &'static str;

    fn is_able(&self, workload: &Workload) -> bool;

    /// So many callers, each of which makes one operation after the other.
    fn case<'a>(&self, runtime: &'a Runtime, workload: Workload, callers: u64) -> Case<'a>;
}

pub type Entrants = Vec<Box<dyn Entrant>>;

impl<C: Contestant> Entered<C> {
    pub fn new(
        name: &'static str,
        store: impl Into<Arc<C>>,
        names: &Arc<Names>,
        values: &Arc<Values>,
    ) -> Self {
        Self {
            name,
            store: store.into(),
            names: Arc::clone(names),
            values: Arc::clone(values),
            inserted: Arc::default(),
        }
    }
}

impl<C> Clone for Entered<C> {
    fn clone(&self) -> Self {
        Self {
            name: self.name,
            store: Arc::clone(&self.store),
            names: Arc::clone(&self.names),
            values: Arc::clone(&self.values),
            inserted: Arc::clone(&self.inserted),
        }
    }
}

impl<C: Contestant> Entrant for Entered<C> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_able(&self, workload: &Workload) -> bool {
        workload.is_for(C::ABILITIES)
    }

    fn case<'a>(&self, runtime: &'a Runtime, workload: Workload, callers: u64) -> Case<'a> {
        let entered = self.clone();
        let mut turn = 0;
        Case::new(move |count, latencies| {
            turn += 1;
            let seed = |caller| turn * callers + caller;
            let draw = |caller| workload.operations(&entered.names, count, seed(caller));
            let is_timed = latencies.is_some();
            if callers == 1 {
                let (took, timed) = runtime.block_on(entered.perform(draw(0)?, 1, is_timed))?;
                return done(took, [timed], latencies);
            }
            let drawn = (0..callers).map(draw).collect::<Result<Vec<_>>>()?;
            let start = Instant::now();
            let timed = runtime.block_on(async {
                let perform = |operations| {
                    let entered = entered.clone();
                    tokio::spawn(async move {
                        entered.perform(operations, callers as usize, is_timed).await
                    })
                };
                let mut timed = Vec::new();
                for caller in drawn.into_iter().map(perform).collect::<Vec<_>>() {
                    timed.push(caller.await??.1);
                }
                Result::<_>::Ok(timed)
            })?;
            // From one operation to the next, whoever made them.
            done(start.elapsed() / callers as u32, timed, latencies)
        })
    }
}

fn done(
    took: Duration,
    timed: impl IntoIterator<Item = Vec<Duration>>,
    latencies: Option<&mut Histogram<u64>>,
) -> Result<Duration> {
    if let Some(histogram) = latencies {
        for time in timed.into_iter().flatten() {
            histogram.record(time.as_nanos() as u64)?;
        }
    }
    Ok(took)
}

impl<C: Contestant> Entered<C> {
    /// One caller's operations; how long they took, and each of them if asked for.
    async fn perform(
        &self,
        operations: Vec<Op>,
        callers: usize,
        is_timed: bool,
    ) -> Result<(Duration, Vec<Duration>)> {
        let mut timed = Vec::with_capacity(if is_timed { operations.len() } else { 0 });
        let mut missed = 0;
        let start = Instant::now();
        if is_timed {
            for (index, op) in operations.iter().enumerate() {
                let start = Instant::now();
                missed += usize::from(!self.perform_one(*op, index, callers).await?);
                timed.push(start.elapsed());
            }
        } else {
            for (index, op) in operations.iter().enumerate() {
                missed += usize::from(!self.perform_one(*op, index, callers).await?);
            }
        }
        let took = start.elapsed();
        // One of the latest may be about to be inserted still.
        if missed * 10 > operations.len().max(100) {
            return Err(format!("{}: {missed} of {} not found", self.name, operations.len()).into());
        }
        Ok((took, timed))
    }

    /// Whether it found what it looked for.
    async fn perform_one(&self, op: Op, index: usize, callers: usize) -> Result<bool> {
        let (store, value) = (&self.store, self.values.nth(index));
        match op {
            Op::Get(place) => {
                self.whole(op, store.get(place).await?.unwrap_or(0), self.values.bytes())?;
            }
            Op::Put(place) => store.put(place, value).await?,
            Op::Insert => {
                let place = self.inserted_at(self.inserted.fetch_add(1, Ordering::Relaxed));
                store.put(place, value).await?;
            }
            Op::GetLatest(age) => {
                // Without those that the callers may be inserting at the moment.
                let inserted = self.inserted.load(Ordering::Relaxed).saturating_sub(callers);
                // Before the first insert the latest are the last that were filled in.
                let place = match inserted.checked_sub(1 + age) {
                    Some(index) => self.inserted_at(index),
                    None => Place::nth(self.names.entries() - 1 - (age - inserted)),
                };
                return Ok(store.get(place).await?.is_some());
            }
            Op::GetAndPut(place) => {
                self.whole(op, store.get(place).await?.unwrap_or(0), self.values.bytes())?;
                store.put(place, value).await?;
            }
            Op::Page(from, limit) => {
                let expected = limit.min(KEYS - from.key);
                let found = store.page(from, limit).await?;
                self.whole(op, found.min(expected), expected)?;
            }
            Op::List(namespace) => self.whole(op, store.list(namespace).await?, KEYS)?,
            Op::ListGroup(group) => {
                let expected = crate::data::NAMESPACES_OF_A_GROUP;
                self.whole(op, store.list_group(group).await?, expected)?;
            }
            Op::ListAll => {
                let found = store.list_all().await?;
                self.whole(op, found.min(self.names.filled()), self.names.filled())?;
            }
            Op::Sweep => self.whole(op, store.sweep().await?.unwrap_or(0), 0)?,
            Op::Append(place) => store.append(place, value).await?,
            Op::Batch(namespace) => {
                let values = std::array::from_fn(|offset| self.values.nth(index + offset));
                store.batch(namespace, values).await?;
            }
        }
        Ok(true)
    }

    /// Where the insert with that number goes: behind what is filled, and over again when the names
    /// come to an end, so that a store does not grow without bound.
    fn inserted_at(&self, number: usize) -> Place {
        let base = self.names.entries();
        Place::nth(base + number % base)
    }

    fn whole(&self, op: Op, found: usize, expected: usize) -> Result<()> {
        if found == expected {
            return Ok(());
        }
        Err(format!("{}: {found} in place of {expected} for {op:?}", self.name).into())
    }
}
