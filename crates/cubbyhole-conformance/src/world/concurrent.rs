//! Concurrent calls of a case.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Barrier;

use super::World;
use crate::Sample;
use crate::outcome::{Outcome, Stop};

impl<V: Sample> World<V> {
    /// Runs `task` concurrently on `tasks` spawned tasks that start together.
    pub(crate) async fn at_once<T, F>(
        &self,
        tasks: usize,
        task: impl Fn(usize, Self) -> F,
    ) -> Outcome<Vec<T>>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let barrier = Arc::new(Barrier::new(tasks));
        let spawned: Vec<_> = (0..tasks)
            .map(|index| {
                let barrier = Arc::clone(&barrier);
                let future = task(index, self.clone());
                tokio::spawn(async move {
                    barrier.wait().await;
                    future.await
                })
            })
            .collect();
        let mut results = Vec::with_capacity(tasks);
        for task in spawned {
            let result = task.await;
            results
                .push(result.map_err(|error| Stop::failed(format!("a task panicked: {error}")))?);
        }
        Ok(results)
    }

    /// Makes at least 50 reads in each of three tasks, beside at least 50 writes in a fourth task,
    /// which ends with the last read.
    pub(crate) async fn reads_beside_writer<W, R>(
        &self,
        write: impl Fn(Self) -> W + Clone + Send + 'static,
        read: impl Fn(Self) -> R + Clone + Send + 'static,
    ) -> Outcome
    where
        W: Future<Output = Outcome> + Send + 'static,
        R: Future<Output = Outcome> + Send + 'static,
    {
        const READERS: usize = 3;
        // Ends the reads if the writer has failed.
        const MAX_READS: usize = 10_000;
        let reading = Arc::new(AtomicUsize::new(READERS));
        let writes = Arc::new(AtomicUsize::new(0));
        let results = self
            .at_once(READERS + 1, move |task, w| {
                let (reading, writes) = (Arc::clone(&reading), Arc::clone(&writes));
                let (write, read) = (write.clone(), read.clone());
                async move {
                    if task == 0 {
                        while reading.load(Ordering::Acquire) > 0 {
                            write(w.clone()).await?;
                            writes.fetch_add(1, Ordering::AcqRel);
                            tokio::task::yield_now().await;
                        }
                        return Ok(());
                    }
                    let _ended = EndOfReads(reading);
                    let mut result = Ok(());
                    for reads in 1.. {
                        result = read(w.clone()).await;
                        let is_enough = reads >= 50 && writes.load(Ordering::Acquire) >= 50;
                        if result.is_err() || is_enough || reads == MAX_READS {
                            break;
                        }
                        tokio::task::yield_now().await;
                    }
                    result
                }
            })
            .await?;
        results.into_iter().collect()
    }
}

/// Counts a reader down when it ends, even by a panic.
struct EndOfReads(Arc<AtomicUsize>);

impl Drop for EndOfReads {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
