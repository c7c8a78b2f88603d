//! The environment that libpq reads: variables, the home folder, system folders and the user's
//! name.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use cubbyhole_core::{Error, Result};

/// The socket folder of PostgreSQL packages, and the default of a server built from source.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// The folders of `pg_service.conf` in Debian packages and in postgresql.org's Red Hat packages.
const SERVICE_FOLDERS: [&str; 2] = ["/etc/postgresql-common", "/etc/sysconfig/pgsql"];

type Variables = Box<dyn Fn(&str) -> Option<OsString>>;

/// The environment of the process, or of a test.
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

    /// An environment without variables and files, so only the URL and the defaults apply.
    pub(crate) fn none() -> Self {
        let [packaged, built_from_source] = SOCKET_FOLDERS;
        let is_packaged = Path::new(packaged).is_dir();
        let socket_folder = if is_packaged { packaged } else { built_from_source };
        Self {
            variables: Box::new(|_| None),
            home: None,
            socket_folder: PathBuf::from(socket_folder),
            service_folders: Vec::new(),
            user: whoami::username().ok(),
        }
    }

    /// Reads a variable. An empty variable counts as unset.
    pub(crate) fn variable(&self, name: &str) -> Result<Option<String>> {
        let Some(value) = (self.variables)(name).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        value.into_string().map(Some).map_err(|_| {
            Error::invalid_argument(format!("the environment variable {name} is not UTF-8"))
        })
    }

    /// The path of a file in `~/.postgresql`, if the file exists.
    pub(crate) fn file_of_user(&self, name: &str) -> Option<PathBuf> {
        let file = self.home.as_ref()?.join(".postgresql").join(name);
        file.exists().then_some(file)
    }
}
