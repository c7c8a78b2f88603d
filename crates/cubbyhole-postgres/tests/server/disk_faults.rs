//! Disks of a server that are full or fail, under concurrent histories and writes of large values:
//!
//! - tables cannot grow: what needs room is refused and has certainly had no effect;
//! - what is written ahead cannot grow, or cannot be synced: the server ends, as it must, and is
//!   started again on a disk that is sound.
//!
//! What was acknowledged is there afterwards, what certainly had no effect is not.

use cubbyhole_core::{Bytes, Error, ErrorKind, ExecutionContext, Store};
use cubbyhole_postgres::PostgresStore;
use cubbyhole_testkit::helpers::{ctx, ns};
use cubbyhole_testkit::load::histories::{TIMEOUT, goes_on, plan};
use cubbyhole_testkit::{Disk, PostgresServer};
use tokio::task::block_in_place;

use crate::faults::{ENOUGH, few, finish, start};
use crate::support::Schema;

const TABLES: &str = "/base/";
const WRITTEN_AHEAD: &str = "/pg_wal/";
/// A full disk is met with these before any large value is written as often as this.
const MOST: u32 = 1_000;

/// A server that loses nothing that it acknowledged, and ends where it would begin anew by itself:
/// a test decides when its disk is sound again.
fn server() -> PostgresServer {
    let settings = [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("restart_after_crash", "off"),
        // Files that were used before would be room on a full disk.
        ("wal_recycle", "off"),
    ];
    block_in_place(|| PostgresServer::start_with_disk(&settings)).unwrap()
}

/// Values that need room, each written once and under a key of its own.
struct Large<'a> {
    store: &'a PostgresStore,
    next: u32,
    stored: Vec<u32>,
    refused: Vec<u32>,
}

impl<'a> Large<'a> {
    fn on(store: &'a PostgresStore) -> Self {
        Self { store, next: 0, stored: Vec::new(), refused: Vec::new() }
    }

    /// By its number: 200,000 bytes that cannot be compressed.
    fn value(number: u32) -> Bytes {
        let mut random = fastrand::Rng::with_seed(u64::from(number));
        std::iter::repeat_with(|| random.u8(..)).take(200_000).collect()
    }

    async fn put(&mut self) -> Option<Error> {
        let number = self.next;
        self.next += 1;
        let (key, within) = (number.to_string(), ctx().with_timeout(TIMEOUT));
        match self.store.put(&within, &ns("large"), &key, Self::value(number)).await {
            Ok(()) => {
                self.stored.push(number);
                None
            }
            Err(error) => {
                if !error.may_have_been_applied() {
                    self.refused.push(number);
                }
                Some(error)
            }
        }
    }

    /// Writes until one fails.
    async fn put_until_refused(&mut self) -> Error {
        for _ in 0..MOST {
            if let Some(error) = self.put().await {
                return error;
            }
        }
        panic!("{MOST} large values found room on a full disk");
    }

    async fn are_there(&self, ctx: &ExecutionContext) {
        for number in &self.stored {
            let read = self.store.get(ctx, &ns("large"), &number.to_string()).await.unwrap();
            assert!(read == Some(Self::value(*number)), "{number} was acknowledged");
        }
        for number in &self.refused {
            let read = self.store.get(ctx, &ns("large"), &number.to_string()).await.unwrap();
            assert!(read.is_none(), "{number} was refused");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_while_tables_cannot_grow() {
    let server = server();
    let schema = Schema::on(server.url()).await;
    let (store, histories) = start(&few(&schema), plan(TIMEOUT)).await;
    let mut large = Large::on(&store);
    assert!(large.put().await.is_none());
    histories.until_sound(ENOUGH).await.unwrap();
    assert_eq!(histories.counts().failures(), 0, "nothing has happened yet");
    for _ in 0..3 {
        server.disk().unwrap().fill(TABLES).unwrap();
        for _ in 0..10 {
            let error = large.put_until_refused().await;
            assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
            assert!(!error.may_have_been_applied() && !error.is_retryable(), "{error:?}");
        }
        // New entries do not find room for ever; what is there is read and removed.
        histories.until_failures(1).await.unwrap();
        histories.until_more(ENOUGH).await.unwrap();
        large.are_there(&ctx()).await;
        server.disk().unwrap().mend().unwrap();
        assert!(large.put().await.is_none());
        histories.until_sound(ENOUGH).await.unwrap();
    }
    large.are_there(&ctx()).await;
    let kinds = [ErrorKind::ResourceExhausted];
    let report = finish(&schema, (store.clone(), histories), &kinds, TIMEOUT).await;
    assert_eq!(report.unknown, 0, "the server refused, and lost nothing");
}

/// The server ends by what is done to its disk, three times.
async fn ends_and_is_started_again(harm: impl Fn(&Disk) -> Result<(), String>) {
    let mut server = server();
    let schema = Schema::on(server.url()).await;
    let (store, histories) = start(&few(&schema), plan(TIMEOUT)).await;
    let mut large = Large::on(&store);
    assert!(large.put().await.is_none());
    let mut rounds = 0;
    while goes_on(rounds, &histories) {
        rounds += 1;
        histories.until_sound(ENOUGH).await.unwrap();
        harm(server.disk().unwrap()).unwrap();
        let error = large.put_until_refused().await;
        let kinds = [ErrorKind::Unavailable, ErrorKind::ResourceExhausted];
        assert!(kinds.contains(&error.kind()), "{error:?}");
        block_in_place(|| server.await_end()).unwrap();
        histories.until_failures(20).await.unwrap();
        server.disk().unwrap().mend().unwrap();
        block_in_place(|| server.start_again()).unwrap();
        histories.until_sound(ENOUGH).await.unwrap();
        large.are_there(&ctx()).await;
        assert!(large.put().await.is_none());
    }
    let kinds = [ErrorKind::Unavailable, ErrorKind::ResourceExhausted];
    finish(&schema, (store.clone(), histories), &kinds, TIMEOUT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_on_a_server_that_ends_for_want_of_room() {
    ends_and_is_started_again(|disk| disk.fill(WRITTEN_AHEAD)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_have_an_order_on_a_server_that_ends_as_its_disk_fails() {
    ends_and_is_started_again(|disk| disk.fail_syncs(WRITTEN_AHEAD)).await;
}
