//! One server, and the connections to it that callers share.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use cubbyhole_core::{Error, ExecutionContext, Result};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{Address, RedisConfig};
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
    connect_timeout: Duration,
    connections: usize,
    wait_connections: usize,
}

impl Connector {
    pub(crate) fn new(config: &RedisConfig) -> Result<Self> {
        let mut info = RedisConnectionInfo::default()
            .set_db(config.database)
            .set_lib_name("cubbyhole", env!("CARGO_PKG_VERSION"));
        if let Some(username) = &config.username {
            info = info.set_username(username);
        }
        if let Some(password) = &config.password {
            info = info.set_password(password);
        }
        let tls = if config.tls { Some(tls::connector(config)?) } else { None };
        Ok(Self {
            info,
            tls,
            connect_timeout: config.connect_timeout,
            connections: config.connections,
            wait_connections: config.wait_connections,
        })
    }

    async fn connect(&self, address: &Address) -> Result<Connection> {
        // The limit is on the connection, whoever waits for it.
        let limit = ExecutionContext::new().with_timeout(self.connect_timeout);
        let connecting = async {
            let stream = self.open(address).await.map_err(|error| unreachable(address, error))?;
            let config = AsyncConnectionConfig::new()
                .set_response_timeout(None)
                .set_pipeline_buffer_size(BUFFERED_REQUESTS);
            let connected = MultiplexedConnection::new_with_config(&self.info, stream, config);
            connected.await.map_err(|error| not_admitted(address, error))
        };
        let timed_out = |_| {
            unreachable(address, io::Error::new(io::ErrorKind::TimedOut, "connecting timed out"))
        };
        let (shared, driver) = limit.race(connecting).await.map_err(timed_out)??;
        Ok(Connection { shared, driver: Arc::new(Driver(tokio::spawn(driver))) })
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
    pub(crate) shared: MultiplexedConnection,
    driver: Arc<Driver>,
}

/// The task that reads and writes. It ends with the connection, and with the last who holds it.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    fn is_closed(&self) -> bool {
        self.driver.0.is_finished()
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
        *place.current.write().unwrap_or_else(PoisonError::into_inner) = Some(connection.clone());
        Ok(connection)
    }

    /// Ends the connections: what waits for an answer on them does not get one.
    pub(crate) fn hang_up(&self) {
        for place in self.ordinary.iter().chain(&self.waiting) {
            let current = place.current.write().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(connection) = current {
                connection.driver.0.abort();
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
