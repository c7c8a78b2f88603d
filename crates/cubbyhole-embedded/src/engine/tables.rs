//! Changes to the tables within a write transaction.

mod extend;

use std::cell::Cell;
use std::time::Duration;

use cubbyhole_core::{
    Batch, Bytes, Condition, Entry, EntryMeta, Erased, Expiry, Namespace, NamespacePrefix,
    Operation, Result, Timestamp, Version, Written,
};
use redb::{ReadableTable, Table, WriteTransaction};

use super::format::{
    self, ENTRIES, EXPIRY, EntryRecord, FORMAT, MAX_INLINE_BYTES, META, META_CLOCK, META_FORMAT,
    META_SALT, StoredValue, VALUES, key_range, location, prefix_ranges,
};
use super::long_values::read_separate;
use crate::error::Failure;
use crate::wal::{Change, LogRecord, RedoBuffer, Salt, TableId};

pub(crate) use extend::ReadEntry;

/// The open tables of one write transaction, which judges expiry at one instant.
pub(crate) struct Tables<'t> {
    entries: Table<'t, &'static [u8], &'static [u8]>,
    values: Table<'t, &'static [u8], &'static [u8]>,
    expiry: Table<'t, &'static [u8], ()>,
    meta: Table<'t, &'static str, &'static [u8]>,
    now: Timestamp,
    redo: RedoBuffer,
    changed: bool,
    erases: bool,
    /// Whether the file has the current format. False until that is known.
    is_current_format: bool,
    upgrades_format: bool,
    saw_expired: Cell<bool>,
}

/// When an entry expires, and its idle TTL.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Lifetime {
    expires_at: Option<Timestamp>,
    idle_ttl: Option<Duration>,
}

impl Lifetime {
    fn of(meta: &EntryMeta) -> Self {
        Self { expires_at: meta.expires_at, idle_ttl: meta.idle_ttl }
    }

    /// The lifetime of an entry that is written at `now`.
    fn from(expiry: Expiry, now: Timestamp) -> Result<Self> {
        Ok(Self { expires_at: expiry.resolve(now)?, idle_ttl: expiry.idle_ttl() })
    }
}

/// The entry at a location, expired or not.
#[derive(Clone, Copy)]
struct ExistingEntry {
    /// `None` if the entry is unreadable. Such an entry counts as absent, and can be overwritten
    /// and deleted.
    meta: Option<EntryMeta>,
    /// Whether its value is, or may be, in the `values` table.
    separate: bool,
}

impl ExistingEntry {
    fn of(record: &[u8]) -> Self {
        match format::decode(record) {
            Ok(EntryRecord { meta, value }) => {
                Self { meta: Some(meta), separate: matches!(value, StoredValue::Separate(_)) }
            }
            Err(_) => Self { meta: None, separate: true },
        }
    }
}

impl<'t> Tables<'t> {
    /// Opens the tables. All changes of entries are also recorded in `redo`.
    pub(crate) fn open(
        transaction: &'t WriteTransaction,
        now: Timestamp,
        redo: RedoBuffer,
    ) -> Result<Self, Failure> {
        Ok(Self {
            entries: transaction.open_table(ENTRIES)?,
            values: transaction.open_table(VALUES)?,
            expiry: transaction.open_table(EXPIRY)?,
            meta: transaction.open_table(META)?,
            now,
            redo,
            changed: false,
            erases: false,
            is_current_format: false,
            upgrades_format: false,
            saw_expired: Cell::new(false),
        })
    }

    /// Whether the transaction changed anything and must be committed.
    pub(crate) fn changed(&self) -> bool {
        self.changed
    }

    /// Whether the transaction erases a prefix, even one without entries: bytes of entries that
    /// were deleted or overwritten earlier may still be in the file.
    pub(crate) fn erases(&self) -> bool {
        self.erases
    }

    /// Whether the transaction changes the format of the file, so it needs a checkpoint. Otherwise a
    /// file of the old format could have log records of the new one.
    pub(crate) fn upgrades_format(&self) -> bool {
        self.upgrades_format
    }

    /// Whether an entry was treated as absent because it has expired.
    pub(crate) fn saw_expired(&self) -> bool {
        self.saw_expired.get()
    }

