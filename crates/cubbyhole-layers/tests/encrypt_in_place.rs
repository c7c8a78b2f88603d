//! A store with plain values is encrypted in place, its keys are rotated while writers work, and one
//! tenant is shredded: on a file, PostgreSQL, Redis and Redis Cluster.
//!
//! `CUBBYHOLE_ENCRYPTED_ENTRIES` sets the number of entries.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic fails the test")]
#![cfg(all(unix, feature = "encryption"))]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cubbyhole_core::{
    Backend, Batch, Bytes, Condition, Entry, EntryMeta, EntryStore, ErrorKind, ExecutionContext,
    Expiry, GetOptions, Namespace, NamespacePrefix, PutOptions, RecursiveScanOptions, Store,
    TenantId, Version,
};
use cubbyhole_embedded::EmbeddedStore;
use cubbyhole_layers::{Encrypted, KeyFile, Plaintext};
use cubbyhole_postgres::PostgresStore;
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::shared::PASSWORD;
use cubbyhole_testkit::{PostgresServer, RedisCluster, RedisServer};
use tokio::task::block_in_place;

/// The entries of a short run.
const ENTRIES: usize = 240;
const TENANTS: usize = 8;
const WRITERS: usize = 8;
/// Begins every value.
const PLAINTEXT: &str = "plaintext-value-";
/// The tenant that is shredded.
const SHREDDED: usize = 3;
const WEEK: Duration = Duration::from_secs(7 * 86_400);

type Layer = Encrypted<Arc<dyn Backend>>;

fn ctx() -> ExecutionContext {
    ExecutionContext::new()
}

fn namespace(tenant: usize, section: usize) -> Namespace {
    Namespace::from_parts(format!("tenant-{tenant}"), [format!("section-{section}")]).unwrap()
}

fn prefix(tenant: usize) -> NamespacePrefix {
    NamespacePrefix::from_parts(format!("tenant-{tenant}"), [""; 0]).unwrap()
}

/// Writes plain entries; every fifth one expires.
async fn fill(backend: &dyn Backend, entries: usize) {
    let mut left = entries;
    for tenant in 0..TENANTS {
        let of_tenant = left / (TENANTS - tenant);
        left -= of_tenant;
        let mut numbers = 0..of_tenant;
        let mut section = 0;
        while !numbers.is_empty() {
            let mut batch = Batch::new();
            for number in numbers.by_ref().take(500) {
                let value = Bytes::from(format!("{PLAINTEXT}{tenant}-{number}"));
                let expiry = match number % 5 {
                    0 => Expiry::After(WEEK),
                    1 => Expiry::Idle(WEEK),
                    _ => Expiry::Never,
                };
                let options = PutOptions::new().with_expiry(expiry);
                batch = batch.put_with(format!("{number:06}"), value, options, Condition::Always);
            }
            backend.write(&ctx(), &namespace(tenant, section), batch).await.unwrap();
            section += 1;
        }
    }
}

type Contents = HashMap<(Namespace, String), Entry<Bytes>>;

async fn contents(store: &dyn EntryStore<Bytes>, tenant: usize) -> Contents {
    let mut found = HashMap::new();
    let mut options = RecursiveScanOptions::new().with_limit(500);
    loop {
        let page = store.scan_recursive(&ctx(), &prefix(tenant), options.clone()).await.unwrap();
        for (ns, item) in page.items {
            let key = item.key.clone();
            found.insert((ns, key), item.into_entry().unwrap().unwrap());
        }
        let Some(next) = page.next else { return found };
        options = options.with_after(next);
    }
}

/// Returns the metadata that a rewrite must keep.
fn kept(meta: &EntryMeta) -> (Version, String, String) {
    (meta.version, meta.created_at.to_string(), format!("{:?}", Expiry::of(meta)))
}

