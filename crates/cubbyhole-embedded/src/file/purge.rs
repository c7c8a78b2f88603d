//! Purges the file: removes all bytes of deleted and overwritten entries.
//!
//! Removing an entry from a table leaves its bytes in up to four places:
//!
//! | place | how the purge removes them |
//! |---|---|
//! | pages that redb freed | overwrites them with zeros (see `UsedBlocks`) |
//! | the end of a leaf page that was changed in place | rewrites the table |
//! | keys in branch pages, which outlive their entries | rewrites the table |
//! | log records before the last checkpoint | overwrites them with zeros |
//!
//! A crash at any point leaves a valid file. Each table is rewritten in one commit, and only blocks
//! that no commit refers to are overwritten. The erasure mark is cleared last, so the next clean
//! close repeats an interrupted purge.

use std::path::Path;

use cubbyhole_core::{Error, ErrorKind};
use redb::{Database, Key, ReadableTable, TableDefinition, Value, WriteTransaction};

use super::handle::Handle;
use crate::engine::format::{ENTRIES, EXPIRY, META, META_SALT, VALUES};
use crate::error::Failure;
use crate::url_path::shown;
use crate::wal::Salt;

/// The temporary name of a table that is being rewritten.
const REWRITTEN: &str = "cubbyhole_rewritten";

impl Handle {
    /// Purges the file if entries were erased since the last purge.
    pub(super) fn purge_if_erased(&mut self) -> Result<(), Failure> {
        if self.lock_log().is_marked_erased()? { self.purge() } else { Ok(()) }
    }

    /// Rewrites and compacts the tables, and overwrites the rest of the file with zeros. Needs as
    /// much free space as the largest table, in the file or on the disk. After an error the caller
    /// must close the handle.
    pub(super) fn purge(&mut self) -> Result<(), Failure> {
        rewrite(&self.database, |transaction| {
            // This commit contains all logged changes. The new salt invalidates their records.
            let salt = Salt::draw().to_bytes();
            transaction.open_table(META)?.insert(META_SALT, salt.as_slice())?;
            rewrite_table(transaction, ENTRIES)
        })?;
        rewrite(&self.database, |transaction| rewrite_table(transaction, VALUES))?;
        rewrite(&self.database, |transaction| rewrite_table(transaction, EXPIRY))?;
        self.compact()?;
        self.overwrite_unused()
    }

    /// Moves pages to the start of the file and truncates it.
    pub(super) fn compact(&mut self) -> Result<(), Failure> {
        self.database.compact().map_err(|error| Failure::Engine(error.into()))?;
        Ok(())
    }

    fn overwrite_unused(&mut self) -> Result<(), Failure> {
        self.engine.record_use();
        // The check empties redb's cache and then reads every page of every table.
        if let Err(error) = self.database.check_integrity() {
            self.engine.forget_use();
            return Err(Failure::Engine(error.into()));
        }
        let log = self.lock_log();
        let overwritten = self.engine.zero_unused();
        let overwritten =
            overwritten.and_then(|()| log.wipe()).and_then(|()| log.clear_erased_mark());
        if overwritten.is_err() {
            log.fail();
        }
        Ok(overwritten?)
    }
}

/// Runs `work` in a durable transaction.
fn rewrite(
    database: &Database,
    work: impl FnOnce(&WriteTransaction) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    work(&transaction)?;
    transaction.commit()?;
    Ok(())
}

/// Copies the table's entries into new pages, which contain nothing else.
fn rewrite_table<K: Key + 'static, V: Value + 'static>(
    transaction: &WriteTransaction,
    definition: TableDefinition<'static, K, V>,
) -> Result<(), Failure> {
    let rewritten = TableDefinition::<K, V>::new(REWRITTEN);
    {
        let old = transaction.open_table(definition)?;
        let mut new = transaction.open_table(rewritten)?;
        for entry in old.iter()? {
            let (key, value) = entry?;
            new.insert(key.value(), value.value())?;
        }
    }
    transaction.delete_table(definition)?;
    transaction.rename_table(rewritten, definition)?;
    Ok(())
}

/// Returns the error of a close that could not purge the file.
pub(crate) fn not_purged(path: &Path, error: Error) -> Error {
    let advice = match error.kind() {
        ErrorKind::ResourceExhausted => "free some space and compact the store",
        ErrorKind::Corrupt => "export the readable entries and import them into a new store",
        _ => "compact the store, or open and close it again",
    };
    Error::new(
        error.kind(),
        format!(
            "{} is closed but could not be purged: it may still contain bytes of erased entries; \
             {advice}",
            shown(path),
        ),
    )
    .with_source(error)
}

/// Returns the error of a `compact` that could not purge the file because the disk is full.
pub(super) fn compacted_only(error: Error, before: Option<u64>, after: Option<u64>) -> Error {
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), |bytes| bytes.to_string());
    Error::resource_exhausted(format!(
        "compacted from {} to {} bytes, but the disk has too little space to rewrite the entries, \
         so the file may still contain bytes of deleted ones; free as much space as the file \
         takes, and compact it again",
        size(before),
        size(after),
    ))
    .with_source(error)
}
