//! The write-ahead log of the file.
//!
//! A durable commit of redb writes every changed page and the state of the free pages, which grows
//! with the file, and syncs twice. A log record holds the same changes in one place and needs one
//! sync. So each group of writes is first appended to the log and then committed to redb without a
//! sync. When the log is full, redb commits durably (a **checkpoint**) and the log restarts.
//! Opening a file replays the log.
//!
//! The log is the first MiB of the file. Its first sector identifies the file and marks whether
//! entries were erased since the last purge. [Records](super::record) follow, each at the start of
//! a sector.
//!
//! Each checkpoint draws a random salt and commits it. So records of an earlier log are never taken
//! for current ones, and no caller can forge a record within a value. SQLite's write-ahead log does
//! the same: <https://www.sqlite.org/fileformat2.html#walformat>.
//!
//! A record is synced before the next one is written. So an incomplete record is the last one, and
//! its writes were not acknowledged. If a complete record follows an incomplete one, the file is
//! damaged.

use std::io;
use std::sync::Arc;

use cubbyhole_core::Timestamp;
use redb::StorageBackend;

use super::record::{LogRecord, MAX_CHANGES, RECORD_BYTES, RedoBuffer, Salt};
use crate::layout::{Damaged, LOG_BYTES, MAGIC, SECTOR};
use crate::storage::SharedFile;

/// The offset of the erasure mark in the first sector. The byte is not zero if entries were erased
/// since the last purge.
const ERASED_AT: usize = 64;

/// The log of an open file.
pub(crate) struct Log {
    file: Arc<SharedFile>,
    /// `None` until this handle has made a checkpoint or recovered a log: after a failed sync,
    /// bytes that the operating system returns may not be on disk.
    salt: Option<Salt>,
    /// The offset of the next record.
    at: usize,
    /// The number of the next record.
    number: u32,
    /// The changes in all records.
    changes: usize,
}

impl Log {
    pub(crate) fn new(file: Arc<SharedFile>) -> Self {
        Self { file, salt: None, at: SECTOR, number: 0, changes: 0 }
    }

    /// Writes an empty log in its full length, because extending a file later is slower than
    /// writing in place.
    pub(crate) fn lay_out(storage: &dyn StorageBackend) -> io::Result<()> {
        let mut empty = vec![0; LOG_BYTES as usize];
        empty[..MAGIC.len()].copy_from_slice(MAGIC);
        storage.write(0, &empty)?;
        storage.sync_data()
    }

    /// Restarts the log with the salt of a checkpoint that is on disk.
    pub(crate) fn restart(&mut self, salt: Salt) {
        *self = Self { salt: Some(salt), ..Self::new(Arc::clone(&self.file)) };
    }

    /// Whether entries were erased since the last purge (`file/purge.rs`).
    pub(crate) fn is_marked_erased(&self) -> io::Result<bool> {
        let mut mark = [0];
        self.file.storage().read(ERASED_AT as u64, &mut mark)?;
        Ok(mark != [0])
    }

    /// Sets the erasure mark on disk. Called before the erasure.
    pub(crate) fn mark_erased(&self) -> io::Result<()> {
        if self.is_marked_erased()? { Ok(()) } else { self.file.write_log(ERASED_AT, &[1]) }
    }

    /// Clears the erasure mark on disk. Called after the purge.
    pub(crate) fn clear_erased_mark(&self) -> io::Result<()> {
        if self.is_marked_erased()? { self.file.write_log(ERASED_AT, &[0]) } else { Ok(()) }
    }

    /// Overwrites the records with zeros. The engine must have committed their changes and a new
    /// salt.
    pub(crate) fn wipe(&self) -> io::Result<()> {
        let mut bytes = vec![0; RECORD_BYTES];
        self.file.storage().read(SECTOR as u64, &mut bytes)?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        bytes.fill(0);
        self.file.write_log(SECTOR, &bytes)
    }

    /// Makes all later commits of the engine fail, after a failed sync that the engine did not see.
    pub(crate) fn fail(&self) {
        self.file.fail();
    }

    /// Whether the log contains changes that the engine has not committed durably.
    pub(crate) fn has_records(&self) -> bool {
        self.number > 0
    }

    /// Whether the record fits into the log.
    pub(crate) fn has_room(&self, redo: &RedoBuffer) -> bool {
        let fits = |length| self.at + length <= LOG_BYTES as usize;
        self.salt.is_some()
            && redo.length().is_some_and(fits)
            && self.changes + redo.changes <= MAX_CHANGES
    }

