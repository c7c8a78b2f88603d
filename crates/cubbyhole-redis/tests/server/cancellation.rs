//! The caller's deadline and cancellation, where the server or the way to it hangs.

use std::time::Duration;

use cubbyhole_core::{
    Batch, CancellationToken, Condition, EntryStore, Error, ErrorKind, ExecutionContext, Expiry,
    GetOptions, PutOptions, Result, ScanOptions, Store, Version,
};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{PATIENCE, bytes, ctx, ns, tenant, under, until};
use tokio::task::JoinSet;

use crate::by_hand::{cli, config, new_prefix, open, shared};
use crate::proxy::{Gate, Proxy, is_write};

const WRITES: usize = 7;
const READS: usize = 8;

/// Every call, of which the first [`WRITES`] write.
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
        4 => store.touch(context, &acme, "e", Expiry::Never).await.map(drop),
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
        9 => store.get_many(context, &acme, &["i", "j"]).await.map(drop),
        10 => store.list(context, &acme, None).await.map(drop),
        11 => store.scan(context, &acme, ScanOptions::new()).await.map(drop),
        12 => store.scan_namespaces(context, &under("acme"), None, 10).await.map(drop),
        13 => store.scan_tenants(context, None, 10).await.map(drop),
        _ => store.usage(context, &under("acme")).await.map(drop),
    }
}

