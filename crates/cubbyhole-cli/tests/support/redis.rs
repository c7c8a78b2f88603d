//! A separate key prefix for each test, on Redis or Redis Cluster.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use cubbyhole_testkit::{RedisCluster, RedisServer};

use crate::support::{Outcome, tool};

/// The kind of Redis deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Single,
    Cluster,
}

impl Kind {
    /// Returns the URL of existing servers, or of private ones that run until this process ends.
    fn url(self) -> Outcome<&'static str> {
        static SINGLE: OnceLock<Result<RedisServer, String>> = OnceLock::new();
        static CLUSTER: OnceLock<Result<RedisCluster, String>> = OnceLock::new();
        static NAMED: [OnceLock<Option<String>>; 2] = [OnceLock::new(), OnceLock::new()];
        let (index, variable) = match self {
            Self::Single => (0, "CUBBYHOLE_TEST_REDIS_URL"),
            Self::Cluster => (1, "CUBBYHOLE_TEST_REDIS_CLUSTER_URL"),
        };
        if let Some(url) = NAMED[index].get_or_init(|| std::env::var(variable).ok()) {
            return Ok(url);
        }
        Ok(match self {
            Self::Single => {
                SINGLE.get_or_init(RedisServer::start).as_ref().map_err(Clone::clone)?.url()
            }
            Self::Cluster => CLUSTER
                .get_or_init(RedisCluster::start_patient)
                .as_ref()
                .map_err(Clone::clone)?
                .url(),
        })
    }
}

/// A store with a separate key prefix.
pub(crate) struct Prefix {
    pub(crate) store: String,
}

impl Prefix {
    pub(crate) fn new(kind: Kind) -> Outcome<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let url = kind.url()?;
        let joint = if url.contains('?') { '&' } else { '?' };
        let store = format!("{url}{joint}prefix=tool{}_{number}:", std::process::id());
        Ok(Self { store })
    }
}

/// Cleans up, because the servers may be the developer's. Only fences are left, which expire.
impl Drop for Prefix {
    fn drop(&mut self) {
        let Ok(listed) = tool(&["--store", &self.store, "tenants"]) else {
            return;
        };
        for tenant in String::from_utf8_lossy(&listed.stdout).lines() {
            drop(tool(&["--store", &self.store, "erase", tenant, "--yes"]));
        }
        drop(tool(&["--store", &self.store, "evict"]));
    }
}
