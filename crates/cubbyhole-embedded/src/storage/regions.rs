//! The two regions of a file: the log, and the engine's behind it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;

use super::delegate_locks;
use crate::layout::LOG_BYTES;

/// A file that the log and the engine share.
#[derive(Debug)]
pub(crate) struct SharedFile {
    storage: Box<dyn StorageBackend>,
    has_failed: AtomicBool,
}

impl SharedFile {
    pub(crate) fn new(storage: Box<dyn StorageBackend>) -> Arc<Self> {
        Arc::new(Self { storage, has_failed: AtomicBool::new(false) })
    }

    pub(crate) fn storage(&self) -> &dyn StorageBackend {
        &*self.storage
    }

    /// Writes to the log's part and waits until that is on disk.
    pub(crate) fn write_log(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let written = self.storage.write(at as u64, bytes).and_then(|()| self.storage.sync_data());
        self.has_failed.fetch_or(written.is_err(), Ordering::AcqRel);
        written
    }

    /// Makes every later commit of the engine fail, because a sync that it does not know of failed.
    pub(crate) fn fail(&self) {
        self.has_failed.store(true, Ordering::Release);
    }

    /// A failed sync may have lost what the engine wrote before, without its being told: nothing
    /// that it commits after that can be relied upon.
    fn check(&self) -> io::Result<()> {
        if self.has_failed.load(Ordering::Acquire) {
            return Err(io::Error::other("the log of the file could not be written"));
        }
        Ok(())
    }
}

/// The part of the file behind the log.
#[derive(Debug)]
pub(crate) struct EngineRegion(pub(crate) Arc<SharedFile>);

impl StorageBackend for EngineRegion {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.storage.len()?.saturating_sub(LOG_BYTES))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.storage.read(LOG_BYTES + offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.check()?;
        self.0.storage.set_len(LOG_BYTES + len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.check()?;
        self.0.storage.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.check()?;
        self.0.storage.write(LOG_BYTES + offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.storage.close()
    }

    delegate_locks!(self => self.0.storage);
}
