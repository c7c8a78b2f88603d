//! One connection to the server: how it is made, and how its statement is cancelled.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use cubbyhole_core::{Error, Result};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tokio_postgres::config::{Host, LoadBalanceHosts, SslMode, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{CancelToken, Client, Config, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::either::Either;

use crate::config::PostgresConfig;
use crate::error;
use crate::functions;

/// PostgreSQL's own port.
const DEFAULT_PORT: u16 = 5432;
/// How long a connection is silent before it is probed, unless the URL says: a peer that is gone is
/// noticed.
const KEEPALIVE: Duration = Duration::from_secs(60);
const TWO_HOURS: Duration = Duration::from_secs(2 * 60 * 60);
/// How long what was sent may go without the peer's having it, unless the URL says.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes connections.
pub(crate) struct Connector {
    config: PostgresConfig,
    tls: MakeRustlsConnect,
}

/// A connection to the server, for one call at a time.
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) control: Arc<Control>,
    /// The statements that are prepared on it, by function.
    pub(crate) prepared: [Option<Statement>; functions::COUNT],
    /// The time limit of statements that is set on it, if one is.
    pub(crate) time_limit: Option<Duration>,
}

/// What is needed to stop a connection's statement, or the connection, while it is in use.
pub(crate) struct Control {
    cancel: CancelToken,
    target: Target,
    tls: MakeRustlsConnect,
    driver: AbortHandle,
    spoilt: AtomicBool,
}

/// Where a connection leads.
#[derive(Debug, Clone)]
struct Target {
    address: Address,
    /// The name that its certificate is checked against.
    host: String,
    options: SocketOptions,
}

#[derive(Debug, Clone)]
struct SocketOptions {
    keepalive: Option<TcpKeepalive>,
    #[cfg_attr(
        not(any(target_os = "linux", target_os = "android")),
        expect(dead_code, reason = "these systems cannot set it")
    )]
    user_timeout: Duration,
}

#[derive(Debug, Clone)]
enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

type Socket = Either<TcpStream, UnixStream>;

impl Connector {
    pub(crate) fn new(config: PostgresConfig) -> Result<Self> {
        let tls = crate::tls::connector(&config.tls)?;
        Ok(Self { config, tls })
    }

    pub(crate) fn config(&self) -> &PostgresConfig {
        &self.config
    }

    /// Connects to the first of the hosts that takes the connection and is what is asked for.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        let server = &self.config.server;
        let mut places: Vec<usize> = (0..server.get_hosts().len()).collect();
        if server.get_load_balance_hosts() == LoadBalanceHosts::Random {
            fastrand::shuffle(&mut places);
        }
        let mut failure = Error::invalid_argument("the URL names no host");
        for place in places {
            let attempt =
                tokio::time::timeout(self.config.connect_timeout, self.connect_to_host(place));
            match attempt.await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => failure = error,
                Err(_) => {
                    failure = Error::unavailable(format!(
                        "connecting took longer than {:?}",
                        self.config.connect_timeout
                    ));
                }
            }
        }
        Err(failure)
    }

    async fn connect_to_host(&self, place: usize) -> Result<Connection> {
        let (socket, target) = open_host(&self.config.server, place).await?;
        let mut server = self.config.server.clone();
        server.ssl_mode(match target.address {
            Address::Tcp(_) => self.config.ssl_mode(),
            // Nobody listens in on a Unix socket, and the server offers no TLS there.
            Address::Unix(_) => SslMode::Disable,
        });
        let tls = make_tls(&self.tls, &target)?;
        let (client, connection) =
            server.connect_raw(socket, tls).await.map_err(|error| error::from_connect(&error))?;
        // It ends when the client is dropped or the server closes; calls learn of errors.
        let host = target.host.clone();
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                // Its text may be the server's own words.
                let sql_state = error.code().map(SqlState::code);
                tracing::info!(host, sql_state, "the connection was lost");
            }
        })
        .abort_handle();
        let control = Arc::new(Control {
            cancel: client.cancel_token(),
            target,
            tls: self.tls.clone(),
            driver,
            spoilt: AtomicBool::new(false),
        });
        let connection = Connection {
            client,
            control,
            prepared: [const { None }; functions::COUNT],
            time_limit: None,
        };
        connection.check_session(server.get_target_session_attrs()).await?;
        Ok(connection)
    }
}

impl Connection {
    async fn check_session(&self, wanted: TargetSessionAttrs) -> Result<()> {
        let writable = match wanted {
            TargetSessionAttrs::ReadWrite => "off",
            TargetSessionAttrs::ReadOnly => "on",
            _ => return Ok(()),
        };
        let rows = self.client.simple_query("SHOW transaction_read_only").await;
        let rows = rows.map_err(|error| error::from_connect(&error))?;
        let shown = rows.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        if shown == Some(writable) {
            return Ok(());
        }
        Err(Error::unavailable(match wanted {
            TargetSessionAttrs::ReadWrite => {
                "no host accepts writes, as `target_session_attrs=read-write` asks: each is a \
                 standby or has `default_transaction_read_only` on"
            }
            _ => {
                "every host accepts writes, and `target_session_attrs=read-only` asks for one that does not"
            }
        }))
    }

