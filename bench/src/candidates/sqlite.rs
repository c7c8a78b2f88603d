//! SQLite through `rusqlite`, configured for durable writes: a write-ahead log with an fsync at
//! each commit, prepared statements, a cache of the embedded store's size, one connection for
//! writes and several for reads.
//!
//! Statements run on the calling thread. This is faster than a separate thread, but blocks the
//! runtime.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cubbyhole::Bytes;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::group_commit::{GroupCommit, Write};
use super::ours::TTL;
use crate::Result;
use crate::candidate::Candidate;
use crate::data::{EntryId, KEYS, Names, Value, Values};
use crate::workload::{Ability, BATCH};

const READERS: usize = 4;
const SCHEMA: &str = "
    CREATE TABLE entries (
        namespace TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL,
        created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, expires_at INTEGER,
        value BLOB NOT NULL, PRIMARY KEY (namespace, key)
    ) WITHOUT ROWID;
    CREATE INDEX expiries ON entries (expires_at) WHERE expires_at IS NOT NULL;";
const NOW: &str = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";

/// Commits one transaction for each write, or one for all queued writes.
pub struct Sqlite {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Vec<Mutex<Connection>>,
    names: Arc<Names>,
    group_commit: Option<GroupCommit>,
}

/// Opens a connection with the settings that this candidate and `openkeyv` share.
pub fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let kibibytes = i64::try_from(cubbyhole::embedded::DEFAULT_CACHE_BYTES / 1024)?;
    connection.pragma_update(None, "cache_size", -kibibytes)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

impl Sqlite {
    pub fn filled(path: &Path, names: &Arc<Names>, values: &Values) -> Result<Self> {
        let mut writer = connect(path)?;
        writer.execute_batch(SCHEMA)?;
        let transaction = writer.transaction()?;
        for index in 0..names.entries() {
            let id = EntryId::nth(index);
            let (ns, key) = names.rendered(id);
            let ttl = id.expires().then(|| TTL.as_millis() as i64);
            put(&transaction, ns, key, &values.nth(index).json, ttl)?;
        }
        transaction.commit()?;
        writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))?;
        Self::open(path, names)
    }

    /// Opens another handle to the same file.
    pub fn reopen(&self) -> Result<Self> {
        Self::open(&self.path, &self.names)
    }

    fn open(path: &Path, names: &Arc<Names>) -> Result<Self> {
        let readers = (0..READERS).map(|_| Ok(Mutex::new(connect(path)?)));
        Ok(Self {
            path: path.to_owned(),
            writer: Mutex::new(connect(path)?),
            readers: readers.collect::<Result<_>>()?,
            names: Arc::clone(names),
            group_commit: None,
        })
    }

    pub fn with_group_commit(self) -> Result<Self> {
        let mut writer = connect(&self.path)?;
        let group_commit = GroupCommit::start(move |writes| commit(&mut writer, writes));
        Ok(Self { group_commit: Some(group_commit), ..self })
    }

    /// Puts `count` entries with a TTL of 1 ms in a separate namespace.
    pub fn put_expiring(&self, count: usize, values: &Values) -> Result<()> {
        let mut writer = lock(&self.writer);
        let transaction = writer.transaction()?;
        for key in 0..count {
            put(&transaction, "expiring", &format!("k{key}"), &values.nth(key).json, Some(1))?;
        }
        Ok(transaction.commit()?)
    }

    /// Locks a free read connection, or waits for the first one if all are in use.
    fn reader(&self) -> MutexGuard<'_, Connection> {
        let free = self.readers.iter().find_map(|reader| reader.try_lock().ok());
        free.unwrap_or_else(|| lock(&self.readers[0]))
    }

    async fn write(&self, writes: Vec<Write>) -> Result<()> {
        match &self.group_commit {
            Some(group_commit) => group_commit.write(writes).await,
            None => commit(&mut lock(&self.writer), &writes),
        }
    }

    fn write_of(&self, id: EntryId, value: &Value) -> Write {
        let (ns, key) = self.names.rendered(id);
        (ns.to_owned(), key.to_owned(), value.json.clone())
    }
}

fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn commit(writer: &mut Connection, writes: &[Write]) -> Result<()> {
    let transaction = writer.transaction()?;
    for (ns, key, value) in writes {
        put(&transaction, ns, key, value, None)?;
    }
    Ok(transaction.commit()?)
}