/// Encrypts all tenants again, and returns the number of rewritten entries.
async fn reencrypt(layer: &Layer) -> u64 {
    let mut rewritten = 0;
    for tenant in 0..TENANTS {
        let prefix = prefix(tenant);
        layer.rekey(&ctx(), &prefix.tenant()).await.unwrap();
        let mut after = None;
        loop {
            let step = layer.reencrypt_step(&ctx(), &prefix, after, 200).await.unwrap();
            assert!(step.unreadable.is_empty(), "{:?}", step.unreadable);
            rewritten += step.rewritten;
            after = step.next;
            if after.is_none() {
                break;
            }
        }
    }
    rewritten
}

/// Asserts that no stored value has plaintext.
async fn assert_encrypted(backend: &dyn Backend) {
    for tenant in 0..TENANTS {
        for ((ns, key), entry) in contents(backend, tenant).await {
            let is_plain = |window: &[u8]| window == PLAINTEXT.as_bytes();
            let plain = entry.value.windows(PLAINTEXT.len()).any(is_plain);
            assert!(!plain, "{ns} {key} is stored as plaintext");
        }
    }
}

/// Writes with conditions until `stop`, and returns the last acknowledged value of each key.
async fn write_until(layer: Layer, writer: usize, stop: Arc<AtomicBool>) -> Vec<(String, String)> {
    let (ctx, ns) = (ctx(), namespace(writer % TENANTS, 900 + writer));
    let mut acknowledged: Vec<(String, String, Version)> = Vec::new();
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) || round < 3 {
        for slot in 0..4 {
            let (key, value) = (format!("slot-{slot}"), format!("{PLAINTEXT}{writer}-{round}"));
            let condition = match acknowledged.get(slot) {
                Some((_, _, version)) => Condition::IfVersion(*version),
                None => Condition::IfAbsent,
            };
            let (bytes, options) = (value.clone().into(), PutOptions::new());
            let put = layer.put_entry(&ctx, &ns, &key, bytes, options, condition);
            let version = put.await.unwrap();
            let read = layer.get(&ctx, &ns, &key).await.unwrap().unwrap();
            assert_eq!(read, value, "{ns} {key}");
            match acknowledged.get_mut(slot) {
                Some(entry) => *entry = (key, value, version),
                None => acknowledged.push((key, value, version)),
            }
        }
        round += 1;
    }
    acknowledged.into_iter().map(|(key, value, _)| (key, value)).collect()
}

async fn encrypt_in_place(backend: Arc<dyn Backend>) {
    let count = std::env::var("CUBBYHOLE_ENCRYPTED_ENTRIES").ok();
    let entries = count.map_or(ENTRIES, |text| text.parse().unwrap());
    fill(&*backend, entries).await;
    let mut plain = Vec::new();
    for tenant in 0..TENANTS {
        plain.push(contents(&*backend, tenant).await);
    }

    // Migration: plain values are accepted until all are encrypted.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let keys = Arc::new(KeyFile::create(&path).unwrap());
    let open = |keys: Arc<KeyFile>| Encrypted::new(Arc::clone(&backend), keys);
    let accepting = open(Arc::clone(&keys)).with_plaintext(Plaintext::Accept);
    assert_eq!(reencrypt(&accepting).await, entries as u64);
    assert_eq!(reencrypt(&accepting).await, 0);
    assert_encrypted(&*backend).await;
    let layer = open(keys);
    for (tenant, before) in plain.iter().enumerate() {
        assert_same(before, &contents(&layer, tenant).await);
    }

    // Rotation under writers, each with the cached keys of another process.
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let layer = open(Arc::new(KeyFile::open(&path).unwrap()));
            tokio::spawn(write_until(layer, writer, Arc::clone(&stop)))
        })
        .collect();
    KeyFile::rotate(&path).unwrap();
    let rotating = open(Arc::new(KeyFile::open(&path).unwrap()));
    assert!(reencrypt(&rotating).await >= entries as u64);
    stop.store(true, Ordering::Relaxed);
    let mut written = Vec::new();
    for (writer, ended) in writers.into_iter().enumerate() {
        for (key, value) in ended.await.unwrap() {
            written.push((namespace(writer % TENANTS, 900 + writer), key, value));
        }
    }
    for (ns, key, value) in &written {
        let read = rotating.get(&ctx(), ns, key).await.unwrap().unwrap();
        assert_eq!(read, value.as_bytes(), "{ns} {key}");
    }
    for (tenant, before) in plain.iter().enumerate() {
        assert_same(before, &contents(&rotating, tenant).await);
    }

    // Shredding.
    let shredded = TenantId::new(format!("tenant-{SHREDDED}")).unwrap();
    rotating.shred(&ctx(), &shredded).await.unwrap();
    let fresh = open(Arc::new(KeyFile::open(&path).unwrap()));
    for (tenant, before) in plain.iter().enumerate() {
        if tenant != SHREDDED {
            assert_same(before, &contents(&fresh, tenant).await);
            continue;
        }
        for (ns, key) in before.keys() {
            let error = fresh.get_entry(&ctx(), ns, key, GetOptions::new()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.message().contains("shredded"), "{error}");
        }
    }
    assert_encrypted(&*backend).await;
}

