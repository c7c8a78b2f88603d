//! [`Config`]: the connection URL and the settings of a store.

use std::fmt;
use std::time::Duration;

use cubbyhole_core::limits::DEFAULT_MAX_VALUE_BYTES;
use cubbyhole_core::{Error, Result};
use tokio_postgres::config::SslMode;

use crate::conninfo::{self, Encryption, Environment, Host, Resolved, SessionParameters, TlsMode};

/// The default maximum number of connections in the pool: 10.
pub const DEFAULT_POOL_SIZE: usize = 10;
/// The default time that a call waits for a connection: 10 seconds.
pub const DEFAULT_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// The default timeout for connecting to one address: 10 seconds.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The default time after which an idle connection is closed: 10 minutes.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// The default schema: `cubbyhole`.
pub const DEFAULT_SCHEMA: &str = "cubbyhole";

/// The largest allowed limit on values. PostgreSQL limits a `bytea` and a message to 1 GiB.
const MAX_VALUE_BYTES: usize = 512 * 1024 * 1024;
/// Leaves room for the suffixes of role names: PostgreSQL limits identifiers to 63 bytes.
const MAX_SCHEMA_BYTES: usize = 48;

/// The connection pooler between the store and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pooler {
    /// No pooler, or one that gives each client its own server connection (PgBouncer's session
    /// mode).
    #[default]
    None,
    /// A pooler that assigns a server connection to each transaction (PgBouncer's transaction
    /// mode).
    ///
    /// The store then sets `statement_timeout` within a transaction around each call, in the same
    /// round trip. Prepared statements require PgBouncer 1.21 or later with
    /// `max_prepared_statements`. For other poolers, disable them with
    /// [`Config::with_statement_cache`].
    Transaction,
}

/// The connection URL and the settings of a store.
///
/// Every setting has a default. A setting that has a URL option can also be set in the URL.
///
/// | method | URL option | default |
/// |---|---|---|
/// | [`with_schema`](Self::with_schema) | `schema` | `cubbyhole` |
/// | [`with_pool_size`](Self::with_pool_size) | `pool_size` | 10 connections |
/// | [`with_acquire_timeout`](Self::with_acquire_timeout) | `acquire_timeout`, in seconds | 10 s |
/// | [`with_connect_timeout`](Self::with_connect_timeout) | `connect_timeout`, in seconds; 0 disables it | 10 s per address |
/// | [`with_idle_timeout`](Self::with_idle_timeout) | `idle_timeout`, in seconds; 0 disables it | 600 s |
/// | [`with_statement_cache`](Self::with_statement_cache) | `statement_cache=on\|off` | `on` |
/// | [`with_pooler`](Self::with_pooler) | `pooler=none\|transaction` | `none` |
/// | [`with_application_name`](Self::with_application_name) | `application_name` | `cubbyhole` |
/// | [`with_migrations`](Self::with_migrations) | `migrate=on\|off` | `off` |
/// | [`with_unbound_role`](Self::with_unbound_role) | `allow_unbound_role=on\|off` | `off` |
/// | [`with_max_value_bytes`](Self::with_max_value_bytes) | | 16 MiB |
///
/// `Debug` output hides passwords:
///
/// ```
/// use std::time::Duration;
/// use cubbyhole_postgres::Config;
///
/// let config = Config::from_url("postgres://app:secret@db.internal/state?sslmode=verify-full")?
///     .with_pool_size(20)
///     .with_acquire_timeout(Duration::from_secs(2));
/// assert!(!format!("{config:?}").contains("secret"));
/// # Ok::<(), cubbyhole_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Config {
    pub(crate) hosts: Vec<Host>,
    pub(crate) session: SessionParameters,
    pub(crate) tls: TlsMode,
    pub(crate) schema: String,
    pub(crate) pool_size: usize,
    pub(crate) acquire_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) statement_cache: bool,
    pub(crate) pooler: Pooler,
    pub(crate) migrate: bool,
    pub(crate) allow_unbound_role: bool,
    pub(crate) max_value_bytes: usize,
}

