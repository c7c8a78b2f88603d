//! Calls that are cancelled or dropped at random instants.
//!
//! Each key is written by one call only. After the load, the contents of the store show whether the
//! outcome that each call reported is true. Each value names its key, so an answer that belongs to
//! another call is noticed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use cubbyhole_core::{
    Batch, Bytes, Condition, EntryStore, Error, ErrorKind, ExecutionContext, PutOptions,
    ScanOptions, Version,
};
use tokio::task::JoinSet;

use crate::stores::helpers::{PATIENCE, bytes, ctx, ns};

const TASKS: usize = 64;

/// The namespace of the entries. The keys of [`CancelledCalls::prepare`] are `old 0000`,
/// `old 0001`, …
pub const NAMESPACE: &str = "acme";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Put,
    PutIf,
    Write,
    Take,
    Get,
    Scan,
}

/// The effect of a call, as its caller knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The call succeeded.
    Applied,
    /// The error says that the call had no effect.
    None,
    /// The error says that the call may have been applied, or the call was dropped.
    Unknown,
}

/// The calls on one store, and the entries that they find.
pub struct CancelledCalls {
    store: Arc<dyn EntryStore<Bytes>>,
    versions: HashMap<String, Version>,
}

impl CancelledCalls {
    /// Writes the entries of that many calls.
    pub async fn prepare(store: Arc<dyn EntryStore<Bytes>>, calls: usize) -> Arc<Self> {
        for first in (0..calls).step_by(512) {
            let numbers = first..calls.min(first + 512);
            let batch = numbers.fold(Batch::new(), |batch, call| batch.put(key(call), old(call)));
            store.write(&ctx(), &ns(NAMESPACE), batch).await.unwrap();
        }
        let entries = contents(&*store).await;
        let versions = entries.into_iter().map(|(key, (version, _))| (key, version));
        let calls_on = Self { versions: versions.collect(), store };
        assert_eq!(calls_on.versions.len(), calls);
        Arc::new(calls_on)
    }

