//! The writer's thread.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use cubbyhole_core::{Clock, Compaction, Error, HighWaterClock, Result};

use super::checkpoint::checkpoint;
use super::queue::{Message, WriteRequest};
use crate::config::{Durability, RELAXED_FLUSH_INTERVAL};
use crate::engine::Tables;
use crate::error::Failure;
use crate::file::{Handle, StoreFile, not_purged};
use crate::wal::{RedoBuffer, Salt};

/// How many requests, and how many KiB of them, one transaction takes before it is committed, so
/// that none waits for ever and memory has a bound.
const GROUP_LENGTH: usize = 1024;
const GROUP_KIB: usize = 64 * 1024;
/// How long a group waits for others at most.
const MAX_GATHER_WAIT: Duration = Duration::from_millis(2);

/// The thread's own side.
pub(super) struct Worker {
    file: Arc<StoreFile>,
    clock: Arc<HighWaterClock>,
    durability: Durability,
    commits: Arc<AtomicU64>,
    saw_expired: Arc<AtomicBool>,
    /// Until when what the relaxed mode holds back must be on disk, and the generation of the file
    /// whose handle holds it.
    flush_due: Option<(Instant, u64)>,
    /// Whether something was erased, so that closing is to purge the file.
    has_erased: Cell<bool>,
    /// What the relaxed mode had acknowledged and the disk did not take, until somebody is told.
    lost_writes: Option<Error>,
    /// How large the last group was, and how long the next one may wait to become as large.
    last_group: usize,
    gather_wait: Duration,
}

impl Worker {
    pub(super) fn new(
        file: Arc<StoreFile>,
        clock: Arc<HighWaterClock>,
        saw_expired: Arc<AtomicBool>,
        durability: Durability,
        commits: Arc<AtomicU64>,
    ) -> Self {
        Self {
            file,
            clock,
            durability,
            commits,
            saw_expired,
            flush_due: None,
            has_erased: Cell::new(false),
            lost_writes: None,
            last_group: 0,
            gather_wait: Duration::ZERO,
        }
    }

    pub(super) fn run(mut self, receiver: &Receiver<Message>) {
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
    ) -> (Vec<Box<dyn WriteRequest>>, Option<Message>) {
        let mut group: Vec<Box<dyn WriteRequest>> = Vec::new();
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

    fn commit_group(&mut self, mut group: Vec<Box<dyn WriteRequest>>) {
        let began = now();
        let failure = self.try_group(&mut group).err();
        self.gather_wait = (began.elapsed() / 4).min(MAX_GATHER_WAIT);
        self.last_group = if failure.is_none() { group.len() } else { 0 };
        for request in group {
            request.answer(failure.as_ref());
        }
    }

    /// Applies and commits a group. An error says whether it certainly had no effect.
    fn try_group(&mut self, group: &mut [Box<dyn WriteRequest>]) -> Result<()> {
        let mut first = true;
        loop {
            let generation = self.file.read().generation;
            self.detect_lost_writes(generation);
            if let Some(lost_writes) = self.lost_writes.take() {
                return Err(lost_writes);
            }
            let mut stage = CommitStage::Beginning;
            let (outcome, seen) = self.transact(group, &mut stage);
            let failure = match outcome {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            // Whatever went wrong, a fresh handle is the safe one.
            let reopened = self.file.reopen(seen);
            match stage {
                // A handle that had failed before refuses to begin: nothing was applied yet.
                CommitStage::Beginning if first => reopened?,
                // If the file could not be opened anew, the next request tries again.
                CommitStage::Beginning | CommitStage::Applying => return Err(failure),
                CommitStage::Committing => return Err(failure.with_unknown_outcome()),
            }
            first = false;
        }
    }

    /// Also the generation of the handle that it went by.
    fn transact(
        &mut self,
        group: &mut [Box<dyn WriteRequest>],
        stage: &mut CommitStage,
    ) -> (Result<()>, u64) {
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
        group: &mut [Box<dyn WriteRequest>],
        durable: bool,
        stage: &mut CommitStage,
    ) -> Result<bool, Failure> {
        let mut transaction = handle.database.begin_write()?;
        *stage = CommitStage::Applying;
        let mut log = handle.lock_log();
        let now = self.clock.now();
        let redo = if durable { RedoBuffer::on() } else { RedoBuffer::off() };
        let mut tables = Tables::open(&transaction, now, redo)?;
        for request in group {
            request.apply(&mut tables)?;
        }
        if tables.erases() {
            log.mark_erased()?;
            self.has_erased.set(true);
        }
        if !tables.changed() {
            if tables.saw_expired() {
                self.saw_expired.store(true, Ordering::Relaxed);
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
        *stage = CommitStage::Committing;
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
        self.detect_lost_writes(guard.generation);
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
                self.lost_writes = Some(lost_writes_error());
            }
        }
    }

    /// Whoever opens the file anew, because its handle failed, loses what that handle held back.
    fn detect_lost_writes(&mut self, generation: u64) {
        if self.flush_due.take_if(|(_, held_by)| *held_by != generation).is_some() {
            self.lost_writes = Some(lost_writes_error());
        }
    }

    fn compact(&mut self) -> Result<Compaction> {
        if self.is_behind() {
            self.flush();
        }
        if let Some(lost_writes) = self.lost_writes.take() {
            return Err(lost_writes);
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
        let is_logged = |handle: &Handle| handle.lock_log().has_records();
        self.flush_due.is_some() || self.file.read().handle.as_ref().is_some_and(is_logged)
    }

    fn close(&mut self) -> Result<()> {
        // An entry that somebody saw expire must stay so for whoever opens the file next, even if
        // the clock steps back. And the time that passed while the clock was behind must count: only
        // the mark has it.
        let saw_expired = self.saw_expired.swap(false, Ordering::Relaxed);
        let marks = saw_expired || self.is_behind() || !self.clock.lead().is_zero();
        if marks && !self.file.is_read_only() {
            self.flush();
        }
        let opened = if self.has_erased.get() { self.ensure_open() } else { Ok(()) };
        let closed = catch_unwind(AssertUnwindSafe(|| self.file.close()));
        self.lost_writes.take().map_or(Ok(()), Err)?;
        opened.map_err(|error| not_purged(self.file.path(), error))?;
        closed.unwrap_or_else(|_| Err(Error::internal("the engine failed on closing")))
    }
}

fn lost_writes_error() -> Error {
    Error::unavailable(
        "the disk failed, and what this relaxed store had acknowledged last is lost; \
         this call changed nothing",
    )
}

/// How far a transaction came; its failure means something else at each.
enum CommitStage {
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
