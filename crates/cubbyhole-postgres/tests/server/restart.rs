//! A server that is stopped, killed or paused under load, and the store that goes on by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cubbyhole_core::{
    CancellationToken, Condition, EntryStore, Error, ErrorKind, ExecutionContext, GetOptions,
    PutOptions, Store, Version,
};
use cubbyhole_postgres::{Config, PostgresStore};
use cubbyhole_testkit::PostgresServer;
use tokio::task::{JoinSet, block_in_place};

use crate::by_hand::{PATIENCE, bytes, ctx, ns, until};
use crate::support::{PASSWORD, Schema};

const WRITERS: usize = 6;

/// A server that loses nothing that it acknowledged.
fn durable_server() -> PostgresServer {
    let settings = [("fsync", "on"), ("synchronous_commit", "on")];
    block_in_place(|| PostgresServer::start_with(&settings)).unwrap()
}

async fn open(schema: &Schema, options: &str) -> PostgresStore {
    let config = Config::from_url(&schema.url(options)).unwrap();
    PostgresStore::open(&ctx(), config).await.unwrap()
}

/// Everything that an error shows.
fn shown(error: &Error) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text} {cause} {cause:?}");
        source = cause.source();
    }
    text
}

/// What is left to know about an outage of a server: that it is one, and no secret of it.
fn check_outage(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", shown(error));
    assert_ne!(error.is_retryable(), error.may_have_been_applied(), "{}", shown(error));
    assert!(!shown(error).contains(PASSWORD), "{error}");
}

/// What writers were told, so far.
#[derive(Default)]
struct Told {
    acknowledged: Mutex<BTreeSet<String>>,
    refused: Mutex<BTreeSet<String>>,
    unknown: Mutex<BTreeSet<String>>,
    /// At which versions the writers' own entries are.
    versions: Mutex<BTreeMap<String, Option<Version>>>,
    /// How often each writer failed.
    failures: [AtomicUsize; WRITERS],
}

impl Told {
    async fn failed(&self, writer: usize, error: &Error) {
        check_outage(error);
        self.failures[writer].fetch_add(1, SeqCst);
        // Not faster than the server can be asked again.
        ctx().sleep(Duration::from_millis(5)).await.unwrap();
    }
}

struct Load {
    told: Arc<Told>,
    stop: CancellationToken,
    writers: JoinSet<()>,
}

impl Load {
    fn start(store: &PostgresStore) -> Self {
        let (told, stop) = (Arc::<Told>::default(), CancellationToken::new());
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn(write(store.clone(), Arc::clone(&told), stop.clone(), writer));
        }
        Self { told, stop, writers }
    }

    fn acknowledged(&self) -> usize {
        self.told.acknowledged.lock().unwrap().len()
    }

    /// Waits for more acknowledged writes.
    async fn until_more(&self, more: usize) {
        let wanted = self.acknowledged() + more;
        until("acknowledged writes", async || {
            self.writers.is_empty() || self.acknowledged() >= wanted
        })
        .await;
    }

    async fn until_every_writer_failed(&self) {
        let failed = |writer: &AtomicUsize| writer.load(SeqCst) > 0;
        until("failures", async || self.told.failures.iter().all(failed)).await;
    }

    async fn finish(mut self) -> Arc<Told> {
        self.stop.cancel();
        while let Some(writer) = self.writers.join_next().await {
            writer.unwrap();
        }
        self.told
    }
}

