//! Erasing in bounded steps, and the keys that remain afterwards.

use std::time::Duration;

use cubbyhole_core::{Batch, Condition, EntryStore, PutOptions, Store};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{bytes, ctx, ns, tenant, under};

use crate::helpers::{calls_of, cli_number, dump_keys, index_names, open};

/// Namespaces of other tenants with names similar to the erased one.
const OTHERS: [&str; 4] = ["acm", "acme-b:x", "acme2:a", r"acme\:a"];

/// Returns whether a key belongs to the erased tenant.
fn is_own(key: &str) -> bool {
    key.starts_with("p:{acme}") || key.starts_with("p:{acme:")
}

async fn fill(store: &RedisStore) {
    let ttl = PutOptions::new().with_ttl(Duration::from_secs(3600));
    for number in 0..300 {
        let name = ns(&format!("acme:n{number:03}:x"));
        // 5,000 entries in total: 199 × 10 + 100 × 20 + 1,010.
        let count = if number == 0 { 1010 } else { 10 + 10 * usize::from(number >= 200) };
        for first in (0..count).step_by(1000) {
            let put = |batch: Batch<_>, at: usize| match at % 3 {
                0 => batch.put_with(format!("k{at}"), bytes("v"), ttl, Condition::IfAbsent),
                _ => batch.put(format!("k{at}"), bytes("v")),
            };
            let batch = (first..count.min(first + 1000)).fold(Batch::new(), put);
            store.write(&ctx(), &name, batch).await.unwrap();
        }
    }
}

#[tokio::test]
async fn erase_in_steps_removes_a_tenant_and_nothing_else() {
    let server = RedisServer::start().unwrap();
    let store = open(server.url(), "p:").await;
    fill(&store).await;
    let others = open(server.url(), "q:").await;
    for name in OTHERS {
        store.put(&ctx(), &ns(name), "k", bytes("v")).await.unwrap();
    }
    others.put(&ctx(), &ns("acme:n000:x"), "k0", bytes("v")).await.unwrap();
    let mut before = dump_keys(&server, "");
    before.retain(|key, _| !is_own(key));
    let root = before.remove(r"p:{\*}n").unwrap();

    let (mut sum, mut steps) = (0, 0);
    loop {
        let step = store.erase(&ctx(), &under("acme"), 137).await.unwrap();
        assert!(step.removed <= 137, "{step:?}");
        sum += step.removed;
        steps += 1;
        if step.done {
            break;
        }
        assert!(steps < 300, "the erasure does not end");
        let left = store.usage(&ctx(), &under("acme")).await.unwrap();
        assert_eq!(left.entries, 5000 - sum, "the step counted more or fewer than it removed");
    }
    assert_eq!(sum, 5000);
    assert!(steps >= 5000 / 137, "{steps} steps");

    let mut after = dump_keys(&server, "");
    let own: Vec<String> = after.keys().filter(|key| is_own(key)).cloned().collect();
    assert_eq!(own.len(), 300 + 1, "the fences of the namespaces and the tenant");
    for key in own {
        assert!(key.ends_with("}f") || key.ends_with("}g"), "{key} remains");
        let ttl = cli_number(&server, &["PTTL", &key]);
        assert!((1..=600_000).contains(&ttl), "{key} expires in {ttl} ms");
        after.remove(&key);
    }
    assert_ne!(after.remove(r"p:{\*}n").unwrap(), root);
    let touched: Vec<_> = before.keys().chain(after.keys()).collect();
    let touched: Vec<_> =
        touched.into_iter().filter(|key| before.get(*key) != after.get(*key)).collect();
    assert!(touched.is_empty(), "keys of other tenants have changed: {touched:?}");
    assert_eq!(index_names(&server, r"p:{\*}n"), ["acm", "acme-b", "acme2", r"acme\:a"]);
    let tenants = store.scan_tenants(&ctx(), None, 10).await.unwrap();
    let expected = [tenant("acm"), tenant("acme-b"), tenant("acme2"), tenant("acme:a")];
    assert_eq!(tenants.items, expected);

    // Values are removed with UNLINK, registrations with DEL.
    assert!(calls_of(&server, "unlink") >= 300);
    assert_eq!(calls_of(&server, "del"), 300 + 1);

    // A second erasure removes nothing, and a put registers the tenant again.
    let step = store.erase(&ctx(), &under("acme"), 1).await.unwrap();
    assert!(step.done && step.removed == 0);
    store.put(&ctx(), &ns("acme:n000:x"), "k", bytes("new")).await.unwrap();
    assert_eq!(store.list(&ctx(), &ns("acme:n000:x"), None).await.unwrap(), ["k"]);
    let names = store.list_namespaces(&ctx(), &under("acme")).await.unwrap();
    assert_eq!(names, [ns("acme:n000:x")]);
}

#[tokio::test]
async fn erase_of_a_prefix_keeps_the_rest_of_the_tenant() {
    let server = RedisServer::start().unwrap();
    let store = open(server.url(), "p:").await;
    for name in ["acme", "acme:a", "acme:a:b", "acme:a-b", "acme:ab", r"acme:a\:b"] {
        store.put(&ctx(), &ns(name), "k", bytes("v")).await.unwrap();
        store.put(&ctx(), &ns(name), "l", bytes("v")).await.unwrap();
    }
    let mut sum = 0;
    loop {
        let step = store.erase(&ctx(), &under("acme:a"), 1).await.unwrap();
        sum += step.removed;
        if step.done {
            break;
        }
    }
    assert_eq!(sum, 4);
    let left = ["acme", "acme:a-b", r"acme:a\:b", "acme:ab"].map(ns);
    assert_eq!(store.list_namespaces(&ctx(), &under("acme")).await.unwrap(), left);
    assert_eq!(
        index_names(&server, "p:{acme}n"),
        ["", "acme", "acme:a-b", r"acme:a\:b", "acme:ab"]
    );
    assert_eq!(store.usage(&ctx(), &under("acme")).await.unwrap().entries, 8);
}
