//! A proxy in front of Redis that records the commands of the client, and holds or resets them by a
//! rule.

use std::ops::Deref;
use std::sync::Mutex;

use cubbyhole_core::Store;
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{bytes, ctx, ns, until, within};
pub(crate) use cubbyhole_testkit::proxy::Gate;
use cubbyhole_testkit::proxy::{Protocol, Proxy};

use crate::helpers::{new_prefix, open, shared_server};

/// The name and the arguments of a command.
pub(crate) type Command = [Vec<u8>];

type Rule = Box<dyn FnMut(&Command) -> Gate + Send>;

pub(crate) struct RedisProxy(Proxy<RedisProtocol>);

#[derive(Default)]
pub(crate) struct RedisProtocol {
    rule: Mutex<Option<Rule>>,
    sent: Mutex<Vec<Vec<Vec<u8>>>>,
}

impl Protocol for RedisProtocol {
    fn request_length(&self, bytes: &[u8]) -> Option<usize> {
        command_length(bytes)
    }

    fn judge(&self, request: &mut Vec<u8>) -> Gate {
        let command = parse_command(request);
        let gate = self.rule.lock().unwrap().as_mut().map_or(Gate::Pass, |rule| rule(&command));
        self.sent.lock().unwrap().push(command);
        gate
    }
}

