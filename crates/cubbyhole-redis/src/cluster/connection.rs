//! One multiplexed connection.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use futures_util::FutureExt;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisResult, Value};
use tokio::task::JoinHandle;
use tokio::task::coop::unconstrained;
use tokio_util::sync::CancellationToken;

/// A connection that many callers share. Each caller gets the reply to its own request. The reply
/// to a cancelled request is read and dropped.
#[derive(Clone)]
pub(crate) struct Connection {
    shared: MultiplexedConnection,
    driver: Arc<Driver>,
}

/// The task that reads and writes. It ends with the connection, or when the last handle is dropped.
struct Driver {
    task: JoinHandle<()>,
    /// Cancelled after the task has ended and dropped its queue.
    ended: CancellationToken,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    pub(super) fn new(
        shared: MultiplexedConnection,
        driver: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let ended = CancellationToken::new();
        let at_the_end = ended.clone().drop_guard();
        let task = tokio::spawn(async move {
            // Dropped after the driver, even if the task is aborted.
            let _at_the_end = at_the_end;
            driver.await;
        });
        Self { shared, driver: Arc::new(Driver { task, ended }) }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.driver.task.is_finished()
    }

    /// Closes the connection. Requests in flight fail.
    pub(super) fn abort(&self) {
        self.driver.task.abort();
    }

    /// Sends one command and waits for its reply.
    pub(crate) async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        let Self { shared, driver } = self;
        unless_ended(&driver.ended, shared.send_packed_command(command)).await
    }

    /// Sends commands as one pipeline and waits for all replies.
    pub(crate) async fn send_all(&mut self, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        let Self { shared, driver } = self;
        let count = pipeline.len();
        unless_ended(&driver.ended, shared.send_packed_commands(pipeline, 0, count)).await
    }
}

/// Waits for a reply, and fails if the connection ends first.
///
/// The Redis client misses one case: if a request enters the channel to the driver at the moment at
/// which the driver ends, the request is never processed, and its caller waits indefinitely.
async fn unless_ended<T>(
    ended: &CancellationToken,
    answer: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    let mut answer = pin!(answer);
    tokio::select! {
        biased;
        answer = answer.as_mut() => answer,
        () = ended.cancelled() => {
            // Takes a reply that arrived before the end, even if the task's budget is used up.
            unconstrained(answer).now_or_never().unwrap_or_else(|| {
                Err(io::Error::new(io::ErrorKind::BrokenPipe, "the connection has ended").into())
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use redis::{AsyncConnectionConfig, RedisConnectionInfo};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::task::JoinSet;

    use super::*;

    const ROUNDS: usize = 3_000;
    const CALLERS: usize = 4;
    /// The time limit of the test.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Answers every command until `stop` is cancelled.
    async fn answer_all(mut stream: DuplexStream, stop: CancellationToken) {
        let mut buffer = vec![0; 4096];
        loop {
            let length = tokio::select! {
                length = stream.read(&mut buffer) => length.unwrap_or(0),
                () = stop.cancelled() => return,
            };
            // In this test, `*` occurs only at the start of a command.
            let commands = buffer[..length].iter().filter(|byte| **byte == b'*').count();
            if length == 0 || stream.write_all(&b"+OK\r\n".repeat(commands)).await.is_err() {
                return;
            }
        }
    }

    /// The race cannot be provoked directly, but occurs within this many rounds.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn request_sent_as_the_connection_ends_fails_promptly() {
        for round in 0..ROUNDS {
            let (near, far) = tokio::io::duplex(4096);
            let stop = CancellationToken::new();
            let server = tokio::spawn(answer_all(far, stop.clone()));
            let config = AsyncConnectionConfig::new().set_response_timeout(None);
            let info = RedisConnectionInfo::default();
            let connected = MultiplexedConnection::new_with_config(&info, near, config).await;
            let (shared, driver) = connected.unwrap();
            let connection = Connection::new(shared, driver);
            let mut callers = JoinSet::new();
            for _ in 0..CALLERS {
                let mut connection = connection.clone();
                callers.spawn(async move {
                    let mut answered = 0;
                    while connection.send(&redis::cmd("PING")).await.is_ok() {
                        answered += 1;
                    }
                    answered
                });
            }
            for _ in 0..fastrand::u8(1..8) {
                tokio::task::yield_now().await;
            }
            stop.cancel();
            let ended = tokio::time::timeout(PATIENCE, callers.join_all()).await;
            assert_eq!(
                ended.map(|answered: Vec<u32>| answered.len()),
                Ok(CALLERS),
                "round {round}"
            );
            server.await.unwrap();
        }
    }
}
