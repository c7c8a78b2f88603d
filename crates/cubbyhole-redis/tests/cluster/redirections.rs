//! Redirections while a slot moves and afterwards, and stores that first know only a part of the
//! cluster.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use cubbyhole_core::{
    Batch, Condition, EntryStore, ErrorKind, ExecutionContext, GetOptions, Namespace,
    NamespacePrefix, PutOptions, ScanOptions, Store,
};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisCluster;
use cubbyhole_testkit::helpers::{bytes, check_outage, ctx, ns, pause, timed, until, within};
use tokio::task::{JoinSet, block_in_place};

use crate::clusters::{
    begin_move, cli, config, finish_move, move_keys, open, owner, shared_cluster,
};
use crate::helpers::{SLACK, names, slot};

/// The retry timeout of a store whose calls are expected to fail.
const SHORT_RETRY: Duration = Duration::from_millis(400);

/// The retry timeout of a store whose calls wait for the end of a move.
const LONG_RETRY: Duration = Duration::from_secs(30);

/// Begins to move the slot of a namespace, and moves `count` of its keys. Returns the slot.
fn move_partly(cluster: &RedisCluster, name: &Namespace, count: usize) -> u16 {
    let slot = slot(name.as_str());
    begin_move(cluster, slot);
    assert_eq!(move_keys(cluster, slot, count), count);
    slot
}

/// Moves the slot of a namespace to the next master.
fn move_namespace(cluster: &RedisCluster, name: &Namespace) {
    begin_move(cluster, slot(name.as_str()));
    finish_move(cluster, slot(name.as_str()));
}

/// Opens a store that waits for the end of moves, and puts `a` and `b` into the namespace.
async fn open_patient(cluster: &RedisCluster, name: &Namespace) -> RedisStore {
    let store = open(config(cluster.url()).with_retry_timeout(LONG_RETRY)).await;
    store.put(&ctx(), name, "a", bytes("1")).await.unwrap();
    store.put(&ctx(), name, "b", bytes("2")).await.unwrap();
    store
}

