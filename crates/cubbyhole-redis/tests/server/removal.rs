//! Sweeping and erasing where one namespace cannot be worked on: the others are, and what was done
//! is told.

use std::time::Duration;

use cubbyhole_core::{EntryStore, Error, ErrorKind, ExecutionContext, PutOptions, Store};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{bytes, ctx, ns, under, until};

use crate::by_hand::{cli, new_prefix, open, shared};
use crate::proxy::{Proxy, script_keys};

/// Replaces a key of a namespace as another program might.
fn spoil(server: &RedisServer, prefix: &str, name: &str, kind: &str) {
    let key = format!("{prefix}{{{name}}}{kind}");
    cli(server, &["DEL", &key]);
    cli(server, &["LPUSH", &key, "anothers"]);
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
async fn a_namespace_that_cannot_be_swept_keeps_no_other_from_it() {
    let (server, prefix) = (shared(), new_prefix());
    let store = open(server.url(), &prefix).await;
    let names = ["aa:m", "aa:n", "aa:o", "bb:n", "cc"];
    fill(&store, &names, 2, PutOptions::new().with_ttl(Duration::from_millis(1))).await;
    spoil(server, &prefix, "aa:n", "x");
    let expired = async |name: &str| store.usage(&ctx(), &under(name)).await.unwrap().expired;
    until("the end of them", async || expired("cc").await == 2).await;
    let error = store.evict_expired(&ctx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert!(error.may_have_been_applied(), "eight were removed: {error:?}");
    for name in ["aa:m", "aa:o", "bb:n", "cc"] {
        assert_eq!(expired(name).await, 0, "{name}");
    }
    // The next time nothing is left to remove, and it is told as certainly.
    let error = store.evict_expired(&ctx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert!(!error.may_have_been_applied(), "{error:?}");
}

#[tokio::test]
async fn a_namespace_that_cannot_be_erased_keeps_no_other_from_it() {
    let (server, prefix) = (shared(), new_prefix());
    let store = open(server.url(), &prefix).await;
    let names = ["t", "t:a", "t:b", "t:c", "t:d"];
    fill(&store, &names, 7, PutOptions::new()).await;
    spoil(server, &prefix, "t:a", "m");
    spoil(server, &prefix, "t:c", "k");
    // Steps that one of them alone would use up.
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
        assert_eq!(value, Some(bytes("v")), "half of it is gone");
    }
}

#[tokio::test]
async fn a_removal_that_ends_under_way_tells_that_it_may_have_had_an_effect() {
    let (server, prefix) = (shared(), new_prefix());
    let proxy = Proxy::before(server).await;
    let store = open(&proxy.url(), &prefix).await;
    fill(&store, &["t:a", "t:b"], 2, PutOptions::new()).await;
    // The first is refused at once, while the second is under way.
    spoil(server, &prefix, "t:a", "m");
    proxy.hold_first(|command| {
        let keys = script_keys(command);
        keys.len() > 4 && keys[3].ends_with("{t:b}f")
    });
    let limit = ExecutionContext::new().with_timeout(Duration::from_secs(3));
    let error = store.erase(&limit, &under("t"), 1000).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error:?}");
    assert!(error.may_have_been_applied(), "{error:?}");
    proxy.release();
    until("the end of it", async || store.list(&ctx(), &ns("t:b"), None).await.unwrap().is_empty())
        .await;
}
