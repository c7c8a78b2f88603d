//! The one writer: a thread that takes whatever is queued, applies it in one transaction, commits
//! once and then answers everyone.
//!
//! A caller whose context ends while its request waits in the queue takes it back, and it certainly
//! has no effect. Once the writer has claimed a request its outcome is unknown to a caller that
//! does not wait for the answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cubbyhole_core::{Clock, Compaction, Error, ExecutionContext, HighWaterClock, Result};
use redb::Database;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::config::{Durability, RELAXED_FLUSH_INTERVAL};
use crate::error::{Failure, from_engine};
use crate::file::{StoreFile, closed};
use crate::tables::Tables;

/// How many requests may wait; callers past that wait for a place, within their context.
const QUEUE_LENGTH: usize = 4096;
/// How many requests one transaction takes at most, so that none waits for ever.
const GROUP_LENGTH: usize = 1024;

/// The sending side.
pub(crate) struct Writer {
    sender: Sender<Message>,
    places: Arc<Semaphore>,
    commits: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

enum Message {
    Write(Box<dyn Request>),
    Compact(oneshot::Sender<Result<Compaction>>),
    Close(oneshot::Sender<Result<()>>),
    /// The last handle of the store is gone.
    End,
}

impl Writer {
    pub(crate) fn start(
        file: Arc<StoreFile>,
        clock: Arc<HighWaterClock>,
        witnessed: Arc<AtomicBool>,
        durability: Durability,
    ) -> Result<Self> {
        let (sender, receiver) = channel();
        let commits = Arc::new(AtomicU64::new(0));
        let thread = std::thread::Builder::new().name("cubbyhole-writer".to_owned()).spawn({
            let commits = Arc::clone(&commits);
            move || {
                let worker = Worker {
                    file,
                    clock,
                    durability,
                    commits,
                    witnessed,
                    flush_due: None,
                    last_group: 0,
                    last_commit: Duration::ZERO,
                };
                worker.run(&receiver);
            }
        });
        let thread = thread.map_err(|error| {
            Error::resource_exhausted("no thread could be started").with_source(error)
        })?;
        let places = Arc::new(Semaphore::new(QUEUE_LENGTH));
        Ok(Self { sender, places, commits, thread: Some(thread) })
    }

    /// How many transactions were committed.
    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Applies `work` in the next transaction and answers once that is committed.
    pub(crate) async fn submit<T, F>(&self, ctx: &ExecutionContext, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tables<'_>) -> Result<T, Failure> + Send + 'static,
    {
        let place = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                ctx.race(Arc::clone(&self.places).acquire_owned()).await?.map_err(|_| closed())?
            }
        };
        let (reply, answer) = oneshot::channel();
        let claim = Arc::new(Claim::default());
        let request = Pending {
            work: Some(work),
            outcome: None,
            reply: Some(reply),
            claim: Arc::clone(&claim),
            _place: place,
        };
        self.sender.send(Message::Write(Box::new(request))).map_err(|_| closed())?;
        // A future that is dropped takes its request back too.
        let withdrawal = Withdrawal(&claim);
        match ctx.race(answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::internal("the writer ended").with_unknown_outcome()),
            Err(ended) if withdrawal.0.withdraw() => Err(ended),
            Err(ended) => Err(ended.with_unknown_outcome()),
        }
    }

    /// Gives free space of the file back, between two transactions.
    pub(crate) async fn compact(&self, ctx: &ExecutionContext) -> Result<Compaction> {
        let (reply, answer) = oneshot::channel();
        self.sender.send(Message::Compact(reply)).map_err(|_| closed())?;
        ctx.race(answer).await?.map_err(|_| closed())?
    }

    /// Finishes what is queued and closes the file.
    pub(crate) async fn close(&self, ctx: &ExecutionContext) -> Result<()> {
        // What is queued comes before it; what comes after it finds the store closed.
        let (reply, answer) = oneshot::channel();
        if self.sender.send(Message::Close(reply)).is_err() {
            return Ok(());
        }
        // A writer that has ended meanwhile has closed the file.
        ctx.race(answer).await?.unwrap_or(Ok(()))
    }
}

impl Drop for Writer {
    /// Waits until what is queued is written and the file is closed, so that it can be opened
    /// again right after.
    fn drop(&mut self) {
        let _ = self.sender.send(Message::End);
        if let Some(thread) = self.thread.take() {
            // Its panics were answered to the callers already.
            let _ = thread.join();
        }
    }
}

