//! Keys of the store that another program has filled with any bytes or replaced by another type.
//!
//! Each call answers or fails as `Corrupt`, within its deadline. Other namespaces are unaffected.
//! After the damaged keys are deleted, the namespace can be written again. `PROPTEST_CASES` sets
//! the number of cases.

use std::fmt::Debug;
use std::time::Duration;

use cubbyhole_core::{
    Batch, Condition, EntryStore, Error, ErrorKind, ExecutionContext, Expiry, GetOptions,
    PutOptions, RecursiveScanOptions, ScanOptions, Store, TypedExt, Version,
};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{bytes, ctx, ns, shown, under};
use proptest::prelude::*;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;

use crate::helpers::{new_prefix, open, shared_server};

/// The deadline of calls. No call takes this long unless it hangs.
const LIMIT: Duration = Duration::from_secs(20);
/// Divides the number of cases, because each case uses a server and takes long.
const CASES_DIVISOR: u32 = 4;

/// A failure prints the shrunk input, and writes no file into the sources.
fn cases() -> ProptestConfig {
    let defaults = ProptestConfig::default();
    let cases = defaults.cases.div_ceil(CASES_DIVISOR);
    ProptestConfig { failure_persistence: None, cases, ..defaults }
}

/// The keys of the tenant `acme` and of its namespace, and the index of tenants.
const KEYS: [&str; 9] = [
    "{acme}va",
    "{acme}vttl",
    "{acme}m",
    "{acme}k",
    "{acme}x",
    "{acme}f",
    "{acme}n",
    "{acme}g",
    r"{\*}n",
];
/// The number of keys that only this namespace uses. They come first.
const NAMESPACE_KEYS: usize = 6;

/// A raw command on one key. The key is inserted as the first argument.
#[derive(Debug, Clone)]
struct Corruption {
    /// The index of the key in [`KEYS`].
    key: usize,
    /// Whether the key is deleted first.
    deletes: bool,
    command: Vec<Vec<u8>>,
}

/// Generates a member of an index or a field of the metadata: an existing one, a similar one, or
/// any bytes.
fn member() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        &b"a"[..],
        b"b",
        b"ttl",
        b"new",
        b"\0",
        b"",
        b"\xff",
        b"acme\0",
        b"acme\x001",
        b"acme\0-1",
        b"acme\0x",
        b"acme\0inf",
        b"acme\0nan",
        b"acme\x001e300",
        b"acme\x009007199254740993",
        b"acme:",
        b":\0",
        b"\\\x001",
        b"acme:other\0y",
        b"acme:gone\x001",
        b"globex\x00z",
        b"\xc3\x28\x001",
    ]);
    prop_oneof![3 => known.prop_map(<[u8]>::to_vec), 1 => prop::collection::vec(any::<u8>(), 0..6)]
}

/// Generates metadata that is too short, too long, out of range, or any bytes of a right length.
fn meta() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![1 => 0..60_usize, 2 => 38..=38_usize, 1 => 44..=44_usize];
    let byte = prop_oneof![Just(0_u8), Just(1), Just(0xff), any::<u8>()];
    length.prop_flat_map(move |length| prop::collection::vec(byte.clone(), length))
}

fn number() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "",
        "x",
        "-1",
        "nan",
        "inf",
        "-inf",
        "1e308",
        "99999999999999999999999",
        "0x10",
        " 7",
        "1.5",
    ]);
    prop_oneof![3 => known.prop_map(|text| text.as_bytes().to_vec()), 1 => meta()]
}

fn score() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec![
        "0",
        "-1",
        "1",
        "inf",
        "-inf",
        "1e300",
        "-1e300",
        "0.5",
        "1795000000000",
    ])
    .prop_map(|text| text.as_bytes().to_vec())
}

