//! Translates the engine's errors and I/O errors into [`Error`].

use std::io;

use cubbyhole_core::Error;
use redb::{DatabaseError, StorageError};

use crate::layout::Damaged;
use crate::url_path::shown;

/// The message for a panic of the engine, which another program's change of the file can cause.
pub(crate) const ENGINE_PANIC: &str = "the storage engine panicked; the file may be damaged";

/// Why a read or a request within a transaction failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// This request is refused and has changed nothing. The transaction continues.
    Refused(Error),
    /// The engine failed; the transaction is lost.
    Engine(redb::Error),
    /// The read exceeds the budget for threads of the async runtime.
    OverBudget,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

macro_rules! from_engine {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Engine(error.into())
            }
        })*
    };
}

from_engine!(
    StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::SetDurabilityError
);

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Engine(redb::Error::Io(error))
    }
}

impl Failure {
    /// Whether the engine's handle is unusable, so the file must be reopened.
    pub(crate) fn breaks_handle(&self) -> bool {
        matches!(
            self,
            Self::Engine(
                redb::Error::Io(_)
                    | redb::Error::PreviousIo
                    | redb::Error::DatabaseClosed
                    | redb::Error::LockPoisoned(_)
                    | redb::Error::Backend(_)
                    | redb::Error::TransactionPoisoned
            )
        )
    }

    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Refused(error) => error,
            Self::Engine(error) => from_engine(error),
            Self::OverBudget => Error::internal("a read without a budget exceeded one"),
        }
    }
}

/// Translates an error of the engine that did not occur while opening.
pub(crate) fn from_engine(error: redb::Error) -> Error {
    match error {
        redb::Error::Io(error) => from_io(error),
        redb::Error::Corrupted(_) => {
            Error::corrupt("the file is damaged; restore it from a backup or an export")
                .with_source(error)
        }
        redb::Error::PreviousIo | redb::Error::DatabaseClosed | redb::Error::Backend(_) => {
            Error::unavailable("the file could not be read or written").with_source(error)
        }
        error => Error::internal("the storage engine failed").with_source(error),
    }
}

/// Translates an I/O error that did not occur while opening.
pub(crate) fn from_io(error: io::Error) -> Error {
    use io::ErrorKind as Io;
    match error.kind() {
        _ if Damaged::is(&error) => {
            Error::corrupt("the file is damaged; restore it from a backup or an export")
        }
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => {
            Error::resource_exhausted("the disk is full; free some space and try again")
        }
        Io::OutOfMemory => Error::resource_exhausted("out of memory"),
        Io::PermissionDenied | Io::ReadOnlyFilesystem => {
            Error::permission_denied("this user may not write to the file or its folder")
        }
        Io::UnexpectedEof => {
            Error::corrupt("the file is truncated; restore it from a backup or an export")
        }
        _ => Error::unavailable("the file could not be read or written"),
    }
    .with_source(error)
}

/// Why the file could not be opened.
#[derive(Debug)]
pub(crate) enum OpenFailure {
    /// The file is open in another process or elsewhere in this one. Opening can be retried.
    Locked(Error),
    Other(Error),
}

impl OpenFailure {
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Locked(error) | Self::Other(error) => error,
        }
    }
}

impl From<Error> for OpenFailure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// Translates an error of the engine while opening.
pub(crate) fn from_open(error: DatabaseError, path: &std::path::Path) -> OpenFailure {
    let shown = shown(path);
    OpenFailure::Other(match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            return OpenFailure::Locked(Error::unavailable(format!(
                "{shown} is open in another process, or elsewhere in this one: stop that process, \
                 or wait until it closes the file; to share a store between processes, use PostgreSQL \
                 or Redis"
            )));
        }
        DatabaseError::UpgradeRequired(version) => Error::unsupported(format!(
            "{shown} has version {version} of the redb file format, which this build cannot read"
        )),
        DatabaseError::Storage(StorageError::Io(error)) => from_open_io(error, path),
        DatabaseError::Storage(StorageError::Corrupted(_)) => Error::corrupt(format!(
            "{shown} is damaged or truncated; restore it from a backup or an export"
        ))
        .with_source(error),
        error => Error::internal(format!("cannot open {shown}")).with_source(error),
    })
}

/// Translates an I/O error while opening.
pub(crate) fn from_open_io(error: io::Error, path: &std::path::Path) -> Error {
    use io::ErrorKind as Io;
    let shown = shown(path);
    match error.kind() {
        Io::NotFound => Error::unavailable(format!("there is no store at {shown}")).permanent(),
        // A failed checksum, or an invalid header.
        Io::InvalidData => {
            Error::corrupt(format!("{shown} is damaged; restore it from a backup or an export"))
        }
        Io::IsADirectory => Error::invalid_argument(format!("{shown} is a folder, not a file")),
        Io::NotADirectory => {
            Error::invalid_argument(format!("a parent of {shown} is a file, not a folder"))
        }
        Io::UnexpectedEof => {
            Error::corrupt(format!("{shown} is truncated; restore it from a backup or an export"))
        }
        _ if is_without_locks(&error) => Error::unavailable(format!(
            "cannot lock {shown}: its file system does not support locks; copy the file to a \
             local disk"
        ))
        .permanent(),
        Io::StorageFull | Io::QuotaExceeded => Error::resource_exhausted(format!(
            "the disk of {shown} is full; free some space and try again"
        )),
        Io::PermissionDenied | Io::ReadOnlyFilesystem => Error::permission_denied(format!(
            "this user may not read and write {shown} or its folder"
        )),
        _ => Error::unavailable(format!("cannot open {shown}")),
    }
    .with_source(error)
}

/// Whether locking failed because the file system does not support it, such as NFS without a lock
/// service.
fn is_without_locks(error: &io::Error) -> bool {
    const ENOLCK: i32 = if cfg!(target_os = "linux") { 37 } else { 77 };
    cfg!(unix) && error.raw_os_error() == Some(ENOLCK)
}