fn put(
    transaction: &Transaction<'_>,
    ns: &str,
    key: &str,
    value: &[u8],
    ttl: Option<i64>,
) -> Result<()> {
    let sql = format!(
        "INSERT INTO entries VALUES (?1, ?2, 1, {NOW}, {NOW}, {NOW} + ?4, ?3)
         ON CONFLICT (namespace, key) DO UPDATE SET version = version + 1,
            updated_at = excluded.updated_at, expires_at = excluded.expires_at,
            value = excluded.value"
    );
    transaction.prepare_cached(&sql)?.execute(params![ns, key, value, ttl])?;
    Ok(())
}

impl Candidate for Sqlite {
    const ABILITIES: &'static [Ability] = &[
        Ability::Get,
        Ability::Put,
        Ability::List,
        Ability::Page,
        Ability::Sweep,
        Ability::Append,
        Ability::Batch,
    ];

    async fn get(&self, id: EntryId) -> Result<Option<usize>> {
        let (ns, key) = self.names.rendered(id);
        let reader = self.reader();
        let mut select = reader.prepare_cached(&format!(
            "SELECT value FROM entries WHERE namespace = ?1 AND key = ?2
             AND (expires_at IS NULL OR expires_at > {NOW})"
        ))?;
        let value = select.query_row([ns, key], |row| row.get::<_, Vec<u8>>(0)).optional()?;
        Ok(value.map(|value| Bytes::from(value).len()))
    }

    async fn put(&self, id: EntryId, value: &Value) -> Result<()> {
        self.write(vec![self.write_of(id, value)]).await
    }

    async fn list(&self, namespace: usize) -> Result<usize> {
        let reader = self.reader();
        let mut select = reader.prepare_cached(&format!(
            "SELECT key FROM entries WHERE namespace = ?1
             AND (expires_at IS NULL OR expires_at > {NOW}) ORDER BY key"
        ))?;
        let keys = select.query_map([self.names.namespaces[namespace].as_str()], |row| {
            row.get::<_, String>(0)
        })?;
        Ok(keys.collect::<Result<Vec<_>, _>>()?.len())
    }

    async fn page(&self, from: EntryId, limit: usize) -> Result<usize> {
        let (ns, key) = self.names.rendered(from);
        let reader = self.reader();
        let mut select = reader.prepare_cached(&format!(
            "SELECT key, version, created_at, updated_at, expires_at, value FROM entries
             WHERE namespace = ?1 AND key >= ?2
             AND (expires_at IS NULL OR expires_at > {NOW}) ORDER BY key LIMIT ?3"
        ))?;
        let mut rows = select.query(params![ns, key, limit as i64])?;
        let mut page = Vec::with_capacity(KEYS);
        while let Some(row) = rows.next()? {
            let meta: (i64, i64, i64, Option<i64>) =
                (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
            page.push((row.get::<_, String>(0)?, meta, row.get::<_, Vec<u8>>(5)?));
        }
        Ok(page.len())
    }

    async fn sweep(&self) -> Result<Option<usize>> {
        let writer = lock(&self.writer);
        let sql = format!("DELETE FROM entries WHERE expires_at <= {NOW}");
        let removed = writer.prepare_cached(&sql)?.execute(())?;
        Ok(Some(removed))
    }

    async fn append(&self, id: EntryId, value: &Value) -> Result<()> {
        let (ns, key) = self.names.rendered(id);
        loop {
            let version: i64 = {
                let reader = self.reader();
                let mut select = reader.prepare_cached(
                    "SELECT version, value FROM entries WHERE namespace = ?1 AND key = ?2",
                )?;
                select.query_row([ns, key], |row| row.get::<_, Vec<u8>>(1).and(row.get(0)))?
            };
            let writer = lock(&self.writer);
            let mut update = writer.prepare_cached(&format!(
                "UPDATE entries SET version = version + 1, updated_at = {NOW}, value = ?3
                 WHERE namespace = ?1 AND key = ?2 AND version = ?4"
            ))?;
            if update.execute(params![ns, key, &*value.json, version])? == 1 {
                return Ok(());
            }
        }
    }

    async fn batch(&self, namespace: usize, values: [&Value; BATCH]) -> Result<()> {
        let ids = (0..).map(|key| EntryId { namespace, key });
        let writes = ids.zip(values).map(|(id, value)| self.write_of(id, value));
        self.write(writes.collect()).await
    }
}
