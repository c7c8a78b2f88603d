//! Access to the file at the level of the operating system, and the errors of missing permissions.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use cubbyhole_core::Error;
use redb::StorageBackend;
use redb::backends::FileBackend;

use crate::config::Config;
use crate::error::{OpenFailure, from_open, from_open_io};
use crate::storage::{EarlySync, Overlay};
use crate::url_path::shown;

/// Opens the file as storage. If it is opened read-only, writes stay in memory.
pub(super) fn open(config: &Config) -> Result<Box<dyn StorageBackend>, OpenFailure> {
    let (path, read_only) = (config.path(), config.is_read_only());
    let file: Box<dyn StorageBackend> = match config.storage() {
        Some(open) => open().map_err(|error| from_open_io(error, path))?,
        None => {
            let file = OpenOptions::new().read(true).write(!read_only).open(path);
            let file = file.map_err(|error| open_error(error, path, read_only))?;
            let file = FileBackend::new(file).map_err(|error| from_open(error, path))?;
            if read_only { Box::new(file) } else { Box::new(EarlySync::new(Box::new(file))) }
        }
    };
    Ok(if read_only { Box::new(Overlay::new(file)) } else { file })
}

/// Why a file that exists cannot be opened for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteDenied {
    /// Its permissions forbid it to this user.
    Permissions,
    /// Its file system is mounted read-only.
    FileSystem,
}

impl WriteDenied {
    fn of(error: &io::Error) -> Option<Self> {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Some(Self::Permissions),
            io::ErrorKind::ReadOnlyFilesystem => Some(Self::FileSystem),
            _ => None,
        }
    }

    /// Tries to open the file for writing, which does not change it.
    pub(crate) fn check(path: &Path) -> Option<Self> {
        OpenOptions::new().write(true).open(path).err().as_ref().and_then(Self::of)
    }

    pub(crate) const fn cause(self) -> &'static str {
        match self {
            Self::Permissions => "this user may not write it",
            Self::FileSystem => "its file system is mounted read-only",
        }
    }
}

/// Translates an error of opening the file.
fn open_error(error: io::Error, path: &Path, read_only: bool) -> Error {
    let shown = shown(path);
    let Some(denied) = WriteDenied::of(&error) else {
        return from_open_io(error, path);
    };
    if read_only || OpenOptions::new().read(true).open(path).is_err() {
        return Error::permission_denied(format!(
            "cannot open {shown}: this user may not read it; give this user the right to read the \
             file and to enter its folder"
        ))
        .with_source(error);
    }
    Error::permission_denied(format!(
        "cannot open {shown} for writing: {}; make it writable, or open it read-only \
         (redb:PATH?read_only=true)",
        denied.cause()
    ))
    .with_source(error)
}
