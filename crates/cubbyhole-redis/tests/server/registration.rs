//! Registration of namespaces under faults: clients that die after any command, and writers, sweeps
//! and erasures that are delayed while other calls continue. Live namespaces must be listed. After
//! a sweep, the indexes must contain no other names.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use cubbyhole_core::{EntryStore, ErrorKind, ExecutionContext, Store};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{PATIENCE, bytes, ctx, ns, tenant};
use tokio::task::{JoinSet, block_in_place};

use crate::helpers::{
    cli, cli_number, config, index_names, keys, new_prefix, open, server_millis, shared_server,
};
use crate::proxy::{Command, Gate, ProxiedStore, RedisProxy, is_write, script_keys};

const TENANTS: [&str; 2] = ["acme", "globex"];

/// The namespaces that the tests use.
const NAMES: [&str; 5] = ["acme", "acme:a", "acme:b", "globex", "globex:a"];

/// Returns the namespaces with entries. Reads the entries themselves and no index of namespaces.
async fn live(store: &RedisStore) -> Vec<&'static str> {
    let mut live = Vec::new();
    for name in NAMES {
        if !store.list(&ctx(), &ns(name), None).await.unwrap().is_empty() {
            live.push(name);
        }
    }
    live
}

/// Asserts that exactly the live namespaces and their tenants are listed.
async fn check_listed(store: &RedisStore, what: &str) {
    let live = live(store).await;
    let mut found = Vec::new();
    for name in TENANTS {
        found.extend(store.list_namespaces(&ctx(), &tenant(name).into()).await.unwrap());
    }
    assert_eq!(found, live.iter().map(|name| ns(name)).collect::<Vec<_>>(), "{what}");
    let tenants: BTreeSet<_> = live.iter().map(|name| ns(name).tenant()).collect();
    let found = store.scan_tenants(&ctx(), None, 10).await.unwrap().items;
    assert_eq!(found, tenants.into_iter().collect::<Vec<_>>(), "{what}");
}

/// Sweeps once. Asserts that the raw indexes then contain each live name once and no other name,
/// and that only live namespaces have a marker.
async fn check_swept(server: &RedisServer, prefix: &str, store: &RedisStore, what: &str) {
    check_listed(store, what).await;
    store.evict_expired(&ctx()).await.unwrap();
    check_listed(store, what).await;
    let live = live(store).await;
    let mut tenants = Vec::new();
    for name in TENANTS {
        let mut wanted: Vec<&str> =
            live.iter().copied().filter(|full| full.split(':').next() == Some(name)).collect();
        if !wanted.is_empty() {
            tenants.push(name);
            // The marker of the tenant.
            wanted.insert(0, "");
        }
        let found = index_names(server, &format!("{prefix}{{{name}}}n"));
        assert_eq!(found, wanted, "{what}: the index of {name}");
    }
    assert_eq!(index_names(server, &format!("{prefix}{{\\*}}n")), tenants, "{what}: the tenants");
    for name in NAMES {
        let marker = cli_number(server, &["ZCOUNT", &format!("{prefix}{{{name}}}x"), "-1", "-1"]);
        assert_eq!(marker, u64::from(live.contains(&name)), "{what}: the marker of {name}");
    }
    let left = keys(server, prefix);
    let is_known = |key: &String| {
        key.ends_with("}f") || key.ends_with("}g") || key.ends_with("}n") || {
            live.iter().any(|name| key.starts_with(&format!("{prefix}{{{name}}}")))
        }
    };
    assert!(left.iter().all(is_known), "{what}: {left:?}");
}

