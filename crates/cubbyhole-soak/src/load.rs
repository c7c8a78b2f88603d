//! The callers of one store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cubbyhole::{
    Backend, Batch, Bytes, Clock, Condition, Error, ExecutionContext, PutOptions, Result,
    SystemClock, Timestamp,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::tally::{Kind, Tally};
use crate::{Known, Place, Population, Wrong, value};

/// The deadline of a call that is not meant to be cut off. Nothing should take nearly as long.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Expiries of mortal entries: some pass before the next sweep, some between two.
const MORTAL_MILLIS: std::ops::Range<u64> = 50..3_000;
/// The longest value.
const MAX_VALUE_BYTES: usize = 64 * 1024;

/// The callers of one store, and what they counted.
#[derive(Clone)]
pub struct Load {
    store: Arc<dyn Backend>,
    population: Arc<Population>,
    tally: Arc<Mutex<Tally>>,
    /// Those that make no calls now.
    callers: Arc<Mutex<Vec<Caller>>>,
    seed: u64,
    pause: Duration,
}

impl Load {
    /// Callers of `store`, which should be empty. Each waits for `pause` between two calls: a store
    /// in memory takes a processor for itself otherwise.
    ///
    /// # Errors
    /// As [`Population::new`].
    pub fn new(
        store: Arc<dyn Backend>,
        callers: usize,
        seed: u64,
        pause: Duration,
    ) -> Result<Self> {
        let population = Arc::new(Population::new(callers)?);
        let tally = Arc::default();
        let caller = |number: usize| Caller {
            store: Arc::clone(&store),
            population: Arc::clone(&population),
            tally: Arc::clone(&tally),
            number,
            random: fastrand::Rng::with_seed(seed.wrapping_add(1 + number as u64)),
            own: HashMap::new(),
        };
        let callers = Arc::new(Mutex::new((0..callers).map(caller).collect()));
        Ok(Self { store, population, tally, callers, seed, pause })
    }

    /// What was counted so far.
    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names.
    #[must_use]
    pub fn population(&self) -> &Population {
        &self.population
    }

    /// The store.
    pub(crate) fn store(&self) -> &Arc<dyn Backend> {
        &self.store
    }

    /// Writes every shared entry once, so that the load begins where it will stay: what is measured
    /// later does not grow because the store was empty.
    ///
    /// # Errors
    /// What the store meets.
    pub async fn fill(&self, ctx: &ExecutionContext) -> Result<()> {
        let mut random = fastrand::Rng::with_seed(self.seed);
        for (number, namespace) in self.population.namespaces().iter().enumerate() {
            let mut batch = Batch::new();
            for key in 0..Population::KEYS {
                let place = Place { namespace: number as u16, key: key as u16 };
                let (value, options) = any_value(&self.population, place, &mut random)?;
                batch =
                    batch.put_with(self.population.key(place), value, options, Condition::Always);
            }
            self.store.write(ctx, namespace, batch).await?;
        }
        Ok(())
    }

    /// Calls until `stop` ends, or until each caller has made `calls`. The callers of a run after
    /// this one know what they wrote in this one; two runs at a time share the callers.
    pub async fn run(&self, stop: &ExecutionContext, calls: u64) {
        let mut callers = JoinSet::new();
        for mut caller in std::mem::take(&mut *self.idle()) {
            let (stop, pause) = (stop.clone(), self.pause);
            callers.spawn(async move {
                for _ in 0..calls {
                    if stop.check().is_err() {
                        break;
                    }
                    let kind = Kind::draw(&mut caller.random);
                    caller.call(kind).await;
                    // A store that never waits would keep the others from running.
                    tokio::task::yield_now().await;
                    if !pause.is_zero() && stop.sleep(pause).await.is_err() {
                        break;
                    }
                }
                caller
            });
        }
        while let Some(ended) = callers.join_next().await {
            match ended {
                Ok(caller) => self.idle().push(caller),
                Err(error) => {
                    let error = Error::internal(format!("a caller ended: {error}"));
                    self.tally().side_error("the load", &error);
                }
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Caller>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a call has nothing to check, or what it found.
pub(crate) enum Stop {
    Error(Error),
    Wrong(Wrong),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Wrong> for Stop {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

/// Who makes one call after the other.
pub(crate) struct Caller {
    pub(crate) store: Arc<dyn Backend>,
    pub(crate) population: Arc<Population>,
    tally: Arc<Mutex<Tally>>,
    pub(crate) number: usize,
    pub(crate) random: fastrand::Rng,
    /// What is known of the entries that belong to this caller: as many as there are namespaces.
    pub(crate) own: HashMap<Place, Known>,
}

impl Caller {
    async fn call(&mut self, kind: Kind) {
        let began = Instant::now();
        let ctx = ExecutionContext::new().with_timeout(CALL_TIMEOUT);
        let answer = self.make(kind, &ctx).await;
        let took = began.elapsed();
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.call(kind, took);
        match answer {
            Ok(()) => {}
            Err(Stop::Error(error)) => tally.error(kind, &error),
            Err(Stop::Wrong(wrong)) => tally.wrong(kind, &wrong),
        }
    }

    /// A value for `place` and how it is to be put there.
    pub(crate) fn any_value(&mut self, place: Place) -> Result<(Bytes, PutOptions)> {
        any_value(&self.population, place, &mut self.random)
    }

    /// Checks a value that a call which began at `began` read at `place`.
    pub(crate) fn check(
        &self,
        place: Place,
        value: &[u8],
        began: Timestamp,
    ) -> std::result::Result<u16, Wrong> {
        value::check(&self.population, place, value, began)
    }
}

/// What the clock of this machine shows.
pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

fn any_value(
    population: &Population,
    place: Place,
    random: &mut fastrand::Rng,
) -> Result<(Bytes, PutOptions)> {
    let serial = random.u16(..);
    let length = any_length(random);
    if !population.is_mortal(place) {
        return Ok((value::make(place, serial, None, length), PutOptions::new()));
    }
    let expires_at = now().checked_add(Duration::from_millis(random.u64(MORTAL_MILLIS)))?;
    let value = value::make(place, serial, Some(expires_at), length);
    Ok((value, PutOptions::new().with_expires_at(expires_at)))
}

/// Mostly small: 85 of a hundred up to 200 bytes, 13 up to 4 KiB, 2 up to 64 KiB.
pub(crate) fn any_length(random: &mut fastrand::Rng) -> usize {
    match random.u32(..100) {
        0..85 => random.usize(10..=200),
        85..98 => random.usize(200..=4096),
        _ => random.usize(4096..=MAX_VALUE_BYTES),
    }
}
