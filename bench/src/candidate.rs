//! The interface between workloads and stores.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::runtime::Runtime;

use crate::Result;
use crate::data::{EntryId, KEYS, Names, Value, Values};
use crate::harness::Case;
use crate::workload::{Ability, BATCH, Op, Workload};

/// A store under test. Entries are addressed by `EntryId`; each candidate converts the id to the
/// names that its store takes. Methods return counts, which are checked: a store that finds nothing
/// would look fast.
///
/// The futures are not boxed, so the adapter adds no cost to the store.
pub trait Candidate: Send + Sync + 'static {
    /// The methods that the store supports.
    const ABILITIES: &'static [Ability];

    /// Returns the length of the value, if the entry exists.
    fn get(&self, id: EntryId) -> impl Future<Output = Result<Option<usize>>> + Send;

    fn put(&self, id: EntryId, value: &Value) -> impl Future<Output = Result<()>> + Send;

    /// Returns the number of keys in the namespace.
    fn list(&self, _namespace: usize) -> impl Future<Output = Result<usize>> + Send {
        unsupported()
    }

    /// Returns the number of namespaces in the group.
    fn list_group(&self, _group: usize) -> impl Future<Output = Result<usize>> + Send {
        unsupported()
    }

    /// Returns the number of namespaces.
    fn list_all(&self) -> impl Future<Output = Result<usize>> + Send {
        unsupported()
    }

    /// Reads at most `limit` entries with their values, from `from` on. Returns their number.
    fn page(&self, _from: EntryId, _limit: usize) -> impl Future<Output = Result<usize>> + Send {
        unsupported()
    }

    /// Sweeps and returns the number of removed entries, or `None` if the store does not report it.
    fn sweep(&self) -> impl Future<Output = Result<Option<usize>>> + Send {
        unsupported()
    }

    /// Reads the entry and writes it if it is unchanged; repeats after a conflict.
    fn append(&self, _id: EntryId, _value: &Value) -> impl Future<Output = Result<()>> + Send {
        unsupported()
    }

    /// Writes the first entries of the namespace, one per value.
    fn batch(
        &self,
        _namespace: usize,
        _values: [&Value; BATCH],
    ) -> impl Future<Output = Result<()>> + Send {
        unsupported()
    }
}

async fn unsupported<T>() -> Result<T> {
    Err("the store does not support this operation".into())
}

/// A candidate with its name and the names and values of its entries.
pub struct NamedCandidate<C> {
    pub name: &'static str,
    pub store: Arc<C>,
    pub names: Arc<Names>,
    pub values: Arc<Values>,
    /// The number of entries inserted since the store was filled.
    inserted: Arc<AtomicUsize>,
}

/// A candidate of any type.
pub trait AnyCandidate {
    fn name(&self) -> &'static str;

    fn supports(&self, workload: &Workload) -> bool;

    /// Creates a case with the given number of callers. Each caller runs one operation after the
    /// other.
    fn case<'a>(&self, runtime: &'a Runtime, workload: Workload, callers: u64) -> Case<'a>;
}

pub type Candidates = Vec<Box<dyn AnyCandidate>>;

impl<C: Candidate> NamedCandidate<C> {
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

impl<C> Clone for NamedCandidate<C> {
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

impl<C: Candidate> AnyCandidate for NamedCandidate<C> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn supports(&self, workload: &Workload) -> bool {
        workload.is_supported_by(C::ABILITIES)
    }

