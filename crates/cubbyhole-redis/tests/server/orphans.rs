//! Values whose index was evicted or deleted: what each call says of them, and what `repair` and
//! `diagnose` do about them.

mod concurrent;
mod lost_parts;

use std::time::Duration;

use cubbyhole_core::{
    Check, Condition, EntryStore, ErrorKind, GetOptions, OrphanAction, PutOptions, RepairOptions,
    RepairReport, ScanOptions, Store, Verdict,
};
use cubbyhole_redis::{RedisStore, diagnose, repair, repair_with_options};
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{bytes, ctx, ns, tenant, under, until};
use tokio::task::block_in_place;

use crate::by_hand::{cli, clock, config, keys, new_prefix, number, open, shared};

const HOUR: Duration = Duration::from_secs(3600);

/// Deletes keys of a namespace, as an eviction does.
fn lose(server: &RedisServer, prefix: &str, name: &str, kinds: &str) {
    for kind in kinds.chars() {
        block_in_place(|| cli(server, &["DEL", &format!("{prefix}{{{name}}}{kind}")]));
    }
}

async fn repaired(url: &str, prefix: &str, action: OrphanAction) -> RepairReport {
    let options = RepairOptions::new().with_orphans(action);
    let report = repair_with_options(&ctx(), config(url, prefix), &options).await.unwrap();
    assert!(report.failure.is_none(), "{report:?}");
    report
}

async fn put(store: &RedisStore, name: &str, keys: &[&str], options: PutOptions) {
    for key in keys {
        store.put_with_options(&ctx(), &ns(name), key, bytes(key), options).await.unwrap();
    }
}

/// That every way to look at a namespace shows these keys, each with itself as the value.
async fn check_whole(store: &RedisStore, name: &str, keys: &[&str], what: &str) {
    let name = ns(name);
    assert_eq!(store.list(&ctx(), &name, None).await.unwrap(), keys, "{what}");
    let page = store.scan(&ctx(), &name, ScanOptions::new()).await.unwrap();
    let scanned: Vec<&str> = page.items.iter().map(|item| item.key.as_str()).collect();
    assert_eq!(scanned, keys, "{what}");
    for key in keys {
        assert_eq!(store.get(&ctx(), &name, key).await.unwrap(), Some(bytes(key)), "{what}: {key}");
        let entry = store.get_entry(&ctx(), &name, key, GetOptions::new()).await.unwrap();
        assert_eq!(entry.unwrap().value, bytes(key), "{what}: {key}");
    }
    let prefix = name.clone().into();
    assert_eq!(store.usage(&ctx(), &prefix).await.unwrap().entries, keys.len() as u64, "{what}");
    let names = store.list_namespaces(&ctx(), &prefix).await.unwrap();
    assert_eq!(names.contains(&name), !keys.is_empty(), "{what}: {names:?}");
}

async fn index_check(server: &RedisServer, prefix: &str) -> Check {
    let diagnosis = diagnose(&ctx(), &config(server.url(), prefix)).await.unwrap();
    diagnosis.checks.into_iter().find(|check| check.name == "index").unwrap()
}

