//! Concurrent histories on a store whose servers a test harms meanwhile.

use std::sync::Arc;
use std::time::Duration;

use cubbyhole_conformance::history::{Live, Plan, Report};
use cubbyhole_core::{Bytes, EntryStore, ErrorKind, TenantId};
use cubbyhole_redis::RedisStore;

/// By how much a call may be late after its deadline. The store adds nothing to it: the rest is
/// what a busy machine takes to run the task again whose timer has ended.
const LATE: Duration = Duration::from_secs(5);

/// Four clients on each of `groups` groups of keys, whose calls have that deadline.
pub(crate) fn plan(groups: usize, timeout: Duration) -> Plan {
    Plan::new(TenantId::new("faults").unwrap(), fastrand::u64(..))
        .with_groups(groups)
        .with_faults(timeout)
}

pub(crate) fn start(store: &RedisStore, plan: Plan) -> Live {
    let store: Arc<dyn EntryStore<Bytes>> = Arc::new(store.clone());
    Live::start(&store, plan)
}

/// Ends the histories: they have an order, calls failed as one of these kinds and within their
/// deadline, and if there are kinds, some as the first.
pub(crate) async fn finish(histories: Live, kinds: &[ErrorKind], timeout: Duration) -> Report {
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
