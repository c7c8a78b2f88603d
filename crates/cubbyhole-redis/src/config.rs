//! How the servers are reached and how the store behaves.

mod address;
#[cfg(test)]
mod tests;
mod url_option;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use cubbyhole_core::limits::DEFAULT_MAX_VALUE_BYTES;
use cubbyhole_core::{Error, Result};

pub(crate) use address::Address;
use url_option::{count, decoded, duration, invalid, positive};

/// What stands before the names of all keys unless set: `cubbyhole:`.
pub const DEFAULT_PREFIX: &str = "cubbyhole:";
/// How long connecting to a server may take unless set: 5 seconds.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For how long a call that certainly had no effect is repeated unless set: 2 seconds.
pub const DEFAULT_RETRY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a write waits for replicas, where it does, unless set: 1 second.
pub const DEFAULT_WAIT_TIMEOUT: Duration = Duration::from_secs(1);
/// How many connections to a server calls share unless set: 1, which batches best.
pub const DEFAULT_CONNECTIONS: usize = 1;
/// How many connections to a server the writes that wait for replicas share unless set: 8.
pub const DEFAULT_WAIT_CONNECTIONS: usize = 8;

/// The largest limit on values: Redis takes strings of 512 MiB, and a script holds one several
/// times over.
const MOST_VALUE_BYTES: usize = 256 * 1024 * 1024;
const MAX_PREFIX_BYTES: usize = 128;

/// How the servers are reached and how the store behaves.
///
/// ```
/// use std::time::Duration;
/// use cubbyhole_redis::Config;
///
/// let config = Config::from_url("redis://app:secret@cache.internal:6379/0?prefix=agents:")?
///     .with_retry_timeout(Duration::from_millis(500));
/// assert!(!format!("{config:?}").contains("secret"));
///
/// let cluster = Config::from_url("redis+cluster://10.0.0.1:7000,10.0.0.2:7000")?
///     .with_wait_for_replicas(1);
/// assert!(cluster.is_cluster());
/// # Ok::<(), cubbyhole_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Config {
    pub(crate) cluster: bool,
    pub(crate) addresses: Vec<Address>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: i64,
    pub(crate) tls: bool,
    pub(crate) root_cert: Option<PathBuf>,
    /// Both or neither, or the configuration is refused.
    pub(crate) client_cert: Option<PathBuf>,
    pub(crate) client_key: Option<PathBuf>,
    pub(crate) prefix: String,
    pub(crate) connect_timeout: Duration,
    pub(crate) retry_timeout: Duration,
    pub(crate) connections: usize,
    pub(crate) wait_replicas: u32,
    pub(crate) wait_timeout: Duration,
    pub(crate) wait_connections: usize,
    pub(crate) max_value_bytes: usize,
}

