//! Writers that continue while a test stops, kills and restarts the server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cubbyhole_core::{
    Bytes, CancellationToken, Condition, EntryStore, Error, GetOptions, PutOptions, Version,
};
use tokio::task::{JoinSet, block_in_place};

use crate::Disturb;
use crate::stores::helpers::{bytes, check_outage, ctx, ns, tenant, until};

const WRITERS: usize = 6;
const NAMESPACE: &str = "acme:load";

/// Whether a write of unknown outcome may become visible after a read that did not find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LateWrites {
    /// The write is visible to the next read or never.
    Impossible,
    /// A killed server may have the write in its log and apply it when it restarts, although
    /// another of its processes answered a read without it a moment before it was killed.
    Possible,
}

/// The writers of one load. Each puts keys that are new, updates its own entry at the version that
/// it expects, and reads that entry.
struct Writers {
    record: Arc<Record>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// What the writers know about their writes.
#[derive(Default)]
struct Record {
    acknowledged: Mutex<BTreeSet<String>>,
    refused: Mutex<BTreeSet<String>>,
    unknown: Mutex<BTreeSet<String>>,
    /// The versions of the writers' own entries.
    versions: Mutex<BTreeMap<String, Option<Version>>>,
    failures: [AtomicUsize; WRITERS],
}

impl Writers {
    /// Starts writing.
    fn start(store: &Arc<dyn EntryStore<Bytes>>, late_writes: LateWrites) -> Self {
        let (record, stop) = (Arc::<Record>::default(), CancellationToken::new());
        let mut tasks = JoinSet::new();
        for number in 0..WRITERS {
            let writer = Writer {
                store: Arc::clone(store),
                record: Arc::clone(&record),
                number,
                own_key: format!("own {number}"),
                late_writes,
                current: None,
                doubtful: Vec::new(),
            };
            tasks.spawn(writer.run(stop.clone()));
        }
        Self { record, stop, tasks }
    }

    fn acknowledged(&self) -> usize {
        self.record.acknowledged.lock().unwrap().len()
    }

    /// Waits for that many more acknowledged writes.
    async fn until_more(&self, more: usize) {
        let wanted = self.acknowledged() + more;
        let is_done = async || self.tasks.is_empty() || self.acknowledged() >= wanted;
        until("acknowledged writes", is_done).await;
    }

    /// Waits until each writer has met an error.
    async fn until_every_writer_failed(&self) {
        let failed = |failures: &AtomicUsize| failures.load(SeqCst) > 0;
        until("failures", async || self.record.failures.iter().all(failed)).await;
    }

    /// Stops the writers.
    async fn finish(mut self) -> Arc<Record> {
        self.stop.cancel();
        while let Some(writer) = self.tasks.join_next().await {
            writer.unwrap();
        }
        self.record
    }
}

impl Record {
    async fn failed(&self, writer: usize, error: &Error) {
        check_outage(error);
        self.failures[writer].fetch_add(1, SeqCst);
        // A writer that repeats calls without a pause would take the processor from the server.
        ctx().sleep(Duration::from_millis(5)).await.unwrap();
    }

