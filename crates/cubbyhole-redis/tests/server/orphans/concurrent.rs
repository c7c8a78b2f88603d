//! Repairs that run beside writers and sweeps, or are interrupted.

use std::collections::BTreeSet;
use std::time::Duration;

use cubbyhole_core::{
    CancellationToken, EntryStore, ErrorKind, ExecutionContext, OrphanAction, PutOptions,
    RepairOptions, Store,
};
use cubbyhole_redis::repair_with_options;
use cubbyhole_testkit::helpers::{bytes, ctx, ns, tenant};
use tokio::task::{JoinSet, block_in_place};

use super::{check_whole, lose, put, repaired};
use crate::by_hand::{config, listed, new_prefix, open, shared};
use crate::proxy::{Gate, Proxy, script_keys};

/// What writers put, replace, expire and delete meanwhile is never taken for orphaned, and what is
/// orphaned is counted once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn repair_counts_exactly_while_others_write_to_the_same_namespaces() {
    const ORPHANS: usize = 700;
    let server = block_in_place(shared);
    for action in [OrphanAction::List, OrphanAction::Register, OrphanAction::Remove] {
        let prefix = new_prefix();
        let store = open(server.url(), &prefix).await;
        for name in ["acme:0", "acme:1"] {
            let mut batch = cubbyhole_core::Batch::new();
            for key in 0..ORPHANS {
                batch = batch.put(format!("orphan{key:03}"), bytes("v"));
            }
            store.write(&ctx(), &ns(name), batch).await.unwrap();
            lose(server, &prefix, name, "kmx");
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
                // What each leaves.
                store.put(&ctx(), &name, &format!("{writer}:last"), bytes("v")).await.unwrap();
                writes
            });
        }
        let report = repaired(server.url(), &prefix, action).await;
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
        let again = repaired(server.url(), &prefix, OrphanAction::List).await;
        let expected = if action == OrphanAction::List { 2 * ORPHANS as u64 } else { 0 };
        assert_eq!(again.orphans.values, expected, "{action:?}");
    }
}

/// Cut off after any of its commands, a repair leaves nothing that the next one does not bring to its
/// end.
#[tokio::test(flavor = "multi_thread")]
async fn a_repair_that_is_interrupted_goes_on_when_it_is_repeated() {
    let server = block_in_place(shared);
    for action in [OrphanAction::Register, OrphanAction::Remove] {
        for gate in [Gate::CutBefore, Gate::CutAfter] {
            for commands in 0.. {
                assert!(commands < 100);
                let (proxy, prefix) = (Proxy::before(server).await, new_prefix());
                let direct = open(server.url(), &prefix).await;
                for name in ["acme:a", "globex"] {
                    put(&direct, name, &["a", "b"], PutOptions::new()).await;
                }
                lose(server, &prefix, "acme:a", "kmx");
                lose(server, &prefix, "acme", "n");
                let through = config(&proxy.url(), &prefix).with_retry_timeout(Duration::ZERO);
                let mut seen = 0;
                proxy.judge(move |command| {
                    seen += u64::from(command[0] != b"CLIENT");
                    if seen == commands + 1 { gate } else { Gate::Pass }
                });
                let options = RepairOptions::new().with_orphans(action);
                let cut = repair_with_options(&ctx(), through, &options).await;
                let is_done = cut.as_ref().is_ok_and(|report| report.failure.is_none());
                let what = format!("{action:?}, {gate:?} command {}", commands + 1);
                let report = repaired(server.url(), &prefix, action).await;
                if is_done {
                    assert!(report.repaired.is_empty(), "{what}: {report:?}");
                }
                let expected: &[&str] =
                    if action == OrphanAction::Register { &["a", "b"] } else { &[] };
                check_whole(&direct, "acme:a", expected, &what).await;
                check_whole(&direct, "globex", &["a", "b"], &what).await;
                let tenants = listed(server, &format!("{prefix}{{\\*}}n"));
                assert_eq!(tenants, ["acme", "globex"], "{what}");
                if is_done {
                    assert!(commands > 5, "{what}: it took no more");
                    break;
                }
            }
        }
    }
    // The end of the context is told, with what was done before.
    let (proxy, prefix) = (Proxy::before(server).await, new_prefix());
    let direct = open(server.url(), &prefix).await;
    put(&direct, "acme", &["a"], PutOptions::new()).await;
    lose(server, &prefix, "acme", "kmx");
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
async fn a_sweep_in_the_middle_of_a_repair_unlists_nothing_that_is_registered() {
    let server = block_in_place(shared);
    let (proxy, prefix) = (Proxy::before(server).await, new_prefix());
    let direct = open(server.url(), &prefix).await;
    put(&direct, "acme:a", &["a"], PutOptions::new()).await;
    lose(server, &prefix, "acme:a", "kmx");
    // Between the registration of the namespace and that of the value.
    proxy.hold_first(|command| command.contains(&b"register".to_vec()));
    let options = RepairOptions::new().with_orphans(OrphanAction::Register);
    let context = ctx();
    let repairs = repair_with_options(&context, config(&proxy.url(), &prefix), &options);
    let (report, ()) = tokio::join!(repairs, async {
        proxy.until_held().await;
        direct.evict_expired(&ctx()).await.unwrap();
        assert_eq!(listed(server, &format!("{prefix}{{acme}}n")), [""; 0], "it was swept");
        proxy.release();
    });
    assert_eq!(report.unwrap().orphans.values, 1);
    check_whole(&direct, "acme:a", &["a"], "after the sweep").await;
    let tenants = direct.scan_tenants(&ctx(), None, 10).await.unwrap();
    assert_eq!(tenants.items, [tenant("acme")]);
}
