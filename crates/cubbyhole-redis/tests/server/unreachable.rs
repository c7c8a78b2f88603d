//! A server that does not answer, and a server whose address another server has taken over.

use std::time::Duration;

use cubbyhole_core::{ErrorKind, ExecutionContext, Store};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{bytes, ctx, ns, until};
use futures_util::future::join_all;

use crate::helpers::{cli, config, open};
use crate::proxy::RedisProxy;

const CALLERS: usize = 60;

#[tokio::test]
async fn callers_of_a_silent_server_share_connection_attempts() {
    let server = RedisServer::start().unwrap();
    let proxy = RedisProxy::start(&server).await;
    let config = config(&proxy.url(), "p:").with_connect_timeout(Duration::from_millis(500));
    let store = RedisStore::open(&ctx(), config).await.unwrap();
    store.put(&ctx(), &ns("acme"), "k", bytes("v")).await.unwrap();
    proxy.be_silent(true);
    proxy.reset_all();
    until("the connection to close", async || proxy.open_connections() == 0).await;
    let before = proxy.connections();
    // If each caller made its own attempt, the last one would wait for half a minute.
    let limit = ExecutionContext::new().with_timeout(Duration::from_secs(15));
    let name = ns("acme");
    let calls = (0..CALLERS).map(|_| store.get(&limit, &name, "k"));
    for answer in join_all(calls).await {
        let error = answer.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.is_retryable() && !error.may_have_been_applied(), "{error:?}");
    }
    // All callers share the result of one attempt, or of a few.
    assert!(proxy.connections() - before < 5, "{} attempts", proxy.connections() - before);
    // A later caller starts a new attempt.
    proxy.be_silent(false);
    assert_eq!(store.get(&ctx(), &name, "k").await.unwrap(), Some(bytes("v")));
}

#[tokio::test]
async fn store_reconnects_when_its_server_becomes_a_replica() {
    let (old, new) = (RedisServer::start().unwrap(), RedisServer::start().unwrap());
    let proxy = RedisProxy::start(&old).await;
    let store = open(&proxy.url(), "p:").await;
    let name = ns("acme");
    store.put(&ctx(), &name, "k", bytes("old")).await.unwrap();
    // The old master does not close the connections of its clients.
    proxy.lead_to(&new);
    cli(&old, &["REPLICAOF", "127.0.0.1", &new.port().to_string()]);
    store.put(&ctx(), &name, "k", bytes("new")).await.unwrap();
    assert_eq!(store.get(&ctx(), &name, "k").await.unwrap(), Some(bytes("new")));
    assert_eq!(open(new.url(), "p:").await.list(&ctx(), &name, None).await.unwrap(), ["k"]);
}
