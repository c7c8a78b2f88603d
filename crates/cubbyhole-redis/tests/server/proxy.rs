//! A proxy before the server, within the test: it counts what passes, and holds or cuts what it is
//! told to.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cubbyhole_core::Store;
use cubbyhole_testkit::RedisServer;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::by_hand::{bytes, ctx, new_prefix, ns, open, shared, until};

/// What is done with a command of the client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    Pass,
    /// It waits, and what follows it on its connection, until the proxy is told to let go.
    Hold,
    /// The connection is reset before the server has seen it.
    CutBefore,
    /// The connection is reset once the server has answered, of which nothing arrives.
    CutAfter,
    /// The connection is reset in the middle of the answer.
    CutWithin,
}

/// A command's name and arguments.
pub(crate) type Command = [Vec<u8>];

type Rule = Box<dyn FnMut(&Command) -> Gate + Send>;

pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _acceptor: AbortOnDropHandle<()>,
}

struct Shared {
    server: AtomicU16,
    rule: Mutex<Option<Rule>>,
    turns: AtomicUsize,
    connections: AtomicUsize,
    open: AtomicUsize,
    held: AtomicUsize,
    commands: Mutex<Vec<Vec<Vec<u8>>>>,
    state: watch::Sender<State>,
}

/// What the proxy does at the moment.
#[derive(Clone, Copy, Default)]
struct State {
    delay: Duration,
    is_silent: bool,
    refuses: bool,
    /// Raised to let go what is held.
    released: u32,
    /// Raised to reset the connections that there are.
    resets: u32,
}

/// One connection.
#[derive(Default)]
struct Wire {
    client_spoke: AtomicBool,
    /// What its next answer meets with.
    cut: Mutex<Option<Gate>>,
}

/// A connection that is to be reset.
struct Cut;

impl Proxy {
    pub(crate) async fn before(server: &RedisServer) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, _) = watch::channel(State::default());
        let shared = Arc::new(Shared {
            server: AtomicU16::new(server.port()),
            rule: Mutex::default(),
            turns: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            commands: Mutex::default(),
            state,
        });
        let accept = accept(listener, Arc::clone(&shared));
        Self { address, shared, _acceptor: AbortOnDropHandle::new(tokio::spawn(accept)) }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// How many round trips there were: a flight of the client's that was answered. What is sent
    /// before an answer has arrived belongs to the same flight.
    pub(crate) fn turns(&self) -> usize {
        self.shared.turns.load(SeqCst)
    }

    /// How many connections were opened.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(SeqCst)
    }

    /// How many connections there are.
    pub(crate) fn open_connections(&self) -> usize {
        self.shared.open.load(SeqCst)
    }

    /// What the client sent since this was asked last.
    pub(crate) fn take_commands(&self) -> Vec<Vec<Vec<u8>>> {
        std::mem::take(&mut self.shared.commands.lock().unwrap())
    }

    /// Has each command of the client's judged from now on.
    pub(crate) fn judge(&self, rule: impl FnMut(&Command) -> Gate + Send + 'static) {
        *self.shared.rule.lock().unwrap() = Some(Box::new(rule));
    }

    /// Holds the first command that is so.
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

    /// Waits until a command is held.
    pub(crate) async fn until_held(&self) {
        until("a command that is held", async || self.shared.held.load(SeqCst) > 0).await;
    }

    /// Judges no more, and lets go what is held.
    pub(crate) fn release(&self) {
        *self.shared.rule.lock().unwrap() = None;
        self.shared.state.send_modify(|state| state.released += 1);
    }

    /// Everything takes that much longer, each way.
    pub(crate) fn delay(&self, one_way: Duration) {
        self.shared.state.send_modify(|state| state.delay = one_way);
    }

    /// Passes nothing on, and still takes connections.
    pub(crate) fn be_silent(&self, silent: bool) {
        self.shared.state.send_modify(|state| state.is_silent = silent);
    }

    /// New connections are to this server.
    pub(crate) fn lead_to(&self, server: &RedisServer) {
        self.shared.server.store(server.port(), SeqCst);
    }

    /// Resets new connections.
    pub(crate) fn refuse(&self, refuse: bool) {
        self.shared.state.send_modify(|state| state.refuses = refuse);
    }

    /// Resets the connections that there are.
    pub(crate) fn reset_all(&self) {
        self.shared.state.send_modify(|state| state.resets += 1);
    }
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

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // They end with this.
    let mut wires = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        if shared.state.borrow().refuses {
            reset(&client);
            continue;
        }
        shared.connections.fetch_add(1, SeqCst);
        shared.open.fetch_add(1, SeqCst);
        let shared = Arc::clone(&shared);
        wires.spawn(async move {
            serve(client, &shared).await;
            shared.open.fetch_sub(1, SeqCst);
        });
        while wires.try_join_next().is_some() {}
    }
}

