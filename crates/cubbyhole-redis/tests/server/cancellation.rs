//! Deadlines and cancellation while the server or the network hangs.

use std::time::Duration;

use cubbyhole_core::{
    Batch, CancellationToken, Condition, EntryStore, Error, ErrorKind, ExecutionContext, Expiry,
    GetOptions, PutOptions, Result, ScanOptions, Store, Version,
};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{PATIENCE, bytes, ctx, ns, tenant, under, until, within};
use tokio::task::JoinSet;

use crate::helpers::{client_ids, config, new_prefix, open, shared_server};
use crate::proxy::{Gate, ProxiedStore, RedisProxy, is_write};

const WRITES: usize = 7;
const READS: usize = 8;

/// Makes the call with that number. The first [`WRITES`] calls write.
async fn call(store: &RedisStore, context: &ExecutionContext, number: usize) -> Result<()> {
    let (acme, options) = (ns("acme"), PutOptions::new());
    match number {
        0 => store.put(context, &acme, "a", bytes("new")).await,
        1 => {
            let at = Condition::IfAbsent;
            store.put_entry(context, &acme, "b", bytes("new"), options, at).await.map(drop)
        }
        2 => store.delete(context, &acme, "c").await,
        3 => store.take(context, &acme, "d").await.map(drop),
        4 => store.touch(context, &acme, "e", Expiry::Never, Condition::Always).await.map(drop),
        5 => {
            let batch = Batch::new().put("f", bytes("new")).delete("g");
            store.write(context, &acme, batch).await.map(drop)
        }
        6 => {
            let slide = GetOptions::new().with_extended_ttl(Duration::from_secs(60));
            store.get_entry(context, &acme, "h", slide).await.map(drop)
        }
        7 => store.get(context, &acme, "i").await.map(drop),
        8 => store.get_entry(context, &acme, "i", GetOptions::new()).await.map(drop),
        9 => store.get_many(context, &acme, &["i", "j"], GetOptions::new()).await.map(drop),
        10 => store.list(context, &acme, None).await.map(drop),
        11 => store.scan(context, &acme, ScanOptions::new()).await.map(drop),
        12 => store.scan_namespaces(context, &under("acme"), None, 10).await.map(drop),
        13 => store.scan_tenants(context, None, 10).await.map(drop),
        _ => store.usage(context, &under("acme")).await.map(drop),
    }
}

