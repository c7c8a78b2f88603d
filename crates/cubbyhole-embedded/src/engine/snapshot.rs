//! Reads within one snapshot of the tables.

mod ahead;
mod pages;
mod verify;

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use cubbyhole_core::{
    Bytes, Entry, EntryMeta, EntryStat, ExecutionContext, Namespace, NamespacePrefix, Result,
    TenantId, Timestamp, Usage,
};
use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTableMetadata};

use super::format::{
    self, ENTRIES, EXPIRY, EntryRecord, META, META_FORMAT, StoredValue, VALUES, location,
    past_namespace, prefix_ranges,
};
use super::long_values::read_separate;
use crate::error::Failure;
use crate::storage::ReadLatency;

/// The budget of a read on a thread of the async runtime. A read that exceeds it restarts in the
/// blocking pool.
const INLINE_STEPS: u64 = 512;
const INLINE_BYTES: u64 = 256 * 1024;
/// The number of steps between two checks of the context.
const STEPS_PER_CHECK: u64 = 64;

/// One committed state of the store, judged at one instant and read on one thread.
pub(crate) struct Snapshot<'s> {
    transaction: ReadTransaction,
    entries: ReadOnlyTable<&'static [u8], &'static [u8]>,
    now: Timestamp,
    mode: ReadMode<'s>,
    steps: Cell<u64>,
    bytes: Cell<u64>,
    /// Set when an entry is hidden because it has expired.
    saw_expired: &'s AtomicBool,
}

/// Where a read runs.
#[derive(Clone, Copy)]
pub(crate) enum ReadMode<'s> {
    /// On a thread of the async runtime: within the budget, and only while reads do not wait for
    /// the disk.
    Inline(&'s ExecutionContext, &'s ReadLatency),
    /// On a thread that may block, until the context ends.
    Blocking(&'s ExecutionContext),
}

impl<'s> Snapshot<'s> {
    pub(crate) fn open(
        database: &Database,
        now: impl FnOnce() -> Timestamp,
        mode: ReadMode<'s>,
        saw_expired: &'s AtomicBool,
    ) -> Result<Self, Failure> {
        let transaction = database.begin_read()?;
        let entries = transaction.open_table(ENTRIES)?;
        // The clock is read after the snapshot is taken, so no entry is judged by an instant before
        // its write.
        let now = now();
        Ok(Self {
            transaction,
            entries,
            now,
            mode,
            steps: Cell::new(0),
            bytes: Cell::new(0),
            saw_expired,
        })
    }

    /// The instant at which the snapshot judges expiry.
    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    pub(crate) fn get(&self, ns: &Namespace, key: &str) -> Result<Option<Entry<Bytes>>, Failure> {
        let location = location(ns, key);
        self.step(0)?;
        let Some(guard) = self.entries.get(location.as_slice())? else { return Ok(None) };
        let record = format::decode(guard.value())?;
        if !self.is_live(&record.meta) {
            return Ok(None);
        }
        let value = self.value(&location, &record)?;
        Ok(Some(Entry { value, meta: record.meta }))
    }

    pub(crate) fn list(&self, ns: &Namespace, prefix: &str) -> Result<Vec<String>, Failure> {
        let mut keys = Vec::new();
        let start = location(ns, prefix);
        for item in self.entries.range(start.as_slice()..)? {
            let (location, record) = item?;
            if !location.value().starts_with(&start) {
                break;
            }
            self.step(0)?;
            if self.is_listed(record.value()) {
                keys.push(format::split_location(location.value())?.1.to_owned());
            }
        }
        Ok(keys)
    }

    /// Returns the metadata of an entry and the length of its value, which is not read.
    pub(crate) fn stat(&self, ns: &Namespace, key: &str) -> Result<Option<EntryStat>, Failure> {
        self.step(0)?;
        let Some(guard) = self.entries.get(location(ns, key).as_slice())? else { return Ok(None) };
        let EntryRecord { meta, value } = format::decode(guard.value())?;
        let stat = EntryStat { meta, value_bytes: Some(value.len()) };
        Ok(self.is_live(&meta).then_some(stat))
    }

    /// Returns up to `limit` namespaces with live entries under `prefix` and after `after`, and
    /// whether there are more.
    pub(crate) fn namespaces(
        &self,
        prefix: &NamespacePrefix,
        after: Option<&Namespace>,
        limit: usize,
    ) -> Result<(Vec<Namespace>, bool), Failure> {
        let mut found = Vec::new();
        for (mut start, end) in prefix_ranges(prefix) {
            if let Some(after) = after {
                start = start.max(past_namespace(after.as_str()));
            }
            while start < end {
                let Some(ns) = self.next_live(&start, &end)? else { break };
                if found.len() == limit {
                    return Ok((found, true));
                }
                start = past_namespace(ns.as_str());
                found.push(ns);
            }
        }
        Ok((found, false))
    }