/// Dropping it then tells the peer that the connection is broken.
fn reset(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

async fn serve(mut client: TcpStream, shared: &Shared) {
    let mut state = shared.state.subscribe();
    let resets = state.borrow().resets;
    let Ok(mut server) =
        TcpStream::connect((Ipv4Addr::LOCALHOST, shared.server.load(SeqCst))).await
    else {
        return reset(&client);
    };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let wire = Wire::default();
    let was_cut = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let both = async {
            tokio::try_join!(
                requests(from_client, to_server, shared, &wire),
                answers(from_server, to_client, shared, &wire),
            )
        };
        tokio::select! {
            ended = both => ended.is_err(),
            _ = state.wait_for(|state| state.resets != resets) => true,
        }
    };
    if was_cut {
        reset(&client);
    }
}

/// Passes on what the client says, command by command.
async fn requests(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    shared: &Shared,
    wire: &Wire,
) -> Result<(), Cut> {
    let (read, mut to_write) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let reading = async move {
        let (mut buffer, mut pending) = (vec![0; 64 * 1024], Vec::new());
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            wire.client_spoke.store(true, SeqCst);
            pending.extend_from_slice(&buffer[..length]);
            let at = Instant::now() + shared.state.borrow().delay;
            while let Some(end) = end_of_command(&pending) {
                let rest = pending.split_off(end);
                if read.send((at, std::mem::replace(&mut pending, rest))).is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    };
    let writing = async move {
        let mut state = shared.state.subscribe();
        while let Some((at, raw)) = to_write.recv().await {
            sleep_until(at).await;
            let command = parts(&raw);
            let released = state.borrow().released;
            let gate = {
                let mut rule = shared.rule.lock().unwrap();
                rule.as_mut().map_or(Gate::Pass, |rule| rule(&command))
            };
            shared.commands.lock().unwrap().push(command);
            match gate {
                Gate::Pass => {}
                Gate::Hold => {
                    shared.held.fetch_add(1, SeqCst);
                    let _ = state.wait_for(|state| state.released != released).await;
                    shared.held.fetch_sub(1, SeqCst);
                }
                Gate::CutBefore => return Err(Cut),
                Gate::CutAfter | Gate::CutWithin => *wire.cut.lock().unwrap() = Some(gate),
            }
            let _ = state.wait_for(|state| !state.is_silent).await;
            if to.write_all(&raw).await.is_err() {
                return Ok(());
            }
        }
        let _ = to.shutdown().await;
        Ok(())
    };
    tokio::try_join!(reading, writing).map(drop)
}

/// Passes on what the server says.
async fn answers(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    shared: &Shared,
    wire: &Wire,
) -> Result<(), Cut> {
    let (read, mut to_write) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let reading = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let at = Instant::now() + shared.state.borrow().delay;
            if read.send((at, buffer[..length].to_vec())).is_err() {
                return Ok(());
            }
        }
        Ok(())
    };
    let writing = async move {
        let mut state = shared.state.subscribe();
        while let Some((at, answer)) = to_write.recv().await {
            sleep_until(at).await;
            let _ = state.wait_for(|state| !state.is_silent).await;
            if wire.client_spoke.swap(false, SeqCst) {
                shared.turns.fetch_add(1, SeqCst);
            }
            let cut = *wire.cut.lock().unwrap();
            if cut == Some(Gate::CutWithin) {
                let half = &answer[..answer.len() / 2];
                let _ = to.write_all(half).await;
                // A reset takes with it what the client has not read.
                sleep_until(Instant::now() + Duration::from_millis(20)).await;
            }
            if cut.is_some() {
                return Err(Cut);
            }
            if to.write_all(&answer).await.is_err() {
                return Ok(());
            }
        }
        let _ = to.shutdown().await;
        // The server has ended the connection, and so has the proxy.
        Err(Cut)
    };
    tokio::try_join!(reading, writing).map(drop)
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
    let (acme, before) = (ns("acme"), proxy.turns());
    store.get(&ctx(), &acme, "a").await.unwrap();
    store.get(&ctx(), &acme, "b").await.unwrap();
    assert_eq!(proxy.turns() - before, 2);
    let (context, other) = (ctx(), ctx());
    let (a, b) = tokio::join!(store.get(&context, &acme, "a"), store.get(&other, &acme, "b"));
    a.and(b).unwrap();
    assert_eq!(proxy.turns() - before, 3, "what is sent together is one");
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