impl Config {
    /// Reads a URL: `redis://USER:PASSWORD@HOST:PORT/DATABASE?OPTION=VALUE&…`, with names
    /// percent-encoded (`USER:@` for a user without a password); `rediss://` for TLS. For a cluster
    /// `redis+cluster://HOST:PORT,HOST:PORT,…` or `rediss+cluster://…`: some of its nodes, the
    /// others are learned from them; it has no databases.
    ///
    /// The options, each the method of that name here: `prefix`, `connect_timeout`,
    /// `retry_timeout`, `wait_timeout` (seconds, or milliseconds such as `500ms`), `connections`,
    /// `wait_replicas`, `wait_connections`, and for TLS `tls_ca` (a file of trusted certificates in
    /// PEM; the platform's otherwise), `tls_cert` and `tls_key`
    /// ([`with_tls_client_certificate`](Self::with_tls_client_certificate)).
    ///
    /// # Errors
    /// `InvalidArgument` that names the option. No message quotes the URL.
    pub fn from_url(url: &str) -> Result<Self> {
        if url.contains(char::is_control) {
            return Err(Error::invalid_argument(
                "the Redis URL holds a control character, such as a line end: remove it, or write \
                 it percent-encoded (%0A, %0D) if it is meant",
            ));
        }
        let (scheme, rest) = url.split_once("://").ok_or_else(not_a_url)?;
        let (cluster, tls) = match scheme {
            "redis" => (false, false),
            "rediss" => (false, true),
            "redis+cluster" => (true, false),
            "rediss+cluster" => (true, true),
            _ => return Err(not_a_url()),
        };
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = address.split_once('/').unwrap_or((address, ""));
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, authority),
        };
        let mut config = Self::new(cluster, addresses(hosts, cluster)?);
        config.tls = tls;
        config.database = match path {
            "" => 0,
            _ if cluster => {
                return Err(Error::invalid_argument(
                    "a Redis Cluster has no databases: leave out what follows the `/`",
                ));
            }
            number => number.parse().ok().filter(|number| *number >= 0).ok_or_else(|| {
                Error::invalid_argument("the database after the `/` of the Redis URL is no number")
            })?,
        };
        if let Some(credentials) = credentials {
            config.set_credentials(credentials)?;
        }
        // A `?` that stands in a password unencoded makes the rest of it an option.
        if query.contains('@') {
            return Err(Error::invalid_argument(
                "the Redis URL has a `@` after its `?`: write `%40`, and in a password `%3F`",
            ));
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| Error::invalid_argument("an option in the URL has no `=`"))?;
            config.set(name, &decoded(name, value)?)?;
        }
        config.check_client_certificate()?;
        Ok(config)
    }

    /// A user without a password is not sent by the client, so that it would be another user's
    /// connection: who has none is written `USER:@`.
    fn set_credentials(&mut self, credentials: &str) -> Result<()> {
        let (username, password) = match credentials.split_once(':') {
            Some((username, password)) => (username, Some(password)),
            None => (credentials, None),
        };
        if password.is_none() && !username.is_empty() {
            return Err(Error::invalid_argument(
                "the Redis URL names a user and no password: write `USER:PASSWORD@HOST`, or \
                 `USER:@HOST` for a user that has none",
            ));
        }
        self.username = Some(decoded("user", username)?).filter(|name| !name.is_empty());
        let password = password.map(|password| decoded("password", password)).transpose()?;
        self.password = password.filter(|password| !password.is_empty() || self.username.is_some());
        Ok(())
    }

    fn new(cluster: bool, addresses: Vec<Address>) -> Self {
        Self {
            cluster,
            addresses,
            username: None,
            password: None,
            database: 0,
            tls: false,
            root_cert: None,
            client_cert: None,
            client_key: None,
            prefix: DEFAULT_PREFIX.to_owned(),
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            retry_timeout: DEFAULT_RETRY_TIMEOUT,
            connections: DEFAULT_CONNECTIONS,
            wait_replicas: 0,
            wait_timeout: DEFAULT_WAIT_TIMEOUT,
            wait_connections: DEFAULT_WAIT_CONNECTIONS,
            max_value_bytes: DEFAULT_MAX_VALUE_BYTES,
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "prefix" => *self = self.clone().with_prefix(value)?,
            "connect_timeout" => self.connect_timeout = positive(name, duration(name, value)?)?,
            "retry_timeout" => self.retry_timeout = duration(name, value)?,
            "wait_timeout" => self.wait_timeout = positive(name, duration(name, value)?)?,
            "wait_replicas" => {
                self.wait_replicas =
                    value.parse().map_err(|_| invalid(name, "write a number of replicas"))?;
            }
            "connections" => self.connections = count(name, value)?,
            "wait_connections" => self.wait_connections = count(name, value)?,
            "tls_ca" if self.tls => self.root_cert = Some(PathBuf::from(value)),
            "tls_cert" if self.tls => self.client_cert = Some(PathBuf::from(value)),
            "tls_key" if self.tls => self.client_key = Some(PathBuf::from(value)),
            "tls_ca" | "tls_cert" | "tls_key" => {
                return Err(invalid(name, "it goes with `rediss://`, which encrypts"));
            }
            _ => {
                let shown: String =
                    name.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                let advice = "there is no such option, but prefix, connect_timeout, \
                              retry_timeout, connections, wait_replicas, wait_timeout, \
                              wait_connections, tls_ca, tls_cert and tls_key";
                return Err(invalid(&shown, advice));
            }
        }
        Ok(())
    }

    /// A client certificate or its key, without the other or without TLS.
    pub(crate) fn check_client_certificate(&self) -> Result<()> {
        match (&self.client_cert, &self.client_key) {
            (Some(_), None) => Err(invalid("tls_cert", "name the file of its key with `tls_key`")),
            (None, Some(_)) => {
                Err(invalid("tls_key", "name the file of its certificate with `tls_cert`"))
            }
            (Some(_), Some(_)) if !self.tls => {
                Err(invalid("tls_cert", "it goes with `rediss://`, which encrypts"))
            }
            _ => Ok(()),
        }
    }

    /// Trusts the certificate authorities in a file, in PEM, and no others; those of the platform
    /// unless set. It goes with `rediss://`.
    #[must_use]
    pub fn with_tls_ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.root_cert = Some(file.into());
        self
    }

    /// Presents a client certificate to servers that ask for one (`tls-auth-clients`): a file of the
    /// certificate, followed by those of its intermediate authorities, and a file of its private key
    /// without a passphrase, both in PEM. It goes with `rediss://` and `rediss+cluster://`. The files
    /// are read when the store is opened.
    #[must_use]
    pub fn with_tls_client_certificate(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.client_cert = Some(certificate.into());
        self.client_key = Some(key.into());
        self
    }

    /// What stands before the names of all keys, so that several stores share a server: at most
    /// 128 bytes without braces, which would change the slots. [`DEFAULT_PREFIX`] unless set. The
    /// empty prefix is for a server of the store's own.
    ///
    /// # Errors
    /// `InvalidArgument` for another prefix.
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Result<Self> {
        let prefix = prefix.into();
        if prefix.contains(['{', '}', '\0']) || prefix.len() > MAX_PREFIX_BYTES {
            return Err(invalid(
                "prefix",
                "it may not hold `{`, `}` or NUL, nor more than 128 bytes",
            ));
        }
        self.prefix = prefix;
        Ok(self)
    }

    /// How long connecting to a server may take; [`DEFAULT_CONNECT_TIMEOUT`] unless set.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// For how long a call is repeated that the servers answer with "not now" (`TRYAGAIN`,
    /// `CLUSTERDOWN`, `LOADING`; in a cluster also a master that is not there: a single server that
    /// cannot be reached is `Unavailable` at once) and that so had no effect;
    /// [`DEFAULT_RETRY_TIMEOUT`] unless set. Zero does not repeat. It never goes past the call's
    /// deadline. A put that lists its namespace first asks several servers, all within this time.
    #[must_use]
    pub fn with_retry_timeout(mut self, timeout: Duration) -> Self {
        self.retry_timeout = timeout;
        self
    }

    /// How many connections to a server calls share, at least 1; [`DEFAULT_CONNECTIONS`] unless set.
    /// Each takes any number of calls at once and answers them in order. The namespaces are divided
    /// among them: with several, a large value delays fewer others; with one, what many callers ask
    /// for at once travels together.
    #[must_use]
    pub fn with_connections(mut self, count: usize) -> Self {
        self.connections = count.max(1);
        self
    }

    /// How many replicas must have received a write before it succeeds; 0 unless set, which waits
    /// for none. Too few within the [`wait_timeout`](Self::with_wait_timeout) is `Unavailable`
    /// with an unknown outcome: the master has applied the write.
    ///
    /// It narrows the loss of a failover and is no consensus. A replica that has received a write
    /// has it in memory, not yet on disk; a master that restarts without its data before a replica
    /// was promoted takes its replicas' data with it; and a cluster may promote a replica that did
    /// not receive the write, if there is more than one for each master.
    ///
    /// Such writes have connections of their own, so that a read is not behind them: one that
    /// follows a write of unknown outcome may still come before it.
    #[must_use]
    pub fn with_wait_for_replicas(mut self, replicas: u32) -> Self {
        self.wait_replicas = replicas;
        self
    }

    /// How long a write waits for replicas; [`DEFAULT_WAIT_TIMEOUT`] unless set.
    #[must_use]
    pub fn with_wait_timeout(mut self, timeout: Duration) -> Self {
        self.wait_timeout = timeout;
        self
    }

    /// How many connections to a server the writes share that wait for replicas, at least 1;
    /// [`DEFAULT_WAIT_CONNECTIONS`] unless set. A connection does one such write at a time.
    #[must_use]
    pub fn with_wait_connections(mut self, count: usize) -> Self {
        self.wait_connections = count.max(1);
        self
    }

    /// The largest value in bytes, 16 MiB unless set, at most 256 MiB.
    #[must_use]
    pub fn with_max_value_bytes(mut self, bytes: usize) -> Self {
        self.max_value_bytes = bytes.min(MOST_VALUE_BYTES);
        self
    }

    /// Whether the URL names a cluster.
    #[must_use]
    pub const fn is_cluster(&self) -> bool {
        self.cluster
    }

    /// What stands before the names of all keys.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

