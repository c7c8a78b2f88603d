//! What the engine's errors mean to a caller.

use std::io;

use cubbyhole_core::Error;
use redb::{DatabaseError, StorageError};

use crate::layout::Damaged;
use crate::url_path::shown;

/// Why a transaction did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// This request is refused; nothing was changed, and others in the transaction go on.
    Refused(Error),
    /// The engine failed; the transaction is lost.
    Engine(redb::Error),
    /// The work is too much for a thread of the async runtime.
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
    /// Whether the engine's handle is of no more use and the file must be opened anew.
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
            Self::OverBudget => Error::internal("a read without a budget went over it"),
        }
    }
}

/// What an engine's error means, when it is not about opening.
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
        error => Error::internal("the engine failed").with_source(error),
    }
}

/// What an error of the operating system means.
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
            Error::permission_denied("the file or its folder may not be written")
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
    /// Another has it open; it may close it soon.
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

/// What an error on opening means.
pub(crate) fn from_open(error: DatabaseError, path: &std::path::Path) -> OpenFailure {
    let shown = shown(path);
    OpenFailure::Other(match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            return OpenFailure::Locked(Error::unavailable(format!(
                "{shown} is open in another process, or elsewhere in this one, and while a file is open \
                 for writing nothing else can open it: stop that process or wait for it, or do this \
                 within it; a store in PostgreSQL or Redis serves many processes at once"
            )));
        }
        DatabaseError::UpgradeRequired(version) => Error::unsupported(format!(
            "{shown} is in an old form of the engine (version {version}) that this build cannot read"
        )),
        DatabaseError::Storage(StorageError::Io(error)) => from_open_io(error, path),
        DatabaseError::Storage(StorageError::Corrupted(_)) => Error::corrupt(format!(
            "{shown} is damaged or truncated; restore it from a backup or an export"
        ))
        .with_source(error),
        error => Error::internal(format!("{shown} could not be opened")).with_source(error),
    })
}

/// What an error of the operating system on opening means.
pub(crate) fn from_open_io(error: io::Error, path: &std::path::Path) -> Error {
    use io::ErrorKind as Io;
    let shown = shown(path);
    match error.kind() {
        Io::NotFound => Error::unavailable(format!("there is no store at {shown}")).permanent(),
        // A block that is not as it was written; also the engine's word for a header that is none.
        Io::InvalidData => {
            Error::corrupt(format!("{shown} is damaged; restore it from a backup or an export"))
        }
        Io::IsADirectory => Error::invalid_argument(format!("{shown} is a folder and no file")),
        Io::NotADirectory => {
            Error::invalid_argument(format!("a part of {shown} is a file and no folder"))
        }
        Io::UnexpectedEof => {
            Error::corrupt(format!("{shown} is truncated; restore it from a backup or an export"))
        }
        _ if is_without_locks(&error) => Error::unavailable(format!(
            "cannot lock {shown}: its file system has no locks; copy the file to a disk of this machine"
        ))
        .permanent(),
        Io::StorageFull | Io::QuotaExceeded => Error::resource_exhausted(format!(
            "the disk of {shown} is full; free some space and try again"
        )),
        Io::PermissionDenied | Io::ReadOnlyFilesystem => Error::permission_denied(format!(
            "{shown} or its folder may not be read and written by this user"
        )),
        _ => Error::unavailable(format!("{shown} could not be opened")),
    }
    .with_source(error)
}

/// Whether a lock was refused because the file system has none, as NFS without its lock service.
fn is_without_locks(error: &io::Error) -> bool {
    const ENOLCK: i32 = if cfg!(target_os = "linux") { 37 } else { 77 };
    cfg!(unix) && error.raw_os_error() == Some(ENOLCK)
}
