//! A proxy before the server, within the test: it counts what passes, and fails on demand.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_postgres::config::Host;
use tokio_util::task::AbortOnDropHandle;

use crate::by_hand::{one, until};
use crate::support::{admin_url, connect};

/// What a request to cancel begins with in place of a version of the protocol.
const CANCEL_CODE: [u8; 4] = 80_877_102_u32.to_be_bytes();

pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _acceptor: AbortOnDropHandle<()>,
}

struct Shared {
    server: String,
    wires: Mutex<Vec<Arc<Wire>>>,
    /// What the client says next of this is passed on as that, once.
    swap: Mutex<Option<(Vec<u8>, Vec<u8>)>>,
    state: watch::Sender<State>,
}

/// What the proxy does at the moment.
#[derive(Clone, Copy, Default)]
struct State {
    delay: Duration,
    is_silent: bool,
    refuses: bool,
    holds_cancels: bool,
    /// Raised to reset the connections that there are.
    resets: u32,
}

/// One connection.
#[derive(Default)]
struct Wire {
    round_trips: AtomicUsize,
    client_spoke: AtomicBool,
    is_cancel: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

impl Proxy {
    /// Before the server of `url`.
    pub(crate) async fn before(url: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, _) = watch::channel(State::default());
        let shared = Arc::new(Shared {
            server: address_of(url),
            wires: Mutex::default(),
            swap: Mutex::default(),
            state,
        });
        let accept = accept(listener, Arc::clone(&shared));
        Self { address, shared, _acceptor: AbortOnDropHandle::new(tokio::spawn(accept)) }
    }

    /// The same URL, with the proxy in place of the server.
    pub(crate) fn url(&self, url: &str) -> String {
        with_address(url, &self.address.to_string())
    }

    /// How many round trips there were: a flight of the client's that was answered. What is sent
    /// before an answer has arrived belongs to the same flight.
    pub(crate) fn round_trips(&self) -> usize {
        self.by_connection().iter().sum()
    }

    /// The round trips of each connection, in the order in which they were opened.
    pub(crate) fn by_connection(&self) -> Vec<usize> {
        let wires = self.shared.wires.lock().unwrap();
        wires.iter().map(|wire| wire.round_trips.load(SeqCst)).collect()
    }

    /// How many connections were opened, those for requests to cancel among them.
    pub(crate) fn connections(&self) -> usize {
        self.shared.wires.lock().unwrap().len()
    }

    /// How many requests to cancel were sent.
    pub(crate) fn cancels(&self) -> usize {
        let wires = self.shared.wires.lock().unwrap();
        wires.iter().filter(|wire| wire.is_cancel.load(SeqCst)).count()
    }

    /// Everything takes that much longer, each way.
    pub(crate) fn delay(&self, one_way: Duration) {
        self.shared.state.send_modify(|state| state.delay = one_way);
    }

    /// Passes nothing on, and still takes connections.
    pub(crate) fn be_silent(&self, silent: bool) {
        self.shared.state.send_modify(|state| state.is_silent = silent);
    }

    /// Resets new connections.
    pub(crate) fn refuse(&self, refuse: bool) {
        self.shared.state.send_modify(|state| state.refuses = refuse);
    }

    /// Keeps back requests to cancel until it is told not to.
    pub(crate) fn hold_cancels(&self, hold: bool) {
        self.shared.state.send_modify(|state| state.holds_cancels = hold);
    }

    /// When the client says `this` next, the server is told `that`, filled up with blanks.
    pub(crate) fn swap_once(&self, this: &str, that: &str) {
        let that = format!("{that:0$}", this.len());
        assert_eq!(this.len(), that.len(), "messages say how long they are");
        *self.shared.swap.lock().unwrap() = Some((this.into(), that.into()));
    }

    /// Whether that is still to come.
    pub(crate) fn has_swap(&self) -> bool {
        self.shared.swap.lock().unwrap().is_some()
    }

    /// Resets the connections that there are.
    pub(crate) fn reset_all(&self) {
        self.shared.state.send_modify(|state| state.resets += 1);
    }
}

impl Shared {
    fn swap_in(&self, bytes: &mut [u8]) {
        let mut swap = self.swap.lock().unwrap();
        let Some((this, that)) = &*swap else { return };
        if let Some(at) = bytes.windows(this.len()).position(|window| window == this) {
            bytes[at..at + that.len()].copy_from_slice(that);
            *swap = None;
        }
    }
}

/// `host:port` of a URL.
pub(crate) fn address_of(url: &str) -> String {
    let (plain, _) = url.split_once('?').unwrap_or((url, ""));
    let config: tokio_postgres::Config = plain.parse().unwrap();
    let Some(Host::Tcp(host)) = config.get_hosts().first() else { panic!("no host in the URL") };
    format!("{host}:{}", config.get_ports().first().unwrap_or(&5432))
}

/// The same URL with another `host:port`.
pub(crate) fn with_address(url: &str, address: &str) -> String {
    let (user, rest) = url.rsplit_once('@').unwrap();
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    format!("{user}@{address}{}", &rest[end..])
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // They end with this.
    let mut wires = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        if shared.state.borrow().refuses {
            reset(&client);
            continue;
        }
        let wire = Arc::new(Wire::default());
        shared.wires.lock().unwrap().push(Arc::clone(&wire));
        wires.spawn(serve(client, Arc::clone(&shared), wire));
        while wires.try_join_next().is_some() {}
    }
}

