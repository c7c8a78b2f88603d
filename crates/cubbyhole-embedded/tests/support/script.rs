//! A load that is drawn from a seed, and what must be there after a crash in the middle of it.
//!
//! Each task has keys of its own and makes one call after the other, so that what was acknowledged
//! says what is stored, but for the one call that was under way: that has taken effect whole or not
//! at all. The tasks meet in the writer's groups.

use std::collections::BTreeMap;
use std::time::Duration;

use cubbyhole_core::{
    Batch, Bytes, Condition, EntryStore, Error, ErrorKind, Expiry, Namespace, PutOptions, Result,
    ScanOptions, Store, Version,
};
use cubbyhole_embedded::EmbeddedStore;

use super::ctx;

/// Keys that expire do so after this, and the check waits for longer.
pub(crate) const SHORT: Duration = Duration::from_millis(10);
const LONG: Duration = Duration::from_secs(86_400);
const KEYS: u64 = 12;

/// What is known of an entry. Its expiry is not compared: only whether it ends before the check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot {
    value: Bytes,
    version: Version,
    ends: bool,
}

/// A task's entries: those of its namespace, and those beneath it, which may expire.
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
    /// Neither ends nor begins to: the version stays.
    Touch(String),
    /// So many of the first keys.
    Erase(usize),
    PutExpiring(String, Slot),
    /// Takes away the end, if it has not come yet.
    Persist(String),
    DeleteExpiring(String),
}

/// What a call was answered: whether it had its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    /// A conflict, or nothing was there.
    Refused,
}

/// A task: whose turn it is to draw is nobody's business but its own.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    task: u64,
    random: fastrand::Rng,
    step: u64,
    model: Model,
    next: Option<Call>,
    /// How many of the twenty sorts of calls are made; the last ones are about expiry.
    sorts: u8,
}

impl Script {
    /// The task of that number. Whoever draws from the same seed and the same entries draws the
    /// same calls.
    pub(crate) fn new(seed: u64, task: u64, model: Model) -> Self {
        let random = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ task);
        Self { task, random, step: 0, model, next: None, sorts: 20 }
    }

    /// The same without entries that expire: what there is can be told at any time then.
    pub(crate) fn without_expiry(mut self) -> Self {
        self.sorts = 16;
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

    /// The next call, the same until it is settled.
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
        match self.random.u8(0..self.sorts) {
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
            14 => Call::Touch(kept),
            15 => Call::Erase(self.random.usize(1..=KEYS as usize)),
            16..=17 => Call::PutExpiring(expiring, Slot { ends: self.random.bool(), ..slot }),
            18 => Call::Persist(expiring),
            _ => Call::DeleteExpiring(expiring),
        }
    }

    /// A condition that holds, or one that does not.
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
        Slot { value, version: self.version(number), ends: false }
    }

    /// The version of a write: one of this call's alone.
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

    /// The next call has had that answer.
    ///
    /// # Errors
    /// If it cannot have had it.
    pub(crate) fn settle(&mut self, answer: Answer) -> std::result::Result<(), String> {
        let call = self.next();
        let due = self.model.due(&call);
        if due.is_some_and(|due| due != answer) {
            return Err(format!("task {} step {}: {call:?}: {answer:?}", self.task, self.step));
        }
        self.model.apply(&call, answer);
        self.skip();
        Ok(())
    }

    /// The next call certainly had no effect.
    pub(crate) fn skip(&mut self) {
        self.next = None;
        self.step += 1;
    }

    /// What there may be: everything acknowledged, and the call under way or not.
    pub(crate) fn candidates(&mut self) -> Vec<Model> {
        let call = self.next();
        let mut candidates = vec![self.model.clone()];
        for answer in [Answer::Done, Answer::Refused] {
            if self.model.due(&call).is_none_or(|due| due == answer) {
                let mut model = self.model.clone();
                model.apply(&call, answer);
                candidates.push(model);
            }
        }
        candidates.iter_mut().for_each(Model::drop_ended);
        candidates
    }

    /// The call under way has turned out to have left that.
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
            Self::Touch(key) => done(store.touch(&ctx, &ns, &key, Expiry::After(LONG)).await?),
            Self::Erase(limit) => {
                store.erase(&ctx, &ns.into(), limit).await?;
                Answer::Done
            }
            Self::PutExpiring(key, slot) => {
                let options = slot.options();
                store.put_with_options(&ctx, &expiring, &key, slot.value, options).await?;
                Answer::Done
            }
            Self::Persist(key) => done(store.touch(&ctx, &expiring, &key, Expiry::Never).await?),
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
        if self.ends { options.with_ttl(SHORT) } else { options }
    }
}