/// A request, whatever it answers.
trait Request: Send {
    /// Claims it for the writer; `false` if its caller took it back.
    fn claim(&self) -> bool;
    /// Does its part of the transaction. An engine's failure is handed back: it is everyone's.
    fn apply(&mut self, tables: &mut Tables<'_>) -> Result<(), Failure>;
    /// Answers the caller: with what `apply` found, or with why the transaction failed.
    fn answer(self: Box<Self>, failure: Option<&Error>);
}

struct Pending<T, F> {
    work: Option<F>,
    outcome: Option<Result<T>>,
    reply: Option<oneshot::Sender<Result<T>>>,
    claim: Arc<Claim>,
    _place: OwnedSemaphorePermit,
}

impl<T, F> Request for Pending<T, F>
where
    T: Send,
    F: FnOnce(&mut Tables<'_>) -> Result<T, Failure> + Send,
{
    fn claim(&self) -> bool {
        self.claim.claim()
    }

    fn apply(&mut self, tables: &mut Tables<'_>) -> Result<(), Failure> {
        let Some(work) = self.work.take() else { return Ok(()) };
        match work(tables) {
            Ok(answer) => self.outcome = Some(Ok(answer)),
            Err(Failure::Refused(error)) => self.outcome = Some(Err(error)),
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    fn answer(mut self: Box<Self>, failure: Option<&Error>) {
        let answer = match (self.outcome.take(), failure) {
            // A refusal changed nothing, whatever became of the transaction.
            (Some(Err(refused)), _) => Err(refused),
            (_, Some(error)) => Err(error.clone()),
            (Some(Ok(answer)), None) => Ok(answer),
            (None, None) => Err(Error::internal("a request was not applied")),
        };
        if let Some(reply) = self.reply.take() {
            // A caller that is gone wants no answer.
            let _ = reply.send(answer);
        }
    }
}

/// Who has a request: the queue, the writer, or its caller again.
#[derive(Default)]
struct Claim(AtomicU8);

impl Claim {
    const QUEUED: u8 = 0;
    const CLAIMED: u8 = 1;
    const WITHDRAWN: u8 = 2;

    fn claim(&self) -> bool {
        self.change(Self::CLAIMED)
    }

    /// Takes the request back; `false` if the writer has claimed it.
    fn withdraw(&self) -> bool {
        self.change(Self::WITHDRAWN)
    }

    fn change(&self, to: u8) -> bool {
        let result = self.0.compare_exchange(Self::QUEUED, to, Ordering::AcqRel, Ordering::Acquire);
        result.is_ok()
    }
}

struct Withdrawal<'a>(&'a Claim);

impl Drop for Withdrawal<'_> {
    fn drop(&mut self) {
        self.0.withdraw();
    }
}

/// The thread's own side.
struct Worker {
    file: Arc<StoreFile>,
    clock: Arc<HighWaterClock>,
    durability: Durability,
    commits: Arc<AtomicU64>,
    witnessed: Arc<AtomicBool>,
    /// Until when what the relaxed mode holds back must be on disk.
    flush_due: Option<Instant>,
    /// How large the last group was, and how long its commit took.
    last_group: usize,
    last_commit: Duration,
}

impl Worker {
    fn run(mut self, receiver: &Receiver<Message>) {
        while let Some(message) = self.next(receiver) {
            let (group, interruption) = self.gather(message, receiver);
            if !group.is_empty() {
                self.commit_group(group);
            }
            match interruption {
                Some(Message::Compact(reply)) => {
                    let _ = reply.send(self.compact());
                }
                Some(Message::Close(reply)) => {
                    let _ = reply.send(self.close());
                    return;
                }
                Some(Message::End) => break,
                Some(Message::Write(_)) | None => {}
            }
        }
        // Nobody is left to hear of an error; `Backend::close` tells.
        let _ = self.close();
    }

    /// Waits for the next message. A relaxed store flushes when it has waited long enough.
    fn next(&mut self, receiver: &Receiver<Message>) -> Option<Message> {
        if let Some(due) = self.flush_due {
            let received = receiver.recv_timeout(due.saturating_duration_since(now()));
            if now() >= due {
                // Before what was received, or a busy queue would put it off for ever. A failure
                // shows at the next write, which then opens the file anew.
                let _ = self.flush();
            }
            if !matches!(received, Err(RecvTimeoutError::Timeout)) {
                return received.ok();
            }
        }
        receiver.recv().ok()
    }

    /// Takes whatever has queued up into one group, up to the first other message.
    ///
    /// Callers that were just answered are about to write again, and without a moment's wait every
    /// second group would be of those that were not in the last one. So it waits until the group
    /// is as large as the last, for a quarter of what that one's commit took at most.
    fn gather(
        &self,
        first: Message,
        receiver: &Receiver<Message>,
    ) -> (Vec<Box<dyn Request>>, Option<Message>) {
        let mut group = Vec::new();
        let mut next = Some(first);
        let mut until = None;
        let interruption = loop {
            match next {
                Some(Message::Write(request)) => group.push(request),
                other => break other,
            }
            if group.len() == GROUP_LENGTH {
                break None;
            }
            next = receiver.try_recv().ok();
            if next.is_none() && group.len() < self.last_group {
                let until = *until.get_or_insert_with(|| now() + self.last_commit / 4);
                next = receiver.recv_timeout(until.saturating_duration_since(now())).ok();
            }
        };
        // Claimed only now: until here a caller can still take its request back.
        group.retain(|request| request.claim());
        (group, interruption)
    }

    fn commit_group(&mut self, mut group: Vec<Box<dyn Request>>) {
        let began = now();
        let failure = self.try_group(&mut group).err();
        self.last_commit = began.elapsed();
        self.last_group = group.len();
        for request in group {
            request.answer(failure.as_ref());
        }
    }

    /// Applies and commits a group. An error says whether it certainly had no effect.
    fn try_group(&mut self, group: &mut [Box<dyn Request>]) -> Result<()> {
        let mut first = true;
        loop {
            let seen = self.file.generation();
            let mut stage = Stage::Beginning;
            let failure = match self.transact(group, &mut stage) {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            // Whatever went wrong, a fresh handle is the safe one.
            let reopened = self.file.reopen(seen);
            match stage {
                // A handle that had failed before refuses to begin: nothing was applied yet.
                Stage::Beginning if first => reopened?,
                // If the file could not be opened anew, the next request tries again.
                Stage::Beginning | Stage::Applying => return Err(failure),
                Stage::Committing => return Err(failure.with_unknown_outcome()),
            }
            first = false;
        }
    }

    fn transact(&mut self, group: &mut [Box<dyn Request>], stage: &mut Stage) -> Result<()> {
        let durable = self.durability == Durability::Immediate;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let guard = self.file.read();
            let database = guard.as_ref().ok_or_else(|| self.file.absent())?;
            self.apply(database, group, durable, stage)
        }));
        match outcome {
            Ok(Ok(committed)) => {
                self.commits.fetch_add(u64::from(committed), Ordering::Relaxed);
                if committed && !durable {
                    self.flush_due.get_or_insert_with(|| now() + RELAXED_FLUSH_INTERVAL);
                }
                Ok(())
            }
            Ok(Err(failure)) => Err(failure.into_error()),
            Err(_) => Err(Error::corrupt("the engine failed over the file; it may be damaged")),
        }
    }

