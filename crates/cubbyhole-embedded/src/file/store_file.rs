//! The file of a store over its lifetime: opened, reopened after a disk failure, compacted, closed.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use cubbyhole_core::{Compaction, Error, ErrorKind, Result, Timestamp};
use redb::Database;
use tokio::sync::watch;

use super::create;
use super::handle::Handle;
use super::opening::Opening;
use super::purge::{compacted_only, not_purged};
use super::unusable::damaged;
use crate::config::{Config, Durability};
use crate::error::{Failure, OpenFailure, from_open};
use crate::storage::{ReadLatency, UncertainGroups};
use crate::url_path::shown;

/// The target of this module's events. It is documented, so it does not follow the source layout.
const EVENT_TARGET: &str = "cubbyhole_embedded::file";

/// The file of an open store. Its handle is missing after a failed reopening and after closing.
pub(crate) struct StoreFile {
    config: Config,
    latency: Arc<ReadLatency>,
    uncertain_groups: UncertainGroups,
    opened: RwLock<OpenFile>,
    closed: AtomicBool,
    /// Whether a thread holds or waits for exclusive access.
    busy: watch::Sender<bool>,
}

/// The current handle.
pub(crate) struct OpenFile {
    pub(crate) handle: Option<Handle>,
    /// Counts the openings, so only one of several callers that see the same failure reopens the
    /// file. It must be read under the same lock as the handle. With an older number a caller would
    /// skip reopening and leave a failed handle in use.
    pub(crate) generation: u64,
}

impl OpenFile {
    pub(crate) fn database(&self) -> Option<&Database> {
        self.handle.as_ref().map(|handle| &handle.database)
    }
}

pub(crate) type ReadGuard<'a> = RwLockReadGuard<'a, OpenFile>;

impl StoreFile {
    /// Opens the file, or creates it if configured. Also returns the high-water mark of the clock.
    pub(crate) fn open(config: Config) -> Result<(Self, Timestamp), OpenFailure> {
        if config.storage().is_none() {
            create::prepare(&config)?;
        }
        let latency = Arc::new(ReadLatency::new());
        let uncertain_groups = UncertainGroups::default();
        let opening = Opening {
            config: &config,
            latency: &latency,
            uncertain_groups: &uncertain_groups,
            // Delaying the checkpoint makes opening after a crash faster.
            keep_log: config.is_read_only() || config.durability() == Durability::Immediate,
        };
        let (handle, mark) = opening.handle()?;
        let file = Self {
            config,
            latency,
            uncertain_groups,
            opened: RwLock::new(OpenFile { handle: Some(handle), generation: 0 }),
            closed: AtomicBool::new(false),
            busy: watch::Sender::new(false),
        };
        Ok((file, mark))
    }

    pub(crate) fn path(&self) -> &Path {
        self.config.path()
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.config.is_read_only()
    }

