//! In-flight batches of an import. Several are written concurrently, so the store can commit them
//! together.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{Backend, Error, ExecutionContext, Namespace};
use tokio::task::JoinSet;

use super::reader::PendingBatch;
use crate::entries::live_puts::write_live;

/// The maximum number of in-flight batches.
const MAX_BATCHES: usize = 16;
/// The maximum size of all in-flight batches. A larger batch is written alone.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// How long in-flight batches may take to finish after Ctrl-C or the deadline.
const GRACE: Duration = Duration::from_secs(2);

pub(super) struct InFlightBatches {
    store: Arc<dyn Backend>,
    /// Separate from the command's context: in-flight batches get a grace period to finish, so the
    /// counts are exact.
    ctx: ExecutionContext,
    writes: JoinSet<(FinishedBatch, usize)>,
    bytes: usize,
    /// The namespaces of in-flight batches. Batches of one namespace are written one after the
    /// other, because the later one must win.
    namespaces: HashSet<Namespace>,
}

/// A batch whose write has ended.
pub(super) struct FinishedBatch {
    pub(super) namespace: Namespace,
    pub(super) entries: usize,
    /// The first and the last line.
    pub(super) lines: (u64, u64),
    pub(super) position: u64,
    /// The number of entries that were live after the write. The others had expired.
    pub(super) outcome: Result<usize, Error>,
}

impl InFlightBatches {
    pub(super) fn new(store: Arc<dyn Backend>) -> Self {
        Self {
            store,
            ctx: ExecutionContext::new(),
            writes: JoinSet::new(),
            bytes: 0,
            namespaces: HashSet::new(),
        }
    }

    /// Starts writing a batch, or returns it if it must wait for another one.
    pub(super) fn start(&mut self, pending: PendingBatch) -> Option<PendingBatch> {
        let full = self.writes.len() >= MAX_BATCHES || self.bytes + pending.bytes > MAX_BYTES;
        if self.namespaces.contains(&pending.namespace) || (full && !self.writes.is_empty()) {
            return Some(pending);
        }
        let PendingBatch { namespace, batch, bytes, first_line, last_line, position, .. } = pending;
        let lines = (first_line, last_line);
        self.bytes += bytes;
        self.namespaces.insert(namespace.clone());
        let (store, ctx) = (Arc::clone(&self.store), self.ctx.clone());
        self.writes.spawn(async move {
            let entries = batch.len();
            let live = write_live(&*store, &ctx, &namespace, batch).await;
            let outcome = live.map(|live| live.into_iter().filter(|live| *live).count());
            (FinishedBatch { namespace, entries, lines, position, outcome }, bytes)
        });
        None
    }

    /// Waits for the next batch to finish. Returns `None` if none is in flight.
    pub(super) async fn next(&mut self) -> Option<Result<FinishedBatch, Error>> {
        let joined = self.writes.join_next().await?;
        Some(match joined {
            Ok((finished, bytes)) => {
                self.bytes -= bytes;
                self.namespaces.remove(&finished.namespace);
                Ok(finished)
            }
            Err(panic) => Err(Error::internal("a batch failed").with_source(panic)),
        })
    }

    /// Waits for all batches. With `hurry`, cancels those that are not finished after a grace
    /// period.
    pub(super) async fn drain(&mut self, hurry: bool) -> Vec<Result<FinishedBatch, Error>> {
        let mut all = Vec::new();
        let grace = ExecutionContext::new();
        let grace = if hurry { grace.with_timeout(GRACE) } else { grace };
        while let Ok(finished) = grace.race(self.next()).await {
            match finished {
                Some(finished) => all.push(finished),
                None => return all,
            }
        }
        self.ctx.cancel();
        while let Some(finished) = self.next().await {
            all.push(finished);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::sync::mpsc;

    use super::super::reader::{Reader, ReaderEvent};
    use super::*;

    /// Returns one batch with one entry for each namespace.
    fn batches(namespaces: &[&str]) -> VecDeque<PendingBatch> {
        let (sender, mut receiver) = mpsc::channel(2 * MAX_BATCHES);
        let input: String = namespaces
            .iter()
            .map(|name| format!("{{\"namespace\":[\"{name}\"],\"key\":\"k\",\"value\":1}}\n"))
            .collect();
        std::thread::spawn(move || Reader::new(sender, true).run(input.as_bytes())).join().unwrap();
        let mut found = VecDeque::new();
        while let Ok(ReaderEvent::Batch(pending)) = receiver.try_recv() {
            found.push_back(pending);
        }
        assert_eq!(found.len(), namespaces.len());
        found
    }

    #[tokio::test]
    async fn batches_of_one_namespace_are_never_in_flight_together() {
        let store = cubbyhole::open(&ExecutionContext::new(), "memory:").await.unwrap();
        let mut in_flight = InFlightBatches::new(store);
        let mut batches = batches(&["a", "b", "a"]);
        assert!(in_flight.start(batches.pop_front().unwrap()).is_none());
        assert!(in_flight.start(batches.pop_front().unwrap()).is_none());
        let waiting = in_flight.start(batches.pop_front().unwrap()).unwrap();
        for _ in 0..2 {
            assert!(in_flight.next().await.unwrap().unwrap().outcome.is_ok());
        }
        assert!(in_flight.start(waiting).is_none());
        assert_eq!(in_flight.drain(false).await.len(), 1);
    }

    #[tokio::test]
    async fn number_of_in_flight_batches_is_bounded() {
        let store = cubbyhole::open(&ExecutionContext::new(), "memory:").await.unwrap();
        let mut in_flight = InFlightBatches::new(store);
        let names: Vec<String> = (0..=MAX_BATCHES).map(|number| format!("n{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let left = batches(&names).into_iter().filter_map(|pending| in_flight.start(pending));
        assert_eq!(left.count(), 1);
        assert_eq!(in_flight.drain(true).await.len(), MAX_BATCHES);
    }
}
