//! The cost of a hit, compared with a bare moka cache.

use std::hint::black_box;
use std::time::{Duration, Instant};

use cubbyhole_core::{Bytes, ExecutionContext, Namespace, Store};
use cubbyhole_memory::InMemoryStore;
use moka::sync::Cache;

use crate::cached::entries::borrowed;
use crate::cached::location::{BuildStoredHash, OwnedLocation};
use crate::cached::{CacheOptions, Cached};

const CALLS: u32 = 1_000_000;
const ROUNDS: usize = 15;

#[expect(clippy::disallowed_methods, reason = "a measurement")]
fn now() -> Instant {
    Instant::now()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_nanos() as f64 / f64::from(CALLS)
}

#[tokio::test]
#[ignore = "a measurement: run it with --release and --nocapture"]
#[expect(clippy::disallowed_macros, reason = "shows a measurement")]
async fn hit_beside_bare_moka() {
    let ctx = ExecutionContext::new();
    let ns = Namespace::parse("acme:agent-7").unwrap();
    let value = Bytes::from(vec![1; 100]);
    let options = CacheOptions::new().with_max_stale(Duration::from_secs(3600));
    let layer = Cached::new(InMemoryStore::<Bytes>::new(), options).unwrap();
    let same_key: Cache<OwnedLocation, Bytes, BuildStoredHash> =
        Cache::builder().max_capacity(100_000).build_with_hasher(BuildStoredHash::default());
    let text_key: Cache<String, Bytes> = Cache::new(100_000);

    for distinct in [1, 1_000] {
        let keys: Vec<String> = (0..distinct).map(|n| format!("session-{n}")).collect();
        for key in &keys {
            layer.put(&ctx, &ns, key, value.clone()).await.unwrap();
            layer.get(&ctx, &ns, key).await.unwrap();
            same_key.insert(layer.entries.location(&ns, key).to_owned(), value.clone());
            text_key.insert(key.clone(), value.clone());
        }
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            let calls = || keys.iter().cycle().take(CALLS as usize);
            let start = now();
            for key in calls() {
                black_box(layer.get(&ctx, black_box(&ns), black_box(key)).await.unwrap());
            }
            times[0].push(start.elapsed());
            let start = now();
            for key in calls() {
                let location = layer.entries.location(black_box(&ns), black_box(key));
                black_box(same_key.get(borrowed(&location)));
            }
            times[1].push(start.elapsed());
            let start = now();
            for key in calls() {
                black_box(text_key.get(black_box(key.as_str())));
            }
            times[2].push(start.elapsed());
        }
        let paired = times[0].iter().zip(&times[1]).map(|(a, b)| b.as_secs_f64() / a.as_secs_f64());
        let mut paired: Vec<f64> = paired.collect();
        paired.sort_by(f64::total_cmp);
        let ratio = paired[ROUNDS / 2];
        let [layer, same, text] = times.map(median);
        println!(
            "{distinct} keys: layer {layer:.0} ns, moka {same:.0} ns, moka of String {text:.0} ns; \
             throughput {ratio:.2} of moka"
        );
    }
}
