//! Repairs that run at the same time as writers and sweeps, and repairs that are interrupted.

use std::collections::BTreeSet;
use std::time::Duration;

use cubbyhole_core::{
    CancellationToken, EntryStore, ErrorKind, ExecutionContext, OrphanAction, PutOptions,
    RepairOptions, Store,
};
use cubbyhole_redis::repair_with_options;
use cubbyhole_testkit::helpers::{bytes, ctx, ns, tenant};
use tokio::task::{JoinSet, block_in_place};

use super::{check_entries, delete_keys, put, repair_orphans};
use crate::helpers::{config, index_names, new_prefix, open, shared_server};
use crate::proxy::{Gate, RedisProxy, script_keys};

/// A repair counts each orphaned value once, and never counts an entry that is written, replaced,
/// deleted or expires at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn repair_counts_exactly_during_concurrent_writes() {
    const ORPHANS: usize = 700;
    let server = block_in_place(shared_server);
    for action in [OrphanAction::List, OrphanAction::Register, OrphanAction::Remove] {
        let prefix = new_prefix();
        let store = open(server.url(), &prefix).await;
        for name in ["acme:0", "acme:1"] {
            let mut batch = cubbyhole_core::Batch::new();
            for key in 0..ORPHANS {
                batch = batch.put(format!("orphan{key:03}"), bytes("v"));
            }
            store.write(&ctx(), &ns(name), batch).await.unwrap();
            delete_keys(server, &prefix, name, "kmx");
        }
        let stop = CancellationToken::new();
        let mut writers = JoinSet::new();
        for writer in 0..6_usize {
            let (store, stop) = (store.clone(), stop.clone());
            writers.spawn(async move {
                let name = ns(&format!("acme:{}", writer % 3));
                let mut writes = 0;
                while !stop.is_cancelled() {
                    let key = format!("{writer}:{}", writes % 40);
                    let ttl = PutOptions::new().with_ttl(Duration::from_millis(1 + writes % 5));
                    match fastrand::u8(0..6) {
                        0 => store.delete(&ctx(), &name, &key).await.unwrap(),
                        1 => store
                            .put_with_options(&ctx(), &name, &key, bytes("v"), ttl)
                            .await
                            .unwrap(),
                        2 => drop(store.take(&ctx(), &name, &key).await.unwrap()),
                        3 if writer == 0 => drop(store.evict_expired(&ctx()).await.unwrap()),
                        _ => store.put(&ctx(), &name, &key, bytes("v")).await.unwrap(),
                    }
                    writes += 1;
                }
                // The last entry of each writer must survive the repair.
                store.put(&ctx(), &name, &format!("{writer}:last"), bytes("v")).await.unwrap();
                writes
            });
        }
        let report = repair_orphans(server.url(), &prefix, action).await;
        stop.cancel();
        assert!(writers.join_all().await.into_iter().sum::<u64>() > 0);
        assert_eq!(report.orphans.values, 2 * ORPHANS as u64, "{action:?}");
        assert_eq!(report.orphans.namespaces, 2, "{action:?}");
        assert!(report.orphans.listed.iter().all(|orphan| orphan.key.starts_with("orphan")));
        assert_eq!(report.orphans.listed.len(), 1000, "the list is bounded");
        for (name, writers) in [("acme:0", ["0", "3"]), ("acme:1", ["1", "4"])] {
            let listed = store.list(&ctx(), &ns(name), None).await.unwrap();
            let listed: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
            for writer in writers {
                assert!(listed.contains(format!("{writer}:last").as_str()), "{action:?} {name}");
            }
            let registered = listed.iter().filter(|key| key.starts_with("orphan")).count();
            let expected = if action == OrphanAction::Register { ORPHANS } else { 0 };
            assert_eq!(registered, expected, "{action:?} {name}");
        }
        let again = repair_orphans(server.url(), &prefix, OrphanAction::List).await;
        let expected = if action == OrphanAction::List { 2 * ORPHANS as u64 } else { 0 };
        assert_eq!(again.orphans.values, expected, "{action:?}");
    }
}

