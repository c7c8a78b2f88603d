//! One connection to the server: how it is made, and how its statement is cancelled.

mod backend_key;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use cubbyhole_core::runtime::requiring_io;
use cubbyhole_core::{Error, Result};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{CancelToken, Client, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::either::Either;

use crate::config::PostgresConfig;
use crate::conninfo::{Host, HostAddress, SessionAttrs, SocketOptions};
use crate::error;
use crate::functions;

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
enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

type Socket = Either<TcpStream, UnixStream>;

impl Connector {
    pub(crate) fn new(config: PostgresConfig) -> Result<Self> {
        let is_tcp = |host: &Host| matches!(host.address, HostAddress::Tcp { .. });
        let tls = crate::tls::connector(&config.tls, config.hosts.iter().any(is_tcp))?;
        Ok(Self { config, tls })
    }

    pub(crate) fn config(&self) -> &PostgresConfig {
        &self.config
    }

    /// Connects to the first of the hosts that takes the connection and is what is asked for.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        let mut hosts: Vec<&Host> = self.config.hosts.iter().collect();
        if self.config.session.shuffles_hosts {
            fastrand::shuffle(&mut hosts);
        }
        match self.config.session.attrs {
            SessionAttrs::PreferStandby => {
                match self.connect_to_any(&hosts, SessionAttrs::Standby).await {
                    Ok(connection) => Ok(connection),
                    Err(_) => self.connect_to_any(&hosts, SessionAttrs::Any).await,
                }
            }
            attrs => self.connect_to_any(&hosts, attrs).await,
        }
    }

    async fn connect_to_any(&self, hosts: &[&Host], attrs: SessionAttrs) -> Result<Connection> {
        let mut failure = Error::invalid_argument("the URL names no host");
        for host in hosts {
            let attempt = self.connect_to_host(host, attrs);
            let attempt = tokio::time::timeout(self.config.connect_timeout, attempt);
            match requiring_io(attempt).await? {
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

    async fn connect_to_host(&self, host: &Host, attrs: SessionAttrs) -> Result<Connection> {
        let (socket, target) = open_host(host, &self.config.session.socket).await?;
        let mut server = self.config.session.server.clone();
        if let Some(password) = &host.password {
            server.password(password);
        }
        server.ssl_mode(match target.address {
            Address::Tcp(_) => self.config.ssl_mode(),
            // Nobody listens in on a Unix socket, and the server offers no TLS there.
            Address::Unix(_) => SslMode::Disable,
        });
        let tls = make_tls(&self.tls, &target)?;
        let (client, connection) = server
            .connect_raw(socket, tls)
            .await
            .map_err(|error| error::with_password_note(error::from_connect(&error), host))?;
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
        connection.check_session(attrs).await?;
        Ok(connection)
    }
}

impl Connection {
    async fn check_session(&self, wanted: SessionAttrs) -> Result<()> {
        let (select, value, unmet) = match wanted {
            SessionAttrs::Any | SessionAttrs::PreferStandby => return Ok(()),
            SessionAttrs::ReadWrite => (
                "SHOW transaction_read_only",
                "off",
                "no host accepts writes, as `target_session_attrs=read-write` asks: each is a \
                 standby or has `default_transaction_read_only` on",
            ),
            SessionAttrs::ReadOnly => (
                "SHOW transaction_read_only",
                "on",
                "each host accepts writes, and `target_session_attrs=read-only` asks for one that \
                 does not",
            ),
            SessionAttrs::Primary => (
                "SELECT pg_catalog.pg_is_in_recovery()",
                "f",
                "each host is a standby, and `target_session_attrs=primary` asks for a primary",
            ),
            SessionAttrs::Standby => (
                "SELECT pg_catalog.pg_is_in_recovery()",
                "t",
                "no host is a standby, as `target_session_attrs=standby` asks",
            ),
        };
        let rows = self.client.simple_query(select).await;
        let rows = rows.map_err(|error| error::from_connect(&error))?;
        let shown = rows.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        if shown == Some(value) { Ok(()) } else { Err(Error::unavailable(unmet)) }
    }

    /// The process that the server said it serves this connection with. A pooler answers for the
    /// server and says something else.
    pub(crate) async fn announced_backend(&self) -> Option<i32> {
        backend_key::announced_backend(&self.client.cancel_token()).await
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

/// Connects to a host.
async fn open_host(host: &Host, options: &SocketOptions) -> Result<(Socket, Target)> {
    let port = host.port;
    let (name, address) = match &host.address {
        HostAddress::Tcp { name, address } => (name.clone(), address),
        HostAddress::Unix(folder) => {
            let path = folder.join(format!(".s.PGSQL.{port}"));
            let shown = path.display().to_string();
            let target = Target {
                address: Address::Unix(path),
                host: "localhost".to_owned(),
                options: options.clone(),
            };
            let socket = target.open().await;
            let socket = socket.map_err(|error| error::from_connect_io(error, &shown))?;
            return Ok((socket, target));
        }
    };
    let shown = format!("{name}:{port}");
    let refused = |error| error::from_connect_io(error, &shown);
    let found: Vec<SocketAddr> = match address {
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
                set_options(&self.options, &stream)?;
                Either::Left(stream)
            }
            Address::Unix(path) => Either::Right(UnixStream::connect(path).await?),
        })
    }
}

fn set_options(options: &SocketOptions, stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    if let Some(keepalive) = &options.keepalive {
        socket.set_tcp_keepalive(keepalive)?;
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(options.user_timeout))?;
    Ok(())
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
