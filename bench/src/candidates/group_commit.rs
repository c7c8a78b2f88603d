//! A simple group commit: a thread takes all queued writes, commits them together and then answers
//! their callers.

use std::sync::mpsc;
use std::thread;

use cubbyhole::Bytes;
use tokio::sync::oneshot;

use crate::Result;

/// The largest number of writes in a commit.
const LARGEST_GROUP: usize = 1024;

/// The namespace, key and value of an entry.
pub type Write = (String, String, Bytes);

struct QueuedWrites {
    writes: Vec<Write>,
    answer: oneshot::Sender<Result<(), String>>,
}

/// A handle to the thread that commits.
pub struct GroupCommit {
    queue: mpsc::Sender<QueuedWrites>,
}

impl GroupCommit {
    /// Starts a thread that calls `commit` for each group. The thread ends when this value is
    /// dropped.
    pub fn start(mut commit: impl FnMut(&[Write]) -> Result<()> + Send + 'static) -> Self {
        let (queue, queued) = mpsc::channel::<QueuedWrites>();
        thread::spawn(move || {
            while let Ok(first) = queued.recv() {
                let (mut writes, mut answers) = (first.writes, vec![first.answer]);
                while writes.len() < LARGEST_GROUP
                    && let Ok(next) = queued.try_recv()
                {
                    writes.extend(next.writes);
                    answers.push(next.answer);
                }
                let committed = commit(&writes).map_err(|error| error.to_string());
                for answer in answers {
                    // A caller that was cancelled does not wait for the answer.
                    drop(answer.send(committed.clone()));
                }
            }
        });
        Self { queue }
    }

    pub async fn write(&self, writes: Vec<Write>) -> Result<()> {
        let (answer, committed) = oneshot::channel();
        self.queue.send(QueuedWrites { writes, answer })?;
        Ok(committed.await??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn group_commit_answers_every_writer() {
        let (commits, committed) = mpsc::channel();
        let group_commit = GroupCommit::start(move |writes| Ok(commits.send(writes.len())?));
        let write = || vec![("ns".to_owned(), "key".to_owned(), Bytes::new()); 3];
        group_commit.write(write()).await.unwrap();
        assert_eq!(committed.recv().unwrap(), 3);
        drop(committed);
        assert!(group_commit.write(write()).await.is_err());
    }
}