/// A repair may lose its connection at any of its commands. The next repair completes it.
#[tokio::test(flavor = "multi_thread")]
async fn interrupted_repair_is_completed_by_the_next_one() {
    let server = block_in_place(shared_server);
    for action in [OrphanAction::Register, OrphanAction::Remove] {
        for gate in [Gate::CutBefore, Gate::CutAfter] {
            for commands in 0.. {
                assert!(commands < 100);
                let (proxy, prefix) = (RedisProxy::start(server).await, new_prefix());
                let direct = open(server.url(), &prefix).await;
                for name in ["acme:a", "globex"] {
                    put(&direct, name, &["a", "b"], PutOptions::new()).await;
                }
                delete_keys(server, &prefix, "acme:a", "kmx");
                delete_keys(server, &prefix, "acme", "n");
                let through = config(&proxy.url(), &prefix).with_retry_timeout(Duration::ZERO);
                let mut seen = 0;
                proxy.set_rule(move |command| {
                    seen += u64::from(command[0] != b"CLIENT");
                    if seen == commands + 1 { gate } else { Gate::Pass }
                });
                let options = RepairOptions::new().with_orphans(action);
                let cut = repair_with_options(&ctx(), through, &options).await;
                let is_done = cut.as_ref().is_ok_and(|report| report.failure.is_none());
                let what = format!("{action:?}, {gate:?} command {}", commands + 1);
                let report = repair_orphans(server.url(), &prefix, action).await;
                if is_done {
                    assert!(report.repaired.is_empty(), "{what}: {report:?}");
                }
                let expected: &[&str] =
                    if action == OrphanAction::Register { &["a", "b"] } else { &[] };
                check_entries(&direct, "acme:a", expected, &what).await;
                check_entries(&direct, "globex", &["a", "b"], &what).await;
                let tenants = index_names(server, &format!("{prefix}{{\\*}}n"));
                assert_eq!(tenants, ["acme", "globex"], "{what}");
                if is_done {
                    assert!(commands > 5, "{what}: the repair took too few commands");
                    break;
                }
            }
        }
    }
    // A repair whose context ends returns a report with the failure.
    let (proxy, prefix) = (RedisProxy::start(server).await, new_prefix());
    let direct = open(server.url(), &prefix).await;
    put(&direct, "acme", &["a"], PutOptions::new()).await;
    delete_keys(server, &prefix, "acme", "kmx");
    let ended = ExecutionContext::new();
    proxy.hold_first(|command| script_keys(command).len() == 4);
    let options = RepairOptions::new().with_orphans(OrphanAction::Remove);
    let repairs = repair_with_options(&ended, config(&proxy.url(), &prefix), &options);
    let (report, ()) = tokio::join!(repairs, async {
        proxy.until_held().await;
        ended.cancel();
    });
    assert_eq!(report.unwrap().failure.unwrap().kind(), ErrorKind::Cancelled);
    proxy.release();
}

#[tokio::test(flavor = "multi_thread")]
async fn sweep_during_repair_keeps_registered_values_listed() {
    let server = block_in_place(shared_server);
    let (proxy, prefix) = (RedisProxy::start(server).await, new_prefix());
    let direct = open(server.url(), &prefix).await;
    put(&direct, "acme:a", &["a"], PutOptions::new()).await;
    delete_keys(server, &prefix, "acme:a", "kmx");
    // The namespace is registered, and the value is not.
    proxy.hold_first(|command| command.contains(&b"register".to_vec()));
    let options = RepairOptions::new().with_orphans(OrphanAction::Register);
    let context = ctx();
    let repairs = repair_with_options(&context, config(&proxy.url(), &prefix), &options);
    let (report, ()) = tokio::join!(repairs, async {
        proxy.until_held().await;
        direct.evict_expired(&ctx()).await.unwrap();
        assert_eq!(
            index_names(server, &format!("{prefix}{{acme}}n")),
            [""; 0],
            "the registration was not swept"
        );
        proxy.release();
    });
    assert_eq!(report.unwrap().orphans.values, 1);
    check_entries(&direct, "acme:a", &["a"], "after the sweep").await;
    let tenants = direct.scan_tenants(&ctx(), None, 10).await.unwrap();
    assert_eq!(tenants.items, [tenant("acme")]);
}
