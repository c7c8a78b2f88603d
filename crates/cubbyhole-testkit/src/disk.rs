//! A disk that is full or fails to sync on demand.

use std::fmt;

use crate::process::folder::Folder;
use crate::process::preload::{Library, Preload};

static LIBRARY: Library = Library::new("disk", include_str!("disk.c"), "CUBBYHOLE_TEST_DISK");

/// The size of the file that the library reads.
const ORDERS: usize = 256;
const SOUND: u8 = 0;
const FULL: u8 = b'f';
const FAILS_SYNCS: u8 = b's';

/// The disk of a server. It fails for the files whose paths contain a text that the test chooses, such
/// as `/base/`. A new disk does not fail.
pub struct Disk(Preload);

impl Disk {
    pub(crate) fn create(folder: &Folder) -> Result<Self, String> {
        Preload::create(folder, &LIBRARY, &[0; ORDERS]).map(Self)
    }

    pub(crate) fn preload(&self) -> &Preload {
        &self.0
    }

    /// Fills the disk for `files`: they cannot grow, but writes within their length succeed.
    ///
    /// # Errors
    ///
    /// The text has more than 254 bytes, or the control file cannot be written.
    pub fn fill(&self, files: &str) -> Result<(), String> {
        self.order(FULL, files)
    }

    /// Makes each fsync of `files` fail. Writes still succeed.
    ///
    /// # Errors
    ///
    /// The same errors as [`fill`](Self::fill).
    pub fn fail_syncs(&self, files: &str) -> Result<(), String> {
        self.order(FAILS_SYNCS, files)
    }

    /// Ends the failures.
    ///
    /// # Errors
    ///
    /// The same errors as [`fill`](Self::fill).
    pub fn mend(&self) -> Result<(), String> {
        self.0.overwrite(&[SOUND], 0)
    }

    fn order(&self, mode: u8, files: &str) -> Result<(), String> {
        if files.len() > ORDERS - 2 {
            return Err(format!("the text that selects files has more than {} bytes", ORDERS - 2));
        }
        // The library never sees a mode with the files of another order.
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
