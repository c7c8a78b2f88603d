//! PostgreSQL: the store beside `entelix-persistence`, on one server, with one role that row
//! security binds, in turns.

mod delay;
mod places;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cubbyhole::{ExecutionContext, NamespacePrefix, Store, TypedExt};
use cubbyhole_test_servers::PostgresServer;
use entelix_memory::Store as _;
use entelix_persistence::postgres::{PostgresPersistence, PostgresStore as PeerStore};
use tokio::runtime::Runtime;

use crate::Result;
use crate::harness::{Case, Settings, interleave};
use crate::report::{Comparison, Report};
use places::{ENTRIES, NAMESPACES, PER_GROUP, Place};

/// As the peer's pool has by default; ours is given as many.
const CONNECTIONS: u32 = 16;
/// A JSON string of 256 bytes.
const VALUE_CHARS: usize = 254;
const ONE_WAY: Duration = Duration::from_millis(2);
/// What is compared durably must be written durably.
const SERVER: [(&str, &str); 2] = [("fsync", "on"), ("shared_buffers", "512MB")];
const ROLE: &str = "bench";

/// The store over JSON strings.
type Ours = Arc<dyn Store<String>>;
/// The peer's, of the same.
type Peer = Arc<PeerStore<String>>;

#[derive(Clone)]
struct Pair {
    ours: Ours,
    peer: Peer,
}

/// Compares the two and reports it.
pub fn compare(runtime: &Runtime, settings: &Settings, report: &mut Report) -> Result<()> {
    let server = PostgresServer::start_with(&SERVER)?;
    let pair = runtime.block_on(async {
        prepare(&server).await?;
        open(server.port()).await
    })?;
    fill(&server)?;
    for callers in [1, 16] {
        report.compare(points(runtime, settings, &pair, callers, "")?);
    }
    let delayed =
        runtime.block_on(async { open(delay::before(server.port(), ONE_WAY).await?).await })?;
    for callers in [1, 16] {
        let note = ", 2 ms one-way delay";
        report.compare(points(runtime, settings, &delayed, callers, note)?);
    }
    report.compare(namespaces(runtime, settings, &pair)?);
    Ok(())
}

/// Both schemas, and a role with the rights that each needs and no more.
async fn prepare(server: &PostgresServer) -> Result<()> {
    let ctx = ExecutionContext::new();
    cubbyhole::migrate(&ctx, server.url()).await?;
    let peer = PostgresPersistence::builder().with_connection_string(server.url());
    peer.connect().await?.migrate().await?;
    server.psql(&format!(
        "CREATE ROLE {ROLE} LOGIN PASSWORD '{ROLE}' IN ROLE cubbyhole_app;
         GRANT SELECT, INSERT, UPDATE, DELETE ON memory_items TO {ROLE}"
    ))?;
    Ok(())
}

async fn open(port: u16) -> Result<Pair> {
    let url = format!("postgres://{ROLE}:{ROLE}@127.0.0.1:{port}/postgres?sslmode=disable");
    let ours = format!("{url}&pool_size={CONNECTIONS}");
    let ours = cubbyhole::open(&ExecutionContext::new(), &ours).await?.typed::<String>();
    // Everything else as it is by default, the test of a connection before its use among it.
    let peer = PostgresPersistence::builder()
        .with_connection_string(&url)
        .with_max_connections(CONNECTIONS)
        .connect()
        .await?;
    Ok(Pair { ours: Arc::new(ours), peer: Arc::new(peer.store()) })
}

/// The same entries in both, as a careful operator leaves them.
fn fill(server: &PostgresServer) -> Result<()> {
    let name = places::sql();
    let series = format!("generate_series(0, {}) AS i", ENTRIES - 1);
    let value = format!("repeat('v', {VALUE_CHARS})");
    server.psql(&format!(
        "INSERT INTO cubbyhole.entries
            (namespace, key, tenant, version, created_at, updated_at, value)
         SELECT {name}, 'k' || i % 100, 'acme', gen_random_uuid(), 1, 1,
            convert_to(to_json({value})::text, 'UTF8') FROM {series}"
    ))?;
    server.psql(&format!(
        "INSERT INTO memory_items (tenant_id, namespace, key, value)
         SELECT 'acme', {name}, 'k' || i % 100, to_jsonb({value}) FROM {series}"
    ))?;
    server.psql("VACUUM ANALYZE cubbyhole.entries")?;
    server.psql("VACUUM ANALYZE memory_items")?;
    Ok(())
}

