//! The two regions of the file: the write-ahead log, and the engine region after it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;

use super::delegate_locks;
use crate::layout::LOG_BYTES;

/// The file, shared by the log and the engine.
#[derive(Debug)]
pub(crate) struct SharedFile {
    storage: Box<dyn StorageBackend>,
    /// Whether a write or sync of the log failed.
    has_failed: AtomicBool,
}

impl SharedFile {
    pub(crate) fn new(storage: Box<dyn StorageBackend>) -> Arc<Self> {
        Arc::new(Self { storage, has_failed: AtomicBool::new(false) })
    }

    pub(crate) fn storage(&self) -> &dyn StorageBackend {
        &*self.storage
    }

    /// Writes to the log region and syncs.
    pub(crate) fn write_log(&self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let written =
            self.storage.write(offset as u64, bytes).and_then(|()| self.storage.sync_data());
        self.has_failed.fetch_or(written.is_err(), Ordering::AcqRel);
        written
    }

    /// Makes all later writes and syncs of the engine fail.
    pub(crate) fn fail(&self) {
        self.has_failed.store(true, Ordering::Release);
    }

    /// Fails if a sync of the log failed. Such a sync may have lost earlier writes of the engine,
    /// which does not see the error, so its later commits must not succeed.
    fn check(&self) -> io::Result<()> {
        if self.has_failed.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier write of the log failed"));
        }
        Ok(())
    }
}

/// The region after the log, as storage for the engine.
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
