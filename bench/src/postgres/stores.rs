//! The server, and what is measured on it: the store, and the peer as it is by default and without
//! the test of a connection before each use.

use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{EntryStore, ExecutionContext, TypedExt};
use cubbyhole_test_servers::PostgresServer;
use entelix_persistence::postgres::{PostgresPersistence, PostgresStore as PeerStore};

use super::delay;
use super::places::{self, ENTRIES, PER_NAMESPACE, TENANT};
use crate::Result;

/// As the peer's pool has by default; ours is given as many.
const CONNECTIONS: u32 = 16;
/// What is compared durably must be written durably.
const SERVER: [(&str, &str); 4] = [
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("shared_buffers", "512MB"),
    ("max_connections", "100"),
];
/// Row security binds it, and it owns nothing.
const ROLE: &str = "bench";
/// A JSON string of 256 bytes.
const VALUE_CHARS: usize = 254;

/// The store over JSON strings.
pub type Ours = Arc<dyn EntryStore<String>>;
/// The peer's, of the same.
pub type Peer = Arc<PeerStore<String>>;

/// Over pools of as many connections.
pub struct Stores {
    pub ours: Ours,
    /// As it is by default: a connection is tested before each use, which is a round trip.
    pub peer: Peer,
    /// As its documentation advises where the network is reliable: without the test.
    pub untested_peer: Peer,
}

pub fn value() -> String {
    "v".repeat(VALUE_CHARS)
}

/// A server with the same entries in both schemas, as a careful operator leaves them.
pub async fn prepare() -> Result<PostgresServer> {
    let server = PostgresServer::start_with(&SERVER)?;
    cubbyhole::migrate(&ExecutionContext::new(), server.url()).await?;
    let peer = PostgresPersistence::builder().with_connection_string(server.url());
    peer.connect().await?.migrate().await?;
    server.psql(&format!(
        "CREATE ROLE {ROLE} LOGIN PASSWORD '{ROLE}' IN ROLE cubbyhole_app;
         GRANT SELECT, INSERT, UPDATE, DELETE ON memory_items TO {ROLE}"
    ))?;
    fill(&server)?;
    Ok(server)
}

fn fill(server: &PostgresServer) -> Result<()> {
    let name = places::sql();
    let key = format!("'k' || i % {PER_NAMESPACE}");
    let series = format!("generate_series(0, {}) AS i", ENTRIES - 1);
    let value = format!("repeat('v', {VALUE_CHARS})");
    server.psql(&format!(
        "INSERT INTO cubbyhole.entries
            (namespace, key, tenant, version, created_at, updated_at, value)
         SELECT {name}, {key}, '{TENANT}', gen_random_uuid(), 1, 1,
            convert_to(to_json({value})::text, 'UTF8') FROM {series}"
    ))?;
    server.psql(&format!(
        "INSERT INTO memory_items (tenant_id, namespace, key, value)
         SELECT '{TENANT}', {name}, {key}, to_jsonb({value}) FROM {series}"
    ))?;
    server.psql("VACUUM ANALYZE cubbyhole.entries")?;
    server.psql("VACUUM ANALYZE memory_items")?;
    // So that none is due at once, in the midst of whosever turn it is.
    server.psql("CHECKPOINT")?;
    Ok(())
}

/// Over the network as it is.
pub async fn open(server: &PostgresServer) -> Result<Stores> {
    open_at(server.port()).await
}

/// Over a network that takes `one_way` longer in each direction.
pub async fn open_far_away(server: &PostgresServer, one_way: Duration) -> Result<Stores> {
    open_at(delay::before(server.port(), one_way)?).await
}

async fn open_at(port: u16) -> Result<Stores> {
    let url = format!("postgres://{ROLE}:{ROLE}@127.0.0.1:{port}/postgres?sslmode=disable");
    let ours = format!("{url}&pool_size={CONNECTIONS}");
    let ours = cubbyhole::open(&ExecutionContext::new(), &ours).await?.typed::<String>();
    let peer = PostgresPersistence::builder()
        .with_connection_string(&url)
        .with_max_connections(CONNECTIONS);
    let untested_peer = PostgresPersistence::builder()
        .with_connection_string(&url)
        .with_max_connections(CONNECTIONS)
        .with_test_before_acquire(false);
    Ok(Stores {
        ours: Arc::new(ours),
        peer: Arc::new(peer.connect().await?.store()),
        untested_peer: Arc::new(untested_peer.connect().await?.store()),
    })
}
