//! The clusters of the tests, their slots and their stores.
//!
//! At most two clusters run at the same time: one that is shared by all tests that only move slots,
//! and one that a single test at a time may damage.

use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};

use cubbyhole_core::Namespace;
use cubbyhole_redis::{Config, RedisStore};
use cubbyhole_testkit::helpers::ctx;
use cubbyhole_testkit::{RedisCluster, RedisServer};
use tokio::sync::{Mutex, MutexGuard, OnceCell};
use tokio::task::block_in_place;

use crate::helpers::{names, slot};

/// Prevents failovers of nodes that a busy machine delays.
const LONG_NODE_TIMEOUT: &str = "cluster-node-timeout 60000";

/// The member of an index that marks a registered tenant.
const MARKER: &str = "\0";

static SHARED: OnceCell<RedisCluster> = OnceCell::const_new();
static EXCLUSIVE: Mutex<Option<RedisCluster>> = Mutex::const_new(None);
/// Held while a move ends. Redis has a race: a master that receives one slot and gives another away
/// at the same time may take the second one back, because an old message carries a new epoch.
static END_OF_MOVE: std::sync::Mutex<()> = std::sync::Mutex::new(());
static PREFIXES: AtomicU32 = AtomicU32::new(0);

/// Returns the cluster of all tests that only move slots.
pub(crate) async fn shared_cluster() -> &'static RedisCluster {
    let start = || async {
        let settings = [LONG_NODE_TIMEOUT, "appendonly no"];
        block_in_place(|| RedisCluster::start_with(&settings)).unwrap()
    };
    SHARED.get_or_init(start).await
}

/// A cluster that belongs to one test until the test gives it back.
pub(crate) struct ExclusiveCluster {
    cluster: RedisCluster,
    lease: MutexGuard<'static, Option<RedisCluster>>,
    has_failover: bool,
}

pub(crate) async fn exclusive_cluster() -> ExclusiveCluster {
    let mut lease = EXCLUSIVE.lock().await;
    let cluster = match lease.take() {
        Some(cluster) => cluster,
        None => block_in_place(RedisCluster::start).unwrap(),
    };
    ExclusiveCluster { cluster, lease, has_failover: true }
}

/// Returns an [`exclusive_cluster`] without automatic failover.
///
/// On a busy machine, a master may be silent for long enough that its replica is promoted. Writes
/// that it had not replicated would be lost.
pub(crate) async fn exclusive_without_failover() -> ExclusiveCluster {
    let cluster = exclusive_cluster().await;
    set_on_all(&cluster, "cluster-replica-no-failover", "yes");
    ExclusiveCluster { has_failover: false, ..cluster }
}

fn set_on_all(cluster: &RedisCluster, name: &str, value: &str) {
    for node in cluster.nodes() {
        assert_eq!(cli(node, &["CONFIG", "SET", name, value]), "OK");
    }
}

impl ExclusiveCluster {
    /// Waits until the cluster is healthy, and offers it to the next test. A test that fails
    /// earlier drops its cluster.
    pub(crate) fn give_back(self) {
        let Self { cluster, mut lease, has_failover } = self;
        if !has_failover {
            set_on_all(&cluster, "cluster-replica-no-failover", "no");
        }
        block_in_place(|| cluster.wait_until_whole()).unwrap();
        *lease = Some(cluster);
    }
}

impl Deref for ExclusiveCluster {
    type Target = RedisCluster;

    fn deref(&self) -> &RedisCluster {
        &self.cluster
    }
}

impl DerefMut for ExclusiveCluster {
    fn deref_mut(&mut self) -> &mut RedisCluster {
        &mut self.cluster
    }
}

/// Begins to move a slot to the next master, without moving any key.
pub(crate) fn begin_move(cluster: &RedisCluster, slot: u16) {
    block_in_place(|| {
        let owner = cluster.owner_of(slot).unwrap();
        let masters = cluster.masters().unwrap();
        let position = masters.iter().position(|master| *master == owner).unwrap();
        cluster.begin_move(slot, masters[(position + 1) % masters.len()]).unwrap();
    });
}