/// The keys of a namespace that are left on the server, without fences.
fn left(server: &RedisServer, prefix: &str) -> Vec<String> {
    let all = block_in_place(|| keys(server, prefix));
    all.into_iter().filter(|key| !key.ends_with("}f") && !key.ends_with("}g")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn repair_lists_registers_or_removes_values_whose_index_is_lost() {
    let server = block_in_place(shared);
    for lost in ["kmx", "km", "m", "mx"] {
        for action in [OrphanAction::List, OrphanAction::Register, OrphanAction::Remove] {
            let what = format!("{lost} lost, {action:?}");
            let prefix = new_prefix();
            let store = open(server.url(), &prefix).await;
            put(&store, "acme:a", &["1", "22"], PutOptions::new()).await;
            put(&store, "acme:a", &["333"], PutOptions::new().with_ttl(HOUR)).await;
            put(&store, "acme:b", &["whole"], PutOptions::new()).await;
            lose(server, &prefix, "acme:a", lost);
            let report = repaired(server.url(), &prefix, action).await;
            let orphans = &report.orphans;
            assert_eq!((orphans.values, orphans.namespaces, orphans.bytes), (3, 1, 6), "{what}");
            let listed: Vec<_> = orphans.listed.iter().map(|orphan| orphan.key.as_str()).collect();
            assert_eq!(listed, ["1", "22", "333"], "{what}");
            assert!(orphans.listed.iter().all(|orphan| orphan.namespace == ns("acme:a")));
            let expire = orphans.listed.iter().map(|orphan| orphan.expires_at.is_some());
            assert_eq!(expire.collect::<Vec<_>>(), [false, false, true], "{what}");
            check_whole(&store, "acme:b", &["whole"], &what).await;
            match action {
                OrphanAction::List => {
                    assert!(store.get(&ctx(), &ns("acme:a"), "22").await.unwrap().is_some());
                    // It changed nothing, and finds the same again.
                    let again = repaired(server.url(), &prefix, action).await;
                    assert_eq!(again.orphans, report.orphans, "{what}");
                    continue;
                }
                OrphanAction::Register => {
                    check_whole(&store, "acme:a", &["1", "22", "333"], &what).await;
                    let line = "3 orphaned values were registered".to_owned();
                    assert!(report.repaired.contains(&line), "{what}: {report:?}");
                }
                OrphanAction::Remove => {
                    check_whole(&store, "acme:a", &[], &what).await;
                    let line = "3 orphaned values were removed".to_owned();
                    assert!(report.repaired.contains(&line), "{what}: {report:?}");
                    assert!(!left(server, &prefix).iter().any(|key| key.contains("{acme:a}v")));
                }
            }
            let again = repaired(server.url(), &prefix, action).await;
            assert_eq!((again.orphans.values, again.repaired.len()), (0, 0), "{what}: {again:?}");
            // A sweep and an erasure come to the end of what is left.
            store.evict_expired(&ctx()).await.unwrap();
            assert!(store.erase(&ctx(), &under("acme"), 1000).await.unwrap().done, "{what}");
            assert_eq!(left(server, &prefix), [""; 0], "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_value_gets_what_is_lost_anew_and_keeps_the_rest() {
    let server = block_in_place(RedisServer::start_with_clock).unwrap();
    let store = open(server.url(), "p:").await;
    let (name, get) = (ns("acme"), GetOptions::new());
    for (lost, keeps) in [("k", true), ("kx", true), ("m", false), ("kmx", false)] {
        put(&store, "acme", &["stays"], PutOptions::new()).await;
        put(&store, "acme", &["ends"], PutOptions::new().with_ttl(HOUR)).await;
        let before = [
            store.get_entry(&ctx(), &name, "stays", get).await.unwrap().unwrap().meta,
            store.get_entry(&ctx(), &name, "ends", get).await.unwrap().unwrap().meta,
        ];
        server.advance(Duration::from_secs(60)).unwrap();
        lose(&server, "p:", "acme", lost);
        repaired(server.url(), "p:", OrphanAction::Register).await;
        let now = clock(&server);
        for (key, before) in ["stays", "ends"].into_iter().zip(before) {
            let after = store.get_entry(&ctx(), &name, key, get).await.unwrap().unwrap().meta;
            assert_eq!(after.expires_at, before.expires_at, "{lost} {key}");
            if keeps {
                assert_eq!(after, before, "{lost} {key}");
                continue;
            }
            assert_ne!(after.version, before.version, "{lost} {key}");
            let instants = [after.created_at.as_millis(), after.updated_at.as_millis()];
            assert_eq!(instants, [now; 2], "{lost} {key}");
        }
        // It ends when it would have, and a sweep takes it out of the index.
        server.advance(HOUR).unwrap();
        check_whole_of(&store, &["stays"], lost).await;
        assert_eq!(store.evict_expired(&ctx()).await.unwrap(), 1, "{lost}");
        store.delete(&ctx(), &name, "stays").await.unwrap();
    }
}

async fn check_whole_of(store: &RedisStore, keys: &[&str], what: &str) {
    check_whole(store, "acme", keys, what).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_counts_orphaned_values_in_its_sample() {
    let server = block_in_place(RedisServer::start).unwrap();
    let store = open(server.url(), "p:").await;
    put(&store, "acme", &["a", "b"], PutOptions::new()).await;
    let found = index_check(&server, "p:").await;
    assert_eq!(found.verdict, Verdict::Ok, "{found:?}");
    lose(&server, "p:", "acme", "kmx");
    // Nothing but the two values is left to be drawn, and the indexes of names.
    let found = index_check(&server, "p:").await;
    assert_eq!(found.verdict, Verdict::Problem, "{found:?}");
    let (orphaned, rest) = found.finding.split_once(" of ").unwrap();
    assert!(rest.starts_with(&format!("{orphaned} sampled values are orphaned")), "{found:?}");
    assert!(orphaned.parse::<u64>().unwrap() > 0, "{found:?}");
    assert!(found.advice.unwrap().contains("doctor --repair"));
    // It changed nothing.
    assert_eq!(repaired(server.url(), "p:", OrphanAction::List).await.orphans.values, 2);
    repaired(server.url(), "p:", OrphanAction::Register).await;
    assert_eq!(index_check(&server, "p:").await.verdict, Verdict::Ok);
    // A damaged index is not taken for orphaned values.
    lose(&server, "p:", "acme", "k");
    let found = index_check(&server, "p:").await;
    assert_eq!(found.verdict, Verdict::Problem, "{found:?}");
    assert!(found.finding.contains("live entries that a damaged index does not list"), "{found:?}");
    assert!(!found.finding.contains("orphaned"), "{found:?}");
    let advice = found.advice.unwrap();
    assert!(advice.contains("restores the index") && !advice.contains("--orphans"), "{advice}");
    // It changed nothing.
    let report = repaired(server.url(), "p:", OrphanAction::Remove).await;
    assert_eq!(report.repaired, ["2 entries were restored in the index"]);
    assert_eq!(index_check(&server, "p:").await.verdict, Verdict::Ok);
    // A user that may not look says so.
    block_in_place(|| {
        cli(&server, &["ACL", "SETUSER", "app", "on", "nopass", "~*", "+@all", "-strlen"])
    });
    let url = format!("redis://app:x@127.0.0.1:{}", server.port());
    let diagnosis = diagnose(&ctx(), &config(&url, "p:")).await.unwrap();
    let check = diagnosis.checks.iter().find(|check| check.name == "index").unwrap();
    assert_eq!(check.verdict, Verdict::Warning, "{check:?}");
    assert!(check.advice.as_ref().unwrap().contains("STRLEN"), "{check:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn repair_finds_every_value_whose_index_the_server_evicted() {
    let server = block_in_place(RedisServer::start).unwrap();
    let set = |name: &str, value: &str| {
        block_in_place(|| cli(&server, &["CONFIG", "SET", name, value]));
    };
    let store = open(server.url(), "p:").await;
    for number in 0..400 {
        put(&store, &format!("acme:{number}"), &["a", "b"], PutOptions::new()).await;
    }
    let size = || block_in_place(|| number(&server, &["DBSIZE"]));
    let before = size();
    set("maxmemory-policy", "allkeys-random");
    until("an eviction", async || {
        let info = block_in_place(|| cli(&server, &["INFO", "memory"]));
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        let used: u64 = used.trim().parse().unwrap();
        set("maxmemory", &(used - 20_000).to_string());
        // The server evicts when it is written to, and has no room for this one either.
        drop(block_in_place(|| server.cli(&["SET", "other", "v"])));
        size() < before - 200
    })
    .await;
    set("maxmemory", "0");
    let diagnosis = diagnose(&ctx(), &config(server.url(), "p:")).await.unwrap();
    let memory = diagnosis.checks.iter().find(|check| check.name == "memory").unwrap();
    assert_eq!(memory.verdict, Verdict::Warning, "{memory:?}");
    assert!(memory.finding.contains("evicts keys") && !memory.finding.contains(" 0 so far"));
    assert!(memory.advice.as_ref().unwrap().contains("--repair"), "{memory:?}");
    set("maxmemory-policy", "noeviction");

    let all = block_in_place(|| keys(&server, "p:"));
    let stems = || all.iter().filter_map(|key| key.split_once("}v").map(|(stem, _)| stem));
    let has = |stem: &str, kind: &str| all.contains(&format!("{stem}}}{kind}"));
    let orphaned = stems().filter(|stem| !has(stem, "m")).count();
    let unlisted = stems().filter(|stem| has(stem, "m") && !has(stem, "k")).count();
    assert!(orphaned > 10 && unlisted > 10, "{orphaned} and {unlisted} values tell little");
    let report = repaired(server.url(), "p:", OrphanAction::Remove).await;
    assert_eq!(report.orphans.values, orphaned as u64, "{report:?}");
    let line = format!("{unlisted} entries were restored in the index");
    assert!(report.repaired.contains(&line), "{report:?}");
    let kept = block_in_place(|| keys(&server, "p:"));
    let kept = kept.iter().filter(|key| key.contains("}v")).count();
    assert_eq!(kept, stems().count() - orphaned, "{report:?}");
    let usage = store.usage(&ctx(), &under("acme")).await.unwrap();
    assert_eq!(usage.entries, kept as u64, "{report:?}");
    assert!(repair(&ctx(), config(server.url(), "p:")).await.unwrap().is_empty());
    while !store.erase(&ctx(), &under("acme"), 1000).await.unwrap().done {}
    assert_eq!(left(&server, "p:"), [""; 0], "erase tells the truth again");
}

/// A namespace or tenant that has its marker and is not listed would take a put and not be listed then.
#[tokio::test(flavor = "multi_thread")]
async fn repair_lists_what_is_empty_and_marked_so_that_the_next_put_is_listed() {
    let (server, prefix) = (block_in_place(shared), new_prefix());
    let store = open(server.url(), &prefix).await;
    for name in ["acme:a", "globex:a"] {
        put(&store, name, &["a"], PutOptions::new()).await;
        store.delete(&ctx(), &ns(name), "a").await.unwrap();
    }
    lose(server, &prefix, "acme", "n");
    lose(server, &prefix, "globex:a", "kmx");
    lose(server, &prefix, "\\*", "n");
    let lines = repair(&ctx(), config(server.url(), &prefix)).await.unwrap();
    let said = |what: &str| lines.iter().any(|line| line == what);
    assert!(said("1 namespaces without entries were listed again"), "{lines:?}");
    assert!(repair(&ctx(), config(server.url(), &prefix)).await.unwrap().is_empty());
    for name in ["acme:a", "globex:a"] {
        put(&store, name, &["a"], PutOptions::new()).await;
        check_whole(&store, name, &["a"], name).await;
    }
    let tenants = store.scan_tenants(&ctx(), None, 10).await.unwrap();
    assert_eq!(tenants.items, [tenant("acme"), tenant("globex")]);
    for name in ["acme", "globex"] {
        assert!(store.erase(&ctx(), &under(name), 1000).await.unwrap().done);
    }
    assert_eq!(left(server, &prefix), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_and_put_over_an_orphaned_value_leave_no_trace_of_it() {
    let server = block_in_place(RedisServer::start_with_clock).unwrap();
    let store = open(server.url(), "p:").await;
    for lost in ["kmx", "m", "km"] {
        put(&store, "acme", &["a", "b", "c", "d"], PutOptions::new().with_ttl(HOUR)).await;
        lose(&server, "p:", "acme", lost);
        let name = ns("acme");
        // `get` sees it, and so a delete takes it away.
        assert!(store.get(&ctx(), &name, "a").await.unwrap().is_some(), "{lost}");
        store.delete(&ctx(), &name, "a").await.unwrap();
        assert_eq!(store.get(&ctx(), &name, "a").await.unwrap(), None, "{lost}");
        // It is no entry: a condition on its absence holds. Its instant does not end the new one.
        put(&store, "acme", &["b"], PutOptions::new()).await;
        let options = PutOptions::new();
        let absent = Condition::IfAbsent;
        store.put_entry(&ctx(), &name, "c", bytes("c"), options, absent).await.unwrap();
        for key in ["b", "c"] {
            let instant = block_in_place(|| cli(&server, &["ZSCORE", "p:{acme}x", key]));
            assert_eq!(instant, "", "{lost}: {key}");
        }
        repaired(server.url(), "p:", OrphanAction::Remove).await;
        server.advance(HOUR).unwrap();
        check_whole(&store, "acme", &["b", "c"], lost).await;
        store.evict_expired(&ctx()).await.unwrap();
        check_whole(&store, "acme", &["b", "c"], &format!("{lost}, after a sweep")).await;
        while !store.erase(&ctx(), &under("acme"), 1).await.unwrap().done {}
        assert_eq!(left(&server, "p:"), [""; 0], "{lost}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn repair_leaves_other_prefixes_and_names_that_are_not_the_stores() {
    let server = block_in_place(RedisServer::start).unwrap();
    let store = open(server.url(), "p[*]?:").await;
    let other = open(server.url(), "pp:").await;
    for store in [&store, &other] {
        put(store, "acme", &["a"], PutOptions::new()).await;
    }
    lose(&server, "pp:", "acme", "kmx");
    lose(&server, "p[*]?:", "acme", "kmx");
    let long = "v".repeat(1100);
    let foreign = [
        "p[*]?:{acme}q",
        "p[*]?:{a{cme}vx",
        "p[*]?:acme}vx",
        "p[*]?:{}vx",
        "p[*]?:{acme:}x}vx",
        &format!("p[*]?:{{acme}}v{long}"),
        "pp",
        "{acme}va",
    ];
    for key in foreign {
        block_in_place(|| cli(&server, &["SET", key, "theirs"]));
    }
    let report = repaired(server.url(), "p[*]?:", OrphanAction::Remove).await;
    assert_eq!((report.orphans.values, report.orphans.listed[0].key.as_str()), (1, "a"));
    for key in foreign {
        assert_eq!(block_in_place(|| cli(&server, &["GET", key])), "theirs", "{key}");
    }
    assert_eq!(other.get(&ctx(), &ns("acme"), "a").await.unwrap(), Some(bytes("a")));
    assert_eq!(repaired(server.url(), "pp:", OrphanAction::Register).await.orphans.values, 1);
    check_whole(&other, "acme", &["a"], "the other store").await;
}

/// A namespace that another program has damaged keeps no other from being repaired, and is reported.
#[tokio::test(flavor = "multi_thread")]
async fn repair_passes_over_what_another_program_damaged_and_reports_it() {
    let server = block_in_place(shared);
    for (kind, command) in [("k", "LPUSH"), ("m", "SADD"), ("x", "SET"), ("vb", "SADD")] {
        let prefix = new_prefix();
        let store = open(server.url(), &prefix).await;
        for name in ["acme:bad", "acme:good", "globex"] {
            put(&store, name, &["a", "b"], PutOptions::new()).await;
            lose(server, &prefix, name, "kmx");
        }
        let key = format!("{prefix}{{acme:bad}}{kind}");
        block_in_place(|| cli(server, &["DEL", &key]));
        block_in_place(|| cli(server, &[command, &key, "anothers"]));
        let options = RepairOptions::new().with_orphans(OrphanAction::Register);
        let config = config(server.url(), &prefix);
        let report = repair_with_options(&ctx(), config.clone(), &options).await.unwrap();
        let failure = report.failure.unwrap();
        assert_eq!(failure.kind(), ErrorKind::Corrupt, "{kind}: {failure:?}");
        assert_eq!(repair(&ctx(), config).await.unwrap_err().kind(), ErrorKind::Corrupt, "{kind}");
        let expected = if kind == "vb" { 5 } else { 4 };
        assert_eq!(report.orphans.values, expected, "{kind}");
        for name in ["acme:good", "globex"] {
            check_whole(&store, name, &["a", "b"], kind).await;
        }
        let still = block_in_place(|| cli(server, &["TYPE", &key]));
        assert_ne!(still, if kind == "vb" { "string" } else { "none" }, "{kind}");
    }
}

/// What another program made of a value is registered as far as an entry can be that.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_expires_past_the_year_9999_is_registered_to_expire_with_it() {
    let (server, prefix) = (block_in_place(shared), new_prefix());
    let store = open(server.url(), &prefix).await;
    let value = format!("{prefix}{{acme}}va");
    block_in_place(|| cli(server, &["SET", &value, "a", "PXAT", "999999999999999"]));
    assert_eq!(repaired(server.url(), &prefix, OrphanAction::Register).await.orphans.values, 1);
    check_whole(&store, "acme", &["a"], "registered").await;
    let entry = store.get_entry(&ctx(), &ns("acme"), "a", GetOptions::new()).await.unwrap();
    assert_eq!(entry.unwrap().meta.expires_at, Some(cubbyhole_core::Timestamp::MAX));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_expires_before_it_is_registered_is_no_orphan() {
    let server = block_in_place(RedisServer::start_with_clock).unwrap();
    let store = open(server.url(), "p:").await;
    put(&store, "acme", &["a"], PutOptions::new().with_ttl(HOUR)).await;
    lose(&server, "p:", "acme", "kmx");
    server.advance(HOUR).unwrap();
    for action in [OrphanAction::List, OrphanAction::Register] {
        let report = repaired(server.url(), "p:", action).await;
        assert_eq!(report.orphans.values, 0, "{report:?}");
    }
    let ends = async || store.get(&ctx(), &ns("acme"), "a").await.unwrap().is_none();
    until("the end of the value", ends).await;
}
