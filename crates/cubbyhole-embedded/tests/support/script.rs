//! A random load from a seed, and the entries that must exist after a crash during it.
//!
//! Each task has its own keys and makes one call at a time. So the acknowledged calls determine the
//! stored entries, except for the call in flight, which has taken effect completely or not at all.
//! The tasks share the writer's groups.

use std::collections::BTreeMap;
use std::time::Duration;

use cubbyhole_core::{
    Batch, Bytes, Condition, EntryStore, Error, ErrorKind, Expiry, GetOptions, Namespace,
    PutOptions, Result, ScanOptions, Store, Version,
};
use cubbyhole_embedded::EmbeddedStore;

use super::ctx;

/// The TTL of expiring keys. The check waits until it has passed.
pub(crate) const SHORT: Duration = Duration::from_millis(10);
const LONG: Duration = Duration::from_secs(86_400);
const KEYS: u64 = 12;

/// The expected state of an entry. Instead of its expiry, only whether it expires before the check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot {
    value: Bytes,
    version: Version,
    expires: bool,
}

/// The entries of a task, in its namespace for kept entries and its namespace for expiring ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Model {
    kept: BTreeMap<String, Slot>,
    expiring: BTreeMap<String, Slot>,
}

/// One call of a task.
#[derive(Debug, Clone)]
enum Call {
    Put(String, Slot),
    PutIf(String, Slot, Condition),
    Batch(Vec<(String, Option<Slot>)>, Condition),
    Delete(String),
    DeleteIf(String, Condition),
    Take(String),
    /// Sets a long idle TTL. The version does not change.
    Touch(String),
    /// Reads and extends the TTL. The version does not change.
    Extend(String),
    /// Erases this many keys in order.
    Erase(usize),
    /// Deletes this many keys in order.
    DeletePrefix(usize),
    PutExpiring(String, Slot),
    /// Removes the expiry of an entry that has not expired.
    Persist(String),
    DeleteExpiring(String),
}

/// The result of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    /// The condition failed or there was no entry.
    Refused,
}

/// The calls of one task. The random numbers do not depend on other tasks.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    task: u64,
    random: fastrand::Rng,
    step: u64,
    model: Model,
    next: Option<Call>,
    /// The number of kinds of calls to draw from, of 20. The last ones concern expiry.
    kinds: u8,
}

