//! A checkpoint: the engine commits durably what the log holds, and the log starts from scratch.

use std::sync::{Mutex, MutexGuard, PoisonError};

use cubbyhole_core::Timestamp;

use crate::error::Failure;
use crate::file::Handle;
use crate::log::{Log, Redo, Salt};
use crate::tables::Tables;

/// A durable commit of `mark` as the clock's mark. Everything before it is on disk after it, and the
/// log starts from scratch.
pub(crate) fn checkpoint(handle: &Handle, mark: Timestamp) -> Result<(), Failure> {
    let mut transaction = handle.database.begin_write()?;
    transaction.set_quick_repair(true);
    let salt = Salt::draw();
    let mut tables = Tables::open(&transaction, mark, Redo::off())?;
    tables.set_clock_mark()?;
    tables.set_salt(salt)?;
    drop(tables);
    transaction.commit()?;
    lock(&handle.log).begin(salt);
    Ok(())
}

/// The log, which the writer alone takes.
pub(crate) fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}
