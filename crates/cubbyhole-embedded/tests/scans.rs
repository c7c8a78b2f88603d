//! Reverse and recursive scans and deletion by prefix, over the boundaries between namespaces whose
//! entries are adjacent in the file.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use cubbyhole_core::{
    Backend, Bytes, EntryStore, EntryStoreExt, ManualClock, Namespace, NamespacePrefix, Position,
    PutOptions, RecursiveScanOptions, ScanOptions, Store,
};
use cubbyhole_embedded::EmbeddedStore;
use support::{Disk, ctx};

/// Namespaces that sort between a namespace and those below it, and on both sides of them.
const NAMES: [&str; 11] =
    ["a", "a!", "a-b", "a0", "a:", "a:b", "a:b!", "a:b:c", r"a\:b", "a;", "b"];
const KEYS: [&str; 9] =
    ["", "\u{1}", "k", "k\u{1}", "k1", "ka", "k\u{7f}", "k\u{10ffff}", "\u{10ffff}\u{10ffff}"];

type Rows = BTreeMap<(String, String), Bytes>;

fn parse(name: &str) -> Namespace {
    Namespace::parse(name).unwrap()
}

/// A store with random entries, of which some have expired, and its live entries.
async fn random_store(random: &mut fastrand::Rng) -> (EmbeddedStore, Rows, Rows) {
    let clock = ManualClock::default();
    let config = Disk::new().config().with_clock(clock.clone());
    let store = EmbeddedStore::open(&ctx(), config).await.unwrap();
    let (mut live, mut expired) = (Rows::new(), Rows::new());
    for (name, key) in NAMES.iter().flat_map(|name| KEYS.iter().map(move |key| (*name, *key))) {
        let kind = random.u8(0..4);
        if kind == 0 {
            continue;
        }
        let length = if random.u8(0..4) == 0 { 1000 } else { 3 };
        let value = Bytes::from(vec![random.u8(..); length]);
        let mut options = PutOptions::new();
        let mut rows = &mut live;
        if kind == 1 {
            options = options.with_idle_ttl(Duration::from_secs(1));
            rows = &mut expired;
        }
        store.put_with_options(&ctx(), &parse(name), key, value.clone(), options).await.unwrap();
        rows.insert((name.to_owned(), key.to_owned()), value);
    }
    clock.advance(Duration::from_secs(1));
    (store, live, expired)
}

