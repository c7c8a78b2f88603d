//! Registration under attack: clients that die after any of their commands, writers and tidiers
//! that are held while others go on. What is live must be listed, and after a sweep the indexes
//! must hold nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use cubbyhole_core::{EntryStore, ErrorKind, ExecutionContext, Store};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{PATIENCE, bytes, ctx, ns, tenant};
use tokio::task::{JoinSet, block_in_place};

use crate::by_hand::{cli, clock, config, keys, listed, new_prefix, number, open, shared};
use crate::proxy::{Command, Gate, Proxy, is_write, script_keys};

const TENANTS: [&str; 2] = ["acme", "globex"];

/// The namespaces that the tests use.
const NAMES: [&str; 5] = ["acme", "acme:a", "acme:b", "globex", "globex:a"];

/// Which namespaces hold something, by their entries and not by any index.
async fn live(store: &RedisStore) -> Vec<&'static str> {
    let mut live = Vec::new();
    for name in NAMES {
        if !store.list(&ctx(), &ns(name), None).await.unwrap().is_empty() {
            live.push(name);
        }
    }
    live
}

/// That what is live is listed, and nothing else.
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

/// That after one sweep the raw indexes hold what is live, each name once, and no marker stands
/// where nothing is.
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
            // Its marker.
            wanted.insert(0, "");
        }
        let found = listed(server, &format!("{prefix}{{{name}}}n"));
        assert_eq!(found, wanted, "{what}: the index of {name}");
    }
    assert_eq!(listed(server, &format!("{prefix}{{\\*}}n")), tenants, "{what}: the tenants");
    for name in NAMES {
        let marker = number(server, &["ZCOUNT", &format!("{prefix}{{{name}}}x"), "-1", "-1"]);
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

/// The first put of a tenant makes five requests. That their lost answers are repeated has one time
/// for all, and not one for each.
#[tokio::test]
async fn a_put_that_registers_repeats_within_one_time() {
    let (retry, first) = (Duration::from_secs(5), Duration::from_millis(4500));
    // By how much a busy machine may be late: less than the time that a second one would add.
    let slack = Duration::from_secs(3);
    let (proxy, prefix) = (Proxy::before(shared()).await, new_prefix());
    let config = config(&proxy.url(), &prefix).with_retry_timeout(retry);
    let store = RedisStore::open(&ctx(), config).await.unwrap();
    // Each command that has the tenant's index is lost for a while, each that has the index of
    // tenants for ever.
    let (own, all) = (format!("{prefix}{{acme}}n"), format!("{prefix}{{\\*}}n"));
    let mut until: Option<ExecutionContext> = None;
    let lost = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let counted = Arc::clone(&lost);
    proxy.judge(move |command| {
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
    assert!(error.is_retryable(), "nothing but a registration was lost: {error:?}");
    assert!(lost.iter().all(|count| count.load(SeqCst) > 0), "{lost:?}");
    assert!((retry..retry + slack).contains(&took), "{took:?}");
    proxy.release();
    store.put(&ctx(), &ns("acme:a"), "k", bytes("v")).await.unwrap();
    check_swept(shared(), &prefix, &store, "after the outage").await;
}

/// What a client does when it is cut off.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Deed {
    FirstOfTenant,
    FirstOfNamespace,
    AfterSweep,
    Sweep,
    Erase,
}

impl Deed {
    /// What there is before.
    async fn prepare(self, direct: &RedisStore) {
        let context = ctx();
        let put = async |name: &str| {
            direct.put(&context, &ns(name), "k", bytes("v")).await.unwrap();
        };
        match self {
            Self::FirstOfTenant => {}
            Self::FirstOfNamespace => put("acme:b").await,
            Self::AfterSweep => {
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

    async fn run(self, store: &RedisStore) -> bool {
        let done = match self {
            Self::Sweep => store.evict_expired(&ctx()).await.map(drop),
            Self::Erase => store.erase(&ctx(), &tenant("acme").into(), 10).await.map(drop),
            _ => store.put(&ctx(), &ns("acme:a"), "k", bytes("v")).await,
        };
        match done {
            Ok(()) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
                false
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_dies_after_any_command_leaves_nothing_that_a_sweep_does_not_mend() {
    let server = shared();
    let mut longest = Vec::new();
    for deed in
        [Deed::FirstOfTenant, Deed::FirstOfNamespace, Deed::AfterSweep, Deed::Sweep, Deed::Erase]
    {
        for gate in [Gate::CutBefore, Gate::CutAfter] {
            let mut commands = 0;
            loop {
                let (proxy, prefix) = (Proxy::before(server).await, new_prefix());
                let direct = open(server.url(), &prefix).await;
                deed.prepare(&direct).await;
                let config = config(&proxy.url(), &prefix).with_retry_timeout(Duration::ZERO);
                let store = RedisStore::open(&ctx(), config).await.unwrap();
                // Its later connections are none.
                proxy.refuse(true);
                let mut seen = 0;
                proxy.judge(move |_| {
                    seen += 1;
                    if seen == commands + 1 { gate } else { Gate::Pass }
                });
                let is_done = deed.run(&store).await;
                let what = format!("{deed:?}, {gate:?} command {}", commands + 1);
                check_swept(server, &prefix, &direct, &what).await;
                // And whatever was left, the same done again is done.
                if !is_done {
                    assert!(deed.run(&direct).await, "{what}");
                    check_swept(server, &prefix, &direct, &format!("{what}, then again")).await;
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
    // Tenants, their names in two steps, their namespaces, the names' end, the tenant's end.
    assert!(longest[6..].iter().all(|count| *count >= 5), "{longest:?}");
}

/// The write that has a token.
fn is_write_with_token(command: &Command) -> bool {
    is_write(command) && script_keys(command).last().is_some_and(|key| key.ends_with("}f"))
}

/// The registration of a namespace or of a tenant.
fn is_registration(index: &str) -> impl Fn(&Command) -> bool + Send + 'static {
    let index = format!("{index}n");
    move |command| script_keys(command).first().is_some_and(|key| key.ends_with(&index))
}

/// The registration of a namespace that brings its tenant's own token.
fn is_registration_with_token(command: &Command) -> bool {
    script_keys(command).last().is_some_and(|key| key.ends_with("{acme}g"))
        && script_keys(command).len() == 2
        && command.contains(&b"acme:a".to_vec())
}

/// Holds a first put at a command, sweeps meanwhile, waits by the server's clock, and lets go.
async fn hold_writer(
    server: &RedisServer,
    at: impl Fn(&Command) -> bool + Send + 'static,
    sweeps: u32,
    waits: Duration,
    what: &str,
) {
    let (proxy, prefix) = (Proxy::before(server).await, new_prefix());
    let direct = open(server.url(), &prefix).await;
    let store = open(&proxy.url(), &prefix).await;
    proxy.hold_first(at);
    let (context, name) = (ctx(), ns("acme:a"));
    let (put, ()) = tokio::join!(store.put(&context, &name, "k", bytes("v")), async {
        proxy.until_held().await;
        for _ in 0..sweeps {
            direct.evict_expired(&ctx()).await.unwrap();
        }
        if sweeps > 0 {
            assert_eq!(listed(server, &format!("{prefix}{{acme}}n")), [""; 0], "{what}");
            assert_eq!(listed(server, &format!("{prefix}{{\\*}}n")), [""; 0], "{what}");
        }
        if !waits.is_zero() {
            server.advance(waits).unwrap();
        }
        proxy.release();
    });
    put.unwrap();
    assert_eq!(direct.get(&ctx(), &name, "k").await.unwrap(), Some(bytes("v")));
    check_swept(server, &prefix, &direct, what).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_held_while_its_registration_is_swept_away_ends_up_listed() {
    let server = shared();
    let none = Duration::ZERO;
    for sweeps in [1, 2] {
        let what = format!("{sweeps} sweeps");
        hold_writer(server, is_write_with_token, sweeps, none, &what).await;
        let root = is_registration(r"{\*}");
        hold_writer(server, root, sweeps, none, &format!("before the tenant, {what}")).await;
        let name = is_registration("{acme}");
        hold_writer(server, name, sweeps, none, &format!("before the name, {what}")).await;
        let what = format!("between the two, {what}");
        hold_writer(server, is_registration_with_token, sweeps, none, &what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_held_longer_than_its_token_or_any_fence_lasts_registers_anew() {
    let server = block_in_place(RedisServer::start_with_clock).unwrap();
    for seconds in [59, 61, 660] {
        for sweeps in [0, 1] {
            let (waits, what) = (Duration::from_secs(seconds), format!("{seconds} s, {sweeps}"));
            hold_writer(&server, is_write_with_token, sweeps, waits, &what).await;
            let what = format!("{what}, before the name");
            hold_writer(&server, is_registration_with_token, sweeps, waits, &what).await;
        }
    }
}

/// A stale token is refused by its age also where no fence is left that would.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_taken_for_a_minute_and_a_fence_outlives_it() {
    let server = block_in_place(RedisServer::start_with_clock).unwrap();
    for (seconds, writes) in [(60, 2), (61, 3)] {
        let (proxy, prefix) = (Proxy::before(&server).await, new_prefix());
        let direct = open(server.url(), &prefix).await;
        let store = open(&proxy.url(), &prefix).await;
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
        let before = clock(&server);
        direct.evict_expired(&ctx()).await.unwrap();
        let end = number(&server, &["PEXPIRETIME", &format!("{prefix}{{acme:a}}f")]);
        assert!(end > before + 60_000, "the fence outlives every token");
    }
}

/// Holds a tidier at a command while others go on, and lets it go.
async fn hold_tidier(
    at: impl Fn(&Command) -> bool + Send + 'static,
    erases: bool,
    meanwhile: &[&str],
    what: &str,
) {
    let server = shared();
    let (proxy, prefix) = (Proxy::before(server).await, new_prefix());
    let direct = open(server.url(), &prefix).await;
    let store = open(&proxy.url(), &prefix).await;
    direct.put(&ctx(), &ns("acme:a"), "old", bytes("v")).await.unwrap();
    if !erases {
        direct.delete(&ctx(), &ns("acme:a"), "old").await.unwrap();
    }
    proxy.hold_first(at);
    let (context, acme) = (ctx(), tenant("acme").into());
    let tidy = async {
        if erases {
            store.erase(&context, &acme, 10).await.map(drop)
        } else {
            store.evict_expired(&context).await.map(drop)
        }
    };
    let (tidied, ()) = tokio::join!(tidy, async {
        proxy.until_held().await;
        for name in meanwhile {
            direct.put(&ctx(), &ns(name), "new", bytes("v")).await.unwrap();
        }
        proxy.release();
    });
    tidied.unwrap();
    for name in meanwhile {
        let found = direct.get(&ctx(), &ns(name), "new").await.unwrap();
        assert_eq!(found, Some(bytes("v")), "{what}: {name}");
    }
    check_swept(server, &prefix, &direct, what).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tidier_that_is_held_while_others_register_anew_takes_nothing_from_them() {
    let removes = |index: &'static str| {
        move |command: &Command| {
            command[0] == b"ZREM" && String::from_utf8_lossy(&command[1]).ends_with(index)
        }
    };
    // A step of a sweep or an erasure of the namespace; the removal of the tenant's index.
    let step = |command: &Command| {
        let keys = script_keys(command);
        keys.len() >= 4 && keys[3].ends_with("{acme:a}f")
    };
    let unlist = |command: &Command| {
        let keys = script_keys(command);
        keys.len() == 2 && keys[1].ends_with("{acme}g")
    };
    for erases in [false, true] {
        for meanwhile in [&["acme:a"][..], &["acme:b"], &["acme:a", "acme:b"], &["acme"], &[]] {
            let what = format!("erases: {erases}, meanwhile {meanwhile:?}");
            hold_tidier(step, erases, meanwhile, &format!("a step, {what}")).await;
            let name = removes("{acme}n");
            hold_tidier(name, erases, meanwhile, &format!("the name, {what}")).await;
            hold_tidier(unlist, erases, meanwhile, &format!("the tenant's, {what}")).await;
            let root = removes(r"{\*}n");
            hold_tidier(root, erases, meanwhile, &format!("the tenant, {what}")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_storm_of_writers_sweepers_and_erasers_leaves_what_is_live_listed() {
    let (server, prefix) = (shared(), new_prefix());
    let proxy = Proxy::before(server).await;
    let direct = open(server.url(), &prefix).await;
    // Between any two commands of one there is time for another's.
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
    check_swept(server, &prefix, &direct, "after the storm").await;
    for name in NAMES {
        for key in direct.list(&ctx(), &ns(name), None).await.unwrap() {
            direct.delete(&ctx(), &ns(name), &key).await.unwrap();
        }
    }
    check_swept(server, &prefix, &direct, "emptied").await;
    assert_eq!(cli(server, &["EXISTS", &format!("{prefix}{{\\*}}n")]), "0");
}
