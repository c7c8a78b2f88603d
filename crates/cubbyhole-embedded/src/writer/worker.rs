//! The writer thread.

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
use crate::error::{ENGINE_PANIC, Failure};
use crate::file::{Handle, StoreFile, not_purged};
use crate::wal::{RedoBuffer, Salt};

/// The most requests in one group, which bounds their latency.
const GROUP_LENGTH: usize = 1024;
/// The size in KiB at which a group is full, which bounds memory.
const GROUP_KIB: usize = 64 * 1024;
/// The longest time that a group waits for further requests.
const MAX_GATHER_WAIT: Duration = Duration::from_millis(2);

/// The state of the writer thread.
pub(super) struct Worker {
    file: Arc<StoreFile>,
    clock: Arc<HighWaterClock>,
    durability: Durability,
    commits: Arc<AtomicU64>,
    saw_expired: Arc<AtomicBool>,
    /// In relaxed mode: when the unflushed writes must be on disk, and the file generation that
    /// holds them.
    flush_due: Option<(Instant, u64)>,
    /// Whether entries were erased, so closing must purge the file.
    has_erased: Cell<bool>,
    /// In relaxed mode: acknowledged writes were lost, and no caller has received this error yet.
    lost_writes: Option<Error>,
    /// The size of the last group.
    last_group: usize,
    /// How long the next group may wait to become as large.
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
                        // The caller may have gone.
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
        // No caller is left to receive an error. `Backend::close` reports errors.
        let _ = self.close();
    }

    /// Waits for the next message. In relaxed mode, flushes when the flush is due.
    fn next(&mut self, receiver: &Receiver<Message>) -> Option<Message> {
        if let Some((due, _)) = self.flush_due {
            let received = receiver.recv_timeout(due.saturating_duration_since(now()));
            if now() >= due {
                // The flush comes before the received message. Otherwise a busy queue could delay
                // it indefinitely. A failure is kept for the next write.
                self.flush();
            }
            if !matches!(received, Err(RecvTimeoutError::Timeout)) {
                return received.ok();
            }
        }
        receiver.recv().ok()
    }

    /// Collects the queued requests into one group, up to the first message of another kind.
    ///
    /// Callers that were just answered often write again immediately. Without a short wait, such
    /// callers would alternate in two half-size groups. So this waits until the group is as large
    /// as the last one, for at most a quarter of the time of that commit and at most
    /// [`MAX_GATHER_WAIT`].
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
        // Requests are claimed as late as possible: until here their callers can withdraw them.
        group.retain(|request| request.claim());
        (group, interruption)
    }

    /// Commits a group and answers its callers.
    fn commit_group(&mut self, mut group: Vec<Box<dyn WriteRequest>>) {
        let started = now();
        let failure = self.try_group(&mut group).err();
        self.gather_wait = (started.elapsed() / 4).min(MAX_GATHER_WAIT);
        self.last_group = if failure.is_none() { group.len() } else { 0 };
        for request in group {
            request.answer(failure.as_ref());
        }
    }

    /// Applies and commits a group. The error says whether the group certainly had no effect.
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
            // After any failure a new handle is the safe choice.
            let reopened = self.file.reopen(seen);
            match stage {
                // The handle had failed earlier. Nothing was applied, so the group is retried once.
                CommitStage::Beginning if first => reopened?,
                // If reopening failed, the next request tries it again.
                CommitStage::Beginning | CommitStage::Applying => return Err(failure),
                CommitStage::Committing => return Err(failure.with_unknown_outcome()),
            }
            first = false;
        }
    }

    /// Runs a group in one transaction. Also returns the generation of the handle that it used.
    fn transact(
        &mut self,
        group: &mut [Box<dyn WriteRequest>],
        stage: &mut CommitStage,
    ) -> (Result<()>, u64) {
        let durable = self.durability == Durability::Immediate;
        let guard = self.file.read();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let handle = guard.handle.as_ref().ok_or_else(|| self.file.no_handle())?;
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
            Err(_) => Err(Error::corrupt(ENGINE_PANIC)),
        };
        (outcome, generation)
    }

    /// Applies a group to the tables and commits. Returns whether anything was committed.
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
        let redo = if durable { RedoBuffer::recording() } else { RedoBuffer::disabled() };
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
        let needs_checkpoint = tables.upgrades_format() || !log.has_room(tables.redo());
        let checkpoint = (durable && needs_checkpoint).then(Salt::draw);
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
            // The record must be on disk before the commit makes the writes visible.
            log.append(redo, now)?;
        }
        transaction.commit()?;
        if let Some(salt) = checkpoint {
            log.restart(salt);
        }
        Ok(true)
    }

    /// Makes all commits and the clock's mark durable with a checkpoint. If unflushed writes of the
    /// relaxed mode are lost, keeps the error for the next call.
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
            // If reopening fails, the next request tries it again.
            let _ = self.file.reopen(seen);
            if held_back {
                self.lost_writes = Some(lost_writes_error());
            }
        }
    }

    /// Detects that another thread has reopened the file, which loses unflushed writes of the old
    /// handle.
    fn detect_lost_writes(&mut self, generation: u64) {
        if self.flush_due.take_if(|(_, held_by)| *held_by != generation).is_some() {
            self.lost_writes = Some(lost_writes_error());
        }
    }

    fn compact(&mut self) -> Result<Compaction> {
        if self.needs_checkpoint() {
            self.flush();
        }
        if let Some(lost_writes) = self.lost_writes.take() {
            return Err(lost_writes);
        }
        self.ensure_open()?;
        self.file.compact()
    }

    /// Reopens the file if an earlier attempt failed.
    fn ensure_open(&self) -> Result<()> {
        let (is_absent, seen) = {
            let guard = self.file.read();
            (guard.handle.is_none(), guard.generation)
        };
        if is_absent { self.file.reopen(seen) } else { Ok(()) }
    }

    /// Whether there are commits that the engine has not made durable.
    fn needs_checkpoint(&self) -> bool {
        let is_logged = |handle: &Handle| handle.lock_log().has_records();
        self.flush_due.is_some() || self.file.read().handle.as_ref().is_some_and(is_logged)
    }

    fn close(&mut self) -> Result<()> {
        // The clock's mark must be stored if a caller saw an entry expire, so it stays expired
        // after the clock steps back. It must also be stored if the clock is behind, because only
        // the mark has the time that has passed.
        let saw_expired = self.saw_expired.swap(false, Ordering::Relaxed);
        let must_flush = saw_expired || self.needs_checkpoint() || !self.clock.lead().is_zero();
        if must_flush && !self.file.is_read_only() {
            self.flush();
        }
        let opened = if self.has_erased.get() { self.ensure_open() } else { Ok(()) };
        let closed = catch_unwind(AssertUnwindSafe(|| self.file.close()));
        self.lost_writes.take().map_or(Ok(()), Err)?;
        opened.map_err(|error| not_purged(self.file.path(), error))?;
        closed.unwrap_or_else(|_| {
            Err(Error::internal("the storage engine failed while closing the file"))
        })
    }
}

fn lost_writes_error() -> Error {
    Error::unavailable(
        "the disk failed, and the last acknowledged writes of this relaxed store are lost; \
         this call changed nothing",
    )
}

/// The progress of a transaction, which decides the effect of a failure.
enum CommitStage {
    /// Nothing was applied, so the group can be retried.
    Beginning,
    /// The transaction is rolled back and certainly has no effect.
    Applying,
    /// The transaction may be on disk.
    Committing,
}

#[expect(
    clippy::disallowed_methods,
    reason = "measures flushes and groups; decides no caller's deadline"
)]
fn now() -> Instant {
    Instant::now()
}
