//! The file: recognised, opened with what its log holds, and opened anew after a failure of the disk.

mod access;
mod create;
mod purge;
mod unusable;

pub(crate) use access::WriteDenied;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use cubbyhole_core::{Compaction, Error, ErrorKind, Result, Timestamp};
use redb::{Database, ReadableDatabase, TableHandle};
use tokio::sync::watch;

use unusable::{damaged, earlier, foreign, not_a_store, truncated};

use crate::checked::{Checked, Unsettled};
use crate::config::{Config, Durability};
use crate::error::{Failure, OpenFailure, from_open, from_open_io};
use crate::format::{ENTRIES, EXPIRY, FORMAT, META, META_CLOCK, META_FORMAT, META_SALT, VALUES};
use crate::log::{Behind, Halves, Log, Record, Redo, Salt};
use crate::origin::Origin;
use crate::storage::{Temperature, Watched};
use crate::tables::Tables;
use crate::url_path::shown;

/// The open file. It is absent while it could not be opened anew, and once the store is closed.
pub(crate) struct StoreFile {
    config: Config,
    temperature: Arc<Temperature>,
    unsettled: Unsettled,
    opened: RwLock<Opened>,
    closed: AtomicBool,
    /// Whether somebody wants the database alone.
    busy: watch::Sender<bool>,
}

/// What is open at the moment.
pub(crate) struct Opened {
    pub(crate) handle: Option<Handle>,
    /// Counts how often the file was opened, so that of many who see one failure one opens it. It
    /// is read beside the database, under one lock: who took an older number for the handle that
    /// failed under them would leave that handle, and what it still shows, in place.
    pub(crate) generation: u64,
}

/// The engine's handle, and the log ahead of it, which is the writer's.
pub(crate) struct Handle {
    pub(crate) database: Database,
    pub(crate) log: Mutex<Log>,
    /// The bytes beneath the engine.
    engine: Checked,
}

impl Opened {
    pub(crate) fn database(&self) -> Option<&Database> {
        self.handle.as_ref().map(|handle| &handle.database)
    }
}

pub(crate) type Guard<'a> = RwLockReadGuard<'a, Opened>;

impl StoreFile {
    /// Opens the file, creating it if the configuration says so. Returns the high-water mark of
    /// the clock too.
    pub(crate) fn open(config: Config) -> Result<(Self, Timestamp), OpenFailure> {
        if config.storage().is_none() {
            create::prepare(&config)?;
        }
        let temperature = Arc::new(Temperature::new());
        let unsettled = Unsettled::default();
        let opening = Opening {
            config: &config,
            temperature: &temperature,
            unsettled: &unsettled,
            // Its checkpoint can wait: a file that was not closed opens the sooner.
            keeps_log: config.is_read_only() || config.durability() == Durability::Immediate,
        };
        let (handle, mark) = opening.handle()?;
        let file = Self {
            config,
            temperature,
            unsettled,
            opened: RwLock::new(Opened { handle: Some(handle), generation: 0 }),
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
    pub(crate) fn temperature(&self) -> &Temperature {
        &self.temperature
    }

    /// Waits while somebody has the database alone.
    pub(crate) async fn free(&self) {
        // The sender lives as long as `self`.
        let _ = self.busy.subscribe().wait_for(|busy| !busy).await;
    }

    /// The database, waiting while it is compacted or opened anew.
    pub(crate) fn read(&self) -> Guard<'_> {
        self.opened.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database, unless that means waiting.
    pub(crate) fn try_read(&self) -> Option<Guard<'_>> {
        match self.opened.try_read() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The database, with nobody else at it.
    fn exclusive(&self) -> Exclusive<'_> {
        self.busy.send_replace(true);
        let opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        Exclusive { opened, busy: &self.busy }
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
                return Err(purge::compacted_only(error, bytes_before, self.length()));
            }
            purged => purged?,
        }
        Ok(Compaction { bytes_before, bytes_after: self.length() })
    }

    /// Rewrites parts of the file. It is reopened at the end: closing trims it, and makes the next
    /// opening quick.
    fn rewrite(
        &self,
        opened: &mut Opened,
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
    fn open_again(&self, opened: &mut Opened) -> Result<()> {
        let config = self.config.clone().with_create(false);
        let opening = Opening {
            config: &config,
            temperature: &self.temperature,
            unsettled: &self.unsettled,
            // On a disk that goes on failing the next opening has less to do.
            keeps_log: config.is_read_only(),
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
        purged.map_err(|failure| self.not_purged(failure.into_error()))?;
        closed.map_err(|error| from_open(error, self.path()).into_error())
    }

    pub(crate) fn length(&self) -> Option<u64> {
        fs::metadata(self.path()).ok().map(|metadata| metadata.len())
    }
}

/// The database alone; others are told when it is given back.
struct Exclusive<'a> {
    opened: RwLockWriteGuard<'a, Opened>,
    busy: &'a watch::Sender<bool>,
}

