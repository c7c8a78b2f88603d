//! The PostgreSQL server, its data and the connections to it.

use std::sync::Arc;

use cubbyhole::{Backend, EntryStore, ExecutionContext, TypedExt};
use cubbyhole_testkit::PostgresServer;
use entelix_persistence::postgres::{PostgresPersistence, PostgresStore as PeerStore};
use openkeyv::store::postgres::{PostgresConfig, PostgresStore as OpenKeyvStore};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio_postgres::{Client, NoTls};

use super::CONNECTIONS;
use crate::Result;
use crate::candidates::sql;
use crate::data::{EntryId, KEYS, NAMESPACES_OF_A_GROUP, Names, TENANT, Values};
use crate::plan::POSTGRES;
use crate::report::Size;

/// Settings for durable commits. The test kit's default settings are not durable.
const SETTINGS: [(&str, &str); 5] = [
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("shared_buffers", "1GB"),
    ("max_wal_size", "4GB"),
    ("max_connections", "200"),
];
/// A role that is subject to row-level security and owns no table.
const ROLE: &str = "bench";

/// A server with the same entries in all schemas, vacuumed and analysed.
pub struct Server {
    server: PostgresServer,
}

impl Server {
    pub async fn filled(names: &Names, values: &Values) -> Result<Self> {
        let server = PostgresServer::start_with(&SETTINGS)?;
        cubbyhole::migrate(&ExecutionContext::new(), server.url()).await?;
        let peer = PostgresPersistence::builder().with_connection_string(server.url());
        peer.connect().await?.migrate().await?;
        server.psql(sql::SCHEMA)?;
        server.psql(&format!(
            "CREATE ROLE {ROLE} LOGIN PASSWORD '{ROLE}' IN ROLE cubbyhole_app;
             GRANT SELECT, INSERT, UPDATE, DELETE ON memory_items, plain TO {ROLE}"
        ))?;
        let (client, connection) = tokio_postgres::connect(server.url(), NoTls).await?;
        tokio::spawn(connection);
        fill(&client, names, values).await?;
        Ok(Self { server })
    }

    pub fn url(&self) -> &str {
        self.server.url()
    }

    pub fn port(&self) -> u16 {
        self.server.port()
    }

    pub fn version(&self) -> Result<String> {
        Ok(self.server.psql("SHOW server_version")?)
    }

