//! A server that is stopped, killed or started again under load, and the store that goes on by
//! itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cubbyhole_core::{
    CancellationToken, Condition, EntryStore, Error, ErrorKind, ExecutionContext, GetOptions,
    PutOptions, Store, Version,
};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisServer;
use tokio::task::{JoinSet, block_in_place};

use crate::by_hand::{
    PASSWORD, PATIENCE, bytes, cli, config, ctx, ns, open, open_several, shown, tenant, until,
    use_each,
};

const WRITERS: usize = 6;
const CONNECTIONS: usize = 3;

/// A server that loses nothing that it acknowledged.
fn durable_server() -> RedisServer {
    block_in_place(|| RedisServer::start_with(&["appendfsync always"])).unwrap()
}

/// What is left to know about an outage of a server: that it is one, and whether to go on.
fn check_outage(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", shown(error));
    assert_ne!(error.is_retryable(), error.may_have_been_applied(), "{}", shown(error));
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
    fn start(store: &RedisStore) -> Self {
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
async fn write(store: RedisStore, told: Arc<Told>, stop: CancellationToken, writer: usize) {
    let (name, own) = (ns("acme:load"), format!("own {writer}"));
    let mut current: Option<Version> = None;
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
                current = Some(next);
            }
            Err(error) => {
                told.failed(writer, &error).await;
                if error.may_have_been_applied() {
                    // Old or new.
                    let found = read(&store, &told, writer, &own).await;
                    assert!(found == current || found == Some(next), "neither old nor new");
                    current = found;
                }
            }
        }
        assert_eq!(read(&store, &told, writer, &own).await, current);
        told.versions.lock().unwrap().insert(own.clone(), current);
    }
}

/// The version of an entry, once the server answers.
async fn read(store: &RedisStore, told: &Told, writer: usize, key: &str) -> Option<Version> {
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
async fn check(store: &RedisStore, told: &Told) {
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
        let value = store.get(&ctx(), &ns("acme:load"), key).await.unwrap();
        assert_eq!(value, Some(bytes(key)));
    }
    assert_eq!(versions.len(), WRITERS);
    for (own, at) in versions {
        let name = ns("acme:load");
        let entry = store.get_entry(&ctx(), &name, &own, GetOptions::new()).await.unwrap();
        let entry = entry.unwrap();
        assert_eq!(Some(entry.meta.version), at, "{own}");
        assert_eq!(entry.value, bytes(&entry.meta.version.to_string()), "{own}");
    }
    let names = store.list_namespaces(&ctx(), &tenant("acme").into()).await.unwrap();
    assert_eq!(names, [ns("acme:load")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_stopped_or_killed_under_load_loses_nothing_and_the_store_goes_on() {
    let mut server = durable_server();
    let store = open_several(server.url(), "p:", CONNECTIONS).await;
    for way in ["stop", "kill", "stop", "kill"] {
        let load = Load::start(&store);
        load.until_more(100).await;
        block_in_place(|| if way == "stop" { server.stop() } else { server.kill() }).unwrap();
        load.until_every_writer_failed().await;
        block_in_place(|| server.start_again()).unwrap();
        load.until_more(100).await;
        let told = load.finish().await;
        check(&store, &told).await;
        let clients = cli(&server, &["CLIENT", "LIST"]);
        assert!(clients.lines().count() <= CONNECTIONS + 1, "after {way}: {clients}");
        let name = ns("acme:load");
        for key in store.list(&ctx(), &name, None).await.unwrap() {
            store.delete(&ctx(), &name, &key).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_were_idle_over_a_restart_cost_no_call() {
    let mut server = durable_server();
    let store = open_several(server.url(), "p:", CONNECTIONS).await;
    let acme = ns("acme");
    store.put(&ctx(), &acme, "held", bytes("old")).await.unwrap();
    for way in ["stop", "kill", "stop", "kill"] {
        for first in ["a write", "a read"] {
            block_in_place(|| if way == "stop" { server.stop() } else { server.kill() }).unwrap();
            block_in_place(|| server.start_again()).unwrap();
            let what = format!("{first} after {way}");
            if first == "a write" {
                let put = store.put(&ctx(), &acme, "held", bytes(&what)).await;
                put.unwrap_or_else(|error| panic!("{what}: {}", shown(&error)));
            }
            let value = store.get(&ctx(), &acme, "held").await;
            let value = value.unwrap_or_else(|error| panic!("{what}: {}", shown(&error)));
            assert_eq!(value, Some(bytes(&format!("a write after {way}"))));
            use_each(&store, CONNECTIONS).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_opening_and_every_call_are_unavailable_at_once() {
    let settings = [format!("requirepass {PASSWORD}")];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let mut server = block_in_place(|| RedisServer::start_with(&settings)).unwrap();
    let url = format!("redis://:{PASSWORD}@127.0.0.1:{}", server.port());
    let store = open(&url, "p:").await;
    store.put(&ctx(), &ns("acme"), "k", bytes("v")).await.unwrap();
    block_in_place(|| server.stop()).unwrap();

    let opened = RedisStore::open(&ctx(), config(&url, "p:")).await;
    let refused = opened.err().unwrap();
    check_outage(&refused);
    assert!(refused.is_retryable());
    // Contexts that do not end: the calls end by themselves.
    let never = ExecutionContext::new();
    let acme = ns("acme");
    let calls = async {
        for _ in 0..12 {
            let error = store.get(&never, &acme, "k").await.unwrap_err();
            check_outage(&error);
            assert!(error.is_retryable());
            // No connection can be had, so that nothing was sent.
            let error = store.put(&never, &acme, "k", bytes("w")).await.unwrap_err();
            check_outage(&error);
            assert!(!error.may_have_been_applied(), "{error:?}");
            assert!(!shown(&error).contains(PASSWORD), "{}", shown(&error));
        }
    };
    tokio::time::timeout(PATIENCE / 2, calls).await.unwrap();
    let diagnosed = cubbyhole_redis::diagnose(&ctx(), &config(&url, "p:")).await;
    for text in [shown(&refused), format!("{store:?}"), format!("{diagnosed:?}")] {
        assert!(!text.contains(PASSWORD), "{text}");
    }

    block_in_place(|| server.start_again()).unwrap();
    assert_eq!(store.get(&ctx(), &acme, "k").await.unwrap(), Some(bytes("v")));
    store.put(&ctx(), &acme, "k", bytes("w")).await.unwrap();
}