    /// Appends a record, for which there must be room, and syncs. After an error the record may be
    /// on disk or not, and the caller must reopen the file.
    pub(crate) fn append(&mut self, redo: RedoBuffer, clock: Timestamp) -> io::Result<()> {
        let changes = redo.changes;
        let record = self.salt.and_then(|salt| redo.encode(salt, self.number, clock));
        let record = record.ok_or_else(|| io::Error::other("the log is full"))?;
        self.file.write_log(self.at, &record)?;
        self.at += record.len();
        self.number += 1;
        self.changes += changes;
        Ok(())
    }

    /// Reads the log that an earlier handle left, and returns it with its records in order. Returns
    /// `None` if it has no records or no salt.
    pub(crate) fn recover(
        file: &Arc<SharedFile>,
        salt: Option<Salt>,
    ) -> io::Result<Option<(Self, Vec<LogRecord>)>> {
        let Some(salt) = salt else { return Ok(None) };
        let storage = file.storage();
        let mut bytes = vec![0; storage.len()?.min(LOG_BYTES) as usize];
        storage.read(0, &mut bytes)?;
        let mut log = Self { salt: Some(salt), ..Self::new(Arc::clone(file)) };
        let mut records: Vec<LogRecord> = Vec::new();
        while let Some((record, length)) = LogRecord::decode(&bytes, log.at, salt, log.number) {
            log.at += length;
            log.number += 1;
            log.changes += record.changes().count();
            records.push(record);
        }
        let later = (log.at + SECTOR..bytes.len()).step_by(SECTOR).find(|at| {
            let number = bytes.get(at + 16..at + 20).and_then(|number| number.try_into().ok());
            let number = number.map_or(0, u32::from_le_bytes);
            number > log.number && LogRecord::decode(&bytes, *at, salt, number).is_some()
        });
        if later.is_some() {
            return Err(Damaged::error(log.at as u64));
        }
        if records.is_empty() {
            return Ok(None);
        }
        // After an interrupted or failed sync these bytes may be in the page cache only. They are
        // written and synced again before the changes become visible.
        file.write_log(SECTOR, &bytes[SECTOR..log.at])?;
        Ok(Some((log, records)))
    }
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use cubbyhole_core::Result;

    use super::super::record::{Change, HEADER, TableId};
    use super::*;

    fn file() -> Arc<SharedFile> {
        let storage = InMemoryBackend::new();
        storage.set_len(LOG_BYTES).unwrap();
        Log::lay_out(&storage).unwrap();
        SharedFile::new(Box::new(storage))
    }