    /// Stores the instant of this transaction as the high-water mark of the clock.
    pub(crate) fn set_clock_mark(&mut self) -> Result<(), Failure> {
        let mark = self.now.as_millis().to_le_bytes();
        self.meta.insert(META_CLOCK, mark.as_slice())?;
        Ok(())
    }

    /// Stores the salt of the log that starts after this transaction.
    pub(crate) fn set_salt(&mut self, salt: Salt) -> Result<(), Failure> {
        self.meta.insert(META_SALT, salt.to_bytes().as_slice())?;
        Ok(())
    }

    /// Gives a file of an earlier format the current one. Returns the earlier format, or `None` if
    /// the file had the current one.
    pub(crate) fn upgrade_format(&mut self) -> Result<Option<u32>, Failure> {
        if self.is_current_format {
            return Ok(None);
        }
        let format = {
            let stored = self.meta.get(META_FORMAT)?;
            format::format_number(stored.as_ref().map(redb::AccessGuard::value))?
        };
        self.is_current_format = true;
        if format >= FORMAT {
            return Ok(None);
        }
        self.meta.insert(META_FORMAT, FORMAT.to_le_bytes().as_slice())?;
        (self.changed, self.upgrades_format) = (true, true);
        Ok(Some(format))
    }

    /// The recorded changes.
    pub(crate) fn redo(&self) -> &RedoBuffer {
        &self.redo
    }

    pub(crate) fn into_redo(self) -> RedoBuffer {
        self.redo
    }

    /// Applies the changes of a log record.
    pub(crate) fn replay(&mut self, record: &LogRecord) -> Result<(), Failure> {
        for change in record.changes() {
            let Change { table, key, value } = change?;
            self.change(table, key, value)?;
        }
        Ok(())
    }

    pub(crate) fn put(
        &mut self,
        ns: &Namespace,
        key: &str,
        value: &Bytes,
        version: Version,
        expiry: Expiry,
        condition: Condition,
    ) -> Result<Version, Failure> {
        let lifetime = Lifetime::from(expiry, self.now)?;
        let location = location(ns, key);
        let old = self.find(&location)?;
        condition.check(self.live_version(old))?;
        self.store(&location, old, value, version, lifetime)?;
        Ok(version)
    }

    /// Removes an entry. Returns whether a live one existed.
    pub(crate) fn delete(
        &mut self,
        ns: &Namespace,
        key: &str,
        condition: Condition,
    ) -> Result<bool, Failure> {
        let location = location(ns, key);
        let old = self.find(&location)?;
        let version = self.live_version(old);
        condition.check(version)?;
        self.remove(&location, old)?;
        Ok(version.is_some())
    }

    pub(crate) fn write(
        &mut self,
        ns: &Namespace,
        batch: &Batch<Bytes>,
    ) -> Result<Vec<Written>, Failure> {
        // All checks come before the first change. Errors of the batch itself come before
        // conditions.
        let expiries = batch.expiries(self.now)?;
        let mut plan = Vec::with_capacity(batch.len());
        for ((index, operation), expires_at) in batch.operations().iter().enumerate().zip(expiries)
        {
            let location = location(ns, operation.key());
            let old = self.find(&location)?;
            let version = self.live_version(old);
            operation.condition().check(version).map_err(|error| error.at_batch_index(index))?;
            plan.push((location, old, version.is_some(), expires_at, operation));
        }
        let mut written = Vec::with_capacity(batch.len());
        for (location, old, was_live, expires_at, operation) in plan {
            written.push(match operation {
                Operation::Put { value, options, .. } => {
                    let version = options.version_or_draw();
                    let lifetime = Lifetime { expires_at, idle_ttl: options.expiry().idle_ttl() };
                    self.store(&location, old, value, version, lifetime)?;
                    Written::Put(version)
                }
                Operation::Delete { .. } => {
                    self.remove(&location, old)?;
                    Written::Deleted(was_live)
                }
            });
        }
        Ok(written)
    }

