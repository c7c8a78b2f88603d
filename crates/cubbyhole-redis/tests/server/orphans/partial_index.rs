//! An index that has lost some of its keys: `k` (keys), `m` (metadata) or `x` (expiries).

use std::time::Duration;

use cubbyhole_core::{
    Condition, EntryStore, ErrorKind, Expiry, GetOptions, OrphanAction, Orphans, PutOptions, Store,
};
use cubbyhole_redis::repair;
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{bytes, ctx, ns, under, until};
use tokio::task::block_in_place;

use super::{HOUR, check_entries, delete_keys, put, remaining_keys, repair_orphans};
use crate::helpers::{cli, cli_number, config, new_prefix, open, shared_server};

/// A value with metadata is not orphaned, so each action keeps it.
#[tokio::test(flavor = "multi_thread")]
async fn repair_restores_entries_missing_from_the_key_index() {
    let server = block_in_place(shared_server);
    let name = ns("acme:a");
    for lost in ["k", "kx"] {
        for action in [OrphanAction::List, OrphanAction::Register, OrphanAction::Remove] {
            let what = format!("{lost} lost, {action:?}");
            let prefix = new_prefix();
            let store = open(server.url(), &prefix).await;
            put(&store, "acme:a", &["old", "put"], PutOptions::new()).await;
            put(&store, "acme:a", &["ttl"], PutOptions::new().with_ttl(HOUR)).await;
            delete_keys(server, &prefix, "acme:a", lost);
            // A put that replaces an entry does not list it again.
            put(&store, "acme:a", &["put"], PutOptions::new()).await;
            assert_eq!(store.list(&ctx(), &name, None).await.unwrap(), [""; 0], "{what}");
            let mut before = Vec::new();
            for key in ["old", "put", "ttl"] {
                before.push(store.get_entry(&ctx(), &name, key, GetOptions::new()).await.unwrap());
            }
            let report = repair_orphans(server.url(), &prefix, action).await;
            assert_eq!(report.orphans, Orphans::default(), "{what}");
            let mut lines = vec!["3 entries were restored in the index"];
            if lost == "kx" {
                lines.insert(0, "1 namespaces were marked as registered again");
            }
            assert_eq!(report.repaired, lines, "{what}");
            check_entries(&store, "acme:a", &["old", "put", "ttl"], &what).await;
            for (key, before) in ["old", "put", "ttl"].into_iter().zip(before) {
                let after = store.get_entry(&ctx(), &name, key, GetOptions::new()).await.unwrap();
                assert_eq!(after, before, "{what}: {key}");
            }
            let expiries = format!("{prefix}{{acme:a}}x");
            let expiring = block_in_place(|| cli_number(server, &["ZCARD", &expiries]));
            assert_eq!(expiring, 2, "{what}: the members are not `ttl` and the marker");
            let again = repair_orphans(server.url(), &prefix, action).await;
            assert_eq!((again.orphans.values, again.repaired.len()), (0, 0), "{what}: {again:?}");
            assert!(store.erase(&ctx(), &under("acme"), 1000).await.unwrap().done, "{what}");
            assert_eq!(remaining_keys(server, &prefix), [""; 0], "{what}");
        }
    }
}

