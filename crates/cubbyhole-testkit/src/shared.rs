//! The servers that the tests of one program share.
//!
//! Each is the server that an environment variable names, or else a private one that lives as long
//! as the program. Tests must remove what they create: a named server belongs to the developer.

use std::sync::OnceLock;

use crate::{PostgresServer, RedisCluster, RedisServer};

/// Names a PostgreSQL server, with a role that may create schemas and roles.
const POSTGRES_URL: &str = "CUBBYHOLE_TEST_POSTGRES_URL";
const REDIS_URL: &str = "CUBBYHOLE_TEST_REDIS_URL";
const REDIS_CLUSTER_URL: &str = "CUBBYHOLE_TEST_REDIS_CLUSTER_URL";

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
