//! How the database is reached and how the store behaves.

use std::fmt;
use std::time::Duration;

use cubbyhole_core::limits::DEFAULT_MAX_VALUE_BYTES;
use cubbyhole_core::{Error, Result};
use tokio_postgres::config::SslMode;

use crate::conninfo::{self, Encryption, Environment, Host, Resolved, SessionParameters, TlsMode};

/// How many connections a pool may have unless set: 10.
pub const DEFAULT_POOL_SIZE: usize = 10;
/// How long a call waits for a connection unless set: 10 seconds.
pub const DEFAULT_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connecting to one address may take unless set: 10 seconds.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection stays open without being used unless set: 10 minutes.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// The schema unless set: `cubbyhole`.
pub const DEFAULT_SCHEMA: &str = "cubbyhole";

/// The largest limit on values: a `bytea` holds 1 GiB, its message a little less.
const MOST_VALUE_BYTES: usize = 512 * 1024 * 1024;
/// Long enough for a name, and short enough for the names of roles made of it.
const MAX_SCHEMA_BYTES: usize = 48;

/// What stands between the store and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pooler {
    /// Nothing, or a pooler that gives each client a server connection of its own (PgBouncer's
    /// session mode).
    #[default]
    None,
    /// A pooler that gives out a server connection for each transaction (PgBouncer's transaction
    /// mode). Deadlines are then set within a transaction around the call, in the same round
    /// trip. Prepared statements need PgBouncer 1.21 with `max_prepared_statements` set, or to be
    /// turned off: [`Config::with_statement_cache`].
    Transaction,
}

