//! What the nodes answer while a slot moves and after, and stores that know only a part of the
//! cluster at first.

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

use crate::clusters::{cli, config, end_move, move_on, open, owner, unharmed};
use crate::shared::{SLACK, names, slot};

const RETRY: Duration = Duration::from_millis(400);

/// A slot on its way to another master, with the first `count` of its keys.
struct Move<'a> {
    cluster: &'a RedisCluster,
    slot: u16,
}

impl<'a> Move<'a> {
    fn begin(cluster: &'a RedisCluster, name: &Namespace, count: usize) -> Self {
        let slot = slot(name.as_str());
        let target = (owner(cluster, name.as_str()) + 1) % 3;
        block_in_place(|| cluster.begin_move(slot, target)).unwrap();
        let moving = Self { cluster, slot };
        assert_eq!(moving.move_keys(count), count);
        moving
    }

    fn move_keys(&self, count: usize) -> usize {
        if count == 0 {
            return 0;
        }
        block_in_place(|| self.cluster.move_keys(self.slot, count)).unwrap()
    }

    fn end(self) {
        while self.move_keys(100) > 0 {}
        end_move(self.cluster, self.slot);
    }
}

fn move_to_the_next(cluster: &RedisCluster, name: &Namespace) {
    move_on(cluster, slot(name.as_str()));
}

