//! The clusters of these tests. No more than two run at once: one for all tests that do it no
//! harm, and one that tests take turns to harm.

use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};

use cubbyhole_redis::{Config, RedisStore};
use cubbyhole_testkit::helpers::ctx;
use cubbyhole_testkit::{RedisCluster, RedisServer};
use tokio::sync::{Mutex, MutexGuard, OnceCell};
use tokio::task::block_in_place;

use crate::shared::slot;

/// On a busy machine none of its nodes is taken for dead.
const PATIENT: &str = "cluster-node-timeout 60000";

static UNHARMED: OnceCell<RedisCluster> = OnceCell::const_new();
static HARMED: Mutex<Option<RedisCluster>> = Mutex::const_new(None);
/// Held by whoever gives a slot away: a master that takes one slot and gives another at the same
/// time may, by a message of before with an epoch of after, take the second back (Redis's own race).
static ENDS: std::sync::Mutex<()> = std::sync::Mutex::new(());
static PREFIXES: AtomicU32 = AtomicU32::new(0);

/// A cluster on which slots move and nothing else goes wrong.
pub(crate) async fn unharmed() -> &'static RedisCluster {
    let start = || async {
        block_in_place(|| RedisCluster::start_with(&[PATIENT, "appendonly no"])).unwrap()
    };
    UNHARMED.get_or_init(start).await
}

/// A cluster that is one test's until it is given back.
pub(crate) struct Harmed {
    cluster: RedisCluster,
    place: MutexGuard<'static, Option<RedisCluster>>,
    is_steady: bool,
}

pub(crate) async fn harmed() -> Harmed {
    let mut place = HARMED.lock().await;
    let cluster = match place.take() {
        Some(cluster) => cluster,
        None => block_in_place(RedisCluster::start).unwrap(),
    };
    Harmed { cluster, place, is_steady: false }
}

/// [`harmed`], and no replica takes over by itself, as it may on a machine that is so busy that it
/// halts a master: what the master had not yet passed on would be lost.
pub(crate) async fn steady() -> Harmed {
    let cluster = harmed().await;
    set_on_all(&cluster, "cluster-replica-no-failover", "yes");
    Harmed { is_steady: true, ..cluster }
}

fn set_on_all(cluster: &RedisCluster, name: &str, value: &str) {
    for node in cluster.nodes() {
        assert_eq!(cli(node, &["CONFIG", "SET", name, value]), "OK");
    }
}

impl Harmed {
    /// Waits until it is as good as new. A test that fails before leaves it to nobody.
    pub(crate) fn give_back(self) {
        let Self { cluster, mut place, is_steady } = self;
        if is_steady {
            set_on_all(&cluster, "cluster-replica-no-failover", "no");
        }
        block_in_place(|| cluster.wait_until_whole()).unwrap();
        *place = Some(cluster);
    }
}

impl Deref for Harmed {
    type Target = RedisCluster;

    fn deref(&self) -> &RedisCluster {
        &self.cluster
    }
}

impl DerefMut for Harmed {
    fn deref_mut(&mut self) -> &mut RedisCluster {
        &mut self.cluster
    }
}

/// Ends a move, and waits until all masters know of it.
pub(crate) fn end_move(cluster: &RedisCluster, slot: u16) {
    block_in_place(|| {
        let _turn = ENDS.lock().unwrap_or_else(PoisonError::into_inner);
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

/// Moves a slot with its keys to the next master.
pub(crate) fn move_on(cluster: &RedisCluster, slot: u16) {
    let target = (block_in_place(|| cluster.owner_of(slot)).unwrap() + 1) % 3;
    block_in_place(|| cluster.begin_move(slot, target)).unwrap();
    finish_move(cluster, slot);
}

/// Moves what is left of a slot's keys, and ends its move.
pub(crate) fn finish_move(cluster: &RedisCluster, slot: u16) {
    while block_in_place(|| cluster.move_keys(slot, 100)).unwrap() > 0 {}
    end_move(cluster, slot);
}

/// With a prefix that no other store has.
pub(crate) fn config(url: &str) -> Config {
    let number = PREFIXES.fetch_add(1, Ordering::Relaxed);
    Config::from_url(url).unwrap().with_prefix(format!("{number}:")).unwrap()
}

pub(crate) async fn open(config: Config) -> RedisStore {
    RedisStore::open(&ctx(), config).await.unwrap()
}

/// The node that has the slot of a tag.
pub(crate) fn owner(cluster: &RedisCluster, tag: &str) -> usize {
    block_in_place(|| cluster.owner_of(slot(tag))).unwrap()
}

/// The owner of each slot.
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

pub(crate) fn cli(node: &RedisServer, command: &[&str]) -> String {
    block_in_place(|| node.cli(command)).unwrap()
}
