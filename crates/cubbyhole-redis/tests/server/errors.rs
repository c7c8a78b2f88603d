//! Errors of the server. Each has the right kind and no effect, and shows no password and no value.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use cubbyhole_core::{
    Batch, Condition, EntryStore, Error, ErrorKind, ExecutionContext, Expiry, PutOptions, Store,
};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{PASSWORD, PATIENCE, bytes, ctx, ns, pause, shown, until};

use crate::helpers::{cli, config, keys, new_prefix, open, used_memory};

/// A value that no message may contain.
const VALUE: &str = "the-V4lue-itself";

/// Asserts the kind and text of an error that had no effect and shows no secret.
fn check(error: &Error, kind: ErrorKind, says: &str) {
    let text = shown(error);
    assert_eq!(error.kind(), kind, "{text}");
    assert!(text.contains(says), "{says:?} is not in {text}");
    assert!(!text.contains(PASSWORD) && !text.contains(VALUE), "{text}");
    assert!(!error.may_have_been_applied(), "{text}");
}

async fn refusal_to_open(url: &str) -> Error {
    let opened = RedisStore::open(&ctx(), config(url, &new_prefix())).await;
    opened.err().unwrap_or_else(|| panic!("opening succeeded: {url}"))
}

/// Opens a store with a short retry timeout.
async fn open_with_short_retry(url: &str, prefix: &str) -> RedisStore {
    let config = config(url, prefix).with_retry_timeout(Duration::from_millis(100));
    RedisStore::open(&ctx(), config).await.unwrap()
}

fn url_of(server: &RedisServer, credentials: &str) -> String {
    format!("redis://{credentials}@127.0.0.1:{}", server.port())
}

#[tokio::test]
async fn wrong_credentials_are_denied_and_not_retryable() {
    let server = RedisServer::start_with(&[
        &format!("requirepass {PASSWORD}"),
        &format!("user nothing on >{PASSWORD} ~* &* -@all"),
        &format!("user off off >{PASSWORD} ~* &* +@all"),
    ])
    .unwrap();
    let wrong = "s3cret-Pa56";
    for (credentials, says) in [
        (format!(":{wrong}"), "rejects the user or the password"),
        (format!("nobody:{PASSWORD}"), "rejects the user or the password"),
        (format!("off:{PASSWORD}"), "rejects the user or the password"),
        (String::new(), "requires authentication"),
    ] {
        let error = refusal_to_open(&url_of(&server, &credentials)).await;
        check(&error, ErrorKind::PermissionDenied, says);
        assert!(!error.is_retryable() && !shown(&error).contains(wrong), "{}", shown(&error));
    }
    let store = open(&url_of(&server, &format!(":{PASSWORD}")), "p:").await;
    store.put(&ctx(), &ns("acme"), "k", bytes(VALUE)).await.unwrap();
    assert!(!format!("{store:?}").contains(PASSWORD), "{store:?}");
    let config = config(&url_of(&server, &format!(":{PASSWORD}")), "p:");
    assert!(!format!("{config:?}").contains(PASSWORD), "{config:?}");
}

