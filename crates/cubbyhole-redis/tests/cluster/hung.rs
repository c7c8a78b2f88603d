//! Nodes that hang: connections stay open, and the node does not answer.

use std::time::Duration;

use cubbyhole_core::{
    Condition, EntryStore, Error, ErrorKind, ExecutionContext, Namespace, PutOptions, Store,
};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisCluster;
use cubbyhole_testkit::helpers::{bytes, check_outage, ctx, timed, until, within};
use tokio::task::{JoinSet, block_in_place};

use crate::clusters::{
    cli, config, exclusive_cluster, exclusive_without_failover, namespace_on, open, owner, owners,
};
use crate::helpers::{SLACK, names, retry, slot};

/// Returns a namespace on a node, and one on each other master.
fn homes(cluster: &RedisCluster, tenant: &str, node: usize) -> (Namespace, Vec<Namespace>) {
    let (owners, stem) = (owners(cluster), format!("{tenant}:"));
    let on = |node: usize| namespace_on(&owners, &stem, node);
    let masters = block_in_place(|| cluster.masters()).unwrap();
    (on(node), masters.into_iter().filter(|master| *master != node).map(on).collect())
}

/// Runs a check while a node hangs. The node resumes even if the check fails.
async fn while_hung<T>(cluster: &RedisCluster, node: usize, check: impl AsyncFnOnce() -> T) -> T {
    struct ResumeOnDrop<'a>(&'a RedisCluster, usize);
    impl Drop for ResumeOnDrop<'_> {
        fn drop(&mut self) {
            block_in_place(|| self.0.nodes()[self.1].resume()).unwrap();
        }
    }
    block_in_place(|| cluster.nodes()[node].pause()).unwrap();
    let _guard = ResumeOnDrop(cluster, node);
    check().await
}

fn check_deadline(error: &Error, took: Duration, deadline: Duration) {
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error:?}");
    assert!(took < deadline + SLACK, "{took:?}: {error:?}");
}

