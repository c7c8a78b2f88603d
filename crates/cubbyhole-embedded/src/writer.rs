//! Group commit: one writer thread applies all queued requests in one transaction, makes it durable
//! by a log record or a checkpoint, and then answers the callers.
//!
//! A caller whose context ends withdraws its request. If the request was still queued, it certainly
//! has no effect. If the writer had claimed it, the outcome is unknown.

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

/// The capacity of the queue in KiB of values; each request counts as at least one. Further callers
/// wait for space until their contexts end.
const QUEUE_KIB: usize = 256 * 1024;

/// The callers' side of the writer.
pub(crate) struct Writer {
    file: Arc<StoreFile>,
    sender: Sender<Message>,
    queue_space: Arc<Semaphore>,
    commits: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the writer thread.
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
            Error::resource_exhausted("cannot start the writer thread").with_source(error)
        })?;
        let queue_space = Arc::new(Semaphore::new(QUEUE_KIB));
        Ok(Self { file, sender, queue_space, commits, thread: Some(thread) })
    }

    /// The number of committed transactions.
    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Fails if the store is read-only.
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.file.check_writable()
    }

    /// Applies `work` in the next transaction and returns its result after the commit. `bytes` is
    /// the length of the values in `work`.
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
        // Dropping this future withdraws the request too.
        let withdraw_on_drop = WithdrawOnDrop(&claim);
        match ctx.race(answer).await {
            Ok(Ok(result)) => result,
            // The writer ended before it claimed the request.
            Ok(Err(_)) if withdraw_on_drop.0.withdraw() => Err(Error::closed()),
            Ok(Err(_)) => Err(Error::internal("the writer thread ended").with_unknown_outcome()),
            Err(ended) if withdraw_on_drop.0.withdraw() => Err(ended),
            Err(ended) => Err(ended.with_unknown_outcome()),
        }
    }

    /// Compacts the file between two transactions.
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

    /// Asks the writer to finish the queued requests and close the file, without waiting.
    pub(crate) fn begin_close(&self) -> PendingClose {
        // Requests that are queued earlier are applied. Later ones fail because the store is
        // closed.
        let (reply, answer) = oneshot::channel();
        // If the writer has ended, the file is closed, and `PendingClose::wait` returns without an
        // answer.
        let _ = self.sender.send(Message::Close(reply));
        PendingClose(answer)
    }
}

/// A close request that the writer has not answered yet.
pub(crate) struct PendingClose(oneshot::Receiver<Result<()>>);

impl PendingClose {
    /// Waits until the file is closed.
    pub(crate) async fn wait(self, ctx: &ExecutionContext) -> Result<()> {
        match ctx.race(self.0).await {
            // A writer that has ended has closed the file.
            Ok(answer) => answer.unwrap_or(Ok(())),
            Err(ended) => Err(ended.with_unknown_outcome()),
        }
    }
}

impl Drop for Writer {
    /// Waits until the queued requests are written and the file is closed, so it can be opened
    /// again immediately.
    fn drop(&mut self) {
        let _ = self.sender.send(Message::End);
        if let Some(thread) = self.thread.take() {
            // The callers have received its panics as errors.
            let _ = thread.join();
        }
    }
}
