//! One server, and the connections to it that callers share.

use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use cubbyhole_core::runtime::requiring_io;
use cubbyhole_core::{Error, ExecutionContext, Result};
use futures_util::FutureExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisConnectionInfo, RedisResult, Value};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::task::coop::unconstrained;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::config::{Address, Config};
use crate::error::{not_admitted, unreachable};
use crate::tls;

/// A peer that is silent for this long is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// A peer that has not confirmed bytes for this long is given up.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// How many requests wait to be written before callers wait.
const BUFFERED_REQUESTS: usize = 1024;

/// How connections are made, to any server of the store.
pub(crate) struct Connector {
    info: RedisConnectionInfo,
    tls: Option<TlsConnector>,
    /// Whether it presents a client certificate.
    has_certificate: bool,
    connect_timeout: Duration,
    connections: usize,
    wait_connections: usize,
}

impl Connector {
    pub(crate) fn new(config: &Config) -> Result<Self> {
        let mut info = RedisConnectionInfo::default()
            .set_db(config.database)
            .set_lib_name("cubbyhole", env!("CARGO_PKG_VERSION"));
        if let Some(username) = &config.username {
            info = info.set_username(username);
        }
        if let Some(password) = &config.password {
            info = info.set_password(password);
        }
        config.check_client_certificate()?;
        let tls = if config.tls { Some(tls::connector(config)?) } else { None };
        Ok(Self {
            info,
            tls,
            has_certificate: config.client_cert.is_some(),
            connect_timeout: config.connect_timeout,
            connections: config.connections,
            wait_connections: config.wait_connections,
        })
    }

    async fn connect(&self, address: &Address) -> Result<Connection> {
        // The limit is on the connection, whoever waits for it.
        let limit = ExecutionContext::new().with_timeout(self.connect_timeout);
        let connecting = async {
            let stream = self.open(address).await;
            let stream =
                stream.map_err(|error| unreachable(address, error, self.has_certificate))?;
            let config = AsyncConnectionConfig::new()
                .set_response_timeout(None)
                .set_pipeline_buffer_size(BUFFERED_REQUESTS);
            let connected = MultiplexedConnection::new_with_config(&self.info, stream, config);
            connected.await.map_err(|error| not_admitted(address, error, self.has_certificate))
        };
        let timed_out = |_| {
            let late = io::Error::new(io::ErrorKind::TimedOut, "connecting timed out");
            unreachable(address, late, self.has_certificate)
        };
        let connected = requiring_io(limit.race(connecting)).await?;
        let (shared, driver) = connected.map_err(timed_out)??;
        Ok(Connection::new(shared, driver))
    }

    async fn open(&self, address: &Address) -> io::Result<Stream> {
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        let Some(tls) = &self.tls else {
            return Ok(Stream::Plain(stream));
        };
        let name = ServerName::try_from(address.host.clone()).map_err(io::Error::other)?;
        Ok(Stream::Encrypted(Box::new(tls.connect(name, stream).await?)))
    }
}

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
    fn new(
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

    fn is_closed(&self) -> bool {
        self.driver.task.is_finished()
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

/// A server.
pub(crate) struct Node {
    pub(crate) address: Address,
    connector: Arc<Connector>,
    /// For what is answered at once. The slots are divided among them.
    ordinary: Vec<Place>,
    /// For writes that wait for replicas: such a write keeps others on its connection waiting.
    waiting: Vec<Place>,
    turn: AtomicUsize,
}

/// Where a connection is kept.
#[derive(Default)]
struct Place {
    current: RwLock<Option<Connection>>,
    /// How often connecting has failed.
    failures: AtomicUsize,
    /// Held while connecting; why it failed last.
    connecting: tokio::sync::Mutex<Option<Error>>,
}

impl Node {
    pub(crate) fn new(address: Address, connector: Arc<Connector>) -> Self {
        let places = |count| (0..count).map(|_| Place::default()).collect();
        let ordinary = places(connector.connections);
        let waiting = places(connector.wait_connections);
        Self { address, connector, ordinary, waiting, turn: AtomicUsize::new(0) }
    }

    /// The connection of a slot for what is answered at once. It is always the same, so that a
    /// read comes after a write that was given up: then it tells what became of it.
    pub(crate) async fn connection(&self, slot: u16) -> Result<Connection> {
        self.connection_of(&self.ordinary[usize::from(slot) % self.ordinary.len()]).await
    }

    /// One of the connections for writes that wait for replicas, in turn.
    pub(crate) async fn waiting_connection(&self) -> Result<Connection> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.connection_of(&self.waiting[turn % self.waiting.len()]).await
    }

    async fn connection_of(&self, place: &Place) -> Result<Connection> {
        match place.open() {
            Some(connection) => Ok(connection),
            // Apart, because a call that need not connect would carry the room for it along.
            None => Box::pin(self.connect(place)).await,
        }
    }

    /// Whoever waits while another connects takes what comes of it: callers that each tried for
    /// themselves, one after another, would wait for many times the limit.
    async fn connect(&self, place: &Place) -> Result<Connection> {
        let failures = place.failures.load(Ordering::Acquire);
        let mut last_failure = place.connecting.lock().await;
        if let Some(connection) = place.open() {
            return Ok(connection);
        }
        if place.failures.load(Ordering::Acquire) != failures
            && let Some(error) = last_failure.as_ref()
        {
            return Err(error.clone());
        }
        let connection = match self.connector.connect(&self.address).await {
            Ok(connection) => connection,
            Err(error) => {
                *last_failure = Some(error.clone());
                place.failures.fetch_add(1, Ordering::AcqRel);
                return Err(error);
            }
        };
        let mut current = place.current.write().unwrap_or_else(PoisonError::into_inner);
        let before = current.replace(connection.clone());
        drop(current);
        if before.is_some() {
            tracing::info!(address = %self.address, "connected again: the connection had ended");
        } else {
            tracing::debug!(address = %self.address, "connected");
        }
        Ok(connection)
    }

    /// Ends the connections: what waits for an answer on them does not get one.
    pub(crate) fn hang_up(&self) {
        for place in self.ordinary.iter().chain(&self.waiting) {
            let current = place.current.write().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(connection) = current {
                connection.driver.task.abort();
            }
        }
    }

    /// Lets go of the connections; those under way end with their last request.
    pub(crate) fn disconnect(&self) {
        for place in self.ordinary.iter().chain(&self.waiting) {
            place.current.write().unwrap_or_else(PoisonError::into_inner).take();
        }
    }
}

impl Place {
    fn open(&self) -> Option<Connection> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().filter(|connection| !connection.is_closed()).cloned()
    }
}

enum Stream {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Encrypted(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Encrypted(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Encrypted(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Encrypted(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
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
