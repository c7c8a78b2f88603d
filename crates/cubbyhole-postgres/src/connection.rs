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

use crate::config::Config;
use crate::conninfo::{Host, HostAddress, SessionAttrs, SocketOptions};
use crate::error;
use crate::functions;

/// Makes connections.
pub(crate) struct Connector {
    config: Config,
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
    pub(crate) fn new(config: Config) -> Result<Self> {
        let is_tcp = |host: &Host| matches!(host.address, HostAddress::Tcp { .. });
        let tls = crate::tls::connector(&config.tls, config.hosts.iter().any(is_tcp))?;
        Ok(Self { config, tls })
    }

    pub(crate) fn config(&self) -> &Config {
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
                    Err(error) if error.is_retryable() => {
                        self.connect_to_any(&hosts, SessionAttrs::Any).await
                    }
                    connected => connected,
                }
            }
            attrs => self.connect_to_any(&hosts, attrs).await,
        }
    }

    /// Tries the hosts in order. As with libpq, a server that refuses the connection ends the
    /// search: the next host is for one that is down, or is not as wanted.
    async fn connect_to_any(&self, hosts: &[&Host], attrs: SessionAttrs) -> Result<Connection> {
        let mut failure = None;
        for host in hosts {
            let targets = self.within_timeout(find_targets(host, &self.config.session.socket));
            let connected = match targets.await {
                Ok(targets) => Box::pin(self.connect_to_host(host, targets, attrs)).await,
                Err(error) => Err(error),
            };
            match connected {
                Ok(Some(connection)) => return Ok(connection),
                Ok(None) => {}
                Err(error) if error.is_retryable() => failure = Some(error),
                Err(error) => return Err(error),
            }
        }
        // A host that was not reached may be the one that is wanted.
        Err(failure.unwrap_or_else(|| Error::unavailable(unmet(attrs))))
    }

    /// Connects to the first address of `host` that answers. `None` if its server is not as wanted.
    async fn connect_to_host(
        &self,
        host: &Host,
        targets: Vec<Target>,
        attrs: SessionAttrs,
    ) -> Result<Option<Connection>> {
        let mut failure = Error::internal("a host without an address");
        for target in targets {
            let attempt = async {
                let connection = self.connect_to(host, target).await?;
                Ok(connection.is_as_wanted(attrs).await?.then_some(connection))
            };
            match self.within_timeout(attempt).await {
                Err(error) if error.is_retryable() => failure = error,
                connected => return connected,
            }
        }
        Err(failure)
    }

    async fn within_timeout<T>(&self, attempt: impl Future<Output = Result<T>>) -> Result<T> {
        let limit = self.config.connect_timeout;
        match requiring_io(tokio::time::timeout(limit, attempt)).await? {
            Ok(result) => result,
            Err(_) => Err(Error::unavailable(format!("connecting took longer than {limit:?}"))),
        }
    }

    /// Connects to one address. `sslmode=prefer` tries again without TLS if TLS fails, or if
    /// `pg_hba.conf` refuses the encrypted connection.
    async fn connect_to(&self, host: &Host, target: Target) -> Result<Connection> {
        let mode = match target.address {
            Address::Tcp(_) => self.config.ssl_mode(),
            // Nobody listens in on a Unix socket, and the server offers no TLS there.
            Address::Unix(_) => SslMode::Disable,
        };
        // In boxes: the driver's futures are large, and callers have small stacks.
        let connected = match Box::pin(self.start(host, &target, mode)).await {
            Err(encrypted) if mode == SslMode::Prefer && encrypted.concerns_tls() => {
                match Box::pin(self.start(host, &target, SslMode::Disable)).await {
                    Err(plain) if plain.is_refused_by_rule() => Err(encrypted),
                    connected => connected,
                }
            }
            connected => connected,
        };
        connected.map_err(|failure| match failure {
            StartFailure::Socket(error) => error::from_connect_io(error, &target.shown()),
            StartFailure::Session(error) => {
                error::with_password_note(error::from_connect(&error), host)
            }
            StartFailure::Tls(error) => error,
        })
    }

    async fn start(
        &self,
        host: &Host,
        target: &Target,
        mode: SslMode,
    ) -> Result<Connection, StartFailure> {
        let target = target.clone();
        let socket = target.open().await.map_err(StartFailure::Socket)?;
        let mut server = self.config.session.server.clone();
        if let Some(password) = &host.password {
            server.password(password);
        }
        server.ssl_mode(mode);
        let tls = make_tls(&self.tls, &target).map_err(StartFailure::Tls)?;
        let connected = server.connect_raw(socket, tls).await;
        let (client, connection) = connected.map_err(StartFailure::Session)?;
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
        Ok(Connection {
            client,
            control,
            prepared: [const { None }; functions::COUNT],
            time_limit: None,
        })
    }
}

