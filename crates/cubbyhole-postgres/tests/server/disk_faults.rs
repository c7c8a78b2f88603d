//! Full and failing disks of a server, under concurrent histories and writes of large values:
//!
//! - Tables cannot grow: writes that need space are rejected and have no effect.
//! - The write-ahead log cannot grow or be synced: the server stops. The test restarts it after the
//!   disk is repaired.
//!
//! Acknowledged writes must survive, and rejected writes must have had no effect.

use cubbyhole_core::{Bytes, Error, ErrorKind, ExecutionContext, Store};
use cubbyhole_postgres::PostgresStore;
use cubbyhole_testkit::helpers::{ctx, ns};
use cubbyhole_testkit::load::histories::{TIMEOUT, goes_on, plan};
use cubbyhole_testkit::{Disk, PostgresServer};
use tokio::task::block_in_place;

use crate::faults::{CALLS, finish, start, url_of};
use crate::support::Schema;

const TABLES: &str = "/base/";
const WAL: &str = "/pg_wal/";
/// More large values than fit on the disk.
const MAX_PUTS: u32 = 1_000;

/// Starts a durable server that does not restart automatically after a crash, because the test
/// first repairs the disk.
fn server() -> PostgresServer {
    let settings = [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("restart_after_crash", "off"),
        // Recycled files would provide space on a full disk.
        ("wal_recycle", "off"),
    ];
    block_in_place(|| PostgresServer::start_with_disk(&settings)).unwrap()
}

/// Writes large values, each once and under its own key.
struct LargeValues<'a> {
    store: &'a PostgresStore,
    next: u32,
    stored: Vec<u32>,
    rejected: Vec<u32>,
}

impl<'a> LargeValues<'a> {
    fn on(store: &'a PostgresStore) -> Self {
        Self { store, next: 0, stored: Vec::new(), rejected: Vec::new() }
    }

    /// 200,000 incompressible bytes, determined by the number.
    fn value(number: u32) -> Bytes {
        let mut random = fastrand::Rng::with_seed(u64::from(number));
        std::iter::repeat_with(|| random.u8(..)).take(200_000).collect()
    }

    async fn put(&mut self) -> Option<Error> {
        let number = self.next;
        self.next += 1;
        let (key, ctx) = (number.to_string(), ctx().with_timeout(TIMEOUT));
        match self.store.put(&ctx, &ns("large"), &key, Self::value(number)).await {
            Ok(()) => {
                self.stored.push(number);
                None
            }
            Err(error) => {
                if !error.may_have_been_applied() {
                    self.rejected.push(number);
                }
                Some(error)
            }
        }
    }

    /// Writes until a write fails.
    async fn put_until_rejected(&mut self) -> Error {
        for _ in 0..MAX_PUTS {
            if let Some(error) = self.put().await {
                return error;
            }
        }
        panic!("{MAX_PUTS} large values fit on a full disk");
    }

    async fn assert_outcomes(&self, ctx: &ExecutionContext) {
        for number in &self.stored {
            let read = self.store.get(ctx, &ns("large"), &number.to_string()).await.unwrap();
            assert!(read == Some(Self::value(*number)), "acknowledged value {number} is missing");
        }
        for number in &self.rejected {
            let read = self.store.get(ctx, &ns("large"), &number.to_string()).await.unwrap();
            assert!(read.is_none(), "rejected value {number} was written");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_are_linearizable_while_tables_cannot_grow() {
    let server = server();
    let schema = Schema::on(server.url()).await;
    let (store, histories) = start(&url_of(&schema), plan(TIMEOUT)).await;
    let mut large = LargeValues::on(&store);
    assert!(large.put().await.is_none());
    histories.until_sound(CALLS).await.unwrap();
    assert_eq!(histories.counts().failures(), 0, "a call failed before the first fault");
    for _ in 0..3 {
        server.disk().unwrap().fill(TABLES).unwrap();
        for _ in 0..10 {
            let error = large.put_until_rejected().await;
            assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
            assert!(!error.may_have_been_applied() && !error.is_retryable(), "{error:?}");
        }
        // Histories fail eventually for lack of space, but reads and deletes continue.
        histories.until_failures(1).await.unwrap();
        histories.until_more(CALLS).await.unwrap();
        large.assert_outcomes(&ctx()).await;
        server.disk().unwrap().mend().unwrap();
        assert!(large.put().await.is_none());
        histories.until_sound(CALLS).await.unwrap();
    }
    large.assert_outcomes(&ctx()).await;
    let kinds = [ErrorKind::ResourceExhausted];
    let report = finish(&schema, (store.clone(), histories), &kinds, TIMEOUT).await;
    assert_eq!(report.unknown, 0, "a rejected write has a known outcome");
}

/// Injects a disk fault that stops the server, and restarts the server, three times or more.
async fn stop_by_fault_and_restart(inject: impl Fn(&Disk) -> Result<(), String>) {
    let mut server = server();
    let schema = Schema::on(server.url()).await;
    let (store, histories) = start(&url_of(&schema), plan(TIMEOUT)).await;
    let mut large = LargeValues::on(&store);
    assert!(large.put().await.is_none());
    let mut rounds = 0;
    while goes_on(rounds, &histories) {
        rounds += 1;
        histories.until_sound(CALLS).await.unwrap();
        inject(server.disk().unwrap()).unwrap();
        let error = large.put_until_rejected().await;
        let kinds = [ErrorKind::Unavailable, ErrorKind::ResourceExhausted];
        assert!(kinds.contains(&error.kind()), "{error:?}");
        block_in_place(|| server.await_end()).unwrap();
        histories.until_failures(20).await.unwrap();
        server.disk().unwrap().mend().unwrap();
        block_in_place(|| server.start_again()).unwrap();
        histories.until_sound(CALLS).await.unwrap();
        large.assert_outcomes(&ctx()).await;
        assert!(large.put().await.is_none());
    }
    let kinds = [ErrorKind::Unavailable, ErrorKind::ResourceExhausted];
    finish(&schema, (store.clone(), histories), &kinds, TIMEOUT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_are_linearizable_when_the_wal_disk_is_full() {
    stop_by_fault_and_restart(|disk| disk.fill(WAL)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_are_linearizable_when_wal_syncs_fail() {
    stop_by_fault_and_restart(|disk| disk.fail_syncs(WAL)).await;
}