fn any_corruption() -> impl Strategy<Value = Corruption> {
    let word = |text: &str| text.as_bytes().to_vec();
    let command = prop_oneof![
        2 => number().prop_map(move |value| vec![word("SET"), value]),
        4 => (member(), meta()).prop_map(move |(field, meta)| vec![word("HSET"), field, meta]),
        4 => (score(), member()).prop_map(move |(score, member)| vec![word("ZADD"), score, member]),
        2 => member().prop_map(move |member| vec![word("ZREM"), member]),
        1 => member().prop_map(move |field| vec![word("HDEL"), field]),
        1 => member().prop_map(move |member| vec![word("SADD"), member]),
        1 => member().prop_map(move |member| vec![word("RPUSH"), member]),
        1 => Just(vec![word("DEL")]),
        1 => Just(vec![word("PEXPIRE"), word("1")]),
    ];
    (0..KEYS.len(), any::<bool>(), command).prop_map(|(key, deletes, command)| Corruption {
        key,
        deletes,
        command,
    })
}

/// Opens a connection for raw commands.
async fn connect(server: &RedisServer) -> MultiplexedConnection {
    let client = redis::Client::open(server.url()).unwrap();
    // The client's default timeouts are too short for a busy machine.
    let patient = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(LIMIT))
        .set_response_timeout(Some(LIMIT));
    client.get_multiplexed_async_connection_with_config(&patient).await.unwrap()
}

async fn apply(raw: &mut MultiplexedConnection, prefix: &str, corruption: &Corruption) {
    let key = format!("{prefix}{}", KEYS[corruption.key]);
    if corruption.deletes {
        let () = redis::cmd("DEL").arg(&key).query_async(raw).await.unwrap();
    }
    let [verb, arguments @ ..] = &corruption.command[..] else { return };
    let mut command = redis::Cmd::new();
    command.arg(verb).arg(&key);
    for argument in arguments {
        command.arg(argument);
    }
    // The server refuses a command for another type, and the key stays as it was.
    drop(command.query_async::<redis::Value>(raw).await);
}

/// Returns the answer of a call. Asserts that a call that fails reports corrupt data.
#[track_caller]
fn answered<T: Debug>(what: &str, result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(answer) => Some(answer),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {}", shown(&error));
            assert!(!error.is_retryable(), "{what}: {error:?}");
            None
        }
    }
}

fn limited() -> ExecutionContext {
    ctx().with_timeout(LIMIT)
}

/// Makes each call that reads.
async fn read_everything(store: &RedisStore) {
    let (ctx, acme) = (limited(), ns("acme"));
    for key in ["a", "b", "ttl", "new"] {
        answered("get", store.get(&ctx, &acme, key).await);
        answered("get_entry", store.get_entry(&ctx, &acme, key, GetOptions::new()).await);
    }
    let keys = ["a", "b", "ttl", "new", "a"];
    if let Some(many) =
        answered("get_many", store.get_many(&ctx, &acme, &keys, GetOptions::new()).await)
    {
        assert_eq!(many.len(), keys.len());
        for one in many {
            answered("an entry of get_many", one);
        }
    }
    if let Some(keys) = answered("list", store.list(&ctx, &acme, None).await) {
        assert!(keys.is_sorted_by(|one, next| one < next), "{keys:?}");
    }
    answered("list with a prefix", store.list(&ctx, &acme, Some("t")).await);
    if let Some(stats) = answered("stat", store.stat(&ctx, &acme, &keys).await) {
        assert_eq!(stats.len(), keys.len());
    }
    let all = ScanOptions::new;
    for mut options in [
        all(),
        all().keys_only(),
        all().with_limit(1),
        all().reversed(),
        all().reversed().with_limit(1).keys_only(),
    ] {
        let reversed = options.is_reversed();
        let follows = |one: &str, next: &str| if reversed { one > next } else { one < next };
        // There are fewer than 32 keys, so the pages must end.
        for _ in 0..32 {
            let Some(page) = answered("scan", store.scan(&ctx, &acme, options.clone()).await)
            else {
                break;
            };
            let keys: Vec<&str> = page.items.iter().map(|item| item.key.as_str()).collect();
            assert!(keys.is_sorted_by(|one, next| follows(one, next)), "{keys:?}");
            for value in page.items.into_iter().filter_map(|item| item.value) {
                answered("an entry of scan", value);
            }
            let Some(next) = page.next else { break };
            assert!(
                options.after().is_none_or(|after| follows(after, &next)),
                "the cursor goes backwards"
            );
            options = options.with_after(next);
        }
    }
    let mut options = RecursiveScanOptions::new().with_limit(2);
    for _ in 0..32 {
        let scan = store.scan_recursive(&ctx, &under("acme"), options.clone()).await;
        let Some(page) = answered("recursive scan", scan) else { break };
        let Some(next) = page.next else { break };
        let place = (next.namespace.as_str(), next.key.as_str());
        let follows = options
            .after()
            .is_none_or(|after| (after.namespace.as_str(), after.key.as_str()) < place);
        assert!(follows, "the cursor goes backwards");
        options = options.with_after(next);
    }
    answered("usage", store.usage(&ctx, &under("acme")).await);
    answered("namespaces", store.scan_namespaces(&ctx, &under("acme"), None, 10).await);
    answered("namespaces below", store.scan_namespaces(&ctx, &under("acme:x"), None, 1).await);
    answered("tenants", store.scan_tenants(&ctx, None, 10).await);
}

