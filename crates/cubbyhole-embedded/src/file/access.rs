//! Whether this user may read and write the file.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use cubbyhole_core::Error;

use crate::error::from_open_io;

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
pub(super) fn refusal(error: io::Error, path: &Path, read_only: bool) -> Error {
    let shown = path.display();
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
