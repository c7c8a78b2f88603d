//! Orphaned values: values whose index was evicted or deleted. The tests cover ordinary calls,
//! `repair` and `diagnose`.

mod concurrent;
mod partial_index;

use std::time::Duration;

use cubbyhole_core::{
    Check, Condition, EntryStore, ErrorKind, GetOptions, OrphanAction, PutOptions, RepairOptions,
    RepairReport, ScanOptions, Store, Verdict,
};
use cubbyhole_redis::{RedisStore, diagnose, repair, repair_with_options};
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{bytes, check, ctx, ns, tenant, under, until};
use tokio::task::block_in_place;

use crate::helpers::{
    cli, cli_number, config, keys, new_prefix, open, server_millis, shared_server, used_memory,
};

const HOUR: Duration = Duration::from_secs(3600);

/// Deletes keys of a namespace, as an eviction would. Each character of `kinds` is the kind of a
/// key.
fn delete_keys(server: &RedisServer, prefix: &str, name: &str, kinds: &str) {
    for kind in kinds.chars() {
        block_in_place(|| cli(server, &["DEL", &format!("{prefix}{{{name}}}{kind}")]));
    }
}

/// Repairs, and asserts that the repair was complete.
async fn repair_orphans(url: &str, prefix: &str, action: OrphanAction) -> RepairReport {
    let options = RepairOptions::new().with_orphans(action);
    let report = repair_with_options(&ctx(), config(url, prefix), &options).await.unwrap();
    assert!(report.failure.is_none(), "{report:?}");
    report
}

/// Puts entries whose value is their key.
async fn put(store: &RedisStore, name: &str, keys: &[&str], options: PutOptions) {
    for key in keys {
        store.put_with_options(&ctx(), &ns(name), key, bytes(key), options).await.unwrap();
    }
}

/// Asserts that all reading calls find exactly these keys, each with itself as the value.
async fn check_entries(store: &RedisStore, name: &str, keys: &[&str], what: &str) {
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
    check(&diagnosis, "index").clone()
}

