//! Changes of the tables within the writer's transaction.

use std::cell::Cell;

use cubbyhole_core::{
    Batch, Bytes, Condition, Entry, EntryMeta, Erased, Expiry, GetOptions, Namespace,
    NamespacePrefix, Operation, Result, Timestamp, Version,
};
use redb::{ReadableTable, Table, WriteTransaction};

use crate::error::Failure;
use crate::format::{
    self, ENTRIES, EXPIRY, MAX_INLINE_BYTES, META, META_CLOCK, Record, VALUES, Value, location,
};
use crate::snapshot::prefix_ranges;

/// The open tables of one transaction, at one instant.
pub(crate) struct Tables<'t> {
    entries: Table<'t, &'static [u8], &'static [u8]>,
    values: Table<'t, &'static [u8], &'static [u8]>,
    expiry: Table<'t, &'static [u8], ()>,
    meta: Table<'t, &'static str, &'static [u8]>,
    now: Timestamp,
    changed: bool,
    witnessed: Cell<bool>,
}

impl<'t> Tables<'t> {
    pub(crate) fn open(transaction: &'t WriteTransaction, now: Timestamp) -> Result<Self, Failure> {
        Ok(Self {
            entries: transaction.open_table(ENTRIES)?,
            values: transaction.open_table(VALUES)?,
            expiry: transaction.open_table(EXPIRY)?,
            meta: transaction.open_table(META)?,
            now,
            changed: false,
            witnessed: Cell::new(false),
        })
    }

    /// Whether anything was changed, so that the transaction must be committed.
    pub(crate) fn changed(&self) -> bool {
        self.changed
    }

    /// Whether an entry was taken for absent because it has expired.
    pub(crate) fn witnessed(&self) -> bool {
        self.witnessed.get()
    }

    /// Keeps the high-water mark of the clock with what was judged by it.
    pub(crate) fn set_clock_mark(&mut self) -> Result<(), Failure> {
        let mark = self.now.as_millis().to_le_bytes();
        self.changed = true;
        self.meta.insert(META_CLOCK, mark.as_slice())?;
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
        let expires_at = expiry.resolve(self.now)?;
        let location = location(ns, key);
        let old = self.meta_of(&location)?;
        condition.check(self.live_version(old))?;
        self.store(&location, old, value, version, expires_at)?;
        Ok(version)
    }

    /// Removes an entry; answers whether a live one was there.
    pub(crate) fn delete(
        &mut self,
        ns: &Namespace,
        key: &str,
        condition: Condition,
    ) -> Result<bool, Failure> {
        let location = location(ns, key);
        let version = self.live_version(self.meta_of(&location)?);
        condition.check(version)?;
        self.remove(&location)?;
        Ok(version.is_some())
    }

    pub(crate) fn write(
        &mut self,
        ns: &Namespace,
        batch: &Batch<Bytes>,
    ) -> Result<Vec<Option<Version>>, Failure> {
        // Everything that can refuse the batch comes before the first change.
        let mut plan = Vec::with_capacity(batch.len());
        for (index, operation) in batch.operations().iter().enumerate() {
            let location = location(ns, operation.key());
            let old = self.meta_of(&location)?;
            operation
                .condition()
                .check(self.live_version(old))
                .map_err(|error| error.at_batch_index(index))?;
            let expires_at = match operation {
                Operation::Put { options, .. } => options.expiry().resolve(self.now)?,
                Operation::Delete { .. } => None,
            };
            plan.push((location, old, expires_at, operation));
        }
        let mut versions = Vec::with_capacity(batch.len());
        for (location, old, expires_at, operation) in plan {
            versions.push(match operation {
                Operation::Put { value, options, .. } => {
                    let version = options.version_or_draw();
                    self.store(&location, old, value, version, expires_at)?;
                    Some(version)
                }
                Operation::Delete { .. } => {
                    self.remove(&location)?;
                    None
                }
            });
        }
        Ok(versions)
    }

    /// Sets the expiry of a live entry; answers whether there was one.
    pub(crate) fn touch(
        &mut self,
        ns: &Namespace,
        key: &str,
        expiry: Expiry,
    ) -> Result<bool, Failure> {
        let expires_at = expiry.resolve(self.now)?;
        let location = location(ns, key);
        let live = self.meta_of(&location)?.is_some_and(|meta| self.is_live(&meta));
        if live {
            self.set_expiry(&location, expires_at)?;
        }
        Ok(live)
    }