impl Config {
    /// Parses a URL and completes it as libpq does, so `psql` with the same URL connects to the
    /// same database.
    ///
    /// The URL is `postgres://USER:PASSWORD@HOST:PORT/DATABASE?OPTION=VALUE&…`. Percent-encode
    /// special characters in names. Several hosts, separated by commas, are tried in order. The
    /// options are those in the table of [`Config`] and libpq's parameters;
    /// `docs/backends/postgres.md` lists the supported ones.
    ///
    /// Parameters that the URL does not set come from these sources, in this order:
    ///
    /// 1. the section of a service file that `service=NAME` or `PGSERVICE` names;
    /// 2. the environment: `PGHOST`, `PGPORT`, `PGUSER`, `PGDATABASE`, `PGPASSWORD`, `PGSSLMODE`
    ///    and libpq's other variables;
    /// 3. for the password, the password file (`~/.pgpass`);
    /// 4. the defaults: the platform's Unix socket, the user of the operating system, the database
    ///    of the same name, `sslmode=prefer`, and the certificates in `~/.postgresql`.
    ///
    /// Only `sslmode=verify-full` verifies that the server is the one that the URL names.
    ///
    /// This function reads the environment and the files immediately, except certificates and keys,
    /// which are read when the store is opened. [`from_url_alone`](Self::from_url_alone) reads
    /// neither.
    ///
    /// # Errors
    /// - `InvalidArgument` for a malformed URL, option, variable or line of a file. The message
    ///   names it.
    /// - `Unsupported` for a parameter of libpq that this crate does not support.
    ///
    /// No message contains a part of the URL that may be a secret.
    pub fn from_url(url: &str) -> Result<Self> {
        Self::in_environment(url, &Environment::of_process())
    }

    /// Parses a URL like [`from_url`](Self::from_url), without the environment and libpq's files.
    /// The defaults apply to parameters that the URL does not set.
    ///
    /// # Errors
    /// The same errors as [`from_url`](Self::from_url).
    pub fn from_url_alone(url: &str) -> Result<Self> {
        Self::in_environment(url, &Environment::none())
    }