/// Returns the keys of a store that remain on the server, without fences.
fn remaining_keys(server: &RedisServer, prefix: &str) -> Vec<String> {
    let all = block_in_place(|| keys(server, prefix));
    all.into_iter().filter(|key| !key.ends_with("}f") && !key.ends_with("}g")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn repair_lists_registers_or_removes_orphaned_values() {
    let server = block_in_place(shared_server);
    for lost in ["kmx", "km", "m", "mx"] {
        for action in [OrphanAction::List, OrphanAction::Register, OrphanAction::Remove] {
            let what = format!("{lost} lost, {action:?}");
            let prefix = new_prefix();
            let store = open(server.url(), &prefix).await;
            put(&store, "acme:a", &["1", "22"], PutOptions::new()).await;
            put(&store, "acme:a", &["333"], PutOptions::new().with_ttl(HOUR)).await;
            put(&store, "acme:b", &["whole"], PutOptions::new()).await;
            delete_keys(server, &prefix, "acme:a", lost);
            let report = repair_orphans(server.url(), &prefix, action).await;
            let orphans = &report.orphans;
            assert_eq!((orphans.values, orphans.namespaces, orphans.bytes), (3, 1, 6), "{what}");
            let listed: Vec<_> = orphans.listed.iter().map(|orphan| orphan.key.as_str()).collect();
            assert_eq!(listed, ["1", "22", "333"], "{what}");
            assert!(orphans.listed.iter().all(|orphan| orphan.namespace == ns("acme:a")));
            let expire = orphans.listed.iter().map(|orphan| orphan.expires_at.is_some());
            assert_eq!(expire.collect::<Vec<_>>(), [false, false, true], "{what}");
            check_entries(&store, "acme:b", &["whole"], &what).await;
            match action {
                OrphanAction::List => {
                    assert!(store.get(&ctx(), &ns("acme:a"), "22").await.unwrap().is_some());
                    // Listing changes nothing, so a second run finds the same values.
                    let again = repair_orphans(server.url(), &prefix, action).await;
                    assert_eq!(again.orphans, report.orphans, "{what}");
                    continue;
                }
                OrphanAction::Register => {
                    check_entries(&store, "acme:a", &["1", "22", "333"], &what).await;
                    let line = "3 orphaned values were registered".to_owned();
                    assert!(report.repaired.contains(&line), "{what}: {report:?}");
                }
                OrphanAction::Remove => {
                    check_entries(&store, "acme:a", &[], &what).await;
                    let line = "3 orphaned values were removed".to_owned();
                    assert!(report.repaired.contains(&line), "{what}: {report:?}");
                    assert!(
                        !remaining_keys(server, &prefix)
                            .iter()
                            .any(|key| key.contains("{acme:a}v"))
                    );
                }
            }
            let again = repair_orphans(server.url(), &prefix, action).await;
            assert_eq!((again.orphans.values, again.repaired.len()), (0, 0), "{what}: {again:?}");
            // A sweep and an erasure remove all remaining keys.
            store.evict_expired(&ctx()).await.unwrap();
            assert!(store.erase(&ctx(), &under("acme"), 1000).await.unwrap().done, "{what}");
            assert_eq!(remaining_keys(server, &prefix), [""; 0], "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn registered_value_keeps_its_surviving_metadata() {
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
        delete_keys(&server, "p:", "acme", lost);
        repair_orphans(server.url(), "p:", OrphanAction::Register).await;
        let now = server_millis(&server);
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
        // The value keeps its expiry, and a sweep removes it from the index.
        server.advance(HOUR).unwrap();
        check_entries(&store, "acme", &["stays"], lost).await;
        assert_eq!(store.evict_expired(&ctx()).await.unwrap(), 1, "{lost}");
        store.delete(&ctx(), &name, "stays").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_counts_orphaned_values_in_its_sample() {
    let server = block_in_place(RedisServer::start).unwrap();
    let store = open(server.url(), "p:").await;
    put(&store, "acme", &["a", "b"], PutOptions::new()).await;
    let found = index_check(&server, "p:").await;
    assert_eq!(found.verdict, Verdict::Ok, "{found:?}");
    delete_keys(&server, "p:", "acme", "kmx");
    // The sample can only draw the two values and the indexes of names.
    let found = index_check(&server, "p:").await;
    assert_eq!(found.verdict, Verdict::Problem, "{found:?}");
    let (orphaned, rest) = found.finding.split_once(" of ").unwrap();
    assert!(rest.starts_with(&format!("{orphaned} sampled values are orphaned")), "{found:?}");
    assert!(orphaned.parse::<u64>().unwrap() > 0, "{found:?}");
    assert!(found.advice.unwrap().contains("doctor --repair"));
    // `diagnose` changes nothing.
    assert_eq!(repair_orphans(server.url(), "p:", OrphanAction::List).await.orphans.values, 2);
    repair_orphans(server.url(), "p:", OrphanAction::Register).await;
    assert_eq!(index_check(&server, "p:").await.verdict, Verdict::Ok);
    // A damaged index is not reported as orphaned values.
    delete_keys(&server, "p:", "acme", "k");
    let found = index_check(&server, "p:").await;
    assert_eq!(found.verdict, Verdict::Problem, "{found:?}");
    assert!(found.finding.contains("live entries that a damaged index does not list"), "{found:?}");
    assert!(!found.finding.contains("orphaned"), "{found:?}");
    let advice = found.advice.unwrap();
    assert!(advice.contains("restores the index") && !advice.contains("--orphans"), "{advice}");
    // `diagnose` changes nothing.
    let report = repair_orphans(server.url(), "p:", OrphanAction::Remove).await;
    assert_eq!(report.repaired, ["2 entries were restored in the index"]);
    assert_eq!(index_check(&server, "p:").await.verdict, Verdict::Ok);
    // A missing permission is a warning.
    block_in_place(|| {
        cli(&server, &["ACL", "SETUSER", "app", "on", "nopass", "~*", "+@all", "-strlen"])
    });
    let url = format!("redis://app:x@127.0.0.1:{}", server.port());
    let diagnosis = diagnose(&ctx(), &config(&url, "p:")).await.unwrap();
    let index = check(&diagnosis, "index");
    assert_eq!(index.verdict, Verdict::Warning, "{index:?}");
    assert!(index.advice.as_ref().unwrap().contains("STRLEN"), "{index:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn repair_finds_every_value_with_an_evicted_index() {
    let server = block_in_place(RedisServer::start).unwrap();
    let set = |name: &str, value: &str| {
        block_in_place(|| cli(&server, &["CONFIG", "SET", name, value]));
    };
    let store = open(server.url(), "p:").await;
    for number in 0..400 {
        put(&store, &format!("acme:{number}"), &["a", "b"], PutOptions::new()).await;
    }
    let size = || block_in_place(|| cli_number(&server, &["DBSIZE"]));
    let before = size();
    set("maxmemory-policy", "allkeys-random");
    until("an eviction", async || {
        let used = block_in_place(|| used_memory(&server));
        set("maxmemory", &(used - 20_000).to_string());
        // A write triggers the eviction. The write itself may fail for lack of memory.
        drop(block_in_place(|| server.cli(&["SET", "other", "v"])));
        size() < before - 200
    })
    .await;
    set("maxmemory", "0");
    let diagnosis = diagnose(&ctx(), &config(server.url(), "p:")).await.unwrap();
    let memory = check(&diagnosis, "memory");
    assert_eq!(memory.verdict, Verdict::Warning, "{memory:?}");
    assert!(memory.finding.contains("evicts keys") && !memory.finding.contains(" 0 so far"));
    assert!(memory.advice.as_ref().unwrap().contains("--repair"), "{memory:?}");
    set("maxmemory-policy", "noeviction");

    let all = block_in_place(|| keys(&server, "p:"));
    let stems = || all.iter().filter_map(|key| key.split_once("}v").map(|(stem, _)| stem));
    let has = |stem: &str, kind: &str| all.contains(&format!("{stem}}}{kind}"));
    let orphaned = stems().filter(|stem| !has(stem, "m")).count();
    let unlisted = stems().filter(|stem| has(stem, "m") && !has(stem, "k")).count();
    assert!(orphaned > 10 && unlisted > 10, "too few evictions: {orphaned} and {unlisted} values");
    let report = repair_orphans(server.url(), "p:", OrphanAction::Remove).await;
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
    assert_eq!(remaining_keys(&server, "p:"), [""; 0], "the erasure was incomplete");
}

/// A namespace or tenant with a marker accepts puts without a registration, so it must be listed.
#[tokio::test(flavor = "multi_thread")]
async fn repair_lists_empty_namespaces_that_have_a_marker() {
    let (server, prefix) = (block_in_place(shared_server), new_prefix());
    let store = open(server.url(), &prefix).await;
    for name in ["acme:a", "globex:a"] {
        put(&store, name, &["a"], PutOptions::new()).await;
        store.delete(&ctx(), &ns(name), "a").await.unwrap();
    }
    delete_keys(server, &prefix, "acme", "n");
    delete_keys(server, &prefix, "globex:a", "kmx");
    delete_keys(server, &prefix, "\\*", "n");
    let lines = repair(&ctx(), config(server.url(), &prefix)).await.unwrap();
    let has_line = |text: &str| lines.iter().any(|line| line == text);
    assert!(has_line("1 namespaces without entries were listed again"), "{lines:?}");
    assert!(repair(&ctx(), config(server.url(), &prefix)).await.unwrap().is_empty());
    for name in ["acme:a", "globex:a"] {
        put(&store, name, &["a"], PutOptions::new()).await;
        check_entries(&store, name, &["a"], name).await;
    }
    let tenants = store.scan_tenants(&ctx(), None, 10).await.unwrap();
    assert_eq!(tenants.items, [tenant("acme"), tenant("globex")]);
    for name in ["acme", "globex"] {
        assert!(store.erase(&ctx(), &under(name), 1000).await.unwrap().done);
    }
    assert_eq!(remaining_keys(server, &prefix), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_and_put_replace_an_orphaned_value_completely() {
    let server = block_in_place(RedisServer::start_with_clock).unwrap();
    let store = open(server.url(), "p:").await;
    for lost in ["kmx", "m", "km"] {
        put(&store, "acme", &["a", "b", "c", "d"], PutOptions::new().with_ttl(HOUR)).await;
        delete_keys(&server, "p:", "acme", lost);
        let name = ns("acme");
        // `get` finds the orphaned value, so a delete must remove it.
        assert!(store.get(&ctx(), &name, "a").await.unwrap().is_some(), "{lost}");
        store.delete(&ctx(), &name, "a").await.unwrap();
        assert_eq!(store.get(&ctx(), &name, "a").await.unwrap(), None, "{lost}");
        // An orphaned value is not an entry, so `IfAbsent` holds. A new entry does not inherit its
        // expiry.
        put(&store, "acme", &["b"], PutOptions::new()).await;
        let options = PutOptions::new();
        let absent = Condition::IfAbsent;
        store.put_entry(&ctx(), &name, "c", bytes("c"), options, absent).await.unwrap();
        for key in ["b", "c"] {
            let instant = block_in_place(|| cli(&server, &["ZSCORE", "p:{acme}x", key]));
            assert_eq!(instant, "", "{lost}: {key}");
        }
        repair_orphans(server.url(), "p:", OrphanAction::Remove).await;
        server.advance(HOUR).unwrap();
        check_entries(&store, "acme", &["b", "c"], lost).await;
        store.evict_expired(&ctx()).await.unwrap();
        check_entries(&store, "acme", &["b", "c"], &format!("{lost}, after a sweep")).await;
        while !store.erase(&ctx(), &under("acme"), 1).await.unwrap().done {}
        assert_eq!(remaining_keys(&server, "p:"), [""; 0], "{lost}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn repair_ignores_other_prefixes_and_malformed_names() {
    let server = block_in_place(RedisServer::start).unwrap();
    let store = open(server.url(), "p[*]?:").await;
    let other = open(server.url(), "pp:").await;
    for store in [&store, &other] {
        put(store, "acme", &["a"], PutOptions::new()).await;
    }
    delete_keys(&server, "pp:", "acme", "kmx");
    delete_keys(&server, "p[*]?:", "acme", "kmx");
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
    let report = repair_orphans(server.url(), "p[*]?:", OrphanAction::Remove).await;
    assert_eq!((report.orphans.values, report.orphans.listed[0].key.as_str()), (1, "a"));
    for key in foreign {
        assert_eq!(block_in_place(|| cli(&server, &["GET", key])), "theirs", "{key}");
    }
    assert_eq!(other.get(&ctx(), &ns("acme"), "a").await.unwrap(), Some(bytes("a")));
    assert_eq!(repair_orphans(server.url(), "pp:", OrphanAction::Register).await.orphans.values, 1);
    check_entries(&other, "acme", &["a"], "the other store").await;
}

/// A namespace that another program has damaged is reported, and the others are repaired.
#[tokio::test(flavor = "multi_thread")]
async fn repair_skips_and_reports_foreign_data() {
    let server = block_in_place(shared_server);
    for (kind, command) in [("k", "LPUSH"), ("m", "SADD"), ("x", "SET"), ("vb", "SADD")] {
        let prefix = new_prefix();
        let store = open(server.url(), &prefix).await;
        for name in ["acme:bad", "acme:good", "globex"] {
            put(&store, name, &["a", "b"], PutOptions::new()).await;
            delete_keys(server, &prefix, name, "kmx");
        }
        let key = format!("{prefix}{{acme:bad}}{kind}");
        block_in_place(|| cli(server, &["DEL", &key]));
        block_in_place(|| cli(server, &[command, &key, "foreign"]));
        let options = RepairOptions::new().with_orphans(OrphanAction::Register);
        let config = config(server.url(), &prefix);
        let report = repair_with_options(&ctx(), config.clone(), &options).await.unwrap();
        let failure = report.failure.unwrap();
        assert_eq!(failure.kind(), ErrorKind::Corrupt, "{kind}: {failure:?}");
        assert_eq!(repair(&ctx(), config).await.unwrap_err().kind(), ErrorKind::Corrupt, "{kind}");
        let expected = if kind == "vb" { 5 } else { 4 };
        assert_eq!(report.orphans.values, expected, "{kind}");
        for name in ["acme:good", "globex"] {
            check_entries(&store, name, &["a", "b"], kind).await;
        }
        let still = block_in_place(|| cli(server, &["TYPE", &key]));
        assert_ne!(still, if kind == "vb" { "string" } else { "none" }, "{kind}");
    }
}

/// An expiry that an entry cannot have is reduced to the latest one that it can.
#[tokio::test(flavor = "multi_thread")]
async fn expiry_past_year_9999_is_registered_as_the_maximum() {
    let (server, prefix) = (block_in_place(shared_server), new_prefix());
    let store = open(server.url(), &prefix).await;
    let value = format!("{prefix}{{acme}}va");
    block_in_place(|| cli(server, &["SET", &value, "a", "PXAT", "999999999999999"]));
    assert_eq!(
        repair_orphans(server.url(), &prefix, OrphanAction::Register).await.orphans.values,
        1
    );
    check_entries(&store, "acme", &["a"], "registered").await;
    let entry = store.get_entry(&ctx(), &ns("acme"), "a", GetOptions::new()).await.unwrap();
    assert_eq!(entry.unwrap().meta.expires_at, Some(cubbyhole_core::Timestamp::MAX));
}

#[tokio::test(flavor = "multi_thread")]
async fn value_that_expires_before_repair_is_not_orphaned() {
    let server = block_in_place(RedisServer::start_with_clock).unwrap();
    let store = open(server.url(), "p:").await;
    put(&store, "acme", &["a"], PutOptions::new().with_ttl(HOUR)).await;
    delete_keys(&server, "p:", "acme", "kmx");
    server.advance(HOUR).unwrap();
    for action in [OrphanAction::List, OrphanAction::Register] {
        let report = repair_orphans(server.url(), "p:", action).await;
        assert_eq!(report.orphans.values, 0, "{report:?}");
    }
    let ends = async || store.get(&ctx(), &ns("acme"), "a").await.unwrap().is_none();
    until("the value to expire", ends).await;
}
