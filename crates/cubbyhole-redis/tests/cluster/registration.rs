//! Concurrent clients that create, empty and sweep the same namespaces, and drop calls half-way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use cubbyhole_core::{
    Batch, CancellationToken, EntryStore, ExecutionContext, Namespace, NamespacePrefix, Store,
    TenantId,
};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisCluster;
use cubbyhole_testkit::helpers::{bytes, ctx, ns};
use tokio::task::JoinSet;

use crate::clusters::{cli, config, index_names, open, shared_cluster};

/// The number of tenants. Each has one keeper.
const TENANTS: usize = 3;
/// The number of a tenant's namespaces that all clients write to.
const CONTESTED: usize = 4;
/// The duration of the load.
const DURATION: Duration = Duration::from_secs(3);
/// The longest time until a call is dropped, in microseconds. Three commands take about as long.
const LONGEST_CALL: u64 = 1500;

fn contested(tenant: usize, number: usize) -> Namespace {
    ns(&format!("t{tenant}:{number}"))
}

/// Makes a random call that registers or removes namespaces.
async fn random_call(store: &RedisStore) {
    let name = contested(fastrand::usize(..TENANTS), fastrand::usize(..CONTESTED));
    let ctx = ctx();
    match fastrand::u8(..10) {
        0..4 => store.put(&ctx, &name, "k", bytes("v")).await.unwrap(),
        4..7 => store.delete(&ctx, &name, "k").await.unwrap(),
        7 => {
            let batch = Batch::new().put("k", bytes("v")).put("l", bytes("v")).delete("l");
            // The batch is refused, because it names a key twice.
            drop(store.write(&ctx, &name, batch).await);
        }
        8 => drop(store.erase(&ctx, &NamespacePrefix::from(name), 10).await.unwrap()),
        _ => drop(store.evict_expired(&ctx).await.unwrap()),
    }
}

/// Makes random calls, and drops most of them at a random instant.
async fn drop_calls(store: RedisStore, dropped: Arc<AtomicUsize>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if fastrand::u8(..4) == 0 {
            random_call(&store).await;
            continue;
        }
        let limit = Duration::from_micros(fastrand::u64(..LONGEST_CALL));
        let limit = ExecutionContext::new().with_timeout(limit);
        let is_dropped = limit.race(random_call(&store)).await.is_err();
        dropped.fetch_add(usize::from(is_dropped), SeqCst);
    }
}

/// Creates and empties namespaces that no other client uses. Asserts that they are listed exactly
/// while they are live.
async fn keep(
    store: RedisStore,
    tenant: usize,
    all_checks: Arc<AtomicUsize>,
    stop: CancellationToken,
) {
    let prefix = NamespacePrefix::from(ns(&format!("t{tenant}")));
    let tenant_id = TenantId::new(format!("t{tenant}")).unwrap();
    let mut checks = 0;
    while !stop.is_cancelled() {
        let name = ns(&format!("t{tenant}:kept:{}", checks % 3));
        let ctx = ctx();
        store.put(&ctx, &name, "k", bytes("v")).await.unwrap();
        for _ in 0..3 {
            let listed = store.list_namespaces(&ctx, &prefix).await.unwrap();
            assert!(listed.contains(&name), "{name} is live and not listed");
            let under = NamespacePrefix::from(name.clone());
            let listed = store.list_namespaces(&ctx, &under).await.unwrap();
            assert_eq!(listed, std::slice::from_ref(&name));
            let tenants = store.scan_tenants(&ctx, None, 100).await.unwrap();
            assert!(tenants.items.contains(&tenant_id), "{tenant_id} is not listed");
            checks += 1;
            all_checks.fetch_add(1, SeqCst);
        }
        store.delete(&ctx, &name, "k").await.unwrap();
        let listed = store.list_namespaces(&ctx, &prefix).await.unwrap();
        assert!(!listed.contains(&name), "{name} is empty and listed");
    }
}

/// Returns the namespaces with entries, from the raw keys of all masters.
fn live(cluster: &RedisCluster, prefix: &str) -> BTreeSet<String> {
    let mut live = BTreeSet::new();
    for node in &cluster.nodes()[..3] {
        let keys = cli(node, &["KEYS", &format!("{prefix}{{*}}k")]);
        let names = keys.lines().filter_map(|key| key.strip_prefix(prefix)?.strip_prefix('{'));
        live.extend(names.map(|name| name.strip_suffix("}k").unwrap().to_owned()));
    }
    live
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dropped_calls_leave_no_unlisted_or_stale_namespace() {
    let cluster = shared_cluster().await;
    let config = config(cluster.url());
    let prefix = config.prefix().to_owned();
    let store = open(config.clone()).await;
    // A second store has its own connections.
    let other = open(config.clone()).await;
    let stop = CancellationToken::new();
    let (dropped, checks) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    for client in 0..8 {
        let store = if client % 2 == 0 { store.clone() } else { other.clone() };
        tasks.spawn(drop_calls(store, Arc::clone(&dropped), stop.clone()));
    }
    for tenant in 0..TENANTS {
        tasks.spawn(keep(store.clone(), tenant, Arc::clone(&checks), stop.clone()));
    }
    let duration = ExecutionContext::new().with_timeout(DURATION);
    // A busy machine takes longer for the required calls.
    let limit = ExecutionContext::new().with_timeout(Duration::from_secs(60));
    while duration.check().is_ok() || dropped.load(SeqCst) <= 100 || checks.load(SeqCst) <= 30 {
        let slept = limit.sleep(Duration::from_millis(20)).await;
        slept.unwrap_or_else(|_| panic!("{dropped:?} dropped calls, {checks:?} checks"));
        if let Some(ended) = tasks.try_join_next() {
            ended.unwrap();
        }
    }
    stop.cancel();
    tasks.join_all().await;

    // These reads use the same connections, so the servers have run all dropped requests.
    for store in [&store, &other] {
        for number in 0..TENANTS * CONTESTED {
            let name = contested(number % TENANTS, number / TENANTS);
            store.get(&ctx(), &name, "k").await.unwrap();
        }
        store.scan_tenants(&ctx(), None, 100).await.unwrap();
    }
    store.evict_expired(&ctx()).await.unwrap();
    let live = live(cluster, &prefix);
    let listed: BTreeSet<String> = (0..TENANTS)
        .flat_map(|tenant| index_names(cluster, &prefix, &format!("t{tenant}")))
        .collect();
    assert_eq!(listed, live, "listed and live namespaces differ");
    let tenants = index_names(cluster, &prefix, r"\*");
    let wanted: BTreeSet<String> =
        live.iter().map(|name| name.split(':').next().unwrap().to_owned()).collect();
    assert_eq!(tenants, wanted, "listed and live tenants differ");

    for tenant in 0..TENANTS {
        let prefix = NamespacePrefix::from(ns(&format!("t{tenant}")));
        while !store.erase(&ctx(), &prefix, 100).await.unwrap().done {}
    }
    let left: Vec<String> = cluster.nodes()[..3]
        .iter()
        .flat_map(|node| {
            let keys = cli(node, &["KEYS", &format!("{prefix}*")]);
            keys.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    // Only fences remain, and they expire.
    assert!(left.iter().all(|key| key.ends_with("}f") || key.ends_with("}g")), "{left:?}");
}
