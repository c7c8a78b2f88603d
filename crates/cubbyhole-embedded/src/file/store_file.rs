//! The file: recognised, opened with what its log holds, and opened anew after a failure of the disk.

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

/// The open file. It is absent while it could not be opened anew, and once the store is closed.
pub(crate) struct StoreFile {
    config: Config,
    latency: Arc<ReadLatency>,
    uncertain_groups: UncertainGroups,
    opened: RwLock<OpenFile>,
    closed: AtomicBool,
    /// Whether somebody wants the database alone.
    busy: watch::Sender<bool>,
}

/// What is open at the moment.
pub(crate) struct OpenFile {
    pub(crate) handle: Option<Handle>,
    /// Counts how often the file was opened, so that of many who see one failure one opens it. It
    /// is read beside the database, under one lock: who took an older number for the handle that
    /// failed under them would leave that handle, and what it still shows, in place.
    pub(crate) generation: u64,
}

impl OpenFile {
    pub(crate) fn database(&self) -> Option<&Database> {
        self.handle.as_ref().map(|handle| &handle.database)
    }
}

pub(crate) type ReadGuard<'a> = RwLockReadGuard<'a, OpenFile>;

impl StoreFile {
    /// Opens the file, creating it if the configuration says so. Returns the high-water mark of
    /// the clock too.
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
            // Its checkpoint can wait: a file that was not closed opens the sooner.
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

    /// Refuses what would change a file that is open read-only.
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

    /// Whether reads are likely to be served from memory.
    pub(crate) fn latency(&self) -> &ReadLatency {
        &self.latency
    }

    /// Waits while somebody has the database alone.
    pub(crate) async fn free(&self) {
        // The sender lives as long as `self`.
        let _ = self.busy.subscribe().wait_for(|busy| !busy).await;
    }

    /// The database, waiting while it is compacted or opened anew.
    pub(crate) fn read(&self) -> ReadGuard<'_> {
        self.opened.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database, unless that means waiting.
    pub(crate) fn try_read(&self) -> Option<ReadGuard<'_>> {
        match self.opened.try_read() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The database, with nobody else at it.
    fn exclusive(&self) -> ExclusiveGuard<'_> {
        self.busy.send_replace(true);
        let opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        ExclusiveGuard { opened, busy: &self.busy }
    }

    /// What a call finds that finds no database: the file was closed, or could not be opened anew.
    pub(crate) fn absent(&self) -> Failure {
        if self.closed.load(Ordering::Acquire) {
            return Error::closed().into();
        }
        Failure::Engine(redb::Error::DatabaseClosed)
    }

    /// Opens the file anew, because its handle failed or is absent. `seen` is the generation in
    /// which that was noticed: if it was opened since then, nothing needs to be done.
    pub(crate) fn reopen(&self, seen: u64) -> Result<()> {
        let mut exclusive = self.exclusive();
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::closed());
        }
        if exclusive.opened.generation != seen {
            return Ok(());
        }
        if let Some(failed) = exclusive.opened.handle.take() {
            // It failed before; what it says on closing adds nothing. The log has what it held.
            let _ = catch_unwind(AssertUnwindSafe(|| failed.database.close()));
        }
        let reopened = self.open_again(&mut exclusive.opened);
        // No single call shows this: those that noticed it may well succeed, or fail by themselves.
        match &reopened {
            Ok(()) => tracing::warn!(
                path = shown(self.path()),
                "the file was opened anew after a failure"
            ),
            Err(error) => tracing::warn!(
                path = shown(self.path()),
                error = error.message(),
                "the file cannot be opened anew after a failure"
            ),
        }
        reopened
    }

    /// Returns free space and removes the bytes of deleted and overwritten entries.
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

    /// Rewrites parts of the file. It is reopened at the end: closing trims it, and makes the next
    /// opening quick.
    fn rewrite(
        &self,
        opened: &mut OpenFile,
        work: impl FnOnce(&mut Handle) -> Result<(), Failure>,
    ) -> Result<()> {
        let Some(mut handle) = opened.handle.take() else {
            return Err(self.absent().into_error());
        };
        let rewritten = catch_unwind(AssertUnwindSafe(|| {
            work(&mut handle).map_err(Failure::into_error)?;
            handle.database.close().map_err(|error| from_open(error, self.path()).into_error())
        }));
        self.open_again(opened)?;
        rewritten.unwrap_or_else(|_| Err(damaged(self.path())))
    }

    /// Opens the file that was there: one that is gone or empty now must not be replaced by an
    /// empty store.
    fn open_again(&self, opened: &mut OpenFile) -> Result<()> {
        let config = self.config.clone().with_create(false);
        let opening = Opening {
            config: &config,
            latency: &self.latency,
            uncertain_groups: &self.uncertain_groups,
            // On a disk that goes on failing the next opening has less to do.
            keep_log: config.is_read_only(),
        };
        let again = opening.handle();
        let (handle, _) = again.map_err(OpenFailure::into_error)?;
        opened.handle = Some(handle);
        opened.generation += 1;
        Ok(())
    }

    /// Closes the file; it stays closed. After an erasure, the bytes of deleted and overwritten
    /// entries are removed first.
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

    pub(crate) fn length(&self) -> Option<u64> {
        fs::metadata(self.path()).ok().map(|metadata| metadata.len())
    }
}

/// The database alone; others are told when it is given back.
struct ExclusiveGuard<'a> {
    opened: RwLockWriteGuard<'a, OpenFile>,
    busy: &'a watch::Sender<bool>,
}

impl Drop for ExclusiveGuard<'_> {
    fn drop(&mut self) {
        // If another waits to have it alone, readers that come too early wait for the lock.
        self.busy.send_replace(false);
    }
}