impl Model {
    /// What a task has in a store, once everything that ends has ended.
    pub(crate) async fn read(store: &EmbeddedStore, task: u64) -> Result<Self> {
        let kept = read_namespace(store, &Script::namespace(task)).await?;
        let expiring = read_namespace(store, &Script::expiring(task)).await?;
        Ok(Self { kept, expiring })
    }

    /// The answer that is due, where time does not decide it.
    fn due(&self, call: &Call) -> Option<Answer> {
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
            Call::Delete(key) | Call::Take(key) | Call::Touch(key) => self.kept.contains_key(key),
            Call::DeleteIf(key, condition) => holds(key, *condition) && self.kept.contains_key(key),
            Call::Persist(key) => match self.expiring.get(key) {
                Some(slot) if slot.ends => return None,
                slot => slot.is_some(),
            },
            _ => true,
        };
        Some(if done { Answer::Done } else { Answer::Refused })
    }

    fn apply(&mut self, call: &Call, answer: Answer) {
        if answer == Answer::Refused {
            // It was there, and has ended.
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
            Call::Touch(_) => {}
            Call::Erase(limit) => {
                let erased: Vec<_> = self.kept.keys().take(*limit).cloned().collect();
                self.kept.retain(|key, _| !erased.contains(key));
            }
            Call::PutExpiring(key, slot) => {
                self.expiring.insert(key.clone(), slot.clone());
            }
            Call::Persist(key) => {
                if let Some(slot) = self.expiring.get_mut(key) {
                    slot.ends = false;
                }
            }
            Call::DeleteExpiring(key) => {
                self.expiring.remove(key);
            }
        }
    }

    fn drop_ended(&mut self) {
        self.expiring.retain(|_, slot| !slot.ends);
    }

    /// In a few words, for a failed test.
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
        // A page is one thing and a look at a key another.
        assert_eq!(store.get(&ctx(), ns, &item.key).await?.as_ref(), Some(&value));
        slots.insert(item.key, Slot { value, version: item.meta.version, ends: false });
    }
    Ok(slots)
}

/// Waits until everything has ended that ends.
pub(crate) async fn let_short_ttls_end(store: &EmbeddedStore) -> Result<()> {
    // One that is put now ends after all that were put before.
    let (ns, options) = (Namespace::parse("clock").unwrap(), PutOptions::new().with_ttl(SHORT));
    store.put_with_options(&ctx(), &ns, "last", Bytes::new(), options).await?;
    while store.get(&ctx(), &ns, "last").await?.is_some() {
        ctx().sleep(Duration::from_millis(2)).await?;
    }
    Ok(())
}

/// Looks at a store after a crash: what it must hold, its indexes, its counts.
///
/// # Errors
/// What is wrong. Otherwise the entries of each task.
pub(crate) async fn check(
    store: &EmbeddedStore,
    scripts: Vec<Vec<Model>>,
) -> std::result::Result<Vec<Model>, String> {
    let failed = |error: Error| format!("after the crash: {error:?}");
    let mut found = Vec::new();
    let_short_ttls_end(store).await.map_err(failed)?;
    for (task, candidates) in scripts.into_iter().enumerate() {
        let model = Model::read(store, task as u64).await.map_err(failed)?;
        if !candidates.contains(&model) {
            let mut text = format!("task {task} finds\n  {}\nand one of", model.brief());
            for candidate in candidates {
                text += &format!("\n  {}", candidate.brief());
            }
            return Err(text + "\nis due");
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
        return Err(format!("{expired} had expired and {swept} were swept"));
    }
    store.verify(&ctx()).await.map_err(failed)?;
    Ok(found)
}