    /// Fails if the store is read-only.
    pub(crate) fn check_writable(&self) -> Result<()> {
        if !self.is_read_only() {
            return Ok(());
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::closed());
        }
        Err(Error::permission_denied(format!(
            "redb:{} is open read-only; open it for writing to change it",
            shown(self.path())
        )))
    }

    /// The measured read latency.
    pub(crate) fn latency(&self) -> &ReadLatency {
        &self.latency
    }

    /// Waits until no thread holds or waits for exclusive access.
    pub(crate) async fn wait_until_free(&self) {
        // Cannot fail: the sender lives as long as `self`.
        let _ = self.busy.subscribe().wait_for(|busy| !busy).await;
    }

    /// Locks the handle for shared use. Waits while the file is being compacted or reopened.
    pub(crate) fn read(&self) -> ReadGuard<'_> {
        self.opened.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the handle for shared use, or returns `None` instead of waiting.
    pub(crate) fn try_read(&self) -> Option<ReadGuard<'_>> {
        match self.opened.try_read() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Locks the handle for exclusive use.
    fn exclusive(&self) -> ExclusiveGuard<'_> {
        self.busy.send_replace(true);
        let opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        ExclusiveGuard { opened, busy: &self.busy }
    }

    /// The failure of a call that finds no handle, because the file was closed or could not be
    /// reopened.
    pub(crate) fn no_handle(&self) -> Failure {
        if self.closed.load(Ordering::Acquire) {
            return Error::closed().into();
        }
        Failure::Engine(redb::Error::DatabaseClosed)
    }

    /// Reopens the file because its handle failed or is missing. `seen` is the generation in which
    /// the caller noticed this. Does nothing if the file was reopened since then.
    pub(crate) fn reopen(&self, seen: u64) -> Result<()> {
        let mut exclusive = self.exclusive();
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::closed());
        }
        if exclusive.opened.generation != seen {
            return Ok(());
        }
        if let Some(failed) = exclusive.opened.handle.take() {
            // The handle has failed already, so an error of closing it adds no information. Its
            // durable writes are in the log.
            let _ = catch_unwind(AssertUnwindSafe(|| failed.database.close()));
        }
        let reopened = self.open_again(&mut exclusive.opened);
        // The calls that noticed the failure may still succeed, so only this event reports it.
        match &reopened {
            Ok(()) => tracing::warn!(
                target: EVENT_TARGET,
                path = shown(self.path()),
                "the file was reopened after a failure"
            ),
            Err(error) => tracing::warn!(
                target: EVENT_TARGET,
                path = shown(self.path()),
                error = error.message(),
                "the file cannot be reopened after a failure"
            ),
        }
        reopened
    }

    /// Purges and truncates the file. If the disk is too full for a purge, only truncates it and
    /// returns an error.
    pub(crate) fn compact(&self) -> Result<Compaction> {
        let mut exclusive = self.exclusive();
        let bytes_before = self.length();
        match self.rewrite(&mut exclusive.opened, Handle::purge) {
            Err(error) if error.kind() == ErrorKind::ResourceExhausted => {
                self.rewrite(&mut exclusive.opened, Handle::compact)?;
                return Err(compacted_only(error, bytes_before, self.length()));
            }
            purged => purged?,
        }
        Ok(Compaction { bytes_before, bytes_after: self.length() })
    }

    /// Runs `work` on the handle, then closes and reopens the file, which truncates it.
    fn rewrite(
        &self,
        opened: &mut OpenFile,
        work: impl FnOnce(&mut Handle) -> Result<(), Failure>,
    ) -> Result<()> {
        let Some(mut handle) = opened.handle.take() else {
            return Err(self.no_handle().into_error());
        };
        let rewritten = catch_unwind(AssertUnwindSafe(|| {
            work(&mut handle).map_err(Failure::into_error)?;
            handle.database.close().map_err(|error| from_open(error, self.path()).into_error())
        }));
        self.open_again(opened)?;
        rewritten.unwrap_or_else(|_| Err(damaged(self.path())))
    }

    /// Opens the same file again. If it is now missing or empty, it must not be replaced by an
    /// empty store.
    fn open_again(&self, opened: &mut OpenFile) -> Result<()> {
        let config = self.config.clone().with_create(false);
        let opening = Opening {
            config: &config,
            latency: &self.latency,
            uncertain_groups: &self.uncertain_groups,
            // With a checkpoint, the next opening has less to do if the disk fails again.
            keep_log: config.is_read_only(),
        };
        let again = opening.handle();
        let (handle, _) = again.map_err(OpenFailure::into_error)?;
        opened.handle = Some(handle);
        opened.generation += 1;
        Ok(())
    }

    /// Closes the file for good. Purges it first if entries were erased.
    pub(crate) fn close(&self) -> Result<()> {
        let mut exclusive = self.exclusive();
        self.closed.store(true, Ordering::Release);
        let Some(mut handle) = exclusive.opened.handle.take() else { return Ok(()) };
        let purged = if self.is_read_only() {
            Ok(())
        } else {
            catch_unwind(AssertUnwindSafe(|| handle.purge_if_erased()))
                .unwrap_or_else(|_| Err(damaged(self.path()).into()))
        };
        let closed = handle.database.close();
        purged.map_err(|failure| not_purged(self.path(), failure.into_error()))?;
        closed.map_err(|error| from_open(error, self.path()).into_error())
    }

    /// The length of the file in bytes, if the operating system reports it.
    pub(crate) fn length(&self) -> Option<u64> {
        fs::metadata(self.path()).ok().map(|metadata| metadata.len())
    }
}

/// Exclusive access to the handle. Dropping it wakes the waiting readers.
struct ExclusiveGuard<'a> {
    opened: RwLockWriteGuard<'a, OpenFile>,
    busy: &'a watch::Sender<bool>,
}

impl Drop for ExclusiveGuard<'_> {
    fn drop(&mut self) {
        // If another thread is waiting for exclusive access, readers that wake too early wait for
        // the lock.
        self.busy.send_replace(false);
    }
}
