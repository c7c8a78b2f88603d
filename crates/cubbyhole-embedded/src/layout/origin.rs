//! What a file is, by a few of its bytes.

use std::io;

use super::blocks::{EngineStart, START_BYTES};
use super::{LOG_BYTES, MAGIC};

/// What a file of the engine begins with that is none of ours.
const REDB_MAGIC: &[u8] = b"redb\x1A\x0A\xA9\x0D\x0A";

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nothing yet.
    Empty,
    Store,
    /// The beginning of ours, and none of the engine's part is left.
    Truncated,
    /// Ours, of a build before there was a log.
    OldFormat,
    /// The engine's, and of another program.
    ForeignRedb,
    Unknown,
}

impl Origin {
    /// What a file of that length is. `read` fills the bytes from a place of the file on, all of
    /// which are there.
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
        // Either tells by itself: the other may be damaged.
        Ok(match EngineStart::of(&bytes(LOG_BYTES, START_BYTES)?) {
            EngineStart::Sound => Self::Store,
            EngineStart::Other if is_marked => Self::Store,
            EngineStart::Absent if is_marked => Self::Truncated,
            _ if start.starts_with(REDB_MAGIC) => Self::ForeignRedb,
            _ if EngineStart::of(&start) == EngineStart::Sound => Self::OldFormat,
            _ => Self::Unknown,
        })
    }
}
