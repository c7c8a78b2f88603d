//! The write-ahead log: each durable write is synced here before the engine has it.

mod log;
mod record;

pub(crate) use log::Log;
pub(crate) use record::{Change, LogRecord, RedoBuffer, Salt, TableId};
