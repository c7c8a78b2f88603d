//! The servers that the tests run against.
//!
//! Each is a private one, of `cubbyhole-test-servers`, on a free port and in a temporary folder;
//! it is stopped when [`Services`] is dropped, and also when this program is killed. Where the
//! developer points a `CUBBYHOLE_TEST_…_URL` at a server of theirs, that one is used and none is
//! started. There is PostgreSQL; Redis and a Redis Cluster come with their backend, a field each.

use std::env;

/// Tells the tests where PostgreSQL is, and this program where the developer's is.
const POSTGRES_URL: &str = "CUBBYHOLE_TEST_POSTGRES_URL";

/// The running servers; they live as long as this.
pub(crate) struct Services {
    environment: Vec<(&'static str, String)>,
    #[cfg(unix)]
    _postgres: Option<cubbyhole_test_servers::PostgresServer>,
}

#[cfg(unix)]
impl Services {
    /// Starts what the tests need and the developer has not named.
    pub(crate) fn start() -> Result<Self, String> {
        if is_named(POSTGRES_URL) {
            return Ok(Self { environment: Vec::new(), _postgres: None });
        }
        let server = cubbyhole_test_servers::PostgresServer::start()
            .map_err(|error| format!("no PostgreSQL for the tests: {error}"))?;
        println!("==> services: a private PostgreSQL on 127.0.0.1:{}", server.port());
        let environment = vec![(POSTGRES_URL, server.url().to_owned())];
        Ok(Self { environment, _postgres: Some(server) })
    }
}

#[cfg(not(unix))]
impl Services {
    /// Private servers need Unix; elsewhere the developer names some.
    pub(crate) fn start() -> Result<Self, String> {
        if is_named(POSTGRES_URL) {
            return Ok(Self { environment: Vec::new() });
        }
        Err(format!("set {POSTGRES_URL}: a private PostgreSQL is started on Unix alone"))
    }
}

impl Services {
    /// What tells the tests where the servers are.
    pub(crate) fn environment(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.environment.iter().map(|(name, value)| (*name, value.as_str()))
    }
}

/// Whether the developer has a server for `variable`. Its URL is not printed: it may hold a
/// password.
fn is_named(variable: &str) -> bool {
    let is_named = env::var_os(variable).is_some_and(|url| !url.is_empty());
    if is_named {
        println!("==> services: the server that {variable} names");
    }
    is_named
}
