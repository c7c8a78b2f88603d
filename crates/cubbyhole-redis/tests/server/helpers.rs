//! Servers, stores, raw commands, and the contents of a server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use cubbyhole_core::Store;
use cubbyhole_redis::{Config, RedisStore};
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{ctx, ns};
use tokio::task::block_in_place;

/// Returns the server of all tests that do not disturb it. Each test uses its own
/// [prefix](new_prefix).
pub(crate) fn shared_server() -> &'static RedisServer {
    static SERVER: OnceLock<RedisServer> = OnceLock::new();
    SERVER.get_or_init(|| RedisServer::start().unwrap())
}

/// Starts a server that loses no acknowledged write.
pub(crate) fn durable_server() -> RedisServer {
    block_in_place(|| RedisServer::start_with(&["appendonly yes", "appendfsync always"])).unwrap()
}

/// Returns a prefix that no other test uses.
pub(crate) fn new_prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("t{}:", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Returns a configuration with one connection, which keeps commands in the order of the calls.
pub(crate) fn config(url: &str, prefix: &str) -> Config {
    Config::from_url(url).unwrap().with_prefix(prefix).unwrap().with_connections(1)
}

pub(crate) async fn open(url: &str, prefix: &str) -> RedisStore {
    RedisStore::open(&ctx(), config(url, prefix)).await.unwrap()
}

/// Opens a store whose connections are all established.
pub(crate) async fn open_with_connections(
    url: &str,
    prefix: &str,
    connections: usize,
) -> RedisStore {
    let config = config(url, prefix).with_connections(connections);
    let store = RedisStore::open(&ctx(), config).await.unwrap();
    read_on_each_connection(&store, connections).await;
    store
}

/// Reads on each connection. The server has then answered all earlier requests on it.
///
/// The namespace selects the connection, so many namespaces reach all connections.
pub(crate) async fn read_on_each_connection(store: &RedisStore, connections: usize) {
    for number in 0..16 * connections {
        store.get(&ctx(), &ns(&format!("none{number}")), "none").await.unwrap();
    }
}

/// Returns the server's answer to a raw command.
pub(crate) fn cli(server: &RedisServer, command: &[&str]) -> String {
    match server.cli(command) {
        Ok(answer) => answer,
        Err(error) => panic!("{command:?}: {error}"),
    }
}

/// Returns the number that the server answers to a raw command.
pub(crate) fn cli_number(server: &RedisServer, command: &[&str]) -> u64 {
    let answer = cli(server, command);
    answer.parse().unwrap_or_else(|_| panic!("{command:?}: {answer:?}"))
}

/// Returns the names of all keys with that prefix. The names must not contain newlines.
pub(crate) fn keys(server: &RedisServer, prefix: &str) -> BTreeSet<String> {
    let all = cli(server, &["KEYS", "*"]);
    all.lines().filter(|key| key.starts_with(prefix)).map(str::to_owned).collect()
}

/// Returns each key with that prefix, with its serialised value and its expiry.
pub(crate) fn dump_keys(server: &RedisServer, prefix: &str) -> BTreeMap<String, (String, String)> {
    let dump = |key: String| {
        let contents = (cli(server, &["DUMP", &key]), cli(server, &["PEXPIRETIME", &key]));
        (key, contents)
    };
    keys(server, prefix).into_iter().map(dump).collect()
}

/// Replaces a key with one of a type that the store never uses.
pub(crate) fn replace_with_list(server: &RedisServer, key: &str) {
    cli(server, &["DEL", key]);
    cli(server, &["LPUSH", key, "foreign"]);
}

/// Returns the names in an index without their tokens. The marker is an empty name.
pub(crate) fn index_names(server: &RedisServer, index: &str) -> Vec<String> {
    let members = cli(server, &["ZRANGE", index, "0", "-1"]);
    let name = |member: &str| member.split('\0').next().unwrap_or_default().to_owned();
    members.lines().map(name).collect()
}

/// Returns how often the server has run a command, also within scripts.
pub(crate) fn calls_of(server: &RedisServer, command: &str) -> u64 {
    let stats = cli(server, &["INFO", "commandstats"]);
    let start = format!("cmdstat_{command}:calls=");
    let line = stats.lines().find_map(|line| line.strip_prefix(&start));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

/// Returns the server's used memory in bytes.
pub(crate) fn used_memory(server: &RedisServer) -> u64 {
    let info = cli(server, &["INFO", "memory"]);
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    used.trim().parse().unwrap()
}

/// Returns the ids of the server's clients, without the connection that asks.
pub(crate) fn client_ids(server: &RedisServer) -> Vec<String> {
    let clients = cli(server, &["CLIENT", "LIST"]);
    let id = |line: &str| {
        let id = line.split(' ').next().and_then(|word| word.strip_prefix("id="));
        id.unwrap().to_owned()
    };
    let mut ids: Vec<String> = clients.lines().map(id).collect();
    // The connection that asks is the newest.
    ids.pop();
    ids
}

/// Returns the time of a server with a test clock, in milliseconds since 1970.
pub(crate) fn server_millis(server: &RedisServer) -> u64 {
    u64::try_from(server.now().unwrap().as_millis()).unwrap()
}