    /// Makes every call once, and ends most of them within `longest`. Returns the effect that each
    /// call reported.
    pub async fn run(self: &Arc<Self>, longest: Duration) -> Vec<(usize, Effect)> {
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            let (calls, next) = (Arc::clone(self), Arc::clone(&next));
            tasks.spawn(async move {
                let mut effects = Vec::new();
                loop {
                    let call = next.fetch_add(1, SeqCst);
                    if call >= calls.versions.len() {
                        return effects;
                    }
                    effects.push((call, calls.end_early(call, longest).await));
                }
            });
        }
        tokio::time::timeout(PATIENCE * 2, tasks.join_all()).await.unwrap().concat()
    }

    /// Asserts that the reported effects agree with the contents of the store, that each effect
    /// occurred, and that reads still return the entries that no call wrote. Returns how many calls
    /// of unknown effect were applied.
    pub async fn check(&self, effects: &[(usize, Effect)]) -> usize {
        let found = contents(&*self.store).await;
        for effect in [Effect::Applied, Effect::None, Effect::Unknown] {
            let ended = effects.iter().any(|(_, reported)| *reported == effect);
            assert!(ended, "no call ended as {effect:?}");
        }
        assert_eq!(effects.len(), self.versions.len());
        let mut unknown_and_applied = 0;
        for (call, effect) in effects {
            let is_applied = self.check_call(&found, *call, *effect);
            unknown_and_applied += usize::from(is_applied && *effect == Effect::Unknown);
        }
        let mut reads = JoinSet::new();
        for call in (0..effects.len()).filter(|call| operation(*call) == Operation::Get) {
            let store = Arc::clone(&self.store);
            reads.spawn(async move { (call, store.get(&ctx(), &ns(NAMESPACE), &key(call)).await) });
        }
        for (call, answer) in reads.join_all().await {
            assert_eq!(answer.unwrap(), Some(old(call)));
        }
        unknown_and_applied
    }

    /// Returns whether the call was applied.
    fn check_call(
        &self,
        found: &BTreeMap<String, (Version, Bytes)>,
        call: usize,
        effect: Effect,
    ) -> bool {
        let key = key(call);
        let entry = found.get(&key);
        let is_old = entry == Some(&(self.versions[&key], old(call)));
        let has_new_value =
            |key: &str| found.get(key).is_some_and(|(_, value)| *value == written(call));
        let is_new = match operation(call) {
            Operation::Get | Operation::Scan => {
                assert!(is_old, "{key}: a read changed it");
                return false;
            }
            Operation::Take => entry.is_none(),
            Operation::Put => has_new_value(&key),
            Operation::PutIf => entry == Some(&(next_version(call), written(call))),
            Operation::Write => neighbours(call).iter().chain([&key]).all(|key| has_new_value(key)),
        };
        let no_neighbours = neighbours(call).iter().all(|key| !found.contains_key(key));
        let is_whole = is_new || (is_old && no_neighbours);
        assert!(is_whole, "{key} is neither old nor new: {entry:?}");
        let operation = operation(call);
        match effect {
            Effect::Applied => assert!(is_new, "{key}: {operation:?} was acknowledged"),
            Effect::None => assert!(is_old, "{key}: {operation:?} reported no effect"),
            Effect::Unknown => {}
        }
        is_new
    }

    /// Makes a call that completes, is cancelled, reaches its deadline, or is dropped.
    async fn end_early(&self, call: usize, longest: Duration) -> Effect {
        let longest = u64::try_from(longest.as_micros()).unwrap();
        let after = Duration::from_micros(fastrand::u64(0..longest));
        let context = ExecutionContext::new();
        let answer = match fastrand::u8(0..8) {
            0 => self.call(&context, call).await,
            1..=2 => self.call(&context.with_timeout(after), call).await,
            3..=4 => match tokio::time::timeout(after, self.call(&context, call)).await {
                Ok(answer) => answer,
                Err(_) => return Effect::Unknown,
            },
            _ => {
                let unlimited = ctx();
                let (answer, slept) = tokio::join!(self.call(&context, call), async {
                    let slept = unlimited.sleep(after).await;
                    context.cancel();
                    slept
                });
                slept.unwrap();
                answer
            }
        };
        let Err(error) = answer else { return Effect::Applied };
        let kinds = [ErrorKind::Cancelled, ErrorKind::DeadlineExceeded];
        assert!(kinds.contains(&error.kind()), "{error:?}");
        if error.may_have_been_applied() {
            let is_read = matches!(operation(call), Operation::Get | Operation::Scan);
            assert!(!is_read, "a read has no effect: {error:?}");
            return Effect::Unknown;
        }
        Effect::None
    }

    async fn call(&self, context: &ExecutionContext, call: usize) -> Result<(), Error> {
        let (store, name, key) = (&self.store, ns(NAMESPACE), key(call));
        let (options, at) = (PutOptions::new(), Condition::IfVersion(self.versions[&key]));
        match operation(call) {
            Operation::Put => store.put(context, &name, &key, written(call)).await,
            Operation::PutIf => {
                let options = options.with_version(next_version(call));
                store.put_entry(context, &name, &key, written(call), options, at).await.map(drop)
            }
            Operation::Write => {
                let [a, b] = neighbours(call);
                let batch = Batch::new()
                    .put_with(a, written(call), options, Condition::IfAbsent)
                    .put_with(key, written(call), options, at)
                    .put(b, written(call));
                store.write(context, &name, batch).await.map(drop)
            }
            Operation::Take => {
                let taken = store.take(context, &name, &key).await?;
                assert_eq!(taken.unwrap().value, old(call));
                Ok(())
            }
            Operation::Get => {
                assert_eq!(store.get(context, &name, &key).await?, Some(old(call)));
                Ok(())
            }
            Operation::Scan => self.scan(context, call, &key).await,
        }
    }

    /// Scans one entry, and then a page that other calls write to at the same time.
    async fn scan(&self, context: &ExecutionContext, call: usize, key: &str) -> Result<(), Error> {
        let name = ns(NAMESPACE);
        let options = ScanOptions::new().with_prefix(key);
        let [item] = self.store.scan(context, &name, options).await?.items.try_into().unwrap();
        assert_eq!((item.key.as_str(), item.value.unwrap()?), (key, old(call)));
        let options = ScanOptions::new().with_after(key);
        for item in self.store.scan(context, &name, options).await?.items {
            let other = item.key.split(' ').nth(1).unwrap().parse().unwrap();
            assert!(item.key.as_str() > key, "{} is not after {key}", item.key);
            let value = item.value.unwrap()?;
            let is_old = value == old(other) && item.key.starts_with("old");
            assert!(is_old || value == written(other), "half of {}", item.key);
        }
        Ok(())
    }
}

impl std::fmt::Debug for CancelledCalls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let calls = self.versions.len();
        f.debug_struct("CancelledCalls").field("calls", &calls).finish_non_exhaustive()
    }
}

fn operation(call: usize) -> Operation {
    use Operation::{Get, Put, PutIf, Scan, Take, Write};
    [Put, PutIf, Write, Take, Get, Scan][call % 6]
}

fn key(call: usize) -> String {
    format!("old {call:04}")
}

/// The keys that a batch writes in addition to its own.
fn neighbours(call: usize) -> [String; 2] {
    [format!("beside {call} a"), format!("beside {call} b")]
}

fn old(call: usize) -> Bytes {
    bytes(&format!("old {call} {}", "o".repeat(call)))
}

fn written(call: usize) -> Bytes {
    bytes(&format!("new {call} {}", "x".repeat(call)))
}

/// The version that a conditional put writes, which shows that this call was applied.
fn next_version(call: usize) -> Version {
    Version::from_bytes((u128::MAX - call as u128).to_be_bytes())
}

async fn contents(store: &dyn EntryStore<Bytes>) -> BTreeMap<String, (Version, Bytes)> {
    let mut found = BTreeMap::new();
    let mut options = ScanOptions::new().with_limit(1000);
    loop {
        let page = store.scan(&ctx(), &ns(NAMESPACE), options.clone()).await.unwrap();
        for item in page.items {
            found.insert(item.key, (item.meta.version, item.value.unwrap().unwrap()));
        }
        let Some(next) = page.next else { return found };
        options = options.with_after(next);
    }
}
