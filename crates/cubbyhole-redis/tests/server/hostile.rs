//! Keys of the store that another program has written any bytes into, or made of another type: each
//! call gives an answer or says that what is stored is damaged, in time; other namespaces are as they
//! were, and what is erased can be written anew. `PROPTEST_CASES` sets how many cases are tried.

use std::fmt::Debug;
use std::time::Duration;

use cubbyhole_core::{
    Batch, Condition, EntryStore, Error, ErrorKind, ExecutionContext, Expiry, GetOptions,
    PutOptions, ScanOptions, Store, TypedExt, Version,
};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{bytes, ctx, ns, shown, under};
use proptest::prelude::*;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;

use crate::by_hand::{new_prefix, open, shared};

/// More than any of these calls takes, and less than a test that hangs.
const IN_TIME: Duration = Duration::from_secs(20);
/// A server takes part in each case: a quarter of what others try.
const SHARE: u32 = 4;

/// A failure is printed, shrunk, and leaves no file in the sources.
fn cases() -> ProptestConfig {
    let usual = ProptestConfig::default();
    let cases = usual.cases.div_ceil(SHARE);
    ProptestConfig { failure_persistence: None, cases, ..usual }
}

/// The keys of the tenant `acme` and of its namespace, and the index of tenants.
const NAMES: [&str; 9] = [
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
/// Those that no other namespace has a part in.
const OWN_NAMES: usize = 6;

/// A command by hand, without the key, which stands in second place.
#[derive(Debug, Clone)]
struct Spoil {
    name: usize,
    anew: bool,
    command: Vec<Vec<u8>>,
}

/// A name in an index or a field of the meta data: one that is there, nearly one, or any bytes.
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

/// Meta data that is too short, too long, out of range, or any bytes of the right length.
fn meta() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![1 => 0..60_usize, 3 => 38..=38_usize];
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

fn spoil() -> impl Strategy<Value = Spoil> {
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
    (0..NAMES.len(), any::<bool>(), command).prop_map(|(name, anew, command)| Spoil {
        name,
        anew,
        command,
    })
}

/// A connection of the test's own.
async fn raw(server: &RedisServer) -> MultiplexedConnection {
    let client = redis::Client::open(server.url()).unwrap();
    // The client's own limits are shorter than a busy machine may take.
    let patient = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(IN_TIME))
        .set_response_timeout(Some(IN_TIME));
    client.get_multiplexed_async_connection_with_config(&patient).await.unwrap()
}

async fn by_hand(raw: &mut MultiplexedConnection, prefix: &str, spoil: &Spoil) {
    let key = format!("{prefix}{}", NAMES[spoil.name]);
    if spoil.anew {
        let () = redis::cmd("DEL").arg(&key).query_async(raw).await.unwrap();
    }
    let [verb, arguments @ ..] = &spoil.command[..] else { return };
    let mut command = redis::Cmd::new();
    command.arg(verb).arg(&key);
    for argument in arguments {
        command.arg(argument);
    }
    // A command for another type is refused: then nothing is spoilt.
    drop(command.query_async::<redis::Value>(raw).await);
}

/// What a call may come to: an answer, or that what is stored is damaged.
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

fn in_time() -> ExecutionContext {
    ctx().with_timeout(IN_TIME)
}

