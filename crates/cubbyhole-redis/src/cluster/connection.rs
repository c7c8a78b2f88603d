//! One connection that callers share.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use futures_util::FutureExt;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisResult, Value};
use tokio::task::JoinHandle;
use tokio::task::coop::unconstrained;
use tokio_util::sync::CancellationToken;

/// A connection that many use at once: each gets the answer to its own request, and an answer that
/// nobody awaits any more is read and dropped.
#[derive(Clone)]
pub(crate) struct Connection {
    shared: MultiplexedConnection,
    driver: Arc<Driver>,
}

/// The task that reads and writes. It ends with the connection, and with the last who holds it.
struct Driver {
    task: JoinHandle<()>,
    /// Cancelled once the task has dropped all that it was to do.
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
            // Dropped after the driver, whether that ends by itself or is aborted.
            let _at_the_end = at_the_end;
            driver.await;
        });
        Self { shared, driver: Arc::new(Driver { task, ended }) }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.driver.task.is_finished()
    }

    /// Ends the connection: requests that wait for an answer do not get one.
    pub(super) fn abort(&self) {
        self.driver.task.abort();
    }

    /// Sends one command and waits for its answer.
    pub(crate) async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        let Self { shared, driver } = self;
        unless_ended(&driver.ended, shared.send_packed_command(command)).await
    }

    /// Sends commands together and waits for all their answers.
    pub(crate) async fn send_all(&mut self, together: &Pipeline) -> RedisResult<Vec<Value>> {
        let Self { shared, driver } = self;
        let count = together.len();
        unless_ended(&driver.ended, shared.send_packed_commands(together, 0, count)).await
    }
}

/// The answer, unless the connection ends first. The client alone would not notice in one case: a
/// request that is handed to the driver at the very moment at which it ends lies in the channel
/// between them, and its caller, who holds that channel, waits for ever.
async fn unless_ended<T>(
    ended: &CancellationToken,
    answer: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    let mut answer = pin!(answer);
    tokio::select! {
        biased;
        answer = answer.as_mut() => answer,
        () = ended.cancelled() => {
            // One that came before the end counts, even if the task's budget is used up.
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
    /// Ends a test that hangs.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Answers every command, until it is told to stop.
    async fn answer_all(mut stream: DuplexStream, stop: CancellationToken) {
        let mut buffer = vec![0; 4096];
        loop {
            let length = tokio::select! {
                length = stream.read(&mut buffer) => length.unwrap_or(0),
                () = stop.cancelled() => return,
            };
            // No argument begins with the sign of a command here.
            let commands = buffer[..length].iter().filter(|byte| **byte == b'*').count();
            if length == 0 || stream.write_all(&b"+OK\r\n".repeat(commands)).await.is_err() {
                return;
            }
        }
    }

    /// The moment cannot be hit on purpose; in so many rounds it is.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_request_handed_over_as_the_connection_ends_does_not_wait_for_ever() {
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
