//! The file: creating, opening, purging and closing it, and reopening it after a disk failure.

mod access;
mod create;
mod handle;
mod opening;
mod purge;
mod store_file;
mod unusable;

pub(crate) use access::WriteDenied;
pub(crate) use handle::Handle;
pub(crate) use purge::not_purged;
pub(crate) use store_file::StoreFile;
