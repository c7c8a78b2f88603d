//! Finds the programs of PostgreSQL.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::install::{self, Installed};
use crate::process::table::output;

/// The oldest usable version: its `initdb` is the first that supports ICU.
const MIN_VERSION: u32 = 15;

/// The folder in which Debian has a folder for each version. It is not on `PATH`.
const DEBIAN: &str = "/usr/lib/postgresql";

const ADVICE: &str = "\
PostgreSQL 15 or newer was not found on PATH, below /usr/lib/postgresql, or with `pg_config`.
Install it:
  Debian, Ubuntu   apt-get install postgresql
  Fedora           dnf install postgresql-server
  macOS            brew install postgresql@17, and put its `bin` folder on PATH
Or set CUBBYHOLE_TEST_POSTGRES_URL to the URL of a server.";

/// The folder with `initdb`, `postgres` and `psql`.
static PROGRAMS: Installed = Installed::new(find, "postgresql", ADVICE);

/// Returns the folder of the programs.
pub(super) fn folder() -> Result<PathBuf, String> {
    PROGRAMS.path()
}

fn find() -> Option<PathBuf> {
    let on_path = install::on_path("postgres");
    let on_path = on_path.iter().filter_map(|file| file.parent()).map(Path::to_owned);
    let by_pg_config = output(Command::new("pg_config").arg("--bindir")).ok();
    let by_pg_config = by_pg_config.map(|line| PathBuf::from(line.trim_end()));
    on_path
        .chain(newest_first(Path::new(DEBIAN)))
        .chain(by_pg_config)
        .find(|folder| is_usable(folder))
}

/// Returns the folders `VERSION/bin` below `folder`, the newest version first.
fn newest_first(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin")))
        })
        .collect();
    versions.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
    versions.into_iter().map(|(_, path)| path).collect()
}

fn is_usable(folder: &Path) -> bool {
    let has_all = ["initdb", "psql"].iter().all(|program| folder.join(program).is_file());
    let version = output(Command::new(folder.join("postgres")).arg("--version"));
    has_all && version.is_ok_and(|line| major_version(&line).is_some_and(|n| n >= MIN_VERSION))
}

/// Parses `postgres (PostgreSQL) 15.18 (Debian …)` or `… 19beta1`.
fn major_version(line: &str) -> Option<u32> {
    let version = line.split_once(") ")?.1;
    let end = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::folder::Folder;

    #[test]
    fn version_is_parsed() {
        assert_eq!(
            major_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
            Some(15)
        );
        assert_eq!(major_version("postgres (PostgreSQL) 9.6.24\n"), Some(9));
        assert_eq!(major_version("postgres (PostgreSQL) 19beta1"), Some(19));
        assert_eq!(major_version("something else"), None);
    }

    #[test]
    fn newest_version_comes_first_by_number() {
        let folder = Folder::create().unwrap();
        for version in ["9", "15", "100", "common"] {
            fs::create_dir(folder.path().join(version)).unwrap();
        }
        let found = newest_first(folder.path());
        let wanted = ["100/bin", "15/bin", "9/bin"].map(|path| folder.path().join(path));
        assert_eq!(found, wanted);
        assert!(found.iter().all(|folder| !is_usable(folder)));
        assert!(newest_first(&folder.path().join("absent")).is_empty());
    }
}