/// `get` and `put` of entries anywhere.
fn points(
    runtime: &Runtime,
    settings: &Settings,
    pair: &Pair,
    callers: u64,
    note: &str,
) -> Result<Vec<Comparison>> {
    let value: Arc<str> = "v".repeat(VALUE_CHARS).into();
    let (get, peer_get) = (pair.clone(), pair.clone());
    let (put, peer_put) = (pair.clone(), pair.clone());
    let (own_value, peer_value) = (Arc::clone(&value), value);
    let mut cases = [
        concurrent(runtime, callers, move || {
            let (ours, place) = (Arc::clone(&get.ours), Place::anywhere());
            async move {
                let ctx = ExecutionContext::new();
                let got = ours.get(&ctx, &place.namespace()?, &place.key()).await?;
                got.map(drop).ok_or_else(|| "an entry is not there".into())
            }
        }),
        concurrent(runtime, callers, move || {
            let (peer, place) = (Arc::clone(&peer_get.peer), Place::anywhere());
            async move {
                let ctx = entelix_core::ExecutionContext::new();
                let got = peer.get(&ctx, &place.peer_namespace(), &place.key()).await?;
                got.map(drop).ok_or_else(|| "an entry is not there".into())
            }
        }),
        concurrent(runtime, callers, move || {
            let (ours, place) = (Arc::clone(&put.ours), Place::anywhere());
            let value = own_value.to_string();
            async move {
                let ctx = ExecutionContext::new();
                Ok(ours.put(&ctx, &place.namespace()?, &place.key(), value).await?)
            }
        }),
        concurrent(runtime, callers, move || {
            let (peer, place) = (Arc::clone(&peer_put.peer), Place::anywhere());
            let value = peer_value.to_string();
            async move {
                let ctx = entelix_core::ExecutionContext::new();
                Ok(peer.put(&ctx, &place.peer_namespace(), &place.key(), value).await?)
            }
        }),
    ];
    let names = ["get", "put"].map(|name| format!("{name}, {callers} callers{note}"));
    Ok(pairs(names, interleave(settings, &mut cases)?))
}

/// Listing all namespaces of the tenant, and those of one group.
fn namespaces(runtime: &Runtime, settings: &Settings, pair: &Pair) -> Result<Vec<Comparison>> {
    let mut cases = Vec::new();
    for (group, count) in [(None, NAMESPACES), (Some("g77"), PER_GROUP)] {
        let prefix = match group {
            None => "acme".to_owned(),
            Some(group) => format!("acme:{group}"),
        };
        let (ours, prefix) = (Arc::clone(&pair.ours), NamespacePrefix::parse(&prefix)?);
        cases.push(concurrent(runtime, 1, move || {
            let (ours, prefix) = (Arc::clone(&ours), prefix.clone());
            async move {
                let listed = ours.list_namespaces(&ExecutionContext::new(), &prefix).await?;
                if listed.len() == count { Ok(()) } else { Err("not all of them".into()) }
            }
        }));
        let tenant = entelix_core::TenantId::new("acme");
        let prefix = entelix_memory::NamespacePrefix::new(tenant);
        let prefix = group.into_iter().fold(prefix, |prefix, group| prefix.with_scope(group));
        let peer = Arc::clone(&pair.peer);
        cases.push(concurrent(runtime, 1, move || {
            let (peer, prefix) = (Arc::clone(&peer), prefix.clone());
            async move {
                let ctx = entelix_core::ExecutionContext::new();
                let listed = peer.list_namespaces(&ctx, &prefix).await?;
                if listed.len() == count { Ok(()) } else { Err("not all of them".into()) }
            }
        }));
    }
    let names = ["all of 10,000 namespaces", "10 of 10,000 namespaces"];
    let names = names.map(|name| format!("list_namespaces, {name}"));
    Ok(pairs(names, interleave(settings, &mut cases)?))
}

/// Samples of ours and the peer's in turns, side by side.
fn pairs(
    names: impl IntoIterator<Item = String>,
    samples: Vec<crate::harness::Samples>,
) -> Vec<Comparison> {
    let mut samples = samples.into_iter();
    let mut rows = Vec::new();
    for operation in names {
        if let (Some(ours), Some(peer)) = (samples.next(), samples.next()) {
            let faster = peer.ratio(&ours);
            rows.push(Comparison {
                store: crate::POSTGRES,
                operation,
                ours,
                peer: "entelix-persistence 0.6.1",
                theirs: peer,
                faster,
            });
        }
    }
    rows
}

/// So many operations, shared out among callers that each make one after the other.
fn concurrent<'a, F>(
    runtime: &'a Runtime,
    callers: u64,
    operation: impl Fn() -> F + Clone + Send + 'static,
) -> Case<'a>
where
    F: Future<Output = Result<()>> + Send,
{
    Case::new(move |count| {
        let start = Instant::now();
        runtime.block_on(async {
            let mut tasks = Vec::new();
            for caller in 0..callers {
                let operation = operation.clone();
                let share = count / callers + u64::from(caller < count % callers);
                tasks.push(tokio::spawn(async move {
                    for _ in 0..share {
                        operation().await?;
                    }
                    Result::<()>::Ok(())
                }));
            }
            for task in tasks {
                task.await??;
            }
            Result::<()>::Ok(())
        })?;
        Ok(start.elapsed())
    })
}
