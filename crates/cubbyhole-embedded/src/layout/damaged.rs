//! The error of a block that is damaged.

use std::fmt;
use std::io;

/// A block that is not as it was written.
#[derive(Debug)]
pub(crate) struct Damaged {
    at: u64,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the block at byte {} is not as it was written", self.at)
    }
}

impl std::error::Error for Damaged {}

impl Damaged {
    /// The error for the block at that byte of the file.
    pub(crate) fn error(at: u64) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, Self { at })
    }

    /// Whether that is what the error says.
    pub(crate) fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|source| source.is::<Self>())
    }
}