#[tokio::test]
async fn missing_permission_is_denied_and_writes_nothing() {
    let server = RedisServer::start().unwrap();
    let granted = open(server.url(), "p:").await;
    granted.put(&ctx(), &ns("acme"), "k", bytes(VALUE)).await.unwrap();
    let password = format!(">{PASSWORD}");
    for (user, taken) in [
        ("noget", "-get"),
        ("noscript", "-evalsha"),
        ("notime", "-time"),
        ("noscores", "-zscore -hget"),
        ("nokeys", "resetkeys ~other:*"),
        ("readonly", "resetkeys %R~*"),
    ] {
        let grant = |rules: &str| {
            let all: Vec<&str> = rules.split(' ').collect();
            cli(&server, &[&["ACL", "SETUSER", user], all.as_slice()].concat());
        };
        grant(&format!("on {password} ~* &* +@all"));
        let url = url_of(&server, &format!("{user}:{PASSWORD}"));
        // The store is opened before the permission is revoked.
        let store = open(&url, "p:").await;
        grant(taken);
        let (acme, before) = (ns("acme"), keys(&server, ""));
        let error = match user {
            "noget" => store.get(&ctx(), &acme, "k").await.unwrap_err(),
            _ => store.put(&ctx(), &acme, "new", bytes(VALUE)).await.unwrap_err(),
        };
        check(&error, ErrorKind::PermissionDenied, "the Redis user may not");
        assert!(!error.is_retryable(), "{user}");
        let error = refusal_to_open(&url).await;
        check(&error, ErrorKind::PermissionDenied, "the Redis user may not");
        assert!(!error.is_retryable(), "{user}");
        assert_eq!(keys(&server, ""), before, "{user}");
        assert_eq!(granted.list(&ctx(), &acme, None).await.unwrap(), ["k"], "{user}");
    }
    // `INFO` is not required.
    cli(&server, &["ACL", "SETUSER", "noinfo", "on", "nopass", "~p:*", "+@all", "-info"]);
    let store = open(&url_of(&server, "noinfo:x"), "p:").await;
    assert_eq!(store.get(&ctx(), &ns("acme"), "k").await.unwrap(), Some(bytes(VALUE)));
}