/// Reads in each way there is; what one way shows of a value, all do.
async fn read_everything(store: &RedisStore) {
    let (ctx, acme) = (in_time(), ns("acme"));
    for key in ["a", "b", "ttl", "new"] {
        answered("get", store.get(&ctx, &acme, key).await);
        answered("get_entry", store.get_entry(&ctx, &acme, key, GetOptions::new()).await);
    }
    let keys = ["a", "b", "ttl", "new", "a"];
    if let Some(many) = answered("get_many", store.get_many(&ctx, &acme, &keys).await) {
        assert_eq!(many.len(), keys.len());
        for one in many {
            answered("one of get_many", one);
        }
    }
    if let Some(keys) = answered("list", store.list(&ctx, &acme, None).await) {
        assert!(keys.is_sorted_by(|one, next| one < next), "{keys:?}");
    }
    answered("list with a prefix", store.list(&ctx, &acme, Some("t")).await);
    for options in
        [ScanOptions::new(), ScanOptions::new().keys_only(), ScanOptions::new().with_limit(1)]
    {
        let mut options = options;
        // Pages come to an end: there are not as many keys as this.
        for _ in 0..32 {
            let Some(page) = answered("scan", store.scan(&ctx, &acme, options.clone()).await)
            else {
                break;
            };
            let keys: Vec<&String> = page.items.iter().map(|item| &item.key).collect();
            assert!(keys.is_sorted_by(|one, next| one < next), "{keys:?}");
            for value in page.items.into_iter().filter_map(|item| item.value) {
                answered("one of scan", value);
            }
            let Some(next) = page.next else { break };
            assert!(options.after().is_none_or(|after| after < next.as_str()), "it goes backwards");
            options = options.with_after(next);
        }
    }
    answered("usage", store.usage(&ctx, &under("acme")).await);
    answered("namespaces", store.scan_namespaces(&ctx, &under("acme"), None, 10).await);
    answered("namespaces beneath", store.scan_namespaces(&ctx, &under("acme:x"), None, 1).await);
    answered("tenants", store.scan_tenants(&ctx, None, 10).await);
}

async fn write_everything(store: &RedisStore) {
    let (ctx, acme) = (in_time(), ns("acme"));
    let ttl = PutOptions::new().with_ttl(IN_TIME * 10);
    let slide = GetOptions::new().with_extended_ttl(IN_TIME * 20);
    answered("slide", store.get_entry(&ctx, &acme, "ttl", slide).await);
    answered("touch", store.touch(&ctx, &acme, "a", Expiry::After(IN_TIME)).await);
    answered("persist", store.touch(&ctx, &acme, "ttl", Expiry::Never).await);
    answered("put", store.put(&ctx, &acme, "a", bytes("written")).await);
    answered(
        "put to expire",
        store.put_with_options(&ctx, &acme, "b", bytes("written"), ttl).await,
    );
    answered("put anew", store.put(&ctx, &acme, "new", bytes("written")).await);
    let always = Condition::Always;
    let batch = Batch::new().put_with("ttl", bytes("written"), ttl, always).delete("new");
    answered("write", store.write(&ctx, &acme, batch).await);
    // A condition may hold or not, and either is an answer.
    for condition in [Condition::IfAbsent, Condition::IfVersion(Version::draw())] {
        let batch = Batch::new().put_with("a", bytes("written"), PutOptions::new(), condition);
        match store.write(&ctx, &acme, batch).await {
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            other => drop(answered("write with a condition", other)),
        }
    }
    answered("take", store.take(&ctx, &acme, "a").await);
    answered("delete", store.delete(&ctx, &acme, "b").await);
    answered("put elsewhere", store.put(&ctx, &ns("acme:fresh"), "k", bytes("written")).await);
    answered("sweep", store.evict_expired(&ctx).await);
}

/// Both namespaces that nobody touched: another of the tenant's, and another tenant's.
async fn others_are_as_they_were(store: &RedisStore, tenants_too: bool) {
    let ctx = in_time();
    for name in ["acme:other", "globex"] {
        let other = ns(name);
        assert_eq!(store.get(&ctx, &other, "k").await.unwrap().unwrap(), bytes("theirs"), "{name}");
        assert_eq!(store.list(&ctx, &other, None).await.unwrap(), ["k"], "{name}");
        let page = store.scan(&ctx, &other, ScanOptions::new()).await.unwrap();
        assert_eq!(page.items[0].value.as_ref().unwrap().as_ref().unwrap(), &bytes("theirs"));
    }
    if tenants_too {
        let names = store.scan_namespaces(&ctx, &under("globex"), None, 10).await.unwrap();
        assert_eq!(names.items, [ns("globex")]);
        assert_eq!(store.usage(&ctx, &under("acme:other")).await.unwrap().entries, 1);
    }
}

