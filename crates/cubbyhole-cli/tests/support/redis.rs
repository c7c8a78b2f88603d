//! A separate key prefix for each test, on Redis or Redis Cluster.

use cubbyhole_testkit::shared;

use crate::support::{Outcome, tool};

/// The kind of Redis deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Single,
    Cluster,
}

impl Kind {
    /// Returns the URL of the shared servers.
    fn url(self) -> Outcome<&'static str> {
        Ok(match self {
            Self::Single => shared::redis_url()?,
            Self::Cluster => shared::redis_cluster_url()?,
        })
    }
}

/// A store with a separate key prefix.
pub(crate) struct Prefix {
    pub(crate) store: String,
}

impl Prefix {
    pub(crate) fn new(kind: Kind) -> Outcome<Self> {
        Ok(Self { store: shared::with_new_prefix(kind.url()?, "tool") })
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
