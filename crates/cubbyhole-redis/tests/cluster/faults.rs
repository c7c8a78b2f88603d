//! Faults of a cluster under concurrent histories, which have to have an order all the same:
//!
//! - a slot in use moves from master to master, with all calls that are under way there;
//! - each master is replaced in order (`CLUSTER FAILOVER`), and replaced again;
//! - each master hangs for longer than the deadline of a call, and goes on;
//! - the connections to all nodes are ended.
//!
//! That a master is killed and its replica takes over loses by Redis's nature what a read may have
//! seen: what holds then is in `failover`.

use std::time::Duration;

use cubbyhole_core::{ErrorKind, Namespace, Result};
use cubbyhole_testkit::RedisCluster;
use cubbyhole_testkit::helpers::{ns, pause, until};
use cubbyhole_testkit::load::histories::TIMEOUT;
use tokio::task::block_in_place;

use crate::clusters::{cli, config, end_move, open, owner, owners, steady, unharmed};
use crate::failover::replace_in_order;
use crate::histories::{finish, plan, start};
use crate::shared::{names, slot};

/// Where a master hangs.
const SHORT: Duration = Duration::from_millis(300);
/// How many calls must be answered, of each kind, before, between and after the faults.
const ENOUGH: u64 = 100;
/// One connection for calls, and one more while it is replaced.
const CONNECTIONS: usize = 2;

/// Keeps the namespaces of each group in one slot, that of the home of its number.
fn in_slots_of(
    homes: Vec<Namespace>,
) -> impl Fn(usize, u64) -> Result<Namespace> + Send + Sync + 'static {
    move |group, round| {
        let wanted = slot(homes[group].as_str());
        let place = format!("faults:{group}-{round}-");
        Ok(names(&place, 1, |name| slot(name) == wanted).remove(0))
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

/// No node has more connections of clients than a store may have.
async fn check_connections(cluster: &RedisCluster) {
    for node in cluster.nodes() {
        // The last is the one that asks.
        let count = || cli(node, &["CLIENT", "LIST", "TYPE", "normal"]).lines().count() - 1;
        until("the end of the connections before", async || count() <= CONNECTIONS).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_while_their_slots_move_to_and_fro() {
    let cluster = unharmed().await;
    // As long as a call has time: none is to give up because the machine is busy.
    let store = open(config(cluster.url()).with_retry_timeout(TIMEOUT)).await;
    let home = ns("moving");
    let moving = slot(home.as_str());
    let home = in_slots_of(vec![home.clone(), home]);
    let histories = start(store.clone(), plan(2, TIMEOUT).with_namespaces(home));
    histories.until_sound(ENOUGH).await.unwrap();
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
        histories.until_more(ENOUGH).await.unwrap();
    }
    histories.until_sound(ENOUGH).await.unwrap();
    finish(histories, &[], TIMEOUT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_while_each_master_is_replaced_in_order() {
    let cluster = steady().await;
    let store = open(config(cluster.url())).await;
    let homes = home_of_each_master(&cluster);
    let home = in_slots_of(homes.clone());
    let histories = start(store.clone(), plan(homes.len(), TIMEOUT).with_namespaces(home));
    histories.until_sound(ENOUGH).await.unwrap();
    assert_eq!(histories.counts().failures(), 0, "nothing has happened yet");
    for _ in 0..2 {
        for home in &homes {
            replace_in_order(&cluster, slot(home.as_str())).await;
            histories.until_sound(ENOUGH).await.unwrap();
            block_in_place(|| cluster.wait_until_whole()).unwrap();
        }
    }
    // The old master holds writes back until the new one has all, and then says where it is.
    finish(histories, &[], TIMEOUT).await;
    check_connections(&cluster).await;
    cluster.give_back();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_while_each_master_hangs_for_a_moment() {
    let cluster = steady().await;
    let store = open(config(cluster.url())).await;
    let homes = home_of_each_master(&cluster);
    let home = in_slots_of(homes.clone());
    let histories = start(store.clone(), plan(homes.len(), SHORT).with_namespaces(home));
    histories.until_sound(ENOUGH).await.unwrap();
    for home in &homes {
        let hung = owner(&cluster, home.as_str());
        block_in_place(|| cluster.nodes()[hung].pause()).unwrap();
        histories.until_failures(4).await.unwrap();
        block_in_place(|| cluster.nodes()[hung].resume()).unwrap();
        histories.until_sound(ENOUGH).await.unwrap();
        assert_eq!(owner(&cluster, home.as_str()), hung, "it was replaced");
    }
    // A master that hangs for as long as the others wait is taken for dead by them.
    let kinds = [ErrorKind::DeadlineExceeded, ErrorKind::Unavailable];
    let report = finish(histories, &kinds, SHORT).await;
    assert!(report.failures_of(ErrorKind::DeadlineExceeded) >= homes.len());
    check_connections(&cluster).await;
    cluster.give_back();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_while_the_connections_to_all_nodes_are_ended() {
    let cluster = steady().await;
    let store = open(config(cluster.url())).await;
    let homes = home_of_each_master(&cluster);
    let home = in_slots_of(homes.clone());
    let histories = start(store.clone(), plan(homes.len(), TIMEOUT).with_namespaces(home));
    histories.until_sound(ENOUGH).await.unwrap();
    assert_eq!(histories.counts().failures(), 0, "nothing has happened yet");
    for _ in 0..10 {
        for node in cluster.nodes() {
            cli(node, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        }
        histories.until_more(10).await.unwrap();
    }
    histories.until_sound(ENOUGH).await.unwrap();
    // Reads are made again by the store, and writes that were under way are not.
    let report = finish(histories, &[ErrorKind::Unavailable], TIMEOUT).await;
    assert!(report.unknown > 0, "no write was under way");
    check_connections(&cluster).await;
    cluster.give_back();
}