fn addresses(hosts: &str, cluster: bool) -> Result<Vec<Address>> {
    if cluster && hosts.split(',').any(|host| host.is_empty() || host.starts_with(':')) {
        return Err(Error::invalid_argument(
            "a node of the Redis Cluster has no host: write `redis+cluster://HOST:PORT,HOST:PORT`",
        ));
    }
    let addresses: Vec<Address> = hosts.split(',').map(Address::parse).collect::<Result<_>>()?;
    if addresses.len() > 1 && !cluster {
        return Err(Error::invalid_argument(
            "several servers are a cluster: write `redis+cluster://HOST:PORT,HOST:PORT`",
        ));
    }
    Ok(addresses)
}

fn not_a_url() -> Error {
    Error::invalid_argument(
        "not a Redis URL: write `redis://USER:PASSWORD@HOST:PORT/DATABASE`, `rediss://…` for TLS, \
         or `redis+cluster://HOST:PORT,HOST:PORT`",
    )
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("cluster", &self.cluster)
            .field("addresses", &self.addresses)
            .field("username", &self.username)
            .field("database", &self.database)
            .field("tls", &self.tls)
            .field("prefix", &self.prefix)
            .field("wait_replicas", &self.wait_replicas)
            .finish_non_exhaustive()
    }
}