/// Makes all calls concurrently, each with a deadline or a cancellation. Asserts that each call
/// ends with its context. Its outcome is unknown only if it writes and was `sent`.
async fn check_all_end(store: &RedisStore, sent: bool) {
    let mut calls = JoinSet::new();
    for number in 0..WRITES + READS {
        let store = store.clone();
        calls.spawn(async move {
            let token = CancellationToken::new();
            let context = ExecutionContext::new().with_cancellation(token.clone());
            let early = Duration::from_millis(200);
            if number % 2 == 0 {
                return (number, call(&store, &context.with_timeout(early), number).await);
            }
            let never_ends = ctx();
            let (answer, slept) = tokio::join!(call(&store, &context, number), async {
                let slept = never_ends.sleep(early).await;
                token.cancel();
                slept
            });
            slept.unwrap();
            (number, answer)
        });
    }
    for (number, answer) in tokio::time::timeout(PATIENCE / 4, calls.join_all()).await.unwrap() {
        let error = answer.unwrap_err();
        let kinds = [ErrorKind::DeadlineExceeded, ErrorKind::Cancelled];
        assert_eq!(error.kind(), kinds[number % 2], "{number}: {error:?}");
        let unknown = sent && number < WRITES;
        assert_eq!(error.may_have_been_applied(), unknown, "{number}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_to_a_paused_server_end_with_their_contexts() {
    let server = RedisServer::start().unwrap();
    let store = open(server.url(), "p:").await;
    store.put(&ctx(), &ns("acme"), "held", bytes("old")).await.unwrap();
    let before = client_ids(&server);
    server.pause().unwrap();
    check_all_end(&store, true).await;
    server.resume().unwrap();
    assert_eq!(store.get(&ctx(), &ns("acme"), "held").await.unwrap(), Some(bytes("old")));
    // The server still applies the writes that it received.
    assert_eq!(store.get(&ctx(), &ns("acme"), "a").await.unwrap(), Some(bytes("new")));
    assert_eq!(store.get(&ctx(), &ns("acme"), "f").await.unwrap(), Some(bytes("new")));
    assert_eq!(client_ids(&server), before[..1], "the connection was replaced");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_through_a_silent_network_end_with_their_contexts() {
    let proxy = RedisProxy::start(shared_server()).await;
    let store = open(&proxy.url(), &new_prefix()).await;
    store.put(&ctx(), &ns("acme"), "held", bytes("old")).await.unwrap();
    proxy.be_silent(true);
    check_all_end(&store, true).await;
    proxy.be_silent(false);
    assert_eq!(store.get(&ctx(), &ns("acme"), "held").await.unwrap(), Some(bytes("old")));
    assert_eq!(store.get(&ctx(), &ns("acme"), "a").await.unwrap(), Some(bytes("new")));
    assert_eq!(proxy.connections(), 1);
}

/// Waits until the store has noticed a reset, and a read has opened a new connection.
async fn until_reconnecting(proxy: &RedisProxy, store: &RedisStore) {
    let before = proxy.connections();
    until("a new connection", async || {
        assert!(store.get(&within(50), &ns("acme"), "held").await.is_err());
        proxy.connections() > before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn call_without_a_connection_has_no_effect() {
    let ProxiedStore { proxy, store, direct, .. } = ProxiedStore::open(shared_server()).await;
    // The network accepts the connection, but never answers.
    proxy.be_silent(true);
    proxy.reset_all();
    until_reconnecting(&proxy, &store).await;
    check_all_end(&store, false).await;
    proxy.be_silent(false);
    store.put(&ctx(), &ns("acme"), "held", bytes("old")).await.unwrap();
    assert_eq!(direct.list(&ctx(), &ns("acme"), None).await.unwrap(), ["held"]);

    // A first put has no effect if only its registration was sent.
    proxy.hold_first(|command| command.iter().any(|part| part.starts_with(b"globex")));
    let error = store.put(&within(200), &ns("globex"), "k", bytes("v")).await.unwrap_err();
    assert!(!error.may_have_been_applied(), "{error:?}");
    proxy.release();
    assert_eq!(store.list(&ctx(), &ns("globex"), None).await.unwrap(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_timeout_applies_without_a_deadline() {
    let proxy = RedisProxy::start(shared_server()).await;
    let prefix = new_prefix();
    let short = config(&proxy.url(), &prefix).with_connect_timeout(Duration::from_millis(200));
    let store = RedisStore::open(&ctx(), short.clone()).await.unwrap();
    proxy.be_silent(true);
    let opened = tokio::time::timeout(PATIENCE / 4, RedisStore::open(&ctx(), short)).await;
    assert_eq!(opened.unwrap().err().unwrap().kind(), ErrorKind::Unavailable);
    proxy.reset_all();
    until_reconnecting(&proxy, &store).await;
    let unlimited = ExecutionContext::new();
    let acme = ns("acme");
    let put = store.put(&unlimited, &acme, "k", bytes("v"));
    let error = tokio::time::timeout(PATIENCE / 4, put).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.is_retryable() && !error.may_have_been_applied(), "{error:?}");
}

#[tokio::test]
async fn ended_context_sends_no_command() {
    let proxy = RedisProxy::start(shared_server()).await;
    let store = open(&proxy.url(), &new_prefix()).await;
    proxy.take_commands();
    let cancelled = ExecutionContext::new();
    cancelled.cancel();
    let late = within(0);
    for number in 0..WRITES + READS {
        for (context, kind) in
            [(&cancelled, ErrorKind::Cancelled), (&late, ErrorKind::DeadlineExceeded)]
        {
            let error = call(&store, context, number).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{number}");
            assert!(!error.may_have_been_applied(), "{number}");
        }
    }
    for ended in [store.evict_expired(&late).await.err(), {
        store.erase(&late, &under("acme"), 10).await.err()
    }] {
        assert_eq!(ended.as_ref().map(Error::kind), Some(ErrorKind::DeadlineExceeded));
    }
    assert_eq!(proxy.take_commands(), Vec::<Vec<Vec<u8>>>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_retried_after_a_reset_and_writes_are_not() {
    let ProxiedStore { proxy, store, direct, .. } = ProxiedStore::open(shared_server()).await;
    let (acme, long) = (ns("acme"), "x".repeat(30_000));
    direct.put(&ctx(), &acme, "i", bytes(&long)).await.unwrap();
    for gate in [Gate::CutBefore, Gate::CutWithin, Gate::CutAfter] {
        for number in WRITES..WRITES + READS {
            until("a connection", async || store.get(&ctx(), &acme, "i").await.is_ok()).await;
            let (before, mut cuts) = (proxy.connections(), [gate].into_iter());
            proxy.set_rule(move |_| cuts.next().unwrap_or(Gate::Pass));
            call(&store, &ctx(), number).await.unwrap();
            assert_eq!(proxy.connections(), before + 1, "{gate:?} {number}: no reset");
        }
        assert_eq!(store.get(&ctx(), &acme, "i").await.unwrap(), Some(bytes(&long)));

        for number in 0..6 {
            let key = format!("{gate:?} {number}");
            until("a connection", async || store.get(&ctx(), &acme, "i").await.is_ok()).await;
            proxy.take_commands();
            proxy.stop_first(gate, is_write);
            let version = Version::draw();
            let options = PutOptions::new().with_version(version);
            let absent = Condition::IfAbsent;
            let put = store.put_entry(&ctx(), &acme, &key, bytes("v"), options, absent).await;
            let error = put.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
            assert!(error.may_have_been_applied() && !error.is_retryable(), "{error:?}");
            // The version shows whether the write was applied.
            let found = store.get_entry(&ctx(), &acme, &key, GetOptions::new()).await.unwrap();
            let applied = gate != Gate::CutBefore;
            assert_eq!(found.map(|found| found.meta.version), applied.then_some(version));
            let sent = proxy.take_commands();
            let writes = sent.iter().filter(|command| is_write(command)).count();
            assert_eq!(writes, 1, "{gate:?}: the write was sent again");
        }
    }
    let page = store.scan_tenants(&ctx(), None, 10).await.unwrap();
    assert_eq!(page.items, [tenant("acme")]);
}