/// The first put of a tenant makes five requests, which share one retry timeout.
#[tokio::test]
async fn registering_put_retries_within_one_timeout() {
    let (retry, first) = (Duration::from_secs(5), Duration::from_millis(4500));
    // The delay allowed on a busy machine. A second retry timeout would take longer.
    let slack = Duration::from_secs(3);
    let (proxy, prefix) = (RedisProxy::start(shared_server()).await, new_prefix());
    let config = config(&proxy.url(), &prefix).with_retry_timeout(retry);
    let store = RedisStore::open(&ctx(), config).await.unwrap();
    // Commands on the tenant's own index fail for a while. Commands on the index of tenants always
    // fail.
    let (own, all) = (format!("{prefix}{{acme}}n"), format!("{prefix}{{\\*}}n"));
    let mut until: Option<ExecutionContext> = None;
    let lost = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let counted = Arc::clone(&lost);
    proxy.set_rule(move |command| {
        let index = script_keys(command).into_iter().next();
        let is_own = index.as_ref() == Some(&own);
        let until = until.get_or_insert_with(|| ExecutionContext::new().with_timeout(first));
        if index.as_ref() != Some(&all) && !(is_own && until.check().is_ok()) {
            return Gate::Pass;
        }
        counted[usize::from(is_own)].fetch_add(1, SeqCst);
        Gate::CutBefore
    });
    let context = ctx();
    let error = store.put(&context, &ns("acme:a"), "k", bytes("v")).await.unwrap_err();
    let took = PATIENCE - context.remaining().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.is_retryable(), "only the registration was lost: {error:?}");
    assert!(lost.iter().all(|count| count.load(SeqCst) > 0), "{lost:?}");
    assert!((retry..retry + slack).contains(&took), "{took:?}");
    proxy.release();
    store.put(&ctx(), &ns("acme:a"), "k", bytes("v")).await.unwrap();
    check_swept(shared_server(), &prefix, &store, "after the outage").await;
}

/// The call of a client that loses its connection.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Action {
    FirstPutOfTenant,
    FirstPutOfNamespace,
    PutAfterSweep,
    Sweep,
    Erase,
}

impl Action {
    /// Writes the entries that the call expects.
    async fn prepare(self, direct: &RedisStore) {
        let context = ctx();
        let put = async |name: &str| {
            direct.put(&context, &ns(name), "k", bytes("v")).await.unwrap();
        };
        match self {
            Self::FirstPutOfTenant => {}
            Self::FirstPutOfNamespace => put("acme:b").await,
            Self::PutAfterSweep => {
                put("acme:a").await;
                direct.delete(&ctx(), &ns("acme:a"), "k").await.unwrap();
                direct.evict_expired(&ctx()).await.unwrap();
            }
            Self::Sweep | Self::Erase => {
                for name in NAMES {
                    put(name).await;
                }
                if self == Self::Sweep {
                    for name in ["acme:a", "acme", "globex", "globex:a"] {
                        direct.delete(&ctx(), &ns(name), "k").await.unwrap();
                    }
                }
            }
        }
    }

