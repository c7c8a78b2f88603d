//! The file: created whole or not at all, recognised, and opened anew after a failure of the disk.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use cubbyhole_core::{Compaction, Error, Result, Timestamp};
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, StorageBackend, TableHandle};
use tokio::sync::watch;

use crate::checked::{Checked, Origin, Unsettled};
use crate::config::EmbeddedConfig;
use crate::error::{Failure, OpenFailure, from_engine, from_open, from_open_io};
use crate::format::{ENTRIES, EXPIRY, FORMAT, META, META_CLOCK, META_FORMAT, VALUES};
use crate::storage::{Temperature, Watched};

/// The open file. It is absent while it could not be opened anew, and once the store is closed.
pub(crate) struct StoreFile {
    config: EmbeddedConfig,
    temperature: Arc<Temperature>,
    unsettled: Unsettled,
    opened: RwLock<Opened>,
    closed: AtomicBool,
    /// Whether somebody wants the database alone.
    busy: watch::Sender<bool>,
}

/// What is open at the moment.
pub(crate) struct Opened {
    pub(crate) database: Option<Database>,
    /// Counts how often the file was opened, so that of many who see one failure one opens it. It
    /// is read beside the database, under one lock: who took an older number for the handle that
    /// failed under them would leave that handle, and what it still shows, in place.
    pub(crate) generation: u64,
}

pub(crate) type Guard<'a> = RwLockReadGuard<'a, Opened>;

impl StoreFile {
    /// Opens the file, creating it if the configuration says so. Returns the high-water mark of
    /// the clock too.
    pub(crate) fn open(config: EmbeddedConfig) -> Result<(Self, Timestamp), OpenFailure> {
        if config.storage().is_none() {
            prepare(&config)?;
        }
        let temperature = Arc::new(Temperature::new());
        let unsettled = Unsettled::default();
        let (database, mark) = open_database(&config, &temperature, &unsettled)?;
        let file = Self {
            config,
            temperature,
            unsettled,
            opened: RwLock::new(Opened { database: Some(database), generation: 0 }),
            closed: AtomicBool::new(false),
            busy: watch::Sender::new(false),
        };
        Ok((file, mark))
    }

    pub(crate) fn path(&self) -> &Path {
        self.config.path()
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
            return closed().into();
        }
        Failure::Engine(redb::Error::DatabaseClosed)
    }

    /// Opens the file anew, because its handle failed or is absent. `seen` is the generation in
    /// which that was noticed: if it was opened since then, nothing needs to be done.
    pub(crate) fn reopen(&self, seen: u64) -> Result<()> {
        let mut exclusive = self.exclusive();
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        if exclusive.opened.generation != seen {
            return Ok(());
        }
        if let Some(failed) = exclusive.opened.database.take() {
            // It failed before; what it says on closing adds nothing.
            let _ = catch_unwind(AssertUnwindSafe(|| failed.close()));
        }
        self.open_again(&mut exclusive.opened)
    }

    /// Gives free space back. The file is opened anew at the end: closing is what trims it, and
    /// what leaves behind that the next opening is quick.
    pub(crate) fn compact(&self) -> Result<Compaction> {
        let mut exclusive = self.exclusive();
        let Some(mut database) = exclusive.opened.database.take() else {
            return Err(self.absent().into_error());
        };
        let bytes_before = self.length();
        let compacted = catch_unwind(AssertUnwindSafe(|| {
            database.compact().map_err(|error| from_engine(error.into()))?;
            database.close().map_err(|error| from_open(error, self.path()).into_error())
        }));
        self.open_again(&mut exclusive.opened)?;
        compacted.unwrap_or_else(|_| Err(damaged(self.path())))?;
        Ok(Compaction { bytes_before, bytes_after: self.length() })
    }

    /// Opens the file that was there: one that is gone or empty now must not be replaced by an
    /// empty store.
    fn open_again(&self, opened: &mut Opened) -> Result<()> {
        let config = self.config.clone().with_create(false);
        let again = open_database(&config, &self.temperature, &self.unsettled);
        let (database, _) = again.map_err(OpenFailure::into_error)?;
        opened.database = Some(database);
        opened.generation += 1;
        Ok(())
    }

    /// Closes the file; it stays closed.
    pub(crate) fn close(&self) -> Result<()> {
        let mut exclusive = self.exclusive();
        self.closed.store(true, Ordering::Release);
        match exclusive.opened.database.take() {
            Some(database) => {
                database.close().map_err(|error| from_open(error, self.path()).into_error())
            }
            None => Ok(()),
        }
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

pub(crate) fn closed() -> Error {
    Error::invalid_argument("the store was closed; open it again")
}

/// Creates the file if it is not there and may be created.
fn prepare(config: &EmbeddedConfig) -> Result<()> {
    let path = config.path();
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            Err(from_open_io(io::ErrorKind::IsADirectory.into(), path))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && config.create() => create(config)
            .map_err(|error| match error {
                CreateError::Io(error) => creation_error(error, path),
                CreateError::Store(error) => error,
            }),
        Err(error) => Err(from_open_io(error, path)),
    }
}

