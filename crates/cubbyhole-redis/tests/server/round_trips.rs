//! Round trips, counted on the wire. The tests run on one thread, so requests that the client sends
//! together reach the proxy together.

use std::time::Duration;

use cubbyhole_core::{
    Condition, EntryStore, EntryStoreExt, Expiry, GetOptions, PutOptions, RecursiveScanOptions,
    ScanOptions, Store,
};
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{bytes, ctx, ns, tenant, under};
use cubbyhole_testkit::round_trips::{self, Prepared};

use crate::helpers::{cli, shared_server};
use crate::proxy::ProxiedStore;

impl ProxiedStore {
    /// Loads the scripts into the server, and writes the entries that the calls find.
    async fn prepare(&self) -> Prepared {
        let (context, warm) = (ctx(), ns("warm"));
        let slide = GetOptions::new().with_extended_ttl(Duration::from_secs(60));
        self.direct.put(&context, &warm, "k", bytes("old")).await.unwrap();
        self.direct.get_entry(&context, &warm, "k", slide).await.unwrap();
        self.direct.touch(&context, &warm, "k", Expiry::Never, Condition::Always).await.unwrap();
        self.direct.scan(&context, &warm, ScanOptions::new()).await.unwrap();
        self.direct.stat(&context, &warm, &["k"]).await.unwrap();
        self.direct.delete_prefix(&context, &warm, "k", 1).await.unwrap();
        self.direct.take(&context, &warm, "k").await.unwrap();
        self.direct.scan_tenants(&context, None, 10).await.unwrap();
        for number in 0..100 {
            let key = format!("k{number:02}");
            self.direct.put(&ctx(), &ns("acme:hundred"), &key, bytes("old")).await.unwrap();
        }
        let idle = PutOptions::new().with_idle_ttl(Duration::from_secs(3600));
        self.direct
            .put_with_options(&context, &ns("acme:idle"), "k", bytes("v"), idle)
            .await
            .unwrap();
        self.direct.put(&context, &ns("acme:turns"), "summary", bytes("v")).await.unwrap();
        round_trips::prepare(&self.direct).await
    }

