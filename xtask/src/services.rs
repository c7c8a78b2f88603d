//! The servers that the tests run against.
//!
//! There are none yet: memory and the embedded file need no server. PostgreSQL, Redis and a Redis
//! Cluster come with their backends, a file each beside this one (`services/postgres.rs` and so
//! on). Each starts private servers on free ports in a temporary folder, stops them when its
//! guard is dropped, and becomes a field of [`Services`]. Where the developer points a
//! `CUBBYHOLE_TEST_…_URL` at a server of theirs, that one is used and none is started.

/// The running servers; they live as long as this.
pub(crate) struct Services {
    environment: Vec<(&'static str, String)>,
}

impl Services {
    /// Starts what the tests need.
    pub(crate) fn start() -> Self {
        Self { environment: Vec::new() }
    }

    /// What tells the tests where the servers are.
    pub(crate) fn environment(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.environment.iter().map(|(name, value)| (*name, value.as_str()))
    }
}
