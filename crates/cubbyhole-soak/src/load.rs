//! `Load`: the callers of one store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cubbyhole::{
    Backend, Batch, Bytes, Clock, Condition, Error, ExecutionContext, PutOptions, Result,
    SystemClock, Timestamp,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::counts::{CallKind, Counts};
use crate::{DataSet, EntryId, EntryState, WrongReply, value};

/// The timeout of calls that must not be interrupted. It is much longer than any call takes.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The TTLs of short-lived entries. Some expire before the next sweep, some later.
const SHORT_TTL_MILLIS: std::ops::Range<u64> = 50..3_000;
/// The longest value.
const MAX_VALUE_BYTES: usize = 64 * 1024;

/// The callers of one store, with their counts.
#[derive(Clone)]
pub struct Load {
    store: Arc<dyn Backend>,
    data_set: Arc<DataSet>,
    counts: Arc<Mutex<Counts>>,
    /// The callers that are not running.
    callers: Arc<Mutex<Vec<Caller>>>,
    seed: u64,
    pause: Duration,
}

impl Load {
    /// Creates callers of `store`, which should be empty. Each caller waits for `pause` between
    /// calls. A store that never waits would otherwise use a whole core.
    ///
    /// # Errors
    /// The same errors as [`DataSet::new`].
    pub fn new(
        store: Arc<dyn Backend>,
        callers: usize,
        seed: u64,
        pause: Duration,
    ) -> Result<Self> {
        let data_set = Arc::new(DataSet::new(callers)?);
        let counts = Arc::default();
        let caller = |number: usize| Caller {
            store: Arc::clone(&store),
            data_set: Arc::clone(&data_set),
            counts: Arc::clone(&counts),
            number,
            random: fastrand::Rng::with_seed(seed.wrapping_add(1 + number as u64)),
            own_entries: HashMap::new(),
        };
        let callers = Arc::new(Mutex::new((0..callers).map(caller).collect()));
        Ok(Self { store, data_set, counts, callers, seed, pause })
    }

    /// The counts so far.
    pub fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The data set of the load.
    #[must_use]
    pub fn data_set(&self) -> &DataSet {
        &self.data_set
    }

    pub(crate) fn store(&self) -> &Arc<dyn Backend> {
        &self.store
    }

    /// Writes every shared entry once. Without this, measured sizes would grow only because the
    /// store was empty at the start.
    ///
    /// # Errors
    /// The errors of the store.
    pub async fn fill(&self, ctx: &ExecutionContext) -> Result<()> {
        let mut random = fastrand::Rng::with_seed(self.seed);
        for (number, namespace) in self.data_set.namespaces().iter().enumerate() {
            let mut batch = Batch::new();
            for key in 0..DataSet::KEYS {
                let id = EntryId { namespace: number as u16, key: key as u16 };
                let (value, options) = any_value(&self.data_set, id, &mut random)?;
                batch = batch.put_with(self.data_set.key(id), value, options, Condition::Always);
            }
            self.store.write(ctx, namespace, batch).await?;
        }
        Ok(())
    }

    /// Runs all callers until `stop` ends or each has made `calls` calls. Callers remember their
    /// writes for the next run. Concurrent runs share the callers.
    pub async fn run(&self, stop: &ExecutionContext, calls: u64) {
        let mut callers = JoinSet::new();
        for mut caller in std::mem::take(&mut *self.idle()) {
            let (stop, pause) = (stop.clone(), self.pause);
            callers.spawn(async move {
                for _ in 0..calls {
                    if stop.check().is_err() {
                        break;
                    }
                    let kind = CallKind::draw(&mut caller.random);
                    caller.call(kind).await;
                    // Without this, callers of a store that never waits would block the other
                    // tasks.
                    tokio::task::yield_now().await;
                    if !pause.is_zero() && stop.sleep(pause).await.is_err() {
                        break;
                    }
                }
                caller
            });
        }
        while let Some(result) = callers.join_next().await {
            match result {
                Ok(caller) => self.idle().push(caller),
                Err(error) => {
                    let error = Error::internal(format!("a caller panicked: {error}"));
                    self.counts().background_error("the load", &error);
                }
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Caller>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The result of a checked call.
pub(crate) type CallResult<T = ()> = std::result::Result<T, CallFailure>;

/// Why a call failed.
pub(crate) enum CallFailure {
    Error(Error),
    WrongReply(WrongReply),
}

impl From<Error> for CallFailure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<WrongReply> for CallFailure {
    fn from(wrong: WrongReply) -> Self {
        Self::WrongReply(wrong)
    }
}

/// A caller, which makes one call after the other.
pub(crate) struct Caller {
    pub(crate) store: Arc<dyn Backend>,
    pub(crate) data_set: Arc<DataSet>,
    counts: Arc<Mutex<Counts>>,
    pub(crate) number: usize,
    pub(crate) random: fastrand::Rng,
    /// The expected states of the entries that only this caller writes.
    pub(crate) own_entries: HashMap<EntryId, EntryState>,
}

impl Caller {
    async fn call(&mut self, kind: CallKind) {
        let start = Instant::now();
        let ctx = ExecutionContext::new().with_timeout(CALL_TIMEOUT);
        let result = self.make_call(kind, &ctx).await;
        let duration = start.elapsed();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.call(kind, duration);
        match result {
            Ok(()) => {}
            Err(CallFailure::Error(error)) => counts.error(kind, &error),
            Err(CallFailure::WrongReply(wrong)) => counts.wrong(kind, &wrong),
        }
    }

    /// Creates a random value for `id` with its put options.
    pub(crate) fn any_value(&mut self, id: EntryId) -> Result<(Bytes, PutOptions)> {
        any_value(&self.data_set, id, &mut self.random)
    }

    /// Checks a value that a call read at `id`. The call started at `began`.
    pub(crate) fn check(
        &self,
        id: EntryId,
        value: &[u8],
        began: Timestamp,
    ) -> std::result::Result<u16, WrongReply> {
        value::check(&self.data_set, id, value, began)
    }
}

/// The time of this machine.
pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

fn any_value(
    data_set: &DataSet,
    id: EntryId,
    random: &mut fastrand::Rng,
) -> Result<(Bytes, PutOptions)> {
    let serial = random.u16(..);
    let length = any_length(random);
    if !data_set.is_short_lived(id) {
        return Ok((value::make(id, serial, None, length), PutOptions::new()));
    }
    let expires_at = now().checked_add(Duration::from_millis(random.u64(SHORT_TTL_MILLIS)))?;
    let value = value::make(id, serial, Some(expires_at), length);
    Ok((value, PutOptions::new().with_expires_at(expires_at)))
}

/// A random length: 85 % up to 200 bytes, 13 % up to 4 KiB, 2 % up to 64 KiB.
pub(crate) fn any_length(random: &mut fastrand::Rng) -> usize {
    match random.u32(..100) {
        0..85 => random.usize(10..=200),
        85..98 => random.usize(200..=4096),
        _ => random.usize(4096..=MAX_VALUE_BYTES),
    }
}
