//! Establishing connections.

use std::io;
use std::time::Duration;

use cubbyhole_core::runtime::requiring_io;
use cubbyhole_core::{ExecutionContext, Result};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::connection::Connection;
use super::stream::Stream;
use crate::config::{Address, Config};
use crate::error::{not_admitted, unreachable};
use crate::tls;

/// The idle time after which TCP keepalive probes start.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// The time after which a connection with unacknowledged bytes is closed.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// The number of requests that a connection buffers before callers wait.
const BUFFERED_REQUESTS: usize = 1024;

/// Establishes connections to any server of the store.
pub(crate) struct Connector {
    info: RedisConnectionInfo,
    tls: Option<TlsConnector>,
    /// Whether it presents a client certificate; used in error messages.
    has_certificate: bool,
    connect_timeout: Duration,
    pub(super) connections: usize,
    pub(super) wait_connections: usize,
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

    pub(super) async fn connect(&self, address: &Address) -> Result<Connection> {
        // The time limit belongs to the connection, not to the caller that waits for it first.
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