    /// Returns up to `limit` tenants with live entries after `after`, and whether there are more.
    pub(crate) fn tenants(
        &self,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<(Vec<TenantId>, bool), Failure> {
        let mut found: Vec<TenantId> = Vec::new();
        let mut last = after.cloned();
        while let Some(tenant) = self.next_tenant(last.as_ref())? {
            if self.has_live(&tenant)? {
                if found.len() == limit {
                    return Ok((found, true));
                }
                found.push(tenant.clone());
            }
            last = Some(tenant);
        }
        Ok((found, false))
    }

    pub(crate) fn usage(&self, prefix: &NamespacePrefix) -> Result<Usage, Failure> {
        let mut usage = Usage::default();
        let mut bytes = 0;
        let mut last_live: Vec<u8> = Vec::new();
        for (start, end) in prefix_ranges(prefix) {
            for item in self.entries.range(start.as_slice()..end.as_slice())? {
                let (location, record) = item?;
                self.step(0)?;
                if !self.is_listed(record.value()) {
                    usage.expired += 1;
                    continue;
                }
                let (ns, key) = format::split_location(location.value())?;
                let length = format::decode(record.value()).map_or(0, |record| record.value.len());
                usage.entries += 1;
                bytes += key.len() as u64 + length;
                if last_live != ns.as_bytes() {
                    usage.namespaces += 1;
                    last_live = ns.as_bytes().to_vec();
                }
            }
        }
        usage.bytes = Some(bytes);
        Ok(usage)
    }

    /// The format version of the file.
    pub(crate) fn format(&self) -> Result<u32, Failure> {
        let meta = self.transaction.open_table(META)?;
        let stored = meta.get(META_FORMAT)?;
        Ok(format::format_number(stored.as_ref().map(redb::AccessGuard::value))?)
    }

    /// Whether the expiry index contains an expired entry.
    pub(crate) fn has_expired(&self) -> Result<bool, Failure> {
        let expiry = self.transaction.open_table(EXPIRY)?;
        let end = (self.now.as_millis() + 1).to_be_bytes();
        let first = expiry.range(..end.as_slice())?.next().transpose()?;
        Ok(first.is_some())
    }

    /// Returns the number of entries, expired ones included, and the number of expired ones.
    pub(crate) fn counts(&self) -> Result<(u64, u64), Failure> {
        let expiry = self.transaction.open_table(EXPIRY)?;
        let end = (self.now.as_millis() + 1).to_be_bytes();
        let mut expired = 0;
        for item in expiry.range(..end.as_slice())? {
            item?;
            self.step(0)?;
            expired += 1;
        }
        Ok((self.entries.len()?, expired))
    }

    /// Counts one step and `bytes` bytes. Fails if the context has ended or the budget is exceeded.
    fn step(&self, bytes: u64) -> Result<(), Failure> {
        self.steps.set(self.steps.get() + 1);
        self.bytes.set(self.bytes.get() + bytes);
        let (ReadMode::Inline(ctx, _) | ReadMode::Blocking(ctx)) = self.mode;
        if self.steps.get().is_multiple_of(STEPS_PER_CHECK) {
            ctx.check()?;
        }
        if let ReadMode::Inline(_, latency) = self.mode {
            let spent = self.steps.get() > INLINE_STEPS || self.bytes.get() > INLINE_BYTES;
            if spent || !latency.is_low() {
                return Err(Failure::OverBudget);
            }
        }
        Ok(())
    }

    fn value(&self, location: &[u8], record: &EntryRecord<'_>) -> Result<Bytes, Failure> {
        match record.value {
            StoredValue::Inline(bytes) => Ok(Bytes::copy_from_slice(bytes)),
            StoredValue::Separate(length) => {
                self.step(length)?;
                read_separate(&self.transaction.open_table(VALUES)?, location, length)
            }
        }
    }

    fn is_live(&self, meta: &EntryMeta) -> bool {
        let live = meta.is_live(self.now);
        if !live {
            self.saw_expired.store(true, Ordering::Relaxed);
        }
        live
    }

    /// Whether listings include the record. They include damaged ones, which exist until they are
    /// deleted.
    fn is_listed(&self, record: &[u8]) -> bool {
        format::decode(record).map_or(true, |record| self.is_live(&record.meta))
    }

    /// The first namespace with a live entry between two locations.
    fn next_live(&self, start: &[u8], end: &[u8]) -> Result<Option<Namespace>, Failure> {
        for item in self.entries.range(start..end)? {
            let (location, record) = item?;
            self.step(0)?;
            if self.is_listed(record.value()) {
                let (ns, _) = format::split_location(location.value())?;
                return Ok(Some(format::namespace(ns)?));
            }
        }
        Ok(None)
    }

    /// The next tenant in order, with or without live entries.
    ///
    /// The locations of a tenant `t` start with `t` NUL or with `t:`, and those of tenants such as
    /// `t-b` sort between the two. So the next location belongs to the next tenant, with one
    /// exception: a tenant whose name is a prefix of that one and whose locations all start with
    /// `t:` has its locations later.
    fn next_tenant(&self, after: Option<&TenantId>) -> Result<Option<TenantId>, Failure> {
        let mut start =
            after.map(|tenant| past_namespace(tenant.as_rendered())).unwrap_or_default();
        loop {
            self.step(0)?;
            let Some(item) = self.entries.range(start.as_slice()..)?.next() else {
                return Ok(None);
            };
            let (location, _) = item?;
            let (ns, _) = format::split_location(location.value())?;
            let tenant = format::namespace(ns)?.tenant();
            if after.is_some_and(|after| tenant <= *after) {
                // A location under `t:` of a tenant that was returned earlier: skip all of them.
                start = format!("{};", tenant.as_rendered()).into_bytes();
                continue;
            }
            return match self.shorter_tenant(tenant.as_rendered(), after)? {
                Some(shorter) => Ok(Some(shorter)),
                None => Ok(Some(tenant)),
            };
        }
    }

    /// The shortest proper prefix of `tenant` that is a tenant with entries and sorts after
    /// `after`.
    fn shorter_tenant(
        &self,
        tenant: &str,
        after: Option<&TenantId>,
    ) -> Result<Option<TenantId>, Failure> {
        for (at, byte) in tenant.bytes().enumerate().skip(1) {
            // If the next byte is not below `:`, the locations of the shorter tenant come before
            // this tenant's and were found already. A byte below `:` is a whole character, so the
            // text can be split before it.
            if byte >= b':' {
                continue;
            }
            let prefix = &tenant[..at];
            if after.is_some_and(|after| prefix <= after.as_rendered()) {
                continue;
            }
            // A prefix that ends within an escape sequence is not a valid name.
            let Ok(shorter) = Namespace::parse(prefix) else { continue };
            self.step(0)?;
            let (start, end) = (format!("{prefix}:"), format!("{prefix};"));
            if self.entries.range(start.as_bytes()..end.as_bytes())?.next().is_some() {
                return Ok(Some(shorter.tenant()));
            }
        }
        Ok(None)
    }

    fn has_live(&self, tenant: &TenantId) -> Result<bool, Failure> {
        for (start, end) in prefix_ranges(&tenant.clone().into()) {
            if self.next_live(&start, &end)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use cubbyhole_core::{Condition, ErrorKind, Expiry, ScanOptions, Version};
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::engine::Tables;
    use crate::engine::format::MAX_INLINE_BYTES;
    use crate::wal::RedoBuffer;

    /// A page may contain damaged values. The end of the context must not be mistaken for one.
    #[test]
    fn scan_fails_when_the_context_ends_within_a_page() {
        let database = redb::Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        let ns = Namespace::parse("a").unwrap();
        let long = Bytes::from(vec![7; MAX_INLINE_BYTES + 1]);
        let transaction = database.begin_write().unwrap();
        let mut tables =
            Tables::open(&transaction, Timestamp::EPOCH, RedoBuffer::disabled()).unwrap();
        for n in 0..3 * STEPS_PER_CHECK {
            let (version, always) = (Version::draw(), Condition::Always);
            tables.put(&ns, &n.to_string(), &long, version, Expiry::Never, always).unwrap();
        }
        drop(tables);
        transaction.commit().unwrap();

        let ctx = ExecutionContext::new();
        let saw_expired = AtomicBool::new(false);
        let now = || Timestamp::EPOCH;
        let snapshot =
            Snapshot::open(&database, now, ReadMode::Blocking(&ctx), &saw_expired).unwrap();
        let options = ScanOptions::new().with_limit(1000);
        let page = snapshot.scan(&ns, &options).unwrap();
        assert!(page.items.iter().all(|item| matches!(item.value, Some(Ok(_)))));
        ctx.cancel();
        let ended = snapshot.scan(&ns, &options);
        assert!(
            matches!(ended, Err(Failure::Refused(error)) if error.kind() == ErrorKind::Cancelled)
        );
    }
}
