//! An open database: the engine's handle, and the log ahead of it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::Database;

use crate::storage::ChecksummedStorage;
use crate::wal::Log;

/// The engine's handle, and the log ahead of it, which is the writer's.
pub(crate) struct Handle {
    pub(crate) database: Database,
    log: Mutex<Log>,
    /// The bytes beneath the engine.
    pub(super) engine: ChecksummedStorage,
}

impl Handle {
    pub(super) fn new(database: Database, log: Log, engine: ChecksummedStorage) -> Self {
        Self { database, log: Mutex::new(log), engine }
    }

    /// The log, which the writer alone takes.
    pub(crate) fn lock_log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
