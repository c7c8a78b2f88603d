//! A client of a round: it draws random calls, makes them, and records the replies.

use std::sync::atomic::Ordering;
use std::time::Duration;

use cubbyhole_core::limits::MAX_PAGE_ITEMS;
use cubbyhole_core::{
    Batch, Condition, EntryStore, EntryStoreExt, Error, ErrorKind, ExecutionContext, Expiry,
    GetOptions, PutOptions, Result, Version, Written,
};

use super::check::{KEYS, Observation, RecordedCall};
use super::plan::Plan;
use super::progress::Progress;
use super::report::Failure;
use super::round::Round;
use crate::Sample;

/// The names of a round's keys. The last one is the first key of the sequence `c`.
const NAMES: [&str; KEYS] = ["a", "b", "c00000000000000000000"];
/// The names in an explanation.
const LABELS: [&str; KEYS] = ["a", "b", "c"];
/// The prefix of the sequence that clients append to.
const SEQUENCE: &str = "c";
const ABSENT: Observation = Observation::Is(None);
/// A TTL that is longer than any run.
const LONG: Duration = Duration::from_secs(86_400);
/// The pause of a client after a failure.
const PAUSE: Duration = Duration::from_millis(5);

pub(super) struct Client<'a, V: Sample> {
    store: &'a dyn EntryStore<V>,
    plan: &'a Plan,
    round: &'a Round<V>,
    progress: &'a Progress,
    random: fastrand::Rng,
    /// The last write has an unknown outcome. The client reads before it writes again.
    must_read: bool,
}

/// A call before it is made: its text, the required states, and its effect.
struct PlannedCall {
    text: String,
    /// The call reads an entry and extends its TTL.
    extends: bool,
    requires: Vec<(usize, Observation)>,
    writes: Vec<(usize, Option<u64>)>,
}

impl PlannedCall {
    fn new(text: String) -> Self {
        Self { text, extends: false, requires: Vec::new(), writes: Vec::new() }
    }
}

/// A reply, with the logical times of the call and its duration.
struct Timed<T> {
    reply: Result<T>,
    called: u64,
    returned: u64,
    took: Duration,
}

/// The result of a step, for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StepOutcome {
    /// The call is in the history.
    Recorded,
    /// The call certainly had no effect, and is not in the history.
    NoEffect,
}