    /// Reads an entry and extends its TTL.
    pub(crate) fn get_and_extend(
        &mut self,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<Bytes>>, Failure> {
        let location = location(ns, key);
        let Some(mut entry) = self.live_entry(&location)? else { return Ok(None) };
        if let Some(extended) = options.extend(self.now, entry.meta.expires_at)? {
            self.set_expiry(&location, Some(extended))?;
            entry.meta.expires_at = Some(extended);
        }
        Ok(Some(entry))
    }

    pub(crate) fn take(
        &mut self,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Entry<Bytes>>, Failure> {
        let location = location(ns, key);
        let entry = self.live_entry(&location)?;
        if entry.is_some() {
            self.remove(&location)?;
        }
        Ok(entry)
    }

    /// Removes at most `limit` entries under `prefix`.
    pub(crate) fn erase(
        &mut self,
        prefix: &NamespacePrefix,
        limit: usize,
    ) -> Result<Erased, Failure> {
        let mut doomed: Vec<(Vec<u8>, bool)> = Vec::new();
        let mut done = true;
        'ranges: for (start, end) in prefix_ranges(prefix) {
            for item in self.entries.range(start.as_slice()..end.as_slice())? {
                let (location, record) = item?;
                if doomed.len() == limit {
                    done = false;
                    break 'ranges;
                }
                // A damaged entry is erased like any other, and counted: it was there.
                let live = format::decode(record.value())
                    .map_or(true, |record| record.meta.is_live(self.now));
                doomed.push((location.value().to_vec(), live));
            }
        }
        for (location, _) in &doomed {
            self.remove(location)?;
        }
        let removed = doomed.iter().filter(|(_, live)| *live).count() as u64;
        Ok(Erased { removed, done })
    }

    /// Removes at most `limit` expired entries. An entry is removed only if it still expires at
    /// the instant that the index says.
    pub(crate) fn evict(&mut self, limit: usize) -> Result<usize, Failure> {
        let end = (self.now.as_millis() + 1).to_be_bytes();
        let mut due = Vec::new();
        for item in self.expiry.range(..end.as_slice())?.take(limit) {
            due.push(item?.0.value().to_vec());
        }
        let mut removed = 0;
        for key in due {
            let (instant, location) = format::split_expiry_key(&key)?;
            let expired = self
                .meta_of(location)?
                .is_some_and(|meta| meta.expires_at == Some(instant) && !meta.is_live(self.now));
            if expired {
                self.remove(location)?;
                removed += 1;
            } else {
                self.changed = true;
                self.expiry.remove(key.as_slice())?;
            }
        }
        Ok(removed)
    }

    /// What stands there, expired or not. An entry that cannot be read counts as none here: it can
    /// be written over and deleted.
    fn meta_of(&self, location: &[u8]) -> Result<Option<EntryMeta>, Failure> {
        let record = self.entries.get(location)?;
        Ok(record.and_then(|record| format::decode(record.value()).ok().map(|record| record.meta)))
    }

    fn is_live(&self, meta: &EntryMeta) -> bool {
        let live = meta.is_live(self.now);
        self.witnessed.set(self.witnessed.get() || !live);
        live
    }

    fn live_version(&self, meta: Option<EntryMeta>) -> Option<Version> {
        meta.filter(|meta| self.is_live(meta)).map(|meta| meta.version)
    }

    fn live_entry(&self, location: &[u8]) -> Result<Option<Entry<Bytes>>, Failure> {
        let Some(guard) = self.entries.get(location)? else { return Ok(None) };
        let record = format::decode(guard.value())?;
        if !self.is_live(&record.meta) {
            return Ok(None);
        }
        let value = match record.value {
            Value::Inline(bytes) => Bytes::copy_from_slice(bytes),
            Value::Separate(length) => read_separate(&self.values, location, length)?,
        };
        Ok(Some(Entry { value, meta: record.meta }))
    }

    fn store(
        &mut self,
        location: &[u8],
        old: Option<EntryMeta>,
        value: &Bytes,
        version: Version,
        expires_at: Option<Timestamp>,
    ) -> Result<(), Failure> {
        self.changed = true;
        let now = self.now;
        let created_at = old.filter(|meta| meta.is_live(now)).map_or(now, |meta| meta.created_at);
        let meta = EntryMeta { version, created_at, updated_at: now, expires_at };
        let form = if value.len() > MAX_INLINE_BYTES {
            self.values.insert(location, value.as_ref())?;
            Value::Separate(value.len() as u64)
        } else {
            Value::Inline(value)
        };
        let record = format::encode(&meta, form);
        let replaced = self.entries.insert(location, record.as_slice())?;
        let was_separate = replaced.is_some_and(|record| is_separate(record.value()));
        if was_separate && matches!(form, Value::Inline(_)) {
            self.values.remove(location)?;
        }
        self.reindex(location, old.and_then(|meta| meta.expires_at), expires_at)
    }

    fn remove(&mut self, location: &[u8]) -> Result<(), Failure> {
        let (separate, expires_at) = match self.entries.remove(location)? {
            None => return Ok(()),
            Some(record) => match format::decode(record.value()) {
                Ok(record) => (matches!(record.value, Value::Separate(_)), record.meta.expires_at),
                // Nothing is known of a damaged entry; its value goes if there is one.
                Err(_) => (true, None),
            },
        };
        self.changed = true;
        if separate {
            self.values.remove(location)?;
        }
        self.reindex(location, expires_at, None)
    }

    fn set_expiry(
        &mut self,
        location: &[u8],
        expires_at: Option<Timestamp>,
    ) -> Result<(), Failure> {
        let (old, record) = {
            let Some(guard) = self.entries.get(location)? else { return Ok(()) };
            let Record { meta, value } = format::decode(guard.value())?;
            (meta.expires_at, format::encode(&EntryMeta { expires_at, ..meta }, value))
        };
        if old == expires_at {
            return Ok(());
        }
        self.changed = true;
        self.entries.insert(location, record.as_slice())?;
        self.reindex(location, old, expires_at)
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
            self.expiry.remove(format::expiry_key(instant, location).as_slice())?;
        }
        if let Some(instant) = new {
            self.expiry.insert(format::expiry_key(instant, location).as_slice(), ())?;
        }
        Ok(())
    }
}

fn is_separate(record: &[u8]) -> bool {
    format::decode(record).is_ok_and(|record| matches!(record.value, Value::Separate(_)))
}

/// Reads a value that stands apart from its record.
pub(crate) fn read_separate(
    values: &impl ReadableTable<&'static [u8], &'static [u8]>,
    location: &[u8],
    length: u64,
) -> Result<Bytes, Failure> {
    let damaged = || {
        cubbyhole_core::Error::corrupt(
            "a value of the file is damaged; write it again or delete it",
        )
    };
    let value = values.get(location)?.ok_or_else(damaged)?;
    if value.value().len() as u64 != length {
        return Err(damaged().into());
    }
    Ok(Bytes::copy_from_slice(value.value()))
}