/// Makes every call at once with a deadline, and checks what each is told.
async fn all_end(store: &RedisStore, sent: bool) {
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
async fn calls_to_a_paused_server_end_with_their_contexts_and_it_goes_on() {
    let server = RedisServer::start().unwrap();
    let store = open(server.url(), "p:").await;
    store.put(&ctx(), &ns("acme"), "held", bytes("old")).await.unwrap();
    let id = |list: String| list.lines().next().unwrap().split(' ').next().unwrap().to_owned();
    let before = id(cli(&server, &["CLIENT", "LIST"]));
    server.pause().unwrap();
    all_end(&store, true).await;
    server.resume().unwrap();
    assert_eq!(store.get(&ctx(), &ns("acme"), "held").await.unwrap(), Some(bytes("old")));
    // What was sent is done after all, each once and whole.
    assert_eq!(store.get(&ctx(), &ns("acme"), "a").await.unwrap(), Some(bytes("new")));
    assert_eq!(store.get(&ctx(), &ns("acme"), "f").await.unwrap(), Some(bytes("new")));
    let clients = cli(&server, &["CLIENT", "LIST"]);
    assert_eq!(clients.lines().count(), 2, "{clients}");
    assert_eq!(id(clients), before, "the connection is another");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_through_a_silent_network_end_with_their_contexts_and_it_goes_on() {
    let proxy = Proxy::before(shared()).await;
    let store = open(&proxy.url(), &new_prefix()).await;
    store.put(&ctx(), &ns("acme"), "held", bytes("old")).await.unwrap();
    proxy.be_silent(true);
    all_end(&store, true).await;
    proxy.be_silent(false);
    assert_eq!(store.get(&ctx(), &ns("acme"), "held").await.unwrap(), Some(bytes("old")));
    assert_eq!(store.get(&ctx(), &ns("acme"), "a").await.unwrap(), Some(bytes("new")));
    assert_eq!(proxy.connections(), 1);
}

/// Waits until the store knows that its connection was reset: a read goes on to a new one.
async fn until_noticed(proxy: &Proxy, store: &RedisStore) {
    let before = proxy.connections();
    until("another connection", async || {
        let early = ctx().with_timeout(Duration::from_millis(50));
        assert!(store.get(&early, &ns("acme"), "held").await.is_err());
        proxy.connections() > before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_connection_was_made_for_has_certainly_no_effect() {
    let proxy = Proxy::before(shared()).await;
    let prefix = new_prefix();
    let store = open(&proxy.url(), &prefix).await;
    // The network takes the connection and says nothing more.
    proxy.be_silent(true);
    proxy.reset_all();
    until_noticed(&proxy, &store).await;
    all_end(&store, false).await;
    proxy.be_silent(false);
    store.put(&ctx(), &ns("acme"), "held", bytes("old")).await.unwrap();
    let direct = open(shared().url(), &prefix).await;
    assert_eq!(direct.list(&ctx(), &ns("acme"), None).await.unwrap(), ["held"]);

    // Nor does a first put whose registration alone was sent.
    proxy.hold_first(|command| command.iter().any(|part| part.starts_with(b"globex")));
    let early = ctx().with_timeout(Duration::from_millis(200));
    let error = store.put(&early, &ns("globex"), "k", bytes("v")).await.unwrap_err();
    assert!(!error.may_have_been_applied(), "{error:?}");
    proxy.release();
    assert_eq!(store.list(&ctx(), &ns("globex"), None).await.unwrap(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_ends_with_its_own_limit_where_the_caller_has_none() {
    let proxy = Proxy::before(shared()).await;
    let prefix = new_prefix();
    let short = config(&proxy.url(), &prefix).with_connect_timeout(Duration::from_millis(200));
    let store = RedisStore::open(&ctx(), short.clone()).await.unwrap();
    proxy.be_silent(true);
    let opened = tokio::time::timeout(PATIENCE / 4, RedisStore::open(&ctx(), short)).await;
    assert_eq!(opened.unwrap().err().unwrap().kind(), ErrorKind::Unavailable);
    proxy.reset_all();
    until_noticed(&proxy, &store).await;
    let never = ExecutionContext::new();
    let acme = ns("acme");
    let put = store.put(&never, &acme, "k", bytes("v"));
    let error = tokio::time::timeout(PATIENCE / 4, put).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.is_retryable() && !error.may_have_been_applied(), "{error:?}");
}

#[tokio::test]
async fn a_context_that_has_ended_sends_nothing() {
    let proxy = Proxy::before(shared()).await;
    let store = open(&proxy.url(), &new_prefix()).await;
    proxy.take_commands();
    let cancelled = ExecutionContext::new();
    cancelled.cancel();
    let late = ExecutionContext::new().with_timeout(Duration::ZERO);
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

/// What is cut off in the middle of an answer, or before it.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_is_repeated_over_a_reset_and_a_write_is_never_sent_twice() {
    let proxy = Proxy::before(shared()).await;
    let prefix = new_prefix();
    let store = open(&proxy.url(), &prefix).await;
    let direct = open(shared().url(), &prefix).await;
    let (acme, long) = (ns("acme"), "x".repeat(30_000));
    direct.put(&ctx(), &acme, "i", bytes(&long)).await.unwrap();
    for gate in [Gate::CutBefore, Gate::CutWithin, Gate::CutAfter] {
        for number in WRITES..WRITES + READS {
            until("a connection", async || store.get(&ctx(), &acme, "i").await.is_ok()).await;
            let (before, mut cuts) = (proxy.connections(), [gate].into_iter());
            proxy.judge(move |_| cuts.next().unwrap_or(Gate::Pass));
            call(&store, &ctx(), number).await.unwrap();
            assert_eq!(proxy.connections(), before + 1, "{gate:?} {number}: it was not cut");
        }
        assert_eq!(store.get(&ctx(), &acme, "i").await.unwrap(), Some(bytes(&long)));

        for number in 0..6 {
            let key = format!("{gate:?} {number}");
            until("a connection", async || store.get(&ctx(), &acme, "i").await.is_ok()).await;
            proxy.take_commands();
            // The connection's own commands are let pass.
            let mut is_over = false;
            proxy.judge(move |command| {
                if is_over || !is_write(command) {
                    return Gate::Pass;
                }
                is_over = true;
                gate
            });
            let version = Version::draw();
            let options = PutOptions::new().with_version(version);
            let absent = Condition::IfAbsent;
            let put = store.put_entry(&ctx(), &acme, &key, bytes("v"), options, absent).await;
            let error = put.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
            assert!(error.may_have_been_applied() && !error.is_retryable(), "{error:?}");
            // What became of it can be told by its version.
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
