//! The one writer: a thread that takes whatever is queued, applies it in one transaction, has that on
//! disk by one record of the log or by a checkpoint, and then answers everyone.
//!
//! A caller whose context ends while its request waits in the queue takes it back, and it certainly
//! has no effect. Once the writer has claimed a request its outcome is unknown to a caller that
//! does not wait for the answer.

mod checkpoint;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cubbyhole_core::{Clock, Compaction, Error, ExecutionContext, HighWaterClock, Result};
use tokio::sync::{Semaphore, oneshot};

use crate::config::{Durability, RELAXED_FLUSH_INTERVAL};
use crate::error::Failure;
use crate::file::{Handle, StoreFile};
use crate::log::{Redo, Salt};
use crate::request::{Claim, Pending, Request, Withdrawal};
use crate::tables::Tables;

pub(crate) use checkpoint::{checkpoint, lock};

/// How much may wait, in KiB of values and at least one for each request; callers past that wait
/// for a place, within their context.
const QUEUE_KIB: usize = 256 * 1024;
/// How many requests, and how many KiB of them, one transaction takes before it is committed, so
/// that none waits for ever and memory has a bound.
const GROUP_LENGTH: usize = 1024;
const GROUP_KIB: usize = 64 * 1024;
/// How long a group waits for others at most.
const MAX_GATHER_WAIT: Duration = Duration::from_millis(2);

/// The sending side.
pub(crate) struct Writer {
    file: Arc<StoreFile>,
    sender: Sender<Message>,
    places: Arc<Semaphore>,
    commits: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

enum Message {
    Write(Box<dyn Request>),
    Compact(oneshot::Sender<Result<Compaction>>, Arc<Claim>),
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
            let (file, commits) = (Arc::clone(&file), Arc::clone(&commits));
            move || {
                let worker = Worker {
                    file,
                    clock,
                    durability,
                    commits,
                    witnessed,
                    flush_due: None,
                    has_erased: Cell::new(false),
                    lost: None,
                    last_group: 0,
                    gather_wait: Duration::ZERO,
                };
                worker.run(&receiver);
            }
        });
        let thread = thread.map_err(|error| {
            Error::resource_exhausted("no thread could be started").with_source(error)
        })?;
        let places = Arc::new(Semaphore::new(QUEUE_KIB));
        Ok(Self { file, sender, places, commits, thread: Some(thread) })
    }

    /// How many transactions were committed.
    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Refuses what would write to a file that is open read-only.
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.file.check_writable()
    }

    /// Applies `work`, which holds that many bytes, in the next transaction, and answers once that
    /// is committed.
    pub(crate) async fn submit<T, F>(
        &self,
        ctx: &ExecutionContext,
        bytes: usize,
        work: F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tables<'_>) -> Result<T, Failure> + Send + 'static,
    {
        self.check_writable()?;
        let kib = 1 + bytes / 1024;
        let permits = u32::try_from(kib.min(QUEUE_KIB)).unwrap_or(u32::MAX);
        let places = || Arc::clone(&self.places);
        let place = match places().try_acquire_many_owned(permits) {
            Ok(place) => place,
            Err(_) => ctx
                .race(places().acquire_many_owned(permits))
                .await?
                .map_err(|_| Error::closed())?,
        };
        let (reply, answer) = oneshot::channel();
        let claim = Arc::new(Claim::default());
        let request = Pending::new(work, reply, Arc::clone(&claim), kib, place);
        self.sender.send(Message::Write(Box::new(request))).map_err(|_| Error::closed())?;
        // A future that is dropped takes its request back too.
        let withdrawal = Withdrawal(&claim);
        match ctx.race(answer).await {
            Ok(Ok(result)) => result,
            // Queued behind the end of the writer: nobody will ever claim it.
            Ok(Err(_)) if withdrawal.0.withdraw() => Err(Error::closed()),
            Ok(Err(_)) => Err(Error::internal("the writer ended").with_unknown_outcome()),
            Err(ended) if withdrawal.0.withdraw() => Err(ended),
            Err(ended) => Err(ended.with_unknown_outcome()),
        }
    }

    /// Gives free space of the file back, between two transactions.
    pub(crate) async fn compact(&self, ctx: &ExecutionContext) -> Result<Compaction> {
        ctx.check()?;
        self.check_writable()?;
        let (reply, answer) = oneshot::channel();
        let claim = Arc::new(Claim::default());
        let message = Message::Compact(reply, Arc::clone(&claim));
        self.sender.send(message).map_err(|_| Error::closed())?;
        let withdrawal = Withdrawal(&claim);
        match ctx.race(answer).await {
            Ok(answer) => answer.map_err(|_| Error::closed())?,
            Err(ended) if withdrawal.0.withdraw() => Err(ended),
            Err(ended) => Err(ended.with_unknown_outcome()),
        }
    }

    /// Asks the writer to finish the queued requests and to close the file. Does not wait for it.
    pub(crate) fn begin_close(&self) -> Closing {
        // Requests queued before it are applied; later ones find the store closed.
        let (reply, answer) = oneshot::channel();
        // A writer that has ended has closed the file, and the answer never comes.
        let _ = self.sender.send(Message::Close(reply));
        Closing(answer)
    }
}