/// Puts keys that are new each time, an entry of its own at the version that it was left at, and
/// reads, until it is told to stop.
async fn write(store: PostgresStore, told: Arc<Told>, stop: CancellationToken, writer: usize) {
    let (name, own) = (ns("acme:load"), format!("own {writer}"));
    let mut current: Option<Version> = None;
    // Of writes whose outcome was unknown and that were not there when they were looked for. A
    // server that is killed may have one in its log and show it only when it is there again, while
    // another of its processes, which was killed a moment later, still answered without it.
    let mut doubtful: Vec<Version> = Vec::new();
    let settled = |doubtful: &[Version], found: Option<Version>| {
        found.is_some_and(|found| doubtful.contains(&found))
    };
    for number in 0_u32.. {
        if stop.is_cancelled() {
            return;
        }
        let key = format!("{writer} {number}");
        match store.put(&ctx(), &name, &key, bytes(&key)).await {
            Ok(()) => drop(told.acknowledged.lock().unwrap().insert(key)),
            Err(error) => {
                let may_be = error.may_have_been_applied();
                let list = if may_be { &told.unknown } else { &told.refused };
                list.lock().unwrap().insert(key);
                told.failed(writer, &error).await;
            }
        }
        let next = Version::draw();
        let options = PutOptions::new().with_version(next);
        let condition = current.map_or(Condition::IfAbsent, Condition::IfVersion);
        let value = bytes(&next.to_string());
        match store.put_entry(&ctx(), &name, &own, value, options, condition).await {
            Ok(version) => {
                assert_eq!(version, next);
                (current, doubtful) = (Some(next), Vec::new());
            }
            Err(error) if settled(&doubtful, error.current_version()) => {
                (current, doubtful) = (error.current_version(), Vec::new());
            }
            Err(error) => {
                told.failed(writer, &error).await;
                if error.may_have_been_applied() {
                    // Old or new.
                    let found = read(&store, &told, writer, &own).await;
                    assert!(found == current || found == Some(next), "neither old nor new");
                    if found == current {
                        doubtful.push(next);
                    }
                    current = found;
                }
            }
        }
        let found = read(&store, &told, writer, &own).await;
        if settled(&doubtful, found) {
            (current, doubtful) = (found, Vec::new());
        }
        assert_eq!(found, current);
        told.versions.lock().unwrap().insert(own.clone(), current);
    }
}

/// The version of an entry, once the server answers.
async fn read(store: &PostgresStore, told: &Told, writer: usize, key: &str) -> Option<Version> {
    loop {
        match store.get_entry(&ctx(), &ns("acme:load"), key, GetOptions::new()).await {
            Ok(entry) => return entry.map(|entry| entry.meta.version),
            Err(error) => {
                assert!(error.is_retryable(), "a read is always repeatable: {error}");
                told.failed(writer, &error).await;
            }
        }
    }
}