/// Makes every kind of call on a namespace that contains only `a` and `b`.
async fn make_every_call(store: &RedisStore, name: &Namespace) {
    let (ctx, prefix) = (ctx(), NamespacePrefix::from(name.clone()));
    assert_eq!(store.get(&ctx, name, "a").await.unwrap(), Some(bytes("1")));
    let entries = store.get_many(&ctx, name, &["a", "b", "c"], GetOptions::new()).await.unwrap();
    let values = entries.into_iter().map(|entry| entry.unwrap().map(|entry| entry.value));
    assert_eq!(values.collect::<Vec<_>>(), [Some(bytes("1")), Some(bytes("2")), None]);
    let read = GetOptions::new().with_extended_ttl(Duration::from_secs(100));
    assert!(store.get_entry(&ctx, name, "b", read).await.unwrap().is_some());
    assert_eq!(store.list(&ctx, name, None).await.unwrap(), ["a", "b"]);
    assert_eq!(store.scan(&ctx, name, ScanOptions::new()).await.unwrap().items.len(), 2);
    store.put(&ctx, name, "c", bytes("3")).await.unwrap();
    let again = PutOptions::new();
    let again = store.put_entry(&ctx, name, "c", bytes("4"), again, Condition::IfAbsent).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(
        store
            .touch(&ctx, name, "c", cubbyhole_core::Expiry::Never, Condition::Always)
            .await
            .unwrap()
    );
    assert_eq!(store.take(&ctx, name, "c").await.unwrap().unwrap().value, bytes("3"));
    let batch = Batch::new().put("d", bytes("5")).delete("a");
    store.write(&ctx, name, batch).await.unwrap();
    store.delete(&ctx, name, "d").await.unwrap();
    store.put(&ctx, name, "a", bytes("1")).await.unwrap();
    assert_eq!(store.list_namespaces(&ctx, &prefix).await.unwrap(), std::slice::from_ref(name));
    assert_eq!(store.usage(&ctx, &prefix).await.unwrap().entries, 2);
    store.evict_expired(&ctx).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_follows_a_slot_moved_after_opening() {
    let cluster = shared_cluster().await;
    let config = config(cluster.url());
    let old = open(config.clone()).await;
    let name = ns("moved:away");
    old.put(&ctx(), &name, "a", bytes("1")).await.unwrap();
    old.put(&ctx(), &name, "b", bytes("2")).await.unwrap();
    make_every_call(&old, &name).await;
    for _ in 0..3 {
        // The slot of the namespace moves, then that of the tenant's index, then both.
        move_namespace(cluster, &name);
        make_every_call(&old, &name).await;
        move_namespace(cluster, &ns("moved"));
        make_every_call(&old, &name).await;
        move_namespace(cluster, &name);
        move_namespace(cluster, &ns("moved"));
        make_every_call(&old, &name).await;
    }
    make_every_call(&open(config).await, &name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn get_finds_moved_and_unmoved_keys_during_a_slot_move() {
    let cluster = shared_cluster().await;
    let store = open(config(cluster.url())).await;
    let name = ns("ask:half");
    for number in 0..20 {
        store.put(&ctx(), &name, &number.to_string(), bytes(&number.to_string())).await.unwrap();
    }
    let from = owner(cluster, name.as_str());
    let slot = move_partly(cluster, &name, 10);
    let values_on = |index: usize| {
        let pattern = format!("*{{{name}}}v*");
        cli(&cluster.nodes()[index], &["KEYS", &pattern]).lines().count()
    };
    let target = (from + 1) % 3;
    assert!(values_on(from) > 0 && values_on(target) > 0, "one master has all values");
    for number in 0..20 {
        let found = store.get(&within(5000), &name, &number.to_string()).await.unwrap();
        assert_eq!(found, Some(bytes(&number.to_string())));
    }
    assert_eq!(store.get(&within(5000), &name, "none").await.unwrap(), None);
    finish_move(cluster, slot);
    assert_eq!(store.list(&ctx(), &name, None).await.unwrap().len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_slot_move_is_unavailable_and_writes_nothing() {
    let cluster = shared_cluster().await;
    let store = open(config(cluster.url()).with_retry_timeout(SHORT_RETRY)).await;
    let (name, prefix) = (ns("halt:half"), NamespacePrefix::from(ns("halt")));
    let batch = || Batch::new().put("a", bytes("new")).put("b", bytes("new"));
    store
        .write(&ctx(), &name, Batch::new().put("a", bytes("old")).put("b", bytes("old")))
        .await
        .unwrap();
    // The namespace has five keys: two values and the three keys of its index.
    for count in 1..5 {
        let slot = move_partly(cluster, &name, count);
        let unlimited = ExecutionContext::new();
        let (answer, took) = timed(store.write(&unlimited, &name, batch())).await;
        let error = answer.unwrap_err();
        check_outage(&error);
        assert!(error.is_retryable(), "{error:?}");
        assert!(error.message().contains("being moved"), "{error:?}");
        assert!(took > SHORT_RETRY / 2 && took < SHORT_RETRY + SLACK, "{took:?}");
        // On a busy machine, the deadline may pass during an attempt, whose outcome is then
        // unknown. Between two attempts, the outcome is known.
        until("a deadline between two attempts", async || {
            let (answer, took) = timed(store.write(&within(100), &name, batch())).await;
            let error = answer.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error:?}");
            assert!(took < Duration::from_millis(100) + SLACK, "{took:?}");
            !error.may_have_been_applied()
        })
        .await;
        // Reads of several keys succeed or are unavailable, depending on the keys that moved.
        for answer in [
            store.list(&unlimited, &name, None).await.map(drop),
            store.get_many(&unlimited, &name, &["a", "b"], GetOptions::new()).await.map(drop),
            store.list_namespaces(&unlimited, &prefix).await.map(drop),
        ] {
            if let Err(error) = answer {
                check_outage(&error);
                assert!(error.is_retryable(), "{error:?}");
            }
        }
        for key in ["a", "b"] {
            let found = store.get(&unlimited, &name, key).await.unwrap();
            assert_eq!(found, Some(bytes("old")), "{count} {key}");
        }
        finish_move(cluster, slot);
        assert_eq!(store.list(&ctx(), &name, None).await.unwrap(), ["a", "b"]);
        assert_eq!(
            store.list_namespaces(&ctx(), &prefix).await.unwrap(),
            std::slice::from_ref(&name)
        );
    }
    store.write(&ctx(), &name, batch()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn waiting_calls_are_answered_when_a_slot_move_ends() {
    let cluster = shared_cluster().await;
    let name = ns("wait:half");
    let store = open_patient(cluster, &name).await;
    let slot = move_partly(cluster, &name, 2);
    let mut calls = JoinSet::new();
    for number in 0..16 {
        let (store, name) = (store.clone(), name.clone());
        calls.spawn(async move {
            if number % 2 == 0 {
                store.put(&ctx(), &name, &format!("new {number}"), bytes("new")).await.unwrap();
            } else {
                let found =
                    store.get_many(&ctx(), &name, &["a", "b"], GetOptions::new()).await.unwrap();
                assert!(found.into_iter().all(|entry| entry.unwrap().is_some()));
            }
        });
    }
    // The calls have made several attempts by then.
    pause(500).await;
    assert!(calls.len() == 16 && calls.try_join_next().is_none(), "a call did not wait");
    finish_move(cluster, slot);
    let all = tokio::time::timeout(SLACK, calls.join_all()).await;
    all.expect("the calls still wait after the move");
    assert_eq!(store.list(&ctx(), &name, None).await.unwrap().len(), 2 + 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn call_succeeds_once_its_keys_moved_before_the_move_ends() {
    let cluster = shared_cluster().await;
    let name = ns("late:half");
    let store = open_patient(cluster, &name).await;
    // The newest keys move first: the two values, and not the metadata.
    let slot = move_partly(cluster, &name, 2);
    let mut calls = JoinSet::new();
    for _ in 0..16 {
        let (store, name) = (store.clone(), name.clone());
        calls.spawn(async move {
            store.get_many(&ctx(), &name, &["a", "b"], GetOptions::new()).await.unwrap()
        });
    }
    pause(500).await;
    assert!(calls.try_join_next().is_none(), "a call did not wait");
    assert_eq!(move_keys(cluster, slot, 100), 3);
    let all = tokio::time::timeout(SLACK, calls.join_all()).await;
    let answered = all.is_ok();
    finish_move(cluster, slot);
    assert!(answered, "the calls were not sent to the new master");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_succeeds_if_one_seed_node_is_reachable() {
    let cluster = shared_cluster().await;
    let whole = config(cluster.url());
    let prefix = whole.prefix().to_owned();
    let store = open(whole).await;
    // Enough namespaces to be on all masters.
    let names = names("seed:", 24, |_| true);
    let owners: BTreeSet<_> = names.iter().map(|name| owner(cluster, name.as_str())).collect();
    assert_eq!(owners.len(), 3);
    for name in &names {
        store.put(&ctx(), name, "k", bytes(name.as_str())).await.unwrap();
    }
    let nodes: Vec<String> =
        cluster.nodes().iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
    // No server listens on ports 1, 2 and 3.
    let dead_first = format!("127.0.0.1:1,{}", nodes[1]);
    let dead_between = format!("127.0.0.1:1,127.0.0.1:2,{},127.0.0.1:3", nodes[5]);
    for hosts in [&nodes[0], &nodes[2], &nodes[3], &nodes[4], &dead_first, &dead_between] {
        let one = config(&format!("redis+cluster://{hosts}")).with_prefix(&prefix).unwrap();
        let store = open(one).await;
        let found =
            store.list_namespaces(&ctx(), &NamespacePrefix::from(ns("seed"))).await.unwrap();
        assert_eq!(found.len(), names.len(), "{hosts}");
        for name in &names {
            let value = store.get(&ctx(), name, "k").await.unwrap();
            assert_eq!(value, Some(bytes(name.as_str())), "{hosts}");
            store.put(&ctx(), name, "k", bytes(name.as_str())).await.unwrap();
        }
    }
    let dead = config("redis+cluster://127.0.0.1:1,127.0.0.1:2");
    let error = RedisStore::open(&ctx(), dead).await.unwrap_err();
    check_outage(&error);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn flushed_scripts_are_loaded_again_under_load() {
    let cluster = shared_cluster().await;
    let store = open(config(cluster.url())).await;
    let names = names("forget:", 6, |_| true);
    let stop = ExecutionContext::new();
    // The rounds of each caller, and the number of opened stores.
    let counts = Arc::new([const { AtomicUsize::new(0) }; 7]);
    let mut callers = JoinSet::new();
    for (caller, name) in names.into_iter().enumerate() {
        let (store, stop, counts) = (store.clone(), stop.clone(), Arc::clone(&counts));
        callers.spawn(async move {
            let mut count = 0_usize;
            while stop.check().is_ok() {
                let key = count.to_string();
                store.put(&ctx(), &name, &key, bytes(&key)).await.unwrap();
                let batch = Batch::new().put("x", bytes(&key)).put("y", bytes(&key));
                store.write(&ctx(), &name, batch).await.unwrap();
                let found = store
                    .get_many(&ctx(), &name, &[&key, "x", "y"], GetOptions::new())
                    .await
                    .unwrap();
                for entry in found {
                    assert_eq!(entry.unwrap().unwrap().value, bytes(&key));
                }
                if count.is_multiple_of(2) {
                    assert!(store.take(&ctx(), &name, &key).await.unwrap().is_some());
                }
                count += 1;
                counts[caller].store(count, SeqCst);
            }
            let listed = store.list(&ctx(), &name, None).await.unwrap();
            assert_eq!(listed.len(), count / 2 + 2, "{name}");
        });
    }
    let (config, opening, opened) = (config(cluster.url()), stop.clone(), Arc::clone(&counts));
    callers.spawn(async move {
        // Opening a store succeeds at the same time.
        while opening.check().is_ok() {
            open(config.clone()).await;
            opened[6].fetch_add(1, SeqCst);
        }
    });
    let enough = || counts.iter().all(|count| count.load(SeqCst) > 10);
    for flush in 0.. {
        if flush >= 40 && enough() {
            break;
        }
        assert!(flush < 4000, "too few rounds: {counts:?}");
        for index in block_in_place(|| cluster.masters()).unwrap() {
            assert_eq!(cli(&cluster.nodes()[index], &["SCRIPT", "FLUSH", "SYNC"]), "OK");
        }
        pause(10).await;
    }
    stop.cancel();
    callers.join_all().await;
}