enum CreateError {
    Io(io::Error),
    Store(Error),
}

impl From<io::Error> for CreateError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Builds the file under another name and gives it its own once it is whole and on disk, so that
/// a crash leaves a store or nothing, and never a file that does not open.
fn create(config: &EmbeddedConfig) -> Result<(), CreateError> {
    let path = config.path();
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    // Not made of the file's own name, which may be as long as names can be.
    let draft = folder.join(format!(".cubbyhole-{}.draft", cubbyhole_core::Version::draw()));
    let result = (|| {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&draft)?;
        let storage = FileBackend::new(file)
            .map_err(|error| CreateError::Store(from_open(error, path).into_error()))?;
        let database = redb::Builder::new()
            .create_with_backend(Checked::new(Box::new(storage), Unsettled::default()))
            .map_err(|error| CreateError::Store(from_open(error, path).into_error()))?;
        initialise(&database).map_err(|error| CreateError::Store(error.into_error()))?;
        database
            .close()
            .map_err(|error| CreateError::Store(from_open(error, path).into_error()))?;
        match publish(&draft, path) {
            // Another process was faster: its store is the one.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            published => published?,
        }
        sync_folder(folder)?;
        Ok(())
    })();
    // What is left of the draft is only a second name of the file, or a file that failed; if it
    // cannot be removed either, the first error tells more.
    let _ = fs::remove_file(&draft);
    result
}

/// Makes the file's name durable, where the system can.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(folder)?.sync_all() {
        // A file system that has no such thing.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// Gives `draft` the name `path` unless that is taken.
fn publish(draft: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(draft, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            // A file system without hard links, which says so in one of several ways. Renaming would replace a file that another
            // process put there in the meantime, so that is looked for right before.
            if path.exists() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(draft, path)
        }
        linked => linked,
    }
}

fn creation_error(error: io::Error, path: &Path) -> Error {
    if error.kind() == io::ErrorKind::NotFound {
        return Error::unavailable(format!(
            "the folder of {} does not exist; create it first",
            path.display()
        ))
        .permanent()
        .with_source(error);
    }
    from_open_io(error, path)
}

fn open_database(
    config: &EmbeddedConfig,
    temperature: &Arc<Temperature>,
    unsettled: &Unsettled,
) -> Result<(Database, Timestamp), OpenFailure> {
    let storage = open_storage(config, unsettled)?;
    let opened = open_engine(config, storage.clone(), temperature, config.integrity_check());
    if opened.is_ok() || !storage.has_suspects() {
        return opened;
    }
    // A compaction that the power ended leaves blocks that only the engine can judge. The file is
    // opened once more: this handle has failed, and holds the lock.
    drop((opened, storage));
    let storage = open_storage(config, unsettled)?.leniently();
    let opened = open_engine(config, storage.clone(), temperature, true)?;
    storage.accept().map_err(|error| from_open_io(error, config.path()))?;
    Ok(opened)
}

