//! Connects to the server.

mod backend_key;
mod control;
mod target;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::runtime::requiring_io;
use cubbyhole_core::{Error, Result};
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::Config;
use crate::conninfo::{Host, HostAddress, SessionAttrs};
use crate::error;
use crate::functions::FUNCTION_COUNT;
pub(crate) use control::ConnectionControl;
use target::{Address, Target};

/// Opens connections with one configuration.
pub(crate) struct Connector {
    config: Config,
    tls: MakeRustlsConnect,
}

/// A connection to the server, used by one call at a time.
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) control: Arc<ConnectionControl>,
    /// The prepared statement of each function, by [`Function`](crate::functions::Function) as
    /// index.
    pub(crate) prepared: [Option<Statement>; FUNCTION_COUNT],
    /// The `statement_timeout` that this store has set on the connection, if any.
    pub(crate) statement_timeout: Option<Duration>,
}

impl Connector {
    pub(crate) fn new(config: Config) -> Result<Self> {
        let is_tcp = |host: &Host| matches!(host.address, HostAddress::Tcp { .. });
        let tls = crate::tls::connector(&config.tls, config.hosts.iter().any(is_tcp))?;
        Ok(Self { config, tls })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Connects to the first host that accepts the connection and matches `target_session_attrs`.
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

    /// Tries the hosts in order. As in libpq, the search continues if a host is down or does not
    /// match `attrs`, and ends with the error of a server that rejects the connection.
    async fn connect_to_any(&self, hosts: &[&Host], attrs: SessionAttrs) -> Result<Connection> {
        let mut failure = None;
        for host in hosts {
            let targets = self.within_timeout(target::resolve(host, &self.config.session.socket));
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
        // An unreachable host is reported first, because it may be the one that matches.
        Err(failure.unwrap_or_else(|| Error::unavailable(no_matching_host(attrs))))
    }

    /// Connects to the first address of `host` that answers. `None` if its server does not match
    /// `attrs`.
    async fn connect_to_host(
        &self,
        host: &Host,
        targets: Vec<Target>,
        attrs: SessionAttrs,
    ) -> Result<Option<Connection>> {
        let mut failure = Error::internal("the host has no address");
        for target in targets {
            let attempt = async {
                let connection = self.connect_to(host, target).await?;
                Ok(connection.matches(attrs).await?.then_some(connection))
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

    /// Connects to one address. `sslmode=prefer` retries without TLS if the handshake fails, or if
    /// `pg_hba.conf` rejects the encrypted connection.
    async fn connect_to(&self, host: &Host, target: Target) -> Result<Connection> {
        let mode = match target.address {
            Address::Tcp(_) => self.config.ssl_mode(),
            // The server offers no TLS on a Unix socket, and a local socket needs none.
            Address::Unix(_) => SslMode::Disable,
        };
        // The driver's futures are large. Boxed, they do not inflate the futures of callers.
        let connected = match Box::pin(self.start(host, &target, mode)).await {
            Err(encrypted) if mode == SslMode::Prefer && encrypted.may_succeed_without_tls() => {
                match Box::pin(self.start(host, &target, SslMode::Disable)).await {
                    Err(plain) if plain.is_rejected_by_hba() => Err(encrypted),
                    connected => connected,
                }
            }
            connected => connected,
        };
        connected.map_err(|failure| match failure {
            StartFailure::Socket(error) => error::from_connect_io(error, &target.display()),
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
        let tls = target.tls(&self.tls).map_err(StartFailure::Tls)?;
        let connected = server.connect_raw(socket, tls).await;
        let (client, connection) = connected.map_err(StartFailure::Session)?;
        // The task ends when the client is dropped or the server closes the connection. Calls get
        // errors on their own.
        let host = target.host.clone();
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                // Log the code only: the text may be the server's and quote values.
                let sql_state = error.code().map(SqlState::code);
                tracing::info!(host, sql_state, "the connection was lost");
            }
        })
        .abort_handle();
        let cancel = client.cancel_token();
        let control = ConnectionControl::new(cancel, target, self.tls.clone(), driver);
        Ok(Connection {
            client,
            control: Arc::new(control),
            prepared: [const { None }; FUNCTION_COUNT],
            statement_timeout: None,
        })
    }
}

/// Why a session could not be started.
enum StartFailure {
    Socket(io::Error),
    Tls(Error),
    Session(tokio_postgres::Error),
}

impl StartFailure {
    fn may_succeed_without_tls(&self) -> bool {
        self.is_rejected_by_hba()
            || matches!(self, Self::Session(error) if error::is_tls_failure(error))
    }

    /// Whether `pg_hba.conf` rejects the connection, before the server asks for a password.
    fn is_rejected_by_hba(&self) -> bool {
        let Self::Session(error) = self else { return false };
        error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
    }
}

impl Connection {
    /// Asks the server whether it matches `attrs`.
    async fn matches(&self, attrs: SessionAttrs) -> Result<bool> {
        let (select, value) = match attrs {
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

    /// The process id that the peer announced for this connection. A pooler announces another id
    /// than the server process has.
    pub(crate) async fn announced_backend(&self) -> Option<i32> {
        backend_key::announced_backend(&self.client.cancel_token()).await
    }

    /// Whether the connection can serve another call.
    pub(crate) fn is_usable(&self) -> bool {
        !self.client.is_closed() && !self.control.is_retired()
    }
}

/// The error message if every host was reached and none matches.
fn no_matching_host(attrs: SessionAttrs) -> &'static str {
    match attrs {
        SessionAttrs::Any | SessionAttrs::PreferStandby => "the URL names no host",
        SessionAttrs::ReadWrite => {
            "no host accepts writes, as `target_session_attrs=read-write` requires: each is a standby \
             or has `default_transaction_read_only` on"
        }
        SessionAttrs::ReadOnly => {
            "every host accepts writes, and `target_session_attrs=read-only` requires one that does \
             not"
        }
        SessionAttrs::Primary => {
            "every host is a standby, and `target_session_attrs=primary` requires a primary"
        }
        SessionAttrs::Standby => "no host is a standby, as `target_session_attrs=standby` requires",
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn each_address_of_a_host_gets_the_full_connect_timeout() {
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
