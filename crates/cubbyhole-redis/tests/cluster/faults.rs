//! Faults of a cluster under concurrent histories, which have to have an order all the same:
//!
//! - a slot in use moves from master to master, with all calls that are under way there;
//! - each master is replaced in order (`CLUSTER FAILOVER`), and replaced again;
//! - each master hangs for longer than the deadline of a call, and goes on;
//! - the connections to all nodes are ended.
//!
//! That a master is killed and its replica takes over loses by Redis's nature what a read may have
//! seen: what holds then is in `failover`.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use cubbyhole_conformance::history::Report;
use cubbyhole_core::{ErrorKind, Namespace};
use cubbyhole_test_servers::RedisCluster;
use tokio::task::block_in_place;

use crate::clusters::{Harmed, cli, config, end_move, harmed, open, owner, owners, unharmed};
use crate::failover::replace_in_order;
use crate::histories::{Histories, count, plan};
use crate::shared::{names, ns, pause, slot, until};

/// Longer than a move or a planned failover takes.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Where a master hangs.
const SHORT: Duration = Duration::from_millis(300);
/// How many calls must be answered, of each kind, before, between and after the faults.
const ENOUGH: usize = 100;
/// One connection for calls, and one more while it is replaced.
const CONNECTIONS: usize = 2;

/// Keeps the namespaces of each group in one slot, that of the home of its number.
fn in_slots_of(homes: Vec<Namespace>) -> impl Fn(&Namespace) -> Namespace + Send + Sync {
    let found = Mutex::new(HashMap::<Namespace, Namespace>::new());
    move |name| {
        let mut found = found.lock().unwrap();
        let home = found.entry(name.clone()).or_insert_with(|| {
            // It is `faults:GROUP-ROUND`.
            let (_, segment) = name.as_str().rsplit_once(':').unwrap();
            let group: usize = segment.split_once('-').unwrap().0.parse().unwrap();
            let wanted = slot(homes[group].as_str());
            names(&format!("{name}-"), 1, |name| slot(name) == wanted).remove(0)
        });
        home.clone()
    }
}

/// A namespace of each master.
fn home_of_each_master(cluster: &RedisCluster) -> Vec<Namespace> {
    let owners = owners(cluster);
    let masters = block_in_place(|| cluster.masters()).unwrap();
    let home = |master: &usize| {
        names("home:", 1, |name| owners[usize::from(slot(name))] == *master).remove(0)
    };
    masters.iter().map(home).collect()
}

/// A cluster in which no replica takes over by itself, as it may on a machine that is so busy that
/// it halts a master: what the master had not yet passed on would be lost.
async fn steady() -> Harmed {
    let cluster = harmed().await;
    set_on_all(&cluster, "cluster-replica-no-failover", "yes");
    cluster
}

fn give_back(cluster: Harmed) {
    set_on_all(&cluster, "cluster-replica-no-failover", "no");
    cluster.give_back();
}

fn set_on_all(cluster: &RedisCluster, name: &str, value: &str) {
    for node in cluster.nodes() {
        assert_eq!(cli(node, &["CONFIG", "SET", name, value]), "OK");
    }
}

/// No node has more connections of clients than a store may have.
async fn check_connections(cluster: &RedisCluster) {
    for node in cluster.nodes() {
        // The last is the one that asks.
        let count = || cli(node, &["CLIENT", "LIST", "TYPE", "normal"]).lines().count() - 1;
        until("the end of the connections before", async || count() <= CONNECTIONS).await;
    }
}

