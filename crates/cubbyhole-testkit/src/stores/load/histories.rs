//! Concurrent histories on a store whose servers a test disturbs at the same time.

use std::sync::Arc;
use std::time::Duration;

use cubbyhole_conformance::history::{Live, Plan, Report};
use cubbyhole_core::{Bytes, EntryStore, ErrorKind, TenantId};
use tokio::task::block_in_place;

use crate::Disturb;

/// How late after its deadline a call may return. The store itself adds no delay: a busy machine may
/// take this long to run the task whose timer has fired.
const LATE: Duration = Duration::from_secs(5);

/// The deadline of calls, except where a server hangs for longer. No call reaches it, even on a busy
/// machine with a slow disk.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// Returns a plan with a random seed, for calls with that deadline.
#[must_use]
pub fn plan(timeout: Duration) -> Plan {
    Plan::new(TenantId::new("faults").unwrap(), fastrand::u64(..)).with_faults(timeout)
}

/// Starts the histories of a plan.
#[must_use]
pub fn start<S: EntryStore<Bytes> + 'static>(store: S, plan: Plan) -> Live {
    let store: Arc<dyn EntryStore<Bytes>> = Arc::new(store);
    Live::start(&store, plan)
}

/// Ends the histories. Asserts that they are linearizable, that calls failed within their deadlines
/// with one of these kinds, and that at least one failed with the first kind if there is one.
pub async fn finish(histories: Live, kinds: &[ErrorKind], timeout: Duration) -> Report {
    let report = histories.finish().await.unwrap();
    if let Err(explanation) = report.verdict() {
        panic!("{explanation}");
    }
    report.check_failures(kinds, timeout + LATE).unwrap();
    if let Some(kind) = kinds.first() {
        assert!(report.failures_of(*kind) > 0, "no call failed as {kind:?}");
    }
    report
}

/// Returns whether a test disturbs the server once more: at least three times, and until a write was
/// in flight during a fault.
#[must_use]
pub fn goes_on(rounds: u32, histories: &Live) -> bool {
    assert!(rounds < 20, "no write was in flight");
    rounds < 3 || histories.counts().unknown == 0
}

/// Ends the server with `end` and starts it again, in rounds while `goes_on` says so. `enough` calls
/// of each kind succeed after each round.
pub async fn restart<S: Disturb>(
    histories: &Live,
    server: &mut S,
    end: impl Fn(&mut S) -> Result<(), String>,
    goes_on: impl Fn(u32, &Live) -> bool,
    enough: u64,
) {
    let mut rounds = 0;
    while goes_on(rounds, histories) {
        rounds += 1;
        block_in_place(|| end(server)).unwrap();
        histories.until_failures(20).await.unwrap();
        block_in_place(|| server.start_again()).unwrap();
        histories.until_sound(enough).await.unwrap();
    }
}

/// Pauses the server, waits for `failures` failed calls, and resumes it. Then waits for `enough`
/// successful calls of each kind. Repeats while [`goes_on`] returns true.
pub async fn hang(histories: &Live, server: &impl Disturb, failures: u64, enough: u64) {
    let mut rounds = 0;
    while goes_on(rounds, histories) {
        rounds += 1;
        block_in_place(|| server.pause()).unwrap();
        // Each client fails more than once, so some calls are made while the server hangs.
        let failed = histories.until_failures(failures).await;
        // A failed test leaves no paused server behind, which it could not clean up.
        block_in_place(|| server.resume()).unwrap();
        failed.unwrap();
        histories.until_sound(enough).await.unwrap();
    }
}
