//! A client of a round: it draws calls, makes them, and writes down what they were answered.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cubbyhole_core::{
    Batch, Condition, EntryStore, Error, ErrorKind, ExecutionContext, Expiry, GetOptions,
    PutOptions, Result, Version,
};

use super::check::{Call, KEYS, Seen};
use super::round::Round;
use super::{Failure, Plan, Progress};
use crate::Sample;

/// The names of a round's keys.
const NAMES: [&str; KEYS] = ["a", "b", "c"];
/// Longer than any run.
const LONG: Duration = Duration::from_secs(86_400);
/// How long a client waits after a failure.
const PAUSE: Duration = Duration::from_millis(5);

/// Counts calls and answers of all clients: what began after another's end has a larger number.
#[derive(Debug, Default)]
pub(super) struct Ticks(AtomicU64);

impl Ticks {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

pub(super) struct Client<'a, V: Sample> {
    pub(super) store: &'a dyn EntryStore<V>,
    pub(super) plan: &'a Plan,
    pub(super) round: &'a Round<V>,
    pub(super) progress: &'a Progress,
    pub(super) random: fastrand::Rng,
    /// Its last write has an unknown outcome: it looks before it writes again.
    pub(super) must_look: bool,
}

/// What a call is, before it is made.
struct Asked {
    text: String,
    /// It reads, and extends the life of what it finds.
    extends: bool,
    seen: Vec<(usize, Seen)>,
    wrote: Vec<(usize, Option<u64>)>,
}

impl Asked {
    fn new(text: String) -> Self {
        Self { text, extends: false, seen: Vec::new(), wrote: Vec::new() }
    }
}

/// How a call ended, for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It stands in the history.
    Written,
    /// It certainly had no effect.
    Refused,
}

