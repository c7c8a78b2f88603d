//! Opening a file: recognises it, opens the engine and replays the log.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cubbyhole_core::{Error, Result, Timestamp};
use redb::{Database, ReadableDatabase, TableHandle};

use super::access;
use super::create::initialise;
use super::handle::Handle;
use super::unusable::{damaged, earlier, foreign, not_a_store, truncated};
use crate::config::Config;
use crate::engine::Tables;
use crate::engine::format::{self, FORMAT, META, META_CLOCK, META_FORMAT, META_SALT};
use crate::error::{Failure, OpenFailure, from_open, from_open_io};
use crate::layout::Origin;
use crate::storage::{
    ChecksummedStorage, EngineRegion, ReadLatency, SharedFile, TimedStorage, UncertainGroups,
};
use crate::url_path::shown;
use crate::wal::{Log, LogRecord, RedoBuffer, Salt};

/// The parameters of one attempt to open the file.
pub(super) struct Opening<'a> {
    pub(super) config: &'a Config,
    pub(super) latency: &'a Arc<ReadLatency>,
    pub(super) uncertain_groups: &'a UncertainGroups,
    /// Whether to continue the log after a replay. Otherwise opening makes a checkpoint. A relaxed
    /// store does not write to the log and needs the checkpoint.
    pub(super) keep_log: bool,
}

impl Opening<'_> {
    /// Opens the file. Returns the handle and the high-water mark of the clock.
    pub(super) fn handle(&self) -> Result<(Handle, Timestamp), OpenFailure> {
        let (shared_file, engine) = self.storage()?;
        let opened = self.engine(&shared_file, engine.clone(), self.config.integrity_check());
        if opened.is_ok() || !engine.has_mismatches() {
            return opened;
        }
        // An interrupted compaction leaves blocks that only the engine can judge. The file is
        // opened again in lenient mode, after the failed handle has released its lock.
        drop((opened, shared_file, engine));
        let (shared_file, engine) = self.storage()?;
        let engine = engine.lenient();
        let opened = self.engine(&shared_file, engine.clone(), true)?;
        engine.accept_mismatches().map_err(|error| from_open_io(error, self.config.path()))?;
        Ok(opened)
    }

    /// Opens the storage if the file is a store or may become one. Returns the file and its engine
    /// region.
    fn storage(&self) -> Result<(Arc<SharedFile>, ChecksummedStorage), OpenFailure> {
        let path = self.config.path();
        let from_io = |error| from_open_io(error, path);
        let storage = access::open(self.config)?;
        let length = storage.len().map_err(from_io)?;
        match Origin::of(length, |from, out| storage.read(from, out)).map_err(from_io)? {
            Origin::Store => {}
            Origin::Empty if self.config.create() => {}
            Origin::Empty | Origin::Truncated => return Err(truncated(path).into()),
            Origin::OldFormat => return Err(earlier(path).into()),
            Origin::ForeignRedb => return Err(foreign(path).into()),
            Origin::Unknown => return Err(not_a_store(path).into()),
        }
        let shared_file = SharedFile::new(storage);
        let engine = ChecksummedStorage::new(
            Box::new(EngineRegion(Arc::clone(&shared_file))),
            Arc::clone(self.uncertain_groups),
        );
        Ok((shared_file, engine))
    }

    /// Opens the engine and replays the log. Returns the handle and the high-water mark.
    fn engine(
        &self,
        shared_file: &Arc<SharedFile>,
        engine: ChecksummedStorage,
        verify: bool,
    ) -> Result<(Handle, Timestamp), OpenFailure> {
        let path = self.config.path();
        let timed = TimedStorage::new(Box::new(engine.clone()), Arc::clone(self.latency));
        // redb may panic if another program changed the file.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let database = redb::Builder::new()
                .set_cache_size(self.config.cache_bytes())
                .set_check_integrity_on_open(verify)
                .create_with_backend(timed)
                .map_err(|error| from_open(error, path))?;
            let (log, mark) = match read_contents(&database, self.config)? {
                FileContents::Empty => {
                    Log::lay_out(shared_file.storage())
                        .map_err(|error| from_open_io(error, path))?;
                    initialise(&database).map_err(Failure::into_error)?;
                    (Log::new(Arc::clone(shared_file)), Timestamp::EPOCH)
                }
                FileContents::Store { mark, salt } => {
                    let log = Log::recover(shared_file, salt);
                    match log.map_err(|error| from_open_io(error, path))? {
                        None => (Log::new(Arc::clone(shared_file)), mark),
                        Some((log, records)) => self
                            .replay(&database, log, &records, mark)
                            .map_err(Failure::into_error)?,
                    }
                }
            };
            Ok((Handle::new(database, log, engine), mark))
        }));
        opened.unwrap_or_else(|_| Err(damaged(path).into()))
    }

    /// Applies the log's changes, which the engine may not have on disk. Returns the log and the
    /// high-water mark after them.
    fn replay(
        &self,
        database: &Database,
        mut log: Log,
        records: &[LogRecord],
        mark: Timestamp,
    ) -> Result<(Log, Timestamp), Failure> {
        let mark = records.iter().map(|record| record.clock).fold(mark, Timestamp::max);
        let mut transaction = database.begin_write()?;
        let checkpoint = (!self.keep_log).then(Salt::draw);
        let mut tables = Tables::open(&transaction, mark, RedoBuffer::disabled())?;
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
            log.restart(salt);
        }
        Ok((log, mark))
    }
}

/// The contents of the engine region.
enum FileContents {
    Empty,
    Store { mark: Timestamp, salt: Option<Salt> },
}

/// Reads the metadata of the store. Fails if the tables are not those of a store, the format is
/// unsupported, or there are no tables and the file may not be created.
fn read_contents(database: &Database, config: &Config) -> Result<FileContents> {
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
        return Ok(FileContents::Empty);
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
    let format = format::format_number(read(META_FORMAT)?.as_deref()).map_err(|_| damaged())?;
    if format > FORMAT {
        return Err(Error::unsupported(format!(
            "{} has format {format}, but this build reads formats up to {FORMAT}; use a newer build",
            shown(path)
        )));
    }
    let number = |name| {
        let bytes = read(name)?.map(|bytes| bytes.try_into().map_err(|_| damaged()));
        bytes.transpose()
    };
    let mark = number(META_CLOCK)?.map_or(0, u64::from_le_bytes);
    let mark = Timestamp::from_millis(mark).map_err(|_| damaged())?;
    Ok(FileContents::Store { mark, salt: number(META_SALT)?.map(Salt::from_bytes) })
}