async fn spoilt_in_every_call(spoils: &[Spoil]) {
    let (server, prefix) = (shared(), new_prefix());
    let store = open(server.url(), &prefix).await;
    let acme = ns("acme");
    for key in ["a", "b"] {
        store.put(&ctx(), &acme, key, bytes("old")).await.unwrap();
    }
    let ttl = PutOptions::new().with_ttl(IN_TIME * 10);
    store.put_with_options(&ctx(), &acme, "ttl", bytes("old"), ttl).await.unwrap();
    for name in ["acme:other", "globex"] {
        store.put(&ctx(), &ns(name), "k", bytes("theirs")).await.unwrap();
    }
    let mut raw = raw(server).await;
    let own = spoils.iter().all(|spoil| spoil.name < OWN_NAMES);
    for spoil in spoils {
        by_hand(&mut raw, &prefix, spoil).await;
    }
    read_everything(&store).await;
    others_are_as_they_were(&store, own).await;
    write_everything(&store).await;
    for spoil in spoils {
        by_hand(&mut raw, &prefix, spoil).await;
    }
    read_everything(&store).await;
    others_are_as_they_were(&store, own).await;
    answered("erase", store.erase(&in_time(), &under("acme"), 1000).await);
    let globex = store.get(&in_time(), &ns("globex"), "k").await.unwrap();
    assert_eq!(globex.unwrap(), bytes("theirs"));
    // What an operator does in the end: the damaged keys removed, the place is as good as new.
    for name in NAMES {
        let key = format!("{prefix}{name}");
        let () = redis::cmd("DEL").arg(key).query_async(&mut raw).await.unwrap();
    }
    store.put(&in_time(), &acme, "a", bytes("new")).await.unwrap();
    assert_eq!(store.list(&in_time(), &acme, None).await.unwrap(), ["a"]);
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn whatever_stands_in_the_keys_is_answered_or_corrupt(
        spoils in prop::collection::vec(spoil(), 1..4),
    ) {
        block_on(spoilt_in_every_call(&spoils));
    }

    #[test]
    fn any_bytes_in_a_value_are_that_value_and_a_codec_error_when_they_are_not_of_the_type(
        value in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        block_on(async {
            let (server, prefix) = (shared(), new_prefix());
            let store = open(server.url(), &prefix).await;
            for key in ["a", "b"] {
                store.put(&ctx(), &ns("acme"), key, bytes("7")).await.unwrap();
            }
            let mut raw = raw(server).await;
            let mut set = redis::cmd("SET");
            set.arg(format!("{prefix}{{acme}}va")).arg(&value);
            let () = set.query_async(&mut raw).await.unwrap();
            let read = store.get(&ctx(), &ns("acme"), "a").await.unwrap();
            assert_eq!(read.unwrap(), value);
            let typed = store.typed::<Vec<String>>();
            let page = typed.scan(&ctx(), &ns("acme"), ScanOptions::new()).await.unwrap();
            let kinds = page.items.iter().map(|item| item.value.as_ref().unwrap().as_ref().map_err(Error::kind));
            let expected = serde_json::from_slice::<Vec<String>>(&value).map_err(|_| ErrorKind::Codec);
            assert_eq!(kinds.collect::<Vec<_>>(), [expected.as_ref().map_err(|kind| *kind), Err(ErrorKind::Codec)]);
        });
    }
}

fn spoilt(name: &str, anew: bool, command: &[&[u8]]) -> Spoil {
    let name = NAMES.iter().position(|known| *known == name).unwrap();
    Spoil { name, anew, command: command.iter().map(|word| word.to_vec()).collect() }
}

/// Meta data of an entry that never expires and whose value is so long.
fn meta_of(length: u32) -> Vec<u8> {
    [&[0; 34][..], &length.to_be_bytes()].concat()
}