impl Drop for Exclusive<'_> {
    fn drop(&mut self) {
        // If another waits to have it alone, readers that come too early wait for the lock.
        self.busy.send_replace(false);
    }
}

/// How the file is opened.
struct Opening<'a> {
    config: &'a Config,
    temperature: &'a Arc<Temperature>,
    unsettled: &'a Unsettled,
    /// Whether the log goes on where it ended, or a checkpoint is made of what it holds. A relaxed
    /// store will not write to it, and needs the checkpoint.
    keeps_log: bool,
}

impl Opening<'_> {
    /// Also the high-water mark of the clock.
    fn handle(&self) -> Result<(Handle, Timestamp), OpenFailure> {
        let (halves, engine) = self.storage()?;
        let opened = self.engine(&halves, engine.clone(), self.config.integrity_check());
        if opened.is_ok() || !engine.has_suspects() {
            return opened;
        }
        // A compaction that the power ended leaves blocks that only the engine can judge. The file is
        // opened once more: this handle has failed, and holds the lock.
        drop((opened, halves, engine));
        let (halves, engine) = self.storage()?;
        let engine = engine.leniently();
        let opened = self.engine(&halves, engine.clone(), true)?;
        engine.accept().map_err(|error| from_open_io(error, self.config.path()))?;
        Ok(opened)
    }

    /// The bytes of the file, if it is a store or may become one; and of them the engine's part.
    fn storage(&self) -> Result<(Arc<Halves>, Checked), OpenFailure> {
        let path = self.config.path();
        let from_io = |error| from_open_io(error, path);
        let storage = access::open(self.config)?;
        let length = storage.len().map_err(from_io)?;
        match Origin::of(length, |from, out| storage.read(from, out)).map_err(from_io)? {
            Origin::Ours => {}
            Origin::Empty if self.config.create() => {}
            Origin::Empty | Origin::Stump => return Err(truncated(path).into()),
            Origin::Earlier => return Err(earlier(path).into()),
            Origin::BareEngine => return Err(foreign(path).into()),
            Origin::Unknown => return Err(not_a_store(path).into()),
        }
        let halves = Halves::new(storage);
        let engine =
            Checked::new(Box::new(Behind(Arc::clone(&halves))), Arc::clone(self.unsettled));
        Ok((halves, engine))
    }

    fn engine(
        &self,
        halves: &Arc<Halves>,
        engine: Checked,
        verify: bool,
    ) -> Result<(Handle, Timestamp), OpenFailure> {
        let path = self.config.path();
        let watched = Watched::new(Box::new(engine.clone()), Arc::clone(self.temperature));
        // The engine may panic over a file that something else wrote to.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let database = redb::Builder::new()
                .set_cache_size(self.config.cache_bytes())
                .set_check_integrity_on_open(verify)
                .create_with_backend(watched)
                .map_err(|error| from_open(error, path))?;
            let (log, mark) = match recognise(&database, self.config)? {
                Found::Nothing => {
                    Log::lay_out(halves.storage()).map_err(|error| from_open_io(error, path))?;
                    initialise(&database).map_err(Failure::into_error)?;
                    (Log::new(Arc::clone(halves)), Timestamp::EPOCH)
                }
                Found::Store { mark, salt } => {
                    let log = Log::recover(halves, salt);
                    match log.map_err(|error| from_open_io(error, path))? {
                        None => (Log::new(Arc::clone(halves)), mark),
                        Some((log, records)) => self
                            .replay(&database, log, &records, mark)
                            .map_err(Failure::into_error)?,
                    }
                }
            };
            Ok((Handle { database, log: Mutex::new(log), engine }, mark))
        }));
        opened.unwrap_or_else(|_| Err(damaged(path).into()))
    }

    /// Makes the changes once more that the log has and the engine may not have. Also the high-water
    /// mark of the clock after them.
    fn replay(
        &self,
        database: &Database,
        mut log: Log,
        records: &[Record],
        mark: Timestamp,
    ) -> Result<(Log, Timestamp), Failure> {
        let mark = records.iter().map(|record| record.clock).fold(mark, Timestamp::max);
        let mut transaction = database.begin_write()?;
        let checkpoint = (!self.keeps_log).then(Salt::draw);
        let mut tables = Tables::open(&transaction, mark, Redo::off())?;
        for record in records {
            tables.replay(record)?;
        }
        tables.set_clock_mark()?;
        if let Some(salt) = checkpoint {
            tables.set_salt(salt)?;
        }
        drop(tables);
        match checkpoint {
            Some(_) => transaction.set_quick_repair(true),
            None => transaction.set_durability(redb::Durability::None)?,
        }
        transaction.commit()?;
        if let Some(salt) = checkpoint {
            log.begin(salt);
        }
        Ok((log, mark))
    }
}