impl Script {
    /// Creates the script of a task. The same seed and entries give the same calls.
    pub(crate) fn new(seed: u64, task: u64, model: Model) -> Self {
        let random = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ task);
        Self { task, random, step: 0, model, next: None, kinds: 20 }
    }

    /// Draws no calls with expiring entries, so the expected entries do not depend on time.
    pub(crate) fn without_expiry(mut self) -> Self {
        self.kinds = 16;
        self
    }

    pub(crate) fn task(&self) -> u64 {
        self.task
    }

    pub(crate) fn step(&self) -> u64 {
        self.step
    }

    pub(crate) fn namespace(task: u64) -> Namespace {
        Namespace::parse(&format!("acme:task-{task}")).unwrap()
    }

    fn expiring(task: u64) -> Namespace {
        Namespace::parse(&format!("other:task-{task}:expiring")).unwrap()
    }

    /// The next call. It stays the same until it is settled.
    fn next(&mut self) -> Call {
        if self.next.is_none() {
            self.next = Some(self.draw());
        }
        self.next.clone().unwrap()
    }

    fn draw(&mut self) -> Call {
        let kept = format!("k{:02}", self.random.u64(0..KEYS));
        let expiring = format!("x{:02}", self.random.u64(0..KEYS));
        let condition = self.condition(&kept);
        let slot = self.slot(0);
        match self.random.u8(0..self.kinds) {
            0..=4 => Call::Put(kept, slot),
            5..=7 => Call::PutIf(kept, slot, condition),
            8..=10 => {
                let first = self.random.u64(0..KEYS);
                let count = self.random.u64(2..=KEYS / 2);
                let item = |n: u64| {
                    let key = format!("k{:02}", (first + n) % KEYS);
                    let slot = (self.random.u8(0..4) != 0).then(|| self.slot(n + 1));
                    (key, slot)
                };
                let items: Vec<_> = (0..count).map(item).collect();
                let condition = self.condition(&items[0].0);
                Call::Batch(items, condition)
            }
            11 => Call::Delete(kept),
            12 => Call::DeleteIf(kept, condition),
            13 => Call::Take(kept),
            14 if self.random.bool() => Call::Extend(kept),
            14 => Call::Touch(kept),
            15 if self.random.bool() => Call::DeletePrefix(self.random.usize(1..=KEYS as usize)),
            15 => Call::Erase(self.random.usize(1..=KEYS as usize)),
            16..=17 => Call::PutExpiring(expiring, Slot { expires: self.random.bool(), ..slot }),
            18 => Call::Persist(expiring),
            _ => Call::DeleteExpiring(expiring),
        }
    }

    /// A condition that holds or fails.
    fn condition(&mut self, key: &str) -> Condition {
        let current = self.model.kept.get(key).map(|slot| slot.version);
        match (self.random.u8(0..4), current) {
            (0, _) => Condition::IfVersion(self.version(1000)),
            (1, _) | (_, None) => Condition::IfAbsent,
            (_, Some(version)) => Condition::IfVersion(version),
        }
    }

    fn slot(&mut self, number: u64) -> Slot {
        let length = match self.random.u8(0..16) {
            0 => self.random.usize(0..40_000),
            1..=3 => self.random.usize(800..1_000),
            _ => self.random.usize(0..100),
        };
        let name = format!("{}-{}-{number} ", self.task, self.step);
        let value = name.bytes().cycle().take(length).collect();
        Slot { value, version: self.version(number), expires: false }
    }

    /// A version that no other write has.
    fn version(&mut self, number: u64) -> Version {
        let high = (self.task << 32 | self.step) ^ self.random.u64(..) << 48;
        Version::from_bytes((u128::from(high) << 64 | u128::from(number)).to_be_bytes())
    }

    /// Makes the next call.
    pub(crate) async fn call(&mut self, store: &EmbeddedStore) -> Result<Answer> {
        let answer = self.next().make(store, self.task).await;
        match answer {
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(Answer::Refused),
            answer => answer,
        }
    }

    /// Applies the answer of the next call to the model. Returns an error if the answer is not
    /// possible.
    pub(crate) fn settle(&mut self, answer: Answer) -> std::result::Result<(), String> {
        let call = self.next();
        let expected = self.model.expected_answer(&call);
        if expected.is_some_and(|expected| expected != answer) {
            return Err(format!("task {} step {}: {call:?}: {answer:?}", self.task, self.step));
        }
        self.model.apply(&call, answer);
        self.skip();
        Ok(())
    }

    /// Continues with the call after the next one.
    pub(crate) fn skip(&mut self) {
        self.next = None;
        self.step += 1;
    }

    /// The possible entries: all acknowledged calls, with and without the call in flight.
    pub(crate) fn candidates(&mut self) -> Vec<Model> {
        let call = self.next();
        let mut candidates = vec![self.model.clone()];
        for answer in [Answer::Done, Answer::Refused] {
            if self.model.expected_answer(&call).is_none_or(|expected| expected == answer) {
                let mut model = self.model.clone();
                model.apply(&call, answer);
                candidates.push(model);
            }
        }
        candidates.iter_mut().for_each(Model::drop_expired);
        candidates
    }

    /// Accepts the entries that the call in flight has left.
    pub(crate) fn resolve(&mut self, model: Model) {
        self.model = model;
        self.skip();
    }
}

