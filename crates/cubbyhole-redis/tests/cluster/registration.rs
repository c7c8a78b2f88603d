//! Clients that create, empty and sweep the same names at once and go away in the middle of it.

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

use crate::clusters::{cli, config, open, owner, unharmed};

/// Of which each has a keeper that knows what is live.
const TENANTS: usize = 3;
/// Of a tenant, that everybody writes to.
const CONTESTED: usize = 4;
const LASTS: Duration = Duration::from_secs(3);
/// The longest after which a client goes away, in microseconds: about what three commands take.
const LONGEST_LIFE: u64 = 1500;

fn contested(tenant: usize, number: usize) -> Namespace {
    ns(&format!("t{tenant}:{number}"))
}

/// One call, any of those that register and tidy.
async fn something(store: &RedisStore) {
    let name = contested(fastrand::usize(..TENANTS), fastrand::usize(..CONTESTED));
    let ctx = ctx();
    match fastrand::u8(..10) {
        0..4 => store.put(&ctx, &name, "k", bytes("v")).await.unwrap(),
        4..7 => store.delete(&ctx, &name, "k").await.unwrap(),
        7 => {
            let batch = Batch::new().put("k", bytes("v")).put("l", bytes("v")).delete("l");
            // One key twice is refused.
            drop(store.write(&ctx, &name, batch).await);
        }
        8 => drop(store.erase(&ctx, &NamespacePrefix::from(name), 10).await.unwrap()),
        _ => drop(store.evict_expired(&ctx).await.unwrap()),
    }
}

/// Does one thing after another, and goes away in the middle of most.
async fn live_briefly(store: RedisStore, cut: Arc<AtomicUsize>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if fastrand::u8(..4) == 0 {
            something(&store).await;
            continue;
        }
        let life = Duration::from_micros(fastrand::u64(..LONGEST_LIFE));
        let life = ExecutionContext::new().with_timeout(life);
        // The future is dropped, wherever it is.
        cut.fetch_add(usize::from(life.race(something(&store)).await.is_err()), SeqCst);
    }
}

/// Has names of its own among those that come and go, and knows when they are live.
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

/// The names in an index, by the server's own word.
fn index(cluster: &RedisCluster, prefix: &str, tag: &str) -> BTreeSet<String> {
    let key = format!("{prefix}{{{tag}}}n");
    let members = cli(&cluster.nodes()[owner(cluster, tag)], &["ZRANGE", &key, "0", "-1"]);
    let mut names = BTreeSet::new();
    for member in members.lines().filter(|member| *member != "\0") {
        let (name, token) = member.split_once('\0').unwrap();
        assert!(token.parse::<u64>().is_ok(), "{member:?}");
        assert!(names.insert(name.to_owned()), "{name} is listed twice");
    }
    names
}

/// Every namespace that has keys, by the server's own word.
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
async fn clients_that_go_away_in_the_middle_leave_nothing_unlisted_and_nothing_listed_for_ever() {
    let cluster = unharmed().await;
    let config = config(cluster.url());
    let prefix = config.prefix().to_owned();
    let store = open(config.clone()).await;
    // Connections of their own, which end with their last call.
    let other = open(config.clone()).await;
    let stop = CancellationToken::new();
    let (cut, checks) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    for client in 0..8 {
        let store = if client % 2 == 0 { store.clone() } else { other.clone() };
        tasks.spawn(live_briefly(store, Arc::clone(&cut), stop.clone()));
    }
    for tenant in 0..TENANTS {
        tasks.spawn(keep(store.clone(), tenant, Arc::clone(&checks), stop.clone()));
    }
    let lasts = ExecutionContext::new().with_timeout(LASTS);
    // A busy machine gets more time.
    let limit = ExecutionContext::new().with_timeout(Duration::from_secs(60));
    while lasts.check().is_ok() || cut.load(SeqCst) <= 100 || checks.load(SeqCst) <= 30 {
        let slept = limit.sleep(Duration::from_millis(20)).await;
        slept.unwrap_or_else(|_| panic!("{cut:?} cut short, {checks:?} checks"));
        if let Some(ended) = tasks.try_join_next() {
            ended.unwrap();
        }
    }
    stop.cancel();
    tasks.join_all().await;

    // What was sent and not awaited is done before this, on the same connections.
    for store in [&store, &other] {
        for number in 0..TENANTS * CONTESTED {
            let name = contested(number % TENANTS, number / TENANTS);
            store.get(&ctx(), &name, "k").await.unwrap();
        }
        store.scan_tenants(&ctx(), None, 100).await.unwrap();
    }
    store.evict_expired(&ctx()).await.unwrap();
    let live = live(cluster, &prefix);
    let listed: BTreeSet<String> =
        (0..TENANTS).flat_map(|tenant| index(cluster, &prefix, &format!("t{tenant}"))).collect();
    assert_eq!(listed, live, "listed, and live");
    let tenants = index(cluster, &prefix, r"\*");
    let wanted: BTreeSet<String> =
        live.iter().map(|name| name.split(':').next().unwrap().to_owned()).collect();
    assert_eq!(tenants, wanted, "listed tenants, and live ones");

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
    // Nothing but fences, which end by themselves.
    assert!(left.iter().all(|key| key.ends_with("}f") || key.ends_with("}g")), "{left:?}");
}