/// A value whose metadata has expired or cannot be read is not an entry.
#[tokio::test(flavor = "multi_thread")]
async fn unlisted_value_without_live_metadata_is_orphaned() {
    let server = block_in_place(shared_server);
    for damage in ["expired", "unreadable"] {
        for action in [OrphanAction::List, OrphanAction::Register, OrphanAction::Remove] {
            let what = format!("{damage}, {action:?}");
            let prefix = new_prefix();
            let store = open(server.url(), &prefix).await;
            let key = |kind: &str| format!("{prefix}{{acme}}{kind}");
            let brief = PutOptions::new().with_ttl(Duration::from_millis(1));
            put(&store, "acme", &["a"], brief).await;
            let ended = async || store.get(&ctx(), &ns("acme"), "a").await.unwrap().is_none();
            until("the entry to expire", ended).await;
            if damage == "unreadable" {
                block_in_place(|| cli(server, &["HSET", &key("m"), "a", "damaged"]));
            }
            let value = key("va");
            block_in_place(|| cli(server, &["SET", &value, "a"]));
            delete_keys(server, &prefix, "acme", "k");
            let report = repair_orphans(server.url(), &prefix, action).await;
            assert_eq!(report.orphans.values, 1, "{what}: {report:?}");
            let kept = block_in_place(|| cli_number(server, &["EXISTS", &value])) == 1;
            assert_eq!(kept, action != OrphanAction::Remove, "{what}");
            let listed = store.list(&ctx(), &ns("acme"), None).await.unwrap();
            assert_eq!(listed.is_empty(), action != OrphanAction::Register, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn repair_restores_expiries_and_drops_entries_without_a_value() {
    let server = block_in_place(RedisServer::start_with_clock).unwrap();
    let store = open(server.url(), "p:").await;
    put(&store, "acme", &["a", "b", "c"], PutOptions::new()).await;
    put(&store, "acme", &["old", "ttl"], PutOptions::new().with_ttl(HOUR)).await;
    // `b` loses its value. `old` and `ttl` lose their expiries, and `old` expires before the
    // repair.
    block_in_place(|| cli(&server, &["DEL", "p:{acme}vb"]));
    delete_keys(&server, "p:", "acme", "x");
    store
        .touch(&ctx(), &ns("acme"), "ttl", Expiry::After(2 * HOUR), Condition::Always)
        .await
        .unwrap();
    delete_keys(&server, "p:", "acme", "x");
    server.advance(HOUR).unwrap();
    let lines = repair(&ctx(), config(server.url(), "p:")).await.unwrap();
    assert_eq!(
        lines,
        [
            "1 namespaces were marked as registered again",
            "1 index entries whose value is gone were removed",
            "2 expiries were restored in the index"
        ]
    );
    check_entries(&store, "acme", &["a", "c", "ttl"], "after the repair").await;
    assert_eq!(store.usage(&ctx(), &under("acme")).await.unwrap().expired, 1);
    assert_eq!(store.evict_expired(&ctx()).await.unwrap(), 1);
    assert!(repair(&ctx(), config(server.url(), "p:")).await.unwrap().is_empty());
    // Members without a value, in each key of the index.
    for command in [
        &["ZADD", "p:{acme}k", "0", "x"][..],
        &["ZADD", "p:{acme}x", "99", "y"],
        &["HSET", "p:{acme}m", "z", "damaged"],
    ] {
        block_in_place(|| cli(&server, command));
    }
    let lines = repair(&ctx(), config(server.url(), "p:")).await.unwrap();
    assert_eq!(lines, ["3 index entries whose value is gone were removed"]);
    check_entries(&store, "acme", &["a", "c", "ttl"], "after the second").await;
}

/// If only the key index is lost, the entries still exist for conditions and for any repair.
#[tokio::test(flavor = "multi_thread")]
async fn put_replaces_an_unlisted_entry_and_repair_lists_it() {
    let server = block_in_place(RedisServer::start_with_clock).unwrap();
    let store = open(server.url(), "p:").await;
    let (name, options) = (ns("acme"), PutOptions::new());
    for lost in ["k", "kx"] {
        put(&store, "acme", &["a", "b", "c", "d"], PutOptions::new().with_ttl(HOUR)).await;
        delete_keys(&server, "p:", "acme", lost);
        store.delete(&ctx(), &name, "a").await.unwrap();
        assert_eq!(store.get(&ctx(), &name, "a").await.unwrap(), None, "{lost}");
        put(&store, "acme", &["b"], options).await;
        let absent = Condition::IfAbsent;
        let taken = store.put_entry(&ctx(), &name, "c", bytes("c"), options, absent).await;
        assert_eq!(taken.unwrap_err().kind(), ErrorKind::Conflict, "{lost}");
        let entry = store.get_entry(&ctx(), &name, "c", GetOptions::new()).await.unwrap().unwrap();
        let same = Condition::IfVersion(entry.meta.version);
        store.put_entry(&ctx(), &name, "c", bytes("c"), options, same).await.unwrap();
        let report = repair_orphans(server.url(), "p:", OrphanAction::Remove).await;
        assert_eq!(report.orphans.values, 0, "{lost}: {report:?}");
        check_entries(&store, "acme", &["b", "c", "d"], lost).await;
        server.advance(HOUR).unwrap();
        check_entries(&store, "acme", &["b", "c"], &format!("{lost}, after an hour")).await;
        assert_eq!(store.evict_expired(&ctx()).await.unwrap(), 1, "{lost}");
        check_entries(&store, "acme", &["b", "c"], &format!("{lost}, after a sweep")).await;
        while !store.erase(&ctx(), &under("acme"), 1).await.unwrap().done {}
        assert_eq!(remaining_keys(&server, "p:"), [""; 0], "{lost}");
    }
}

/// A sweep does not trust the index of expiries. It removes an entry only if its metadata has
/// expired.
#[tokio::test(flavor = "multi_thread")]
async fn sweep_keeps_an_entry_that_its_metadata_says_is_live() {
    let (server, prefix) = (block_in_place(shared_server), new_prefix());
    let store = open(server.url(), &prefix).await;
    put(&store, "acme", &["a"], PutOptions::new()).await;
    put(&store, "acme", &["ttl"], PutOptions::new().with_ttl(HOUR)).await;
    let expiries = format!("{prefix}{{acme}}x");
    block_in_place(|| cli(server, &["ZADD", &expiries, "1", "a", "1", "ttl"]));
    assert_eq!(store.evict_expired(&ctx()).await.unwrap(), 0);
    check_entries(&store, "acme", &["a", "ttl"], "after the sweep").await;
    let members = block_in_place(|| cli_number(server, &["ZCARD", &expiries]));
    assert_eq!(members, 2, "the members are not `ttl` and the marker");
}

/// Sweeps and erasures find the entries that any remaining key of the index lists.
#[tokio::test(flavor = "multi_thread")]
async fn erase_finds_entries_by_any_remaining_index_part() {
    let server = block_in_place(shared_server);
    for lost in ["k", "m", "x", "km", "mx", "kx"] {
        let prefix = new_prefix();
        let store = open(server.url(), &prefix).await;
        put(&store, "acme:a", &["a", "b", "c"], PutOptions::new().with_ttl(HOUR)).await;
        put(&store, "acme:b", &["a"], PutOptions::new()).await;
        delete_keys(server, &prefix, "acme:a", lost);
        store.evict_expired(&ctx()).await.unwrap();
        let mut steps = 0;
        while !store.erase(&ctx(), &under("acme"), 2).await.unwrap().done {
            steps += 1;
            assert!(steps < 20, "{lost}: the erasure does not end");
        }
        assert_eq!(remaining_keys(server, &prefix), [""; 0], "{lost}");
    }
}
