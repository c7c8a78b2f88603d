//! The proxy of the test kit in front of Redis: it splits what the client sends into commands, and
//! judges each.

use std::ops::Deref;
use std::sync::Mutex;
use std::time::Duration;

use cubbyhole_core::Store;
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{bytes, ctx, ns, until};
pub(crate) use cubbyhole_testkit::proxy::Gate;
use cubbyhole_testkit::proxy::{self, Protocol};

use crate::by_hand::{new_prefix, open, shared};

/// A command's name and arguments.
pub(crate) type Command = [Vec<u8>];

type Rule = Box<dyn FnMut(&Command) -> Gate + Send>;

pub(crate) struct Proxy(proxy::Proxy<Commands>);

#[derive(Default)]
pub(crate) struct Commands {
    rule: Mutex<Option<Rule>>,
    sent: Mutex<Vec<Vec<Vec<u8>>>>,
}

impl Protocol for Commands {
    fn request_length(&self, bytes: &[u8]) -> Option<usize> {
        end_of_command(bytes)
    }

    fn judge(&self, request: &mut Vec<u8>) -> Gate {
        let command = parts(request);
        let gate = self.rule.lock().unwrap().as_mut().map_or(Gate::Pass, |rule| rule(&command));
        self.sent.lock().unwrap().push(command);
        gate
    }
}

impl Proxy {
    pub(crate) async fn before(server: &RedisServer) -> Self {
        Self(proxy::Proxy::start(address_of(server), Commands::default()).await)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Returns the commands that the client has sent since the last call.
    pub(crate) fn take_commands(&self) -> Vec<Vec<Vec<u8>>> {
        std::mem::take(&mut self.protocol().sent.lock().unwrap())
    }

    /// Applies `rule` to each command from now on.
    pub(crate) fn judge(&self, rule: impl FnMut(&Command) -> Gate + Send + 'static) {
        *self.protocol().rule.lock().unwrap() = Some(Box::new(rule));
    }

    /// Holds the first command that matches.
    pub(crate) fn hold_first(&self, matches: impl Fn(&Command) -> bool + Send + 'static) {
        let mut is_over = false;
        self.judge(move |command| {
            if is_over || !matches(command) {
                return Gate::Pass;
            }
            is_over = true;
            Gate::Hold
        });
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

impl Deref for Proxy {
    type Target = proxy::Proxy<Commands>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

fn address_of(server: &RedisServer) -> String {
    format!("127.0.0.1:{}", server.port())
}

/// The names of the keys of a script's call; nothing for another command.
pub(crate) fn script_keys(command: &Command) -> Vec<String> {
    if command.first().is_none_or(|name| !name.eq_ignore_ascii_case(b"EVALSHA")) {
        return Vec::new();
    }
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    let count = text(&command[2]).parse().unwrap();
    command[3..].iter().take(count).map(text).collect()
}

/// Whether a command is the script of puts and batches: by the keys that it touches, and not by how
/// it is told what to do.
pub(crate) fn is_write(command: &Command) -> bool {
    let keys = script_keys(command);
    let kinds = ["}k", "}m", "}x"];
    keys.len() > 3
        && keys.iter().zip(kinds).all(|(key, kind)| key.ends_with(kind))
        && keys[3].contains("}v")
}

/// Where the first command ends, if all of it is there.
fn end_of_command(bytes: &[u8]) -> Option<usize> {
    let (count, mut at) = length_line(bytes, 0)?;
    for _ in 0..count {
        let (length, start) = length_line(bytes, at)?;
        at = start + length + 2;
    }
    (at <= bytes.len()).then_some(at)
}

/// A number after its sign, and where the next line begins.
fn length_line(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let rest = bytes.get(at..)?;
    let end = rest.windows(2).position(|window| window == b"\r\n")?;
    let number = std::str::from_utf8(&rest[1..end]).unwrap().parse().unwrap();
    Some((number, at + end + 2))
}

fn parts(command: &[u8]) -> Vec<Vec<u8>> {
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
fn commands_are_told_apart_and_read() {
    let two = b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n*1\r\n$0\r\n\r\n";
    for length in 0..23 {
        assert_eq!(end_of_command(&two[..length]), None, "{length}");
    }
    assert_eq!(end_of_command(two), Some(23));
    assert_eq!(parts(&two[..23]), [b"GET".to_vec(), b"a\r\nb".to_vec()]);
    assert_eq!(end_of_command(&two[23..]), Some(two.len() - 23));
}

#[tokio::test]
async fn the_proxy_counts_holds_cuts_and_is_silent_as_told() {
    let proxy = Proxy::before(shared()).await;
    let store = open(&proxy.url(), &new_prefix()).await;
    let (acme, before) = (ns("acme"), proxy.round_trips());
    store.get(&ctx(), &acme, "a").await.unwrap();
    store.get(&ctx(), &acme, "b").await.unwrap();
    assert_eq!(proxy.round_trips() - before, 2);
    let (context, other) = (ctx(), ctx());
    let (a, b) = tokio::join!(store.get(&context, &acme, "a"), store.get(&other, &acme, "b"));
    a.and(b).unwrap();
    assert_eq!(proxy.round_trips() - before, 3, "what is sent together is one");
    assert_eq!((proxy.connections(), proxy.open_connections()), (1, 1));

    proxy.take_commands();
    proxy.hold_first(|command| command[0] == b"GET");
    let early = ctx().with_timeout(Duration::from_millis(100));
    assert!(store.get(&early, &acme, "a").await.is_err());
    proxy.until_held().await;
    proxy.release();
    proxy.be_silent(true);
    let early = ctx().with_timeout(Duration::from_millis(100));
    assert!(store.get(&early, &acme, "a").await.is_err());
    proxy.be_silent(false);
    store.put(&ctx(), &acme, "a", bytes("v")).await.unwrap();
    assert_eq!(store.get(&ctx(), &acme, "a").await.unwrap(), Some(bytes("v")));
    assert_eq!(proxy.connections(), 1);
    assert!(proxy.take_commands().len() >= 4);

    proxy.reset_all();
    until("the end of it", async || proxy.open_connections() == 0).await;
    store.get(&ctx(), &acme, "a").await.unwrap();
    assert_eq!(proxy.connections(), 2);
}
