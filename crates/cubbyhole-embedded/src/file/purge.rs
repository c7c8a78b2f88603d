//! Removes deleted and overwritten entries from the file: after a purge no byte of them is in it.
//!
//! Removing an entry from a table leaves its bytes in up to four places:
//!
//! | place | how they are removed |
//! |---|---|
//! | pages that the engine freed | overwritten with zeros, once they are known: `storage/checksums/used_blocks.rs` |
//! | the end of a leaf page that was changed in place | the tables are rewritten |
//! | the keys in branch pages, which route to a leaf and outlive the entry that they were taken from | the tables are rewritten |
//! | records of the log before its last checkpoint | overwritten with zeros |
//!
//! The file is sound at any instant: each table is rewritten in one commit, and only blocks that no commit
//! refers to are overwritten. The mark of an erasure is removed last: the next clean close repeats a
//! purge that a crash ended.

use std::path::Path;

use cubbyhole_core::{Error, ErrorKind};
use redb::{Database, Key, ReadableTable, TableDefinition, Value, WriteTransaction};

use super::handle::Handle;
use crate::engine::format::{ENTRIES, EXPIRY, META, META_SALT, VALUES};
use crate::error::Failure;
use crate::url_path::shown;
use crate::wal::Salt;

/// The name that a table has while it is written.
const REWRITTEN: &str = "cubbyhole_rewritten";

impl Handle {
    /// Purges the file if something was erased since the last purge.
    pub(super) fn purge_if_erased(&mut self) -> Result<(), Failure> {
        if self.lock_log().is_marked_erased()? { self.purge() } else { Ok(()) }
    }

    /// Rewrites and compacts the tables, and overwrites everything else in the file with zeros. Takes
    /// free space of the largest table's size, in the file or on the disk. After an error the handle
    /// is to be closed.
    pub(super) fn purge(&mut self) -> Result<(), Failure> {
        rewrite(&self.database, |transaction| {
            // This commit has the changes of all records: they are void from here on.
            let salt = Salt::draw().to_bytes();
            transaction.open_table(META)?.insert(META_SALT, salt.as_slice())?;
            rewrite_table(transaction, ENTRIES)
        })?;
        rewrite(&self.database, |transaction| rewrite_table(transaction, VALUES))?;
        rewrite(&self.database, |transaction| rewrite_table(transaction, EXPIRY))?;
        self.compact()?;
        self.overwrite_unused()
    }

    /// Moves pages to the beginning of the file and cuts it off behind them.
    pub(super) fn compact(&mut self) -> Result<(), Failure> {
        self.database.compact().map_err(|error| Failure::Engine(error.into()))?;
        Ok(())
    }

    fn overwrite_unused(&mut self) -> Result<(), Failure> {
        self.engine.record_use();
        // It empties the engine's cache and then reads every page of every table.
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

/// Makes changes in a durable commit.
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

/// Builds the table again from its entries, in pages that hold nothing else.
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

/// The error of a close that could not purge the file.
pub(crate) fn not_purged(path: &Path, error: Error) -> Error {
    let advice = match error.kind() {
        ErrorKind::ResourceExhausted => "free some space and compact it",
        ErrorKind::Corrupt => "export what can be read, and import it into a new store",
        _ => "compact it, or open and close it again",
    };
    Error::new(
        error.kind(),
        format!(
            "{} is closed, but could not be rewritten, and bytes of erased entries may still be \
             in it; {advice}",
            shown(path),
        ),
    )
    .with_source(error)
}

/// A purge that met a full disk, after which the file was compacted alone.
pub(super) fn compacted_only(error: Error, before: Option<u64>, after: Option<u64>) -> Error {
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), |bytes| bytes.to_string());
    Error::resource_exhausted(format!(
        "compacted from {} to {} bytes, but the disk has no room to rewrite the entries, so that \
         bytes of deleted ones may still be in the file; free as much space as the file takes, and \
         compact it again",
        size(before),
        size(after),
    ))
    .with_source(error)
}