/// Dropping it then tells the peer that the connection is broken.
fn reset(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

async fn serve(mut client: TcpStream, shared: Arc<Shared>, wire: Arc<Wire>) {
    let mut state = shared.state.subscribe();
    let resets = state.borrow().resets;
    let Ok(mut server) = TcpStream::connect(&shared.server).await else {
        return reset(&client);
    };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let was_reset = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let both = async {
            tokio::join!(
                pump(Side::Client, from_client, to_server, &shared, &wire),
                pump(Side::Server, from_server, to_client, &shared, &wire),
            )
        };
        tokio::select! {
            _ = both => false,
            _ = state.wait_for(|state| state.resets != resets) => true,
        }
    };
    if was_reset {
        reset(&client);
        reset(&server);
    }
}

/// Passes on what one side says, its end too.
async fn pump(
    side: Side,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    shared: &Shared,
    wire: &Wire,
) {
    let (read, mut to_write) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let reading = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let mut bytes = buffer[..length].to_vec();
            if side == Side::Client {
                shared.swap_in(&mut bytes);
                wire.client_spoke.store(true, SeqCst);
                if length == 16 && bytes[4..8] == CANCEL_CODE {
                    wire.is_cancel.store(true, SeqCst);
                }
            }
            let at = Instant::now() + shared.state.borrow().delay;
            if read.send((at, bytes)).is_err() {
                return;
            }
        }
    };
    let writing = async move {
        let mut state = shared.state.subscribe();
        while let Some((at, bytes)) = to_write.recv().await {
            sleep_until(at).await;
            let is_cancel = side == Side::Client && wire.is_cancel.load(SeqCst);
            let is_held = |state: &State| state.is_silent || (is_cancel && state.holds_cancels);
            // The sender lives as long as this borrows it.
            let _ = state.wait_for(|state| !is_held(state)).await;
            if side == Side::Server && wire.client_spoke.swap(false, SeqCst) {
                wire.round_trips.fetch_add(1, SeqCst);
            }
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = state.wait_for(|state| !state.is_silent).await;
        drop(to.shutdown().await);
    };
    tokio::join!(reading, writing);
}

#[tokio::test]
async fn round_trips_are_counted_and_what_is_sent_together_is_one() {
    let proxy = Proxy::before(admin_url()).await;
    let client = connect(&proxy.url(admin_url())).await;
    let other = connect(&proxy.url(admin_url())).await;
    let before = proxy.by_connection();
    assert_eq!((before.len(), proxy.connections()), (2, 2));

    for sql in ["BEGIN", "SELECT 1", "SELECT 2", "COMMIT"] {
        client.batch_execute(sql).await.unwrap();
    }
    assert_eq!(proxy.by_connection(), [before[0] + 4, before[1]]);

    let together = ["BEGIN", "SELECT 1", "SELECT 2", "COMMIT"].map(|sql| other.batch_execute(sql));
    let [first, second, third, fourth] = together;
    let (first, second, third, fourth) = tokio::join!(first, second, third, fourth);
    first.and(second).and(third).and(fourth).unwrap();
    assert_eq!(proxy.by_connection(), [before[0] + 4, before[1] + 1]);
    assert_eq!(proxy.cancels(), 0);
}

#[tokio::test]
async fn a_request_to_cancel_is_seen_held_and_passed_on() {
    let proxy = Proxy::before(admin_url()).await;
    let client = connect(&proxy.url(admin_url())).await;
    let token = client.cancel_token();
    proxy.hold_cancels(true);
    // No other test sleeps for this long.
    let sleeping = tokio::spawn(async move { client.batch_execute("SELECT pg_sleep(601)").await });
    let admin = connect(admin_url()).await;
    let running = "SELECT count(*) FROM pg_stat_activity
        WHERE query = 'SELECT pg_sleep(601)' AND wait_event = 'PgSleep'";
    until("the statement", async || one::<i64>(&admin, running).await == 1).await;
    token.cancel_query(tokio_postgres::NoTls).await.unwrap();
    until("the request", async || proxy.cancels() == 1).await;
    assert!(!sleeping.is_finished());
    proxy.hold_cancels(false);
    let error = sleeping.await.unwrap().unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("57014"));
}

#[tokio::test]
async fn a_silent_proxy_passes_nothing_and_a_reset_breaks_connections() {
    let proxy = Proxy::before(admin_url()).await;
    let client = connect(&proxy.url(admin_url())).await;
    proxy.be_silent(true);
    let ask = client.batch_execute("SELECT 1");
    tokio::pin!(ask);
    let early = tokio::time::timeout(Duration::from_millis(200), &mut ask).await;
    assert!(early.is_err(), "it was answered");
    proxy.be_silent(false);
    ask.await.unwrap();

    proxy.refuse(true);
    proxy.reset_all();
    until("the reset", async || client.is_closed()).await;
    let again = tokio_postgres::connect(&proxy.url(admin_url()), tokio_postgres::NoTls).await;
    assert!(again.is_err());
    proxy.refuse(false);
    connect(&proxy.url(admin_url())).await.batch_execute("SELECT 1").await.unwrap();
}
