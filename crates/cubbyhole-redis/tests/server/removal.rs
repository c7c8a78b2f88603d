//! Sweeps and erasures while one namespace is damaged. The other namespaces are processed, and the
//! error reports whether anything was removed.

use std::time::Duration;

use cubbyhole_core::{EntryStore, Error, ErrorKind, PutOptions, Store};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{bytes, ctx, ns, under, until, within};

use crate::helpers::{new_prefix, open, replace_with_list, shared_server};
use crate::proxy::{RedisProxy, script_keys};

/// Damages a namespace: replaces its key of that kind with a list.
fn damage(server: &RedisServer, prefix: &str, name: &str, kind: &str) {
    replace_with_list(server, &format!("{prefix}{{{name}}}{kind}"));
}

async fn fill(store: &RedisStore, names: &[&str], count: usize, options: PutOptions) {
    for name in names {
        for key in 0..count {
            let key = format!("k{key}");
            store.put_with_options(&ctx(), &ns(name), &key, bytes("v"), options).await.unwrap();
        }
    }
}

#[tokio::test]
async fn damaged_namespace_does_not_block_the_sweep_of_others() {
    let (server, prefix) = (shared_server(), new_prefix());
    let store = open(server.url(), &prefix).await;
    let names = ["aa:m", "aa:n", "aa:o", "bb:n", "cc"];
    fill(&store, &names, 2, PutOptions::new().with_ttl(Duration::from_millis(1))).await;
    damage(server, &prefix, "aa:n", "x");
    let expired = async |name: &str| store.usage(&ctx(), &under(name)).await.unwrap().expired;
    until("the entries to expire", async || expired("cc").await == 2).await;
    let error = store.evict_expired(&ctx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert!(error.may_have_been_applied(), "eight entries were removed: {error:?}");
    for name in ["aa:m", "aa:o", "bb:n", "cc"] {
        assert_eq!(expired(name).await, 0, "{name}");
    }
    // The second sweep removes nothing, and its error says so.
    let error = store.evict_expired(&ctx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert!(!error.may_have_been_applied(), "{error:?}");
}

#[tokio::test]
async fn damaged_namespace_does_not_block_the_erasure_of_others() {
    let (server, prefix) = (shared_server(), new_prefix());
    let store = open(server.url(), &prefix).await;
    let names = ["t", "t:a", "t:b", "t:c", "t:d"];
    fill(&store, &names, 7, PutOptions::new()).await;
    damage(server, &prefix, "t:a", "m");
    damage(server, &prefix, "t:c", "k");
    // The limit of a step is smaller than one namespace.
    let mut removed = 0;
    let error: Error = loop {
        match store.erase(&ctx(), &under("t"), 3).await {
            Ok(step) => {
                assert!(!step.done && (1..=3).contains(&step.removed), "{step:?}");
                removed += step.removed;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert!(!error.may_have_been_applied(), "{error:?}");
    assert_eq!(removed, 21);
    for name in ["t", "t:b", "t:d"] {
        assert!(store.list(&ctx(), &ns(name), None).await.unwrap().is_empty(), "{name}");
    }
    for key in 0..7 {
        let value = store.get(&ctx(), &ns("t:a"), &format!("k{key}")).await.unwrap();
        assert_eq!(value, Some(bytes("v")), "the damaged namespace was partly erased");
    }
}

#[tokio::test]
async fn interrupted_erasure_reports_an_unknown_outcome() {
    let (server, prefix) = (shared_server(), new_prefix());
    let proxy = RedisProxy::start(server).await;
    let store = open(&proxy.url(), &prefix).await;
    fill(&store, &["t:a", "t:b"], 2, PutOptions::new()).await;
    // The first namespace fails immediately, while the request of the second is in flight.
    damage(server, &prefix, "t:a", "m");
    proxy.hold_first(|command| {
        let keys = script_keys(command);
        keys.len() > 4 && keys[3].ends_with("{t:b}f")
    });
    let error = store.erase(&within(3000), &under("t"), 1000).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error:?}");
    assert!(error.may_have_been_applied(), "{error:?}");
    proxy.release();
    until("the erasure", async || store.list(&ctx(), &ns("t:b"), None).await.unwrap().is_empty())
        .await;
}