#[tokio::test]
async fn missing_permission_for_a_url_option_is_denied() {
    let server = RedisServer::start_with(&[
        &format!("user noselect on >{PASSWORD} ~* &* +@all -select"),
        &format!("user nowait on >{PASSWORD} ~* &* +@all -wait"),
        &format!("user soon on >{PASSWORD} ~* &* +@all"),
        "user free on nopass ~q:* &* +@all",
    ])
    .unwrap();
    let url = |user: &str, rest: &str| url_of(&server, &format!("{user}:{PASSWORD}")) + rest;
    open(&url("noselect", ""), "p:").await;
    let error = refusal_to_open(&url("noselect", "/1")).await;
    check(&error, ErrorKind::PermissionDenied, "SELECT");
    assert!(!error.is_retryable(), "{error:?}");

    open(&url("nowait", ""), "p:").await;
    let error = refusal_to_open(&url("nowait", "?wait_replicas=1")).await;
    check(&error, ErrorKind::PermissionDenied, "may not run WAIT");
    let waiting = open(&url("soon", "?wait_replicas=1"), "p:").await;
    open(server.url(), "p:").await.put(&ctx(), &ns("acme"), "k", bytes("old")).await.unwrap();
    cli(&server, &["ACL", "SETUSER", "soon", "-wait"]);
    let error = waiting.put(&ctx(), &ns("acme"), "k", bytes(VALUE)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    assert!(error.may_have_been_applied(), "the write was applied: {error:?}");
    assert_eq!(waiting.get(&ctx(), &ns("acme"), "k").await.unwrap(), Some(bytes(VALUE)));

    // A user without a password is not the default user.
    let free = url_of(&server, "free:");
    let error = refusal_to_open(&free).await;
    check(&error, ErrorKind::PermissionDenied, "the Redis user may not");
    let store = open(&free, "q:").await;
    store.put(&ctx(), &ns("acme"), "k", bytes(VALUE)).await.unwrap();
    assert!(cli(&server, &["CLIENT", "LIST"]).contains("user=free"));
}

#[tokio::test]
async fn url_for_the_wrong_kind_of_server_is_invalid_argument() {
    let server = RedisServer::start().unwrap();
    let error = refusal_to_open(&format!("{}/99", server.url())).await;
    check(&error, ErrorKind::InvalidArgument, "no such database");
    let as_cluster = server.url().replace("redis://", "redis+cluster://");
    let error = refusal_to_open(&as_cluster).await;
    check(&error, ErrorKind::InvalidArgument, "write `redis://`");
    // Databases are separate.
    let zero = open(server.url(), "p:").await;
    let one = open(&format!("{}/1", server.url()), "p:").await;
    zero.put(&ctx(), &ns("acme"), "k", bytes(VALUE)).await.unwrap();
    assert_eq!(one.get(&ctx(), &ns("acme"), "k").await.unwrap(), None);

    let node = RedisServer::start_with(&["cluster-enabled yes"]).unwrap();
    let error = refusal_to_open(node.url()).await;
    check(&error, ErrorKind::InvalidArgument, "write `redis+cluster://`");
    let error = refusal_to_open(&format!("{}/1", node.url())).await;
    check(&error, ErrorKind::InvalidArgument, "");
}

#[tokio::test]
async fn writes_fail_without_memory_and_deletes_succeed() {
    let server = RedisServer::start().unwrap();
    let store = open_with_short_retry(server.url(), "p:").await;
    let acme = ns("acme");
    for key in ["deleted", "taken", "kept", "erased"] {
        store.put(&ctx(), &acme, key, bytes(VALUE)).await.unwrap();
    }
    let ttl = PutOptions::new().with_ttl(Duration::from_millis(1));
    store.put_with_options(&ctx(), &acme, "dead", bytes(VALUE), ttl).await.unwrap();
    // Otherwise the server could remove the value between the two comparisons of keys.
    until("the value to expire", async || !keys(&server, "").contains("p:{acme}vdead")).await;
    store.put(&ctx(), &ns("gone"), "k", bytes(VALUE)).await.unwrap();
    let batch = |number: usize| {
        let put = |batch: Batch<_>, at| batch.put(format!("{number} {at}"), bytes(VALUE));
        (0..10).fold(Batch::new(), put)
    };
    cli(&server, &["CONFIG", "SET", "maxmemory", "1"]);
    let before = keys(&server, "");
    let refused = [
        store.put(&ctx(), &acme, "new", bytes(VALUE)).await.unwrap_err(),
        store.put(&ctx(), &acme, "kept", bytes("other")).await.unwrap_err(),
        store.put(&ctx(), &ns("new"), "k", bytes(VALUE)).await.unwrap_err(),
        store.write(&ctx(), &acme, batch(0)).await.unwrap_err(),
        store
            .touch(&ctx(), &acme, "kept", Expiry::After(PATIENCE), Condition::Always)
            .await
            .unwrap_err(),
    ];
    for error in &refused {
        check(error, ErrorKind::ResourceExhausted, "maxmemory");
    }
    assert_eq!(keys(&server, ""), before);
    assert_eq!(store.get(&ctx(), &acme, "kept").await.unwrap(), Some(bytes(VALUE)));
    store.delete(&ctx(), &acme, "deleted").await.unwrap();
    assert!(store.take(&ctx(), &acme, "taken").await.unwrap().is_some());
    let erased = store.erase(&ctx(), &ns("gone").into(), 10).await.unwrap();
    assert!(erased.done && erased.removed == 1);
    assert_eq!(store.evict_expired(&ctx()).await.unwrap(), 1);
    assert_eq!(store.list(&ctx(), &acme, None).await.unwrap(), ["erased", "kept"]);

    // A batch that reaches the limit is applied completely or not at all.
    cli(&server, &["CONFIG", "SET", "maxmemory", "0"]);
    let big = |number: usize| {
        let value = "x".repeat(200_000);
        let put = |batch: Batch<_>, at| batch.put(format!("{number} {at}"), bytes(&value));
        (0..10).fold(Batch::new(), put)
    };
    let limit = used_memory(&server) + 5_000_000;
    cli(&server, &["CONFIG", "SET", "maxmemory", &limit.to_string()]);
    let mut refused = 0;
    for number in 1..=10 {
        let written = store.write(&ctx(), &acme, big(number)).await;
        let there = store.list(&ctx(), &acme, Some(&format!("{number} "))).await.unwrap().len();
        match written {
            Ok(_) => assert_eq!(there, 10),
            Err(error) => {
                check(&error, ErrorKind::ResourceExhausted, "maxmemory");
                assert_eq!(there, 0);
                refused += 1;
            }
        }
    }
    assert!((1..10).contains(&refused), "{refused} of 10 batches were refused");
    cli(&server, &["CONFIG", "SET", "maxmemory", "0"]);
    store.write(&ctx(), &acme, batch(0)).await.unwrap();
}

#[tokio::test]
async fn writes_are_refused_while_snapshots_fail() {
    let server =
        RedisServer::start_with(&["save 3600 1", "stop-writes-on-bgsave-error yes"]).unwrap();
    let store = open_with_short_retry(server.url(), "p:").await;
    store.put(&ctx(), &ns("acme"), "k", bytes(VALUE)).await.unwrap();
    let folder = cli(&server, &["CONFIG", "GET", "dir"]).lines().nth(1).unwrap().to_owned();
    let mode = fs::metadata(&folder).unwrap().permissions();
    let saved = async |wanted: &str| {
        cli(&server, &["BGSAVE"]);
        let wanted = format!("rdb_last_bgsave_status:{wanted}");
        until(&wanted, async || cli(&server, &["INFO", "persistence"]).contains(&wanted)).await;
    };
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    saved("err").await;
    let put = store.put(&ctx(), &ns("acme"), "new", bytes(VALUE)).await;
    let first = store.put(&ctx(), &ns("globex"), "new", bytes(VALUE)).await;
    fs::set_permissions(&folder, mode).unwrap();
    check(&put.unwrap_err(), ErrorKind::Unavailable, "cannot save to disk");
    check(&first.unwrap_err(), ErrorKind::Unavailable, "cannot save to disk");
    assert_eq!(store.list(&ctx(), &ns("acme"), None).await.unwrap(), ["k"]);
    assert_eq!(keys(&server, "p:{globex}"), keys(&server, "none"));
    saved("ok").await;
    store.put(&ctx(), &ns("acme"), "new", bytes(VALUE)).await.unwrap();
}

#[tokio::test]
async fn writes_need_a_master_with_enough_replicas() {
    let master = RedisServer::start().unwrap();
    let store = open_with_short_retry(master.url(), "p:").await;
    store.put(&ctx(), &ns("acme"), "k", bytes(VALUE)).await.unwrap();
    cli(&master, &["CONFIG", "SET", "min-replicas-to-write", "1"]);
    for name in ["acme", "globex"] {
        let error = store.put(&ctx(), &ns(name), "new", bytes(VALUE)).await.unwrap_err();
        check(&error, ErrorKind::Unavailable, "min-replicas-to-write");
        assert!(error.is_retryable());
    }
    let error = store.take(&ctx(), &ns("acme"), "k").await.unwrap_err();
    check(&error, ErrorKind::Unavailable, "min-replicas-to-write");
    assert_eq!(store.list(&ctx(), &ns("acme"), None).await.unwrap(), ["k"]);

    let line = format!("replicaof 127.0.0.1 {}", master.port());
    let replica = RedisServer::start_with(&[&line]).unwrap();
    let linked = async || cli(&replica, &["INFO", "replication"]).contains("master_link_status:up");
    until("the replica to connect", linked).await;
    let reader = open_with_short_retry(replica.url(), "p:").await;
    assert_eq!(reader.get(&ctx(), &ns("acme"), "k").await.unwrap(), Some(bytes(VALUE)));
    for name in ["acme", "globex"] {
        let error = reader.put(&ctx(), &ns(name), "new", bytes(VALUE)).await.unwrap_err();
        check(&error, ErrorKind::Unavailable, "is a replica");
    }
    let error = reader.take(&ctx(), &ns("acme"), "k").await.unwrap_err();
    check(&error, ErrorKind::Unavailable, "is a replica");
    check(&error, ErrorKind::Unavailable, "the URL names a replica, or a failover");

    // The master has a replica now, and accepts writes.
    let enough = async || store.put(&ctx(), &ns("acme"), "new", bytes(VALUE)).await.is_ok();
    until("enough replicas", enough).await;
    let arrived = async || reader.get(&ctx(), &ns("acme"), "new").await.unwrap().is_some();
    until("the write to reach the replica", arrived).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_server_is_retried_then_unavailable() {
    let server = RedisServer::start_with(&["busy-reply-threshold 10"]).unwrap();
    let store = open_with_short_retry(server.url(), "p:").await;
    let patient = open(server.url(), "p:").await;
    store.put(&ctx(), &ns("acme"), "k", bytes(VALUE)).await.unwrap();
    let port = server.port();
    let runs = std::thread::spawn(move || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.write_all(b"EVAL \"while true do end\" 0\r\n").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        answer
    });
    until("a busy server", async || server.cli(&["PING"]).is_err()).await;
    let unlimited = ExecutionContext::new();
    let error = store.put(&unlimited, &ns("acme"), "new", bytes(VALUE)).await.unwrap_err();
    check(&error, ErrorKind::Unavailable, "busy running a script");
    assert!(error.is_retryable());
    let error = store.get(&unlimited, &ns("acme"), "k").await.unwrap_err();
    check(&error, ErrorKind::Unavailable, "busy running a script");
    // Calls with a longer retry timeout succeed once the script has ended.
    let (context, acme) = (ctx(), ns("acme"));
    let waits = patient.put(&context, &acme, "new", bytes(VALUE));
    let opens = RedisStore::open(&context, config(server.url(), "p:"));
    let (put, opened, ()) = tokio::join!(waits, opens, async {
        pause(100).await;
        cli(&server, &["SCRIPT", "KILL"]);
    });
    put.unwrap();
    opened.unwrap();
    assert!(runs.join().unwrap().starts_with('-'));
    assert_eq!(store.list(&ctx(), &acme, None).await.unwrap(), ["k", "new"]);
}

#[tokio::test]
async fn client_limit_is_named_and_retryable() {
    let server = RedisServer::start_with(&["maxclients 2"]).unwrap();
    let connect = || {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).unwrap();
        let mut reader = BufReader::new(stream);
        reader.get_mut().write_all(b"PING\r\n").unwrap();
        let mut answer = String::new();
        reader.read_line(&mut answer).map(|_| (reader, answer))
    };
    let is_pong = |answer: &str| answer == "+PONG\r\n";
    // Connections of the server's start may still be open.
    let mut held = Vec::new();
    let deadline = ctx();
    while held.len() < 2 {
        match connect() {
            Ok((reader, answer)) if is_pong(&answer) => held.push(reader),
            _ => deadline.sleep(Duration::from_millis(5)).await.unwrap(),
        }
    }
    for _ in 0..10 {
        let error = refusal_to_open(server.url()).await;
        // The server closes the connection, so its answer may be lost. The message names both
        // causes.
        check(&error, ErrorKind::Unavailable, "`maxclients`");
        assert!(error.is_retryable(), "{error:?}");
    }
    drop(held);
    until("a free connection", async || {
        let opened = RedisStore::open(&ctx(), config(server.url(), "p:")).await;
        opened.is_ok()
    })
    .await;
}

#[tokio::test]
async fn other_protocol_on_the_port_is_named() {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answers = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = [0; 16];
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut bytes).await;
            let page = b"HTTP/1.1 400 Bad Request\r\n\r\n";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, page).await;
        }
    });
    let url = format!("redis://:{PASSWORD}@127.0.0.1:{port}");
    let error = refusal_to_open(&url).await;
    check(&error, ErrorKind::Unavailable, "does not reply like a Redis server");
    answers.abort();
}
