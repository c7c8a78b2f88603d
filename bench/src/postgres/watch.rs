//! What the store alone does: nothing to compare with, to be watched from one change to the next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cubbyhole::{Batch, Condition, ExecutionContext, Namespace, PutOptions};
use cubbyhole_test_servers::PostgresServer;
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;

use super::places::{ENTRIES, PER_NAMESPACE, Place, TENANT};
use super::stores::{Ours, value};
use super::work::{self, Work, work};
use crate::harness::{Case, Settings, interleave};
use crate::report::Timing;
use crate::{POSTGRES, Result};

const EXPIRED: usize = ENTRIES / 100;
const BATCH: usize = 10;

/// One caller each, in turns.
pub fn rows(
    runtime: &Runtime,
    settings: &Settings,
    server: &PostgresServer,
    store: &Ours,
) -> Result<Vec<Timing>> {
    let mut cases = [
        work::case(runtime, 1, runtime.block_on(lookup(server.url()))?),
        work::case(runtime, 1, work::get(store)),
        work::case(runtime, 1, list(store)),
        work::case(runtime, 1, batch(store)),
        conditional_puts(runtime, store)?,
        deletes(runtime, store)?,
        sweeps(runtime, server, store),
    ];
    let names = [
        "primary key lookup without row security".to_owned(),
        "get".to_owned(),
        format!("list a namespace of {PER_NAMESPACE} keys"),
        format!("write a batch of {BATCH} puts"),
        "put_entry at the version expected".to_owned(),
        "delete".to_owned(),
        format!("evict_expired, {EXPIRED} of {ENTRIES} to remove"),
    ];
    let samples = interleave(settings, &mut cases)?;
    let rows = names.into_iter().zip(samples);
    Ok(rows.map(|(operation, time)| Timing { store: POSTGRES, operation, time }).collect())
}

/// What a `get` cannot be faster than: one prepared statement of a role that row security does
/// not bind, on a connection that is nobody else's.
async fn lookup(url: &str) -> Result<Work> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    let select = "SELECT value FROM cubbyhole.entries WHERE namespace = $1 AND key = $2";
    let statement = client.prepare(select).await?;
    let shared = Arc::new((client, statement));
    Ok(work(move |place: Place| {
        let shared = Arc::clone(&shared);
        async move {
            let (client, statement) = &*shared;
            let row = client.query_one(statement, &[&place.rendered(), &place.key()]).await?;
            serde_json::from_slice::<String>(row.try_get(0)?)?;
            Ok(())
        }
    }))
}

fn list(store: &Ours) -> Work {
    let store = Arc::clone(store);
    work(move |place: Place| {
        let store = Arc::clone(&store);
        async move {
            let keys = store.list(&ExecutionContext::new(), &place.namespace()?, None).await?;
            if keys.len() == PER_NAMESPACE { Ok(()) } else { Err("not all keys".into()) }
        }
    })
}

fn batch(store: &Ours) -> Work {
    let store = Arc::clone(store);
    work(move |place: Place| {
        let store = Arc::clone(&store);
        async move {
            let puts =
                (0..BATCH).fold(Batch::new(), |batch, key| batch.put(format!("k{key}"), value()));
            store.write(&ExecutionContext::new(), &place.namespace()?, puts).await?;
            Ok(())
        }
    })
}

/// One entry again and again, each time at the version before.
fn conditional_puts<'a>(runtime: &'a Runtime, store: &'a Ours) -> Result<Case<'a>> {
    let (ctx, ns) = (ExecutionContext::new(), Namespace::from_parts("other", ["versions"])?);
    let mut condition = Condition::IfAbsent;
    Ok(Case::new(move |count| {
        runtime.block_on(async {
            let start = Instant::now();
            for _ in 0..count {
                let options = PutOptions::new();
                let put = store.put_entry(&ctx, &ns, "key", value(), options, condition);
                condition = Condition::IfVersion(put.await?);
            }
            Ok(start.elapsed())
        })
    }))
}

/// Of entries that are put beforehand, which is not measured.
fn deletes<'a>(runtime: &'a Runtime, store: &'a Ours) -> Result<Case<'a>> {
    let (ctx, ns) = (ExecutionContext::new(), Namespace::from_parts("other", ["deleted"])?);
    Ok(Case::new(move |count| {
        let keys: Vec<String> = (0..count).map(|key| format!("k{key}")).collect();
        runtime.block_on(async {
            let mut took = Duration::ZERO;
            for keys in keys.chunks(1000) {
                let puts = keys.iter().fold(Batch::new(), |batch, key| batch.put(key, value()));
                store.write(&ctx, &ns, puts).await?;
                let start = Instant::now();
                for key in keys {
                    store.delete(&ctx, &ns, key).await?;
                }
                took += start.elapsed();
            }
            Ok(took)
        })
    }))
}

/// Of entries that are put beforehand as expired, which is not measured.
fn sweeps<'a>(runtime: &'a Runtime, server: &'a PostgresServer, store: &'a Ours) -> Case<'a> {
    let insert = format!(
        "INSERT INTO cubbyhole.entries
            (namespace, key, tenant, version, created_at, updated_at, expires_at, value)
         SELECT '{TENANT}:expired', 'k' || i, '{TENANT}', gen_random_uuid(), 1, 1,
            cubbyhole.clock() - 1, 'x' FROM generate_series(1, {EXPIRED}) AS i"
    );
    Case::new(move |count| {
        let mut took = Duration::ZERO;
        for _ in 0..count {
            server.psql(&insert)?;
            let start = Instant::now();
            let removed = runtime.block_on(store.evict_expired(&ExecutionContext::new()))?;
            took += start.elapsed();
            if removed != EXPIRED {
                return Err(format!("{removed} removed of {EXPIRED}").into());
            }
        }
        Ok(took)
    })
}