/// Every kind of call on a namespace that holds nothing but `a` and `b`.
async fn use_everything(store: &RedisStore, name: &Namespace) {
    let (ctx, prefix) = (ctx(), NamespacePrefix::from(name.clone()));
    assert_eq!(store.get(&ctx, name, "a").await.unwrap(), Some(bytes("1")));
    let entries = store.get_many(&ctx, name, &["a", "b", "c"]).await.unwrap();
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
    assert!(store.touch(&ctx, name, "c", cubbyhole_core::Expiry::Never).await.unwrap());
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
async fn a_store_opened_before_a_slot_moved_follows_it_with_every_call() {
    let cluster = unharmed().await;
    let config = config(cluster.url());
    let old = open(config.clone()).await;
    let name = ns("moved:away");
    old.put(&ctx(), &name, "a", bytes("1")).await.unwrap();
    old.put(&ctx(), &name, "b", bytes("2")).await.unwrap();
    use_everything(&old, &name).await;
    for _ in 0..3 {
        // The store's own slot, that of the tenant's index, and both in turn are behind its back.
        move_to_the_next(cluster, &name);
        use_everything(&old, &name).await;
        move_to_the_next(cluster, &ns("moved"));
        use_everything(&old, &name).await;
        move_to_the_next(cluster, &name);
        move_to_the_next(cluster, &ns("moved"));
        use_everything(&old, &name).await;
    }
    use_everything(&open(config).await, &name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_in_the_middle_of_a_move_finds_what_moved_what_did_not_and_nothing_else() {
    let cluster = unharmed().await;
    let store = open(config(cluster.url())).await;
    let name = ns("ask:half");
    for number in 0..20 {
        store.put(&ctx(), &name, &number.to_string(), bytes(&number.to_string())).await.unwrap();
    }
    let from = owner(cluster, name.as_str());
    let moving = Move::begin(cluster, &name, 10);
    let there = |index: usize| {
        let pattern = format!("*{{{name}}}v*");
        cli(&cluster.nodes()[index], &["KEYS", &pattern]).lines().count()
    };
    // Or the test would show nothing: both have some.
    assert!(there(from) > 0 && there((from + 1) % 3) > 0);
    for number in 0..20 {
        let found = store.get(&within(5000), &name, &number.to_string()).await.unwrap();
        assert_eq!(found, Some(bytes(&number.to_string())));
    }
    assert_eq!(store.get(&within(5000), &name, "none").await.unwrap(), None);
    moving.end();
    assert_eq!(store.list(&ctx(), &name, None).await.unwrap().len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_stops_half_way_is_unavailable_in_time_and_nothing_was_written() {
    let cluster = unharmed().await;
    let store = open(config(cluster.url()).with_retry_timeout(RETRY)).await;
    let (name, prefix) = (ns("halt:half"), NamespacePrefix::from(ns("halt")));
    let batch = || Batch::new().put("a", bytes("new")).put("b", bytes("new"));
    store
        .write(&ctx(), &name, Batch::new().put("a", bytes("old")).put("b", bytes("old")))
        .await
        .unwrap();
    // Of five keys: two values, and the namespace's books.
    for count in 1..5 {
        let moving = Move::begin(cluster, &name, count);
        let forever = ExecutionContext::new();
        let (answer, took) = timed(store.write(&forever, &name, batch())).await;
        let error = answer.unwrap_err();
        check_outage(&error);
        assert!(error.is_retryable(), "{error:?}");
        assert!(error.message().contains("being moved"), "{error:?}");
        assert!(took > RETRY / 2 && took < RETRY + SLACK, "{took:?}");
        // On a busy machine the deadline may come while an attempt is in flight. The outcome of
        // that one is unknown; between two attempts it is known.
        until("a deadline between two attempts", async || {
            let (answer, took) = timed(store.write(&within(100), &name, batch())).await;
            let error = answer.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error:?}");
            assert!(took < Duration::from_millis(100) + SLACK, "{took:?}");
            !error.may_have_been_applied()
        })
        .await;
        // What cannot be known is not answered.
        for answer in [
            store.list(&forever, &name, None).await.map(drop),
            store.get_many(&forever, &name, &["a", "b"]).await.map(drop),
            store.list_namespaces(&forever, &prefix).await.map(drop),
        ] {
            if let Err(error) = answer {
                check_outage(&error);
                assert!(error.is_retryable(), "{error:?}");
            }
        }
        for key in ["a", "b"] {
            let found = store.get(&forever, &name, key).await.unwrap();
            assert_eq!(found, Some(bytes("old")), "{count} {key}");
        }
        moving.end();
        assert_eq!(store.list(&ctx(), &name, None).await.unwrap(), ["a", "b"]);
        assert_eq!(
            store.list_namespaces(&ctx(), &prefix).await.unwrap(),
            std::slice::from_ref(&name)
        );
    }
    store.write(&ctx(), &name, batch()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_that_wait_for_the_end_of_a_move_are_answered_then() {
    let cluster = unharmed().await;
    let retry = Duration::from_secs(30);
    let store = open(config(cluster.url()).with_retry_timeout(retry)).await;
    let name = ns("wait:half");
    store.put(&ctx(), &name, "a", bytes("1")).await.unwrap();
    store.put(&ctx(), &name, "b", bytes("2")).await.unwrap();
    let moving = Move::begin(cluster, &name, 2);
    let mut calls = JoinSet::new();
    for number in 0..16 {
        let (store, name) = (store.clone(), name.clone());
        calls.spawn(async move {
            if number % 2 == 0 {
                store.put(&ctx(), &name, &format!("new {number}"), bytes("new")).await.unwrap();
            } else {
                let found = store.get_many(&ctx(), &name, &["a", "b"]).await.unwrap();
                assert!(found.into_iter().all(|entry| entry.unwrap().is_some()));
            }
        });
    }
    // Longer than the pauses between their first attempts.
    pause(500).await;
    assert!(calls.len() == 16 && calls.try_join_next().is_none(), "some did not wait");
    moving.end();
    let all = tokio::time::timeout(SLACK, calls.join_all()).await;
    all.expect("they wait for longer than the move takes");
    assert_eq!(store.list(&ctx(), &name, None).await.unwrap().len(), 2 + 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_goes_on_when_all_its_keys_have_moved_though_the_move_has_not_ended() {
    let cluster = unharmed().await;
    let retry = Duration::from_secs(30);
    let store = open(config(cluster.url()).with_retry_timeout(retry)).await;
    let name = ns("late:half");
    store.put(&ctx(), &name, "a", bytes("1")).await.unwrap();
    store.put(&ctx(), &name, "b", bytes("2")).await.unwrap();
    // The values, which are the newest keys, and not what is known of them.
    let moving = Move::begin(cluster, &name, 2);
    let mut calls = JoinSet::new();
    for _ in 0..16 {
        let (store, name) = (store.clone(), name.clone());
        calls.spawn(async move { store.get_many(&ctx(), &name, &["a", "b"]).await.unwrap() });
    }
    pause(500).await;
    assert!(calls.try_join_next().is_none(), "some did not wait");
    assert_eq!(moving.move_keys(100), 3);
    let all = tokio::time::timeout(SLACK, calls.join_all()).await;
    let answered = all.is_ok();
    moving.end();
    assert!(answered, "they were not sent to where all their keys are");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_is_enough_to_find_the_others_and_dead_ones_are_passed_over() {
    let cluster = unharmed().await;
    let whole = config(cluster.url());
    let prefix = whole.prefix().to_owned();
    let store = open(whole).await;
    // Namespaces of all masters.
    let names = names("seed:", 24, |_| true);
    let owners: BTreeSet<_> = names.iter().map(|name| owner(cluster, name.as_str())).collect();
    assert_eq!(owners.len(), 3);
    for name in &names {
        store.put(&ctx(), name, "k", bytes(name.as_str())).await.unwrap();
    }
    let nodes: Vec<String> =
        cluster.nodes().iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
    // Nobody listens on port 1.
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
async fn scripts_forgotten_by_all_nodes_in_the_middle_of_load_are_not_missed() {
    let cluster = unharmed().await;
    let store = open(config(cluster.url())).await;
    let names = names("forget:", 6, |_| true);
    let stop = ExecutionContext::new();
    // What each caller, and who opens stores, has done.
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
                let found = store.get_many(&ctx(), &name, &[&key, "x", "y"]).await.unwrap();
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
        // A store that is being opened is not disturbed either.
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
        assert!(flush < 4000, "{counts:?} rounds tell little");
        for index in block_in_place(|| cluster.masters()).unwrap() {
            assert_eq!(cli(&cluster.nodes()[index], &["SCRIPT", "FLUSH", "SYNC"]), "OK");
        }
        pause(10).await;
    }
    stop.cancel();
    callers.join_all().await;
}