/// Nothing that was acknowledged is missing, nothing that was refused is there.
async fn check(store: &PostgresStore, told: &Told) {
    let found: BTreeSet<String> =
        store.list(&ctx(), &ns("acme:load"), None).await.unwrap().into_iter().collect();
    let acknowledged = told.acknowledged.lock().unwrap().clone();
    let refused = told.refused.lock().unwrap().clone();
    let unknown = told.unknown.lock().unwrap().clone();
    let versions = told.versions.lock().unwrap().clone();
    let missing: Vec<_> = acknowledged.difference(&found).collect();
    assert!(missing.is_empty(), "acknowledged, and not there: {missing:?}");
    let applied: Vec<_> = refused.intersection(&found).collect();
    assert!(applied.is_empty(), "told to have had no effect, and there: {applied:?}");
    for key in found.iter().filter(|key| !key.starts_with("own")) {
        assert!(acknowledged.contains(key) || unknown.contains(key), "from nowhere: {key}");
    }
    assert_eq!(versions.len(), WRITERS);
    for (own, at) in versions {
        let name = ns("acme:load");
        let entry = store.get_entry(&ctx(), &name, &own, GetOptions::new()).await.unwrap();
        let entry = entry.unwrap();
        assert_eq!(Some(entry.meta.version), at, "{own}");
        assert_eq!(entry.value, bytes(&entry.meta.version.to_string()), "{own}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_stopped_or_killed_under_load_loses_nothing_and_the_store_goes_on() {
    let mut server = durable_server();
    let schema = Schema::on(server.url()).await;
    let store = open(&schema, "&pool_size=4").await;
    for way in ["stop", "kill", "stop", "kill"] {
        let load = Load::start(&store);
        load.until_more(100).await;
        block_in_place(|| if way == "stop" { server.stop() } else { server.kill() }).unwrap();
        load.until_every_writer_failed().await;
        block_in_place(|| server.start_again()).unwrap();
        load.until_more(100).await;
        let told = load.finish().await;
        check(&store, &told).await;
        let (open, in_use) = store.connections();
        assert!(open <= 4 && in_use == 0, "{open} connections, {in_use} in use, after {way}");
        let name = ns("acme:load");
        for key in store.list(&ctx(), &name, None).await.unwrap() {
            store.delete(&ctx(), &name, &key).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_were_idle_over_a_restart_cost_no_more_than_themselves() {
    let mut server = durable_server();
    let schema = Schema::on(server.url()).await;
    let store = open(&schema, "&pool_size=4").await;
    store.put(&ctx(), &ns("acme"), "held", bytes("old")).await.unwrap();
    for way in ["stop", "kill"] {
        crate::pool::fill(&schema, &store, 4).await;
        assert_eq!(store.connections(), (4, 0));
        block_in_place(|| if way == "stop" { server.stop() } else { server.kill() }).unwrap();
        block_in_place(|| server.start_again()).unwrap();
        let mut failures = 0;
        for _ in 0..20 {
            if let Err(error) = store.get(&ctx(), &ns("acme"), "held").await {
                check_outage(&error);
                failures += 1;
            }
        }
        assert!(failures <= 4, "{failures} calls failed after {way}");
        for _ in 0..20 {
            store.put(&ctx(), &ns("acme"), "held", bytes("new")).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_opening_and_every_call_are_unavailable_and_show_no_password() {
    let mut server = durable_server();
    let schema = Schema::on(server.url()).await;
    let store = open(&schema, "").await;
    store.put(&ctx(), &ns("acme"), "k", bytes("v")).await.unwrap();
    block_in_place(|| server.stop()).unwrap();

    let config = schema.config();
    assert!(!format!("{config:?} {store:?}").contains(PASSWORD));
    let error = PostgresStore::open(&ctx(), config).await.unwrap_err();
    check_outage(&error);
    assert!(error.is_retryable());
    let diagnosed = cubbyhole_postgres::diagnose(&ctx(), &schema.config()).await;
    assert!(!format!("{diagnosed:?}").contains(PASSWORD));
    for _ in 0..12 {
        let error = store.get(&ctx(), &ns("acme"), "k").await.unwrap_err();
        check_outage(&error);
        assert!(error.is_retryable());
        check_outage(&store.put(&ctx(), &ns("acme"), "k", bytes("w")).await.unwrap_err());
    }
    // No connection can be had any more, so that nothing was sent.
    let error = store.put(&ctx(), &ns("acme"), "k", bytes("w")).await.unwrap_err();
    assert!(error.is_retryable() && !error.may_have_been_applied(), "{error:?}");

    block_in_place(|| server.start_again()).unwrap();
    assert_eq!(store.get(&ctx(), &ns("acme"), "k").await.unwrap(), Some(bytes("v")));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_to_a_paused_server_end_with_their_contexts_and_it_goes_on() {
    let server = durable_server();
    let schema = Schema::on(server.url()).await;
    let store = open(&schema, "&pool_size=4").await;
    store.put(&ctx(), &ns("acme"), "held", bytes("old")).await.unwrap();
    crate::pool::fill(&schema, &store, 4).await;
    server.pause().unwrap();
    let mut calls = JoinSet::new();
    for number in 0..12_u32 {
        let store = store.clone();
        calls.spawn(async move {
            let context = ExecutionContext::new().with_timeout(Duration::from_millis(500));
            store.put(&context, &ns("acme"), "held", bytes(&number.to_string())).await
        });
    }
    let all = tokio::time::timeout(PATIENCE, calls.join_all()).await;
    // A failed test has to be able to clean up.
    server.resume().unwrap();
    for answer in all.unwrap() {
        let error = answer.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error:?}");
    }
    // What was sent before the pause ended may be applied, but no call waits for it.
    store.put(&ctx(), &ns("acme"), "other", bytes("new")).await.unwrap();
    until("the pool", async || store.connections().1 == 0).await;
    let mut calls = JoinSet::new();
    for _ in 0..32 {
        let store = store.clone();
        calls.spawn(async move { store.get(&ctx(), &ns("acme"), "other").await });
    }
    for answer in calls.join_all().await {
        assert_eq!(answer.unwrap(), Some(bytes("new")));
    }
}
