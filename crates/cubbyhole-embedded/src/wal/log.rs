//! The log ahead of the engine: what a durable write is waited for with.
//!
//! A durable commit of the engine writes every page that it changed, and with them a picture of which
//! pages are free, which grows with the file, and syncs twice. A record of the same changes is written
//! in one place and synced once. So a group of writes goes to the log first and then into the engine
//! without its being synced; when the log is full, the engine commits durably, a **checkpoint**, and
//! the log begins anew. Opening a file reads the log and makes its changes once more.
//!
//! The log is the first MiB of the file. Its first sector identifies the file and marks an erasure
//! since the file was last purged. [Records](record) follow, each at the beginning of a sector.
//!
//! The salt is drawn at random by each checkpoint and is within its commit, so that what a log held
//! before is never taken for a record of this one, and no value can be made to look like one. (SQLite's
//! write-ahead log does the same: <https://www.sqlite.org/fileformat2.html#walformat>.)
//!
//! A record is synced before the next one is written. So one that is not whole is the last, and nobody
//! was told of it; where a whole one follows, the file is damaged.

use std::io;
use std::sync::Arc;

use cubbyhole_core::Timestamp;
use redb::StorageBackend;

use super::record::{LogRecord, MOST_CHANGES, RECORD_BYTES, RedoBuffer, Salt};
use crate::layout::{Damaged, LOG_BYTES, MAGIC, SECTOR};
use crate::storage::SharedFile;

/// Where the first sector marks that something was erased, with a byte that is not zero. Builds that do
/// not know the mark ignore it.
const ERASED_AT: usize = 64;

/// The log of an open file.
pub(crate) struct Log {
    file: Arc<SharedFile>,
    /// `None` until a checkpoint of this handle's: what the system says is on disk may not be, if a
    /// sync failed before.
    salt: Option<Salt>,
    /// Where the next record comes to stand.
    at: usize,
    number: u32,
    changes: usize,
}

impl Log {
    pub(crate) fn new(file: Arc<SharedFile>) -> Self {
        Self { file, salt: None, at: SECTOR, number: 0, changes: 0 }
    }

    /// Writes the sectors of an empty log, so that no later write to it makes the file longer, which
    /// takes a disk more than a write in place.
    pub(crate) fn lay_out(storage: &dyn StorageBackend) -> io::Result<()> {
        let mut empty = vec![0; LOG_BYTES as usize];
        empty[..MAGIC.len()].copy_from_slice(MAGIC);
        storage.write(0, &empty)?;
        storage.sync_data()
    }

    /// Begins anew, once the salt is on disk within a checkpoint.
    pub(crate) fn begin(&mut self, salt: Salt) {
        *self = Self { salt: Some(salt), ..Self::new(Arc::clone(&self.file)) };
    }

    /// Whether something was erased since the file was last purged (`file/purge.rs`).
    pub(crate) fn is_marked_erased(&self) -> io::Result<bool> {
        let mut mark = [0];
        self.file.storage().read(ERASED_AT as u64, &mut mark)?;
        Ok(mark != [0])
    }

    /// Records on disk that something is erased, before it is.
    pub(crate) fn mark_erased(&self) -> io::Result<()> {
        if self.is_marked_erased()? { Ok(()) } else { self.file.write_log(ERASED_AT, &[1]) }
    }

    /// Records that the file is purged.
    pub(crate) fn clear_erased_mark(&self) -> io::Result<()> {
        if self.is_marked_erased()? { self.file.write_log(ERASED_AT, &[0]) } else { Ok(()) }
    }

    /// Overwrites the records with zeros. The engine has committed their changes, and a new salt.
    pub(crate) fn wipe(&self) -> io::Result<()> {
        let mut bytes = vec![0; RECORD_BYTES];
        self.file.storage().read(SECTOR as u64, &mut bytes)?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        bytes.fill(0);
        self.file.write_log(SECTOR, &bytes)
    }

    /// Makes every later commit of the engine fail, because a sync that it does not know of failed.
    pub(crate) fn fail(&self) {
        self.file.fail();
    }

    /// Whether the engine has yet to commit durably what the log holds.
    pub(crate) fn has_records(&self) -> bool {
        self.number > 0
    }

    pub(crate) fn has_room(&self, redo: &RedoBuffer) -> bool {
        let fits = |length| self.at + length <= LOG_BYTES as usize;
        self.salt.is_some()
            && redo.length().is_some_and(fits)
            && self.changes + redo.changes <= MOST_CHANGES
    }