/// Makes each call that writes.
async fn write_everything(store: &RedisStore) {
    let (ctx, acme) = (limited(), ns("acme"));
    let ttl = PutOptions::new().with_ttl(LIMIT * 10);
    let slide = GetOptions::new().with_extended_ttl(LIMIT * 20).refreshing();
    answered("extend", store.get_entry(&ctx, &acme, "ttl", slide).await);
    let refresh = GetOptions::new().refreshing();
    answered("refresh", store.get_many(&ctx, &acme, &["a", "ttl", "new"], refresh).await);
    answered("refresh a page", store.scan(&ctx, &acme, ScanOptions::new().refreshing()).await);
    let keys = ScanOptions::new().refreshing().keys_only();
    answered("refresh a page of keys", store.scan(&ctx, &acme, keys).await);
    answered("touch", store.touch(&ctx, &acme, "a", Expiry::After(LIMIT), Condition::Always).await);
    answered("persist", store.touch(&ctx, &acme, "ttl", Expiry::Never, Condition::Always).await);
    let idle = Expiry::Idle(LIMIT * 10);
    answered("touch idle", store.touch(&ctx, &acme, "b", idle, Condition::Always).await);
    answered("put", store.put(&ctx, &acme, "a", bytes("written")).await);
    answered(
        "put with a TTL",
        store.put_with_options(&ctx, &acme, "b", bytes("written"), ttl).await,
    );
    answered("put a new key", store.put(&ctx, &acme, "new", bytes("written")).await);
    let always = Condition::Always;
    let batch = Batch::new().put_with("ttl", bytes("written"), ttl, always).delete("new");
    answered("write", store.write(&ctx, &acme, batch).await);
    // The condition may hold or not.
    let conditions =
        [Condition::IfAbsent, Condition::IfPresent, Condition::IfVersion(Version::draw())];
    for condition in conditions {
        let batch = Batch::new().put_with("a", bytes("written"), PutOptions::new(), condition);
        match store.write(&ctx, &acme, batch).await {
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            other => drop(answered("write with a condition", other)),
        }
    }
    answered("delete a prefix", store.delete_prefix(&ctx, &acme, "t", 2).await);
    answered("take", store.take(&ctx, &acme, "a").await);
    answered("delete", store.delete(&ctx, &acme, "b").await);
    answered("put elsewhere", store.put(&ctx, &ns("acme:fresh"), "k", bytes("written")).await);
    answered("sweep", store.evict_expired(&ctx).await);
}

/// Asserts that two other namespaces are unaffected: one of the same tenant and one of another. If
/// the indexes of tenants and namespaces are intact, they also list the namespaces.
async fn check_other_namespaces(store: &RedisStore, indexes_are_intact: bool) {
    let ctx = limited();
    for name in ["acme:other", "globex"] {
        let other = ns(name);
        assert_eq!(store.get(&ctx, &other, "k").await.unwrap().unwrap(), bytes("theirs"), "{name}");
        assert_eq!(store.list(&ctx, &other, None).await.unwrap(), ["k"], "{name}");
        let page = store.scan(&ctx, &other, ScanOptions::new()).await.unwrap();
        assert_eq!(page.items[0].value.as_ref().unwrap().as_ref().unwrap(), &bytes("theirs"));
    }
    if indexes_are_intact {
        let names = store.scan_namespaces(&ctx, &under("globex"), None, 10).await.unwrap();
        assert_eq!(names.items, [ns("globex")]);
        assert_eq!(store.usage(&ctx, &under("acme:other")).await.unwrap().entries, 1);
    }
}

