//! The messages in the writer's queue, and the claims that decide races with cancelled callers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use cubbyhole_core::{Compaction, Error, Result};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::engine::Tables;
use crate::error::Failure;

/// A message to the writer.
pub(super) enum Message {
    Write(Box<dyn WriteRequest>),
    Compact(oneshot::Sender<Result<Compaction>>, Arc<Claim>),
    Close(oneshot::Sender<Result<()>>),
    /// The last clone of the store was dropped.
    End,
}

/// A write request with any result type.
pub(super) trait WriteRequest: Send {
    /// Claims the request for the writer. Returns `false` if its caller has withdrawn it.
    fn claim(&self) -> bool;
    /// The size of its values, for the limits of the queue and the group.
    fn kib(&self) -> usize;
    /// Runs the request within the transaction. Returns only failures of the engine, which fail the
    /// whole group. Keeps a refusal as the result of this request.
    fn apply(&mut self, tables: &mut Tables<'_>) -> Result<(), Failure>;
    /// Sends the caller the result of `apply`, or `failure` if the transaction failed.
    fn answer(self: Box<Self>, failure: Option<&Error>);
}

/// A queued write: its work, its reply channel and its share of the queue's capacity.
pub(super) struct QueuedWrite<T, F> {
    work: Option<F>,
    outcome: Option<Result<T>>,
    reply: Option<oneshot::Sender<Result<T>>>,
    claim: Arc<Claim>,
    kib: usize,
    _permits: OwnedSemaphorePermit,
}

impl<T, F> QueuedWrite<T, F> {
    pub(super) fn new(
        work: F,
        reply: oneshot::Sender<Result<T>>,
        claim: Arc<Claim>,
        kib: usize,
        permits: OwnedSemaphorePermit,
    ) -> Self {
        Self { work: Some(work), outcome: None, reply: Some(reply), claim, kib, _permits: permits }
    }
}

impl<T, F> WriteRequest for QueuedWrite<T, F>
where
    T: Send,
    F: FnOnce(&mut Tables<'_>) -> Result<T, Failure> + Send,
{
    fn claim(&self) -> bool {
        self.claim.claim()
    }

    fn kib(&self) -> usize {
        self.kib
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
            // The failure also replaces a refusal, which may depend on other writes of the same
            // transaction.
            (_, Some(error)) => Err(error.clone()),
            (Some(outcome), None) => outcome,
            (None, None) => Err(Error::internal("the request was not applied")),
        };
        if let Some(reply) = self.reply.take() {
            // The caller may have gone.
            let _ = reply.send(answer);
        }
    }
}

/// The state of a request: queued, claimed by the writer, or withdrawn by its caller.
#[derive(Default)]
pub(super) struct Claim(AtomicU8);

impl Claim {
    const QUEUED: u8 = 0;
    const CLAIMED: u8 = 1;
    const WITHDRAWN: u8 = 2;

    pub(super) fn claim(&self) -> bool {
        self.change(Self::CLAIMED)
    }

    /// Withdraws the request. Returns `false` if the writer has claimed it.
    pub(super) fn withdraw(&self) -> bool {
        self.change(Self::WITHDRAWN)
    }

    fn change(&self, to: u8) -> bool {
        let result = self.0.compare_exchange(Self::QUEUED, to, Ordering::AcqRel, Ordering::Acquire);
        result.is_ok()
    }
}

/// Withdraws the request when dropped, unless the writer has claimed it.
pub(super) struct WithdrawOnDrop<'a>(pub(super) &'a Claim);

impl Drop for WithdrawOnDrop<'_> {
    fn drop(&mut self) {
        self.0.withdraw();
    }
}

#[cfg(test)]
mod tests {
    use cubbyhole_core::{ErrorKind, Timestamp};
    use redb::backends::InMemoryBackend;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::wal::RedoBuffer;

    /// The error that a request with a conflict receives, if the transaction ends with `failure`.
    fn answer_to_conflict(failure: Option<&Error>) -> ErrorKind {
        let database = redb::Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut tables =
            Tables::open(&transaction, Timestamp::EPOCH, RedoBuffer::disabled()).unwrap();
        let (reply, mut answer) = oneshot::channel::<Result<()>>();
        let permits = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let work = |_: &mut Tables<'_>| Err(Error::conflict(None).into());
        let mut request = Box::new(QueuedWrite::new(work, reply, Arc::default(), 1, permits));
        request.apply(&mut tables).unwrap();
        request.answer(failure);
        answer.try_recv().unwrap().unwrap_err().kind()
    }

    #[test]
    fn failed_commit_replaces_a_conflict() {
        assert_eq!(answer_to_conflict(None), ErrorKind::Conflict);
        let failure = Error::unavailable("the disk failed");
        assert_eq!(answer_to_conflict(Some(&failure)), ErrorKind::Unavailable);
    }
}