impl<'a, V: Sample> Client<'a, V> {
    pub(super) fn new(
        store: &'a dyn EntryStore<V>,
        plan: &'a Plan,
        round: &'a Round<V>,
        progress: &'a Progress,
        seed: u64,
    ) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { store, plan, round, progress, random, must_read: false }
    }

    /// Makes one random call.
    pub(super) async fn step(&mut self) -> StepOutcome {
        let ctx = self.context();
        if self.must_read {
            return self.get_many(&ctx).await;
        }
        let key = self.random.usize(..KEYS);
        match self.random.u32(..if self.plan.with_presence { 27 } else { 23 }) {
            0..=3 => self.get(&ctx, key).await,
            4..=5 => self.get_entry(&ctx, key).await,
            6..=7 => self.get_many(&ctx).await,
            8..=10 => self.put(&ctx, key).await,
            11..=15 => self.put_entry(&ctx, key).await,
            16 => self.delete(&ctx, key).await,
            17 => self.delete_at_version(&ctx, key).await,
            18 => self.take(&ctx, key).await,
            19..=20 => self.write(&ctx).await,
            21 => self.delete_prefix(&ctx, key).await,
            22 => self.touch_if(&ctx, key).await,
            23 => self.delete_entry(&ctx, key).await,
            24 => self.touch(&ctx, key).await,
            _ => self.append(&ctx).await,
        }
    }

    /// Reads all keys. Repeats the read until it succeeds or `limit` ends.
    pub(super) async fn read_all_keys(&mut self, limit: &ExecutionContext) -> Result<()> {
        loop {
            let ctx = self.plan.timeout.map_or_else(ExecutionContext::new, |timeout| {
                ExecutionContext::new().with_timeout(timeout)
            });
            if self.get_many(&ctx).await == StepOutcome::Recorded {
                return Ok(());
            }
            limit.sleep(PAUSE).await?;
        }
    }

    fn context(&mut self) -> ExecutionContext {
        let ctx = ExecutionContext::new();
        let ctx = self.plan.timeout.map_or(ctx.clone(), |timeout| ctx.with_timeout(timeout));
        match self.plan.cancellations {
            Some((one_in, within)) if self.random.u32(..one_in) == 0 => {
                ctx.with_timeout(within.mul_f64(self.random.f64()))
            }
            _ => ctx,
        }
    }

    fn options(&mut self, number: u64) -> PutOptions {
        let mut options = PutOptions::new();
        if self.random.bool() {
            options = options.with_expiry(Expiry::After(LONG));
        }
        if self.random.u32(..4) > 0 {
            let version = Version::draw();
            self.round.learn(version, number);
            options = options.with_version(version);
        }
        options
    }

    fn condition(&mut self, key: usize) -> Condition {
        let latest = self.round.shared(|shared| {
            shared.latest[key].filter(|version| shared.by_version.contains_key(version))
        });
        match latest {
            Some(version) if self.random.u32(..3) > 0 => Condition::IfVersion(version),
            _ if self.plan.with_presence && self.random.u32(..4) == 0 => Condition::IfPresent,
            _ => Condition::IfAbsent,
        }
    }

    async fn get(&mut self, ctx: &ExecutionContext, key: usize) -> StepOutcome {
        let planned = PlannedCall::new(format!("get {}", LABELS[key]));
        let round = self.round;
        let call = self.store.get(ctx, &round.ns, NAMES[key]);
        self.read(planned, call, |value| vec![(key, round.observe_value(value.as_ref()))]).await
    }

    async fn get_entry(&mut self, ctx: &ExecutionContext, key: usize) -> StepOutcome {
        let mut options = GetOptions::new();
        let mut planned = PlannedCall::new(format!("get_entry {}", LABELS[key]));
        if self.random.bool() {
            options = options.with_extended_ttl(LONG);
            planned.extends = true;
        }
        let round = self.round;
        let call = self.store.get_entry(ctx, &round.ns, NAMES[key], options);
        self.read(planned, call, |entry| vec![(key, round.observe_entry(key, entry.as_ref()))])
            .await
    }

    async fn get_many(&mut self, ctx: &ExecutionContext) -> StepOutcome {
        let planned = PlannedCall::new("get_many".to_owned());
        let round = self.round;
        let call = async {
            let replies = self.store.get_many(ctx, &round.ns, &NAMES, GetOptions::new()).await?;
            replies.into_iter().collect::<Result<Vec<_>>>()
        };
        let outcome = self
            .read(planned, call, |entries| {
                let keyed = entries.iter().enumerate();
                keyed.map(|(key, entry)| (key, round.observe_entry(key, entry.as_ref()))).collect()
            })
            .await;
        self.must_read &= outcome != StepOutcome::Recorded;
        outcome
    }

    async fn put(&mut self, ctx: &ExecutionContext, key: usize) -> StepOutcome {
        let (number, value) = self.round.new_value();
        let mut planned = PlannedCall::new(format!("put {}={number}", LABELS[key]));
        planned.writes.push((key, Some(number)));
        if self.random.bool() {
            let call = self.store.put(ctx, &self.round.ns, NAMES[key], value);
            return self.change(planned, call, |()| Vec::new()).await;
        }
        let options = self.options(number);
        let call = self.store.put_with_options(ctx, &self.round.ns, NAMES[key], value, options);
        self.change(planned, call, |()| Vec::new()).await
    }

    async fn put_entry(&mut self, ctx: &ExecutionContext, key: usize) -> StepOutcome {
        let (number, value) = self.round.new_value();
        let (options, condition) = (self.options(number), self.condition(key));
        let mut planned =
            PlannedCall::new(format!("put_entry {}={number} {condition:?}", LABELS[key]));
        planned.requires.extend(self.round.required_by(condition).map(|state| (key, state)));
        planned.writes.push((key, Some(number)));
        let round = self.round;
        let call = self.store.put_entry(ctx, &round.ns, NAMES[key], value, options, condition);
        self.change(planned, call, |version| {
            round.learn(version, number);
            Vec::new()
        })
        .await
    }

    async fn delete(&mut self, ctx: &ExecutionContext, key: usize) -> StepOutcome {
        let mut planned = PlannedCall::new(format!("delete {}", LABELS[key]));
        planned.writes.push((key, None));
        let call = self.store.delete(ctx, &self.round.ns, NAMES[key]);
        self.change(planned, call, |()| Vec::new()).await
    }

    async fn delete_entry(&mut self, ctx: &ExecutionContext, key: usize) -> StepOutcome {
        let mut planned = PlannedCall::new(format!("delete_entry {}", LABELS[key]));
        planned.writes.push((key, None));
        let call = self.store.delete_entry(ctx, &self.round.ns, NAMES[key], Condition::Always);
        self.change(planned, call, |found| vec![(key, presence(found))]).await
    }

    async fn delete_at_version(&mut self, ctx: &ExecutionContext, key: usize) -> StepOutcome {
        let condition = self.condition(key);
        let mut planned = PlannedCall::new(format!("delete_entry {} {condition:?}", LABELS[key]));
        planned.requires.extend(self.round.required_by(condition).map(|state| (key, state)));
        planned.writes.push((key, None));
        let call = self.store.delete_entry(ctx, &self.round.ns, NAMES[key], condition);
        self.change(planned, call, |_| Vec::new()).await
    }

    async fn take(&mut self, ctx: &ExecutionContext, key: usize) -> StepOutcome {
        let mut planned = PlannedCall::new(format!("take {}", LABELS[key]));
        planned.writes.push((key, None));
        let round = self.round;
        let call = self.store.take(ctx, &round.ns, NAMES[key]);
        self.change(planned, call, |entry| vec![(key, round.observe_entry(key, entry.as_ref()))])
            .await
    }

    async fn touch(&mut self, ctx: &ExecutionContext, key: usize) -> StepOutcome {
        let expiry = if self.random.bool() { Expiry::Never } else { Expiry::After(LONG) };
        let planned = PlannedCall::new(format!("touch {}", LABELS[key]));
        let call = self.store.touch(ctx, &self.round.ns, NAMES[key], expiry, Condition::Always);
        self.change(planned, call, |found| vec![(key, presence(found))]).await
    }

    async fn touch_if(&mut self, ctx: &ExecutionContext, key: usize) -> StepOutcome {
        let condition = self.condition(key);
        let mut planned = PlannedCall::new(format!("touch {} {condition:?}", LABELS[key]));
        planned.requires.extend(self.round.required_by(condition).map(|state| (key, state)));
        let expiry = Expiry::Idle(LONG);
        let call = self.store.touch(ctx, &self.round.ns, NAMES[key], expiry, condition);
        self.change(planned, call, |_| Vec::new()).await
    }

    /// Deletes one key, or all keys of the round, with `delete_prefix`. A step need not be a snapshot:
    /// it may remove each key at another instant, so it is recorded as one deletion for each key.
    async fn delete_prefix(&mut self, ctx: &ExecutionContext, key: usize) -> StepOutcome {
        let is_single = self.random.u32(..3) > 0;
        let (prefix, keys) = if is_single { (LABELS[key], key..key + 1) } else { ("", 0..KEYS) };
        // Other keys of the sequence have the prefix too, so their number says nothing about `c`.
        let shows_presence = self.plan.with_presence && prefix != SEQUENCE && is_single;
        let call = self.store.delete_prefix(ctx, &self.round.ns, prefix, MAX_PAGE_ITEMS);
        let Timed { reply, called, returned, took } = self.time(call).await;
        self.progress.count(true, reply.is_ok());
        let (returned, observation, error) = match reply {
            Ok(step) if step.removed == 0 => (Some(returned), Some(Observation::Is(None)), None),
            Ok(_) => (Some(returned), shows_presence.then_some(Observation::Present), None),
            Err(error) if error.may_have_been_applied() => (None, None, Some(error)),
            Err(error) => return self.failed(error, took).await,
        };
        for key in keys {
            let mut planned = PlannedCall::new(format!("delete_prefix {prefix:?}"));
            planned.writes.push((key, None));
            let observed = observation.map(|observation| (key, observation)).into_iter().collect();
            self.record(planned, called, returned, observed);
        }
        if let Some(error) = error {
            self.must_read = true;
            self.progress.unknown.fetch_add(1, Ordering::SeqCst);
            self.failed(error, took).await;
        }
        StepOutcome::Recorded
    }

    /// Appends a value to the sequence. The call is in the history if it put the first key, and
    /// then it is a put if absent.
    async fn append(&mut self, ctx: &ExecutionContext) -> StepOutcome {
        let key = KEYS - 1;
        let (number, value) = self.round.new_value();
        let mut planned = PlannedCall::new(format!("append {}={number}", LABELS[key]));
        let options = self.options(number);
        let call = self.store.append(ctx, &self.round.ns, SEQUENCE, vec![value], options);
        let Timed { reply, called, returned, took } = self.time(call).await;
        self.progress.count(true, reply.is_ok());
        match reply {
            Ok(keys) if keys == [NAMES[key]] => {
                planned.requires.push((key, Observation::Is(None)));
                planned.writes.push((key, Some(number)));
                self.record(planned, called, Some(returned), Vec::new());
                StepOutcome::Recorded
            }
            Ok(_) => StepOutcome::NoEffect,
            Err(error) => {
                if error.may_have_been_applied() {
                    let text = format!("an append has an unknown outcome: {error:?}");
                    self.round.contradiction(text);
                }
                self.failed(error, took).await
            }
        }
    }

    async fn write(&mut self, ctx: &ExecutionContext) -> StepOutcome {
        let mut keys: Vec<usize> = (0..KEYS).collect();
        self.random.shuffle(&mut keys);
        keys.truncate(self.random.usize(2..=KEYS));
        let mut batch = Batch::new();
        let mut planned = PlannedCall::new("write".to_owned());
        let mut keyed = Vec::new();
        for key in keys {
            let condition = match self.random.u32(..4) {
                0 => self.condition(key),
                _ => Condition::Always,
            };
            planned.requires.extend(self.round.required_by(condition).map(|state| (key, state)));
            if self.random.u32(..4) == 0 {
                batch = batch.delete_if(NAMES[key], condition);
                planned.text += &format!(" {}=- {condition:?}", LABELS[key]);
                planned.writes.push((key, None));
                keyed.push((key, None));
            } else {
                let (number, value) = self.round.new_value();
                batch = batch.put_with(NAMES[key], value, self.options(number), condition);
                planned.text += &format!(" {}={number} {condition:?}", LABELS[key]);
                planned.writes.push((key, Some(number)));
                keyed.push((key, Some(number)));
            }
        }
        let round = self.round;
        let call = self.store.write(ctx, &round.ns, batch);
        let shows_presence = self.plan.with_presence;
        self.change(planned, call, |results| {
            let mut observed = Vec::new();
            for (result, (key, number)) in results.into_iter().zip(keyed) {
                match (result, number) {
                    (Written::Put(version), Some(number)) => round.learn(version, number),
                    (Written::Deleted(found), None) if shows_presence || !found => {
                        observed.push((key, presence(found)));
                    }
                    (Written::Deleted(_), None) => {}
                    _ => round.contradiction(format!("a result of write is {result:?}")),
                }
            }
            observed
        })
        .await
    }

    /// Makes a call that changes nothing. A read that fails is not recorded.
    async fn read<T>(
        &mut self,
        planned: PlannedCall,
        call: impl Future<Output = Result<T>>,
        observe: impl FnOnce(T) -> Vec<(usize, Observation)>,
    ) -> StepOutcome {
        let Timed { reply, called, returned, took } = self.time(call).await;
        self.progress.count(planned.extends, reply.is_ok());
        match reply {
            Ok(reply) => {
                self.record(planned, called, Some(returned), observe(reply));
                StepOutcome::Recorded
            }
            Err(error) => {
                if error.may_have_been_applied() && !planned.extends {
                    self.round.contradiction(format!(
                        "a read fails with an error that says it may have been applied: {error:?}"
                    ));
                }
                self.failed(error, took).await
            }
        }
    }

    /// Makes a call that may change an entry. `observe` returns what its reply shows.
    async fn change<T>(
        &mut self,
        mut planned: PlannedCall,
        call: impl Future<Output = Result<T>>,
        observe: impl FnOnce(T) -> Vec<(usize, Observation)>,
    ) -> StepOutcome {
        let Timed { reply, called, returned, took } = self.time(call).await;
        let is_conflict = |error: &Error| error.kind() == ErrorKind::Conflict;
        self.progress.count(true, reply.as_ref().err().is_none_or(is_conflict));
        match reply {
            Ok(reply) => {
                let observed = observe(reply);
                self.record(planned, called, Some(returned), observed);
                StepOutcome::Recorded
            }
            Err(error) if is_conflict(&error) => {
                let Some((key, required)) = failed_condition(&planned, &error) else {
                    let text = format!("a conflict without a condition: {}", planned.text);
                    self.round.contradiction(text);
                    return StepOutcome::NoEffect;
                };
                let current = self.round.observe_version(key, error.current_version());
                if current == required || required == Observation::Present && current != ABSENT {
                    let text = format!("a conflict although the condition holds: {}", planned.text);
                    self.round.contradiction(text);
                }
                planned.text += " (conflict)";
                planned.requires = vec![(key, current)];
                planned.writes.clear();
                self.record(planned, called, Some(returned), Vec::new());
                StepOutcome::Recorded
            }
            Err(error) if error.may_have_been_applied() => {
                self.must_read = true;
                self.progress.unknown.fetch_add(1, Ordering::SeqCst);
                self.record(planned, called, None, Vec::new());
                self.failed(error, took).await;
                StepOutcome::Recorded
            }
            Err(error) => self.failed(error, took).await,
        }
    }

    async fn time<T>(&self, call: impl Future<Output = Result<T>>) -> Timed<T> {
        let (called, started) = (self.progress.clock.tick(), tokio::time::Instant::now());
        let reply = call.await;
        let returned = self.progress.clock.tick();
        Timed { reply, called, returned, took: started.elapsed() }
    }

    fn record(
        &self,
        planned: PlannedCall,
        called: u64,
        returned: Option<u64>,
        observed: Vec<(usize, Observation)>,
    ) {
        let PlannedCall { mut text, requires, writes: wrote, .. } = planned;
        if returned.is_none() {
            text += " (unknown)";
        }
        for (key, observation) in &observed {
            text += &format!(" {} {observation:?}", LABELS[*key]);
        }
        let seen = requires.into_iter().chain(observed).collect();
        let call = RecordedCall { text, called, returned, seen, wrote };
        self.round.shared(|shared| shared.calls.push(call));
    }

    async fn failed(&mut self, error: Error, took: Duration) -> StepOutcome {
        let failure = Failure { error, took };
        self.round.shared(|shared| shared.failures.push(failure));
        // This context never ends, so the sleep cannot fail.
        let _ = ExecutionContext::new().sleep(PAUSE).await;
        StepOutcome::NoEffect
    }
}

fn presence(found: bool) -> Observation {
    if found { Observation::Present } else { Observation::Is(None) }
}

/// Returns the key and the required state of the condition that failed.
fn failed_condition(planned: &PlannedCall, error: &Error) -> Option<(usize, Observation)> {
    match error.batch_index() {
        None => planned.requires.first().copied(),
        Some(index) => {
            let key = planned.writes.get(index)?.0;
            planned.requires.iter().find(|(required, _)| *required == key).copied()
        }
    }
}
