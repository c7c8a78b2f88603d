//! Recursive scans: what they send, and namespaces that are listed but empty or damaged.

use std::time::Duration;

use cubbyhole_core::{
    Batch, Bytes, EntryStore, ErrorKind, ExecutionContext, Namespace, Page, Position, PutOptions,
    RecursiveScanOptions, Result, ScanItem, Store,
};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{bytes, ctx, ns, under};
use tokio::task::block_in_place;

use crate::helpers::{cli, open, replace_with_list, shared_server};
use crate::proxy::{Command, Gate, ProxiedStore, RedisProxy, script_keys};

type RecursivePage = Page<(Namespace, ScanItem<Bytes>), Position>;

/// Returns whether a command asks a namespace for keys.
fn asks_for_keys(command: &Command) -> bool {
    script_keys(command).first().is_some_and(|key| key.ends_with("}k"))
}

/// Returns whether a command reads values.
fn reads_values(command: &Command) -> bool {
    script_keys(command).get(1).is_some_and(|key| key.contains("}v"))
}

/// Returns the number of keys for which a command asks.
fn wanted(command: &Command) -> usize {
    // EVALSHA, the digest, the number of keys, the keys, from, to, the limit.
    let at = 3 + script_keys(command).len() + 2;
    String::from_utf8_lossy(&command[at]).parse().unwrap()
}

/// Fills namespaces with this number of entries each, whose values are the names of the namespaces.
async fn fill(store: &RedisStore, namespaces: &[(&str, usize)]) {
    for (name, entries) in namespaces {
        for chunk in (0..*entries).collect::<Vec<_>>().chunks(1000) {
            let put = |batch: Batch<Bytes>, at: &usize| batch.put(format!("{at:06}"), bytes(name));
            store.write(&ctx(), &ns(name), chunk.iter().fold(Batch::new(), put)).await.unwrap();
        }
    }
}

async fn page(
    store: &RedisStore,
    limit: usize,
    values: bool,
    after: Option<Position>,
) -> Result<RecursivePage> {
    let mut options = RecursiveScanOptions::new().with_limit(limit);
    if !values {
        options = options.keys_only();
    }
    if let Some(after) = after {
        options = options.with_after(after);
    }
    store.scan_recursive(&ctx(), &under("acme"), options).await
}

/// Returns the places of all entries, page by page.
async fn all(store: &RedisStore, limit: usize) -> Vec<(String, String)> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = page(store, limit, true, after).await.unwrap();
        for (name, item) in page.items {
            assert_eq!(item.value.unwrap().unwrap(), bytes(name.as_str()));
            found.push((name.to_string(), item.key));
        }
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

#[tokio::test]
async fn pages_of_every_size_have_the_order_of_the_places() {
    let proxied = ProxiedStore::open(shared_server()).await;
    // The text order of these names is not the order of their segments.
    let names = ["acme", "acme:a", "acme:a-b", "acme:a/x", "acme:a:b", r"acme:a\:b", "acme:{b}"];
    let mut sizes: Vec<(&str, usize)> =
        names.iter().zip([3, 1, 9, 2, 30, 1, 5]).map(|(n, s)| (*n, s)).collect();
    fill(&proxied.direct, &sizes).await;
    fill(&proxied.direct, &[("acme-x", 3), ("acme2", 3), ("globex:acme", 3)]).await;
    sizes.sort_unstable();
    let expected: Vec<(String, String)> = sizes
        .iter()
        .flat_map(|(name, size)| (0..*size).map(|at| ((*name).to_owned(), format!("{at:06}"))))
        .collect();
    for limit in (1..12).chain([50, 51, 52, 1000]) {
        assert_eq!(all(&proxied.direct, limit).await, expected, "{limit}");
    }
}