    fn started(file: &Arc<SharedFile>) -> (Log, Salt) {
        let (mut log, salt) = (Log::new(Arc::clone(file)), Salt::draw());
        log.restart(salt);
        (log, salt)
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis).unwrap()
    }

    fn redo<'a>(changes: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>) -> RedoBuffer {
        let mut redo = RedoBuffer::recording();
        for (key, value) in changes {
            redo.push(TableId::Values, key.as_bytes(), value);
        }
        redo
    }

    type Read = Vec<(u64, Vec<(String, Option<Vec<u8>>)>)>;

    fn read(file: &Arc<SharedFile>, salt: Salt) -> io::Result<Read> {
        let change = |change: Result<Change<'_>>| {
            let Change { table, key, value } = change.unwrap();
            assert_eq!(table, TableId::Values);
            (String::from_utf8(key.to_vec()).unwrap(), value.map(<[u8]>::to_vec))
        };
        let record = |record: LogRecord| {
            (record.clock.as_millis(), record.changes().map(change).collect::<Vec<_>>())
        };
        let recovered = Log::recover(file, Some(salt))?;
        Ok(recovered.into_iter().flat_map(|(_, records)| records).map(record).collect())
    }

    fn bytes(file: &Arc<SharedFile>) -> Vec<u8> {
        let mut bytes = vec![0; LOG_BYTES as usize];
        file.storage().read(0, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn records_are_recovered_in_order() {
        let file = file();
        let (mut log, salt) = started(&file);
        assert_eq!(read(&file, salt).unwrap(), []);
        let long = vec![7; 3 * SECTOR];
        log.append(redo([("a", Some(&b"1"[..])), ("b", None)]), at(5)).unwrap();
        log.append(redo([("long", Some(&long[..])), ("", Some(b""))]), at(6)).unwrap();
        let first = (5, vec![("a".to_owned(), Some(b"1".to_vec())), ("b".to_owned(), None)]);
        let second = (6, vec![("long".to_owned(), Some(long)), (String::new(), Some(vec![]))]);
        assert_eq!(read(&file, salt).unwrap(), [first, second]);
    }

    #[test]
    fn torn_record_ends_the_log() {
        let file = file();
        let (mut log, salt) = started(&file);
        let value = vec![1; 2 * SECTOR];
        log.append(redo([("a", Some(&value[..]))]), at(1)).unwrap();
        let before = bytes(&file);
        let from = log.at;
        log.append(redo([("b", Some(&value[..]))]), at(2)).unwrap();
        let whole = bytes(&file);
        assert_eq!(read(&file, salt).unwrap().len(), 2);
        let sectors = (log.at - from) / SECTOR;
        for arrived in 0..(1 << sectors) - 1 {
            let mut torn = whole.clone();
            for sector in (0..sectors).filter(|sector| arrived & (1 << sector) == 0) {
                let range = from + sector * SECTOR..from + (sector + 1) * SECTOR;
                torn[range.clone()].copy_from_slice(&before[range]);
            }
            file.storage().write(0, &torn).unwrap();
            assert_eq!(read(&file, salt).unwrap().len(), 1, "sectors {arrived:b}");
        }
    }

    #[test]
    fn damaged_record_before_a_complete_one_is_corrupt() {
        let file = file();
        let (mut log, salt) = started(&file);
        let mut starts = Vec::new();
        for key in ["a", "b", "c"] {
            starts.push(log.at);
            log.append(redo([(key, Some(&b"v"[..]))]), at(1)).unwrap();
        }
        let whole = bytes(&file);
        for (number, start) in starts.into_iter().enumerate() {
            for place in [0, 8, 16, 20, 24, 33] {
                let mut damaged = whole.clone();
                damaged[start + place] ^= 1;
                file.storage().write(0, &damaged).unwrap();
                let found = read(&file, salt);
                match number {
                    2 => assert_eq!(found.unwrap().len(), 2, "byte {place} of the last"),
                    _ => assert!(Damaged::is(&found.unwrap_err()), "byte {place} of {number}"),
                }
            }
        }
    }

    /// After a restart, the middle of an older, longer record can be at the offset where the next
    /// record is expected. A tenant may have chosen these bytes.
    #[test]
    fn record_forged_within_a_value_is_not_recovered() {
        let file = file();
        let (mut forger, guessed) = started(&file);
        forger.number = 1;
        forger.append(redo([("forged", Some(&b"v"[..]))]), at(9)).unwrap();
        let forged = bytes(&file)[SECTOR..2 * SECTOR].to_vec();

        let (mut log, earlier) = started(&file);
        // The padding puts the forged record at the start of the second sector.
        let value = [vec![0; SECTOR - HEADER - 10], forged].concat();
        log.append(redo([("k", Some(&value[..]))]), at(1)).unwrap();
        assert!(LogRecord::decode(&bytes(&file), 2 * SECTOR, guessed, 1).is_some());

        let salt = Salt::draw();
        log.restart(salt);
        log.append(redo([("k", Some(&b"v"[..]))]), at(1)).unwrap();
        assert_eq!(read(&file, salt).unwrap().len(), 1);
        assert_eq!(read(&file, earlier).unwrap().len(), 0);
    }

    #[test]
    fn log_without_salt_or_space_has_no_room() {
        let file = file();
        let one = || redo([("k", Some(&b"v"[..]))]);
        let mut log = Log::new(Arc::clone(&file));
        assert!(!log.has_room(&one()) && log.append(one(), at(1)).is_err());
        log.restart(Salt::draw());
        assert!(log.has_room(&one()) && !log.has_room(&RedoBuffer::disabled()));
        let most = LOG_BYTES as usize - SECTOR - HEADER - 10;
        let (fits, exceeds) = (vec![1; most], vec![1; most + 1]);
        assert!(!log.has_room(&redo([("k", Some(&exceeds[..]))])));
        assert!(log.has_room(&redo([("k", Some(&fits[..]))])));
        log.append(redo([("k", Some(&fits[..]))]), at(1)).unwrap();
        assert!(log.has_records() && !log.has_room(&one()));
        log.restart(Salt::draw());
        assert!(!log.has_records() && log.has_room(&one()));
        for _ in 0..MAX_CHANGES {
            assert!(log.has_room(&one()));
            log.append(one(), at(1)).unwrap();
            if log.at == LOG_BYTES as usize {
                log.at = SECTOR;
            }
        }
        assert!(!log.has_room(&one()), "more changes than one replay may make");
        let many = redo((0..=MAX_CHANGES).map(|_| ("k", None)));
        assert!(many.length().is_none(), "the limit also applies to one transaction");
    }
}