    /// Whether it can take another call.
    pub(crate) fn is_usable(&self) -> bool {
        !self.client.is_closed() && !self.control.spoilt.load(Ordering::Acquire)
    }
}

impl Control {
    /// Asks the server to stop the statement, and waits until it has taken note: only then can no
    /// later statement of the connection be stopped by this.
    pub(crate) async fn cancel(&self) -> Result<()> {
        let socket = self
            .target
            .open()
            .await
            .map_err(|error| error::from_connect_io(error, &self.target.host))?;
        let tls = make_tls(&self.tls, &self.target)?;
        self.cancel
            .cancel_query_raw(UntilClosed { inner: socket, shut: false }, tls)
            .await
            .map_err(|error| error::from_connect(&error))
    }

    /// Lets the connection take no further call; the one that it has goes on.
    pub(crate) fn spoil(&self) {
        self.spoilt.store(true, Ordering::Release);
    }

    /// Closes the connection at once, whatever it does.
    pub(crate) fn close(&self) {
        self.spoil();
        self.driver.abort();
    }
}

fn make_tls(
    tls: &MakeRustlsConnect,
    target: &Target,
) -> Result<<MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect> {
    MakeTlsConnect::<Socket>::make_tls_connect(&mut tls.clone(), &target.host)
        .map_err(|error| Error::internal("TLS cannot be set up").with_source(error))
}

/// Connects to the host at a place of the URL's list.
async fn open_host(server: &Config, place: usize) -> Result<(Socket, Target)> {
    // One port for each host, or one for all of them.
    let ports = server.get_ports();
    let port = ports.get(place).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
    let options = SocketOptions::of(server);
    let name = match server.get_hosts().get(place) {
        Some(Host::Tcp(name)) => name.clone(),
        Some(Host::Unix(folder)) => {
            let path = folder.join(format!(".s.PGSQL.{port}"));
            let shown = path.display().to_string();
            let target =
                Target { address: Address::Unix(path), host: "localhost".to_owned(), options };
            let socket = target.open().await;
            let socket = socket.map_err(|error| error::from_connect_io(error, &shown))?;
            return Ok((socket, target));
        }
        None => return Err(Error::invalid_argument("the URL names no host")),
    };
    let shown = format!("{name}:{port}");
    let refused = |error| error::from_connect_io(error, &shown);
    let found: Vec<SocketAddr> = match server.get_hostaddrs().get(place) {
        Some(address) => vec![SocketAddr::new(*address, port)],
        None => tokio::net::lookup_host((name.as_str(), port)).await.map_err(refused)?.collect(),
    };
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in found {
        let address = Address::Tcp(address);
        let target = Target { address, host: name.clone(), options: options.clone() };
        match target.open().await {
            Ok(socket) => return Ok((socket, target)),
            Err(error) => failure = error,
        }
    }
    Err(refused(failure))
}

impl Target {
    async fn open(&self) -> io::Result<Socket> {
        Ok(match &self.address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                self.options.set(&stream)?;
                Either::Left(stream)
            }
            Address::Unix(path) => Either::Right(UnixStream::connect(path).await?),
        })
    }
}

impl SocketOptions {
    fn of(server: &Config) -> Self {
        let keepalive = server.get_keepalives().then(|| {
            // Two hours is what the driver answers where the URL says nothing.
            let named = Some(server.get_keepalives_idle()).filter(|idle| *idle != TWO_HOURS);
            let mut keepalive = TcpKeepalive::new().with_time(named.unwrap_or(KEEPALIVE));
            if let Some(interval) = server.get_keepalives_interval() {
                keepalive = keepalive.with_interval(interval);
            }
            match server.get_keepalives_retries() {
                Some(retries) => keepalive.with_retries(retries),
                None => keepalive,
            }
        });
        let user_timeout = server.get_tcp_user_timeout().copied().unwrap_or(USER_TIMEOUT);
        Self { keepalive, user_timeout }
    }

    fn set(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        if let Some(keepalive) = &self.keepalive {
            socket.set_tcp_keepalive(keepalive)?;
        }
        #[cfg(any(target_os = "linux", target_os = "android"))]
        socket.set_tcp_user_timeout(Some(self.user_timeout))?;
        Ok(())
    }
}

/// A stream whose shutdown ends when the peer has closed its side too: the server does that once
/// it has dealt with a request to cancel.
struct UntilClosed {
    inner: Socket,
    shut: bool,
}

impl AsyncRead for UntilClosed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for UntilClosed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
            self.shut = true;
        }
        loop {
            let mut space = [0_u8; 64];
            let mut buf = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                // A peer that resets the connection has closed it as well.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}
