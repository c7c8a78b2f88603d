//! The one writer: a thread that takes whatever is queued, applies it in one transaction, has that on
//! disk by one record of the log or by a checkpoint, and then answers everyone.
//!
//! A caller whose context ends while its request waits in the queue takes it back, and it certainly
//! has no effect. Once the writer has claimed a request its outcome is unknown to a caller that
//! does not wait for the answer.

mod checkpoint;
mod queue;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use cubbyhole_core::{Compaction, Error, ExecutionContext, HighWaterClock, Result};
use tokio::sync::{Semaphore, oneshot};

use queue::{Claim, Message, QueuedWrite, WithdrawOnDrop};
use worker::Worker;

use crate::config::Durability;
use crate::engine::Tables;
use crate::error::Failure;
use crate::file::StoreFile;

pub(crate) use checkpoint::checkpoint;

/// How much may wait, in KiB of values and at least one for each request; callers past that wait
/// for a place, within their context.
const QUEUE_KIB: usize = 256 * 1024;

/// The sending side.
pub(crate) struct Writer {
    file: Arc<StoreFile>,
    sender: Sender<Message>,
    queue_space: Arc<Semaphore>,
    commits: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(
        file: Arc<StoreFile>,
        clock: Arc<HighWaterClock>,
        saw_expired: Arc<AtomicBool>,
        durability: Durability,
    ) -> Result<Self> {
        let (sender, receiver) = channel();
        let commits = Arc::new(AtomicU64::new(0));
        let thread = std::thread::Builder::new().name("cubbyhole-writer".to_owned()).spawn({
            let (file, commits) = (Arc::clone(&file), Arc::clone(&commits));
            move || {
                Worker::new(file, clock, saw_expired, durability, commits).run(&receiver);
            }
        });
        let thread = thread.map_err(|error| {
            Error::resource_exhausted("no thread could be started").with_source(error)
        })?;
        let queue_space = Arc::new(Semaphore::new(QUEUE_KIB));
        Ok(Self { file, sender, queue_space, commits, thread: Some(thread) })
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
        let count = u32::try_from(kib.min(QUEUE_KIB)).unwrap_or(u32::MAX);
        let queue_space = || Arc::clone(&self.queue_space);
        let permits = match queue_space().try_acquire_many_owned(count) {
            Ok(permits) => permits,
            Err(_) => ctx
                .race(queue_space().acquire_many_owned(count))
                .await?
                .map_err(|_| Error::closed())?,
        };
        let (reply, answer) = oneshot::channel();
        let claim = Arc::new(Claim::default());
        let request = QueuedWrite::new(work, reply, Arc::clone(&claim), kib, permits);
        self.sender.send(Message::Write(Box::new(request))).map_err(|_| Error::closed())?;
        // A future that is dropped takes its request back too.
        let withdraw_on_drop = WithdrawOnDrop(&claim);
        match ctx.race(answer).await {
            Ok(Ok(result)) => result,
            // Queued behind the end of the writer: nobody will ever claim it.
            Ok(Err(_)) if withdraw_on_drop.0.withdraw() => Err(Error::closed()),
            Ok(Err(_)) => Err(Error::internal("the writer ended").with_unknown_outcome()),
            Err(ended) if withdraw_on_drop.0.withdraw() => Err(ended),
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
        let withdraw_on_drop = WithdrawOnDrop(&claim);
        match ctx.race(answer).await {
            Ok(answer) => answer.map_err(|_| Error::closed())?,
            Err(ended) if withdraw_on_drop.0.withdraw() => Err(ended),
            Err(ended) => Err(ended.with_unknown_outcome()),
        }
    }

    /// Asks the writer to finish the queued requests and to close the file. Does not wait for it.
    pub(crate) fn begin_close(&self) -> PendingClose {
        // Requests queued before it are applied; later ones find the store closed.
        let (reply, answer) = oneshot::channel();
        // A writer that has ended has closed the file, and the answer never comes.
        let _ = self.sender.send(Message::Close(reply));
        PendingClose(answer)
    }
}

/// A close that the writer was asked for.
pub(crate) struct PendingClose(oneshot::Receiver<Result<()>>);

impl PendingClose {
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