impl RedisProxy {
    pub(crate) async fn start(server: &RedisServer) -> Self {
        Self(Proxy::start(address_of(server), RedisProtocol::default()).await)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Returns the commands that the client has sent since the last call.
    pub(crate) fn take_commands(&self) -> Vec<Vec<Vec<u8>>> {
        std::mem::take(&mut self.protocol().sent.lock().unwrap())
    }

    /// Applies `rule` to each command from now on.
    pub(crate) fn set_rule(&self, rule: impl FnMut(&Command) -> Gate + Send + 'static) {
        *self.protocol().rule.lock().unwrap() = Some(Box::new(rule));
    }

    /// Applies `gate` to the first command that matches, and forwards all others.
    pub(crate) fn stop_first(
        &self,
        gate: Gate,
        matches: impl Fn(&Command) -> bool + Send + 'static,
    ) {
        let mut is_over = false;
        self.set_rule(move |command| {
            if is_over || !matches(command) {
                return Gate::Pass;
            }
            is_over = true;
            gate
        });
    }

    /// Holds the first command that matches.
    pub(crate) fn hold_first(&self, matches: impl Fn(&Command) -> bool + Send + 'static) {
        self.stop_first(Gate::Hold, matches);
    }

    /// Removes the rule, and forwards the commands that are held.
    pub(crate) fn release(&self) {
        *self.protocol().rule.lock().unwrap() = None;
        self.0.release();
    }

    /// Forwards new connections to this server.
    pub(crate) fn lead_to(&self, server: &RedisServer) {
        self.0.lead_to(address_of(server));
    }
}

impl Deref for RedisProxy {
    type Target = Proxy<RedisProtocol>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// A store whose connection leads through a proxy, and a direct store with the same prefix.
pub(crate) struct ProxiedStore {
    pub(crate) proxy: RedisProxy,
    pub(crate) prefix: String,
    pub(crate) store: RedisStore,
    pub(crate) direct: RedisStore,
}

impl ProxiedStore {
    pub(crate) async fn open(server: &RedisServer) -> Self {
        let (proxy, prefix) = (RedisProxy::start(server).await, new_prefix());
        let store = open(&proxy.url(), &prefix).await;
        let direct = open(server.url(), &prefix).await;
        Self { proxy, prefix, store, direct }
    }
}

fn address_of(server: &RedisServer) -> String {
    format!("127.0.0.1:{}", server.port())
}

/// Returns the keys of a script call, or no key for any other command.
pub(crate) fn script_keys(command: &Command) -> Vec<String> {
    if command.first().is_none_or(|name| !name.eq_ignore_ascii_case(b"EVALSHA")) {
        return Vec::new();
    }
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    let count = text(&command[2]).parse().unwrap();
    command[3..].iter().take(count).map(text).collect()
}

/// Returns whether a command is the script of puts and batches. The keys decide, so the test does
/// not depend on the form of the arguments.
pub(crate) fn is_write(command: &Command) -> bool {
    let keys = script_keys(command);
    let kinds = ["}k", "}m", "}x"];
    keys.len() > 3
        && keys.iter().zip(kinds).all(|(key, kind)| key.ends_with(kind))
        && keys[3].contains("}v")
}

/// Returns the length of the first command, or `None` if it is incomplete.
fn command_length(bytes: &[u8]) -> Option<usize> {
    let (count, mut at) = length_line(bytes, 0)?;
    for _ in 0..count {
        let (length, start) = length_line(bytes, at)?;
        at = start + length + 2;
    }
    (at <= bytes.len()).then_some(at)
}

/// Reads the number after a type byte. Returns it and the start of the next line.
fn length_line(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let rest = bytes.get(at..)?;
    let end = rest.windows(2).position(|window| window == b"\r\n")?;
    let number = std::str::from_utf8(&rest[1..end]).unwrap().parse().unwrap();
    Some((number, at + end + 2))
}

fn parse_command(command: &[u8]) -> Vec<Vec<u8>> {
    let (count, mut at) = length_line(command, 0).unwrap();
    let mut parts = Vec::with_capacity(count);
    for _ in 0..count {
        let (length, start) = length_line(command, at).unwrap();
        parts.push(command[start..start + length].to_vec());
        at = start + length + 2;
    }
    parts
}

#[test]
fn commands_are_split_and_parsed() {
    let two = b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n*1\r\n$0\r\n\r\n";
    for length in 0..23 {
        assert_eq!(command_length(&two[..length]), None, "{length}");
    }
    assert_eq!(command_length(two), Some(23));
    assert_eq!(parse_command(&two[..23]), [b"GET".to_vec(), b"a\r\nb".to_vec()]);
    assert_eq!(command_length(&two[23..]), Some(two.len() - 23));
}

#[tokio::test]
async fn proxy_counts_holds_silences_and_resets() {
    let proxy = RedisProxy::start(shared_server()).await;
    let store = open(&proxy.url(), &new_prefix()).await;
    let (acme, before) = (ns("acme"), proxy.round_trips());
    store.get(&ctx(), &acme, "a").await.unwrap();
    store.get(&ctx(), &acme, "b").await.unwrap();
    assert_eq!(proxy.round_trips() - before, 2);
    let (context, other) = (ctx(), ctx());
    let (a, b) = tokio::join!(store.get(&context, &acme, "a"), store.get(&other, &acme, "b"));
    a.and(b).unwrap();
    assert_eq!(
        proxy.round_trips() - before,
        3,
        "requests that are sent together are one round trip"
    );
    assert_eq!((proxy.connections(), proxy.open_connections()), (1, 1));

    proxy.take_commands();
    proxy.hold_first(|command| command[0] == b"GET");
    assert!(store.get(&within(100), &acme, "a").await.is_err());
    proxy.until_held().await;
    proxy.release();
    proxy.be_silent(true);
    assert!(store.get(&within(100), &acme, "a").await.is_err());
    proxy.be_silent(false);
    store.put(&ctx(), &acme, "a", bytes("v")).await.unwrap();
    assert_eq!(store.get(&ctx(), &acme, "a").await.unwrap(), Some(bytes("v")));
    assert_eq!(proxy.connections(), 1);
    assert!(proxy.take_commands().len() >= 4);

    proxy.reset_all();
    until("the connection to close", async || proxy.open_connections() == 0).await;
    store.get(&ctx(), &acme, "a").await.unwrap();
    assert_eq!(proxy.connections(), 2);
}