/// Makes four kinds of call concurrently, and asserts that each reaches its deadline. Returns the
/// number of calls.
async fn check_calls_reach_deadline(
    store: &RedisStore,
    name: &Namespace,
    deadline: Duration,
) -> usize {
    let context = || ExecutionContext::new().with_timeout(deadline);
    let mut calls = JoinSet::new();
    for kind in 0..4 {
        let (store, name, context) = (store.clone(), name.clone(), context());
        calls.spawn(timed(async move {
            match kind {
                0 => store.get(&context, &name, "k").await.map(drop),
                1 => store.list(&context, &name, None).await.map(drop),
                2 => store.put(&context, &name, "unknown", bytes("v")).await,
                _ => store.take(&context, &name, "nothing").await.map(drop),
            }
            .map_err(|error| (error, kind >= 2))
        }));
    }
    let answers = calls.join_all().await;
    for (answer, took) in &answers {
        let (error, is_write) = answer.as_ref().unwrap_err();
        check_deadline(error, *took, deadline);
        // All calls were sent, so only the reads certainly had no effect.
        assert_eq!(error.may_have_been_applied(), *is_write, "{error:?}");
    }
    answers.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hung_master_delays_only_its_own_calls_until_their_deadline() {
    let cluster = exclusive_without_failover().await;
    let store = open(config(cluster.url())).await;
    let hung = owner(&cluster, "pause");
    let (name, others) = homes(&cluster, "pause", hung);
    for name in others.iter().chain([&name]) {
        store.put(&ctx(), name, "k", bytes("old")).await.unwrap();
    }
    // The node resumes before the other nodes mark it as failed.
    while_hung(&cluster, hung, async || {
        let deadline = Duration::from_millis(200);
        let calls = check_calls_reach_deadline(&store, &name, deadline);
        let others_succeed = async {
            for _ in 0..20 {
                for other in &others {
                    let context = within(5000);
                    assert_eq!(store.get(&context, other, "k").await.unwrap(), Some(bytes("old")));
                    store.put(&context, other, "n", bytes("new")).await.unwrap();
                    assert_eq!(store.list(&context, other, None).await.unwrap(), ["k", "n"]);
                }
            }
        };
        let (calls, ()) = tokio::join!(calls, others_succeed);
        assert_eq!(calls, 4);
        // A call without a deadline ends when it is cancelled.
        let context = ExecutionContext::new();
        let cancelled = async {
            context.sleep(Duration::from_millis(50)).await.unwrap();
            context.cancel();
        };
        let ((answer, took), ()) = tokio::join!(timed(store.get(&context, &name, "k")), cancelled);
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(took < SLACK, "{took:?}");
    })
    .await;
    assert_eq!(store.get(&ctx(), &name, "k").await.unwrap(), Some(bytes("old")));
    store.put(&ctx(), &name, "k", bytes("new")).await.unwrap();
    assert_eq!(store.get(&ctx(), &name, "k").await.unwrap(), Some(bytes("new")));
    // The list uses the same connection, so the server has answered all earlier requests.
    assert_eq!(store.list(&ctx(), &name, None).await.unwrap(), ["k", "unknown"]);
    cluster.give_back();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn write_is_not_resent_after_its_connection_closes() {
    let cluster = exclusive_cluster().await;
    let wait = Duration::from_secs(30);
    let store = config(cluster.url()).with_wait_for_replicas(1).with_wait_timeout(wait);
    let store = open(store).await;
    let master = owner(&cluster, "cut");
    let replica = block_in_place(|| cluster.replica_of(master)).unwrap();
    let (name, _) = homes(&cluster, "cut", master);
    store.put(&ctx(), &name, "k", bytes("old")).await.unwrap();
    while_hung(&cluster, replica, async || {
        let writing = async {
            let (options, condition) = (PutOptions::new(), Condition::IfAbsent);
            let context = ExecutionContext::new();
            store.put_entry(&context, &name, "new", bytes("1"), options, condition).await
        };
        let cutting = async {
            until("the write to be applied", async || {
                store.get(&ctx(), &name, "new").await.unwrap().is_some()
            })
            .await;
            cli(&cluster.nodes()[master], &["CLIENT", "KILL", "TYPE", "normal"])
        };
        let ((answer, took), _) = tokio::join!(timed(writing), cutting);
        // A second attempt would fail with a conflict.
        let error = answer.unwrap_err();
        check_outage(&error);
        assert!(error.may_have_been_applied(), "{error:?}");
        assert!(took < SLACK, "{took:?}");
        // A read is sent on a new connection.
        assert_eq!(store.get(&within(5000), &name, "new").await.unwrap(), Some(bytes("1")));
    })
    .await;
    cluster.give_back();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn unconfirmed_write_has_unknown_outcome_and_delays_no_read() {
    let cluster = exclusive_cluster().await;
    let wait = Duration::from_millis(300);
    let store = config(cluster.url()).with_wait_for_replicas(1).with_wait_timeout(wait);
    let store = open(store).await;
    let master = owner(&cluster, "wait");
    let replica = block_in_place(|| cluster.replica_of(master)).unwrap();
    // The index of the tenant is on the same master.
    let (name, others) = homes(&cluster, "wait", master);
    for name in others.iter().chain([&name]) {
        store.put(&ctx(), name, "k", bytes("old")).await.unwrap();
    }
    while_hung(&cluster, replica, async || {
        let mut writes = JoinSet::new();
        for number in 0..16 {
            let (store, name) = (store.clone(), name.clone());
            let key = format!("{number}");
            writes.spawn(timed(async move { store.put(&ctx(), &name, &key, bytes("new")).await }));
        }
        // Readers see the writes while the writers wait for the replica.
        let ((), took) = timed(until("the writes to be visible", async || {
            store.list(&ctx(), &name, None).await.unwrap().len() == 1 + 16
        }))
        .await;
        assert!(took < SLACK, "{took:?}");
        let mut quick = 0;
        for _ in 0..20 {
            let (answer, took) = timed(store.get(&within(5000), &name, "k")).await;
            assert_eq!(answer.unwrap(), Some(bytes("old")));
            quick += u32::from(took < wait);
        }
        // A busy machine may delay some reads. If reads queued behind writes, all would be late.
        assert!(quick > 10, "only {quick} of 20 reads were quick");
        for (answer, took) in writes.join_all().await {
            let error = answer.unwrap_err();
            check_outage(&error);
            assert!(error.may_have_been_applied() && !error.is_retryable(), "{error:?}");
            assert!(took < wait * 3 + SLACK, "{took:?}");
        }
        // A namespace whose registration is unconfirmed is not written.
        let new = names("wait:new", 1, |_| true).remove(0);
        let error = store.put(&ctx(), &new, "k", bytes("new")).await.unwrap_err();
        check_outage(&error);
        assert!(!error.may_have_been_applied(), "{error:?}");
        assert_eq!(store.get(&ctx(), &new, "k").await.unwrap(), None);
        // On a busy machine, the deadline of this write may pass before its wait ends.
        let deadline = Duration::from_secs(1);
        let context = ExecutionContext::new().with_timeout(deadline);
        let (answer, took) = timed(store.put(&context, &name, "late", bytes("new"))).await;
        let error = answer.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::DeadlineExceeded | ErrorKind::Unavailable),
            "{error:?}"
        );
        assert!(took < deadline + SLACK, "{took:?}");
        assert!(error.may_have_been_applied(), "{error:?}");
        for other in &others {
            store.put(&within(5000), other, "n", bytes("new")).await.unwrap();
        }
    })
    .await;
    // The replica catches up and confirms writes again.
    let context = ctx();
    retry(|| store.put(&context, &name, "k", bytes("new"))).await;
    assert_eq!(store.list(&ctx(), &name, None).await.unwrap().len(), 1 + 16 + 1);
    cluster.give_back();
}

#[tokio::test(flavor = "multi_thread")]
async fn store_follows_the_successor_of_a_hung_master() {
    let cluster = exclusive_cluster().await;
    let store = open(config(cluster.url())).await;
    let hung = owner(&cluster, "hung");
    let (name, _) = homes(&cluster, "hung", hung);
    store.put(&ctx(), &name, "k", bytes("old")).await.unwrap();
    while_hung(&cluster, hung, async || {
        block_in_place(|| cluster.wait_for_successor(slot(name.as_str()), hung)).unwrap();
        let mut last = None;
        for _ in 0..20 {
            let (answer, took) = timed(store.get(&within(250), &name, "k")).await;
            match answer {
                Ok(found) => {
                    assert_eq!(found, Some(bytes("old")));
                    store.put(&within(5000), &name, "k", bytes("new")).await.unwrap();
                    return;
                }
                Err(error) => check_deadline(&error, took, Duration::from_millis(250)),
            }
            last = Some(took);
        }
        panic!("the successor is not found, the last call took {last:?}");
    })
    .await;
    assert_eq!(store.get(&ctx(), &name, "k").await.unwrap(), Some(bytes("new")));
    cluster.give_back();
}
