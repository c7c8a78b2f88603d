//! A TCP proxy in front of a server, within the test process.
//!
//! It counts connections and round trips, delays traffic, stops forwarding, and resets connections.
//! A [`Protocol`] splits the client's bytes into requests, and decides for each request whether it
//! passes, is held, or costs the connection.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::stores::helpers::until;
use crate::stores::listener::Listener;

/// What the proxy does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Forwards it.
    Pass,
    /// Holds it, and the requests behind it on its connection, until [`Proxy::release`].
    Hold,
    /// Resets the connection before the server receives the request.
    CutBefore,
    /// Resets the connection when the server has answered. The client receives no byte of the
    /// answer.
    CutAfter,
    /// Resets the connection in the middle of the answer.
    CutWithin,
}

/// How the proxy reads the bytes of a client.
pub trait Protocol: Send + Sync + 'static {
    /// Returns the length of the first request in `bytes`, or `None` if it is incomplete.
    ///
    /// By default each piece that is read from the socket is one request.
    fn request_length(&self, bytes: &[u8]) -> Option<usize> {
        (!bytes.is_empty()).then_some(bytes.len())
    }

    /// Decides what happens to a request. It may also change the bytes of the request.
    fn judge(&self, request: &mut Vec<u8>) -> Gate;
}

/// A proxy in front of one server. Dropping it ends all its connections.
pub struct Proxy<P> {
    listener: Listener,
    shared: Arc<Shared<P>>,
}

struct Shared<P> {
    protocol: P,
    /// `host:port`.
    server: Mutex<String>,
    connections: Mutex<Vec<Arc<Connection>>>,
    held: AtomicUsize,
    state: watch::Sender<State>,
}

/// The settings that tests change while connections are open.
#[derive(Clone, Copy, Default)]
struct State {
    delay: Duration,
    is_silent: bool,
    refuses: bool,
    /// Incremented to release held requests.
    released: u32,
    /// Incremented to reset the open connections.
    resets: u32,
}

#[derive(Default)]
struct Connection {
    round_trips: AtomicUsize,
    /// The client has sent bytes since the last answer.
    client_spoke: AtomicBool,
    has_ended: AtomicBool,
    /// The cut that the next answer triggers.
    cut: Mutex<Option<Gate>>,
}

/// Why a connection ends before both sides have closed it.
enum End {
    ServerClosed,
    Cut,
}

impl<P: Protocol> Proxy<P> {
    /// Starts a proxy in front of the server at `host:port`.
    pub async fn start(server: impl Into<String>, protocol: P) -> Self {
        let shared = Arc::new(Shared {
            protocol,
            server: Mutex::new(server.into()),
            connections: Mutex::default(),
            held: AtomicUsize::new(0),
            state: watch::channel(State::default()).0,
        });
        let accepted = Arc::clone(&shared);
        let listener = Listener::start(move |client| {
            let shared = Arc::clone(&accepted);
            let connection = shared.connect();
            async move {
                match connection {
                    Some(connection) => {
                        serve(client, &shared, &connection).await;
                        connection.has_ended.store(true, SeqCst);
                    }
                    None => reset(&client),
                }
            }
        })
        .await;
        Self { listener, shared }
    }

    /// Returns the address that clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Returns the protocol that this proxy was started with.
    #[must_use]
    pub fn protocol(&self) -> &P {
        &self.shared.protocol
    }

    /// Returns the number of round trips. A round trip is everything that the client sends before
    /// an answer arrives, and that answer.
    #[must_use]
    pub fn round_trips(&self) -> usize {
        self.by_connection().iter().sum()
    }

    /// Returns the round trips of each connection, in the order in which they were opened.
    #[must_use]
    pub fn by_connection(&self) -> Vec<usize> {
        let connections = self.shared.connections.lock().unwrap();
        connections.iter().map(|connection| connection.round_trips.load(SeqCst)).collect()
    }

    /// Returns how many connections were opened.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.lock().unwrap().len()
    }

    /// Returns how many connections are open.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        let connections = self.shared.connections.lock().unwrap();
        connections.iter().filter(|connection| !connection.has_ended.load(SeqCst)).count()
    }

    /// Delays all traffic by that much in each direction.
    pub fn delay(&self, one_way: Duration) {
        self.shared.state.send_modify(|state| state.delay = one_way);
    }

    /// Stops or resumes forwarding. A silent proxy still accepts connections.
    pub fn be_silent(&self, silent: bool) {
        self.shared.state.send_modify(|state| state.is_silent = silent);
    }

    /// Resets new connections, or accepts them again.
    pub fn refuse(&self, refuse: bool) {
        self.shared.state.send_modify(|state| state.refuses = refuse);
    }

    /// Resets the open connections.
    pub fn reset_all(&self) {
        self.shared.state.send_modify(|state| state.resets += 1);
    }

    /// Forwards new connections to the server at `host:port`.
    pub fn lead_to(&self, server: impl Into<String>) {
        *self.shared.server.lock().unwrap() = server.into();
    }

    /// Waits until a request is held.
    pub async fn until_held(&self) {
        until("a held request", async || self.shared.held.load(SeqCst) > 0).await;
    }

    /// Forwards the requests that are held.
    pub fn release(&self) {
        self.shared.state.send_modify(|state| state.released += 1);
    }
}

