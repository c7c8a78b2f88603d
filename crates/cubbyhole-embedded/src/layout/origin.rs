//! Recognises a file by a few of its bytes.

use std::io;

use super::blocks::{EngineStart, START_BYTES};
use super::{LOG_BYTES, MAGIC};

/// The first bytes of a plain redb file.
const REDB_MAGIC: &[u8] = b"redb\x1A\x0A\xA9\x0D\x0A";

/// The kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Empty,
    Store,
    /// A store that was cut off within or right after the log.
    Truncated,
    /// A store of an early build, without a log.
    OldFormat,
    /// A redb database of another program.
    ForeignRedb,
    Unknown,
}

impl Origin {
    /// Recognises a file of `length` bytes. `read` fills a buffer from an offset; the range is
    /// always within the file.
    pub(crate) fn of(
        length: u64,
        read: impl Fn(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<Self> {
        if length == 0 {
            return Ok(Self::Empty);
        }
        let bytes = |from: u64, most: u64| {
            let mut bytes = vec![0; length.saturating_sub(from).min(most) as usize];
            read(from, &mut bytes).map(|()| bytes)
        };
        let start = bytes(0, START_BYTES)?;
        let is_marked = start.starts_with(MAGIC);
        // Either the magic or the engine region identifies a store, because the other may be
        // damaged.
        Ok(match EngineStart::of(&bytes(LOG_BYTES, START_BYTES)?) {
            EngineStart::Valid => Self::Store,
            EngineStart::Invalid if is_marked => Self::Store,
            EngineStart::Missing if is_marked => Self::Truncated,
            _ if start.starts_with(REDB_MAGIC) => Self::ForeignRedb,
            _ if EngineStart::of(&start) == EngineStart::Valid => Self::OldFormat,
            _ => Self::Unknown,
        })
    }
}
