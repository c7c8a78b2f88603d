//! Calls that are cancelled or dropped at random instants on one connection: each key is touched by
//! one call alone, so that what the call was told can be held against what is stored, and every
//! value says whose it is, so that no answer can be another's.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use cubbyhole_core::{
    Batch, Bytes, Condition, EntryStore, Error, ErrorKind, ExecutionContext, PutOptions,
    ScanOptions, Store, Version,
};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisServer;
use tokio::task::{JoinSet, block_in_place};

use crate::by_hand::{PATIENCE, bytes, cli, ctx, ns, open_several, use_each};
use crate::proxy::Proxy;

const CALLS: usize = 1536;
const TASKS: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Put,
    PutIf,
    Write,
    Take,
    Get,
    Scan,
}

/// What a call's caller knows of its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Applied,
    None,
    Unknown,
}

fn kind(call: usize) -> Kind {
    [Kind::Put, Kind::PutIf, Kind::Write, Kind::Take, Kind::Get, Kind::Scan][call % 6]
}

fn key(call: usize) -> String {
    format!("old {call:04}")
}

fn beside(call: usize) -> [String; 2] {
    [format!("beside {call} a"), format!("beside {call} b")]
}

fn old(call: usize) -> Bytes {
    bytes(&format!("old {call} {}", "o".repeat(call)))
}

fn written(call: usize) -> Bytes {
    bytes(&format!("new {call} {}", "x".repeat(call)))
}

/// The version that a conditional put leaves, by which its outcome can be told.
fn next(call: usize) -> Version {
    Version::from_bytes((u128::MAX - call as u128).to_be_bytes())
}

/// The entries that the calls find, and at which versions.
async fn prepare(store: &RedisStore) -> HashMap<String, Version> {
    for first in (0..CALLS).step_by(512) {
        let numbers = first..CALLS.min(first + 512);
        let batch = numbers.fold(Batch::new(), |batch, call| batch.put(key(call), old(call)));
        store.write(&ctx(), &ns("acme"), batch).await.unwrap();
    }
    everything(store).await.into_iter().map(|(key, (version, _))| (key, version)).collect()
}

async fn everything(store: &RedisStore) -> BTreeMap<String, (Version, Bytes)> {
    let mut found = BTreeMap::new();
    let mut options = ScanOptions::new().with_limit(1000);
    loop {
        let page = store.scan(&ctx(), &ns("acme"), options.clone()).await.unwrap();
        for item in page.items {
            found.insert(item.key, (item.meta.version, item.value.unwrap().unwrap()));
        }
        let Some(next) = page.next else { return found };
        options = options.with_after(next);
    }
}

/// One call, of its own key, for its whole length.
async fn call(
    store: &RedisStore,
    context: &ExecutionContext,
    number: usize,
    version: Version,
) -> Result<(), Error> {
    let (name, key, options) = (ns("acme"), key(number), PutOptions::new());
    match kind(number) {
        Kind::Put => store.put(context, &name, &key, written(number)).await,
        Kind::PutIf => {
            let (at, options) = (Condition::IfVersion(version), options.with_version(next(number)));
            store.put_entry(context, &name, &key, written(number), options, at).await.map(drop)
        }
        Kind::Write => {
            let [a, b] = beside(number);
            let at = Condition::IfVersion(version);
            let batch = Batch::new()
                .put_with(a, written(number), options, Condition::IfAbsent)
                .put_with(key, written(number), options, at)
                .put(b, written(number));
            store.write(context, &name, batch).await.map(drop)
        }
        Kind::Take => {
            let taken = store.take(context, &name, &key).await?;
            assert_eq!(taken.unwrap().value, old(number));
            Ok(())
        }
        Kind::Get => {
            assert_eq!(store.get(context, &name, &key).await?, Some(old(number)));
            Ok(())
        }
        Kind::Scan => {
            let options = ScanOptions::new().with_prefix(&key);
            let page = store.scan(context, &name, options).await?;
            let [item] = page.items.try_into().unwrap();
            assert_eq!((item.key, item.value.unwrap()?), (key, old(number)));
            Ok(())
        }
    }
}

