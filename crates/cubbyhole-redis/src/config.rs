//! The connection options of a store.

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

/// The default prefix of all Redis keys: `cubbyhole:`.
pub const DEFAULT_PREFIX: &str = "cubbyhole:";
/// The default time limit for connecting to a server: 5 seconds.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The default time limit for retries of a call: 2 seconds.
pub const DEFAULT_RETRY_TIMEOUT: Duration = Duration::from_secs(2);
/// The default time limit for waiting for replicas: 1 second.
pub const DEFAULT_WAIT_TIMEOUT: Duration = Duration::from_secs(1);
/// The default number of shared connections to each server: 1, which batches requests best.
pub const DEFAULT_CONNECTIONS: usize = 1;
/// The default number of connections to each server for writes that wait for replicas: 8.
pub const DEFAULT_WAIT_CONNECTIONS: usize = 8;

/// The upper bound of the limit on values. Redis allows strings of 512 MiB, but a script holds
/// several copies of a value.
const MOST_VALUE_BYTES: usize = 256 * 1024 * 1024;
const MAX_PREFIX_BYTES: usize = 128;

/// The connection options of a store: addresses, credentials, TLS, timeouts and limits.
///
/// `Debug` output does not contain the password.
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
    /// Set together with `client_key`, or not at all.
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
    /// Parses a URL.
    ///
    /// | URL | server |
    /// |---|---|
    /// | `redis://USER:PASSWORD@HOST:PORT/DATABASE` | a single server |
    /// | `rediss://…` | the same, over TLS |
    /// | `redis+cluster://USER:PASSWORD@HOST:PORT,HOST:PORT` | a cluster; any of its nodes |
    /// | `rediss+cluster://…` | the same, over TLS |
    ///
    /// Only the scheme is required. The default host is `localhost`, the default port is 6379, and
    /// the default database is 0. A cluster has no databases and needs a host; the other nodes are
    /// discovered. User and password are percent-encoded. A user without a password is written
    /// `USER:@`.
    ///
    /// Options follow as `?NAME=VALUE&NAME=VALUE`:
    ///
    /// | option | value | method |
    /// |---|---|---|
    /// | `prefix` | text | [`with_prefix`](Self::with_prefix) |
    /// | `connect_timeout` | duration | [`with_connect_timeout`](Self::with_connect_timeout) |
    /// | `retry_timeout` | duration | [`with_retry_timeout`](Self::with_retry_timeout) |
    /// | `connections` | number | [`with_connections`](Self::with_connections) |
    /// | `wait_replicas` | number | [`with_wait_for_replicas`](Self::with_wait_for_replicas) |
    /// | `wait_timeout` | duration | [`with_wait_timeout`](Self::with_wait_timeout) |
    /// | `wait_connections` | number | [`with_wait_connections`](Self::with_wait_connections) |
    /// | `tls_ca` | file | [`with_tls_ca`](Self::with_tls_ca) |
    /// | `tls_cert`, `tls_key` | files | [`with_tls_client_certificate`] |
    ///
    /// A duration is a number of seconds (`2`, `2s`) or milliseconds (`500ms`).
    ///
    /// # Errors
    /// `InvalidArgument` that names the invalid option. No message quotes the URL.
    ///
    /// [`with_tls_client_certificate`]: Self::with_tls_client_certificate
    pub fn from_url(url: &str) -> Result<Self> {
        if url.contains(char::is_control) {
            return Err(Error::invalid_argument(
                "the Redis URL contains a control character, such as a line break: remove it, or \
                 percent-encode it (%0A, %0D)",
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
                    "a Redis Cluster has no databases: remove the text after the `/`",
                ));
            }
            number => number.parse().ok().filter(|number| *number >= 0).ok_or_else(|| {
                Error::invalid_argument(
                    "the database after the `/` of the Redis URL is not a number",
                )
            })?,
        };
        if let Some(credentials) = credentials {
            config.set_credentials(credentials)?;
        }
        // An unencoded `?` in a password turns the rest of the password into an option.
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

    /// Rejects `USER@`: the Redis client sends no user without a password, and the connection would
    /// belong to the default user.
    fn set_credentials(&mut self, credentials: &str) -> Result<()> {
        let (username, password) = match credentials.split_once(':') {
            Some((username, password)) => (username, Some(password)),
            None => (credentials, None),
        };
        if password.is_none() && !username.is_empty() {
            return Err(Error::invalid_argument(
                "the Redis URL has a user and no password: write `USER:PASSWORD@HOST`, or \
                 `USER:@HOST` for a user without a password",
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
                return Err(invalid(name, "it needs TLS: write `rediss://`"));
            }
            _ => {
                let shown: String =
                    name.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                let advice = "unknown option; the options are prefix, connect_timeout, \
                              retry_timeout, connections, wait_replicas, wait_timeout, \
                              wait_connections, tls_ca, tls_cert and tls_key";
                return Err(invalid(&shown, advice));
            }
        }
        Ok(())
    }

    /// Rejects a client certificate without its key, a key without its certificate, and either
    /// without TLS.
    pub(crate) fn check_client_certificate(&self) -> Result<()> {
        match (&self.client_cert, &self.client_key) {
            (Some(_), None) => Err(invalid("tls_cert", "name its key file with `tls_key`")),
            (None, Some(_)) => Err(invalid("tls_key", "name its certificate file with `tls_cert`")),
            (Some(_), Some(_)) if !self.tls => {
                Err(invalid("tls_cert", "it needs TLS: write `rediss://`"))
            }
            _ => Ok(()),
        }
    }

    /// Trusts only the certificate authorities in a PEM file. The default is the trust store of the
    /// platform. Requires TLS (`rediss://` or `rediss+cluster://`).
    #[must_use]
    pub fn with_tls_ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.root_cert = Some(file.into());
        self
    }

    /// Presents a client certificate to servers that require one (`tls-auth-clients`). Requires TLS
    /// (`rediss://` or `rediss+cluster://`).
    ///
    /// Both files are PEM. The certificate file has the certificate, followed by its intermediate
    /// certificates. The private key has no passphrase. The files are read when the store is
    /// opened.
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

    /// Sets the prefix of all Redis keys. Stores with different prefixes can share a server. The
    /// default is [`DEFAULT_PREFIX`]. Use the empty prefix only on a dedicated server.
    ///
    /// # Errors
    /// `InvalidArgument` for a prefix that is longer than 128 bytes or contains `{`, `}` or NUL.
    /// Braces would change the hash slots.
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Result<Self> {
        let prefix = prefix.into();
        if prefix.contains(['{', '}', '\0']) || prefix.len() > MAX_PREFIX_BYTES {
            return Err(invalid(
                "prefix",
                "it can have at most 128 bytes, without `{`, `}` and NUL",
            ));
        }
        self.prefix = prefix;
        Ok(self)
    }

    /// Sets the time limit for connecting to a server. The default is [`DEFAULT_CONNECT_TIMEOUT`].
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets for how long a call is retried. The default is [`DEFAULT_RETRY_TIMEOUT`]; zero disables
    /// retries.
    ///
    /// A call is retried only if repeating it is safe. That includes replies such as `TRYAGAIN`,
    /// `CLUSTERDOWN` and `LOADING`, lost replies to reads, and in a cluster an unreachable master.
    /// A single server that cannot be reached is `Unavailable` immediately.
    ///
    /// Retries never exceed the deadline of the call. The limit covers a whole put, including the
    /// registration of its namespace on other servers.
    #[must_use]
    pub fn with_retry_timeout(mut self, timeout: Duration) -> Self {
        self.retry_timeout = timeout;
        self
    }

    /// Sets the number of shared connections to each server, at least 1. The default is
    /// [`DEFAULT_CONNECTIONS`].
    ///
    /// A connection pipelines any number of concurrent calls and answers them in order. The
    /// namespaces are divided among the connections. With one connection, concurrent requests are
    /// batched best. With several, a large value delays fewer other calls.
    #[must_use]
    pub fn with_connections(mut self, count: usize) -> Self {
        self.connections = count.max(1);
        self
    }

    /// Sets how many replicas must confirm a write before it succeeds. The default is 0: writes do
    /// not wait.
    ///
    /// If too few replicas confirm within the [wait timeout](Self::with_wait_timeout), the write
    /// fails with `Unavailable` and an unknown outcome: the master has applied it.
    ///
    /// Waiting makes it less likely that a failover loses a write, but does not exclude it:
    ///
    /// - A replica confirms a write when it is in memory, not on disk.
    /// - A master that restarts without its data, before a replica is promoted, also empties its
    ///   replicas.
    /// - If a master has several replicas, the cluster may promote one that did not receive the
    ///   write.
    ///
    /// Writes that wait use separate connections and do not delay reads. A read after a write of
    /// unknown outcome can therefore overtake that write.
    #[must_use]
    pub fn with_wait_for_replicas(mut self, replicas: u32) -> Self {
        self.wait_replicas = replicas;
        self
    }

    /// Sets the time limit for waiting for replicas. The default is [`DEFAULT_WAIT_TIMEOUT`].
    #[must_use]
    pub fn with_wait_timeout(mut self, timeout: Duration) -> Self {
        self.wait_timeout = timeout;
        self
    }

    /// Sets the number of connections to each server for writes that wait for replicas, at least 1.
    /// The default is [`DEFAULT_WAIT_CONNECTIONS`]. A connection runs one such write at a time.
    #[must_use]
    pub fn with_wait_connections(mut self, count: usize) -> Self {
        self.wait_connections = count.max(1);
        self
    }

    /// Sets the maximum size of a value in bytes. The default is 16 MiB; the maximum is 256 MiB.
    #[must_use]
    pub fn with_max_value_bytes(mut self, bytes: usize) -> Self {
        self.max_value_bytes = bytes.min(MOST_VALUE_BYTES);
        self
    }

    /// Returns whether the URL names a cluster.
    #[must_use]
    pub const fn is_cluster(&self) -> bool {
        self.cluster
    }

    /// Returns the prefix of all Redis keys.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

fn addresses(hosts: &str, cluster: bool) -> Result<Vec<Address>> {
    if cluster && hosts.split(',').any(|host| host.is_empty() || host.starts_with(':')) {
        return Err(Error::invalid_argument(
            "a node in the Redis Cluster URL has no host: write \
             `redis+cluster://HOST:PORT,HOST:PORT`",
        ));
    }
    let addresses: Vec<Address> = hosts.split(',').map(Address::parse).collect::<Result<_>>()?;
    if addresses.len() > 1 && !cluster {
        return Err(Error::invalid_argument(
            "the Redis URL has several servers: write `redis+cluster://HOST:PORT,HOST:PORT` for a \
             cluster",
        ));
    }
    Ok(addresses)
}

fn not_a_url() -> Error {
    Error::invalid_argument(
        "not a Redis URL: write `redis://USER:PASSWORD@HOST:PORT/DATABASE`, `rediss://…` for \
         TLS, or `redis+cluster://HOST:PORT,HOST:PORT`",
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