/// Asserts that all entries of before are there with their values, versions and expiries.
fn assert_same(before: &Contents, after: &Contents) {
    for (place, entry) in before {
        let found = after.get(place).unwrap_or_else(|| panic!("{place:?} is missing"));
        assert_eq!(found.value, entry.value, "{place:?}");
        assert_eq!(kept(&found.meta), kept(&entry.meta), "{place:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_is_encrypted_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let config = cubbyhole_embedded::Config::new(&path);
    let backend: Arc<dyn Backend> = Arc::new(EmbeddedStore::open(&ctx(), config).await.unwrap());
    encrypt_in_place(Arc::clone(&backend)).await;
    // Compaction removes the former values from the free pages of the file.
    backend.compact(&ctx()).await.unwrap();
    backend.close(&ctx()).await.unwrap();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let plain = bytes.windows(PLAINTEXT.len()).any(|window| window == PLAINTEXT.as_bytes());
        assert!(!plain, "the file has plaintext");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_encrypted_in_place() {
    let server = block_in_place(PostgresServer::start).unwrap();
    let admin = cubbyhole_postgres::Config::from_url(server.url()).unwrap();
    let admin = admin.with_schema("state").unwrap();
    cubbyhole_postgres::migrate(&ctx(), &admin).await.unwrap();
    let login = format!("CREATE ROLE login LOGIN PASSWORD '{PASSWORD}' IN ROLE state_app");
    block_in_place(|| server.psql(&login)).unwrap();
    let port = server.port();
    let url = format!("postgres://login:{PASSWORD}@127.0.0.1:{port}/postgres?schema=state");
    let config = cubbyhole_postgres::Config::from_url(&url).unwrap();
    let backend = Arc::new(PostgresStore::open(&ctx(), config).await.unwrap());
    encrypt_in_place(backend).await;
    let plain = format!(
        "SELECT count(*) FROM state.entries WHERE position('{PLAINTEXT}'::bytea IN value) > 0"
    );
    assert_eq!(block_in_place(|| server.psql(&plain)).unwrap(), "0");
    let all = block_in_place(|| server.psql("SELECT count(*) > 0 FROM state.entries")).unwrap();
    assert_eq!(all, "t", "the role sees no row, so the check proves nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_encrypted_in_place() {
    let server = block_in_place(RedisServer::start).unwrap();
    let config = cubbyhole_redis::Config::from_url(server.url()).unwrap();
    encrypt_in_place(Arc::new(RedisStore::open(&ctx(), config).await.unwrap())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_cluster_is_encrypted_in_place() {
    let cluster = block_in_place(RedisCluster::start).unwrap();
    let config = cubbyhole_redis::Config::from_url(cluster.url()).unwrap();
    encrypt_in_place(Arc::new(RedisStore::open(&ctx(), config).await.unwrap())).await;
}
