//! The tables in redb: their format, changes within a transaction, and reads within a snapshot.

pub(crate) mod format;
mod long_values;
mod snapshot;
mod tables;

pub(crate) use snapshot::{ReadMode, Snapshot};
pub(crate) use tables::{ReadEntry, Tables};