    /// Returns the bytes per entry, including indexes.
    pub fn sizes(
        &self,
        tables: &[(&'static str, &str)],
        entries: usize,
        value_bytes: usize,
    ) -> Result<Vec<Size>> {
        let size = |(name, table): &(&'static str, &str)| -> Result<Size> {
            let select = format!("SELECT pg_total_relation_size('{table}')");
            let bytes: f64 = self.server.psql(&select)?.parse()?;
            Ok(Size {
                backend: POSTGRES,
                name,
                entries,
                value_bytes,
                bytes: bytes / entries as f64,
            })
        };
        tables.iter().map(size).collect()
    }

    /// Opens our store over JSON strings.
    pub async fn json(&self, port: u16) -> Result<Arc<dyn EntryStore<String>>> {
        Ok(Arc::new(self.open(port).await?.typed::<String>()))
    }

    /// Opens our store over bytes.
    pub async fn bytes(&self, port: u16) -> Result<Arc<dyn EntryStore<cubbyhole::Bytes>>> {
        Ok(self.open(port).await?)
    }

    async fn open(&self, port: u16) -> Result<Arc<dyn Backend>> {
        let url = format!("{}&pool_size={CONNECTIONS}", role_url(port));
        Ok(cubbyhole::open(&ExecutionContext::new(), &url).await?)
    }

    /// Opens the entelix store. `tested` is its default: a round trip before each use of a
    /// connection.
    pub async fn entelix(&self, port: u16, tested: bool) -> Result<PeerStore<String>> {
        let peer = PostgresPersistence::builder()
            .with_connection_string(role_url(port))
            .with_max_connections(CONNECTIONS)
            .with_test_before_acquire(tested);
        Ok(peer.connect().await?.store())
    }

    /// Opens the entelix store as a role that bypasses row-level security.
    pub async fn entelix_bypassing_rls(&self) -> Result<PeerStore<String>> {
        let peer = PostgresPersistence::builder().with_connection_string(self.url());
        Ok(peer.connect().await?.store())
    }

    /// Opens the openkeyv store without its change log, which no other candidate has.
    pub async fn openkeyv(&self) -> Result<OpenKeyvStore> {
        let pool = self.pool(self.port()).await?;
        let config = PostgresConfig::new(None)?.with_change_retention(0);
        Ok(OpenKeyvStore::from_pool_with_config(pool, config).await?)
    }

    /// Opens a pool of `sqlx`.
    pub async fn pool(&self, port: u16) -> Result<PgPool> {
        let own_port = format!(":{}/", self.port());
        let url = self.url().replace(&own_port, &format!(":{port}/"));
        Ok(PgPoolOptions::new().max_connections(CONNECTIONS).connect(&url).await?)
    }

    /// Inserts `count` expired entries in a separate namespace.
    pub fn put_expired(&self, table: &str, count: usize) -> Result<()> {
        let series = format!("generate_series(1, {count}) AS i");
        self.server.psql(&match table {
            "memory_items" => format!(
                "INSERT INTO memory_items (tenant_id, namespace, key, value, expires_at)
                 SELECT '{TENANT}', '{TENANT}:expired', 'k' || i, '\"x\"', now() FROM {series}"
            ),
            "plain" => format!(
                "INSERT INTO plain SELECT '{TENANT}:expired', 'k' || i, 'x', now() FROM {series}"
            ),
            _ => format!(
                "INSERT INTO cubbyhole.entries (namespace, key, tenant, version, created_at,
                    updated_at, expires_at, value)
                 SELECT '{TENANT}:expired', 'k' || i, '{TENANT}', gen_random_uuid(), 1, 1,
                    cubbyhole.clock() - 1, 'x' FROM {series}"
            ),
        })?;
        Ok(())
    }
}

/// The URL of [`ROLE`].
fn role_url(port: u16) -> String {
    format!("postgres://{ROLE}:{ROLE}@127.0.0.1:{port}/postgres?sslmode=disable")
}

async fn fill(client: &Client, names: &Names, values: &Values) -> Result<()> {
    const TEXTS: usize = 64;
    client.batch_execute("CREATE TABLE texts (id bigint PRIMARY KEY, text text)").await?;
    for id in 0..TEXTS {
        let text = &values.nth(id).text;
        client.execute("INSERT INTO texts VALUES ($1, $2)", &[&(id as i64), text]).await?;
    }
    let (entries, in_group) = (names.entries(), KEYS * NAMESPACES_OF_A_GROUP);
    let ns =
        format!("'{TENANT}:g' || i / {in_group} || ':n' || i / {KEYS} % {NAMESPACES_OF_A_GROUP}");
    let key = format!("'message-' || lpad((i % {KEYS})::text, 4, '0')");
    // The SQL below repeats the rule of `EntryId::expires`.
    debug_assert!(EntryId { namespace: 0, key: 1 }.expires());
    let ttl = "CASE WHEN i % 2 = 1 THEN now() + interval '1 day' END";
    let from = format!(
        "FROM generate_series(0::bigint, {}) AS i JOIN texts ON id = i % {TEXTS}",
        entries - 1
    );
    client
        .batch_execute(&format!(
            "INSERT INTO cubbyhole.entries (namespace, key, tenant, version, created_at,
                updated_at, expires_at, value)
             SELECT {ns}, {key}, '{TENANT}', gen_random_uuid(), 1, 1,
                CASE WHEN i % 2 = 1 THEN cubbyhole.clock() + 86400000 END,
                convert_to(to_json(text)::text, 'UTF8') {from};
             INSERT INTO memory_items (tenant_id, namespace, key, value, expires_at)
             SELECT '{TENANT}', {ns}, {key}, to_jsonb(text), {ttl} {from};
             INSERT INTO plain
             SELECT {ns}, {key}, convert_to(to_json(text)::text, 'UTF8'), {ttl} {from}"
        ))
        .await?;
    for table in ["cubbyhole.entries", "memory_items", "plain"] {
        client.batch_execute(&format!("VACUUM ANALYZE {table}")).await?;
    }
    // Otherwise a checkpoint would soon run during the turn of one candidate.
    Ok(client.batch_execute("CHECKPOINT").await?)
}