impl Call {
    async fn make(self, store: &EmbeddedStore, task: u64) -> Result<Answer> {
        let (ns, expiring, ctx) = (Script::namespace(task), Script::expiring(task), ctx());
        let done = |done: bool| if done { Answer::Done } else { Answer::Refused };
        let always = Condition::Always;
        Ok(match self {
            Self::Put(key, slot) => {
                let options = slot.options();
                store.put_with_options(&ctx, &ns, &key, slot.value, options).await?;
                Answer::Done
            }
            Self::PutIf(key, slot, condition) => {
                let options = slot.options();
                store.put_entry(&ctx, &ns, &key, slot.value, options, condition).await?;
                Answer::Done
            }
            Self::Batch(items, condition) => {
                let mut batch = Batch::new();
                for (number, (key, slot)) in items.into_iter().enumerate() {
                    let condition = if number == 0 { condition } else { always };
                    batch = match slot {
                        Some(slot) => {
                            let options = slot.options();
                            batch.put_with(key, slot.value, options, condition)
                        }
                        None => batch.delete_if(key, condition),
                    };
                }
                store.write(&ctx, &ns, batch).await?;
                Answer::Done
            }
            Self::Delete(key) => done(store.delete_entry(&ctx, &ns, &key, always).await?),
            Self::DeleteIf(key, condition) => {
                done(store.delete_entry(&ctx, &ns, &key, condition).await?)
            }
            Self::Take(key) => done(store.take(&ctx, &ns, &key).await?.is_some()),
            Self::Touch(key) => {
                done(store.touch(&ctx, &ns, &key, Expiry::Idle(LONG), always).await?)
            }
            Self::Extend(key) => {
                let options = GetOptions::new().refreshing().with_extended_ttl(2 * LONG);
                done(store.get_entry(&ctx, &ns, &key, options).await?.is_some())
            }
            Self::DeletePrefix(limit) => {
                store.delete_prefix(&ctx, &ns, "k", limit).await?;
                Answer::Done
            }
            Self::Erase(limit) => {
                store.erase(&ctx, &ns.into(), limit).await?;
                Answer::Done
            }
            Self::PutExpiring(key, slot) => {
                let options = slot.options();
                store.put_with_options(&ctx, &expiring, &key, slot.value, options).await?;
                Answer::Done
            }
            Self::Persist(key) => {
                done(store.touch(&ctx, &expiring, &key, Expiry::Never, always).await?)
            }
            Self::DeleteExpiring(key) => {
                store.delete(&ctx, &expiring, &key).await?;
                Answer::Done
            }
        })
    }
}

impl Slot {
    fn options(&self) -> PutOptions {
        let options = PutOptions::new().with_version(self.version);
        if self.expires { options.with_ttl(SHORT) } else { options }
    }
}

impl Model {
    /// Reads the entries of a task. Entries with a short TTL must have expired.
    pub(crate) async fn read(store: &EmbeddedStore, task: u64) -> Result<Self> {
        let kept = read_namespace(store, &Script::namespace(task)).await?;
        let expiring = read_namespace(store, &Script::expiring(task)).await?;
        Ok(Self { kept, expiring })
    }

    /// The expected answer, or `None` if it depends on time.
    fn expected_answer(&self, call: &Call) -> Option<Answer> {
        let holds = |key: &str, condition: Condition| match condition {
            Condition::IfAbsent => !self.kept.contains_key(key),
            Condition::IfVersion(version) => {
                self.kept.get(key).is_some_and(|slot| slot.version == version)
            }
            _ => true,
        };
        let done = match call {
            Call::PutIf(key, _, condition) => holds(key, *condition),
            Call::Batch(items, condition) => holds(&items[0].0, *condition),
            Call::Delete(key) | Call::Take(key) | Call::Touch(key) | Call::Extend(key) => {
                self.kept.contains_key(key)
            }
            Call::DeleteIf(key, condition) => holds(key, *condition) && self.kept.contains_key(key),
            Call::Persist(key) => match self.expiring.get(key) {
                Some(slot) if slot.expires => return None,
                slot => slot.is_some(),
            },
            _ => true,
        };
        Some(if done { Answer::Done } else { Answer::Refused })
    }

