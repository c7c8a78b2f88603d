//! The handle of an open file.

use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::Database;

use crate::storage::ChecksummedStorage;
use crate::wal::Log;

/// An open redb database and its write-ahead log.
pub(crate) struct Handle {
    pub(crate) database: Database,
    log: Mutex<Log>,
    /// The storage of `database`.
    pub(super) engine: ChecksummedStorage,
}

impl Handle {
    pub(super) fn new(database: Database, log: Log, engine: ChecksummedStorage) -> Self {
        Self { database, log: Mutex::new(log), engine }
    }

    /// Locks the log. Only the writer uses it, so the lock is never contended.
    pub(crate) fn lock_log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
