//! Bare redb, the engine of the embedded store: one table with the key namespace, NUL and key, and
//! the plain value. It has no versions, no expiry and no checksums of the blocks that it reads.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, TableDefinition};

use super::group_commit::{GroupCommit, Write};
use crate::Result;
use crate::candidate::Candidate;
use crate::data::{EntryId, KEYS, Names, Value, Values};
use crate::workload::{Ability, BATCH};

const ENTRIES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("entries");
/// The number of entries per transaction while the file is filled.
const FILL_BATCH: usize = 100_000;

/// Commits one transaction for each write, or one for all queued writes.
pub struct RawRedb {
    database: Arc<Database>,
    names: Arc<Names>,
    group_commit: Option<GroupCommit>,
}

/// Creates and fills a file. The cache has the default size of the embedded store.
pub fn filled(path: &Path, names: &Names, values: &Values) -> Result<Arc<Database>> {
    let database = redb::Builder::new()
        .set_cache_size(cubbyhole::embedded::DEFAULT_CACHE_BYTES)
        .create(path)?;
    for first in (0..names.entries()).step_by(FILL_BATCH) {
        let transaction = database.begin_write()?;
        {
            let mut table = transaction.open_table(ENTRIES)?;
            for index in first..names.entries().min(first + FILL_BATCH) {
                let location = names.location(EntryId::nth(index));
                table.insert(location.as_bytes(), &*values.nth(index).json)?;
            }
        }
        transaction.commit()?;
    }
    Ok(Arc::new(database))
}

impl RawRedb {
    pub fn new(database: &Arc<Database>, names: &Arc<Names>) -> Self {
        Self { database: Arc::clone(database), names: Arc::clone(names), group_commit: None }
    }

    /// Returns another handle to the same file, with group commit.
    pub fn with_group_commit(&self) -> Self {
        let database = Arc::clone(&self.database);
        let group_commit = GroupCommit::start(move |writes| commit(&database, writes));
        Self { group_commit: Some(group_commit), ..Self::new(&self.database, &self.names) }
    }

    async fn write(&self, writes: Vec<Write>) -> Result<()> {
        match &self.group_commit {
            Some(group_commit) => group_commit.write(writes).await,
            None => commit(&self.database, &writes),
        }
    }

    fn write_of(&self, id: EntryId, value: &Value) -> Write {
        let (ns, key) = self.names.rendered(id);
        (ns.to_owned(), key.to_owned(), value.json.clone())
    }
}

fn commit(database: &Database, writes: &[Write]) -> Result<()> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(ENTRIES)?;
        for (ns, key, value) in writes {
            table.insert([ns, "\0", key].concat().as_bytes(), &**value)?;
        }
    }
    Ok(transaction.commit()?)
}

impl Candidate for RawRedb {
    const ABILITIES: &'static [Ability] = &[
        Ability::Get,
        Ability::Put,
        Ability::List,
        Ability::ListGroup,
        Ability::Page,
        Ability::Batch,
    ];

    async fn get(&self, id: EntryId) -> Result<Option<usize>> {
        let table = self.database.begin_read()?.open_table(ENTRIES)?;
        let found = self.names.with_location(id, |location| table.get(location.as_bytes()))?;
        // Copied, because a caller needs an owned value.
        Ok(found.map(|value| cubbyhole::Bytes::copy_from_slice(value.value()).len()))
    }

    async fn put(&self, id: EntryId, value: &Value) -> Result<()> {
        self.write(vec![self.write_of(id, value)]).await
    }

    async fn list(&self, namespace: usize) -> Result<usize> {
        let table = self.database.begin_read()?.open_table(ENTRIES)?;
        let ns = self.names.namespaces[namespace].as_str();
        let (from, to) = (format!("{ns}\0"), format!("{ns}\u{1}"));
        let mut keys = Vec::new();
        for entry in table.range(from.as_bytes()..to.as_bytes())? {
            let key = entry?.0;
            keys.push(std::str::from_utf8(&key.value()[from.len()..])?.to_owned());
        }
        Ok(keys.len())
    }

    async fn list_group(&self, group: usize) -> Result<usize> {
        let table = self.database.begin_read()?.open_table(ENTRIES)?;
        let group = self.names.groups[group].as_str();
        let (mut from, to) = (format!("{group}:"), format!("{group};"));
        let mut namespaces = Vec::new();
        // Skips from one namespace to the next with one tree search each, without reading all
        // entries.
        while let Some(entry) = table.range(from.as_bytes()..to.as_bytes())?.next() {
            let location = entry?.0;
            let location = std::str::from_utf8(location.value())?;
            let ns = location.split_once('\0').ok_or("a location has no NUL")?.0.to_owned();
            from = format!("{ns}\u{1}");
            namespaces.push(ns);
        }
        Ok(namespaces.len())
    }

    async fn page(&self, from: EntryId, limit: usize) -> Result<usize> {
        let table = self.database.begin_read()?.open_table(ENTRIES)?;
        let (ns, _) = self.names.rendered(from);
        let (from, to) = (self.names.location(from), format!("{ns}\u{1}"));
        let mut entries = Vec::with_capacity(KEYS);
        for entry in table.range(from.as_bytes()..to.as_bytes())?.take(limit) {
            let (key, value) = entry?;
            let key = std::str::from_utf8(&key.value()[ns.len() + 1..])?.to_owned();
            entries.push((key, cubbyhole::Bytes::copy_from_slice(value.value())));
        }
        Ok(entries.len())
    }

    async fn batch(&self, namespace: usize, values: [&Value; BATCH]) -> Result<()> {
        let ids = (0..).map(|key| EntryId { namespace, key });
        let writes = ids.zip(values).map(|(id, value)| self.write_of(id, value));
        self.write(writes.collect()).await
    }
}