    pub(crate) fn in_environment(url: &str, environment: &Environment) -> Result<Self> {
        if url.contains(char::is_control) {
            return Err(Error::invalid_argument(
                "the PostgreSQL URL contains a control character, such as a line break: remove it, or \
                 percent-encode it (%0A, %0D) if it is intended",
            ));
        }
        let Resolved { parameters, store_options } =
            conninfo::resolve(url, &STORE_OPTIONS, environment)?;
        let session = SessionParameters::new(&parameters, environment)?;
        let tls = TlsMode::new(&parameters, environment)?;
        let connect_timeout = session.connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT);
        let mut config = Self {
            hosts: conninfo::hosts(&parameters, environment, &session.user, &session.database)?,
            session,
            tls,
            schema: DEFAULT_SCHEMA.to_owned(),
            pool_size: DEFAULT_POOL_SIZE,
            acquire_timeout: DEFAULT_ACQUIRE_TIMEOUT,
            connect_timeout,
            idle_timeout: Some(DEFAULT_IDLE_TIMEOUT),
            statement_cache: true,
            pooler: Pooler::None,
            migrate: false,
            allow_unbound_role: false,
            max_value_bytes: DEFAULT_MAX_VALUE_BYTES,
        };
        for (name, value) in store_options {
            config.set(name, &value)?;
        }
        Ok(config)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "schema" => *self = self.clone().with_schema(value)?,
            "pool_size" => {
                self.pool_size = value
                    .parse()
                    .ok()
                    .filter(|size| *size > 0)
                    .ok_or_else(|| invalid(name, "write a number of at least 1"))?;
            }
            "acquire_timeout" => {
                self.acquire_timeout = seconds(name, value)?
                    .ok_or_else(|| invalid(name, "write a number of seconds, at least 1"))?;
            }
            "idle_timeout" => self.idle_timeout = seconds(name, value)?,
            "statement_cache" => self.statement_cache = on_off(name, value)?,
            "migrate" => self.migrate = on_off(name, value)?,
            "allow_unbound_role" => self.allow_unbound_role = on_off(name, value)?,
            "pooler" => {
                self.pooler = match value {
                    "none" => Pooler::None,
                    "transaction" => Pooler::Transaction,
                    _ => return Err(invalid(name, "write `none` or `transaction`")),
                };
            }
            _ => return Err(invalid(name, "unknown option")),
        }
        Ok(())
    }

    /// Sets the schema, which is also the prefix of its roles (`<schema>_app` and others). The
    /// default is [`DEFAULT_SCHEMA`].
    ///
    /// A name consists of lower-case letters, digits and `_`, has at most 48 bytes, and does not
    /// start with a digit or `pg_`.
    ///
    /// # Errors
    /// `InvalidArgument` for any other name.
    pub fn with_schema(mut self, schema: impl Into<String>) -> Result<Self> {
        let schema = schema.into();
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let good = schema.chars().all(plain)
            && schema.starts_with(|c: char| !c.is_ascii_digit())
            && schema.len() <= MAX_SCHEMA_BYTES
            && !schema.starts_with("pg_");
        if !good {
            return Err(invalid(
                "schema",
                "write at most 48 lower-case letters, digits and `_`, not starting with a digit or \
                 `pg_`",
            ));
        }
        self.schema = schema;
        Ok(self)
    }

    /// Sets the maximum number of connections in the pool. The minimum is 1 and the default is
    /// [`DEFAULT_POOL_SIZE`]. Each call in flight uses one connection; further calls wait.
    #[must_use]
    pub fn with_pool_size(mut self, size: usize) -> Self {
        self.pool_size = size.max(1);
        self
    }

    /// Sets how long a call waits for a connection before it fails with `ResourceExhausted`. The
    /// default is [`DEFAULT_ACQUIRE_TIMEOUT`].
    #[must_use]
    pub fn with_acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// Sets the timeout for connecting to one address of a host. The default is
    /// [`DEFAULT_CONNECT_TIMEOUT`].
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets the time after which an idle connection is closed. `None` keeps idle connections open.
    /// The default is [`DEFAULT_IDLE_TIMEOUT`].
    #[must_use]
    pub fn with_idle_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Sets whether statements stay prepared on their connections. The default is `true`.
    ///
    /// With `false`, the server parses each statement again. Poolers in transaction mode that do
    /// not support prepared statements require this.
    #[must_use]
    pub fn with_statement_cache(mut self, cache: bool) -> Self {
        self.statement_cache = cache;
        self
    }

    /// Sets the pooler between the store and the server. The default is [`Pooler::None`].
    #[must_use]
    pub fn with_pooler(mut self, pooler: Pooler) -> Self {
        self.pooler = pooler;
        self
    }

    /// Sets the name that the server shows for the connections. The default is `cubbyhole`.
    #[must_use]
    pub fn with_application_name(mut self, name: impl Into<String>) -> Self {
        self.session.server.application_name(name.into());
        self
    }

    /// Sets whether opening the store runs [`migrate`](crate::migrate()) first, with the role of
    /// the URL. The role needs the privileges that `migrate` needs. The default is `false`.
    #[must_use]
    pub fn with_migrations(mut self, migrate: bool) -> Self {
        self.migrate = migrate;
        self
    }

    /// Sets whether opening accepts a role that bypasses row security: a superuser, a role with
    /// `BYPASSRLS`, or a member of `<schema>_sweeper` or `<schema>_enumerator`. The default is
    /// `false`.
    ///
    /// With such a role, only the `WHERE` clauses of the store's statements isolate tenants.
    #[must_use]
    pub fn with_unbound_role(mut self, allow: bool) -> Self {
        self.allow_unbound_role = allow;
        self
    }

    /// Sets the size limit of a value in bytes. The default is 16 MiB and the maximum is 512 MiB.
    #[must_use]
    pub fn with_max_value_bytes(mut self, bytes: usize) -> Self {
        self.max_value_bytes = bytes.min(MAX_VALUE_BYTES);
        self
    }

    /// Returns the name of the schema.
    #[must_use]
    pub fn schema(&self) -> &str {
        &self.schema
    }

    pub(crate) fn ssl_mode(&self) -> SslMode {
        match self.tls.encryption {
            Encryption::Disable => SslMode::Disable,
            Encryption::Prefer => SslMode::Prefer,
            Encryption::Require | Encryption::VerifyCa | Encryption::VerifyFull => SslMode::Require,
        }
    }
}