    /// Writes a record and waits until it is on disk. After an error that may be so or not, and the
    /// file is to be opened anew. There must be room.
    pub(crate) fn append(&mut self, redo: RedoBuffer, clock: Timestamp) -> io::Result<()> {
        let changes = redo.changes;
        let record = self.salt.and_then(|salt| redo.encode(salt, self.number, clock));
        let record = record.ok_or_else(|| io::Error::other("there is no room in the log"))?;
        self.file.write_log(self.at, &record)?;
        self.at += record.len();
        self.number += 1;
        self.changes += changes;
        Ok(())
    }

    /// The log that a handle before this one left, and what it holds, in order. Nothing if that is
    /// nothing, or if it has not begun.
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
        // The system may have this from its memory alone, where a sync failed or did not come to
        // its end: before anybody sees it, it is on disk.
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

    fn begun(file: &Arc<SharedFile>) -> (Log, Salt) {
        let (mut log, salt) = (Log::new(Arc::clone(file)), Salt::draw());
        log.begin(salt);
        (log, salt)
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis).unwrap()
    }

    fn redo<'a>(changes: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>) -> RedoBuffer {
        let mut redo = RedoBuffer::on();
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
    fn records_come_back_in_order_and_end_where_they_do() {
        let file = file();
        let (mut log, salt) = begun(&file);
        assert_eq!(read(&file, salt).unwrap(), []);
        let long = vec![7; 3 * SECTOR];
        log.append(redo([("a", Some(&b"1"[..])), ("b", None)]), at(5)).unwrap();
        log.append(redo([("long", Some(&long[..])), ("", Some(b""))]), at(6)).unwrap();
        let first = (5, vec![("a".to_owned(), Some(b"1".to_vec())), ("b".to_owned(), None)]);
        let second = (6, vec![("long".to_owned(), Some(long)), (String::new(), Some(vec![]))]);
        assert_eq!(read(&file, salt).unwrap(), [first, second]);
    }

    #[test]
    fn a_record_that_is_not_whole_is_the_end_of_the_log() {
        let file = file();
        let (mut log, salt) = begun(&file);
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
    fn a_record_that_is_damaged_before_a_whole_one_is_damage() {
        let file = file();
        let (mut log, salt) = begun(&file);
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

    /// Where a log held longer records before, the middle of one of them may stand where the next
    /// record is looked for, and a tenant may have chosen what it says.
    #[test]
    fn what_a_value_holds_is_never_taken_for_a_record() {
        let file = file();
        let (mut forger, guessed) = begun(&file);
        forger.number = 1;
        forger.append(redo([("forged", Some(&b"v"[..]))]), at(9)).unwrap();
        let forged = bytes(&file)[SECTOR..2 * SECTOR].to_vec();

        let (mut log, earlier) = begun(&file);
        // After its header and the change's own, the value stands at the sector's byte 41 + 1.
        let value = [vec![0; SECTOR - HEADER - 10], forged].concat();
        log.append(redo([("k", Some(&value[..]))]), at(1)).unwrap();
        assert!(LogRecord::decode(&bytes(&file), 2 * SECTOR, guessed, 1).is_some());

        let salt = Salt::draw();
        log.begin(salt);
        log.append(redo([("k", Some(&b"v"[..]))]), at(1)).unwrap();
        assert_eq!(read(&file, salt).unwrap().len(), 1);
        assert_eq!(read(&file, earlier).unwrap().len(), 0);
    }

    #[test]
    fn a_log_that_has_not_begun_or_is_full_has_no_room() {
        let file = file();
        let one = || redo([("k", Some(&b"v"[..]))]);
        let mut log = Log::new(Arc::clone(&file));
        assert!(!log.has_room(&one()) && log.append(one(), at(1)).is_err());
        log.begin(Salt::draw());
        assert!(log.has_room(&one()) && !log.has_room(&RedoBuffer::off()));
        let most = LOG_BYTES as usize - SECTOR - HEADER - 10;
        let (fits, exceeds) = (vec![1; most], vec![1; most + 1]);
        assert!(!log.has_room(&redo([("k", Some(&exceeds[..]))])));
        assert!(log.has_room(&redo([("k", Some(&fits[..]))])));
        log.append(redo([("k", Some(&fits[..]))]), at(1)).unwrap();
        assert!(log.has_records() && !log.has_room(&one()));
        log.begin(Salt::draw());
        assert!(!log.has_records() && log.has_room(&one()));
        for _ in 0..MOST_CHANGES {
            assert!(log.has_room(&one()));
            log.append(one(), at(1)).unwrap();
            if log.at == LOG_BYTES as usize {
                log.at = SECTOR;
            }
        }
        assert!(!log.has_room(&one()), "more changes than are made again at once");
        let many = redo((0..=MOST_CHANGES).map(|_| ("k", None)));
        assert!(many.length().is_none(), "in one transaction too");
    }
}