/// The bytes of the file, if it is a store or may become one.
fn open_storage(config: &EmbeddedConfig, unsettled: &Unsettled) -> Result<Checked, OpenFailure> {
    let path = config.path();
    let storage: Box<dyn StorageBackend> = match config.storage() {
        Some(open) => open().map_err(|error| from_open_io(error, path))?,
        None => {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(path)
                .map_err(|error| from_open_io(error, path))?;
            Box::new(FileBackend::new(file).map_err(|error| from_open(error, path))?)
        }
    };
    let storage = Checked::new(storage, Arc::clone(unsettled));
    match storage.origin().map_err(|error| from_open_io(error, path))? {
        Origin::Ours => Ok(storage),
        Origin::Empty if config.create() => Ok(storage),
        Origin::Empty | Origin::Stump => Err(truncated(path).into()),
        Origin::BareEngine => Err(foreign(path).into()),
        Origin::Unknown => Err(not_a_store(path).into()),
    }
}

fn open_engine(
    config: &EmbeddedConfig,
    storage: Checked,
    temperature: &Arc<Temperature>,
    verify: bool,
) -> Result<(Database, Timestamp), OpenFailure> {
    let path = config.path();
    let storage = Watched::new(Box::new(storage), Arc::clone(temperature));
    // The engine may panic over a file that something else wrote to.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let database = redb::Builder::new()
            .set_cache_size(config.cache_bytes())
            .set_check_integrity_on_open(verify)
            .create_with_backend(storage)
            .map_err(|error| from_open(error, path))?;
        let mark = recognise(&database, config)?;
        Ok((database, mark))
    }));
    opened.unwrap_or_else(|_| Err(damaged(path).into()))
}

/// Checks that the file is one of ours and of a form that this build reads; gives an empty one its
/// tables. Returns the high-water mark of the clock.
fn recognise(database: &Database, config: &EmbeddedConfig) -> Result<Timestamp> {
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
        drop(transaction);
        initialise(database).map_err(engine)?;
        return Ok(Timestamp::EPOCH);
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
            path.display()
        )));
    }
    let Some(mark) = read(META_CLOCK)? else { return Ok(Timestamp::EPOCH) };
    let millis = u64::from_le_bytes(mark.try_into().map_err(|_| damaged())?);
    Timestamp::from_millis(millis).map_err(|_| damaged())
}

fn foreign(path: &Path) -> Error {
    Error::invalid_argument(format!(
        "{} is a redb file of another program and not a Cubbyhole store",
        path.display()
    ))
}

fn not_a_store(path: &Path) -> Error {
    Error::invalid_argument(format!("{} is not a Cubbyhole store", path.display()))
}

fn damaged(path: &Path) -> Error {
    Error::corrupt(format!("{} is damaged; restore it from a backup or an export", path.display()))
}

fn truncated(path: &Path) -> Error {
    Error::corrupt(format!(
        "{} is empty, or nearly so, and holds no store; if it held one, restore it from a backup or an export",
        path.display()
    ))
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
    use cubbyhole_core::{ErrorKind, ExecutionContext, Verdict};

    use super::*;
    use crate::{EmbeddedStore, diagnose};

    #[tokio::test]
    async fn a_newer_format_is_refused() {
        let (ctx, folder) = (ExecutionContext::new(), tempfile::tempdir().unwrap());
        let config = EmbeddedConfig::new(folder.path().join("s.redb"));
        drop(EmbeddedStore::open(&ctx, config.clone()).await.unwrap());
        let (file, _) = StoreFile::open(config.clone()).unwrap_or_else(|_| panic!("it opens"));
        let transaction = file.read().database.as_ref().unwrap().begin_write().unwrap();
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
