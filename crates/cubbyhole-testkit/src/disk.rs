//! A disk that is full or fails when a test says so.

use std::fmt;

use crate::process::folder::Folder;
use crate::process::preload::{Library, Preload};

static LIBRARY: Library = Library::new("disk", include_str!("disk.c"), "CUBBYHOLE_TEST_DISK");

/// The size of what the library reads.
const ORDERS: usize = 256;
const SOUND: u8 = 0;
const FULL: u8 = b'f';
const FAILS_SYNCS: u8 = b's';

/// The disk of a server, which does as a test says for the files that it names: those whose paths
/// contain a text, such as `/base/`. It begins sound.
pub struct Disk(Preload);

impl Disk {
    pub(crate) fn create(folder: &Folder) -> Result<Self, String> {
        Preload::create(folder, &LIBRARY, &[0; ORDERS]).map(Self)
    }

    pub(crate) fn preload(&self) -> &Preload {
        &self.0
    }

    /// Makes it full for `files`: none of them can grow; within their length they are written.
    ///
    /// # Errors
    ///
    /// A text of more than 254 bytes; the file by which the server is told cannot be written.
    pub fn fill(&self, files: &str) -> Result<(), String> {
        self.order(FULL, files)
    }

    /// Makes each sync of `files` fail; what they are given is written all the same.
    ///
    /// # Errors
    ///
    /// As [`fill`](Self::fill).
    pub fn fail_syncs(&self, files: &str) -> Result<(), String> {
        self.order(FAILS_SYNCS, files)
    }

    /// Makes it sound again.
    ///
    /// # Errors
    ///
    /// As [`fill`](Self::fill).
    pub fn mend(&self) -> Result<(), String> {
        self.0.overwrite(&[SOUND], 0)
    }

    fn order(&self, mode: u8, files: &str) -> Result<(), String> {
        if files.len() > ORDERS - 2 {
            return Err(format!("the files of a disk are named in at most {} bytes", ORDERS - 2));
        }
        // Never one order with the files of another.
        self.mend()?;
        self.0.overwrite(&[files.as_bytes(), &[0]].concat(), 1)?;
        self.0.overwrite(&[mode], 0)
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").finish_non_exhaustive()
    }
}