    /// Makes every call. Returns the name of each call, its round trips, and the expected number.
    async fn every_call(&self) -> Vec<(&'static str, usize, usize)> {
        let prepared = self.prepare().await;
        let (hundred, store) = (ns("acme:hundred"), &self.store);
        let count = || self.proxy.round_trips();
        let seen = round_trips::every_call(store, prepared, ctx, count).await;
        let mut seen: Vec<_> = seen.into_iter().map(|(name, count)| (name, count, 1)).collect();
        macro_rules! count {
            ($name:literal, $method:ident($($argument:expr),*)) => {
                count!($name, 1, $method($($argument),*))
            };
            ($name:literal, $most:literal, $method:ident($($argument:expr),*)) => {{
                let (context, before) = (ctx(), self.proxy.round_trips());
                let answer = store.$method(&context $(, $argument)*).await;
                seen.push(($name, self.proxy.round_trips() - before, $most));
                answer
            }};
        }

        let page = ScanOptions::new().with_limit(50);
        let keys = count!("a page of keys", scan(&hundred, page.clone().keys_only())).unwrap();
        assert!(keys.items.len() == 50 && keys.next.is_some());
        let values = count!("a page with values", 2, scan(&hundred, page)).unwrap();
        assert!(values.items.len() == 50 && values.next.is_some());
        let back = ScanOptions::new().with_limit(50).reversed();
        let keys = count!("a reversed page of keys", scan(&hundred, back.clone().keys_only()));
        assert_eq!(keys.unwrap().next.as_deref(), Some("k50"));
        let values = count!("a reversed page with values", 2, scan(&hundred, back)).unwrap();
        assert!(values.items.len() == 50 && values.next.is_some());
        let many: Vec<String> = (0..1000).map(|number| format!("k{number:02}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let stats = count!("stat of 1,000 keys", stat(&hundred, &many)).unwrap();
        assert_eq!(stats.iter().flatten().count(), 100);

        let (idle, refresh) = (ns("acme:idle"), GetOptions::new().refreshing());
        let entry = count!("get_entry, refreshing", get_entry(&idle, "k", refresh)).unwrap();
        assert!(entry.unwrap().meta.idle_ttl.is_some());
        count!("get_many, refreshing", get_many(&idle, &["k", "none"], refresh)).unwrap();
        let page = ScanOptions::new().refreshing();
        count!("a refreshing page of keys", scan(&idle, page.clone().keys_only())).unwrap();
        count!("a refreshing page with values", 2, scan(&idle, page)).unwrap();

        let (turns, none) = (ns("acme:turns"), PutOptions::new());
        let two = || vec![bytes("1"), bytes("2")];
        count!("append", 2, append(&turns, "turn-", two(), none)).unwrap();
        count!("append again", 2, append(&turns, "turn-", two(), none)).unwrap();
        assert_eq!(count!("last", 2, last(&turns, "turn-", 3)).unwrap().len(), 3);
        let deleted = count!("delete_prefix", 2, delete_prefix(&turns, "turn-", 10)).unwrap();
        assert_eq!((deleted.removed, deleted.done), (4, true));
        count!("delete_prefix of no key", delete_prefix(&turns, "turn-", 10)).unwrap();
        let recursive = RecursiveScanOptions::new().with_limit(50).keys_only();
        // Two for the names, one for the namespace.
        let all = under("acme:hundred");
        count!("a recursive page of keys", 3, scan_recursive(&all, recursive)).unwrap();
        assert_eq!(count!("list", list(&hundred, None)).unwrap().len(), 100);
        assert_eq!(count!("list with a prefix", list(&hundred, Some("k1"))).unwrap().len(), 10);
        seen
    }
}

#[tokio::test]
async fn every_call_is_one_round_trip_and_a_page_of_values_two() {
    let proxied = ProxiedStore::open(shared_server()).await;
    for pass in ["first", "second"] {
        let seen = proxied.every_call().await;
        assert_eq!(seen.len(), 32);
        check_counts(&seen, pass);
    }
    assert_eq!(proxied.proxy.connections(), 1);
}

#[track_caller]
fn check_counts(seen: &[(&'static str, usize, usize)], pass: &str) {
    let unexpected: Vec<_> = seen.iter().filter(|(_, count, expected)| count != expected).collect();
    assert!(unexpected.is_empty(), "{pass} pass: {unexpected:?}");
}

#[tokio::test]
async fn network_latency_adds_no_round_trip() {
    let proxied = ProxiedStore::open(shared_server()).await;
    proxied.proxy.delay(Duration::from_millis(2));
    check_counts(&proxied.every_call().await, "slow");
}

#[tokio::test]
async fn registration_adds_round_trips_to_first_puts_only() {
    let proxied = ProxiedStore::open(shared_server()).await;
    // Scripts that the server does not know would add round trips.
    proxied.prepare().await;
    let put = async |name: &str| {
        let before = proxied.proxy.round_trips();
        proxied.store.put(&ctx(), &ns(name), "k", bytes("v")).await.unwrap();
        proxied.proxy.round_trips() - before
    };
    let mut counts = Vec::new();
    for name in ["globex:a", "globex:b", "globex:a", "globex", "globex:b"] {
        counts.push(put(name).await);
    }
    assert_eq!(counts, [5, 3, 1, 3, 1]);
    // An empty namespace stays registered until the next sweep.
    proxied.store.delete(&ctx(), &ns("globex:a"), "k").await.unwrap();
    assert_eq!(put("globex:a").await, 1);
}

#[tokio::test]
async fn page_of_namespaces_is_pipelined() {
    let proxied = ProxiedStore::open(shared_server()).await;
    let ProxiedStore { proxy, store, direct, .. } = &proxied;
    // The requests of one call are sent within this delay, unless the machine is busy.
    proxy.delay(Duration::from_millis(100));
    direct.put(&ctx(), &ns("warm"), "k", bytes("v")).await.unwrap();
    direct.scan_tenants(&ctx(), None, 10).await.unwrap();
    direct.delete(&ctx(), &ns("warm"), "k").await.unwrap();
    let mut written = 0;
    for wanted in [1_usize, 15, 100] {
        for number in written..wanted {
            let name = ns(&format!("acme:{number:03}"));
            direct.put(&ctx(), &name, "k", bytes("v")).await.unwrap();
        }
        written = wanted;
        let all = under("acme");
        let first = async || {
            let page = store.scan_namespaces(&ctx(), &all, None, 100).await.unwrap();
            assert_eq!((page.items.len(), page.next), (wanted, None));
        };
        let count = fewest_round_trips(&proxied, 3, first).await;
        assert!((2..=3).contains(&count), "{count} round trips for {wanted} namespaces");

        let after = ns("acme:000");
        let second = async || {
            let page = store.scan_namespaces(&ctx(), &all, Some(&after), 100).await.unwrap();
            assert_eq!(page.items.len(), wanted - 1);
        };
        assert!(fewest_round_trips(&proxied, 2, second).await <= 2);
    }
    let tenants = async || {
        let page = store.scan_tenants(&ctx(), None, 100).await.unwrap();
        assert_eq!(page.items, [tenant("acme")]);
    };
    // One for the tenants, two for the names of each tenant, one for the check that they are live.
    assert!(fewest_round_trips(&proxied, 4, tenants).await <= 4);
}

/// The smallest number of round trips of some calls; stops at a call that makes at most `enough`. A busy
/// machine that sends the requests of one call late can only add round trips.
async fn fewest_round_trips(proxied: &ProxiedStore, enough: usize, call: impl AsyncFn()) -> usize {
    let mut fewest = usize::MAX;
    for _ in 0..10 {
        let before = proxied.proxy.round_trips();
        call().await;
        fewest = fewest.min(proxied.proxy.round_trips() - before);
        if fewest <= enough {
            break;
        }
    }
    fewest
}

#[tokio::test]
async fn forgotten_script_costs_one_extra_round_trip() {
    let server = RedisServer::start().unwrap();
    let proxied = ProxiedStore::open(&server).await;
    proxied.every_call().await;
    cli(&server, &["SCRIPT", "FLUSH"]);
    let (acme, context, page) = (ns("acme"), ctx(), ScanOptions::new().keys_only());
    let mut counts = Vec::new();
    for _ in 0..2 {
        let before = proxied.proxy.round_trips();
        proxied.store.put(&context, &acme, "k", bytes("v")).await.unwrap();
        proxied.store.get_many(&context, &acme, &["k"], GetOptions::new()).await.unwrap();
        proxied.store.scan(&context, &acme, page.clone()).await.unwrap();
        assert!(proxied.store.take(&context, &acme, "k").await.unwrap().is_some());
        counts.push(proxied.proxy.round_trips() - before);
    }
    assert_eq!(counts, [8, 4]);
}
