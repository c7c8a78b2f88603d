//! Orphaned values on all masters, and while their slot is being moved.

use cubbyhole_core::{
    EntryStore, ErrorKind, NamespacePrefix, OrphanAction, RepairOptions, RepairReport, Store,
    Verdict,
};
use cubbyhole_redis::{Config, RedisStore, diagnose, repair_with_options};
use cubbyhole_testkit::RedisCluster;
use cubbyhole_testkit::helpers::{bytes, check, ctx, ns};
use tokio::task::block_in_place;

use crate::clusters::{
    begin_move, cli, config, exclusive_cluster, finish_move, move_keys, open, owner, shared_cluster,
};
use crate::helpers::slot;

const NAMES: [&str; 9] = [
    "orphan:0", "orphan:1", "orphan:2", "orphan:3", "orphan:4", "orphan:5", "orphan:6", "orphan:7",
    "orphan:8",
];

/// Puts two entries into each namespace, and deletes its index.
async fn orphan_values(cluster: &RedisCluster, prefix: &str, store: &RedisStore, names: &[&str]) {
    for name in names {
        for key in ["a", "b"] {
            store.put(&ctx(), &ns(name), key, bytes(key)).await.unwrap();
        }
        let kinds = ["k", "m", "x"].map(|kind| format!("{prefix}{{{name}}}{kind}"));
        let [keys, metas, expiries] = kinds.each_ref().map(String::as_str);
        cli(&cluster.nodes()[owner(cluster, name)], &["DEL", keys, metas, expiries]);
    }
}

async fn repair_orphans(config: &Config, action: OrphanAction) -> RepairReport {
    let options = RepairOptions::new().with_orphans(action);
    repair_with_options(&ctx(), config.clone(), &options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn repair_finds_orphaned_values_on_all_masters() {
    let cluster = shared_cluster().await;
    let config = config(cluster.url());
    let store = open(config.clone()).await;
    orphan_values(cluster, config.prefix(), &store, &NAMES).await;
    let report = repair_orphans(&config, OrphanAction::List).await;
    assert_eq!((report.orphans.values, report.orphans.namespaces), (18, 9), "{report:?}");
    assert!(report.failure.is_none() && report.repaired.is_empty(), "{report:?}");
    let report = repair_orphans(&config, OrphanAction::Register).await;
    assert_eq!((report.orphans.values, report.failure.is_none()), (18, true), "{report:?}");
    let all = NamespacePrefix::from(ns("orphan"));
    assert_eq!(store.list_namespaces(&ctx(), &all).await.unwrap(), NAMES.map(ns));
    assert_eq!(store.usage(&ctx(), &all).await.unwrap().entries, 18);
    orphan_values(cluster, config.prefix(), &store, &NAMES[..4]).await;
    let report = repair_orphans(&config, OrphanAction::Remove).await;
    assert_eq!((report.orphans.values, report.orphans.namespaces), (8, 4), "{report:?}");
    for (at, name) in NAMES.into_iter().enumerate() {
        let found = store.get(&ctx(), &ns(name), "a").await.unwrap();
        assert_eq!(found.is_some(), at >= 4, "{name}");
    }
    assert_eq!(repair_orphans(&config, OrphanAction::List).await.orphans.values, 0);
}

/// A repair skips a partly moved namespace and reports it. After the move, the repair completes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn values_in_a_partly_moved_slot_are_not_orphaned() {
    let cluster = exclusive_cluster().await;
    let config = config(cluster.url());
    let store = open(config.clone()).await;
    let name = ns("half:orphan");
    for key in ["a", "b", "c", "d"] {
        store.put(&ctx(), &name, key, bytes(key)).await.unwrap();
    }
    let slot = slot("half:orphan");
    begin_move(&cluster, slot);
    // Each key moves alone, so a master may have values without their index, or the reverse.
    for moved in 1..8 {
        let brief = config.clone().with_retry_timeout(std::time::Duration::from_millis(50));
        let report = repair_orphans(&brief, OrphanAction::Remove).await;
        assert_eq!(report.orphans.values, 0, "{moved}: {report:?}");
        assert!(report.repaired.is_empty(), "{moved}: {report:?}");
        if let Some(failure) = report.failure {
            assert_eq!(failure.kind(), ErrorKind::Unavailable, "{moved}: {failure:?}");
        }
        if move_keys(&cluster, slot, 1) == 0 {
            break;
        }
    }
    finish_move(&cluster, slot);
    let report = repair_orphans(&config, OrphanAction::Remove).await;
    assert!(report.failure.is_none() && report.repaired.is_empty(), "{report:?}");
    assert_eq!(store.list(&ctx(), &name, None).await.unwrap(), ["a", "b", "c", "d"]);
    cluster.give_back();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn doctor_counts_orphaned_values_on_a_cluster() {
    let cluster = exclusive_cluster().await;
    let config = config(cluster.url());
    let store = open(config.clone()).await;
    // The sample can only draw the orphaned values.
    for master in block_in_place(|| cluster.masters()).unwrap() {
        cli(&cluster.nodes()[master], &["FLUSHALL"]);
    }
    orphan_values(&cluster, config.prefix(), &store, &NAMES).await;
    let diagnosis = diagnose(&ctx(), &config).await.unwrap();
    let index = check(&diagnosis, "index");
    assert_eq!(index.verdict, Verdict::Problem, "{index:?}");
    cluster.give_back();
}