/// Moves up to `count` keys of a slot whose move has begun. Returns how many it moved.
pub(crate) fn move_keys(cluster: &RedisCluster, slot: u16, count: usize) -> usize {
    block_in_place(|| cluster.move_keys(slot, count)).unwrap()
}

/// Ends a move, and waits until all masters know its result.
pub(crate) fn end_move(cluster: &RedisCluster, slot: u16) {
    block_in_place(|| {
        let _guard = END_OF_MOVE.lock().unwrap_or_else(PoisonError::into_inner);
        cluster.end_move(slot).unwrap();
        let limit = ctx();
        loop {
            let view = |node: &RedisServer| {
                let info = node.cli(&["CLUSTER", "INFO"]).unwrap();
                let epoch = info.lines().find(|line| line.starts_with("cluster_current_epoch"));
                epoch.unwrap().to_owned()
            };
            let epochs: BTreeSet<String> = cluster.nodes()[..3].iter().map(view).collect();
            if epochs.len() == 1 {
                return;
            }
            assert!(limit.check().is_ok(), "the masters do not agree: {epochs:?}");
        }
    });
}

/// Moves the remaining keys of a slot, and ends its move.
pub(crate) fn finish_move(cluster: &RedisCluster, slot: u16) {
    while move_keys(cluster, slot, 100) > 0 {}
    end_move(cluster, slot);
}

/// Returns a configuration with a prefix that no other store uses.
pub(crate) fn config(url: &str) -> Config {
    let number = PREFIXES.fetch_add(1, Ordering::Relaxed);
    Config::from_url(url).unwrap().with_prefix(format!("{number}:")).unwrap()
}

pub(crate) async fn open(config: Config) -> RedisStore {
    RedisStore::open(&ctx(), config).await.unwrap()
}

/// Returns the node that serves the slot of a hash tag.
pub(crate) fn owner(cluster: &RedisCluster, tag: &str) -> usize {
    block_in_place(|| cluster.owner_of(slot(tag))).unwrap()
}

/// Returns the node that serves each slot.
pub(crate) fn owners(cluster: &RedisCluster) -> Vec<usize> {
    let mut owners = vec![usize::MAX; 16384];
    for index in block_in_place(|| cluster.masters()).unwrap() {
        let text = cli(&cluster.nodes()[index], &["CLUSTER", "NODES"]);
        let own = text.lines().find(|line| line.contains("myself")).unwrap();
        for range in own.split(' ').skip(8).filter(|word| !word.starts_with('[')) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
            owners[first..=last].fill(index);
        }
    }
    owners
}

/// Returns the first namespace `STEM0`, `STEM1`, … whose slot that node serves.
pub(crate) fn namespace_on(owners: &[usize], stem: &str, node: usize) -> Namespace {
    names(stem, 1, |name| owners[usize::from(slot(name))] == node).remove(0)
}

/// Returns the names in the index of a tenant, or of all tenants. Asserts that each name is listed
/// once, with a numeric token.
pub(crate) fn index_names(cluster: &RedisCluster, prefix: &str, tag: &str) -> BTreeSet<String> {
    let key = format!("{prefix}{{{tag}}}n");
    let members = cli(&cluster.nodes()[owner(cluster, tag)], &["ZRANGE", &key, "0", "-1"]);
    let mut names = BTreeSet::new();
    for member in members.lines().filter(|member| *member != MARKER) {
        let (name, token) = member.split_once('\0').unwrap();
        assert!(token.parse::<u64>().is_ok(), "{member:?}");
        assert!(names.insert(name.to_owned()), "{name} is listed twice");
    }
    names
}

/// Returns a node's answer to a raw command.
pub(crate) fn cli(node: &RedisServer, command: &[&str]) -> String {
    block_in_place(|| node.cli(command)).unwrap()
}
