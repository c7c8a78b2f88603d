//! The reply of a server to `INFO`.

use cubbyhole_core::{Error, Result};
use redis::Value;

use super::node::Node;
use crate::replies;

/// The oldest major version of Redis with all commands and options that the scripts use.
const OLDEST_MAJOR: u32 = 7;

/// The reply of a server to `INFO`.
pub(crate) struct ServerInfo(String);

impl ServerInfo {
    /// Requests a section of the information of a server.
    pub(crate) async fn of(node: &Node, section: &str) -> Result<Self> {
        let mut command = redis::cmd("INFO");
        command.arg(section);
        match node.ask(&command).await? {
            Value::VerbatimString { text, .. } => Ok(Self(text)),
            answer => Ok(Self(replies::text(answer)?)),
        }
    }

    /// Returns a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    }

    /// Returns the number of keys in all databases, including those of other programs.
    pub(crate) fn keys(&self) -> u64 {
        let databases = self.0.lines().filter(|line| line.starts_with("db"));
        let counts = databases.filter_map(|line| line.split_once("keys=")?.1.split(',').next());
        counts.filter_map(|count| count.parse::<u64>().ok()).sum()
    }

    /// Returns product and version, such as `Redis 7.0.15` or `Valkey 8.0.1`.
    pub(crate) fn server(&self) -> String {
        match self.field("valkey_version") {
            Some(version) => format!("Valkey {version}"),
            None => {
                format!("Redis {}", self.field("redis_version").unwrap_or("of unknown version"))
            }
        }
    }

    /// Checks that the version is supported.
    pub(crate) fn check_version(&self) -> Result<()> {
        let major = self.field("redis_version").and_then(|version| version.split('.').next());
        let new_enough =
            major.and_then(|major| major.parse().ok()).is_some_and(|m: u32| m >= OLDEST_MAJOR);
        if new_enough {
            return Ok(());
        }
        Err(Error::unsupported(format!(
            "the server is {}; the store needs Redis {OLDEST_MAJOR} or newer",
            self.server()
        )))
    }

    /// Checks that the server is in the mode that the URL says.
    pub(crate) fn check_mode(&self, cluster: bool) -> Result<()> {
        let is_cluster = self.field("redis_mode") == Some("cluster");
        match (is_cluster, cluster) {
            (true, false) => Err(Error::invalid_argument(
                "the server is part of a Redis Cluster: write `redis+cluster://`",
            )),
            (false, true) => Err(Error::invalid_argument(
                "the server is not part of a Redis Cluster: write `redis://`",
            )),
            _ => Ok(()),
        }
    }
}