#[tokio::test]
async fn page_of_one_large_namespace_asks_only_for_its_limit() {
    let ProxiedStore { proxy, store, direct, .. } = ProxiedStore::open(shared_server()).await;
    fill(&direct, &[("acme:large", 3000)]).await;
    page(&store, 100, true, None).await.unwrap();
    let mut after = None;
    for _ in 0..3 {
        proxy.take_commands();
        let found = page(&store, 100, true, after).await.unwrap();
        assert_eq!(found.items.len(), 100);
        let commands = proxy.take_commands();
        let asked: Vec<usize> =
            commands.iter().filter(|c| asks_for_keys(c)).map(|c| wanted(c)).collect();
        assert_eq!(asked, [101]);
        assert_eq!(commands.iter().filter(|c| reads_values(c)).count(), 1);
        after = found.next;
    }
}

#[tokio::test]
async fn page_of_small_namespaces_asks_few_more_than_it_returns() {
    let ProxiedStore { proxy, store, direct, .. } = ProxiedStore::open(shared_server()).await;
    let names: Vec<String> = (0..300).map(|number| format!("acme:{number:03}")).collect();
    let sizes: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 10)).collect();
    fill(&direct, &sizes).await;
    page(&store, 100, true, None).await.unwrap();
    let mut after = None;
    for _ in 0..5 {
        proxy.take_commands();
        let found = page(&store, 95, true, after).await.unwrap();
        assert_eq!(found.items.len(), 95);
        let commands = proxy.take_commands();
        let asked = commands.iter().filter(|command| asks_for_keys(command)).count();
        assert!((10..=10 + 9).contains(&asked), "{asked} namespaces were asked");
        let read = commands.iter().filter(|command| reads_values(command)).count();
        assert!((10..=11).contains(&read), "the values of {read} namespaces were read");
        after = found.next;
    }
    let first: Vec<_> = all(&store, 1000).await;
    assert_eq!(first.len(), 3000);
}