    /// Sets the expiry of a live entry. Returns whether there was one.
    pub(crate) fn touch(
        &mut self,
        ns: &Namespace,
        key: &str,
        expiry: Expiry,
        condition: Condition,
    ) -> Result<bool, Failure> {
        let lifetime = Lifetime::from(expiry, self.now)?;
        let location = location(ns, key);
        let version = self.live_version(self.find(&location)?);
        condition.check(version)?;
        if version.is_some() {
            self.set_lifetime(&location, lifetime)?;
        }
        Ok(version.is_some())
    }

    pub(crate) fn take(
        &mut self,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Entry<Bytes>>, Failure> {
        let location = location(ns, key);
        let entry = self.live_entry(&location)?;
        if entry.is_some() {
            let old = self.find(&location)?;
            self.remove(&location, old)?;
        }
        Ok(entry)
    }

    /// Removes up to `limit` entries under `prefix`, expired ones included.
    pub(crate) fn erase(
        &mut self,
        prefix: &NamespacePrefix,
        limit: usize,
    ) -> Result<Erased, Failure> {
        self.erases = true;
        self.remove_ranges(prefix_ranges(prefix), limit)
    }

    /// Removes up to `limit` entries of `ns` whose keys start with `key_prefix`, expired ones
    /// included.
    pub(crate) fn delete_prefix(
        &mut self,
        ns: &Namespace,
        key_prefix: &str,
        limit: usize,
    ) -> Result<Erased, Failure> {
        self.remove_ranges([key_range(ns, key_prefix)], limit)
    }

    /// Removes up to `limit` entries in ranges of locations.
    fn remove_ranges(
        &mut self,
        ranges: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
        limit: usize,
    ) -> Result<Erased, Failure> {
        let mut doomed: Vec<(Vec<u8>, ExistingEntry)> = Vec::new();
        let mut done = true;
        'ranges: for (start, end) in ranges {
            for item in self.entries.range(start.as_slice()..end.as_slice())? {
                let (location, record) = item?;
                if doomed.len() == limit {
                    done = false;
                    break 'ranges;
                }
                doomed.push((location.value().to_vec(), ExistingEntry::of(record.value())));
            }
        }
        let mut removed = 0;
        for (location, found) in doomed {
            // An unreadable entry is removed and counted like a live one.
            removed += u64::from(found.meta.is_none_or(|meta| meta.is_live(self.now)));
            self.remove(&location, Some(found))?;
        }
        Ok(Erased { removed, done })
    }

    /// Processes up to `limit` due keys of the expiry index. Removes an entry only if it expires at
    /// the instant in the index; otherwise removes the stale key. Returns the number of removed
    /// entries.
    pub(crate) fn evict(&mut self, limit: usize) -> Result<usize, Failure> {
        let end = (self.now.as_millis() + 1).to_be_bytes();
        let mut due = Vec::new();
        for item in self.expiry.range(..end.as_slice())?.take(limit) {
            due.push(item?.0.value().to_vec());
        }
        let mut removed = 0;
        for key in due {
            let (instant, location) = format::split_expiry_key(&key)?;
            let found = self.find(location)?;
            let meta = found.and_then(|found| found.meta);
            if meta.is_some_and(|meta| meta.expires_at == Some(instant) && !meta.is_live(self.now))
            {
                self.remove(location, found)?;
                removed += 1;
            } else {
                self.change(TableId::Expiry, &key, None)?;
            }
        }
        Ok(removed)
    }

    fn find(&self, location: &[u8]) -> Result<Option<ExistingEntry>, Failure> {
        let record = self.entries.get(location)?;
        Ok(record.map(|record| ExistingEntry::of(record.value())))
    }

    fn is_live(&self, meta: &EntryMeta) -> bool {
        let live = meta.is_live(self.now);
        self.saw_expired.set(self.saw_expired.get() || !live);
        live
    }

    fn live_version(&self, found: Option<ExistingEntry>) -> Option<Version> {
        found?.meta.filter(|meta| self.is_live(meta)).map(|meta| meta.version)
    }