    /// Runs a group in one transaction. Answers whether anything was committed.
    fn apply(
        &self,
        database: &Database,
        group: &mut [Box<dyn Request>],
        durable: bool,
        stage: &mut Stage,
    ) -> Result<bool, Failure> {
        let mut transaction = database.begin_write()?;
        *stage = Stage::Applying;
        transaction.set_quick_repair(true);
        if !durable {
            transaction.set_durability(redb::Durability::None)?;
        }
        let changed = {
            let mut tables = Tables::open(&transaction, self.clock.now())?;
            for request in group {
                request.apply(&mut tables)?;
            }
            let changed = tables.changed();
            if changed {
                tables.set_clock_mark()?;
            } else if tables.witnessed() {
                self.witnessed.store(true, Ordering::Relaxed);
            }
            changed
        };
        if changed {
            *stage = Stage::Committing;
            transaction.commit()?;
        } else {
            transaction.abort()?;
        }
        Ok(changed)
    }

    /// Makes what the relaxed mode holds back durable, and the clock's mark with it.
    fn flush(&mut self) -> Result<()> {
        self.flush_due = None;
        let guard = self.file.read();
        guard.as_ref().map_or(Ok(()), |database| commit_mark(database, &self.clock))
    }

    fn compact(&mut self) -> Result<Compaction> {
        let seen = self.file.generation();
        if self.file.read().is_none() {
            self.file.reopen(seen)?;
        }
        let mut guard = self.file.exclusive();
        let database = guard.as_mut().ok_or_else(closed)?;
        let bytes_before = self.file.length();
        database.compact().map_err(|error| from_engine(error.into()))?;
        // The engine's own commits leave out what makes the next opening quick.
        commit_mark(database, &self.clock)?;
        drop(guard);
        self.flush_due = None;
        Ok(Compaction { bytes_before, bytes_after: self.file.length() })
    }

    fn close(&mut self) -> Result<()> {
        // An entry that somebody saw expire must stay so for whoever opens the file next, even if
        // the clock steps back.
        let witnessed = self.witnessed.swap(false, Ordering::Relaxed);
        let flushed = if witnessed || self.flush_due.is_some() { self.flush() } else { Ok(()) };
        let closed = self.file.close();
        flushed.and(closed)
    }
}

/// How far a transaction came; its failure means something else at each.
enum Stage {
    /// Nothing was applied: it can be tried again.
    Beginning,
    /// It is rolled back: it certainly had no effect.
    Applying,
    /// It may be on disk.
    Committing,
}

/// A durable commit of the clock's mark: everything before it is on disk after it.
fn commit_mark(database: &Database, clock: &HighWaterClock) -> Result<()> {
    let commit = || -> Result<(), Failure> {
        let mut transaction = database.begin_write()?;
        transaction.set_quick_repair(true);
        Tables::open(&transaction, clock.now())?.set_clock_mark()?;
        transaction.commit()?;
        Ok(())
    };
    commit().map_err(Failure::into_error)
}

#[expect(
    clippy::disallowed_methods,
    reason = "it times the flushes; no caller's deadline is judged"
)]
fn now() -> Instant {
    Instant::now()
}