/// A call that ends by itself, by its token, at its deadline, or by being dropped.
async fn ended_call(store: &RedisStore, number: usize, version: Version) -> Effect {
    let after = Duration::from_micros(fastrand::u64(0..8_000));
    let context = ExecutionContext::new();
    let answer = match fastrand::u8(0..8) {
        0..=1 => call(store, &context, number, version).await,
        2..=3 => call(store, &context.with_timeout(after), number, version).await,
        4..=5 => match tokio::time::timeout(after, call(store, &context, number, version)).await {
            Ok(answer) => answer,
            Err(_) => return Effect::Unknown,
        },
        _ => {
            let never_ends = ctx();
            let (answer, slept) = tokio::join!(call(store, &context, number, version), async {
                let slept = never_ends.sleep(after).await;
                context.cancel();
                slept
            });
            slept.unwrap();
            answer
        }
    };
    let Err(error) = answer else { return Effect::Applied };
    let kinds = [ErrorKind::Cancelled, ErrorKind::DeadlineExceeded];
    assert!(kinds.contains(&error.kind()), "{error:?}");
    if error.may_have_been_applied() {
        assert!(!matches!(kind(number), Kind::Get | Kind::Scan), "a read has no effect: {error:?}");
        return Effect::Unknown;
    }
    Effect::None
}

fn ids(server: &RedisServer) -> Vec<String> {
    let clients = cli(server, &["CLIENT", "LIST"]);
    let id = |line: &str| line.split(' ').next().unwrap().to_owned();
    // The last is the one that asks.
    let mut ids: Vec<String> = clients.lines().map(id).collect();
    ids.pop();
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_cancelled_call_was_told_is_true_and_no_answer_is_anothers() {
    for connections in [1, 4] {
        load(connections).await;
    }
}

async fn load(connections: usize) {
    let server = block_in_place(RedisServer::start).unwrap();
    let proxy = Proxy::before(&server).await;
    let store = open_several(&proxy.url(), "p:", connections).await;
    let versions = Arc::new(prepare(&store).await);
    assert_eq!(versions.len(), CALLS);
    let before = ids(&server);
    assert_eq!(before.len(), connections);

    // Most calls are under way for about as long as their contexts last.
    proxy.delay(Duration::from_millis(1));
    let turn = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (store, versions, turn) = (store.clone(), Arc::clone(&versions), Arc::clone(&turn));
        tasks.spawn(async move {
            let mut effects = Vec::new();
            loop {
                let number = turn.fetch_add(1, SeqCst);
                if number >= CALLS {
                    return effects;
                }
                let version = versions[&key(number)];
                effects.push((number, ended_call(&store, number, version).await));
            }
        });
    }
    let effects = tokio::time::timeout(PATIENCE * 2, tasks.join_all()).await.unwrap().concat();
    proxy.delay(Duration::ZERO);

    // Behind all that was sent before.
    use_each(&store, connections).await;
    let found = everything(&store).await;
    assert_eq!((ids(&server), proxy.connections()), (before, connections));
    for effect in [Effect::Applied, Effect::None, Effect::Unknown] {
        assert!(effects.iter().any(|(_, told)| *told == effect), "no call ended as {effect:?}");
    }
    assert_eq!(effects.len(), CALLS);
    let mut unknown_and = [0, 0];
    for (number, told) in effects {
        let applied = check(&found, &versions, number, told);
        if told == Effect::Unknown {
            unknown_and[usize::from(applied)] += 1;
        }
    }
    assert!(unknown_and[1] > 0, "no call was under way when it ended");

    let mut calls = JoinSet::new();
    for number in (4..CALLS).step_by(6) {
        let store = store.clone();
        calls.spawn(async move { (number, store.get(&ctx(), &ns("acme"), &key(number)).await) });
    }
    for (number, answer) in calls.join_all().await {
        assert_eq!(answer.unwrap(), Some(old(number)));
    }
}

/// Holds what the caller was told against what is stored. Whether the call was applied.
fn check(
    found: &BTreeMap<String, (Version, Bytes)>,
    versions: &HashMap<String, Version>,
    number: usize,
    told: Effect,
) -> bool {
    let key = key(number);
    let entry = found.get(&key);
    let is_old = entry == Some(&(versions[&key], old(number)));
    let is_new = match kind(number) {
        Kind::Get | Kind::Scan => {
            assert!(is_old, "{key}: a read changed it");
            return false;
        }
        Kind::Take => entry.is_none(),
        Kind::Put => entry.is_some_and(|(_, value)| *value == written(number)),
        Kind::PutIf => entry == Some(&(next(number), written(number))),
        Kind::Write => {
            let mut parts = beside(number).into_iter().chain([key.clone()]);
            parts.all(|part| found.get(&part).is_some_and(|(_, value)| *value == written(number)))
        }
    };
    let nothing_beside = beside(number).iter().all(|part| !found.contains_key(part));
    assert!(is_new || (is_old && nothing_beside), "{key} is neither old nor new: {entry:?}");
    match told {
        Effect::Applied => assert!(is_new, "{key}: {:?} was acknowledged", kind(number)),
        Effect::None => assert!(is_old, "{key}: {:?} was told to have no effect", kind(number)),
        Effect::Unknown => {}
    }
    is_new
}
