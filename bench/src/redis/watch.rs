//! What the store alone does: nothing to compare with, to be watched from one change to the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cubbyhole::{
    Batch, Bytes, Condition, EntryStore, ExecutionContext, GetOptions, Namespace, NamespacePrefix,
    PutOptions, TenantId,
};
use cubbyhole_test_servers::RedisServer;
use tokio::runtime::Runtime;

use super::Scale;
use super::contestants::{self, Contestants, encoded};
use crate::callers::{self, work};
use crate::data::{NAMESPACES_OF_A_TENANT, Names, Place};
use crate::harness::{Case, Settings, interleave};
use crate::report::Timing;
use crate::{REDIS, Result};

const BATCH: usize = 10;
const TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The one with many namespaces.
const WIDE_PREFIX: &str = "wide:";
const WIDE: &str = "wide";
/// Where names are used once.
const OTHER_PREFIX: &str = "other:";

type Ours = Arc<dyn EntryStore<Bytes>>;

/// Calls of one caller, in turns.
pub fn calls(
    runtime: &Runtime,
    settings: &Settings,
    scale: &Scale,
    server: &RedisServer,
    all: &Contestants,
) -> Result<Vec<Timing>> {
    let wide = runtime.block_on(wide(server, scale.namespaces))?;
    let other = runtime.block_on(contestants::open(server.url(), OTHER_PREFIX))?;
    let other: Ours = Arc::new(other);
    let wide_tenant = NamespacePrefix::from(TenantId::new(WIDE)?);
    let rows = [
        ("get_entry".to_owned(), at_places(runtime, all, get_entry)),
        ("put_entry at the version expected".to_owned(), conditional_puts(runtime, &other)?),
        ("put with a TTL".to_owned(), at_places(runtime, all, put_with_ttl)),
        ("put and take".to_owned(), put_and_take(runtime, &other)?),
        (format!("write a batch of {BATCH} puts"), at_places(runtime, all, batch)),
        ("put into a namespace that is new".to_owned(), first_puts(runtime, &other, "known:")),
        ("put into a tenant that is new".to_owned(), first_puts(runtime, &other, "")),
        (
            format!("list_namespaces of a tenant of {NAMESPACES_OF_A_TENANT}"),
            at_places(runtime, all, list_namespaces),
        ),
        (
            format!("list_namespaces of a tenant of {}", scale.namespaces),
            list_all(runtime, &wide, wide_tenant, scale.namespaces),
        ),
    ];
    timings(settings, rows)
}

/// Sweeps that find nothing to remove.
pub fn sweeps(
    runtime: &Runtime,
    settings: &Settings,
    scale: &Scale,
    server: &RedisServer,
    all: &Contestants,
) -> Result<Vec<Timing>> {
    let wide: Ours = Arc::new(runtime.block_on(contestants::open(server.url(), WIDE_PREFIX))?);
    let new: Ours = Arc::new(all.new.clone());
    let (many, tenants) = (all.names.namespaces.len(), all.names.tenants.len());
    let name = |namespaces: usize, tenants: usize| {
        format!("evict_expired, {namespaces} namespaces, tenants: {tenants}")
    };
    let rows = [
        (name(scale.namespaces, 1), sweep(runtime, &wide)),
        (name(all.new_namespaces, all.tenants), sweep(runtime, &new)),
        (name(many, tenants), sweep(runtime, &all.ours)),
    ];
    timings(settings, rows)
}

