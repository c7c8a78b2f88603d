//! The limit in bytes, with values of 1 byte to 16 MiB.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use cubbyhole_core::{
    Bytes, Entry, EntryMeta, EntryStore, Error, ExecutionContext, GetOptions, Namespace,
    PutOptions, Result, Store, Timestamp, Version, async_trait,
};

use crate::cached::{CacheOptions, Cached};

const MIB: usize = 1024 * 1024;

/// A store that has every key. All values are slices of one buffer, so it takes no memory for them.
struct Generator {
    buffer: Bytes,
    version: Version,
    offline: AtomicBool,
}

impl Generator {
    fn new() -> Arc<Self> {
        let buffer = Bytes::from(vec![1; 16 * MIB]);
        Arc::new(Self { buffer, version: Version::draw(), offline: AtomicBool::new(false) })
    }
}

/// One value of 10,000 has up to 16 MiB, one of 100 up to 64 KiB, the others up to 256 bytes.
fn value_bytes(n: u64) -> usize {
    let mut random = fastrand::Rng::with_seed(n);
    match n {
        _ if n.is_multiple_of(10_000) => random.usize(MIB..=16 * MIB),
        _ if n.is_multiple_of(100) => random.usize(1..=64 * 1024),
        _ => random.usize(1..=256),
    }
}

#[async_trait]
impl EntryStore<Bytes> for Generator {
    async fn get_entry(
        &self,
        _: &ExecutionContext,
        _: &Namespace,
        key: &str,
        _: GetOptions,
    ) -> Result<Option<Entry<Bytes>>> {
        if self.offline.load(SeqCst) {
            return Err(Error::unavailable("offline"));
        }
        let value = self.buffer.slice(..value_bytes(key.parse().unwrap()));
        let (version, created_at) = (self.version, Timestamp::EPOCH);
        let meta = EntryMeta {
            version,
            created_at,
            updated_at: created_at,
            expires_at: None,
            idle_ttl: None,
        };
        Ok(Some(Entry { value, meta }))
    }
}

#[async_trait]
impl Store<Bytes> for Generator {
    async fn put_with_options(
        &self,
        _: &ExecutionContext,
        _: &Namespace,
        _: &str,
        _: Bytes,
        _: PutOptions,
    ) -> Result<()> {
        Ok(())
    }

    async fn get(&self, _: &ExecutionContext, _: &Namespace, _: &str) -> Result<Option<Bytes>> {
        unreachable!("the cache calls `get_entry`")
    }

    async fn delete(&self, _: &ExecutionContext, _: &Namespace, _: &str) -> Result<()> {
        Ok(())
    }

    async fn list(
        &self,
        _: &ExecutionContext,
        _: &Namespace,
        _: Option<&str>,
    ) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// Reads `keys` keys through a cache, and checks the cached bytes and the served bytes.
async fn check_limit(keys: u64, limit: u64) -> u64 {
    let ctx = ExecutionContext::new();
    let ns = Namespace::parse("acme:agent-7").unwrap();
    let inner = Generator::new();
    let options = CacheOptions::new().with_bytes(limit).with_max_stale(std::time::Duration::MAX);
    let layer = Cached::new(Arc::clone(&inner), options).unwrap();
    for n in 0..keys {
        layer.get(&ctx, &ns, &n.to_string()).await.unwrap();
        let (bytes, _) = layer.entries.size();
        assert!(bytes <= limit + limit / 8, "{bytes} bytes after {n} keys");
    }
    layer.entries.evict();
    let (bytes, entries) = layer.entries.size();
    assert!(bytes <= limit, "{bytes} bytes are cached");

    inner.offline.store(true, SeqCst);
    let (mut served_bytes, mut served) = (0, 0);
    for n in 0..keys {
        let key = n.to_string();
        if let Ok(Some(value)) = layer.get(&ctx, &ns, &key).await {
            served += 1;
            served_bytes += (ns.as_str().len() + key.len() + value.len()) as u64;
        }
    }
    assert_eq!(served, entries, "the entries that are served");
    assert!(served_bytes <= limit, "{served_bytes} bytes are served");
    assert!(served_bytes * 4 >= limit, "only {served_bytes} bytes are served");
    served_bytes
}

#[tokio::test]
async fn cache_stays_below_its_limit() {
    check_limit(80_000, 128 * MIB as u64).await;
}

fn memory_line(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
#[ignore = "takes a minute without optimization; shows the peak memory of the process"]
#[expect(clippy::disallowed_macros, reason = "shows a measurement")]
async fn cache_of_256_mib_stays_below_its_limit_with_a_million_keys() {
    let before = memory_line("VmRSS");
    let served = check_limit(1_000_000, 256 * MIB as u64).await / 1024;
    let peak = memory_line("VmHWM");
    println!("{before} KiB before, {peak} KiB at the peak, {served} KiB served at the end");
}

#[tokio::test]
#[ignore = "shows the memory of a small entry, from which the overhead is set"]
#[expect(clippy::disallowed_macros, reason = "shows a measurement")]
async fn overhead_of_a_small_entry() {
    let ctx = ExecutionContext::new();
    let inner = Generator::new();
    let options = CacheOptions::new().with_bytes(4 << 30);
    let layer = Cached::new(inner, options).unwrap();
    let before = memory_line("VmRSS");
    let keys = (1..1_000_000_u64).filter(|n| !n.is_multiple_of(100));
    for n in keys {
        // Each read allocates its namespace, as a program does that parses it.
        let ns = Namespace::parse("acme:agent-7").unwrap();
        layer.get(&ctx, &ns, &n.to_string()).await.unwrap();
    }
    layer.entries.evict();
    let used = (memory_line("VmRSS") - before) * 1024;
    let (bytes, entries) = layer.entries.size();
    println!("{} bytes used and {} counted per entry", used / entries, bytes / entries);
}
