//! Where the program of Redis is.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::install::{self, Installed};
use crate::process::table::output;

/// The oldest version that is tried: the first where a cluster's second port can be chosen.
const MIN_VERSION: u32 = 7;

const PROGRAM: &str = "redis-server";

const ADVICE: &str = "\
Redis 7.0 or newer, the program `redis-server`, was not found on PATH.
Install it:
  Debian, Ubuntu   apt-get install redis-server
  Fedora           dnf install redis
  macOS            brew install redis
Or let CUBBYHOLE_TEST_REDIS_URL and CUBBYHOLE_TEST_REDIS_CLUSTER_URL name servers of yours.";

static SERVER: Installed = Installed::new(find, PROGRAM, ADVICE);

/// The program of the server.
pub(super) fn server() -> Result<PathBuf, String> {
    SERVER.path()
}

/// By its own name: on Debian that is a link to a program that is several.
fn find() -> Option<PathBuf> {
    install::links_on_path(PROGRAM).into_iter().find(|program| is_usable(program))
}

fn is_usable(program: &Path) -> bool {
    let version = output(Command::new(program).arg("--version"));
    version.is_ok_and(|line| major_version(&line).is_some_and(|n| n >= MIN_VERSION))
}

/// Of `Redis server v=7.0.15 sha=…`.
fn major_version(line: &str) -> Option<u32> {
    line.split_once(" v=")?.1.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read() {
        let line = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64\n";
        assert_eq!(major_version(line), Some(7));
        assert_eq!(major_version("Redis server v=255.255.255 sha=0"), Some(255));
        assert_eq!(major_version("something else"), None);
    }
}