/// Corrupts keys, makes every call, and deletes the keys.
async fn check_every_call(corruptions: &[Corruption]) {
    let (server, prefix) = (shared_server(), new_prefix());
    let store = open(server.url(), &prefix).await;
    let acme = ns("acme");
    for key in ["a", "b"] {
        store.put(&ctx(), &acme, key, bytes("old")).await.unwrap();
    }
    let ttl = PutOptions::new().with_ttl(LIMIT * 10);
    store.put_with_options(&ctx(), &acme, "ttl", bytes("old"), ttl).await.unwrap();
    for name in ["acme:other", "globex"] {
        store.put(&ctx(), &ns(name), "k", bytes("theirs")).await.unwrap();
    }
    let mut raw = connect(server).await;
    let intact = corruptions.iter().all(|corruption| corruption.key < NAMESPACE_KEYS);
    for corruption in corruptions {
        apply(&mut raw, &prefix, corruption).await;
    }
    read_everything(&store).await;
    check_other_namespaces(&store, intact).await;
    write_everything(&store).await;
    for corruption in corruptions {
        apply(&mut raw, &prefix, corruption).await;
    }
    read_everything(&store).await;
    check_other_namespaces(&store, intact).await;
    answered("erase", store.erase(&limited(), &under("acme"), 1000).await);
    let globex = store.get(&limited(), &ns("globex"), "k").await.unwrap();
    assert_eq!(globex.unwrap(), bytes("theirs"));
    // An operator can repair the namespace by deleting the damaged keys.
    for name in KEYS {
        let key = format!("{prefix}{name}");
        let () = redis::cmd("DEL").arg(key).query_async(&mut raw).await.unwrap();
    }
    store.put(&limited(), &acme, "a", bytes("new")).await.unwrap();
    assert_eq!(store.list(&limited(), &acme, None).await.unwrap(), ["a"]);
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn foreign_data_in_keys_is_answered_or_corrupt(
        corruptions in prop::collection::vec(any_corruption(), 1..4),
    ) {
        block_on(check_every_call(&corruptions));
    }

    #[test]
    fn foreign_value_bytes_are_returned_or_a_codec_error(
        value in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        block_on(check_foreign_value(&value));
    }
}

/// Writes raw bytes into a value. Asserts that untyped reads return them, and that typed reads
/// decode them or fail with a codec error.
async fn check_foreign_value(value: &[u8]) {
    let (server, prefix) = (shared_server(), new_prefix());
    let store = open(server.url(), &prefix).await;
    for key in ["a", "b"] {
        store.put(&ctx(), &ns("acme"), key, bytes("7")).await.unwrap();
    }
    let mut raw = connect(server).await;
    let mut set = redis::cmd("SET");
    set.arg(format!("{prefix}{{acme}}va")).arg(value);
    let () = set.query_async(&mut raw).await.unwrap();
    let read = store.get(&ctx(), &ns("acme"), "a").await.unwrap();
    assert_eq!(read.unwrap(), value);
    let typed = store.typed::<Vec<String>>();
    let page = typed.scan(&ctx(), &ns("acme"), ScanOptions::new()).await.unwrap();
    let values = page.items.iter().map(|item| item.value.as_ref().unwrap().as_ref());
    let found: Vec<_> = values.map(|value| value.map_err(Error::kind)).collect();
    let expected = serde_json::from_slice::<Vec<String>>(value).map_err(|_| ErrorKind::Codec);
    assert_eq!(found, [expected.as_ref().map_err(|kind| *kind), Err(ErrorKind::Codec)]);
}

fn corruption(key: &str, deletes: bool, command: &[&[u8]]) -> Corruption {
    let key = KEYS.iter().position(|known| *known == key).unwrap();
    Corruption { key, deletes, command: command.iter().map(|word| word.to_vec()).collect() }
}

/// Returns the metadata of an entry that never expires, with a value of that length.
fn meta_of(length: u32) -> Vec<u8> {
    [&[0; 34][..], &length.to_be_bytes()].concat()
}

