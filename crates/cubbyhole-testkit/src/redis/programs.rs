//! Finds the program of Redis.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::install::{self, Installed};
use crate::process::table::output;

/// The oldest usable version: the first in which the port of the cluster bus can be set.
const MIN_VERSION: u32 = 7;

const PROGRAM: &str = "redis-server";

const ADVICE: &str = "\
Redis 7.0 or newer, the program `redis-server`, was not found on PATH.
Install it:
  Debian, Ubuntu   apt-get install redis-server
  Fedora           dnf install redis
  macOS            brew install redis
Or set CUBBYHOLE_TEST_REDIS_URL and CUBBYHOLE_TEST_REDIS_CLUSTER_URL to the URLs of servers.";

static SERVER: Installed = Installed::new(find, PROGRAM, ADVICE);

/// Returns the program of the server.
pub(super) fn server() -> Result<PathBuf, String> {
    SERVER.path()
}

/// Searches without resolving links: on Debian, `redis-server` is a link to another program.
fn find() -> Option<PathBuf> {
    install::links_on_path(PROGRAM).into_iter().find(|program| is_usable(program))
}

fn is_usable(program: &Path) -> bool {
    let version = output(Command::new(program).arg("--version"));
    version.is_ok_and(|line| major_version(&line).is_some_and(|n| n >= MIN_VERSION))
}

/// Parses `Redis server v=7.0.15 sha=…`.
fn major_version(line: &str) -> Option<u32> {
    line.split_once(" v=")?.1.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_parsed() {
        let line = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64\n";
        assert_eq!(major_version(line), Some(7));
        assert_eq!(major_version("Redis server v=255.255.255 sha=0"), Some(255));
        assert_eq!(major_version("something else"), None);
    }
}
