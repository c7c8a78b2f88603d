//! The regions of the file: the log, and behind it the engine's region in blocks with checksums.

mod damaged;
mod origin;

pub(crate) mod blocks;

pub(crate) use damaged::Damaged;
pub(crate) use origin::Origin;

/// What our files begin with.
pub(crate) const MAGIC: &[u8] = b"cubbyhole store\n";
/// How much of the file's beginning is the log.
pub(crate) const LOG_BYTES: u64 = 1024 * 1024;
/// What a disk writes at once.
pub(crate) const SECTOR: usize = 512;
