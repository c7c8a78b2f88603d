//! Deletion by key prefix: the keys that remain on the server, and damaged indexes.

use std::collections::BTreeSet;
use std::time::Duration;

use cubbyhole_core::{CancellationToken, EntryStore, ErrorKind, PutOptions, Store};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{bytes, ctx, ns, under};
use tokio::task::block_in_place;

use crate::helpers::{cli, keys, new_prefix, open, shared_server};
use crate::proxy::{ProxiedStore, script_keys};

async fn fill(store: &RedisStore, keys: &[&str], options: PutOptions) {
    for key in keys {
        store.put_with_options(&ctx(), &ns("acme"), key, bytes("v"), options).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_part_of_the_index_and_the_values_are_removed() {
    let server = block_in_place(RedisServer::start_with_clock).unwrap();
    let store = open(server.url(), "p:").await;
    let (context, acme) = (ctx(), ns("acme"));
    let brief = PutOptions::new().with_ttl(Duration::from_secs(1));
    let long = PutOptions::new().with_idle_ttl(Duration::from_secs(1000));
    fill(&store, &["a", "p", "p-expired 1", "p-expired 2"], brief).await;
    fill(&store, &["p-1", "p-2"], PutOptions::new()).await;
    fill(&store, &["p-3", "p\u{10ffff}", "q"], long).await;
    server.advance(Duration::from_secs(1)).unwrap();
    fill(&store, &["a"], PutOptions::new()).await;

    let mut removed = Vec::new();
    loop {
        let step = store.delete_prefix(&context, &acme, "p", 3).await.unwrap();
        removed.push(step.removed);
        if step.done {
            break;
        }
    }
    // In byte order: p, p-1, p-2; p-3 and the expired keys; the last one.
    assert_eq!(removed, [2, 1, 1]);
    assert_eq!(store.list(&context, &acme, None).await.unwrap(), ["a", "q"]);
    let left = |name: &str| block_in_place(|| cli(&server, &["ZRANGE", name, "0", "-1"]));
    assert_eq!(left("p:{acme}k"), "a\nq");
    assert_eq!(left("p:{acme}x"), "\0\nq");
    assert_eq!(block_in_place(|| cli(&server, &["HLEN", "p:{acme}m"])), "2");
    let values = |all: BTreeSet<String>| all.into_iter().filter(|key| key.contains("}v"));
    let all = block_in_place(|| keys(&server, "p:"));
    assert_eq!(values(all).collect::<Vec<_>>(), ["p:{acme}va", "p:{acme}vq"]);

    // As after a delete, the empty namespace stays registered until a sweep.
    let step = store.delete_prefix(&context, &acme, "", 1000).await.unwrap();
    assert_eq!((step.removed, step.done), (2, true));
    assert_eq!(block_in_place(|| keys(&server, "p:{acme}k").len()), 0);
    assert_eq!(left("p:{acme}x"), "\0");
    fill(&store, &["new"], PutOptions::new()).await;
    assert_eq!(store.list_namespaces(&context, &under("acme")).await.unwrap(), [ns("acme")]);
    assert!(store.delete_prefix(&context, &acme, "new", 1).await.unwrap().done);
    store.evict_expired(&context).await.unwrap();
    let all: Vec<String> = block_in_place(|| keys(&server, "p:")).into_iter().collect();
    assert_eq!(all, ["p:{acme}f", "p:{acme}g"], "only fences remain");
}

#[tokio::test]
async fn step_during_which_a_key_is_written_starts_again() {
    let ProxiedStore { proxy, store, direct, .. } = ProxiedStore::open(shared_server()).await;
    let acme = ns("acme");
    for (limit, expected) in [(2, [(2, false), (1, true)]), (1000, [(3, true), (0, true)])] {
        fill(&direct, &["p-1", "p-3", "p-4"], PutOptions::new()).await;
        proxy.hold_first(|command| !script_keys(command).is_empty());
        let (context, step) = (ctx(), async {
            proxy.until_held().await;
            fill(&direct, &["p-2", "q"], PutOptions::new()).await;
            direct.delete(&ctx(), &acme, "p-3").await.unwrap();
            proxy.release();
        });
        let (first, ()) = tokio::join!(store.delete_prefix(&context, &acme, "p-", limit), step);
        let second = store.delete_prefix(&ctx(), &acme, "p-", limit).await;
        let steps = [first, second].map(|step| step.map(|step| (step.removed, step.done)).unwrap());
        assert_eq!(steps, expected, "{limit}");
        assert_eq!(store.list(&ctx(), &acme, None).await.unwrap(), ["q"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn deletion_ends_while_another_client_keeps_writing() {
    let (server, prefix) = (block_in_place(shared_server), new_prefix());
    let store = open(server.url(), &prefix).await;
    let (context, acme) = (ctx(), ns("acme"));
    let keys: Vec<String> = (0..500).map(|number| format!("p-{number}")).collect();
    fill(&store, &keys.iter().map(String::as_str).collect::<Vec<_>>(), PutOptions::new()).await;
    let stop = CancellationToken::new();
    let writer = tokio::spawn({
        let (store, stop) = (open(server.url(), &prefix).await, stop.clone());
        async move {
            for number in 0.. {
                if stop.is_cancelled() {
                    break;
                }
                fill(&store, &[&format!("p-new {number}")], PutOptions::new()).await;
            }
        }
    });
    // Each step removes what it finds, whatever the writer does.
    let mut removed = 0;
    while removed < 1000 {
        let step = store.delete_prefix(&context, &acme, "p-", 100).await.unwrap();
        assert!(step.removed <= 100);
        removed += step.removed;
    }
    stop.cancel();
    writer.await.unwrap();
    while !store.delete_prefix(&context, &acme, "p-", 100).await.unwrap().done {}
    assert!(store.list(&context, &acme, None).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_members_do_not_make_it_remove_other_keys() {
    let (server, prefix) = (block_in_place(shared_server), new_prefix());
    let store = open(server.url(), &prefix).await;
    let (context, acme) = (ctx(), ns("acme"));
    fill(&store, &["a", "p-1", "z"], PutOptions::new()).await;
    let index = format!("{prefix}{{acme}}k");
    // With other scores, the members are not in byte order.
    block_in_place(|| cli(server, &["ZADD", &index, "-1", "z", "1", "a"]));
    match store.delete_prefix(&context, &acme, "p-", 10).await {
        Ok(step) => assert!(step.removed <= 1),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt),
    }
    for key in ["a", "z"] {
        assert!(store.get(&context, &acme, key).await.unwrap().is_some(), "{key}");
    }
}