impl<V: Sample> Client<'_, V> {
    /// Makes one call.
    pub(super) async fn step(&mut self) -> Ended {
        let ctx = self.context();
        if self.must_look {
            return self.look_at_all(&ctx).await;
        }
        let key = self.random.usize(..KEYS);
        let is_plain = self.plan.sees_presence;
        match self.random.u32(..if is_plain { 23 } else { 21 }) {
            0..=3 => self.get(&ctx, key).await,
            4..=5 => self.get_entry(&ctx, key).await,
            6..=7 => self.look_at_all(&ctx).await,
            8..=10 => self.put(&ctx, key).await,
            11..=15 => self.put_entry(&ctx, key).await,
            16 => self.delete(&ctx, key).await,
            17 => self.delete_at_version(&ctx, key).await,
            18 => self.take(&ctx, key).await,
            19..=20 => self.write(&ctx).await,
            21 => self.delete_entry(&ctx, key).await,
            _ => self.touch(&ctx, key).await,
        }
    }

    /// Reads all keys, as often as it takes.
    pub(super) async fn look_at_last(&mut self, patience: &ExecutionContext) -> Result<()> {
        loop {
            let ctx = self.plan.timeout.map_or_else(ExecutionContext::new, |timeout| {
                ExecutionContext::new().with_timeout(timeout)
            });
            if self.look_at_all(&ctx).await == Ended::Written {
                return Ok(());
            }
            patience.sleep(PAUSE).await?;
        }
    }

    fn context(&mut self) -> ExecutionContext {
        let ctx = ExecutionContext::new();
        let ctx = self.plan.timeout.map_or(ctx.clone(), |timeout| ctx.with_timeout(timeout));
        match self.plan.cut_short {
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
            self.round.know(version, number);
            options = options.with_version(version);
        }
        options
    }

    fn condition(&mut self, key: usize) -> Condition {
        let latest = self.round.known(|known| {
            known.latest[key].filter(|version| known.by_version.contains_key(version))
        });
        match latest {
            Some(version) if self.random.u32(..3) > 0 => Condition::IfVersion(version),
            _ => Condition::IfAbsent,
        }
    }

    async fn get(&mut self, ctx: &ExecutionContext, key: usize) -> Ended {
        let asked = Asked::new(format!("get {}", NAMES[key]));
        let round = self.round;
        let call = self.store.get(ctx, &round.ns, NAMES[key]);
        self.read(asked, call, |value| vec![(key, round.seen_value(value.as_ref()))]).await
    }

    async fn get_entry(&mut self, ctx: &ExecutionContext, key: usize) -> Ended {
        let mut options = GetOptions::new();
        let mut asked = Asked::new(format!("get_entry {}", NAMES[key]));
        if self.random.bool() {
            options = options.with_extended_ttl(LONG);
            asked.extends = true;
        }
        let round = self.round;
        let call = self.store.get_entry(ctx, &round.ns, NAMES[key], options);
        self.read(asked, call, |entry| vec![(key, round.seen_entry(key, entry.as_ref()))]).await
    }

    async fn look_at_all(&mut self, ctx: &ExecutionContext) -> Ended {
        let asked = Asked::new("get_many".to_owned());
        let round = self.round;
        let call = async {
            let answers = self.store.get_many(ctx, &round.ns, &NAMES).await?;
            answers.into_iter().collect::<Result<Vec<_>>>()
        };
        let ended = self
            .read(asked, call, |entries| {
                let keyed = entries.iter().enumerate();
                keyed.map(|(key, entry)| (key, round.seen_entry(key, entry.as_ref()))).collect()
            })
            .await;
        self.must_look &= ended != Ended::Written;
        ended
    }

    async fn put(&mut self, ctx: &ExecutionContext, key: usize) -> Ended {
        let (number, value) = self.round.draw();
        let mut asked = Asked::new(format!("put {}={number}", NAMES[key]));
        asked.wrote.push((key, Some(number)));
        if self.random.bool() {
            let call = self.store.put(ctx, &self.round.ns, NAMES[key], value);
            return self.change(asked, call, |()| Vec::new()).await;
        }
        let options = self.options(number);
        let call = self.store.put_with_options(ctx, &self.round.ns, NAMES[key], value, options);
        self.change(asked, call, |()| Vec::new()).await
    }

    async fn put_entry(&mut self, ctx: &ExecutionContext, key: usize) -> Ended {
        let (number, value) = self.round.draw();
        let (options, condition) = (self.options(number), self.condition(key));
        let mut asked = Asked::new(format!("put_entry {}={number} {condition:?}", NAMES[key]));
        asked.seen.extend(self.round.guard(condition).map(|guard| (key, guard)));
        asked.wrote.push((key, Some(number)));
        let round = self.round;
        let call = self.store.put_entry(ctx, &round.ns, NAMES[key], value, options, condition);
        self.change(asked, call, |version| {
            round.know(version, number);
            Vec::new()
        })
        .await
    }

    async fn delete(&mut self, ctx: &ExecutionContext, key: usize) -> Ended {
        let mut asked = Asked::new(format!("delete {}", NAMES[key]));
        asked.wrote.push((key, None));
        let call = self.store.delete(ctx, &self.round.ns, NAMES[key]);
        self.change(asked, call, |()| Vec::new()).await
    }

    async fn delete_entry(&mut self, ctx: &ExecutionContext, key: usize) -> Ended {
        let mut asked = Asked::new(format!("delete_entry {}", NAMES[key]));
        asked.wrote.push((key, None));
        let call = self.store.delete_entry(ctx, &self.round.ns, NAMES[key], Condition::Always);
        self.change(asked, call, |found| vec![(key, presence(found))]).await
    }

    async fn delete_at_version(&mut self, ctx: &ExecutionContext, key: usize) -> Ended {
        let condition = self.condition(key);
        let mut asked = Asked::new(format!("delete_entry {} {condition:?}", NAMES[key]));
        asked.seen.extend(self.round.guard(condition).map(|guard| (key, guard)));
        asked.wrote.push((key, None));
        let call = self.store.delete_entry(ctx, &self.round.ns, NAMES[key], condition);
        self.change(asked, call, |_| Vec::new()).await
    }

    async fn take(&mut self, ctx: &ExecutionContext, key: usize) -> Ended {
        let mut asked = Asked::new(format!("take {}", NAMES[key]));
        asked.wrote.push((key, None));
        let round = self.round;
        let call = self.store.take(ctx, &round.ns, NAMES[key]);
        self.change(asked, call, |entry| vec![(key, round.seen_entry(key, entry.as_ref()))]).await
    }

    async fn touch(&mut self, ctx: &ExecutionContext, key: usize) -> Ended {
        let expiry = if self.random.bool() { Expiry::Never } else { Expiry::After(LONG) };
        let asked = Asked::new(format!("touch {}", NAMES[key]));
        let call = self.store.touch(ctx, &self.round.ns, NAMES[key], expiry);
        self.change(asked, call, |found| vec![(key, presence(found))]).await
    }

    async fn write(&mut self, ctx: &ExecutionContext) -> Ended {
        let mut keys: Vec<usize> = (0..KEYS).collect();
        self.random.shuffle(&mut keys);
        keys.truncate(self.random.usize(2..=KEYS));
        let mut batch = Batch::new();
        let mut asked = Asked::new("write".to_owned());
        let mut numbers = Vec::new();
        for key in keys {
            let condition = match self.random.u32(..4) {
                0 => self.condition(key),
                _ => Condition::Always,
            };
            asked.seen.extend(self.round.guard(condition).map(|guard| (key, guard)));
            if self.random.u32(..4) == 0 {
                batch = batch.delete_if(NAMES[key], condition);
                asked.text += &format!(" {}=- {condition:?}", NAMES[key]);
                asked.wrote.push((key, None));
                numbers.push(None);
            } else {
                let (number, value) = self.round.draw();
                batch = batch.put_with(NAMES[key], value, self.options(number), condition);
                asked.text += &format!(" {}={number} {condition:?}", NAMES[key]);
                asked.wrote.push((key, Some(number)));
                numbers.push(Some(number));
            }
        }
        let round = self.round;
        let call = self.store.write(ctx, &round.ns, batch);
        self.change(asked, call, |versions| {
            for (version, number) in versions.into_iter().zip(numbers) {
                if let (Some(version), Some(number)) = (version, number) {
                    round.know(version, number);
                }
            }
            Vec::new()
        })
        .await
    }

    /// Makes a call that changes nothing: without an answer it is as if it had not been made.
    async fn read<T>(
        &mut self,
        asked: Asked,
        call: impl Future<Output = Result<T>>,
        seen: impl FnOnce(T) -> Vec<(usize, Seen)>,
    ) -> Ended {
        let (called, began) = (self.progress.ticks.next(), tokio::time::Instant::now());
        let answer = call.await;
        let returned = self.progress.ticks.next();
        self.progress.count(asked.extends, answer.is_ok());
        match answer {
            Ok(answer) => {
                self.note(asked, called, Some(returned), seen(answer));
                Ended::Written
            }
            Err(error) => {
                if error.may_have_been_applied() && !asked.extends {
                    self.round.nonsense(format!("a read of unknown effect: {error:?}"));
                }
                self.refused(error, began.elapsed()).await
            }
        }
    }

    /// Makes a call that may change something. `seen` is what its answer shows.
    async fn change<T>(
        &mut self,
        mut asked: Asked,
        call: impl Future<Output = Result<T>>,
        seen: impl FnOnce(T) -> Vec<(usize, Seen)>,
    ) -> Ended {
        let (called, began) = (self.progress.ticks.next(), tokio::time::Instant::now());
        let answer = call.await;
        let returned = self.progress.ticks.next();
        let is_conflict = |error: &Error| error.kind() == ErrorKind::Conflict;
        let is_answer = answer.as_ref().err().is_none_or(is_conflict);
        self.progress.count(true, is_answer);
        match answer {
            Ok(answer) => {
                let seen = seen(answer);
                self.note(asked, called, Some(returned), seen);
                Ended::Written
            }
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let Some(key) = refusing_key(&asked, &error) else {
                    self.round.nonsense(format!("a conflict without a condition: {}", asked.text));
                    return Ended::Refused;
                };
                let current = self.round.seen_version(key.0, error.current_version());
                if current == key.1 {
                    self.round
                        .nonsense(format!("a conflict where the condition holds: {}", asked.text));
                }
                asked.text += " (conflict)";
                asked.seen = vec![(key.0, current)];
                asked.wrote.clear();
                self.note(asked, called, Some(returned), Vec::new());
                Ended::Written
            }
            Err(error) if error.may_have_been_applied() => {
                self.must_look = true;
                self.progress.unknown.fetch_add(1, Ordering::SeqCst);
                self.note(asked, called, None, Vec::new());
                self.refused(error, began.elapsed()).await;
                Ended::Written
            }
            Err(error) => self.refused(error, began.elapsed()).await,
        }
    }

    fn note(&self, asked: Asked, called: u64, returned: Option<u64>, seen: Vec<(usize, Seen)>) {
        let Asked { mut text, seen: guards, wrote, .. } = asked;
        if returned.is_none() {
            text += " (unknown)";
        }
        for (key, seen) in &seen {
            text += &format!(" {} {seen:?}", NAMES[*key]);
        }
        let seen = guards.into_iter().chain(seen).collect();
        self.round.known(|known| known.calls.push(Call { text, called, returned, seen, wrote }));
    }

    async fn refused(&mut self, error: Error, took: Duration) -> Ended {
        let failure = Failure { error, took };
        self.round.known(|known| known.failures.push(failure));
        // Nobody ends this context.
        let _ = ExecutionContext::new().sleep(PAUSE).await;
        Ended::Refused
    }
}

fn presence(found: bool) -> Seen {
    if found { Seen::Something } else { Seen::Is(None) }
}

/// The condition that a conflict is about.
fn refusing_key(asked: &Asked, error: &Error) -> Option<(usize, Seen)> {
    match error.batch_index() {
        None => asked.seen.first().copied(),
        Some(index) => {
            let key = asked.wrote.get(index)?.0;
            asked.seen.iter().find(|(guarded, _)| *guarded == key).copied()
        }
    }
}