    /// Asserts that every acknowledged write is in the store, that no refused write is, and that the
    /// writers' own entries have the expected versions.
    async fn check(&self, store: &dyn EntryStore<Bytes>) {
        let (context, name) = (ctx(), ns(NAMESPACE));
        let found: BTreeSet<String> =
            store.list(&context, &name, None).await.unwrap().into_iter().collect();
        let acknowledged = self.acknowledged.lock().unwrap().clone();
        let refused = self.refused.lock().unwrap().clone();
        let unknown = self.unknown.lock().unwrap().clone();
        let versions = self.versions.lock().unwrap().clone();
        let missing: Vec<_> = acknowledged.difference(&found).collect();
        assert!(missing.is_empty(), "acknowledged, but missing: {missing:?}");
        let applied: Vec<_> = refused.intersection(&found).collect();
        assert!(applied.is_empty(), "reported to have no effect, but present: {applied:?}");
        for key in found.iter().filter(|key| !key.starts_with("own")) {
            assert!(acknowledged.contains(key) || unknown.contains(key), "never written: {key}");
            let value = store.get(&ctx(), &name, key).await.unwrap();
            assert_eq!(value, Some(bytes(key)));
        }
        assert_eq!(versions.len(), WRITERS);
        for (own_key, version) in versions {
            let entry = store.get_entry(&ctx(), &name, &own_key, GetOptions::new()).await.unwrap();
            let entry = entry.unwrap();
            assert_eq!(Some(entry.meta.version), version, "{own_key}");
            assert_eq!(entry.value, bytes(&entry.meta.version.to_string()), "{own_key}");
        }
        let names = store.list_namespaces(&context, &tenant("acme").into()).await.unwrap();
        assert_eq!(names, [name]);
    }
}

/// Runs the writers while the server is stopped, killed and started again. After each round, checks
/// the contents of the store, calls `after_round` with the way in which the server ended, and deletes
/// the entries.
pub async fn run_across_restarts<S: Disturb>(
    store: &Arc<dyn EntryStore<Bytes>>,
    server: &mut S,
    late_writes: LateWrites,
    mut after_round: impl AsyncFnMut(&S, &str),
) {
    for way in ["stop", "kill", "stop", "kill"] {
        let load = Writers::start(store, late_writes);
        load.until_more(100).await;
        block_in_place(|| if way == "stop" { server.stop() } else { server.kill() }).unwrap();
        load.until_every_writer_failed().await;
        block_in_place(|| server.start_again()).unwrap();
        load.until_more(100).await;
        load.finish().await.check(&**store).await;
        after_round(server, way).await;
        delete_entries(&**store).await;
    }
}

async fn delete_entries(store: &dyn EntryStore<Bytes>) {
    let name = ns(NAMESPACE);
    for key in store.list(&ctx(), &name, None).await.unwrap() {
        store.delete(&ctx(), &name, &key).await.unwrap();
    }
}

struct Writer {
    store: Arc<dyn EntryStore<Bytes>>,
    record: Arc<Record>,
    number: usize,
    own_key: String,
    late_writes: LateWrites,
    /// The version of its own entry.
    current: Option<Version>,
    /// The versions of writes of unknown outcome that a later read did not find.
    doubtful: Vec<Version>,
}

impl Writer {
    async fn run(mut self, stop: CancellationToken) {
        for number in 0_u32.. {
            if stop.is_cancelled() {
                return;
            }
            self.put_new(format!("{} {number}", self.number)).await;
            self.update_own().await;
            let found = self.read_own().await;
            self.settle(found);
            assert_eq!(found, self.current);
            let own_key = self.own_key.clone();
            self.record.versions.lock().unwrap().insert(own_key, self.current);
        }
    }

    async fn put_new(&self, key: String) {
        let record = &self.record;
        match self.store.put(&ctx(), &ns(NAMESPACE), &key, bytes(&key)).await {
            Ok(()) => drop(record.acknowledged.lock().unwrap().insert(key)),
            Err(error) => {
                let may_be = error.may_have_been_applied();
                let list = if may_be { &record.unknown } else { &record.refused };
                list.lock().unwrap().insert(key);
                record.failed(self.number, &error).await;
            }
        }
    }

    async fn update_own(&mut self) {
        let next = Version::draw();
        let options = PutOptions::new().with_version(next);
        let condition = self.current.map_or(Condition::IfAbsent, Condition::IfVersion);
        let value = bytes(&next.to_string());
        let (context, name) = (ctx(), ns(NAMESPACE));
        let put = self.store.put_entry(&context, &name, &self.own_key, value, options, condition);
        match put.await {
            Ok(version) => {
                assert_eq!(version, next);
                (self.current, self.doubtful) = (Some(next), Vec::new());
            }
            Err(error) if self.settle(error.current_version()) => {}
            Err(error) => {
                self.record.failed(self.number, &error).await;
                if error.may_have_been_applied() {
                    let found = self.read_own().await;
                    let is_whole = found == self.current || found == Some(next);
                    assert!(is_whole, "neither old nor new");
                    if found == self.current && self.late_writes == LateWrites::Possible {
                        self.doubtful.push(next);
                    }
                    self.current = found;
                }
            }
        }
    }

    /// Accepts a doubtful write that has become visible. Returns whether `found` is one.
    fn settle(&mut self, found: Option<Version>) -> bool {
        let is_late = found.is_some_and(|found| self.doubtful.contains(&found));
        if is_late {
            (self.current, self.doubtful) = (found, Vec::new());
        }
        is_late
    }

    /// Returns the version of its own entry, as soon as the server answers.
    async fn read_own(&self) -> Option<Version> {
        let (name, key) = (ns(NAMESPACE), &self.own_key);
        loop {
            match self.store.get_entry(&ctx(), &name, key, GetOptions::new()).await {
                Ok(entry) => return entry.map(|entry| entry.meta.version),
                Err(error) => {
                    assert!(error.is_retryable(), "a read can always be repeated: {error}");
                    self.record.failed(self.number, &error).await;
                }
            }
        }
    }
}
