//! Checkpoints: durable commits of the engine, after which the log restarts.

use cubbyhole_core::Timestamp;

use crate::engine::Tables;
use crate::error::Failure;
use crate::file::Handle;
use crate::wal::{RedoBuffer, Salt};

/// Commits `mark` as the high-water mark of the clock, and makes all earlier commits durable. Then
/// the log restarts.
pub(crate) fn checkpoint(handle: &Handle, mark: Timestamp) -> Result<(), Failure> {
    let mut transaction = handle.database.begin_write()?;
    transaction.set_quick_repair(true);
    let salt = Salt::draw();
    let mut tables = Tables::open(&transaction, mark, RedoBuffer::disabled())?;
    tables.set_clock_mark()?;
    tables.set_salt(salt)?;
    drop(tables);
    transaction.commit()?;
    handle.lock_log().restart(salt);
    Ok(())
}
