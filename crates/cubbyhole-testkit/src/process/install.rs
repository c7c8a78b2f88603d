//! Finds the programs of a server, and installs missing ones with `apt-get`.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::process::folder::is_root;
use crate::process::table::output;

/// Returns the files of `program` on `PATH`, with links resolved: related programs are next to them.
pub(crate) fn on_path(program: &str) -> Vec<PathBuf> {
    let links = links_on_path(program);
    links.into_iter().filter_map(|file| file.canonicalize().ok()).collect()
}

/// Returns the files of `program` on `PATH`, without resolving links: some programs behave according
/// to the name by which they are called.
pub(crate) fn links_on_path(program: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|folder| folder.join(program))
        .filter(|file| file.is_absolute() && file.is_file())
        .collect()
}

/// Installs `package` if this program runs as root on a system with `apt-get`, such as a build
/// machine or a container. Returns whether it installed the package.
fn with_apt_get(package: &str) -> Result<bool, String> {
    if on_path("apt-get").is_empty() || !is_root()? {
        return Ok(false);
    }
    let apt_get = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        // Another test program may be installing the same package.
        command.args(["-o", "DPkg::Lock::Timeout=300"]).args(arguments);
        // The packages start a system-wide server, which the tests do not need. In the single-user
        // runlevel they do not start it. Under systemd, which has no runlevels, they do.
        command.env("RUNLEVEL", "1");
        output(command.env("DEBIAN_FRONTEND", "noninteractive"))
    };
    // After a failed update the old lists may suffice. If not, the installation fails.
    let update = apt_get(&["update"]);
    apt_get(&["install", "-y", "--no-install-recommends", package])
        .map_err(|error| format!("{error}\n{}", update.err().unwrap_or_default()))?;
    Ok(true)
}

/// A program, or a folder of programs, that is searched once and installed if it is missing.
pub(crate) struct Installed {
    find: fn() -> Option<PathBuf>,
    package: &'static str,
    advice: &'static str,
    found: Mutex<Option<PathBuf>>,
}

impl Installed {
    pub(crate) const fn new(
        find: fn() -> Option<PathBuf>,
        package: &'static str,
        advice: &'static str,
    ) -> Self {
        Self { find, package, advice, found: Mutex::new(None) }
    }

    /// Returns its path, or an error that says what to install.
    pub(crate) fn path(&self) -> Result<PathBuf, String> {
        // The lock is held throughout, so tests that start together install once.
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.is_none() {
            *found = (self.find)();
        }
        if found.is_none() && with_apt_get(self.package)? {
            *found = (self.find)();
        }
        found.clone().ok_or_else(|| self.advice.to_owned())
    }
}

static GROFF: Installed = Installed::new(
    || on_path("groff").into_iter().next(),
    "groff-base",
    "`groff` was not found; install it: apt-get install groff-base, dnf install groff-base, \
     brew install groff",
);

/// Returns the path of `groff`, which checks manual pages. Installs it like the servers.
///
/// # Errors
///
/// `groff` is missing, or `apt-get` failed. The message says what to install.
pub fn groff() -> Result<PathBuf, String> {
    GROFF.path()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_on_the_path() {
        assert!(on_path("sh").iter().all(|file| file.is_absolute() && file.is_file()));
        assert!(!on_path("sh").is_empty());
        assert!(on_path("no-such-program").is_empty());
    }
}
