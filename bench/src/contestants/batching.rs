//! A group commit as one writes it by hand: a thread that takes whatever is queued, commits it
//! together, and then answers everyone.

use std::sync::mpsc;
use std::thread;

use cubbyhole::Bytes;
use tokio::sync::oneshot;

use crate::Result;

/// How many writes a commit takes at most.
const LARGEST_GROUP: usize = 1024;

/// An entry by its namespace and key.
pub type Write = (String, String, Bytes);

struct Queued {
    writes: Vec<Write>,
    answer: oneshot::Sender<Result<(), String>>,
}

pub struct Batching {
    queue: mpsc::Sender<Queued>,
}

impl Batching {
    /// Commits with `commit`, in a thread that ends when this is dropped.
    pub fn start(mut commit: impl FnMut(&[Write]) -> Result<()> + Send + 'static) -> Self {
        let (queue, queued) = mpsc::channel::<Queued>();
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
                    // Whoever has gone away does not want to know.
                    drop(answer.send(committed.clone()));
                }
            }
        });
        Self { queue }
    }

    pub async fn write(&self, writes: Vec<Write>) -> Result<()> {
        let (answer, committed) = oneshot::channel();
        self.queue.send(Queued { writes, answer })?;
        Ok(committed.await??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everyone_is_answered_after_the_commit() {
        let (commits, committed) = mpsc::channel();
        let batching = Batching::start(move |writes| Ok(commits.send(writes.len())?));
        let write = || vec![("ns".to_owned(), "key".to_owned(), Bytes::new()); 3];
        batching.write(write()).await.unwrap();
        assert_eq!(committed.recv().unwrap(), 3);
        drop(committed);
        assert!(batching.write(write()).await.is_err());
    }
}
