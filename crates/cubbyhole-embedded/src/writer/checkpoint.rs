//! A checkpoint: the engine commits durably what the log holds, and the log starts from scratch.

use cubbyhole_core::Timestamp;

use crate::engine::Tables;
use crate::error::Failure;
use crate::file::Handle;
use crate::wal::{RedoBuffer, Salt};

/// A durable commit of `mark` as the clock's mark. Everything before it is on disk after it, and the
/// log starts from scratch.
pub(crate) fn checkpoint(handle: &Handle, mark: Timestamp) -> Result<(), Failure> {
    let mut transaction = handle.database.begin_write()?;
    transaction.set_quick_repair(true);
    let salt = Salt::draw();
    let mut tables = Tables::open(&transaction, mark, RedoBuffer::off())?;
    tables.set_clock_mark()?;
    tables.set_salt(salt)?;
    drop(tables);
    transaction.commit()?;
    handle.lock_log().begin(salt);
    Ok(())
}
