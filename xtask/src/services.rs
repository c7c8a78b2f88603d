//! The servers that the tests run against.
//!
//! Each is a private one, of `cubbyhole-testkit`, on a free port and in a temporary folder;
//! it is stopped when [`Services`] is dropped, and also when this program is killed. Where the
//! developer points a `CUBBYHOLE_TEST_…_URL` at a server of theirs, that one is used and none is
//! started. There is PostgreSQL, a single Redis and a Redis Cluster.

use std::env;

/// Tells the tests where PostgreSQL is, and this program where the developer's is.
const POSTGRES_URL: &str = "CUBBYHOLE_TEST_POSTGRES_URL";

/// The same of a single Redis.
const REDIS_URL: &str = "CUBBYHOLE_TEST_REDIS_URL";

/// The same of a Redis Cluster.
const REDIS_CLUSTER_URL: &str = "CUBBYHOLE_TEST_REDIS_CLUSTER_URL";

/// The running servers; they live as long as this.
pub(crate) struct Services {
    environment: Vec<(&'static str, String)>,
    #[cfg(unix)]
    _running: Running,
}

/// What this program has started; absent is what the developer has.
#[cfg(unix)]
struct Running {
    postgres: Option<cubbyhole_testkit::PostgresServer>,
    redis: Option<cubbyhole_testkit::RedisServer>,
    redis_cluster: Option<cubbyhole_testkit::RedisCluster>,
}

#[cfg(unix)]
impl Services {
    /// Starts what the tests need and the developer has not named, all at once.
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

/// Starts a server where the developer has none for `variable`.
#[cfg(unix)]
fn unless_named<T>(
    variable: &str,
    what: &str,
    start: impl FnOnce() -> Result<T, String>,
) -> Result<Option<T>, String> {
    if is_named(variable) {
        return Ok(None);
    }
    start().map(Some).map_err(|error| format!("no {what} for the tests: {error}"))
}

#[cfg(not(unix))]
impl Services {
    /// Private servers need Unix; elsewhere the developer names some.
    pub(crate) fn start() -> Result<Self, String> {
        for variable in [POSTGRES_URL, REDIS_URL, REDIS_CLUSTER_URL] {
            if !is_named(variable) {
                return Err(format!("set {variable}: private servers are started on Unix alone"));
            }
        }
        Ok(Self { environment: Vec::new() })
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