/// Inputs that [`foreign_data_in_keys_is_answered_or_corrupt`] found, and similar ones.
#[tokio::test(flavor = "multi_thread")]
async fn past_counterexamples_are_answered_or_corrupt() {
    let long = meta_of(16 * 1024 * 1024 - 10);
    for corruptions in [
        // More bytes than one script reads, and a key that is not a string.
        vec![
            corruption("{acme}va", false, &[b"HSET", b"a", b""]),
            corruption("{acme}m", false, &[b"HSET", b"a", &long]),
        ],
        vec![corruption("{acme}m", false, &[b"HSET", b"a", b"short"])],
        vec![corruption("{acme}m", false, &[b"HSET", b"a", b""])],
        // Members with a score other than 0, which are not sorted by name.
        vec![corruption("{acme}k", false, &[b"ZADD", b"-1", b"zz"])],
        vec![corruption("{acme}k", false, &[b"ZADD", b"1", b"a"])],
        vec![corruption("{acme}n", false, &[b"ZADD", b"-1", b"zz\x001"])],
        vec![corruption("{acme}g", false, &[b"ZADD", b"1", b"acme\x001"])],
        // More expired members than keys.
        vec![
            corruption("{acme}x", false, &[b"ZADD", b"1", b"one"]),
            corruption("{acme}x", false, &[b"ZADD", b"1", b"two"]),
            corruption("{acme}k", true, &[b"ZADD", b"0", b"a"]),
        ],
        // Fences and tokens that are not numbers.
        vec![corruption("{acme}f", true, &[b"SET", b"x"])],
        vec![corruption("{acme}f", true, &[b"SET", b"nan"])],
        vec![corruption("{acme}f", true, &[b"SET", b"-1e300"])],
        vec![corruption("{acme}n", true, &[b"ZADD", b"0", b"acme\0x"])],
        vec![corruption("{acme}n", true, &[b"ZADD", b"0", b"acme\0inf"])],
        vec![corruption("{acme}n", true, &[b"ZADD", b"0", b"acme\x001e300"])],
    ] {
        check_every_call(&corruptions).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn non_numeric_tokens_and_fences_are_replaced() {
    let (server, prefix) = (shared_server(), new_prefix());
    let store = open(server.url(), &prefix).await;
    let mut raw = connect(server).await;
    for token in ["x", "", "nan", "inf", "-1", "1e300"] {
        let fresh = ns(&format!("acme:token {token}"));
        let member = format!("{fresh}\0{token}");
        apply(
            &mut raw,
            &prefix,
            &corruption("{acme}n", false, &[b"ZADD", b"0", member.as_bytes()]),
        )
        .await;
        store.put(&ctx(), &fresh, "k", bytes("v")).await.unwrap();
        let listed = store.scan_namespaces(&ctx(), &under(fresh.as_str()), None, 10).await.unwrap();
        assert_eq!(listed.items, [fresh]);
    }
    let acme = ns("acme");
    for fence in ["x", "nan", "-1", "1e300"] {
        store.put(&ctx(), &acme, "k", bytes("v")).await.unwrap();
        apply(&mut raw, &prefix, &corruption("{acme}f", true, &[b"SET", fence.as_bytes()])).await;
        store.erase(&ctx(), &under("acme"), 1000).await.unwrap();
    }
    store.put(&ctx(), &acme, "k", bytes("v")).await.unwrap();
    assert_eq!(store.list(&ctx(), &acme, None).await.unwrap(), ["k"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn erase_removes_unreadable_entries() {
    let (server, prefix) = (shared_server(), new_prefix());
    let store = open(server.url(), &prefix).await;
    let mut raw = connect(server).await;
    let acme = ns("acme");
    for meta in [&b""[..], b"short", &[0xff; 38], &[0; 60]] {
        for key in ["a", "b"] {
            store.put(&ctx(), &acme, key, bytes("v")).await.unwrap();
        }
        apply(&mut raw, &prefix, &corruption("{acme}m", false, &[b"HSET", b"a", meta])).await;
        let erased = store.erase(&ctx(), &under("acme"), 1000).await.unwrap();
        assert_eq!((erased.removed, erased.done), (2, true), "{meta:?}");
        assert_eq!(store.get(&ctx(), &acme, "a").await.unwrap(), None);
        assert_eq!(store.list(&ctx(), &acme, None).await.unwrap(), Vec::<String>::new());
    }
}
