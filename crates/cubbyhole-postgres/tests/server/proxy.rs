//! The proxy of the test kit for PostgreSQL. It can hold cancel requests and replace statements.

use std::ops::Deref;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use cubbyhole_testkit::helpers::until;
use cubbyhole_testkit::proxy::{self, Gate, Protocol};
use tokio_postgres::config::Host;

use crate::sql::one;
use crate::support::{admin_url, connect};

/// The start of a cancel request, in place of the protocol version.
const CANCEL_CODE: [u8; 4] = 80_877_102_u32.to_be_bytes();

pub(crate) struct Proxy(proxy::Proxy<Messages>);

#[derive(Default)]
pub(crate) struct Messages {
    /// The text that the client sends next and its replacement, used once.
    swap: Mutex<Option<(Vec<u8>, Vec<u8>)>>,
    holds_cancels: AtomicBool,
    cancels: AtomicUsize,
}

impl Protocol for Messages {
    fn judge(&self, bytes: &mut Vec<u8>) -> Gate {
        if bytes.len() == 16 && bytes[4..8] == CANCEL_CODE {
            self.cancels.fetch_add(1, SeqCst);
            return if self.holds_cancels.load(SeqCst) { Gate::Hold } else { Gate::Pass };
        }
        let mut swap = self.swap.lock().unwrap();
        if let Some((this, that)) = &*swap
            && let Some(at) = bytes.windows(this.len()).position(|window| window == this)
        {
            bytes[at..at + that.len()].copy_from_slice(that);
            *swap = None;
        }
        Gate::Pass
    }
}

impl Proxy {
    /// Starts a proxy in front of the server of `url`.
    pub(crate) async fn before(url: &str) -> Self {
        Self(proxy::Proxy::start(address_of(url), Messages::default()).await)
    }

    /// Returns the same URL with the proxy in place of the server.
    pub(crate) fn url(&self, url: &str) -> String {
        with_address(url, &self.address().to_string())
    }

    /// Returns how many cancel requests were sent.
    pub(crate) fn cancels(&self) -> usize {
        self.protocol().cancels.load(SeqCst)
    }

    /// Holds cancel requests, or forwards those that it holds.
    pub(crate) fn hold_cancels(&self, hold: bool) {
        self.protocol().holds_cancels.store(hold, SeqCst);
        if !hold {
            self.release();
        }
    }

    /// Replaces `this` with `that`, padded with blanks, when the client sends it next.
    pub(crate) fn swap_once(&self, this: &str, that: &str) {
        let that = format!("{that:0$}", this.len());
        assert_eq!(this.len(), that.len(), "a message contains its length");
        *self.protocol().swap.lock().unwrap() = Some((this.into(), that.into()));
    }

    /// Returns whether the replacement is still to come.
    pub(crate) fn has_swap(&self) -> bool {
        self.protocol().swap.lock().unwrap().is_some()
    }
}

impl Deref for Proxy {
    type Target = proxy::Proxy<Messages>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// Returns `host:port` of a URL.
pub(crate) fn address_of(url: &str) -> String {
    let (plain, _) = url.split_once('?').unwrap_or((url, ""));
    let config: tokio_postgres::Config = plain.parse().unwrap();
    let Some(Host::Tcp(host)) = config.get_hosts().first() else { panic!("no host in the URL") };
    format!("{host}:{}", config.get_ports().first().unwrap_or(&5432))
}

/// Returns the URL with another `host:port`.
pub(crate) fn with_address(url: &str, address: &str) -> String {
    let (user, rest) = url.rsplit_once('@').unwrap();
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    format!("{user}@{address}{}", &rest[end..])
}

#[tokio::test]
async fn messages_sent_together_count_as_one_round_trip() {
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
async fn cancel_request_is_counted_held_and_forwarded() {
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
async fn silent_proxy_forwards_nothing_and_reset_breaks_connections() {
    let proxy = Proxy::before(admin_url()).await;
    let client = connect(&proxy.url(admin_url())).await;
    proxy.be_silent(true);
    let ask = client.batch_execute("SELECT 1");
    tokio::pin!(ask);
    let early = tokio::time::timeout(Duration::from_millis(200), &mut ask).await;
    assert!(early.is_err(), "the silent proxy forwarded an answer");
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
