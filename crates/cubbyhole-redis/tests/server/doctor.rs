//! What `diagnose` finds.

use std::path::Path;
use std::time::Duration;

use cubbyhole_core::{Check, Diagnosis, ExecutionContext, PutOptions, Store, Verdict};
use cubbyhole_redis::{Config, RedisStore, diagnose};
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{bytes, check, check_form, ctx, not_ok, ns, until};
use tokio::task::block_in_place;

use crate::by_hand::{cli, config, new_prefix, open, shared};

async fn looked_over(config: &Config) -> Diagnosis {
    let diagnosis = diagnose(&ctx(), config).await.unwrap();
    check_form(&diagnosis);
    diagnosis
}

async fn persistence(server: &RedisServer) -> Check {
    check(&looked_over(&config(server.url(), "p:")).await, "persistence").clone()
}

async fn put(store: &RedisStore, namespace: &str, key: &str, ttl: Option<u64>) {
    let ttl = ttl.map(Duration::from_secs);
    let options = ttl.map_or(PutOptions::new(), |ttl| PutOptions::new().with_ttl(ttl));
    store.put_with_options(&ctx(), &ns(namespace), key, bytes("v"), options).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_server_is_found_sound() {
    let (server, prefix) = (block_in_place(shared), new_prefix());
    put(&open(server.url(), &prefix).await, "acme", "k", None).await;
    let diagnosis = looked_over(&config(server.url(), &prefix)).await;
    assert_eq!(not_ok(&diagnosis), [], "{diagnosis:#?}");
    for name in [
        "encryption",
        "server",
        "clock",
        "replicas",
        "persistence",
        "memory",
        "scripts",
        "registrations",
        "entries",
    ] {
        check(&diagnosis, name);
    }
    let ended = ExecutionContext::new();
    ended.cancel();
    assert!(diagnose(&ended, &config(server.url(), &prefix)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_another_than_this_machines_is_warned_of() {
    let server = block_in_place(RedisServer::start_with_clock).unwrap();
    server.advance(Duration::from_secs(600)).unwrap();
    let diagnosis = looked_over(&config(server.url(), "p:")).await;
    assert_eq!(not_ok(&diagnosis), [("clock", Verdict::Warning)], "{diagnosis:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_and_is_not_swept_is_told_and_warned_of_when_it_is_much() {
    let server = block_in_place(RedisServer::start_with_clock).unwrap();
    let (store, config) = (open(server.url(), "p:").await, config(server.url(), "p:"));
    let entries = async || check(&looked_over(&config).await, "entries").clone();
    assert_eq!(entries().await.finding, "0 in 0 sampled namespaces, none of them expired");
    for key in ["a", "b", "c"] {
        put(&store, "acme:x", key, None).await;
    }
    put(&store, "globex", "goes", Some(10)).await;
    assert_eq!(entries().await.finding, "4 in 2 sampled namespaces, none of them expired");
    server.advance(Duration::from_secs(10)).unwrap();
    let found = entries().await;
    assert_eq!(found.finding, "4 in 2 sampled namespaces, 1 of them expired and not swept");
    assert_eq!(found.verdict, Verdict::Ok, "a quarter is not much");
    put(&store, "acme:x", "goes", Some(10)).await;
    server.advance(Duration::from_secs(10)).unwrap();
    let found = entries().await;
    assert_eq!(found.finding, "5 in 2 sampled namespaces, 2 of them expired and not swept");
    assert_eq!(found.verdict, Verdict::Warning);
    assert!(found.advice.unwrap().contains("cubbyhole evict"));
    store.evict_expired(&ctx()).await.unwrap();
    assert_eq!(entries().await.finding, "3 in 1 sampled namespaces, none of them expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn books_that_another_program_has_damaged_are_a_problem() {
    // A separate server: among the keys of other tests these may not be drawn.
    let server = block_in_place(RedisServer::start).unwrap();
    put(&open(server.url(), "p:").await, "acme", "k", None).await;
    block_in_place(|| cli(&server, &["ZADD", "p:{acme}x", "1", "a", "1", "b"]));
    let diagnosis = looked_over(&config(server.url(), "p:")).await;
    assert_eq!(not_ok(&diagnosis), [("entries", Verdict::Problem)], "{diagnosis:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_is_a_problem_until_it_can() {
    let server = block_in_place(|| RedisServer::start_with_disk(&[])).unwrap();
    let store = open(server.url(), "p:").await;
    put(&store, "acme", "k", None).await;
    assert_eq!(persistence(&server).await.verdict, Verdict::Ok);
    server.disk().unwrap().fill("/data/").unwrap();
    let refused = async || store.put(&ctx(), &ns("acme"), "k", bytes("v")).await.is_err();
    until("a write is refused", refused).await;
    let found = persistence(&server).await;
    assert_eq!(found.verdict, Verdict::Problem, "{found:?}");
    assert!(found.finding.contains("`aof_last_write_status`), and rejects writes"), "{found:?}");
    server.disk().unwrap().mend().unwrap();
    until("the disk is sound", async || persistence(&server).await.verdict == Verdict::Ok).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_cannot_be_saved_is_a_problem_until_it_can() {
    let lines = ["appendonly no", "save 3600 1"];
    let server = block_in_place(|| RedisServer::start_with(&lines)).unwrap();
    put(&open(server.url(), "p:").await, "acme", "k", None).await;
    assert!(persistence(&server).await.finding.contains("snapshots only"));
    // A folder stands where the snapshot is to be.
    let folder = block_in_place(|| cli(&server, &["CONFIG", "GET", "dir"]));
    let obstacle = Path::new(folder.lines().last().unwrap()).join("dump.rdb");
    std::fs::create_dir(&obstacle).unwrap();
    block_in_place(|| cli(&server, &["BGSAVE"]));
    let is_problem = async || persistence(&server).await.verdict == Verdict::Problem;
    until("the save has failed", is_problem).await;
    let found = persistence(&server).await;
    assert!(found.finding.contains("`rdb_last_bgsave_status`), and rejects writes"), "{found:?}");
    block_in_place(|| cli(&server, &["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]));
    let found = persistence(&server).await;
    assert!(found.finding.ends_with("(`rdb_last_bgsave_status`)"), "{found:?}");
    std::fs::remove_dir(&obstacle).unwrap();
    block_in_place(|| cli(&server, &["BGSAVE"]));
    until("it has been saved", async || !is_problem().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_lose_or_drop_entries_are_told_apart() {
    let server = block_in_place(RedisServer::start).unwrap();
    let set = |name: &str, value: &str| {
        block_in_place(|| cli(&server, &["CONFIG", "SET", name, value]));
    };
    for (appendonly, appendfsync, save, verdict, said) in [
        ("yes", "always", "", Verdict::Ok, "before each reply"),
        ("yes", "everysec", "", Verdict::Ok, "about one second"),
        ("yes", "no", "", Verdict::Warning, "by the operating system"),
        ("no", "everysec", "3600 1", Verdict::Warning, "snapshots only"),
        ("no", "everysec", "", Verdict::Warning, "none"),
    ] {
        for (name, value) in
            [("appendonly", appendonly), ("appendfsync", appendfsync), ("save", save)]
        {
            set(name, value);
        }
        let found = persistence(&server).await;
        assert_eq!(found.verdict, verdict, "{found:?}");
        assert!(found.finding.contains(said), "{found:?}");
    }
    for (policy, limit, verdict) in [
        ("noeviction", "0", Verdict::Ok),
        ("noeviction", "1gb", Verdict::Ok),
        ("allkeys-lru", "0", Verdict::Warning),
        ("allkeys-lru", "1gb", Verdict::Problem),
        // Less than it has.
        ("noeviction", "1", Verdict::Warning),
    ] {
        set("maxmemory-policy", policy);
        set("maxmemory", limit);
        let diagnosis = looked_over(&config(server.url(), "p:")).await;
        let found = check(&diagnosis, "memory");
        assert_eq!(found.verdict, verdict, "{policy} {limit}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_and_replicas_that_are_missing_are_problems() {
    let (master, server) = block_in_place(|| {
        (
            RedisServer::start().unwrap(),
            RedisServer::start_with(&["replica-read-only yes"]).unwrap(),
        )
    });
    let waiting = config(master.url(), "p:").with_wait_for_replicas(1);
    let replicas = async || check(&looked_over(&waiting).await, "replicas").clone();
    assert_eq!(replicas().await.verdict, Verdict::Problem);
    let port = master.port().to_string();
    block_in_place(|| cli(&server, &["REPLICAOF", "127.0.0.1", &port]));
    until("the replica is there", async || replicas().await.verdict == Verdict::Ok).await;
    let diagnosis = looked_over(&config(server.url(), "p:")).await;
    assert!(not_ok(&diagnosis).contains(&("role", Verdict::Problem)), "{diagnosis:#?}");
}