    /// Makes the call. Returns whether it succeeded.
    async fn run(self, store: &RedisStore) -> bool {
        let result = match self {
            Self::Sweep => store.evict_expired(&ctx()).await.map(drop),
            Self::Erase => store.erase(&ctx(), &tenant("acme").into(), 10).await.map(drop),
            _ => store.put(&ctx(), &ns("acme:a"), "k", bytes("v")).await,
        };
        match result {
            Ok(()) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
                false
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sweep_cleans_up_after_a_client_dies_at_any_command() {
    let server = shared_server();
    let mut longest = Vec::new();
    for action in [
        Action::FirstPutOfTenant,
        Action::FirstPutOfNamespace,
        Action::PutAfterSweep,
        Action::Sweep,
        Action::Erase,
    ] {
        for gate in [Gate::CutBefore, Gate::CutAfter] {
            let mut commands = 0;
            loop {
                let (proxy, prefix) = (RedisProxy::start(server).await, new_prefix());
                let direct = open(server.url(), &prefix).await;
                action.prepare(&direct).await;
                let config = config(&proxy.url(), &prefix).with_retry_timeout(Duration::ZERO);
                let store = RedisStore::open(&ctx(), config).await.unwrap();
                // The client cannot reconnect.
                proxy.refuse(true);
                let mut seen = 0;
                proxy.set_rule(move |_| {
                    seen += 1;
                    if seen == commands + 1 { gate } else { Gate::Pass }
                });
                let is_done = action.run(&store).await;
                let what = format!("{action:?}, {gate:?} command {}", commands + 1);
                check_swept(server, &prefix, &direct, &what).await;
                // Another client succeeds with the same call.
                if !is_done {
                    assert!(action.run(&direct).await, "{what}");
                    check_swept(server, &prefix, &direct, &format!("{what}, then repeated")).await;
                }
                if is_done {
                    break;
                }
                commands += 1;
                assert!(commands < 100, "{what}");
            }
            longest.push(commands);
        }
    }
    assert_eq!(longest[..6], [5, 5, 3, 3, 5, 5], "commands of a first put");
    // The tenants, the names of each in two steps, the namespaces, and the removal of names and of
    // the tenant.
    assert!(longest[6..].iter().all(|count| *count >= 5), "{longest:?}");
}

/// Returns whether a command is a write with a token.
fn is_write_with_token(command: &Command) -> bool {
    is_write(command) && script_keys(command).last().is_some_and(|key| key.ends_with("}f"))
}

/// Matches the registration of a name in that index.
fn is_registration(index: &str) -> impl Fn(&Command) -> bool + Send + 'static {
    let index = format!("{index}n");
    move |command| script_keys(command).first().is_some_and(|key| key.ends_with(&index))
}

/// Returns whether a command registers the namespace and carries the token of its tenant.
fn is_registration_with_token(command: &Command) -> bool {
    script_keys(command).last().is_some_and(|key| key.ends_with("{acme}g"))
        && script_keys(command).len() == 2
        && command.contains(&b"acme:a".to_vec())
}

/// Holds a first put at a command, sweeps, advances the server's clock, and releases the command.
async fn hold_put(
    server: &RedisServer,
    at: impl Fn(&Command) -> bool + Send + 'static,
    sweeps: u32,
    advance: Duration,
    what: &str,
) {
    let ProxiedStore { proxy, prefix, store, direct } = ProxiedStore::open(server).await;
    proxy.hold_first(at);
    let (context, name) = (ctx(), ns("acme:a"));
    let (put, ()) = tokio::join!(store.put(&context, &name, "k", bytes("v")), async {
        proxy.until_held().await;
        for _ in 0..sweeps {
            direct.evict_expired(&ctx()).await.unwrap();
        }
        if sweeps > 0 {
            assert_eq!(index_names(server, &format!("{prefix}{{acme}}n")), [""; 0], "{what}");
            assert_eq!(index_names(server, &format!("{prefix}{{\\*}}n")), [""; 0], "{what}");
        }
        if !advance.is_zero() {
            server.advance(advance).unwrap();
        }
        proxy.release();
    });
    put.unwrap();
    assert_eq!(direct.get(&ctx(), &name, "k").await.unwrap(), Some(bytes("v")));
    check_swept(server, &prefix, &direct, what).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delayed_writer_is_listed_after_its_registration_is_swept() {
    let server = shared_server();
    let none = Duration::ZERO;
    for sweeps in [1, 2] {
        let what = format!("{sweeps} sweeps");
        hold_put(server, is_write_with_token, sweeps, none, &what).await;
        let root = is_registration(r"{\*}");
        hold_put(server, root, sweeps, none, &format!("before the tenant, {what}")).await;
        let name = is_registration("{acme}");
        hold_put(server, name, sweeps, none, &format!("before the name, {what}")).await;
        let what = format!("between the two, {what}");
        hold_put(server, is_registration_with_token, sweeps, none, &what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writer_delayed_past_its_token_registers_again() {
    let server = block_in_place(RedisServer::start_with_clock).unwrap();
    for seconds in [59, 61, 660] {
        for sweeps in [0, 1] {
            let (advance, what) = (Duration::from_secs(seconds), format!("{seconds} s, {sweeps}"));
            hold_put(&server, is_write_with_token, sweeps, advance, &what).await;
            let what = format!("{what}, before the name");
            hold_put(&server, is_registration_with_token, sweeps, advance, &what).await;
        }
    }
}

/// A token older than a minute is refused even if no fence refuses it.
#[tokio::test(flavor = "multi_thread")]
async fn token_is_valid_for_a_minute_and_its_fence_for_longer() {
    let server = block_in_place(RedisServer::start_with_clock).unwrap();
    for (seconds, writes) in [(60, 2), (61, 3)] {
        let ProxiedStore { proxy, prefix, store, direct } = ProxiedStore::open(&server).await;
        direct.put(&ctx(), &ns("acme"), "k", bytes("v")).await.unwrap();
        proxy.hold_first(is_write_with_token);
        let (context, name) = (ctx(), ns("acme:a"));
        proxy.take_commands();
        let (put, ()) = tokio::join!(store.put(&context, &name, "k", bytes("v")), async {
            proxy.until_held().await;
            server.advance(Duration::from_secs(seconds)).unwrap();
            proxy.release();
        });
        put.unwrap();
        let sent = proxy.take_commands();
        let sent = sent.iter().filter(|command| is_write(command)).count();
        assert_eq!(sent, writes, "after {seconds} s");
        direct.delete(&ctx(), &name, "k").await.unwrap();
        let before = server_millis(&server);
        direct.evict_expired(&ctx()).await.unwrap();
        let end = cli_number(&server, &["PEXPIRETIME", &format!("{prefix}{{acme:a}}f")]);
        assert!(end > before + 60_000, "a token outlives the fence");
    }
}

/// Holds a sweep or an erasure at a command while another client puts into these namespaces, and
/// releases the command.
async fn hold_removal(
    at: impl Fn(&Command) -> bool + Send + 'static,
    erases: bool,
    names: &[&str],
    what: &str,
) {
    let server = shared_server();
    let ProxiedStore { proxy, prefix, store, direct } = ProxiedStore::open(server).await;
    direct.put(&ctx(), &ns("acme:a"), "old", bytes("v")).await.unwrap();
    if !erases {
        direct.delete(&ctx(), &ns("acme:a"), "old").await.unwrap();
    }
    proxy.hold_first(at);
    let (context, acme) = (ctx(), tenant("acme").into());
    let removal = async {
        if erases {
            store.erase(&context, &acme, 10).await.map(drop)
        } else {
            store.evict_expired(&context).await.map(drop)
        }
    };
    let (removed, ()) = tokio::join!(removal, async {
        proxy.until_held().await;
        for name in names {
            direct.put(&ctx(), &ns(name), "new", bytes("v")).await.unwrap();
        }
        proxy.release();
    });
    removed.unwrap();
    for name in names {
        let found = direct.get(&ctx(), &ns(name), "new").await.unwrap();
        assert_eq!(found, Some(bytes("v")), "{what}: {name}");
    }
    check_swept(server, &prefix, &direct, what).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delayed_sweeper_removes_no_new_registration() {
    let removes = |index: &'static str| {
        move |command: &Command| {
            command[0] == b"ZREM" && String::from_utf8_lossy(&command[1]).ends_with(index)
        }
    };
    // A step of a sweep or an erasure of the namespace.
    let step = |command: &Command| {
        let keys = script_keys(command);
        keys.len() >= 4 && keys[3].ends_with("{acme:a}f")
    };
    // The removal of the tenant's empty index.
    let tenant_step = |command: &Command| {
        let keys = script_keys(command);
        keys.len() == 2 && keys[1].ends_with("{acme}g")
    };
    for erases in [false, true] {
        for names in [&["acme:a"][..], &["acme:b"], &["acme:a", "acme:b"], &["acme"], &[]] {
            let what = format!("erases: {erases}, names {names:?}");
            hold_removal(step, erases, names, &format!("a step, {what}")).await;
            let name = removes("{acme}n");
            hold_removal(name, erases, names, &format!("the name, {what}")).await;
            hold_removal(tenant_step, erases, names, &format!("the tenant's step, {what}")).await;
            let root = removes(r"{\*}n");
            hold_removal(root, erases, names, &format!("the tenant, {what}")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writes_and_sweeps_keep_live_namespaces_listed() {
    let (server, prefix) = (shared_server(), new_prefix());
    let proxy = RedisProxy::start(server).await;
    let direct = open(server.url(), &prefix).await;
    // The delay lets commands of other clients run between any two commands of a call.
    proxy.delay(Duration::from_micros(300));
    let mut tasks = JoinSet::new();
    for task in 0..12_usize {
        let store = open(&proxy.url(), &prefix).await;
        tasks.spawn(async move {
            for round in 0..60_usize {
                let name = ns(NAMES[fastrand::usize(0..NAMES.len())]);
                let key = format!("{}", fastrand::u8(0..2));
                match (task, fastrand::u8(0..4)) {
                    (0, _) => store.evict_expired(&ctx()).await.map(drop).unwrap(),
                    (1, _) if round % 4 == 0 => {
                        store.erase(&ctx(), &name.tenant().into(), 1).await.map(drop).unwrap();
                    }
                    (_, 0..=1) => store.put(&ctx(), &name, &key, bytes("v")).await.unwrap(),
                    _ => store.delete(&ctx(), &name, &key).await.unwrap(),
                }
            }
        });
    }
    tasks.join_all().await;
    check_swept(server, &prefix, &direct, "after the load").await;
    for name in NAMES {
        for key in direct.list(&ctx(), &ns(name), None).await.unwrap() {
            direct.delete(&ctx(), &ns(name), &key).await.unwrap();
        }
    }
    check_swept(server, &prefix, &direct, "after all deletes").await;
    assert_eq!(cli(server, &["EXISTS", &format!("{prefix}{{\\*}}n")]), "0");
}
