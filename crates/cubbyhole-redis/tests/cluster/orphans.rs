//! Values whose index is lost, on all masters, and while their slot is being moved.

use cubbyhole_core::{
    EntryStore, ErrorKind, NamespacePrefix, OrphanAction, RepairOptions, RepairReport, Store,
    Verdict,
};
use cubbyhole_redis::{Config, RedisStore, diagnose, repair_with_options};
use cubbyhole_testkit::RedisCluster;
use cubbyhole_testkit::helpers::{bytes, ctx, ns};
use tokio::task::block_in_place;

use crate::clusters::{cli, config, finish_move, harmed, open, owner, unharmed};
use crate::shared::slot;

const NAMES: [&str; 9] = [
    "orphan:0", "orphan:1", "orphan:2", "orphan:3", "orphan:4", "orphan:5", "orphan:6", "orphan:7",
    "orphan:8",
];

async fn lose(cluster: &RedisCluster, prefix: &str, store: &RedisStore, names: &[&str]) {
    for name in names {
        for key in ["a", "b"] {
            store.put(&ctx(), &ns(name), key, bytes(key)).await.unwrap();
        }
        let kinds = ["k", "m", "x"].map(|kind| format!("{prefix}{{{name}}}{kind}"));
        let [keys, metas, expiries] = kinds.each_ref().map(String::as_str);
        cli(&cluster.nodes()[owner(cluster, name)], &["DEL", keys, metas, expiries]);
    }
}

async fn repaired(config: &Config, action: OrphanAction) -> RepairReport {
    let options = RepairOptions::new().with_orphans(action);
    repair_with_options(&ctx(), config.clone(), &options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn orphaned_values_of_all_masters_are_found_registered_and_removed() {
    let cluster = unharmed().await;
    let config = config(cluster.url());
    let store = open(config.clone()).await;
    lose(cluster, config.prefix(), &store, &NAMES).await;
    let report = repaired(&config, OrphanAction::List).await;
    assert_eq!((report.orphans.values, report.orphans.namespaces), (18, 9), "{report:?}");
    assert!(report.failure.is_none() && report.repaired.is_empty(), "{report:?}");
    let report = repaired(&config, OrphanAction::Register).await;
    assert_eq!((report.orphans.values, report.failure.is_none()), (18, true), "{report:?}");
    let all = NamespacePrefix::from(ns("orphan"));
    assert_eq!(store.list_namespaces(&ctx(), &all).await.unwrap(), NAMES.map(ns));
    assert_eq!(store.usage(&ctx(), &all).await.unwrap().entries, 18);
    lose(cluster, config.prefix(), &store, &NAMES[..4]).await;
    let report = repaired(&config, OrphanAction::Remove).await;
    assert_eq!((report.orphans.values, report.orphans.namespaces), (8, 4), "{report:?}");
    for (at, name) in NAMES.into_iter().enumerate() {
        let found = store.get(&ctx(), &ns(name), "a").await.unwrap();
        assert_eq!(found.is_some(), at >= 4, "{name}");
    }
    assert_eq!(repaired(&config, OrphanAction::List).await.orphans.values, 0);
}

/// What is half moved is not judged: the repair says so, and after the move it is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn values_of_a_slot_that_is_half_moved_are_not_taken_for_orphans() {
    let cluster = harmed().await;
    let config = config(cluster.url());
    let store = open(config.clone()).await;
    let name = ns("half:orphan");
    for key in ["a", "b", "c", "d"] {
        store.put(&ctx(), &name, key, bytes(key)).await.unwrap();
    }
    let (slot, from) = (slot("half:orphan"), owner(&cluster, "half:orphan"));
    let masters = block_in_place(|| cluster.masters()).unwrap();
    let to = masters.into_iter().find(|master| *master != from).unwrap();
    block_in_place(|| cluster.begin_move(slot, to)).unwrap();
    // Whichever keys are on which side: values without their index, and the other way round.
    for moved in 1..8 {
        let brief = config.clone().with_retry_timeout(std::time::Duration::from_millis(50));
        let report = repaired(&brief, OrphanAction::Remove).await;
        assert_eq!(report.orphans.values, 0, "{moved}: {report:?}");
        assert!(report.repaired.is_empty(), "{moved}: {report:?}");
        if let Some(failure) = report.failure {
            assert_eq!(failure.kind(), ErrorKind::Unavailable, "{moved}: {failure:?}");
        }
        if block_in_place(|| cluster.move_keys(slot, 1)).unwrap() == 0 {
            break;
        }
    }
    finish_move(&cluster, slot);
    let report = repaired(&config, OrphanAction::Remove).await;
    assert!(report.failure.is_none() && report.repaired.is_empty(), "{report:?}");
    assert_eq!(store.list(&ctx(), &name, None).await.unwrap(), ["a", "b", "c", "d"]);
    cluster.give_back();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn doctor_counts_orphaned_values_on_a_cluster() {
    let cluster = harmed().await;
    let config = config(cluster.url());
    let store = open(config.clone()).await;
    // Nothing else is left to be drawn.
    for master in block_in_place(|| cluster.masters()).unwrap() {
        cli(&cluster.nodes()[master], &["FLUSHALL"]);
    }
    lose(&cluster, config.prefix(), &store, &NAMES).await;
    let diagnosis = diagnose(&ctx(), &config).await.unwrap();
    let index = diagnosis.checks.iter().find(|check| check.name == "index").unwrap();
    assert_eq!(index.verdict, Verdict::Problem, "{index:?}");
    cluster.give_back();
}