/// What the engine's part holds.
enum Found {
    Nothing,
    Store { mark: Timestamp, salt: Option<Salt> },
}

/// Checks that the file is one of ours and of a form that this build reads, or empty and may become
/// one.
fn recognise(database: &Database, config: &Config) -> Result<Found> {
    let path = config.path();
    let engine = |failure: Failure| failure.into_error();
    let transaction = database.begin_read().map_err(|error| engine(error.into()))?;
    let tables: Vec<String> = transaction
        .list_tables()
        .map_err(|error| engine(error.into()))?
        .map(|table| table.name().to_owned())
        .collect();
    if tables.is_empty() && !config.create() {
        return Err(truncated(path));
    }
    if tables.is_empty() {
        return Ok(Found::Nothing);
    }
    if !tables.iter().any(|table| table == META.name()) {
        return Err(damaged(path));
    }
    let meta = transaction.open_table(META).map_err(|error| engine(error.into()))?;
    let read = |name| {
        redb::ReadableTable::get(&meta, name)
            .map(|found| found.map(|value| value.value().to_vec()))
            .map_err(|error| engine(error.into()))
    };
    let damaged = || damaged(path);
    let format = read(META_FORMAT)?.ok_or_else(damaged)?;
    let format = u32::from_le_bytes(format.try_into().map_err(|_| damaged())?);
    if format != FORMAT {
        return Err(Error::unsupported(format!(
            "{} is in format {format} and this build reads format {FORMAT}; use a newer build",
            shown(path)
        )));
    }
    let number = |name| {
        let bytes = read(name)?.map(|bytes| bytes.try_into().map_err(|_| damaged()));
        bytes.transpose()
    };
    let mark = number(META_CLOCK)?.map_or(0, u64::from_le_bytes);
    let mark = Timestamp::from_millis(mark).map_err(|_| damaged())?;
    Ok(Found::Store { mark, salt: number(META_SALT)?.map(Salt::from_bytes) })
}

/// Makes the tables, so that readers always find them.
fn initialise(database: &Database) -> Result<(), Failure> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    transaction.open_table(META)?.insert(META_FORMAT, FORMAT.to_le_bytes().as_slice())?;
    transaction.open_table(ENTRIES)?;
    transaction.open_table(VALUES)?;
    transaction.open_table(EXPIRY)?;
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use cubbyhole_core::{ExecutionContext, Verdict};

    use super::*;
    use crate::{EmbeddedStore, diagnose};

    #[tokio::test]
    async fn a_newer_format_is_refused() {
        let (ctx, folder) = (ExecutionContext::new(), tempfile::tempdir().unwrap());
        let config = Config::new(folder.path().join("s.redb"));
        drop(EmbeddedStore::open(&ctx, config.clone()).await.unwrap());
        let (file, _) = StoreFile::open(config.clone()).unwrap_or_else(|_| panic!("it opens"));
        let transaction = file.read().database().unwrap().begin_write().unwrap();
        let newer = (FORMAT + 1).to_le_bytes();
        transaction.open_table(META).unwrap().insert(META_FORMAT, newer.as_slice()).unwrap();
        transaction.commit().unwrap();
        file.close().unwrap();

        let error = EmbeddedStore::open(&ctx, config.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("format 2"), "{error}");
        let diagnosis = diagnose(&ctx, &config).await.unwrap();
        assert_eq!(diagnosis.verdict(), Verdict::Problem);
    }
}