#[tokio::test]
async fn at_most_eight_namespaces_are_asked_at_the_same_time() {
    let ProxiedStore { proxy, store, direct, .. } = ProxiedStore::open(shared_server()).await;
    let names: Vec<String> = (0..40).map(|number| format!("acme:{number:02}")).collect();
    let sizes: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    fill(&direct, &sizes).await;
    page(&store, 100, true, None).await.unwrap();
    // The proxy answers slowly, so requests that are sent at the same time are one round trip.
    proxy.delay(Duration::from_millis(20));
    let before = proxy.round_trips();
    assert_eq!(page(&store, 100, false, None).await.unwrap().items.len(), 40);
    let trips = proxy.round_trips() - before;
    // Two for the names, at least five for forty namespaces.
    assert!((7..20).contains(&trips), "{trips} round trips");
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_without_live_entries_are_skipped() {
    let server = block_in_place(RedisServer::start_with_clock).unwrap();
    let store = open(server.url(), "p:").await;
    let names: Vec<String> = (0..60).map(|number| format!("acme:{number:02}")).collect();
    let brief = PutOptions::new().with_ttl(Duration::from_secs(1));
    for name in &names {
        store.put_with_options(&ctx(), &ns(name), "k", bytes("brief"), brief).await.unwrap();
    }
    fill(&store, &[("acme:30", 2), ("acme:59", 2)]).await;
    store.put(&ctx(), &ns("acme:45"), "gone", bytes("v")).await.unwrap();
    store.delete(&ctx(), &ns("acme:45"), "gone").await.unwrap();
    server.advance(Duration::from_secs(1)).unwrap();
    let expected: Vec<(String, String)> = ["acme:30", "acme:59"]
        .iter()
        .flat_map(|name| ["000000", "000001"].map(|key| ((*name).to_owned(), key.to_owned())))
        .collect();
    for limit in [1, 2, 3, 4, 5, 100] {
        assert_eq!(all(&store, limit).await, expected, "{limit}");
    }
}

#[tokio::test]
async fn entries_deleted_during_the_scan_are_not_returned() {
    let ProxiedStore { proxy, store, direct, .. } = ProxiedStore::open(shared_server()).await;
    fill(&direct, &[("acme:a", 2), ("acme:b", 2)]).await;
    page(&store, 10, true, None).await.unwrap();
    proxy.hold_first(reads_values);
    let (found, ()) = tokio::join!(page(&store, 3, true, None), async {
        proxy.until_held().await;
        direct.delete(&ctx(), &ns("acme:b"), "000000").await.unwrap();
        direct.delete(&ctx(), &ns("acme:a"), "000001").await.unwrap();
        proxy.release();
    });
    let found = found.unwrap();
    // The other values of the page may have been read before the deletes.
    assert!((1..=2).contains(&found.items.len()), "{found:?}");
    let next = found.next.unwrap();
    assert_eq!((next.namespace, next.key.as_str()), (ns("acme:b"), "000000"));
    assert_eq!(
        page(&store, 3, true, Some(Position { namespace: ns("acme:b"), key: next.key }))
            .await
            .unwrap()
            .items
            .len(),
        1
    );
}

#[tokio::test]
async fn page_ends_at_64_mib_of_values_across_namespaces() {
    let proxied = ProxiedStore::open(shared_server()).await;
    let (store, mib) = (&proxied.direct, 1024 * 1024);
    for number in 0..5 {
        let name = ns(&format!("acme:{number}"));
        store.put(&ctx(), &name, "k", Bytes::from(vec![b'v'; 15 * mib])).await.unwrap();
    }
    let found = page(store, 100, true, None).await.unwrap();
    assert_eq!(found.items.len(), 4);
    assert_eq!(found.next.as_ref().map(|next| next.namespace.as_str()), Some("acme:3"));
    let rest = page(store, 100, true, found.next).await.unwrap();
    assert_eq!((rest.items.len(), rest.next), (1, None));
    assert_eq!(page(store, 100, false, None).await.unwrap().items.len(), 5);
    while !store.erase(&ctx(), &under("acme"), 1000).await.unwrap().done {}
}

#[tokio::test]
async fn cancelled_scan_ends_between_its_requests() {
    let ProxiedStore { proxy, store, direct, .. } = ProxiedStore::open(shared_server()).await;
    let names: Vec<String> = (0..40).map(|number| format!("acme:{number:02}")).collect();
    let sizes: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    fill(&direct, &sizes).await;
    page(&store, 100, true, None).await.unwrap();
    let mut asked = 0;
    proxy.set_rule(move |command| {
        asked += usize::from(asks_for_keys(command));
        if asked > 20 { Gate::Hold } else { Gate::Pass }
    });
    let context = ExecutionContext::new();
    let options = RecursiveScanOptions::new();
    let all = under("acme");
    let (found, ()) = tokio::join!(store.scan_recursive(&context, &all, options), async {
        proxy.until_held().await;
        context.cancel();
    });
    let error = found.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(!error.may_have_been_applied());
    proxy.release();
    assert_eq!(page(&store, 100, true, None).await.unwrap().items.len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_namespace_is_an_error_and_the_others_can_be_read() {
    let server = block_in_place(RedisServer::start).unwrap();
    let proxy = RedisProxy::start(&server).await;
    let store = open(&proxy.url(), "p:").await;
    fill(&store, &[("acme:a", 2), ("acme:b", 2), ("acme:c", 2)]).await;
    block_in_place(|| replace_with_list(&server, "p:{acme:b}k"));
    assert_eq!(page(&store, 10, true, None).await.unwrap_err().kind(), ErrorKind::Corrupt);
    let first = page(&store, 2, true, None).await;
    assert_eq!(first.unwrap_err().kind(), ErrorKind::Corrupt, "the cursor needs one more entry");
    let after = Position { namespace: ns("acme:b"), key: "zzz".to_owned() };
    assert_eq!(page(&store, 10, true, Some(after)).await.unwrap_err().kind(), ErrorKind::Corrupt);
    let after = Position { namespace: ns("acme:c"), key: String::new() };
    assert_eq!(page(&store, 10, true, Some(after)).await.unwrap().items.len(), 2);
    block_in_place(|| cli(&server, &["DEL", "p:{acme:b}k"]));
    assert_eq!(page(&store, 10, true, None).await.unwrap().items.len(), 4);
}