impl<P> fmt::Debug for Proxy<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl<P> Shared<P> {
    /// Registers a connection, unless the proxy refuses it.
    fn connect(&self) -> Option<Arc<Connection>> {
        if self.state.borrow().refuses {
            return None;
        }
        let connection = Arc::<Connection>::default();
        self.connections.lock().unwrap().push(Arc::clone(&connection));
        Some(connection)
    }
}

/// Makes dropping `stream` send a reset instead of an ordinary close.
fn reset(stream: &TcpStream) {
    stream.set_zero_linger().unwrap();
}

async fn serve<P: Protocol>(mut client: TcpStream, shared: &Shared<P>, connection: &Connection) {
    let mut state = shared.state.subscribe();
    let resets = state.borrow().resets;
    let address = shared.server.lock().unwrap().clone();
    let Ok(mut server) = TcpStream::connect(address).await else {
        return reset(&client);
    };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (is_cut, was_reset) = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let both = async {
            tokio::try_join!(
                forward_requests((from_client, to_server), shared, connection),
                forward_answers((from_server, to_client), shared, connection),
            )
        };
        tokio::select! {
            ended = both => (matches!(ended, Err(End::Cut)), false),
            _ = state.wait_for(|state| state.resets != resets) => (false, true),
        }
    };
    if is_cut || was_reset {
        reset(&client);
    }
    if was_reset {
        reset(&server);
    }
}

/// Reads until the end, and queues the pieces that `split` returns with the instant at which each is due.
async fn read_delayed<P>(
    mut from: ReadHalf<'_>,
    shared: &Shared<P>,
    queue: mpsc::UnboundedSender<(Instant, Vec<u8>)>,
    mut split: impl FnMut(&[u8]) -> Vec<Vec<u8>>,
) -> Result<(), End> {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let due = Instant::now() + shared.state.borrow().delay;
        for piece in split(&buffer[..length]) {
            if queue.send((due, piece)).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

async fn forward_requests<P: Protocol>(
    (from, mut to): (ReadHalf<'_>, WriteHalf<'_>),
    shared: &Shared<P>,
    connection: &Connection,
) -> Result<(), End> {
    let (read, mut to_write) = mpsc::unbounded_channel();
    let mut pending = Vec::new();
    let reading = read_delayed(from, shared, read, move |bytes| {
        connection.client_spoke.store(true, SeqCst);
        pending.extend_from_slice(bytes);
        let mut requests = Vec::new();
        while let Some(end) = shared.protocol.request_length(&pending) {
            let rest = pending.split_off(end);
            requests.push(std::mem::replace(&mut pending, rest));
        }
        requests
    });
    let writing = async move {
        let mut state = shared.state.subscribe();
        while let Some((at, mut request)) = to_write.recv().await {
            sleep_until(at).await;
            let released = state.borrow().released;
            match shared.protocol.judge(&mut request) {
                Gate::Pass => {}
                Gate::Hold => {
                    shared.held.fetch_add(1, SeqCst);
                    // The sender outlives this task.
                    let _ = state.wait_for(|state| state.released != released).await;
                    shared.held.fetch_sub(1, SeqCst);
                }
                Gate::CutBefore => return Err(End::Cut),
                gate @ (Gate::CutAfter | Gate::CutWithin) => {
                    *connection.cut.lock().unwrap() = Some(gate);
                }
            }
            let _ = state.wait_for(|state| !state.is_silent).await;
            if to.write_all(&request).await.is_err() {
                return Ok(());
            }
        }
        let _ = state.wait_for(|state| !state.is_silent).await;
        drop(to.shutdown().await);
        Ok(())
    };
    tokio::try_join!(reading, writing).map(drop)
}

async fn forward_answers<P: Protocol>(
    (from, mut to): (ReadHalf<'_>, WriteHalf<'_>),
    shared: &Shared<P>,
    connection: &Connection,
) -> Result<(), End> {
    let (read, mut to_write) = mpsc::unbounded_channel();
    let reading = read_delayed(from, shared, read, |bytes| vec![bytes.to_vec()]);
    let writing = async move {
        let mut state = shared.state.subscribe();
        while let Some((at, answer)) = to_write.recv().await {
            sleep_until(at).await;
            let _ = state.wait_for(|state| !state.is_silent).await;
            if connection.client_spoke.swap(false, SeqCst) {
                connection.round_trips.fetch_add(1, SeqCst);
            }
            let cut = *connection.cut.lock().unwrap();
            if cut == Some(Gate::CutWithin) {
                let _ = to.write_all(&answer[..answer.len() / 2]).await;
                // A reset discards bytes that the client has not read yet.
                sleep_until(Instant::now() + Duration::from_millis(20)).await;
            }
            if cut.is_some() {
                return Err(End::Cut);
            }
            if to.write_all(&answer).await.is_err() {
                return Ok(());
            }
        }
        let _ = state.wait_for(|state| !state.is_silent).await;
        drop(to.shutdown().await);
        Err(End::ServerClosed)
    };
    tokio::try_join!(reading, writing).map(drop)
}
