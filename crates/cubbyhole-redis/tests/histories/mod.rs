//! Concurrent histories on a store whose servers a test disturbs.

use std::time::Duration;

use cubbyhole_conformance::history::Plan;
use cubbyhole_testkit::load::histories;
pub(crate) use cubbyhole_testkit::load::histories::{finish, start};

/// Four clients on each of `groups` groups of keys, whose calls have that deadline.
pub(crate) fn plan(groups: usize, timeout: Duration) -> Plan {
    histories::plan(timeout).with_groups(groups)
}
