//! Extends the expiry of entries that a read returned.

use cubbyhole_core::{EntryMeta, GetOptions};

use super::{Lifetime, Tables};
use crate::error::Failure;

/// An entry that a read returned and whose expiry it is about to extend.
pub(crate) struct ReadEntry {
    pub(crate) location: Vec<u8>,
    pub(crate) meta: EntryMeta,
}

impl Tables<'_> {
    /// Extends the expiry of entries that were read from an earlier snapshot. Returns the metadata
    /// that the read returns for each entry, or `None` for one that has expired since.
    ///
    /// The content of the read remains that of its snapshot. An entry that was replaced or removed
    /// since is not changed: the result is as if the read had extended the entry just before that.
    pub(crate) fn extend(
        &mut self,
        read: Vec<ReadEntry>,
        options: GetOptions,
    ) -> Result<Vec<Option<EntryMeta>>, Failure> {
        let mut results = Vec::with_capacity(read.len());
        for ReadEntry { location, meta: read } in read {
            let found = self.find(&location)?.and_then(|found| found.meta);
            let is_same = found.is_some_and(|found| found.version == read.version);
            let (mut meta, until) = match found {
                Some(found) if is_same => (found, self.now),
                // Since this instant the key was never absent. If the entry was live then, it was
                // replaced or removed before it expired.
                Some(found) => (read, found.created_at),
                None => (read, self.now),
            };
            if !meta.is_live(until) {
                self.saw_expired.set(true);
                results.push(None);
                continue;
            }
            if let Some(expires_at) = options.extend(self.now, &meta)? {
                meta.expires_at = Some(expires_at);
                if is_same {
                    self.set_lifetime(&location, Lifetime::of(&meta))?;
                }
            }
            results.push(Some(meta));
        }
        Ok(results)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cubbyhole_core::{Batch, Bytes, Condition, Expiry, Namespace, Timestamp, Version};
    use redb::Database;
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::engine::format::{FORMAT, META, META_FORMAT, location};
    use crate::wal::RedoBuffer;

    const TTL: Duration = Duration::from_millis(100);

    fn ns() -> Namespace {
        Namespace::parse("a").unwrap()
    }

    fn instant(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis).unwrap()
    }

    fn put(tables: &mut Tables<'_>, expiry: Expiry, condition: Condition) {
        let value = Bytes::from_static(b"v");
        tables.put(&ns(), "k", &value, Version::draw(), expiry, condition).unwrap();
    }

    fn delete(tables: &mut Tables<'_>) {
        assert!(tables.delete(&ns(), "k", Condition::Always).unwrap());
    }

    fn current(tables: &Tables<'_>) -> Option<EntryMeta> {
        tables.find(&location(&ns(), "k")).unwrap().map(|found| found.meta.unwrap())
    }

    fn extend(tables: &mut Tables<'_>, meta: EntryMeta) -> Option<EntryMeta> {
        let read = vec![ReadEntry { location: location(&ns(), "k"), meta }];
        let results = tables.extend(read, GetOptions::new().refreshing()).unwrap();
        results[0]
    }

    /// Runs each step in a transaction at its instant.
    struct Store(Database);

    impl Store {
        /// A store with an entry that has an idle TTL and was written at 0, and its metadata.
        fn with_idle_entry() -> (Self, EntryMeta) {
            let database = redb::Builder::new().create_with_backend(InMemoryBackend::new());
            let store = Self(database.unwrap());
            let transaction = store.0.begin_write().unwrap();
            let format = FORMAT.to_le_bytes();
            transaction.open_table(META).unwrap().insert(META_FORMAT, format.as_slice()).unwrap();
            transaction.commit().unwrap();
            let read = store.at(0, |tables| {
                put(tables, Expiry::Idle(TTL), Condition::Always);
                current(tables).unwrap()
            });
            (store, read)
        }

        fn at<T>(&self, millis: u64, step: impl FnOnce(&mut Tables<'_>) -> T) -> T {
            let transaction = self.0.begin_write().unwrap();
            let mut tables =
                Tables::open(&transaction, instant(millis), RedoBuffer::disabled()).unwrap();
            let result = step(&mut tables);
            drop(tables);
            transaction.commit().unwrap();
            result
        }
    }

    #[test]
    fn same_version_is_extended_only_if_it_is_still_due() {
        let (store, read) = Store::with_idle_entry();
        let refreshed = store.at(50, |tables| extend(tables, read)).unwrap();
        assert_eq!(refreshed, EntryMeta { expires_at: Some(instant(150)), ..read });
        store.at(59, |tables| {
            assert_eq!(extend(tables, read), Some(refreshed), "another read came first");
            assert!(!tables.changed());
        });
        let again = store.at(60, |tables| extend(tables, read)).unwrap();
        assert_eq!(again.expires_at, Some(instant(160)));
        assert_eq!(store.at(60, |tables| current(tables)), Some(again));
    }

    #[test]
    fn touched_entry_has_the_expiry_of_the_touch() {
        let (store, read) = Store::with_idle_entry();
        store.at(50, |tables| {
            assert!(tables.touch(&ns(), "k", Expiry::Never, Condition::Always).unwrap());
        });
        let result = store.at(500, |tables| extend(tables, read)).unwrap();
        assert_eq!((result.expires_at, result.idle_ttl), (None, None));
    }

    #[test]
    fn expired_entry_is_absent_and_stays_expired() {
        let (store, read) = Store::with_idle_entry();
        store.at(100, |tables| {
            assert_eq!(extend(tables, read), None);
            assert!(tables.saw_expired() && !tables.changed());
        });
        store.at(100, |tables| assert_eq!(tables.evict(10).unwrap(), 1));
        assert_eq!(store.at(101, |tables| extend(tables, read)), None, "swept");
    }

    #[test]
    fn replaced_entry_keeps_its_new_expiry() {
        for expiry in [Expiry::Never, Expiry::After(TTL / 2), Expiry::Idle(TTL * 3)] {
            let (store, read) = Store::with_idle_entry();
            let new = store.at(50, |tables| {
                put(tables, expiry, Condition::IfPresent);
                current(tables)
            });
            // The time of the extension does not matter: the entry was live until it was replaced.
            for now in [50, 99, 100, 1_000] {
                let result = store.at(now, |tables| extend(tables, read)).unwrap();
                assert_eq!(result, EntryMeta { expires_at: Some(instant(now + 100)), ..read });
                assert_eq!(store.at(now, |tables| current(tables)), new);
            }
        }
    }

    #[test]
    fn deleted_entry_is_not_written_again() {
        let (store, read) = Store::with_idle_entry();
        store.at(50, delete);
        let result = store.at(60, |tables| extend(tables, read)).unwrap();
        assert_eq!(result.version, read.version, "as if the read had come first");
        assert_eq!(store.at(60, |tables| current(tables)), None);
        // Written again: the key was absent in between, but the entry had not expired.
        store.at(70, |tables| put(tables, Expiry::Never, Condition::IfAbsent));
        assert_eq!(store.at(80, |tables| extend(tables, read)).unwrap().version, read.version);
        assert_eq!(store.at(80, |tables| current(tables)).unwrap().expires_at, None);
    }

    /// If the read returned the entry as refreshed, this put must have been a conflict.
    #[test]
    fn entry_that_expired_and_was_written_again_is_absent() {
        let (store, read) = Store::with_idle_entry();
        let new = store.at(100, |tables| {
            put(tables, Expiry::Idle(TTL), Condition::IfAbsent);
            current(tables)
        });
        assert_eq!(store.at(100, |tables| extend(tables, read)), None);
        assert_eq!(store.at(150, |tables| extend(tables, read)), None);
        assert_eq!(store.at(150, |tables| current(tables)), new);
    }

    #[test]
    fn earlier_requests_of_the_transaction_count() {
        let (store, read) = Store::with_idle_entry();
        store.at(50, |tables| {
            let batch = Batch::new().delete("k");
            tables.write(&ns(), &batch).unwrap();
            assert_eq!(extend(tables, read).unwrap().version, read.version);
            assert_eq!(current(tables), None);
        });
    }
}
