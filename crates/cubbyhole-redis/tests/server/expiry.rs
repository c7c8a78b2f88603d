//! Expiry at the exact millisecond, expired keys in the indexes, and the sweep.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use cubbyhole_core::{
    Batch, Condition, EntryStore, ErrorKind, ExecutionContext, Expiry, GetOptions, PutOptions,
    ScanOptions, Store, Timestamp, Usage, Version,
};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{bytes, ctx, ns, tenant, under};
use futures_util::future::join_all;
use tokio::task::block_in_place;

use crate::helpers::{cli, cli_number, keys, open, server_millis};
use crate::proxy::{Gate, RedisProxy, script_keys};

const MILLISECOND: Duration = Duration::from_millis(1);

/// The calls that depend on an entry. Each has its own entry, whose key is the call's name.
const CALLS: [&str; 9] = [
    "delete_entry",
    "extend",
    "get",
    "get_entry",
    "if absent",
    "if version",
    "many",
    "take",
    "touch",
];

fn clock_server() -> RedisServer {
    block_in_place(RedisServer::start_with_clock).unwrap()
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Returns whether a call finds its entry.
async fn is_present(store: &RedisStore, name: &str, call: &str, version: Version) -> bool {
    let (context, acme, options) = (ctx(), ns(name), PutOptions::new());
    let put = |condition| store.put_entry(&context, &acme, call, bytes("new"), options, condition);
    match call {
        "delete_entry" => {
            store.delete_entry(&context, &acme, call, Condition::Always).await.unwrap()
        }
        "extend" => {
            let slide = GetOptions::new().with_extended_ttl(millis(60_000));
            store.get_entry(&context, &acme, call, slide).await.unwrap().is_some()
        }
        "get" => store.get(&context, &acme, call).await.unwrap().is_some(),
        "get_entry" => {
            store.get_entry(&context, &acme, call, GetOptions::new()).await.unwrap().is_some()
        }
        "if absent" => match put(Condition::IfAbsent).await {
            Ok(_) => false,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Conflict);
                assert_eq!(error.current_version(), Some(version));
                true
            }
        },
        "if version" => match put(Condition::IfVersion(version)).await {
            Ok(_) => true,
            Err(error) => {
                assert_eq!((error.kind(), error.current_version()), (ErrorKind::Conflict, None));
                false
            }
        },
        "many" => {
            let [one] = store
                .get_many(&context, &acme, &[call], GetOptions::new())
                .await
                .unwrap()
                .try_into()
                .unwrap();
            one.unwrap().is_some()
        }
        "take" => store.take(&context, &acme, call).await.unwrap().is_some(),
        _ => store.touch(&context, &acme, call, Expiry::Never, Condition::Always).await.unwrap(),
    }
}

