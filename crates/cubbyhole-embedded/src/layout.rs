//! The layout of the file: constants, the kinds of file, and the error for a damaged block.
//!
//! | region | contents |
//! |---|---|
//! | the first [`LOG_BYTES`] | the write-ahead log; its first sector starts with [`MAGIC`] |
//! | the rest | redb's bytes in 4 KiB [blocks], with checksum blocks between them |

mod damaged;
mod origin;

pub(crate) mod blocks;

pub(crate) use damaged::Damaged;
pub(crate) use origin::Origin;

/// The first bytes of a Cubbyhole store.
pub(crate) const MAGIC: &[u8] = b"cubbyhole store\n";
/// The length of the log region, at the start of the file.
pub(crate) const LOG_BYTES: u64 = 1024 * 1024;
/// The largest unit that a disk is assumed to write atomically.
pub(crate) const SECTOR: usize = 512;
