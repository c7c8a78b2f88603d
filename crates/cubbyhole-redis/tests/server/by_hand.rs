//! Servers, stores and commands by hand.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use cubbyhole_core::Store;
use cubbyhole_redis::{Config, RedisStore};
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{ctx, ns};

/// The server of those tests that do it no harm; each has a prefix of its own on it.
pub(crate) fn shared() -> &'static RedisServer {
    static SERVER: OnceLock<RedisServer> = OnceLock::new();
    SERVER.get_or_init(|| RedisServer::start().unwrap())
}

/// A prefix that no other test has.
pub(crate) fn new_prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("t{}:", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// With one connection, on which the order of what is sent is known.
pub(crate) fn config(url: &str, prefix: &str) -> Config {
    Config::from_url(url).unwrap().with_prefix(prefix).unwrap().with_connections(1)
}

pub(crate) async fn open(url: &str, prefix: &str) -> RedisStore {
    RedisStore::open(&ctx(), config(url, prefix)).await.unwrap()
}

/// With several connections, all of which are open.
pub(crate) async fn open_several(url: &str, prefix: &str, connections: usize) -> RedisStore {
    let config = config(url, prefix).with_connections(connections);
    let store = RedisStore::open(&ctx(), config).await.unwrap();
    use_each(&store, connections).await;
    store
}

/// Reads on each connection: what was sent on them before is answered then. The namespaces are
/// divided among them, so that some of many are on each.
pub(crate) async fn use_each(store: &RedisStore, connections: usize) {
    for number in 0..16 * connections {
        store.get(&ctx(), &ns(&format!("none{number}")), "none").await.unwrap();
    }
}

/// What the server answers to a command by hand.
pub(crate) fn cli(server: &RedisServer, command: &[&str]) -> String {
    match server.cli(command) {
        Ok(answer) => answer,
        Err(error) => panic!("{command:?}: {error}"),
    }
}

/// A number that the server answers to a command by hand.
pub(crate) fn number(server: &RedisServer, command: &[&str]) -> u64 {
    let answer = cli(server, command);
    answer.parse().unwrap_or_else(|_| panic!("{command:?}: {answer:?}"))
}

/// The names of all keys that begin so, which must not hold newlines.
pub(crate) fn keys(server: &RedisServer, prefix: &str) -> BTreeSet<String> {
    let all = cli(server, &["KEYS", "*"]);
    all.lines().filter(|key| key.starts_with(prefix)).map(str::to_owned).collect()
}

/// The names in an index: what is listed, without tokens, and the marker as an empty name.
pub(crate) fn listed(server: &RedisServer, index: &str) -> Vec<String> {
    let members = cli(server, &["ZRANGE", index, "0", "-1"]);
    let name = |member: &str| member.split('\0').next().unwrap_or_default().to_owned();
    members.lines().map(name).collect()
}

/// How often the server ran a command, from scripts too.
pub(crate) fn calls_of(server: &RedisServer, command: &str) -> u64 {
    let stats = cli(server, &["INFO", "commandstats"]);
    let start = format!("cmdstat_{command}:calls=");
    let line = stats.lines().find_map(|line| line.strip_prefix(&start));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

/// A server's own clock, in milliseconds since 1970.
pub(crate) fn clock(server: &RedisServer) -> u64 {
    u64::try_from(server.now().unwrap().as_millis()).unwrap()
}
