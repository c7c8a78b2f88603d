//! Round trips, counted on the wire. Everything runs on one thread: what the client sends together
//! the proxy then sees together.

use std::time::Duration;

use cubbyhole_core::{EntryStore, Expiry, GetOptions, ScanOptions, Store};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{bytes, ctx, ns, tenant, under};
use cubbyhole_testkit::round_trips::{self, Prepared};

use crate::by_hand::{cli, new_prefix, open, shared};
use crate::proxy::Proxy;

/// A store whose connection leads through the proxy, and one beside it.
struct Wired {
    proxy: Proxy,
    store: RedisStore,
    direct: RedisStore,
}

impl Wired {
    async fn before(server: &RedisServer) -> Self {
        let (proxy, prefix) = (Proxy::before(server).await, new_prefix());
        let store = open(&proxy.url(), &prefix).await;
        let direct = open(server.url(), &prefix).await;
        Self { proxy, store, direct }
    }

    /// What the calls find, on a server that knows the scripts.
    async fn prepare(&self) -> Prepared {
        let (context, warm) = (ctx(), ns("warm"));
        let slide = GetOptions::new().with_extended_ttl(Duration::from_secs(60));
        self.direct.put(&context, &warm, "k", bytes("old")).await.unwrap();
        self.direct.get_entry(&context, &warm, "k", slide).await.unwrap();
        self.direct.touch(&context, &warm, "k", Expiry::Never).await.unwrap();
        self.direct.scan(&context, &warm, ScanOptions::new()).await.unwrap();
        self.direct.take(&context, &warm, "k").await.unwrap();
        self.direct.scan_tenants(&context, None, 10).await.unwrap();
        for number in 0..100 {
            let key = format!("k{number:02}");
            self.direct.put(&ctx(), &ns("acme:hundred"), &key, bytes("old")).await.unwrap();
        }
        round_trips::prepare(&self.direct).await
    }

    /// Makes every call, and tells how many round trips each took and may take.
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
        assert_eq!(count!("list", list(&hundred, None)).unwrap().len(), 100);
        assert_eq!(count!("list with a prefix", list(&hundred, Some("k1"))).unwrap().len(), 10);
        seen
    }
}

#[tokio::test]
async fn every_call_is_one_round_trip_and_a_page_with_values_two() {
    let wired = Wired::before(shared()).await;
    for pass in ["first", "second"] {
        let seen = wired.every_call().await;
        assert_eq!(seen.len(), 19);
        let more: Vec<_> = seen.iter().filter(|(_, turns, most)| turns != most).collect();
        assert!(more.is_empty(), "{pass} pass: {more:?}");
    }
    assert_eq!(wired.proxy.connections(), 1);
}

#[tokio::test]
async fn a_far_server_takes_no_more_round_trips() {
    let wired = Wired::before(shared()).await;
    wired.proxy.delay(Duration::from_millis(2));
    let seen = wired.every_call().await;
    let more: Vec<_> = seen.iter().filter(|(_, turns, most)| turns != most).collect();
    assert!(more.is_empty(), "{more:?}");
}

#[tokio::test]
async fn the_first_put_of_a_tenant_is_five_of_a_namespace_three_and_then_one() {
    let wired = Wired::before(shared()).await;
    // The server knows the scripts by then.
    wired.prepare().await;
    let mut turns = Vec::new();
    for name in ["globex:a", "globex:b", "globex:a", "globex", "globex:b"] {
        let before = wired.proxy.round_trips();
        wired.store.put(&ctx(), &ns(name), "k", bytes("v")).await.unwrap();
        turns.push(wired.proxy.round_trips() - before);
    }
    assert_eq!(turns, [5, 3, 1, 3, 1]);
    // A namespace that was emptied and not swept is still registered.
    wired.store.delete(&ctx(), &ns("globex:a"), "k").await.unwrap();
    let before = wired.proxy.round_trips();
    wired.store.put(&ctx(), &ns("globex:a"), "k", bytes("v")).await.unwrap();
    assert_eq!(wired.proxy.round_trips() - before, 1);
}

#[tokio::test]
async fn a_page_of_namespaces_asks_all_of_them_in_one_flight() {
    let wired = Wired::before(shared()).await;
    // Longer than a slow machine takes to send them all.
    wired.proxy.delay(Duration::from_millis(100));
    wired.direct.put(&ctx(), &ns("warm"), "k", bytes("v")).await.unwrap();
    wired.direct.scan_tenants(&ctx(), None, 10).await.unwrap();
    wired.direct.delete(&ctx(), &ns("warm"), "k").await.unwrap();
    let mut there = 0;
    for wanted in [1_usize, 15, 100] {
        for number in there..wanted {
            let name = ns(&format!("acme:{number:03}"));
            wired.direct.put(&ctx(), &name, "k", bytes("v")).await.unwrap();
        }
        there = wanted;
        let before = wired.proxy.round_trips();
        let all = under("acme");
        let page = wired.store.scan_namespaces(&ctx(), &all, None, 100).await.unwrap();
        let turns = wired.proxy.round_trips() - before;
        assert_eq!((page.items.len(), page.next), (wanted, None));
        assert!((2..=3).contains(&turns), "{turns} round trips for {wanted}");

        let after = ns("acme:000");
        let before = wired.proxy.round_trips();
        let page = wired.store.scan_namespaces(&ctx(), &all, Some(&after), 100).await.unwrap();
        assert_eq!(page.items.len(), wanted - 1);
        assert!(wired.proxy.round_trips() - before <= 2);
    }
    let before = wired.proxy.round_trips();
    let page = wired.store.scan_tenants(&ctx(), None, 100).await.unwrap();
    assert_eq!(page.items, [tenant("acme")]);
    // The tenants, then the names of each in two steps, then whether they are live.
    assert!(wired.proxy.round_trips() - before <= 4);
}

#[tokio::test]
async fn a_script_that_the_server_has_forgotten_costs_one_round_trip_once() {
    let server = RedisServer::start().unwrap();
    let wired = Wired::before(&server).await;
    wired.every_call().await;
    cli(&server, &["SCRIPT", "FLUSH"]);
    let (acme, context, page) = (ns("acme"), ctx(), ScanOptions::new().keys_only());
    let mut turns = Vec::new();
    for _ in 0..2 {
        let before = wired.proxy.round_trips();
        wired.store.put(&context, &acme, "k", bytes("v")).await.unwrap();
        wired.store.get_many(&context, &acme, &["k"]).await.unwrap();
        wired.store.scan(&context, &acme, page.clone()).await.unwrap();
        assert!(wired.store.take(&context, &acme, "k").await.unwrap().is_some());
        turns.push(wired.proxy.round_trips() - before);
    }
    assert_eq!(turns, [8, 4]);
}
