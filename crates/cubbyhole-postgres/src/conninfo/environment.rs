//! The process's environment for libpq: variables, the home folder, the platform's folders, the user.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use cubbyhole_core::{Error, Result};

/// Where PostgreSQL's packages keep their sockets. Where it is missing, the server was built from
/// source, whose default is the second.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// Where packages keep `pg_service.conf`: Debian's, and those of postgresql.org for Red Hat.
const SERVICE_FOLDERS: [&str; 2] = ["/etc/postgresql-common", "/etc/sysconfig/pgsql"];

type Variables = Box<dyn Fn(&str) -> Option<OsString>>;

/// The environment of the process, or one of a test's own.
pub(crate) struct Environment {
    pub(crate) variables: Variables,
    pub(crate) home: Option<PathBuf>,
    pub(crate) socket_folder: PathBuf,
    pub(crate) service_folders: Vec<PathBuf>,
    pub(crate) user: Option<String>,
}

impl Environment {
    pub(crate) fn of_process() -> Self {
        Self {
            variables: Box::new(|name| std::env::var_os(name)),
            home: std::env::home_dir().filter(|home| !home.as_os_str().is_empty()),
            service_folders: SERVICE_FOLDERS.map(PathBuf::from).to_vec(),
            ..Self::none()
        }
    }

    /// No variables and no files: only the URL and the defaults remain.
    pub(crate) fn none() -> Self {
        let [packaged, built] = SOCKET_FOLDERS;
        let socket_folder = if Path::new(packaged).is_dir() { packaged } else { built };
        Self {
            variables: Box::new(|_| None),
            home: None,
            socket_folder: PathBuf::from(socket_folder),
            service_folders: Vec::new(),
            user: whoami::username().ok(),
        }
    }

    /// A variable; empty is as if it were not set.
    pub(crate) fn variable(&self, name: &str) -> Result<Option<String>> {
        let Some(value) = (self.variables)(name).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        value.into_string().map(Some).map_err(|_| {
            Error::invalid_argument(format!("the environment variable {name} is not UTF-8"))
        })
    }

    /// A file in `~/.postgresql`, if it exists.
    pub(crate) fn file_of_user(&self, name: &str) -> Option<PathBuf> {
        let file = self.home.as_ref()?.join(".postgresql").join(name);
        file.exists().then_some(file)
    }
}