    fn case<'a>(&self, runtime: &'a Runtime, workload: Workload, callers: u64) -> Case<'a> {
        let candidate = self.clone();
        let mut turn = 0;
        Case::new(move |count, latencies| {
            turn += 1;
            let seed = |caller| turn * callers + caller;
            let operations = |caller| workload.operations(&candidate.names, count, seed(caller));
            let is_timed = latencies.is_some();
            if callers == 1 {
                let (took, timed) =
                    runtime.block_on(candidate.perform(operations(0)?, 1, is_timed))?;
                return record(took, [timed], latencies);
            }
            let per_caller = (0..callers).map(operations).collect::<Result<Vec<_>>>()?;
            let start = Instant::now();
            let timed = runtime.block_on(async {
                let perform = |operations| {
                    let candidate = candidate.clone();
                    tokio::spawn(async move {
                        candidate.perform(operations, callers as usize, is_timed).await
                    })
                };
                let mut timed = Vec::new();
                for caller in per_caller.into_iter().map(perform).collect::<Vec<_>>() {
                    timed.push(caller.await??.1);
                }
                Result::<_>::Ok(timed)
            })?;
            // The time between two consecutive completions, regardless of the caller.
            record(start.elapsed() / callers as u32, timed, latencies)
        })
    }
}

/// Records the times of single operations and returns the total time.
fn record(
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

impl<C: Candidate> NamedCandidate<C> {
    /// Runs the operations of one caller. Returns the total time and, if `is_timed`, the time of
    /// each operation.
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
        // A few misses are normal: the insert of a latest entry can still be in flight.
        if missed * 10 > operations.len().max(100) {
            return Err(format!("{}: {missed} of {} not found", self.name, operations.len()).into());
        }
        Ok((took, timed))
    }

    /// Runs one operation. Returns whether the entry was found.
    async fn perform_one(&self, op: Op, index: usize, callers: usize) -> Result<bool> {
        let (store, value) = (&self.store, self.values.nth(index));
        match op {
            Op::Get(id) => {
                self.expect(op, store.get(id).await?.unwrap_or(0), self.values.bytes())?;
            }
            Op::Put(id) => store.put(id, value).await?,
            Op::Insert => {
                let id = self.inserted_entry(self.inserted.fetch_add(1, Ordering::Relaxed));
                store.put(id, value).await?;
            }
            Op::GetLatest(age) => {
                // Ignores inserts that can still be in flight.
                let inserted = self.inserted.load(Ordering::Relaxed).saturating_sub(callers);
                // Before the first insert, the latest entries are the last filled ones.
                let id = match inserted.checked_sub(1 + age) {
                    Some(index) => self.inserted_entry(index),
                    None => EntryId::nth(self.names.entries() - 1 - (age - inserted)),
                };
                return Ok(store.get(id).await?.is_some());
            }
            Op::GetAndPut(id) => {
                self.expect(op, store.get(id).await?.unwrap_or(0), self.values.bytes())?;
                store.put(id, value).await?;
            }
            Op::Page(from, limit) => {
                let expected = limit.min(KEYS - from.key);
                let found = store.page(from, limit).await?;
                self.expect(op, found.min(expected), expected)?;
            }
            Op::List(namespace) => self.expect(op, store.list(namespace).await?, KEYS)?,
            Op::ListGroup(group) => {
                let expected = crate::data::NAMESPACES_OF_A_GROUP;
                self.expect(op, store.list_group(group).await?, expected)?;
            }
            Op::ListAll => {
                let found = store.list_all().await?;
                self.expect(op, found.min(self.names.filled()), self.names.filled())?;
            }
            Op::Sweep => self.expect(op, store.sweep().await?.unwrap_or(0), 0)?,
            Op::Append(id) => store.append(id, value).await?,
            Op::Batch(namespace) => {
                let values = std::array::from_fn(|offset| self.values.nth(index + offset));
                store.batch(namespace, values).await?;
            }
        }
        Ok(true)
    }

    /// The entry of the insert with this number. Inserts go behind the filled entries and wrap
    /// around at the end of the names, so a store does not grow without bound.
    fn inserted_entry(&self, number: usize) -> EntryId {
        let base = self.names.entries();
        EntryId::nth(base + number % base)
    }

    /// Fails if a store returned another count than expected.
    fn expect(&self, op: Op, found: usize, expected: usize) -> Result<()> {
        if found == expected {
            return Ok(());
        }
        Err(format!("{}: {op:?} returned {found}, expected {expected}", self.name).into())
    }
}
