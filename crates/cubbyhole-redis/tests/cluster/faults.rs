//! Concurrent histories while a cluster changes or fails. The histories must be linearizable:
//!
//! - a slot in use moves from master to master;
//! - each master is replaced by a planned failover (`CLUSTER FAILOVER`), twice;
//! - each master hangs for longer than the deadline of a call, and resumes;
//! - the connections to all nodes are closed.
//!
//! An unplanned failover may lose writes that a read has already returned, so its histories are not
//! linearizable. `failover` tests the guarantees that remain.

use std::time::Duration;

use cubbyhole_conformance::history::Live;
use cubbyhole_core::{ErrorKind, Namespace, Result};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisCluster;
use cubbyhole_testkit::helpers::{ns, pause, until};
use cubbyhole_testkit::load::histories::{TIMEOUT, finish, plan, start};
use tokio::task::block_in_place;

use crate::clusters::{
    begin_move, cli, config, exclusive_without_failover, finish_move, move_keys, namespace_on,
    open, owner, owners, shared_cluster,
};
use crate::failover::planned_failover;
use crate::helpers::{names, slot};

/// The deadline of calls to a master that hangs.
const SHORT: Duration = Duration::from_millis(300);
/// The number of calls of each kind that must succeed before, between and after faults.
const ENOUGH: u64 = 100;
/// One connection for calls, and one more while it is being replaced.
const CONNECTIONS: usize = 2;

/// Places the namespaces of each group in the slot of the home with the group's number.
fn in_slots_of(
    homes: Vec<Namespace>,
) -> impl Fn(usize, u64) -> Result<Namespace> + Send + Sync + 'static {
    move |group, round| {
        let wanted = slot(homes[group].as_str());
        let stem = format!("faults:{group}-{round}-");
        Ok(names(&stem, 1, |name| slot(name) == wanted).remove(0))
    }
}

/// Starts histories with one group of keys for each master. Returns the store, the histories, and a
/// namespace of each master, which is in the slot of its group.
///
/// The caller keeps the store, whose connections [`check_connections`] counts after the histories.
async fn start_on_each_master(
    cluster: &RedisCluster,
    timeout: Duration,
) -> (RedisStore, Live, Vec<Namespace>) {
    let owners = owners(cluster);
    let masters = block_in_place(|| cluster.masters()).unwrap();
    let home = |master: &usize| namespace_on(&owners, "home:", *master);
    let homes: Vec<Namespace> = masters.iter().map(home).collect();
    let plan = plan(timeout).with_groups(homes.len()).with_namespaces(in_slots_of(homes.clone()));
    let store = open(config(cluster.url())).await;
    let histories = start(store.clone(), plan);
    histories.until_sound(ENOUGH).await.unwrap();
    (store, histories, homes)
}

/// Waits until no node has more client connections than a store may have.
async fn check_connections(cluster: &RedisCluster) {
    for node in cluster.nodes() {
        // The last client is the connection that asks.
        let count = || cli(node, &["CLIENT", "LIST", "TYPE", "normal"]).lines().count() - 1;
        until("old connections to close", async || count() <= CONNECTIONS).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_are_linearizable_while_slots_move() {
    let cluster = shared_cluster().await;
    // The retry timeout is as long as the deadline, so no call fails on a busy machine.
    let store = open(config(cluster.url()).with_retry_timeout(TIMEOUT)).await;
    let home = ns("moving");
    let moving = slot(home.as_str());
    let in_slot = in_slots_of(vec![home.clone(), home]);
    let histories = start(store, plan(TIMEOUT).with_groups(2).with_namespaces(in_slot));
    histories.until_sound(ENOUGH).await.unwrap();
    for _ in 0..8 {
        begin_move(cluster, moving);
        // The first keys move slowly. Calls with keys on both masters wait.
        for _ in 0..10 {
            move_keys(cluster, moving, 2);
            pause(5).await;
        }
        finish_move(cluster, moving);
        histories.until_more(ENOUGH).await.unwrap();
    }
    histories.until_sound(ENOUGH).await.unwrap();
    finish(histories, &[], TIMEOUT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_are_linearizable_during_planned_failovers() {
    let cluster = exclusive_without_failover().await;
    let (_store, histories, homes) = start_on_each_master(&cluster, TIMEOUT).await;
    assert_eq!(histories.counts().failures(), 0, "calls failed before the first fault");
    for _ in 0..2 {
        for home in &homes {
            planned_failover(&cluster, slot(home.as_str())).await;
            histories.until_sound(ENOUGH).await.unwrap();
            block_in_place(|| cluster.wait_until_whole()).unwrap();
        }
    }
    // The old master delays writes until the new one has all data, and then redirects them.
    finish(histories, &[], TIMEOUT).await;
    check_connections(&cluster).await;
    cluster.give_back();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_are_linearizable_while_each_master_hangs() {
    let cluster = exclusive_without_failover().await;
    let (_store, histories, homes) = start_on_each_master(&cluster, SHORT).await;
    for home in &homes {
        let hung = owner(&cluster, home.as_str());
        block_in_place(|| cluster.nodes()[hung].pause()).unwrap();
        histories.until_failures(4).await.unwrap();
        block_in_place(|| cluster.nodes()[hung].resume()).unwrap();
        histories.until_sound(ENOUGH).await.unwrap();
        assert_eq!(owner(&cluster, home.as_str()), hung, "the master was replaced");
    }
    // The other nodes mark a master as failed if it hangs for longer than their timeout.
    let kinds = [ErrorKind::DeadlineExceeded, ErrorKind::Unavailable];
    let report = finish(histories, &kinds, SHORT).await;
    assert!(report.failures_of(ErrorKind::DeadlineExceeded) >= homes.len());
    check_connections(&cluster).await;
    cluster.give_back();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_are_linearizable_while_all_connections_close() {
    let cluster = exclusive_without_failover().await;
    let (_store, histories, _) = start_on_each_master(&cluster, TIMEOUT).await;
    assert_eq!(histories.counts().failures(), 0, "calls failed before the first fault");
    for _ in 0..10 {
        for node in cluster.nodes() {
            cli(node, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        }
        histories.until_more(10).await.unwrap();
    }
    histories.until_sound(ENOUGH).await.unwrap();
    // The store retries reads. In-flight writes fail with an unknown outcome.
    let report = finish(histories, &[ErrorKind::Unavailable], TIMEOUT).await;
    assert!(report.unknown > 0, "no write was in flight");
    check_connections(&cluster).await;
    cluster.give_back();
}