/// Returns whether the listing calls find the entries of a namespace. Asserts that each of them
/// finds all or none.
async fn are_listed(store: &RedisStore, name: &str, count: usize) -> bool {
    let (context, acme) = (ctx(), ns(name));
    let all = under(name);
    let usage = store.usage(&context, &all).await.unwrap();
    let keys_only = ScanOptions::new().keys_only();
    let pages = store.scan_namespaces(&context, &all, None, 10).await.unwrap();
    let tenants = store.scan_tenants(&context, None, 10).await.unwrap();
    let seen = [
        store.list(&context, &acme, None).await.unwrap().len(),
        store.scan(&context, &acme, keys_only).await.unwrap().items.len(),
        store.scan(&context, &acme, ScanOptions::new()).await.unwrap().items.len(),
        usize::try_from(usage.entries).unwrap(),
        count - usize::try_from(usage.expired).unwrap(),
        count * usize::try_from(usage.namespaces).unwrap(),
        count * pages.items.len(),
        count * tenants.items.iter().filter(|found| **found == acme.tenant()).count(),
    ];
    assert!(seen == [0; 8] || seen == [count; 8], "the listings disagree: {seen:?}");
    seen[0] > 0
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_sees_expiry_at_the_exact_millisecond() {
    let server = clock_server();
    let store = open(server.url(), "p:").await;
    for (round, ttl) in [1_u64, 2, 3, 1000].into_iter().enumerate() {
        for (when, present) in [("before", true), ("at", false)] {
            let name = format!("{when}{round}");
            let mut versions = Vec::new();
            for (at, call) in CALLS.iter().enumerate() {
                let expires = Timestamp::from_millis(server_millis(&server) + ttl).unwrap();
                let options = match at % 2 {
                    0 => PutOptions::new().with_ttl(millis(ttl)),
                    _ => PutOptions::new().with_expires_at(expires),
                };
                let (acme, always) = (ns(&name), Condition::Always);
                let put = store.put_entry(&ctx(), &acme, call, bytes("old"), options, always).await;
                versions.push(put.unwrap());
            }
            server.advance(millis(ttl) - MILLISECOND).unwrap();
            if present {
                // One microsecond before the expiry.
                server.advance(MILLISECOND - Duration::from_micros(1)).unwrap();
            } else {
                server.advance(MILLISECOND).unwrap();
            }
            assert_eq!(are_listed(&store, &name, CALLS.len()).await, present, "{when} {ttl} ms");
            for (call, version) in CALLS.iter().zip(versions) {
                let found = is_present(&store, &name, call, version).await;
                assert_eq!(found, present, "{call} {when} {ttl} ms");
            }
            if present {
                server.advance(Duration::from_micros(1)).unwrap();
            }
            server.advance(MILLISECOND).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_expiry_is_exact_to_the_millisecond() {
    let server = clock_server();
    let store = open(server.url(), "p:").await;
    let (acme, context) = (ns("acme"), ctx());
    let present = async || store.get(&context, &acme, "k").await.unwrap().is_some();
    for ttl in [1_u64, 2, 500] {
        let long = PutOptions::new().with_ttl(millis(100_000));
        store.put_with_options(&context, &acme, "k", bytes("v"), long).await.unwrap();
        assert!(
            store
                .touch(&context, &acme, "k", Expiry::After(millis(ttl)), Condition::Always)
                .await
                .unwrap()
        );
        server.advance(millis(ttl) - Duration::from_micros(1)).unwrap();
        assert!(present().await, "{ttl} ms after a touch");
        server.advance(Duration::from_micros(1)).unwrap();
        assert!(!present().await, "{ttl} ms after a touch");

        let short = PutOptions::new().with_ttl(MILLISECOND);
        store.put_with_options(&context, &acme, "k", bytes("v"), short).await.unwrap();
        let slide = GetOptions::new().with_extended_ttl(millis(ttl + 1));
        assert!(store.get_entry(&context, &acme, "k", slide).await.unwrap().is_some());
        server.advance(millis(ttl)).unwrap();
        assert!(present().await, "{ttl} ms after an extension");
        server.advance(MILLISECOND).unwrap();
        assert!(!present().await, "{ttl} ms after an extension");

        let idle = PutOptions::new().with_idle_ttl(millis(ttl + 1));
        store.put_with_options(&context, &acme, "k", bytes("v"), idle).await.unwrap();
        server.advance(millis(ttl)).unwrap();
        let refresh = GetOptions::new().refreshing();
        assert!(store.get_entry(&context, &acme, "k", refresh).await.unwrap().is_some());
        server.advance(millis(ttl + 1) - Duration::from_micros(1)).unwrap();
        assert!(present().await, "{ttl} ms after a refresh");
        server.advance(Duration::from_micros(1)).unwrap();
        assert!(!present().await, "{ttl} ms after a refresh");
    }
    // An entry that is touched with an expiry of now is absent. A put without a TTL never expires.
    store.put(&context, &acme, "k", bytes("v")).await.unwrap();
    let now = Timestamp::from_millis(server_millis(&server)).unwrap();
    assert!(store.touch(&context, &acme, "k", Expiry::At(now), Condition::Always).await.unwrap());
    assert!(!present().await);
    let short = PutOptions::new().with_ttl(MILLISECOND);
    store.put_with_options(&context, &acme, "k", bytes("v"), short).await.unwrap();
    store.put(&context, &acme, "k", bytes("v")).await.unwrap();
    server.advance(millis(1_000_000)).unwrap();
    assert!(present().await);
    assert_eq!(store.evict_expired(&context).await.unwrap(), 0);
    assert!(present().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn index_keeps_an_expired_key_until_the_sweep() {
    let server = clock_server();
    let store = open(server.url(), "p:").await;
    let (acme, options) = (ns("acme"), PutOptions::new().with_ttl(millis(1000)));
    store.put_with_options(&ctx(), &acme, "k", bytes("value"), options).await.unwrap();
    let value = "p:{acme}vk";
    let deadline = cli_number(&server, &["PEXPIRETIME", value]);
    assert_eq!(deadline, server_millis(&server) + 999, "Redis keeps a key at its expiry instant");
    server.advance(millis(1000)).unwrap();
    assert_eq!(cli_number(&server, &["EXISTS", value]), 0);
    let mut usage = store.usage(&ctx(), &under("acme")).await.unwrap();
    assert_eq!(usage, Usage { namespaces: 0, entries: 0, bytes: Some(0), expired: 1 });
    assert_eq!(store.evict_expired(&ctx()).await.unwrap(), 1);
    usage = store.usage(&ctx(), &under("acme")).await.unwrap();
    assert_eq!(usage, Usage { bytes: Some(0), ..Usage::default() });
    let left: Vec<String> = keys(&server, "p:").into_iter().collect();
    assert_eq!(left, ["p:{acme}f", "p:{acme}g"], "only fences remain");
    server.advance(Duration::from_secs(601)).unwrap();
    assert!(keys(&server, "p:").is_empty());
}

/// Returns the number of expired members in an index of expiries.
fn expired_members(server: &RedisServer, index: &str) -> u64 {
    cli_number(server, &["ZCOUNT", index, "0", &server_millis(server).to_string()])
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_index_members_are_bounded_without_a_sweep() {
    let server = clock_server();
    let store = open(server.url(), "p:").await;
    let (context, acme) = (ctx(), ns("acme"));
    let short = PutOptions::new().with_ttl(millis(5));
    let mut most = 0;
    for chunk in 0..200 {
        let puts = (0..100).map(|at| {
            let (store, context, acme) = (&store, &context, &acme);
            let key = format!("{chunk} {at}");
            async move { store.put_with_options(context, acme, &key, bytes("v"), short).await }
        });
        for put in join_all(puts).await {
            put.unwrap();
        }
        server.advance(millis(10)).unwrap();
        most = most.max(expired_members(&server, "p:{acme}x"));
    }
    assert!((1000..=1200).contains(&most), "{most} expired members");
    let others =
        [cli_number(&server, &["ZCARD", "p:{acme}k"]), cli_number(&server, &["HLEN", "p:{acme}m"])];
    assert!(others.iter().all(|count| *count <= 1200), "{others:?}");

    let many = ns("many");
    let mut most = 0;
    for chunk in 0..30 {
        let put = |batch: Batch<_>, at| {
            batch.put_with(format!("{chunk} {at}"), bytes("v"), short, Condition::Always)
        };
        store.write(&context, &many, (0..500).fold(Batch::new(), put)).await.unwrap();
        server.advance(millis(10)).unwrap();
        most = most.max(expired_members(&server, "p:{many}x"));
    }
    assert!((1000..=1600).contains(&most), "{most} expired members");
    // Only expired members are removed.
    let last = PutOptions::new().with_ttl(millis(60_000));
    store.put_with_options(&context, &many, "live", bytes("v"), last).await.unwrap();
    assert_eq!(store.list(&context, &many, None).await.unwrap(), ["live"]);
}

/// Writes 50,000 entries that have expired and one live entry into one namespace.
async fn fill(server: &RedisServer, store: &RedisStore) {
    let ttl = PutOptions::new().with_ttl(Duration::from_secs(60));
    for chunk in 0..50 {
        let put = |batch: Batch<_>, at| {
            batch.put_with(format!("{chunk} {at}"), bytes("v"), ttl, Condition::Always)
        };
        let batch = (0..1000).fold(Batch::new(), put);
        store.write(&ctx(), &ns("acme"), batch).await.unwrap();
    }
    store.put(&ctx(), &ns("acme"), "live", bytes("v")).await.unwrap();
    server.advance(Duration::from_secs(60)).unwrap();
}

/// Holds the sweep of the namespace at that step.
fn hold_sweep_at(proxy: &RedisProxy, step: usize) {
    let mut steps = 0;
    proxy.set_rule(move |command| {
        steps += usize::from(script_keys(command).contains(&"p:{acme}x".to_owned()));
        if steps == step { Gate::Hold } else { Gate::Pass }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn large_sweep_lets_other_calls_run_between_steps() {
    let server = clock_server();
    let proxy = RedisProxy::start(&server).await;
    let store = open(&proxy.url(), "p:").await;
    let direct = open(server.url(), "p:").await;
    fill(&server, &direct).await;
    // Listings skip expired entries, and do not end early.
    assert_eq!(direct.list(&ctx(), &ns("acme"), None).await.unwrap(), ["live"]);
    let page = direct.scan(&ctx(), &ns("acme"), ScanOptions::new().with_limit(1)).await.unwrap();
    assert_eq!((page.items.len(), page.next), (1, None));

    hold_sweep_at(&proxy, 50);
    let is_over = AtomicUsize::new(0);
    let (context, acme) = (ctx(), ns("acme"));
    let sweep = async {
        let swept = store.evict_expired(&context).await;
        is_over.store(1, SeqCst);
        swept
    };
    let others = async {
        proxy.until_held().await;
        let left = expired_members(&server, "p:{acme}x");
        assert!(left > 0 && left < 50_000, "{left} members remain during the sweep");
        assert_eq!(direct.get(&context, &acme, "live").await.unwrap(), Some(bytes("v")));
        assert_eq!(is_over.load(SeqCst), 0);
        proxy.release();
        // Calls also run on the connection of the sweep.
        let mut answered = 0;
        while is_over.load(SeqCst) == 0 {
            assert_eq!(store.get(&context, &acme, "live").await.unwrap(), Some(bytes("v")));
            answered += usize::from(is_over.load(SeqCst) == 0);
        }
        answered
    };
    let (swept, answered) = tokio::join!(sweep, others);
    assert_eq!(swept.unwrap(), 50_000);
    assert!(answered > 1, "no other call was answered before the sweep ended");
    assert_eq!(expired_members(&server, "p:{acme}x"), 0);
    assert_eq!(cli_number(&server, &["ZCARD", "p:{acme}k"]), 1);
    assert_eq!(cli_number(&server, &["HLEN", "p:{acme}m"]), 1);
    assert_eq!(direct.list(&ctx(), &acme, None).await.unwrap(), ["live"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sweeps_after_a_cancelled_one_count_each_entry_once() {
    let server = clock_server();
    let proxy = RedisProxy::start(&server).await;
    let store = open(&proxy.url(), "p:").await;
    let direct = open(server.url(), "p:").await;
    fill(&server, &direct).await;
    hold_sweep_at(&proxy, 3);
    let early = ExecutionContext::new();
    let (swept, ()) = tokio::join!(store.evict_expired(&early), async {
        proxy.until_held().await;
        early.cancel();
    });
    let error = swept.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(error.may_have_been_applied(), "two steps were done");
    let left = usize::try_from(expired_members(&server, "p:{acme}x")).unwrap();
    assert!(left > 0 && left < 50_000, "{left}");
    proxy.release();

    let contexts = [ctx(), ctx(), ctx(), ctx()];
    let sweeps = contexts.iter().map(|context| store.evict_expired(context));
    let swept: Vec<usize> = join_all(sweeps).await.into_iter().map(Result::unwrap).collect();
    // The server may also apply the step that was held.
    let sum: usize = swept.iter().sum();
    assert!(sum == left || sum + 500 == left, "{swept:?} of {left}");
    assert_eq!(direct.list(&ctx(), &ns("acme"), None).await.unwrap(), ["live"]);
    let tenants = direct.scan_tenants(&ctx(), None, 10).await.unwrap();
    assert_eq!(tenants.items, [tenant("acme")]);
    assert_eq!(
        cli(&server, &["ZSCORE", "p:{acme}x", "\0"]),
        "-1",
        "the namespace is not registered"
    );
}
