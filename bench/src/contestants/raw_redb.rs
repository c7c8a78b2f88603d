//! redb, the engine of the embedded store, by itself: one table by namespace, NUL and key, values
//! as they are, no versions, no expiries, no checksums of blocks that are read.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, TableDefinition};

use super::batching::{Batching, Write};
use crate::Result;
use crate::contestant::Contestant;
use crate::data::{KEYS, Names, Place, Value, Values};
use crate::workload::{Ability, BATCH};

const ENTRIES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("entries");
/// How many entries a transaction fills in.
const FILLED_AT_ONCE: usize = 100_000;

/// One transaction for each write, or one for all that are queued.
pub struct RawRedb {
    database: Arc<Database>,
    names: Arc<Names>,
    batching: Option<Batching>,
}

/// A file that is filled, in the cache that the embedded store has by default.
pub fn filled(path: &Path, names: &Names, values: &Values) -> Result<Arc<Database>> {
    let database = redb::Builder::new()
        .set_cache_size(cubbyhole::embedded::DEFAULT_CACHE_BYTES)
        .create(path)?;
    for first in (0..names.entries()).step_by(FILLED_AT_ONCE) {
        let transaction = database.begin_write()?;
        {
            let mut table = transaction.open_table(ENTRIES)?;
            for index in first..names.entries().min(first + FILLED_AT_ONCE) {
                let location = names.location(Place::nth(index));
                table.insert(location.as_bytes(), &*values.nth(index).json)?;
            }
        }
        transaction.commit()?;
    }
    Ok(Arc::new(database))
}

impl RawRedb {
    pub fn new(database: &Arc<Database>, names: &Arc<Names>) -> Self {
        Self { database: Arc::clone(database), names: Arc::clone(names), batching: None }
    }

    /// Another one over the same file.
    pub fn with_group_commit(&self) -> Self {
        let database = Arc::clone(&self.database);
        let batching = Batching::start(move |writes| commit(&database, writes));
        Self { batching: Some(batching), ..Self::new(&self.database, &self.names) }
    }

    async fn write(&self, writes: Vec<Write>) -> Result<()> {
        match &self.batching {
            Some(batching) => batching.write(writes).await,
            None => commit(&self.database, &writes),
        }
    }

    fn write_of(&self, place: Place, value: &Value) -> Write {
        let (ns, key) = self.names.rendered(place);
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

impl Contestant for RawRedb {
    const ABILITIES: &'static [Ability] = &[
        Ability::Get,
        Ability::Put,
        Ability::List,
        Ability::ListGroup,
        Ability::Page,
        Ability::Batch,
    ];

    async fn get(&self, place: Place) -> Result<Option<usize>> {
        let table = self.database.begin_read()?.open_table(ENTRIES)?;
        let found = self.names.with_location(place, |location| table.get(location.as_bytes()))?;
        // As whoever asked would have it.
        Ok(found.map(|value| cubbyhole::Bytes::copy_from_slice(value.value()).len()))
    }

    async fn put(&self, place: Place, value: &Value) -> Result<()> {
        self.write(vec![self.write_of(place, value)]).await
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
        // From each to the next: a search of the tree for each of them, and not a look at each entry.
        while let Some(entry) = table.range(from.as_bytes()..to.as_bytes())?.next() {
            let location = entry?.0;
            let location = std::str::from_utf8(location.value())?;
            let ns = location.split_once('\0').ok_or("a location has no NUL")?.0.to_owned();
            from = format!("{ns}\u{1}");
            namespaces.push(ns);
        }
        Ok(namespaces.len())
    }

    async fn page(&self, from: Place, limit: usize) -> Result<usize> {
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
        let places = (0..).map(|key| Place { namespace, key });
        let writes = places.zip(values).map(|(place, value)| self.write_of(place, value));
        self.write(writes.collect()).await
    }
}
