//! A prefix of its own on Redis or on a Redis Cluster.

use cubbyhole_testkit::shared;

use crate::support::{Outcome, tool};

/// Which Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Single,
    Cluster,
}

impl Kind {
    fn url(self) -> Outcome<&'static str> {
        Ok(match self {
            Self::Single => shared::redis_url()?,
            Self::Cluster => shared::redis_cluster_url()?,
        })
    }
}

/// A store with a prefix of its own on Redis.
pub(crate) struct Prefix {
    pub(crate) store: String,
}

impl Prefix {
    pub(crate) fn new(kind: Kind) -> Outcome<Self> {
        Ok(Self { store: shared::with_new_prefix(kind.url()?, "tool") })
    }
}

/// Leaves nothing on servers that may be the developer's own, but fences that expire.
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