fn timings<const N: usize>(
    settings: &Settings,
    rows: [(String, Case<'_>); N],
) -> Result<Vec<Timing>> {
    let (names, mut cases): (Vec<String>, Vec<Case<'_>>) = rows.into_iter().unzip();
    let samples = interleave(settings, &mut cases)?;
    let rows = names.into_iter().zip(samples);
    Ok(rows.map(|(operation, time)| Timing { store: REDIS, operation, time }).collect())
}

/// A tenant of so many namespaces of one entry.
async fn wide(server: &RedisServer, namespaces: usize) -> Result<Ours> {
    let store: Ours = Arc::new(contestants::open(server.url(), WIDE_PREFIX).await?);
    let ctx = ExecutionContext::new();
    for index in 0..namespaces {
        let ns = Namespace::from_parts(WIDE, [format!("agent-{index}")])?;
        store.put(&ctx, &ns, "key", encoded()).await?;
    }
    Ok(store)
}

/// One call of the store that holds most.
fn at_places<'a, F>(
    runtime: &'a Runtime,
    all: &Contestants,
    call: fn(Ours, Arc<Names>, Place) -> F,
) -> Case<'a>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (store, names) = (Arc::clone(&all.ours), Arc::clone(&all.names));
    let work = work(move |place: Place| call(Arc::clone(&store), Arc::clone(&names), place));
    callers::case(runtime, 1, all.place(), work)
}

async fn get_entry(store: Ours, names: Arc<Names>, place: Place) -> Result<()> {
    let (ns, key) = (&names.namespaces[place.namespace], &names.keys[place.key]);
    let entry = store.get_entry(&ExecutionContext::new(), ns, key, GetOptions::default()).await?;
    entry.map(drop).ok_or_else(|| "an entry is not there".into())
}

async fn put_with_ttl(store: Ours, names: Arc<Names>, place: Place) -> Result<()> {
    let (ns, key) = (&names.namespaces[place.namespace], &names.keys[place.key]);
    let options = PutOptions::new().with_ttl(TTL);
    Ok(store.put_with_options(&ExecutionContext::new(), ns, key, encoded(), options).await?)
}

async fn batch(store: Ours, names: Arc<Names>, place: Place) -> Result<()> {
    let keys = names.keys.iter().take(BATCH);
    let puts = keys.fold(Batch::new(), |batch, key| batch.put(key, encoded()));
    store.write(&ExecutionContext::new(), &names.namespaces[place.namespace], puts).await?;
    Ok(())
}

async fn list_namespaces(store: Ours, names: Arc<Names>, place: Place) -> Result<()> {
    let tenant = &names.tenants[place.tenant()];
    let listed = store.list_namespaces(&ExecutionContext::new(), tenant).await?;
    all_of_them(listed.len(), NAMESPACES_OF_A_TENANT)
}

fn list_all<'a>(
    runtime: &'a Runtime,
    store: &Ours,
    tenant: NamespacePrefix,
    count: usize,
) -> Case<'a> {
    let store = Arc::clone(store);
    let work = work(move |()| {
        let (store, tenant) = (Arc::clone(&store), tenant.clone());
        async move {
            let listed = store.list_namespaces(&ExecutionContext::new(), &tenant).await?;
            all_of_them(listed.len(), count)
        }
    });
    callers::case(runtime, 1, |_| (), work)
}

fn all_of_them(listed: usize, count: usize) -> Result<()> {
    if listed == count { Ok(()) } else { Err(format!("{listed} listed of {count}").into()) }
}

/// One entry again and again, each time at the version before.
fn conditional_puts<'a>(runtime: &'a Runtime, store: &Ours) -> Result<Case<'a>> {
    let (store, ns) = (Arc::clone(store), Namespace::from_parts("known", ["versions"])?);
    let mut condition = Condition::IfAbsent;
    Ok(Case::new(move |count| {
        runtime.block_on(async {
            let start = Instant::now();
            for _ in 0..count {
                let (ctx, options) = (ExecutionContext::new(), PutOptions::new());
                let put = store.put_entry(&ctx, &ns, "key", encoded(), options, condition);
                condition = Condition::IfVersion(put.await?);
            }
            Ok(start.elapsed())
        })
    }))
}

/// Two calls, in a namespace that does not become empty.
fn put_and_take<'a>(runtime: &'a Runtime, store: &Ours) -> Result<Case<'a>> {
    let (store, ns) = (Arc::clone(store), Namespace::from_parts("known", ["taken"])?);
    runtime.block_on(store.put(&ExecutionContext::new(), &ns, "other", encoded()))?;
    let work = work(move |()| {
        let (store, ns) = (Arc::clone(&store), ns.clone());
        async move {
            let ctx = ExecutionContext::new();
            store.put(&ctx, &ns, "key", encoded()).await?;
            let taken = store.take(&ctx, &ns, "key").await?;
            taken.map(drop).ok_or_else(|| "what was put is not there".into())
        }
    });
    Ok(callers::case(runtime, 1, |_| (), work))
}

/// Each into another namespace, whose name begins so.
fn first_puts<'a>(runtime: &'a Runtime, store: &Ours, start: &'static str) -> Case<'a> {
    let (store, next) = (Arc::clone(store), Arc::new(AtomicUsize::new(0)));
    let work = work(move |()| {
        let (store, next) = (Arc::clone(&store), next.fetch_add(1, Ordering::Relaxed));
        async move {
            let ns = Namespace::parse(&format!("{start}new-{next}"))?;
            Ok(store.put(&ExecutionContext::new(), &ns, "key", encoded()).await?)
        }
    });
    callers::case(runtime, 1, |_| (), work)
}

fn sweep<'a>(runtime: &'a Runtime, store: &Ours) -> Case<'a> {
    let store = Arc::clone(store);
    let work = work(move |()| {
        let store = Arc::clone(&store);
        async move { all_of_them(store.evict_expired(&ExecutionContext::new()).await?, 0) }
    });
    callers::case(runtime, 1, |_| (), work)
}
