//! How the database is reached and how the store behaves.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use cubbyhole_core::limits::DEFAULT_MAX_VALUE_BYTES;
use cubbyhole_core::{Error, Result};
use percent_encoding::percent_decode_str;
use tokio_postgres::config::SslMode;

/// How many connections a pool may have unless set: 10.
pub const DEFAULT_POOL_SIZE: usize = 10;
/// How long a call waits for a connection unless set: 10 seconds.
pub const DEFAULT_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connecting may take unless set: 10 seconds.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection stays open without being used unless set: 10 minutes.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// The schema unless set: `cubbyhole`.
pub const DEFAULT_SCHEMA: &str = "cubbyhole";

/// The largest limit on values: a `bytea` holds 1 GiB, its message a little less.
const MOST_VALUE_BYTES: usize = 512 * 1024 * 1024;
/// Long enough for a name, and short enough for the names of roles made of it.
const MAX_SCHEMA_BYTES: usize = 48;
const APPLICATION_NAME: &str = "cubbyhole";

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
    /// turned off: [`PostgresConfig::with_statement_cache`].
    Transaction,
}

/// How the database is reached and how the store behaves.
///
/// ```
/// use std::time::Duration;
/// use cubbyhole_postgres::PostgresConfig;
///
/// let config = PostgresConfig::from_url("postgres://app:secret@db.internal/state?sslmode=verify-full")?
///     .with_pool_size(20)
///     .with_acquire_timeout(Duration::from_secs(2));
/// assert!(!format!("{config:?}").contains("secret"));
/// # Ok::<(), cubbyhole_core::Error>(())
/// ```
#[derive(Clone)]
pub struct PostgresConfig {
    pub(crate) server: tokio_postgres::Config,
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

/// Whether connections are encrypted and what is checked of the server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsMode {
    pub(crate) encryption: Encryption,
    /// The certificates to trust in place of the platform's.
    pub(crate) root_cert: Option<PathBuf>,
}

/// The modes of libpq's `sslmode`, but for `allow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encryption {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl PostgresConfig {
    /// Reads a URL: `postgres://USER:PASSWORD@HOST:PORT/DATABASE?OPTION=VALUE&…`, where names are
    /// percent-encoded. Options of libpq are `sslmode` (`disable`, `prefer`, `require`,
    /// `verify-ca`, `verify-full`), `sslrootcert` (a file; the platform's certificates otherwise),
    /// `host` (a folder for a Unix socket), `application_name`, `connect_timeout` (seconds),
    /// `target_session_attrs`, `options` and the others that `tokio-postgres` reads. Several hosts
    /// are tried in order. As with libpq, `prefer` is what holds without `sslmode`, and only
    /// `verify-full` makes sure that the server is the one that was asked for.
    ///
    /// The store's own options, each the method of that name here: `schema`, `pool_size`,
    /// `acquire_timeout` and `idle_timeout` (seconds; an idle timeout of 0 is none),
    /// `statement_cache` (`on`, `off`), `pooler` (`none`, `transaction`), `migrate` (`on`, `off`),
    /// `allow_unbound_role` (`on`, `off`).
    ///
    /// # Errors
    /// `InvalidArgument` that names the option. No message quotes the URL.
    pub fn from_url(url: &str) -> Result<Self> {
        if url.contains(char::is_control) {
            return Err(Error::invalid_argument(
                "the PostgreSQL URL holds a control character, such as a line end: remove it, or \
                 write it percent-encoded (%0A, %0D) if it is meant",
            ));
        }
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        // Where one stands in a password unencoded, what follows it would be a host or an option,
        // and those are shown.
        if address.matches('@').count() > 1 || query.contains('@') {
            return Err(Error::invalid_argument(
                "the PostgreSQL URL has a `@` besides the one before the host: write `%40`, and in \
                 a password also `%3F` for `?`",
            ));
        }
        let mut own = Vec::new();
        let mut rest = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| Error::invalid_argument("an option in the URL has no `=`"))?;
            if OWN_OPTIONS.contains(&name) {
                let value = percent_decode_str(value)
                    .decode_utf8()
                    .map_err(|_| invalid(name, "it is not UTF-8"))?;
                own.push((name, value.into_owned()));
            } else {
                rest.push(pair);
            }
        }
        let url = if rest.is_empty() {
            address.to_owned()
        } else {
            format!("{address}?{}", rest.join("&"))
        };
        // The parser's own message may quote a part of the URL, and that may be the password.
        let mut server: tokio_postgres::Config = url.parse().map_err(|_| {
            Error::invalid_argument(
                "not a PostgreSQL URL: write `postgres://USER:PASSWORD@HOST/DATABASE`, with names \
                 percent-encoded and options after `?` that PostgreSQL or this store knows",
            )
        })?;
        if server.get_hosts().is_empty() {
            server.host("localhost");
        }
        let mut config = Self::new(server);
        for (name, value) in own {
            config.set(name, &value)?;
        }
        Ok(config)
    }

    fn new(mut server: tokio_postgres::Config) -> Self {
        if server.get_application_name().is_none() {
            server.application_name(APPLICATION_NAME);
        }
        let connect_timeout = server.get_connect_timeout().copied();
        Self {
            server,
            tls: TlsMode { encryption: Encryption::Prefer, root_cert: None },
            schema: DEFAULT_SCHEMA.to_owned(),
            pool_size: DEFAULT_POOL_SIZE,
            acquire_timeout: DEFAULT_ACQUIRE_TIMEOUT,
            connect_timeout: connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT),
            idle_timeout: Some(DEFAULT_IDLE_TIMEOUT),
            statement_cache: true,
            pooler: Pooler::None,
            migrate: false,
            allow_unbound_role: false,
            max_value_bytes: DEFAULT_MAX_VALUE_BYTES,
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "sslmode" => self.tls.encryption = encryption(value)?,
            "sslrootcert" => self.tls.root_cert = Some(PathBuf::from(value)),
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

    /// How long connecting to a host may take; [`DEFAULT_CONNECT_TIMEOUT`] unless set.
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
        self.server.application_name(name.into());
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

/// The options that `tokio-postgres` does not know, or knows less of.
const OWN_OPTIONS: [&str; 10] = [
    "sslmode",
    "sslrootcert",
    "schema",
    "pool_size",
    "acquire_timeout",
    "idle_timeout",
    "statement_cache",
    "pooler",
    "migrate",
    "allow_unbound_role",
];

fn encryption(value: &str) -> Result<Encryption> {
    Ok(match value {
        "disable" => Encryption::Disable,
        "prefer" => Encryption::Prefer,
        "require" => Encryption::Require,
        "verify-ca" => Encryption::VerifyCa,
        "verify-full" => Encryption::VerifyFull,
        _ => {
            return Err(invalid(
                "sslmode",
                "write `disable`, `prefer`, `require`, `verify-ca` or `verify-full`",
            ));
        }
    })
}

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
    Error::invalid_argument(format!("option `{option}` of the PostgreSQL URL: {advice}"))
}

impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("hosts", &self.server.get_hosts())
            .field("ports", &self.server.get_ports())
            .field("database", &self.server.get_dbname())
            .field("user", &self.server.get_user())
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
        let config = PostgresConfig::from_url(
            "postgresql://app:s3cret@db:6432/state?sslmode=verify-ca&sslrootcert=%2Fca.pem\
             &schema=agents&pool_size=3&acquire_timeout=2&idle_timeout=0&statement_cache=off\
             &pooler=transaction&migrate=on&allow_unbound_role=on&application_name=svc\
             &connect_timeout=7",
        )
        .unwrap();
        assert_eq!(config.tls.encryption, Encryption::VerifyCa);
        assert_eq!(config.tls.root_cert, Some(PathBuf::from("/ca.pem")));
        assert_eq!((config.schema(), config.pool_size), ("agents", 3));
        assert_eq!(config.acquire_timeout, Duration::from_secs(2));
        assert_eq!(config.connect_timeout, Duration::from_secs(7));
        assert_eq!((config.idle_timeout, config.statement_cache), (None, false));
        assert_eq!(config.pooler, Pooler::Transaction);
        assert!(config.migrate && config.allow_unbound_role);
        assert_eq!(config.server.get_application_name(), Some("svc"));
        assert_eq!(config.server.get_user(), Some("app"));
    }

    #[test]
    fn a_plain_url_has_the_defaults() {
        let config = PostgresConfig::from_url("postgres://localhost").unwrap();
        assert_eq!((config.schema(), config.pool_size), (DEFAULT_SCHEMA, DEFAULT_POOL_SIZE));
        assert_eq!(config.server.get_application_name(), Some("cubbyhole"));
        assert_eq!(config.ssl_mode(), SslMode::Prefer);
        assert!(!config.migrate && !config.allow_unbound_role && config.statement_cache);
        // Without a host it is this machine, as it is for psql.
        assert_eq!(PostgresConfig::from_url("postgres:///db").unwrap().server.get_hosts().len(), 1);
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
            ("no_such=1", "options"),
            ("port=s3cret", "PostgreSQL URL"),
        ] {
            let url = format!("postgres://app:s3cret@db/state?{options}");
            let error = PostgresConfig::from_url(&url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{options}");
            assert!(error.message().contains(named), "{options}: {error}");
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        }
        let config = PostgresConfig::from_url("postgres://app:s3cret@db/state").unwrap();
        assert!(!format!("{config:?}").contains("s3cret"));
    }
}
