//! The servers that the tests of one program share.
//!
//! Each is the server that an environment variable names, or else a private one that lives as long
//! as the program. Tests remove the data that they create, because a named server belongs to the developer.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{PostgresServer, RedisCluster, RedisServer};

/// Names a PostgreSQL server, with a role that may create schemas and roles.
const POSTGRES_URL: &str = "CUBBYHOLE_TEST_POSTGRES_URL";
const REDIS_URL: &str = "CUBBYHOLE_TEST_REDIS_URL";
const REDIS_CLUSTER_URL: &str = "CUBBYHOLE_TEST_REDIS_CLUSTER_URL";

/// The password of servers and roles in tests. No message may contain it.
pub const PASSWORD: &str = "s3cret-Pa55";

/// Returns a name that no other test uses.
fn unique(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}{}_{number}", std::process::id())
}

/// A new schema on the shared PostgreSQL server: its name, its URLs, and the SQL that tests run.
#[derive(Debug)]
pub struct Schema {
    /// The name of the schema.
    pub name: String,
    /// The URL with the administrator's role, which migrates the schema.
    pub admin_url: String,
    /// The URL with a login role that has the application's rights only.
    pub url: String,
}

impl Schema {
    /// Chooses the names. Changes nothing on the server.
    ///
    /// # Errors
    ///
    /// The same errors as [`postgres_url`], or a URL without a user.
    pub fn new(prefix: &str) -> Result<Self, String> {
        let (name, admin) = (unique(prefix), postgres_url()?);
        let (_, address) = admin.rsplit_once('@').ok_or("the URL of PostgreSQL names no user")?;
        let url = format!("postgres://{name}_login:{PASSWORD}@{address}?schema={name}");
        Ok(Self { admin_url: format!("{admin}?schema={name}"), url, name })
    }

    /// Returns the SQL that creates the login role after the migration.
    #[must_use]
    pub fn create_login(&self) -> String {
        let name = &self.name;
        format!("CREATE ROLE {name}_login LOGIN PASSWORD '{PASSWORD}' IN ROLE {name}_app")
    }

    /// Returns the SQL that drops the schema and its roles.
    #[must_use]
    pub fn drop_all(&self) -> String {
        let name = &self.name;
        let roles = ["login", "app", "sweeper", "enumerator", "operator", "auditor"]
            .map(|role| format!("{name}_{role}"))
            .join(", ");
        format!(
            "SET client_min_messages = warning; DROP SCHEMA IF EXISTS {name} CASCADE;
             DROP OWNED BY {roles}; DROP ROLE {roles}"
        )
    }
}

/// Returns the URL of a store with a new key prefix on a Redis server or cluster.
#[must_use]
pub fn with_new_prefix(url: &str, prefix: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}prefix={}:", unique(prefix))
}

/// A server that is looked up or started once.
struct Shared<S> {
    variable: &'static str,
    named: OnceLock<Option<String>>,
    private: OnceLock<Result<S, String>>,
}

impl<S> Shared<S> {
    const fn new(variable: &'static str) -> Self {
        Self { variable, named: OnceLock::new(), private: OnceLock::new() }
    }

    fn url(
        &'static self,
        start: fn() -> Result<S, String>,
        url: fn(&'static S) -> &'static str,
    ) -> Result<&'static str, String> {
        if let Some(url) = self.named.get_or_init(|| std::env::var(self.variable).ok()) {
            return Ok(url);
        }
        self.private.get_or_init(start).as_ref().map(url).map_err(Clone::clone)
    }
}

/// Returns the URL of the shared PostgreSQL server, with an administrator's role.
///
/// # Errors
///
/// The same errors as [`PostgresServer::start`].
pub fn postgres_url() -> Result<&'static str, String> {
    static SERVER: Shared<PostgresServer> = Shared::new(POSTGRES_URL);
    SERVER.url(PostgresServer::start, PostgresServer::url)
}

/// Returns the URL of the shared Redis server.
///
/// # Errors
///
/// The same errors as [`RedisServer::start`].
pub fn redis_url() -> Result<&'static str, String> {
    static SERVER: Shared<RedisServer> = Shared::new(REDIS_URL);
    SERVER.url(RedisServer::start, RedisServer::url)
}

/// Returns the URL of the shared Redis Cluster.
///
/// # Errors
///
/// The same errors as [`RedisCluster::start_patient`].
pub fn redis_cluster_url() -> Result<&'static str, String> {
    static CLUSTER: Shared<RedisCluster> = Shared::new(REDIS_CLUSTER_URL);
    CLUSTER.url(RedisCluster::start_patient, RedisCluster::url)
}
