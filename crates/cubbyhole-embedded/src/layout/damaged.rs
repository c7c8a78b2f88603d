//! The error for damaged bytes of the file.

use std::fmt;
use std::io;

/// The bytes at an offset differ from the bytes that were written.
#[derive(Debug)]
pub(crate) struct Damaged {
    offset: u64,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the block at byte {} of the file fails its checksum", self.offset)
    }
}

impl std::error::Error for Damaged {}

impl Damaged {
    /// Returns the I/O error for damage at this offset in the file.
    pub(crate) fn error(offset: u64) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, Self { offset })
    }

    /// Whether `error` was made by [`Damaged::error`].
    pub(crate) fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|source| source.is::<Self>())
    }
}
