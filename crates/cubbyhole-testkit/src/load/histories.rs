//! Concurrent histories on a store whose servers a test disturbs at the same time.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a panic fails the test that calls a helper"
)]

use std::sync::Arc;
use std::time::Duration;

use cubbyhole_conformance::history::{Live, Plan, Report};
use cubbyhole_core::{Bytes, EntryStore, ErrorKind, TenantId};

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

/// What a test does to a server in a round of [`disturb`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Begins the fault.
    Fault,
    /// Ends the fault.
    Recover,
}

/// Disturbs the server in rounds while `goes_on` says so. A round begins a fault, waits for that
/// many `failures`, ends the fault, and waits for `enough` calls of each kind that succeed.
///
/// The fault ends even if too few calls failed, so a failed test leaves no paused server behind.
pub async fn disturb(
    histories: &Live,
    goes_on: impl Fn(u32, &Live) -> bool,
    (failures, enough): (u64, u64),
    mut step: impl FnMut(Step),
) {
    let mut rounds = 0;
    while goes_on(rounds, histories) {
        rounds += 1;
        step(Step::Fault);
        let failed = histories.until_failures(failures).await;
        step(Step::Recover);
        failed.unwrap();
        histories.until_sound(enough).await.unwrap();
    }
}