/// A close that the writer was asked for.
pub(crate) struct Closing(oneshot::Receiver<Result<()>>);

impl Closing {
    /// Waits until the file is closed.
    pub(crate) async fn wait(self, ctx: &ExecutionContext) -> Result<()> {
        match ctx.race(self.0).await {
            // A writer that has ended meanwhile has closed the file.
            Ok(answer) => answer.unwrap_or(Ok(())),
            Err(ended) => Err(ended.with_unknown_outcome()),
        }
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

/// The thread's own side.
struct Worker {
    file: Arc<StoreFile>,
    clock: Arc<HighWaterClock>,
    durability: Durability,
    commits: Arc<AtomicU64>,
    witnessed: Arc<AtomicBool>,
    /// Until when what the relaxed mode holds back must be on disk, and the generation of the file
    /// whose handle holds it.
    flush_due: Option<(Instant, u64)>,
    /// Whether something was erased, so that closing is to purge the file.
    has_erased: Cell<bool>,
    /// What the relaxed mode had acknowledged and the disk did not take, until somebody is told.
    lost: Option<Error>,
    /// How large the last group was, and how long the next one may wait to become as large.
    last_group: usize,
    gather_wait: Duration,
}

impl Worker {
    fn run(mut self, receiver: &Receiver<Message>) {
        while let Some(message) = self.next(receiver) {
            let (group, interruption) = self.gather(message, receiver);
            if !group.is_empty() {
                self.commit_group(group);
            }
            match interruption {
                Some(Message::Compact(reply, claim)) => {
                    if claim.claim() {
                        // A caller that is gone wants no answer.
                        let _ = reply.send(self.compact());
                    }
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
        if let Some((due, _)) = self.flush_due {
            let received = receiver.recv_timeout(due.saturating_duration_since(now()));
            if now() >= due {
                // Before what was received, or a busy queue would put it off for ever. A failure
                // is kept for the next write.
                self.flush();
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
    /// is as large as the last, for a quarter of what that one's commit took, and never for long.
    fn gather(
        &self,
        first: Message,
        receiver: &Receiver<Message>,
    ) -> (Vec<Box<dyn Request>>, Option<Message>) {
        let mut group: Vec<Box<dyn Request>> = Vec::new();
        let mut next = Some(first);
        let mut kib = 0;
        let mut until = None;
        let interruption = loop {
            match next {
                Some(Message::Write(request)) => {
                    kib += request.kib();
                    group.push(request);
                }
                other => break other,
            }
            if group.len() == GROUP_LENGTH || kib >= GROUP_KIB {
                break None;
            }
            next = receiver.try_recv().ok();
            if next.is_none() && group.len() < self.last_group {
                let until = *until.get_or_insert_with(|| now() + self.gather_wait);
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
        self.gather_wait = (began.elapsed() / 4).min(MAX_GATHER_WAIT);
        self.last_group = if failure.is_none() { group.len() } else { 0 };
        for request in group {
            request.answer(failure.as_ref());
        }
    }

    /// Applies and commits a group. An error says whether it certainly had no effect.
    fn try_group(&mut self, group: &mut [Box<dyn Request>]) -> Result<()> {
        let mut first = true;
        loop {
            let generation = self.file.read().generation;
            self.notice_loss(generation);
            if let Some(lost) = self.lost.take() {
                return Err(lost);
            }
            let mut stage = Stage::Beginning;
            let (outcome, seen) = self.transact(group, &mut stage);
            let failure = match outcome {
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

    /// Also the generation of the handle that it went by.
    fn transact(&mut self, group: &mut [Box<dyn Request>], stage: &mut Stage) -> (Result<()>, u64) {
        let durable = self.durability == Durability::Immediate;
        let guard = self.file.read();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let handle = guard.handle.as_ref().ok_or_else(|| self.file.absent())?;
            self.apply(handle, group, durable, stage)
        }));
        let generation = guard.generation;
        let outcome = match outcome {
            Ok(Ok(committed)) => {
                self.commits.fetch_add(u64::from(committed), Ordering::Relaxed);
                if committed && !durable {
                    self.flush_due
                        .get_or_insert_with(|| (now() + RELAXED_FLUSH_INTERVAL, generation));
                }
                Ok(())
            }
            Ok(Err(failure)) => Err(failure.into_error()),
            Err(_) => Err(Error::corrupt("the engine failed over the file; it may be damaged")),
        };
        (outcome, generation)
    }

    /// Runs a group in one transaction. Answers whether anything was committed.
    fn apply(
        &self,
        handle: &Handle,
        group: &mut [Box<dyn Request>],
        durable: bool,
        stage: &mut Stage,
    ) -> Result<bool, Failure> {
        let mut transaction = handle.database.begin_write()?;
        *stage = Stage::Applying;
        let mut log = lock(&handle.log);
        let now = self.clock.now();
        let redo = if durable { Redo::on() } else { Redo::off() };
        let mut tables = Tables::open(&transaction, now, redo)?;
        for request in group {
            request.apply(&mut tables)?;
        }
        if tables.erases() {
            log.mark_erased()?;
            self.has_erased.set(true);
        }
        if !tables.changed() {
            if tables.witnessed() {
                self.witnessed.store(true, Ordering::Relaxed);
            }
            drop(tables);
            transaction.abort()?;
            return Ok(false);
        }
        tables.set_clock_mark()?;
        let checkpoint = (durable && !log.has_room(tables.redo())).then(Salt::draw);
        if let Some(salt) = checkpoint {
            tables.set_salt(salt)?;
        }
        let redo = tables.into_redo();
        if checkpoint.is_some() {
            transaction.set_quick_repair(true);
        } else {
            transaction.set_durability(redb::Durability::None)?;
        }
        *stage = Stage::Committing;
        if durable && checkpoint.is_none() {
            // On disk before others can see it.
            log.append(redo, now)?;
        }
        transaction.commit()?;
        if let Some(salt) = checkpoint {
            log.begin(salt);
        }
        Ok(true)
    }

    /// Has the engine commit durably what it was given, and the clock's mark with it. Where nothing
    /// but its memory had that, a failure is kept as a loss.
    fn flush(&mut self) {
        let file = Arc::clone(&self.file);
        let guard = file.read();
        self.notice_loss(guard.generation);
        let flushed = catch_unwind(AssertUnwindSafe(|| {
            guard.handle.as_ref().map_or(Ok(()), |handle| checkpoint(handle, self.clock.now()))
        }));
        let seen = guard.generation;
        drop(guard);
        let held_back = self.flush_due.take().is_some();
        if !matches!(flushed, Ok(Ok(()))) {
            // If it cannot be opened anew now, the next request tries again.
            let _ = self.file.reopen(seen);
            if held_back {
                self.lost = Some(loss());
            }
        }
    }

    /// Whoever opens the file anew, because its handle failed, loses what that handle held back.
    fn notice_loss(&mut self, generation: u64) {
        if self.flush_due.take_if(|(_, held_by)| *held_by != generation).is_some() {
            self.lost = Some(loss());
        }
    }

    fn compact(&mut self) -> Result<Compaction> {
        if self.is_behind() {
            self.flush();
        }
        if let Some(lost) = self.lost.take() {
            return Err(lost);
        }
        self.ensure_open()?;
        self.file.compact()
    }

    /// Opens the file again if that failed before.
    fn ensure_open(&self) -> Result<()> {
        let (is_absent, seen) = {
            let guard = self.file.read();
            (guard.handle.is_none(), guard.generation)
        };
        if is_absent { self.file.reopen(seen) } else { Ok(()) }
    }

    /// Whether the engine has yet to commit durably what it was given.
    fn is_behind(&self) -> bool {
        let is_logged = |handle: &Handle| lock(&handle.log).is_ahead();
        self.flush_due.is_some() || self.file.read().handle.as_ref().is_some_and(is_logged)
    }

    fn close(&mut self) -> Result<()> {
        // An entry that somebody saw expire must stay so for whoever opens the file next, even if
        // the clock steps back. And the time that passed while the clock was behind must count: only
        // the mark has it.
        let witnessed = self.witnessed.swap(false, Ordering::Relaxed);
        let marks = witnessed || self.is_behind() || !self.clock.lead().is_zero();
        if marks && !self.file.is_read_only() {
            self.flush();
        }
        let opened = if self.has_erased.get() { self.ensure_open() } else { Ok(()) };
        let closed = catch_unwind(AssertUnwindSafe(|| self.file.close()));
        self.lost.take().map_or(Ok(()), Err)?;
        opened.map_err(|error| self.file.not_purged(error))?;
        closed.unwrap_or_else(|_| Err(Error::internal("the engine failed on closing")))
    }
}

fn loss() -> Error {
    Error::unavailable(
        "the disk failed, and what this relaxed store had acknowledged last is lost; \
         this call changed nothing",
    )
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

#[expect(
    clippy::disallowed_methods,
    reason = "it times the flushes; no caller's deadline is judged"
)]
fn now() -> Instant {
    Instant::now()
}