/// Why a session was not started.
enum StartFailure {
    Socket(io::Error),
    Tls(Error),
    Session(tokio_postgres::Error),
}

impl StartFailure {
    /// Whether a connection without TLS may succeed.
    fn concerns_tls(&self) -> bool {
        self.is_refused_by_rule()
            || matches!(self, Self::Session(error) if error::is_about_tls(error))
    }

    /// Whether `pg_hba.conf` refuses the connection before it asks for a password.
    fn is_refused_by_rule(&self) -> bool {
        let Self::Session(error) = self else { return false };
        error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
    }
}

impl Connection {
    async fn is_as_wanted(&self, wanted: SessionAttrs) -> Result<bool> {
        let (select, value) = match wanted {
            SessionAttrs::Any | SessionAttrs::PreferStandby => return Ok(true),
            SessionAttrs::ReadWrite => ("SHOW transaction_read_only", "off"),
            SessionAttrs::ReadOnly => ("SHOW transaction_read_only", "on"),
            SessionAttrs::Primary => ("SELECT pg_catalog.pg_is_in_recovery()", "f"),
            SessionAttrs::Standby => ("SELECT pg_catalog.pg_is_in_recovery()", "t"),
        };
        let rows = self.client.simple_query(select).await;
        let rows = rows.map_err(|error| error::from_connect(&error))?;
        let shown = rows.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        Ok(shown == Some(value))
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

/// The message where all hosts were reached and none is as wanted.
fn unmet(wanted: SessionAttrs) -> &'static str {
    match wanted {
        SessionAttrs::Any | SessionAttrs::PreferStandby => "the URL names no host",
        SessionAttrs::ReadWrite => {
            "no host accepts writes, as `target_session_attrs=read-write` asks: each is a standby \
             or has `default_transaction_read_only` on"
        }
        SessionAttrs::ReadOnly => {
            "each host accepts writes, and `target_session_attrs=read-only` asks for one that does \
             not"
        }
        SessionAttrs::Primary => {
            "each host is a standby, and `target_session_attrs=primary` asks for a primary"
        }
        SessionAttrs::Standby => "no host is a standby, as `target_session_attrs=standby` asks",
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
            .map_err(|error| error::from_connect_io(error, &self.target.shown()))?;
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

/// The addresses of a host.
async fn find_targets(host: &Host, options: &SocketOptions) -> Result<Vec<Target>> {
    let port = host.port;
    let target =
        |host: &str, address| Target { address, host: host.to_owned(), options: options.clone() };
    let (name, address) = match &host.address {
        HostAddress::Tcp { name, address } => (name, address),
        HostAddress::Unix(folder) => {
            let path = folder.join(format!(".s.PGSQL.{port}"));
            return Ok(vec![target("localhost", Address::Unix(path))]);
        }
    };
    let tcp = |address| target(name, Address::Tcp(address));
    if let Some(address) = address {
        return Ok(vec![tcp(SocketAddr::new(*address, port))]);
    }
    let found = tokio::net::lookup_host((name.as_str(), port)).await;
    let found: io::Result<Vec<Target>> = found.map(|found| found.map(tcp).collect());
    found
        .and_then(|found| match found.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
            false => Ok(found),
        })
        .map_err(|error| error::from_connect_io(error, &format!("{name}:{port}")))
}

impl Target {
    fn shown(&self) -> String {
        match &self.address {
            Address::Tcp(address) => format!("{}:{}", self.host, address.port()),
            Address::Unix(path) => path.display().to_string(),
        }
    }

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

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn each_address_of_a_name_has_the_whole_timeout() {
        let limit = Duration::from_millis(200);
        let config = Config::from_url_alone("postgres://app@db/state").unwrap();
        let connector = Connector::new(config.with_connect_timeout(limit)).unwrap();
        let mut silent = Vec::new();
        for _ in 0..2 {
            silent.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let target = |listener: &TcpListener| Target {
            address: Address::Tcp(listener.local_addr().unwrap()),
            host: "db".to_owned(),
            options: connector.config.session.socket.clone(),
        };
        let (host, targets) = (&connector.config.hosts[0], silent.iter().map(target).collect());
        let connected = connector.connect_to_host(host, targets, SessionAttrs::Any).await;
        let error = connected.err().unwrap();
        assert!(error.is_retryable() && error.message().contains("longer"), "{error:?}");
        for listener in silent {
            timeout(Duration::from_secs(60), listener.accept()).await.unwrap().unwrap();
        }
    }
}
