//! The plan of a run: which calls the clients make, and how many.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::{Namespace, Result, TenantId};

/// The number of calls of a run by default.
pub(crate) const DEFAULT_OPERATIONS: u64 = 20_000;

/// Returns the namespace of a round, given the number of the group and of the round.
type NamespaceOfRound = Arc<dyn Fn(usize, u64) -> Result<Namespace> + Send + Sync>;

/// The plan of a run: its clients and their calls.
#[derive(Clone)]
pub struct Plan {
    tenant: TenantId,
    pub(super) seed: u64,
    pub(super) operations: u64,
    pub(super) groups: usize,
    pub(super) clients: usize,
    pub(super) timeout: Option<Duration>,
    /// One call in so many gets a random deadline up to this duration.
    pub(super) cancellations: Option<(u32, Duration)>,
    /// Whether calls are made whose reply only says that an entry exists.
    pub(super) with_presence: bool,
    namespaces: Option<NamespaceOfRound>,
}

impl Plan {
    /// Plans 20,000 calls without deadlines, by four clients on each of two groups of keys.
    ///
    /// The keys are in namespaces of `tenant`, which should hold no entries. `seed` determines the
    /// calls.
    #[must_use]
    pub fn new(tenant: TenantId, seed: u64) -> Self {
        Self {
            tenant,
            seed,
            operations: DEFAULT_OPERATIONS,
            groups: 2,
            clients: 4,
            timeout: None,
            cancellations: None,
            with_presence: true,
            namespaces: None,
        }
    }

    /// Sets the number of calls after which the run ends. Calls that certainly had no effect do not
    /// count.
    #[must_use]
    pub fn with_operations(mut self, operations: u64) -> Self {
        self.operations = operations;
        self
    }

    /// Sets the number of groups of clients, at least 1. Each group has separate keys.
    #[must_use]
    pub fn with_groups(mut self, groups: usize) -> Self {
        self.groups = groups.max(1);
        self
    }

    /// Prepares for a store that fails during the run: each call gets the deadline `timeout`.
    ///
    /// The plan then omits calls whose reply only says that an entry exists. With many unknown
    /// outcomes, such replies decide nothing.
    #[must_use]
    pub fn with_faults(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self.with_presence = false;
        self
    }

    /// Sets the namespace of each round, by the number of the group and of the round. Each round
    /// needs a different, empty namespace.
    #[must_use]
    pub fn with_namespaces(
        mut self,
        namespaces: impl Fn(usize, u64) -> Result<Namespace> + Send + Sync + 'static,
    ) -> Self {
        self.namespaces = Some(Arc::new(namespaces));
        self
    }

    /// Ends one call in `one_in` (at least 1) by a deadline, after a random time up to `within`.
    #[must_use]
    pub fn with_cancellations(mut self, one_in: u32, within: Duration) -> Self {
        self.cancellations = Some((one_in.max(1), within));
        self.with_presence = false;
        self
    }

    pub(super) fn namespace(&self, group: usize, round: u64) -> Result<Namespace> {
        match &self.namespaces {
            Some(namespaces) => namespaces(group, round),
            None => Namespace::from_parts(self.tenant.as_str(), [format!("{group}-{round}")]),
        }
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("tenant", &self.tenant)
            .field("seed", &self.seed)
            .field("operations", &self.operations)
            .field("groups", &self.groups)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
