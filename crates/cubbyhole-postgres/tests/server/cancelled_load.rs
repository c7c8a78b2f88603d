//! Calls that are cancelled at random instants while others hold the rows that they want: each key
//! is written by one call alone, so that what the call was told can be held against the table.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use cubbyhole_core::{
    Batch, Bytes, CancellationToken, Condition, EntryStore, Error, ErrorKind, ExecutionContext,
    PutOptions, ScanOptions, Store, Version,
};
use cubbyhole_postgres::{Config, PostgresStore};
use tokio::task::JoinSet;

use crate::by_hand::{PATIENCE, bytes, ctx, ns, one, until};
use crate::support::Schema;

const CALLS: usize = 1024;
const TASKS: usize = 64;
const POOL: usize = 8;

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

fn old(call: usize) -> String {
    format!("old {call}")
}

fn beside(call: usize) -> [String; 2] {
    [format!("beside {call} a"), format!("beside {call} b")]
}

fn written(call: usize) -> Bytes {
    bytes(&format!("new {call} {}", "x".repeat(call)))
}

/// The entries that the calls find, and at which versions.
async fn prepare(schema: &Schema, store: &PostgresStore) -> HashMap<String, Version> {
    let insert = format!(
        "INSERT INTO {}.entries
            (namespace, key, tenant, version, created_at, updated_at, value)
         SELECT 'acme', 'old ' || n, 'acme', gen_random_uuid(), 0, 0, 'old'
         FROM generate_series(0, {}) n",
        schema.name,
        CALLS - 1
    );
    schema.execute(&insert).await;
    everything(store).await.into_iter().map(|(key, (version, _))| (key, version)).collect()
}

async fn everything(store: &PostgresStore) -> BTreeMap<String, (Version, Bytes)> {
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
    store: &PostgresStore,
    context: &ExecutionContext,
    number: usize,
    version: Version,
) -> Result<(), Error> {
    let (name, key, options) = (ns("acme"), old(number), PutOptions::new());
    match kind(number) {
        Kind::Put => store.put(context, &name, &key, written(number)).await,
        Kind::PutIf => {
            let at = Condition::IfVersion(version);
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
            assert_eq!(taken.unwrap().value, bytes("old"));
            Ok(())
        }
        Kind::Get => {
            assert_eq!(store.get(context, &name, &key).await?, Some(bytes("old")));
            Ok(())
        }
        Kind::Scan => {
            let page = store.scan(context, &name, ScanOptions::new().with_after(&key)).await?;
            for item in page.items {
                let value = item.value.unwrap()?;
                let number = item.key.split(' ').nth(1).unwrap().parse().unwrap();
                let is_old = value == bytes("old") && item.key.starts_with("old");
                assert!(is_old || value == written(number), "half of {}", item.key);
            }
            Ok(())
        }
    }
}

/// A call that ends by itself, by its token, at its deadline, or by being dropped.
async fn ended_call(store: PostgresStore, number: usize, version: Version) -> Effect {
    let after = Duration::from_micros(fastrand::u64(0..30_000));
    let context = ExecutionContext::new();
    let answer = match fastrand::u8(0..8) {
        0 => call(&store, &context, number, version).await,
        1..=2 => call(&store, &context.with_timeout(after), number, version).await,
        3..=4 => match tokio::time::timeout(after, call(&store, &context, number, version)).await {
            Ok(answer) => answer,
            Err(_) => return Effect::Unknown,
        },
        _ => {
            let never_ends = ctx();
            let (answer, slept) = tokio::join!(call(&store, &context, number, version), async {
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

/// Holds a part of the rows again and again, in the order in which batches lock them.
async fn disturb(
    holder: tokio_postgres::Client,
    table: String,
    part: u64,
    stop: CancellationToken,
) {
    let never_ends = ctx();
    while !stop.is_cancelled() {
        let lock = format!(
            "BEGIN; SELECT FROM {table} WHERE namespace = 'acme' AND starts_with(key, 'old')
                AND split_part(key, ' ', 2)::int % 7 = {part} ORDER BY key FOR UPDATE"
        );
        holder.batch_execute(&lock).await.unwrap();
        never_ends.sleep(Duration::from_micros(fastrand::u64(0..20_000))).await.unwrap();
        holder.batch_execute("ROLLBACK").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_cancelled_call_was_told_is_true_also_where_it_waited_for_a_lock() {
    let schema = Schema::new().await;
    let admin = schema.admin().await;
    let url = schema.url(&format!("&pool_size={POOL}"));
    let store = PostgresStore::open(&ctx(), Config::from_url(&url).unwrap()).await.unwrap();
    let versions = Arc::new(prepare(&schema, &store).await);
    assert_eq!(versions.len(), CALLS);

    let stop = CancellationToken::new();
    let mut holders = JoinSet::new();
    for part in 0..3 {
        let (holder, table) = (schema.admin().await, format!("{}.entries", schema.name));
        holders.spawn(disturb(holder, table, part, stop.clone()));
    }
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (store, versions, next) = (store.clone(), Arc::clone(&versions), Arc::clone(&next));
        tasks.spawn(async move {
            let mut effects = Vec::new();
            loop {
                let number = next.fetch_add(1, SeqCst);
                if number >= CALLS {
                    return effects;
                }
                let version = versions[&old(number)];
                effects.push((number, ended_call(store.clone(), number, version).await));
            }
        });
    }
    let effects = tokio::time::timeout(PATIENCE * 2, tasks.join_all()).await.unwrap().concat();
    stop.cancel();
    holders.join_all().await;

    until("connections that are given back", async || store.connections().1 == 0).await;
    let left = format!(
        "SELECT count(*) FROM pg_stat_activity
         WHERE usename = '{}_login' AND (state <> 'idle' OR xact_start IS NOT NULL)",
        schema.name
    );
    assert_eq!(one::<i64>(&admin, &left).await, 0, "something is left at the server");
    let found = everything(&store).await;
    for effect in [Effect::Applied, Effect::None, Effect::Unknown] {
        assert!(effects.iter().any(|(_, told)| *told == effect), "no call ended as {effect:?}");
    }
    assert_eq!(effects.len(), CALLS);
    for (number, told) in effects {
        check(&found, &versions, number, told);
    }

    let mut calls = JoinSet::new();
    for _ in 0..64 {
        let store = store.clone();
        calls.spawn(async move { store.get(&ctx(), &ns("acme"), "old 4").await });
    }
    for answer in calls.join_all().await {
        assert_eq!(answer.unwrap(), Some(bytes("old")));
    }
    let (open, in_use) = store.connections();
    assert!(open <= POOL && in_use == 0, "{open} connections, {in_use} in use");
}

/// Holds what the caller was told against what is in the table.
fn check(
    found: &BTreeMap<String, (Version, Bytes)>,
    versions: &HashMap<String, Version>,
    number: usize,
    told: Effect,
) {
    let key = old(number);
    let entry = found.get(&key);
    let is_old = entry == Some(&(versions[&key], bytes("old")));
    let is_new = match kind(number) {
        Kind::Get | Kind::Scan => {
            assert!(is_old, "{key}: a read changed it");
            return;
        }
        Kind::Take => entry.is_none(),
        Kind::Put | Kind::PutIf => entry.is_some_and(|(_, value)| *value == written(number)),
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
}
