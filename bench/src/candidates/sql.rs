//! PostgreSQL without a store: a plain table through `sqlx`, and the bare lookup of our entries by
//! primary key, which is the limit for `get`. Neither isolates tenants.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sqlx::PgPool;
use tokio_postgres::{Client, NoTls, Statement};

use crate::Result;
use crate::candidate::Candidate;
use crate::data::{EntryId, KEYS, Names, Value};
use crate::workload::{Ability, BATCH};

/// The schema of the plain table.
pub const SCHEMA: &str = "
    CREATE TABLE plain (
        namespace text COLLATE \"C\" NOT NULL, key text COLLATE \"C\" NOT NULL,
        value bytea NOT NULL, expires_at timestamptz, PRIMARY KEY (namespace, key)
    );
    CREATE INDEX ON plain (expires_at) WHERE expires_at IS NOT NULL";

/// A plain table: one statement per call, without explicit transactions.
pub struct PlainTable {
    pub pool: PgPool,
    pub names: Arc<Names>,
}

impl Candidate for PlainTable {
    const ABILITIES: &'static [Ability] =
        &[Ability::Get, Ability::Put, Ability::List, Ability::Page, Ability::Sweep, Ability::Batch];

    async fn get(&self, id: EntryId) -> Result<Option<usize>> {
        let (ns, key) = self.names.rendered(id);
        let value: Option<Vec<u8>> = sqlx::query_scalar(
            "SELECT value FROM plain WHERE namespace = $1 AND key = $2
             AND (expires_at IS NULL OR expires_at > now())",
        )
        .bind(ns)
        .bind(key)
        .fetch_optional(&self.pool)
        .await?;
        Ok(value.map(|value| value.len()))
    }

    async fn put(&self, id: EntryId, value: &Value) -> Result<()> {
        let (ns, key) = self.names.rendered(id);
        sqlx::query(
            "INSERT INTO plain (namespace, key, value) VALUES ($1, $2, $3)
             ON CONFLICT (namespace, key)
             DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at",
        )
        .bind(ns)
        .bind(key)
        .bind(&*value.json)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn list(&self, namespace: usize) -> Result<usize> {
        let keys: Vec<String> = sqlx::query_scalar(
            "SELECT key FROM plain WHERE namespace = $1
             AND (expires_at IS NULL OR expires_at > now()) ORDER BY key",
        )
        .bind(self.names.namespaces[namespace].as_str())
        .fetch_all(&self.pool)
        .await?;
        Ok(keys.len())
    }

    async fn page(&self, from: EntryId, limit: usize) -> Result<usize> {
        let (ns, key) = self.names.rendered(from);
        let page: Vec<(String, Vec<u8>)> = sqlx::query_as(
            "SELECT key, value FROM plain WHERE namespace = $1 AND key >= $2
             AND (expires_at IS NULL OR expires_at > now()) ORDER BY key LIMIT $3",
        )
        .bind(ns)
        .bind(key)
        .bind(limit.min(KEYS) as i64)
        .fetch_all(&self.pool)
        .await?;
        Ok(page.len())
    }

    async fn sweep(&self) -> Result<Option<usize>> {
        let swept = sqlx::query("DELETE FROM plain WHERE expires_at <= now()");
        Ok(Some(swept.execute(&self.pool).await?.rows_affected() as usize))
    }

    async fn batch(&self, namespace: usize, values: [&Value; BATCH]) -> Result<()> {
        sqlx::query(
            "INSERT INTO plain (namespace, key, value)
             SELECT $1, * FROM unnest($2::text[], $3::bytea[])
             ON CONFLICT (namespace, key)
             DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at",
        )
        .bind(self.names.namespaces[namespace].as_str())
        .bind(&self.names.keys[..BATCH])
        .bind(values.map(|value| value.json.to_vec()))
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

/// Lookups as a role that bypasses row-level security. The statement is prepared on each
/// connection, and the callers use the connections in turn.
pub struct Lookup {
    connections: Vec<(Client, Statement)>,
    next: AtomicUsize,
    names: Arc<Names>,
}

impl Lookup {
    pub async fn connect(url: &str, connections: usize, names: &Arc<Names>) -> Result<Self> {
        let mut connected = Vec::new();
        for _ in 0..connections {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
            tokio::spawn(connection);
            let select = "SELECT value FROM cubbyhole.entries WHERE namespace = $1 AND key = $2";
            let statement = client.prepare(select).await?;
            connected.push((client, statement));
        }
        Ok(Self { connections: connected, next: AtomicUsize::new(0), names: Arc::clone(names) })
    }
}

impl Candidate for Lookup {
    const ABILITIES: &'static [Ability] = &[Ability::Get];

    async fn get(&self, id: EntryId) -> Result<Option<usize>> {
        let (ns, key) = self.names.rendered(id);
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        let (client, statement) = &self.connections[turn];
        let row = client.query_opt(statement, &[&ns, &key]).await?;
        let Some(row) = row else { return Ok(None) };
        let value: &[u8] = row.try_get(0)?;
        Ok(Some(cubbyhole::Bytes::copy_from_slice(value).len()))
    }

    async fn put(&self, _id: EntryId, _value: &Value) -> Result<()> {
        Err("the lookup is read-only".into())
    }
}
