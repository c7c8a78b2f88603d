//! The servers of the tests: PostgreSQL, a single Redis, and a Redis Cluster.
//!
//! Each is a private server of `cubbyhole-testkit`, on a free port and in a temporary folder. It stops
//! when [`Services`] is dropped, and also when this program is killed. If a variable
//! `CUBBYHOLE_TEST_…_URL` names a server, the tests use that server and no private one starts.

use std::env;

/// The URL of PostgreSQL: set by the developer for this program, or by this program for the tests.
const POSTGRES_URL: &str = "CUBBYHOLE_TEST_POSTGRES_URL";

/// The URL of a single Redis.
const REDIS_URL: &str = "CUBBYHOLE_TEST_REDIS_URL";

/// The URL of a Redis Cluster.
const REDIS_CLUSTER_URL: &str = "CUBBYHOLE_TEST_REDIS_CLUSTER_URL";

/// The running servers. Dropping this stops them.
pub(crate) struct Services {
    environment: Vec<(&'static str, String)>,
    #[cfg(unix)]
    _running: Running,
}

/// The servers that this program has started, except those that the developer named.
#[cfg(unix)]
struct Running {
    postgres: Option<cubbyhole_testkit::PostgresServer>,
    redis: Option<cubbyhole_testkit::RedisServer>,
    redis_cluster: Option<cubbyhole_testkit::RedisCluster>,
}

#[cfg(unix)]
impl Services {
    /// Starts the servers that the developer has not named, in parallel.
    pub(crate) fn start() -> Result<Self, String> {
        use cubbyhole_testkit::{PostgresServer, RedisCluster, RedisServer};

        let running = std::thread::scope(|scope| {
            let postgres =
                scope.spawn(|| unless_named(POSTGRES_URL, "PostgreSQL", PostgresServer::start));
            let redis = scope.spawn(|| unless_named(REDIS_URL, "Redis", RedisServer::start));
            let redis_cluster =
                unless_named(REDIS_CLUSTER_URL, "Redis Cluster", RedisCluster::start_patient);
            let panicked = |_| "the start of a server panicked".to_owned();
            Ok::<_, String>(Running {
                postgres: postgres.join().map_err(panicked)??,
                redis: redis.join().map_err(panicked)??,
                redis_cluster: redis_cluster?,
            })
        })?;
        let mut environment = Vec::new();
        if let Some(server) = &running.postgres {
            println!("==> services: a private PostgreSQL on 127.0.0.1:{}", server.port());
            environment.push((POSTGRES_URL, server.url().to_owned()));
        }
        if let Some(server) = &running.redis {
            println!("==> services: a private Redis, {}", server.url());
            environment.push((REDIS_URL, server.url().to_owned()));
        }
        if let Some(cluster) = &running.redis_cluster {
            println!("==> services: a private Redis Cluster, {}", cluster.url());
            environment.push((REDIS_CLUSTER_URL, cluster.url().to_owned()));
        }
        Ok(Self { environment, _running: running })
    }
}

/// Starts a server unless `variable` names one.
#[cfg(unix)]
fn unless_named<T>(
    variable: &str,
    what: &str,
    start: impl FnOnce() -> Result<T, String>,
) -> Result<Option<T>, String> {
    if is_named(variable) {
        return Ok(None);
    }
    start().map(Some).map_err(|error| format!("cannot start {what} for the tests: {error}"))
}

#[cfg(not(unix))]
impl Services {
    /// Checks that the developer has named all servers, because private servers need Unix.
    pub(crate) fn start() -> Result<Self, String> {
        for variable in [POSTGRES_URL, REDIS_URL, REDIS_CLUSTER_URL] {
            if !is_named(variable) {
                return Err(format!("set {variable} to a server: private servers need Unix"));
            }
        }
        Ok(Self { environment: Vec::new() })
    }
}

impl Services {
    /// Returns the environment variables with the URLs of the servers.
    pub(crate) fn environment(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.environment.iter().map(|(name, value)| (*name, value.as_str()))
    }
}

/// Returns whether `variable` names a server. Its URL is not printed, because it may contain a password.
fn is_named(variable: &str) -> bool {
    let is_named = env::var_os(variable).is_some_and(|url| !url.is_empty());
    if is_named {
        println!("==> services: the server of {variable}");
    }
    is_named
}
