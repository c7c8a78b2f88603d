//! The queue before the writer: messages, requests, and who has a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use cubbyhole_core::{Compaction, Error, Result};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::engine::Tables;
use crate::error::Failure;

/// What the writer is asked for.
pub(super) enum Message {
    Write(Box<dyn WriteRequest>),
    Compact(oneshot::Sender<Result<Compaction>>, Arc<Claim>),
    Close(oneshot::Sender<Result<()>>),
    /// The last handle of the store is gone.
    End,
}

/// A request, whatever it answers.
pub(super) trait WriteRequest: Send {
    /// Claims it for the writer; `false` if its caller took it back.
    fn claim(&self) -> bool;
    /// How much it holds.
    fn kib(&self) -> usize;
    /// Does its part of the transaction. An engine's failure is handed back: it is everyone's.
    fn apply(&mut self, tables: &mut Tables<'_>) -> Result<(), Failure>;
    /// Answers the caller: with what `apply` found, or with why the transaction failed.
    fn answer(self: Box<Self>, failure: Option<&Error>);
}

/// A request with its work and its caller's place in the queue.
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
            // A refusal too: it may rest on what others in the same transaction wrote.
            (_, Some(error)) => Err(error.clone()),
            (Some(outcome), None) => outcome,
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
pub(super) struct Claim(AtomicU8);

impl Claim {
    const QUEUED: u8 = 0;
    const CLAIMED: u8 = 1;
    const WITHDRAWN: u8 = 2;

    pub(super) fn claim(&self) -> bool {
        self.change(Self::CLAIMED)
    }

    /// Takes the request back; `false` if the writer has claimed it.
    pub(super) fn withdraw(&self) -> bool {
        self.change(Self::WITHDRAWN)
    }

    fn change(&self, to: u8) -> bool {
        let result = self.0.compare_exchange(Self::QUEUED, to, Ordering::AcqRel, Ordering::Acquire);
        result.is_ok()
    }
}

/// Takes the request back when it is dropped, unless the writer has claimed it.
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

    /// What a request that was refused with a conflict is told in the end.
    fn told(failure: Option<&Error>) -> ErrorKind {
        let database = redb::Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut tables = Tables::open(&transaction, Timestamp::EPOCH, RedoBuffer::off()).unwrap();
        let (reply, mut answer) = oneshot::channel::<Result<()>>();
        let permits = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let work = |_: &mut Tables<'_>| Err(Error::conflict(None).into());
        let mut request = Box::new(QueuedWrite::new(work, reply, Arc::default(), 1, permits));
        request.apply(&mut tables).unwrap();
        request.answer(failure);
        answer.try_recv().unwrap().unwrap_err().kind()
    }

    #[test]
    fn a_conflict_with_what_was_never_committed_is_not_told() {
        assert_eq!(told(None), ErrorKind::Conflict);
        assert_eq!(told(Some(&Error::unavailable("the disk failed"))), ErrorKind::Unavailable);
    }
}
