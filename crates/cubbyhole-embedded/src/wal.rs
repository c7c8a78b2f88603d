//! The write-ahead log: a durable write is synced here before it becomes visible in redb.

mod log;
mod record;

pub(crate) use log::Log;
pub(crate) use record::{Change, LogRecord, RedoBuffer, Salt, TableId};