    fn apply(&mut self, call: &Call, answer: Answer) {
        if answer == Answer::Refused {
            // The entry existed and has expired.
            if let Call::Persist(key) = call {
                self.expiring.remove(key);
            }
            return;
        }
        match call {
            Call::Put(key, slot) | Call::PutIf(key, slot, _) => {
                self.kept.insert(key.clone(), slot.clone());
            }
            Call::Batch(items, _) => {
                for (key, slot) in items {
                    match slot {
                        Some(slot) => drop(self.kept.insert(key.clone(), slot.clone())),
                        None => drop(self.kept.remove(key)),
                    }
                }
            }
            Call::Delete(key) | Call::DeleteIf(key, _) | Call::Take(key) => {
                self.kept.remove(key);
            }
            Call::Touch(_) | Call::Extend(_) => {}
            Call::Erase(limit) | Call::DeletePrefix(limit) => {
                let erased: Vec<_> = self.kept.keys().take(*limit).cloned().collect();
                self.kept.retain(|key, _| !erased.contains(key));
            }
            Call::PutExpiring(key, slot) => {
                self.expiring.insert(key.clone(), slot.clone());
            }
            Call::Persist(key) => {
                if let Some(slot) = self.expiring.get_mut(key) {
                    slot.expires = false;
                }
            }
            Call::DeleteExpiring(key) => {
                self.expiring.remove(key);
            }
        }
    }

    fn drop_expired(&mut self) {
        self.expiring.retain(|_, slot| !slot.expires);
    }

    /// A short description for test failures.
    pub(crate) fn brief(&self) -> String {
        let brief = |slots: &BTreeMap<String, Slot>| {
            let slot = |(key, slot): (&String, &Slot)| {
                let start = &slot.value[..slot.value.len().min(12)];
                format!("{key}={:?} ({} bytes)", String::from_utf8_lossy(start), slot.value.len())
            };
            slots.iter().map(slot).collect::<Vec<_>>().join(", ")
        };
        format!("[{}] expiring [{}]", brief(&self.kept), brief(&self.expiring))
    }
}

async fn read_namespace(store: &EmbeddedStore, ns: &Namespace) -> Result<BTreeMap<String, Slot>> {
    let options = ScanOptions::new().with_limit(1000);
    let page = store.scan(&ctx(), ns, options).await?;
    let mut slots = BTreeMap::new();
    for item in page.items {
        let value = item.value.ok_or_else(|| Error::internal("a page without values"))??;
        // A scan and a get must agree.
        assert_eq!(store.get(&ctx(), ns, &item.key).await?.as_ref(), Some(&value));
        slots.insert(item.key, Slot { value, version: item.meta.version, expires: false });
    }
    Ok(slots)
}

/// Waits until all entries with a short TTL have expired.
pub(crate) async fn wait_for_short_ttls(store: &EmbeddedStore) -> Result<()> {
    // An entry that is put now expires after all earlier ones.
    let (ns, options) = (Namespace::parse("clock").unwrap(), PutOptions::new().with_ttl(SHORT));
    store.put_with_options(&ctx(), &ns, "last", Bytes::new(), options).await?;
    while store.get(&ctx(), &ns, "last").await?.is_some() {
        ctx().sleep(Duration::from_millis(2)).await?;
    }
    Ok(())
}

/// Checks the entries, indexes and counts of a store after a crash. Returns the entries of each
/// task, or a description of the first problem.
pub(crate) async fn check(
    store: &EmbeddedStore,
    scripts: Vec<Vec<Model>>,
) -> std::result::Result<Vec<Model>, String> {
    let failed = |error: Error| format!("after the crash: {error:?}");
    let mut found = Vec::new();
    wait_for_short_ttls(store).await.map_err(failed)?;
    for (task, candidates) in scripts.into_iter().enumerate() {
        let model = Model::read(store, task as u64).await.map_err(failed)?;
        if !candidates.contains(&model) {
            let mut text = format!("task {task} found\n  {}\nexpected one of", model.brief());
            for candidate in candidates {
                text += &format!("\n  {}", candidate.brief());
            }
            return Err(text);
        }
        found.push(model);
    }
    let everything = |tenant: &str| Namespace::parse(tenant).unwrap().into();
    let mut expired = 0;
    for tenant in ["acme", "other", "clock"] {
        expired += store.usage(&ctx(), &everything(tenant)).await.map_err(failed)?.expired;
    }
    store.verify(&ctx()).await.map_err(failed)?;
    let swept = store.evict_expired(&ctx()).await.map_err(failed)?;
    if swept as u64 != expired {
        return Err(format!("{expired} entries had expired, but {swept} were swept"));
    }
    store.verify(&ctx()).await.map_err(failed)?;
    Ok(found)
}
