//! The bytes of the file, opened to be written or only to be read; and whether this user may.

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

/// Opens the bytes of the file. If they are only to be read, what is written to them stays in memory.
pub(super) fn open(config: &Config) -> Result<Box<dyn StorageBackend>, OpenFailure> {
    let (path, read_only) = (config.path(), config.is_read_only());
    let file: Box<dyn StorageBackend> = match config.storage() {
        Some(open) => open().map_err(|error| from_open_io(error, path))?,
        None => {
            let file = OpenOptions::new().read(true).write(!read_only).open(path);
            let file = file.map_err(|error| refusal(error, path, read_only))?;
            let file = FileBackend::new(file).map_err(|error| from_open(error, path))?;
            if read_only { Box::new(file) } else { Box::new(EarlySync::new(Box::new(file))) }
        }
    };
    Ok(if read_only { Box::new(Overlay::new(file)) } else { file })
}

/// Why the file cannot be written, where it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteDenied {
    /// Its permissions deny it to this user.
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

    /// Looks whether the file can be opened for writing. Opening it changes nothing in it.
    pub(crate) fn look(path: &Path) -> Option<Self> {
        OpenOptions::new().write(true).open(path).err().as_ref().and_then(Self::of)
    }

    pub(crate) const fn cause(self) -> &'static str {
        match self {
            Self::Permissions => "this user may not write it",
            Self::FileSystem => "its file system is mounted read-only",
        }
    }
}

/// What it means that the file could not be opened.
fn refusal(error: io::Error, path: &Path, read_only: bool) -> Error {
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