/// Each was found by the property above, or is what it stands for.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_found_once_is_answered_or_corrupt() {
    let long = meta_of(16 * 1024 * 1024 - 10);
    for spoils in [
        // More than one script reads, twice, and no string.
        vec![
            spoilt("{acme}va", false, &[b"HSET", b"a", b""]),
            spoilt("{acme}m", false, &[b"HSET", b"a", &long]),
        ],
        vec![spoilt("{acme}m", false, &[b"HSET", b"a", b"short"])],
        vec![spoilt("{acme}m", false, &[b"HSET", b"a", b""])],
        // Members in another order than that of their names.
        vec![spoilt("{acme}k", false, &[b"ZADD", b"-1", b"zz"])],
        vec![spoilt("{acme}k", false, &[b"ZADD", b"1", b"a"])],
        vec![spoilt("{acme}n", false, &[b"ZADD", b"-1", b"zz\x001"])],
        vec![spoilt("{acme}g", false, &[b"ZADD", b"1", b"acme\x001"])],
        // More that has expired than there is.
        vec![
            spoilt("{acme}x", false, &[b"ZADD", b"1", b"one"]),
            spoilt("{acme}x", false, &[b"ZADD", b"1", b"two"]),
            spoilt("{acme}k", true, &[b"ZADD", b"0", b"a"]),
        ],
        // Fences and tokens that are no numbers.
        vec![spoilt("{acme}f", true, &[b"SET", b"x"])],
        vec![spoilt("{acme}f", true, &[b"SET", b"nan"])],
        vec![spoilt("{acme}f", true, &[b"SET", b"-1e300"])],
        vec![spoilt("{acme}n", true, &[b"ZADD", b"0", b"acme\0x"])],
        vec![spoilt("{acme}n", true, &[b"ZADD", b"0", b"acme\0inf"])],
        vec![spoilt("{acme}n", true, &[b"ZADD", b"0", b"acme\x001e300"])],
    ] {
        spoilt_in_every_call(&spoils).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_fences_that_are_no_numbers_are_replaced() {
    let (server, prefix) = (shared(), new_prefix());
    let store = open(server.url(), &prefix).await;
    let mut raw = raw(server).await;
    for token in ["x", "", "nan", "inf", "-1", "1e300"] {
        let fresh = ns(&format!("acme:token {token}"));
        let member = format!("{fresh}\0{token}");
        by_hand(&mut raw, &prefix, &spoilt("{acme}n", false, &[b"ZADD", b"0", member.as_bytes()]))
            .await;
        store.put(&ctx(), &fresh, "k", bytes("v")).await.unwrap();
        let listed = store.scan_namespaces(&ctx(), &under(fresh.as_str()), None, 10).await.unwrap();
        assert_eq!(listed.items, [fresh]);
    }
    let acme = ns("acme");
    for fence in ["x", "nan", "-1", "1e300"] {
        store.put(&ctx(), &acme, "k", bytes("v")).await.unwrap();
        by_hand(&mut raw, &prefix, &spoilt("{acme}f", true, &[b"SET", fence.as_bytes()])).await;
        store.erase(&ctx(), &under("acme"), 1000).await.unwrap();
    }
    store.put(&ctx(), &acme, "k", bytes("v")).await.unwrap();
    assert_eq!(store.list(&ctx(), &acme, None).await.unwrap(), ["k"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_erased() {
    let (server, prefix) = (shared(), new_prefix());
    let store = open(server.url(), &prefix).await;
    let mut raw = raw(server).await;
    let acme = ns("acme");
    for meta in [&b""[..], b"short", &[0xff; 38], &[0; 60]] {
        for key in ["a", "b"] {
            store.put(&ctx(), &acme, key, bytes("v")).await.unwrap();
        }
        by_hand(&mut raw, &prefix, &spoilt("{acme}m", false, &[b"HSET", b"a", meta])).await;
        let erased = store.erase(&ctx(), &under("acme"), 1000).await.unwrap();
        assert_eq!((erased.removed, erased.done), (2, true), "{meta:?}");
        assert_eq!(store.get(&ctx(), &acme, "a").await.unwrap(), None);
        assert_eq!(store.list(&ctx(), &acme, None).await.unwrap(), Vec::<String>::new());
    }
}