fn check_kind(report: &Report, kind: ErrorKind) {
    assert_eq!(count(report, kind), report.failures.len(), "{:?}", report.failures);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_while_their_slots_move_to_and_fro() {
    let cluster = unharmed().await;
    // As long as a call has time: none is to give up because the machine is busy.
    let store = open(config(cluster.url()).with_retry_timeout(TIMEOUT)).await;
    let home = ns("moving");
    let moving = slot(home.as_str());
    let home = in_slots_of(vec![home.clone(), home]);
    let histories = Histories::start(&store, plan(2, TIMEOUT), TIMEOUT, home);
    histories.until_sound(ENOUGH).await;
    for _ in 0..8 {
        let target = (block_in_place(|| cluster.owner_of(moving)).unwrap() + 1) % 3;
        block_in_place(|| cluster.begin_move(moving, target)).unwrap();
        // Slowly at first: a call of which some keys are here and some there waits.
        for _ in 0..10 {
            block_in_place(|| cluster.move_keys(moving, 2)).unwrap();
            pause(5).await;
        }
        while block_in_place(|| cluster.move_keys(moving, 100)).unwrap() > 0 {}
        end_move(cluster, moving);
        histories.until_more(ENOUGH).await;
    }
    histories.until_sound(ENOUGH).await;
    let report = histories.finish().await;
    assert!(report.failures.is_empty(), "{:?}", report.failures.first());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_while_each_master_is_replaced_in_order() {
    let cluster = steady().await;
    let store = open(config(cluster.url())).await;
    let homes = home_of_each_master(&cluster);
    let home = in_slots_of(homes.clone());
    let histories = Histories::start(&store, plan(homes.len(), TIMEOUT), TIMEOUT, home);
    histories.until_sound(ENOUGH).await;
    assert_eq!(histories.failures(), [0, 0]);
    for _ in 0..2 {
        for home in &homes {
            replace_in_order(&cluster, slot(home.as_str())).await;
            histories.until_sound(ENOUGH).await;
            block_in_place(|| cluster.wait_until_whole()).unwrap();
        }
    }
    let report = histories.finish().await;
    // The old master holds writes back until the new one has all, and then says where it is.
    assert!(report.failures.is_empty(), "{:?}", report.failures.first());
    check_connections(&cluster).await;
    give_back(cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_while_each_master_hangs_for_a_moment() {
    let cluster = steady().await;
    let store = open(config(cluster.url())).await;
    let homes = home_of_each_master(&cluster);
    let home = in_slots_of(homes.clone());
    let histories = Histories::start(&store, plan(homes.len(), SHORT), SHORT, home);
    histories.until_sound(ENOUGH).await;
    for home in &homes {
        let hung = owner(&cluster, home.as_str());
        block_in_place(|| cluster.nodes()[hung].pause()).unwrap();
        histories.until_failures(4).await;
        block_in_place(|| cluster.nodes()[hung].resume()).unwrap();
        histories.until_sound(ENOUGH).await;
        assert_eq!(owner(&cluster, home.as_str()), hung, "it was replaced");
    }
    let report = histories.finish().await;
    // A master that hangs for as long as the others wait is taken for dead by them.
    for failure in &report.failures {
        let kind = failure.error.kind();
        let kinds = [ErrorKind::DeadlineExceeded, ErrorKind::Unavailable];
        assert!(kinds.contains(&kind), "{:?}", failure.error);
    }
    assert!(count(&report, ErrorKind::DeadlineExceeded) >= homes.len());
    check_connections(&cluster).await;
    give_back(cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_while_the_connections_to_all_nodes_are_ended() {
    let cluster = steady().await;
    let store = open(config(cluster.url())).await;
    let homes = home_of_each_master(&cluster);
    let home = in_slots_of(homes.clone());
    let histories = Histories::start(&store, plan(homes.len(), TIMEOUT), TIMEOUT, home);
    histories.until_sound(ENOUGH).await;
    assert_eq!(histories.failures(), [0, 0]);
    for _ in 0..10 {
        for node in cluster.nodes() {
            cli(node, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        }
        histories.until_more(10).await;
    }
    histories.until_sound(ENOUGH).await;
    let report = histories.finish().await;
    // Reads are made again by the store, and writes that were under way are not.
    check_kind(&report, ErrorKind::Unavailable);
    assert!(report.unknown > 0, "no write was under way");
    check_connections(&cluster).await;
    give_back(cluster);
}