/// How the database is reached and how the store behaves.
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
    /// Reads a URL, `postgres://USER:PASSWORD@HOST:PORT/DATABASE?OPTION=VALUE&…` with names
    /// percent-encoded, and completes it as libpq does: `psql` connects to the same database.
    ///
    /// Parameters that the URL does not set come from the section of a service file (`service=NAME` or
    /// `PGSERVICE`), then from the environment (`PGHOST`, `PGPORT`, `PGUSER`, `PGDATABASE`,
    /// `PGPASSWORD`, `PGSSLMODE` and libpq's others), then for the password from the password file
    /// (`~/.pgpass`). Without a host the default is the platform's Unix socket, the user is the one
    /// of the operating system, and the database has the user's name. Files of `~/.postgresql` are
    /// the default certificates. Several hosts are tried in order. `prefer` applies without
    /// `sslmode`; only `verify-full` makes sure that the server is the one that was asked for.
    /// `docs/backends/postgres.md` lists the parameters, and those that are refused.
    ///
    /// Environment and files are read now, except for certificates and keys, which are read when the
    /// store is opened. [`from_url_alone`](Self::from_url_alone) reads neither.
    ///
    /// The store's own options, each the method of that name here: `schema`, `pool_size`,
    /// `acquire_timeout` and `idle_timeout` (seconds; an idle timeout of 0 is none),
    /// `statement_cache` (`on`, `off`), `pooler` (`none`, `transaction`), `migrate` (`on`, `off`),
    /// `allow_unbound_role` (`on`, `off`).
    ///
    /// # Errors
    /// `InvalidArgument` that names the option, the variable or the line of a file; `Unsupported`
    /// for a parameter of libpq's that this build cannot honour. No message quotes the URL.
    pub fn from_url(url: &str) -> Result<Self> {
        Self::in_environment(url, &Environment::of_process())
    }

    /// Reads a URL like [`from_url`](Self::from_url), and neither the environment nor any file of
    /// libpq's: parameters that the URL does not set have their defaults.
    ///
    /// # Errors
    /// As those of [`from_url`](Self::from_url).
    pub fn from_url_alone(url: &str) -> Result<Self> {
        Self::in_environment(url, &Environment::none())
    }

    pub(crate) fn in_environment(url: &str, environment: &Environment) -> Result<Self> {
        if url.contains(char::is_control) {
            return Err(Error::invalid_argument(
                "the PostgreSQL URL holds a control character, such as a line end: remove it, or \
                 write it percent-encoded (%0A, %0D) if it is meant",
            ));
        }
        let Resolved { parameters, own } = conninfo::resolve(url, &OWN_OPTIONS, environment)?;
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
        for (name, value) in own {
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
                    .ok_or_else(|| invalid(name, "write a number from 1 on"))?;
            }
            "acquire_timeout" => {
                self.acquire_timeout = seconds(name, value)?
                    .ok_or_else(|| invalid(name, "write a number of seconds from 1 on"))?;
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
            _ => return Err(invalid(name, "there is no such option")),
        }
        Ok(())
    }

    /// The schema that holds everything, and the beginning of the names of its roles
    /// (`<schema>_app` and others): lower-case letters, digits and `_`, at most 48 bytes.
    /// [`DEFAULT_SCHEMA`] unless set.
    ///
    /// # Errors
    /// `InvalidArgument` for another name.
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
                "write lower-case letters, digits and `_`, no digit or `pg_` first, at most 48",
            ));
        }
        self.schema = schema;
        Ok(self)
    }

    /// How many connections the pool may have, at least 1; [`DEFAULT_POOL_SIZE`] unless set. Calls
    /// beyond that wait.
    #[must_use]
    pub fn with_pool_size(mut self, size: usize) -> Self {
        self.pool_size = size.max(1);
        self
    }

    /// How long a call waits for a connection before it is `ResourceExhausted`;
    /// [`DEFAULT_ACQUIRE_TIMEOUT`] unless set.
    #[must_use]
    pub fn with_acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// How long connecting to one address of a host may take; [`DEFAULT_CONNECT_TIMEOUT`] unless set.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a connection stays open without being used, `None` for as long as the server keeps
    /// it; [`DEFAULT_IDLE_TIMEOUT`] unless set.
    #[must_use]
    pub fn with_idle_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Whether statements are kept prepared on their connections, as they are unless set. Without,
    /// the server parses each anew; a pooler that knows no prepared statements needs that.
    #[must_use]
    pub fn with_statement_cache(mut self, cache: bool) -> Self {
        self.statement_cache = cache;
        self
    }

    /// What stands between the store and the server; nothing unless set.
    #[must_use]
    pub fn with_pooler(mut self, pooler: Pooler) -> Self {
        self.pooler = pooler;
        self
    }

    /// The name that the server shows for the connections; `cubbyhole` unless set.
    #[must_use]
    pub fn with_application_name(mut self, name: impl Into<String>) -> Self {
        self.session.server.application_name(name.into());
        self
    }

    /// Whether opening runs [`migrate`](crate::migrate) first, with the same role, which must then
    /// be one that may. It does not unless set.
    #[must_use]
    pub fn with_migrations(mut self, migrate: bool) -> Self {
        self.migrate = migrate;
        self
    }

    /// Whether a role is accepted that row security does not bind: a superuser, one with
    /// `BYPASSRLS`, a member of the roles that see across tenants. It is refused unless set.
    /// Tenants are then kept apart by the store's own statements alone.
    #[must_use]
    pub fn with_unbound_role(mut self, allow: bool) -> Self {
        self.allow_unbound_role = allow;
        self
    }

    /// The largest value in bytes, 16 MiB unless set, at most 512 MiB.
    #[must_use]
    pub fn with_max_value_bytes(mut self, bytes: usize) -> Self {
        self.max_value_bytes = bytes.min(MOST_VALUE_BYTES);
        self
    }

    /// The schema's name.
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

/// The store's own options.
const OWN_OPTIONS: [&str; 8] = [
    "schema",
    "pool_size",
    "acquire_timeout",
    "idle_timeout",
    "statement_cache",
    "pooler",
    "migrate",
    "allow_unbound_role",
];

/// `None` for zero.
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
    fn a_url_sets_what_it_names() {
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
    fn a_plain_url_has_the_defaults() {
        let config = Config::from_url_alone("postgres://localhost").unwrap();
        assert_eq!((config.schema(), config.pool_size), (DEFAULT_SCHEMA, DEFAULT_POOL_SIZE));
        assert_eq!(config.session.server.get_application_name(), Some("cubbyhole"));
        assert_eq!(config.ssl_mode(), SslMode::Prefer);
        assert!(!config.migrate && !config.allow_unbound_role && config.statement_cache);
    }

    #[test]
    fn what_is_wrong_is_named_and_no_password_is_shown() {
        for (options, named) in [
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
            assert!(error.message().contains(named), "{options}: {error}");
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        }
        let config = Config::from_url_alone("postgres://app:s3cret@db/state").unwrap();
        assert!(!format!("{config:?}").contains("s3cret"));
    }
}