/// The keys and values of all pages.
async fn scan(store: &EmbeddedStore, ns: &str, mut options: ScanOptions) -> Vec<(String, Bytes)> {
    let mut found = Vec::new();
    loop {
        let page = store.scan(&ctx(), &parse(ns), options.clone()).await.unwrap();
        let last = page.items.last().map(|item| item.key.clone());
        assert!(page.next.is_none() || page.next == last);
        for item in page.items {
            found.push((item.key, item.value.unwrap().unwrap()));
        }
        let Some(next) = page.next else { return found };
        options = options.with_after(next);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scans_in_both_directions_stay_within_namespace_prefix_and_cursor() {
    for seed in 0..3 {
        let (store, live, _) = random_store(&mut fastrand::Rng::with_seed(seed)).await;
        for name in NAMES {
            let afters = KEYS.iter().map(Some).chain([None]);
            for (prefix, after) in
                KEYS.iter().flat_map(|prefix| afters.clone().map(move |after| (*prefix, after)))
            {
                let mut options =
                    ScanOptions::new().with_prefix(prefix).with_limit(1 + seed as usize % 3);
                if let Some(after) = after {
                    options = options.with_after(*after);
                }
                let expected = |reversed: bool| {
                    let mut rows: Vec<_> = live
                        .iter()
                        .filter(|((ns, key), _)| ns == name && key.starts_with(prefix))
                        .map(|((_, key), value)| (key.clone(), value.clone()))
                        .filter(|(key, _)| {
                            after.is_none_or(|after| {
                                if reversed { key.as_str() < *after } else { key.as_str() > *after }
                            })
                        })
                        .collect();
                    if reversed {
                        rows.reverse();
                    }
                    rows
                };
                let case = format!("seed {seed}: {name} prefix {prefix:?} after {after:?}");
                let forward = scan(&store, name, options.clone()).await;
                assert_eq!(forward, expected(false), "{case}");
                let backward = scan(&store, name, options.reversed()).await;
                assert_eq!(backward, expected(true), "{case} reversed");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recursive_scan_returns_all_namespaces_below_in_order() {
    for seed in 0..3 {
        let (store, live, _) = random_store(&mut fastrand::Rng::with_seed(seed)).await;
        for prefix in ["a", "a:", "a:b", "a:b:c", r"a\:b", "b", "c"].map(parse) {
            let prefix = NamespacePrefix::from(prefix);
            let below = |name: &str| prefix.matches(&parse(name));
            let expected: Vec<_> = live.iter().filter(|((ns, _), _)| below(ns)).collect();
            let all = |limit: usize, after: Option<Position>| {
                let mut options = RecursiveScanOptions::new().with_limit(limit);
                if let Some(after) = after {
                    options = options.with_after(after);
                }
                recursive(&store, &prefix, options)
            };
            for limit in [1, 2, 7, 1000] {
                let found = all(limit, None).await;
                assert!(found.iter().collect::<Vec<_>>() == expected, "seed {seed}: {prefix}");
            }
            // From every position, also of entries that do not exist.
            for (name, key) in NAMES.iter().flat_map(|name| KEYS.map(|key| (*name, key))) {
                if !below(name) {
                    continue;
                }
                let position = (name.to_owned(), key.to_owned());
                let rest = expected.iter().filter(|(found, _)| **found > position).copied();
                let after = Position { namespace: parse(name), key: key.to_owned() };
                let found = all(1000, Some(after)).await;
                assert!(found.iter().eq(rest), "seed {seed}: {prefix} after {name} {key:?}");
            }
        }
    }
}

async fn recursive(
    store: &EmbeddedStore,
    prefix: &NamespacePrefix,
    mut options: RecursiveScanOptions,
) -> Rows {
    let (mut rows, mut order) = (Rows::new(), Vec::new());
    loop {
        let page = store.scan_recursive(&ctx(), prefix, options.clone()).await.unwrap();
        for (ns, item) in page.items {
            let row = (ns.to_string(), item.key);
            order.push(row.clone());
            rows.insert(row, item.value.unwrap().unwrap());
        }
        let Some(next) = page.next else { break };
        options = options.with_after(next);
    }
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(order.len(), rows.len(), "an entry was returned twice");
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_prefix_removes_only_matching_entries_of_its_namespace() {
    for seed in 0..3 {
        let mut random = fastrand::Rng::with_seed(seed);
        for prefix in ["", "k", "k\u{1}", "k\u{10ffff}", "none"] {
            let (store, mut live, mut expired) = random_store(&mut random).await;
            let name = NAMES[random.usize(0..NAMES.len())];
            let (ns, limit) = (parse(name), random.usize(1..6));
            let matches = |rows: &Rows| {
                let within =
                    |(found, key): &&(String, String)| found == name && key.starts_with(prefix);
                rows.keys().filter(within).count()
            };
            let (live_before, all) = (matches(&live), matches(&live) + matches(&expired));
            let (mut removed, mut steps) = (0, 0);
            loop {
                let step = store.delete_prefix(&ctx(), &ns, prefix, limit).await.unwrap();
                assert!(step.removed <= limit as u64);
                (removed, steps) = (removed + step.removed, steps + 1);
                if step.done {
                    break;
                }
            }
            assert_eq!((removed, steps), (live_before as u64, all.div_ceil(limit).max(1)));
            let stays = |(found, key): &(String, String), _: &mut Bytes| {
                found != name || !key.starts_with(prefix)
            };
            live.retain(stays);
            expired.retain(stays);
            for name in NAMES {
                let ns_rows = scan(&store, name, ScanOptions::new()).await;
                let expected = live.iter().filter(|((ns, _), _)| ns == name);
                assert!(
                    ns_rows
                        .iter()
                        .map(|(key, value)| (key, value))
                        .eq(expected.map(|((_, key), value)| (key, value)))
                );
            }
            store.verify(&ctx()).await.unwrap();
            assert_eq!(store.evict_expired(&ctx()).await.unwrap(), expired.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn last_entries_of_a_long_sequence_are_the_only_ones_read() {
    const TURNS: u64 = 10_000;
    let disk = Disk::new();
    let store = disk.open().await;
    let chat = parse("acme:chat");
    for _ in 0..10 {
        let turns = vec![Bytes::from(vec![b'x'; 1000]); TURNS as usize / 10];
        store.append(&ctx(), &chat, "turn-", turns, PutOptions::new()).await.unwrap();
    }
    store.close(&ctx()).await.unwrap();
    // Without a cache, every block that a call needs is read from the disk.
    let reads = async |n: usize| {
        let store = EmbeddedStore::open(&ctx(), disk.config().with_cache_bytes(0)).await.unwrap();
        let before = disk.operations();
        let items = store.last(&ctx(), &chat, "turn-", n).await.unwrap();
        assert_eq!(items.len(), n);
        assert_eq!(items[n - 1].key, format!("turn-{:020}", TURNS - 1));
        let reads = disk.operations() - before;
        store.close(&ctx()).await.unwrap();
        reads
    };
    let (last, all) = (reads(20).await, reads(TURNS as usize).await);
    // 20 of 10,000 entries are a 500th. The descent to the first one is read in addition.
    assert!(last * 250 < all, "{last} reads for 20 entries, {all} for all");
}