/// URL options of the store, in addition to libpq's parameters.
const STORE_OPTIONS: [&str; 8] = [
    "schema",
    "pool_size",
    "acquire_timeout",
    "idle_timeout",
    "statement_cache",
    "pooler",
    "migrate",
    "allow_unbound_role",
];

/// Parses seconds. Zero is `None`.
fn seconds(name: &str, value: &str) -> Result<Option<Duration>> {
    match value.parse::<u32>() {
        Ok(0) => Ok(None),
        Ok(seconds) => Ok(Some(Duration::from_secs(seconds.into()))),
        Err(_) => Err(invalid(name, "write a whole number of seconds")),
    }
}

fn on_off(name: &str, value: &str) -> Result<bool> {
    match value {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err(invalid(name, "write `on` or `off`")),
    }
}

fn invalid(option: &str, advice: &str) -> Error {
    conninfo::Origin::Url.invalid(option, advice)
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("hosts", &self.hosts)
            .field("database", &self.session.database)
            .field("user", &self.session.user)
            .field("tls", &self.tls)
            .field("schema", &self.schema)
            .field("pool_size", &self.pool_size)
            .field("pooler", &self.pooler)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use cubbyhole_core::ErrorKind;

    use super::*;

    #[test]
    fn url_options_set_the_config() {
        let config = Config::from_url_alone(
            "postgresql://app:s3cret@db:6432/state?sslmode=verify-ca&sslrootcert=%2Fca.pem\
             &schema=agents&pool_size=3&acquire_timeout=2&idle_timeout=0&statement_cache=off\
             &pooler=transaction&migrate=on&allow_unbound_role=on&application_name=svc\
             &connect_timeout=7",
        )
        .unwrap();
        assert_eq!(config.tls.encryption, Encryption::VerifyCa);
        assert_eq!(config.tls.root_cert, Some("/ca.pem".into()));
        assert_eq!((config.schema(), config.pool_size), ("agents", 3));
        assert_eq!(config.acquire_timeout, Duration::from_secs(2));
        assert_eq!(config.connect_timeout, Duration::from_secs(7));
        assert_eq!((config.idle_timeout, config.statement_cache), (None, false));
        assert_eq!(config.pooler, Pooler::Transaction);
        assert!(config.migrate && config.allow_unbound_role);
        assert_eq!(config.session.server.get_application_name(), Some("svc"));
        assert_eq!(config.session.user, "app");
    }

    #[test]
    fn url_without_options_has_the_defaults() {
        let config = Config::from_url_alone("postgres://localhost").unwrap();
        assert_eq!((config.schema(), config.pool_size), (DEFAULT_SCHEMA, DEFAULT_POOL_SIZE));
        assert_eq!(config.session.server.get_application_name(), Some("cubbyhole"));
        assert_eq!(config.ssl_mode(), SslMode::Prefer);
        assert!(!config.migrate && !config.allow_unbound_role && config.statement_cache);
    }

    #[test]
    fn invalid_option_is_named_and_the_password_is_hidden() {
        for (options, expected) in [
            ("sslmode=allow", "sslmode"),
            ("schema=A", "schema"),
            ("schema=pg_x", "schema"),
            ("schema=1a", "schema"),
            ("schema=", "schema"),
            ("pool_size=0", "pool_size"),
            ("acquire_timeout=0", "acquire_timeout"),
            ("idle_timeout=soon", "idle_timeout"),
            ("statement_cache=1", "statement_cache"),
            ("pooler=session", "pooler"),
            ("migrate=yes", "migrate"),
            ("pool_size", "="),
            ("no_such=1", "no_such"),
            ("port=s3cret", "port"),
        ] {
            let url = format!("postgres://app:s3cret@db/state?{options}");
            let error = Config::from_url_alone(&url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{options}");
            assert!(error.message().contains(expected), "{options}: {error}");
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        }
        let config = Config::from_url_alone("postgres://app:s3cret@db/state").unwrap();
        assert!(!format!("{config:?}").contains("s3cret"));
    }
}