    fn live_entry(&self, location: &[u8]) -> Result<Option<Entry<Bytes>>, Failure> {
        let Some(guard) = self.entries.get(location)? else { return Ok(None) };
        let record = format::decode(guard.value())?;
        if !self.is_live(&record.meta) {
            return Ok(None);
        }
        let value = match record.value {
            StoredValue::Inline(bytes) => Bytes::copy_from_slice(bytes),
            StoredValue::Separate(length) => read_separate(&self.values, location, length)?,
        };
        Ok(Some(Entry { value, meta: record.meta }))
    }

    fn store(
        &mut self,
        location: &[u8],
        old: Option<ExistingEntry>,
        value: &Bytes,
        version: Version,
        lifetime: Lifetime,
    ) -> Result<(), Failure> {
        let now = self.now;
        let old_meta = old.and_then(|found| found.meta);
        let created_at =
            old_meta.filter(|meta| meta.is_live(now)).map_or(now, |meta| meta.created_at);
        let Lifetime { expires_at, idle_ttl } = lifetime;
        let meta = EntryMeta { version, created_at, updated_at: now, expires_at, idle_ttl };
        let form = if value.len() > MAX_INLINE_BYTES {
            self.change(TableId::Values, location, Some(value))?;
            StoredValue::Separate(value.len() as u64)
        } else {
            if old.is_some_and(|found| found.separate) {
                self.change(TableId::Values, location, None)?;
            }
            StoredValue::Inline(value)
        };
        let record = format::encode(&meta, form);
        self.put_record(location, &meta, &record)?;
        self.reindex(location, old_meta.and_then(|meta| meta.expires_at), expires_at)
    }

    fn remove(&mut self, location: &[u8], old: Option<ExistingEntry>) -> Result<(), Failure> {
        let Some(old) = old else { return Ok(()) };
        self.change(TableId::Entries, location, None)?;
        if old.separate {
            self.change(TableId::Values, location, None)?;
        }
        self.reindex(location, old.meta.and_then(|meta| meta.expires_at), None)
    }

    fn set_lifetime(&mut self, location: &[u8], lifetime: Lifetime) -> Result<(), Failure> {
        let (old, meta, record) = {
            let Some(guard) = self.entries.get(location)? else { return Ok(()) };
            let EntryRecord { meta: old, value } = format::decode(guard.value())?;
            let Lifetime { expires_at, idle_ttl } = lifetime;
            let meta = EntryMeta { expires_at, idle_ttl, ..old };
            (old, meta, format::encode(&meta, value))
        };
        if Lifetime::of(&old) == lifetime {
            return Ok(());
        }
        self.put_record(location, &meta, &record)?;
        self.reindex(location, old.expires_at, meta.expires_at)
    }

    /// Writes the record with this metadata. A record with an idle TTL needs the current format.
    fn put_record(
        &mut self,
        location: &[u8],
        meta: &EntryMeta,
        record: &[u8],
    ) -> Result<(), Failure> {
        if meta.idle_ttl.is_some() {
            self.upgrade_format()?;
        }
        self.change(TableId::Entries, location, Some(record))
    }

    fn reindex(
        &mut self,
        location: &[u8],
        old: Option<Timestamp>,
        new: Option<Timestamp>,
    ) -> Result<(), Failure> {
        if old == new {
            return Ok(());
        }
        if let Some(instant) = old {
            self.change(TableId::Expiry, &format::expiry_key(instant, location), None)?;
        }
        if let Some(instant) = new {
            self.change(TableId::Expiry, &format::expiry_key(instant, location), Some(&[]))?;
        }
        Ok(())
    }

    /// Applies and records a change. All changes of entries go through this function, so the log is
    /// complete.
    fn change(&mut self, table: TableId, key: &[u8], value: Option<&[u8]>) -> Result<(), Failure> {
        self.changed = true;
        self.redo.push(table, key, value);
        match (table, value) {
            (TableId::Entries, Some(value)) => drop(self.entries.insert(key, value)?),
            (TableId::Entries, None) => drop(self.entries.remove(key)?),
            (TableId::Values, Some(value)) => drop(self.values.insert(key, value)?),
            (TableId::Values, None) => drop(self.values.remove(key)?),
            (TableId::Expiry, Some(_)) => drop(self.expiry.insert(key, ())?),
            (TableId::Expiry, None) => drop(self.expiry.remove(key)?),
        }
        Ok(())
    }
}
