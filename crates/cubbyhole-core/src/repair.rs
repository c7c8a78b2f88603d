//! The options of a repair, and its report.

use serde::{Deserialize, Serialize};

use crate::{Error, Namespace, Timestamp};

/// What happens to orphaned values: values whose meta data is lost, because Redis evicted the index of
/// their namespace or another program deleted it. `Store::get` still returns them; listings and `erase`
/// may miss them. An entry whose meta data is left is not orphaned: a repair restores its place in the
/// index and keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrphanAction {
    /// Leaves them as they are and reports them.
    #[default]
    List,
    /// Adds them to the index again. What is lost with the index is replaced: such an entry gets a new
    /// version, and is created and updated now, by the server's clock. It expires when its value does.
    Register,
    /// Removes them.
    Remove,
}

/// What happens to the time of an embedded store that is ahead of the machine's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockAction {
    /// Leaves it as it is and reports it.
    Report,
    /// Sets it back to the machine's clock. Expired entries that were not swept are live again where
    /// they had expired by the store's time alone.
    #[default]
    SetBack,
}

/// How a store is repaired. The default changes no value.
///
/// ```
/// use cubbyhole::{OrphanAction, RepairOptions};
///
/// let options = RepairOptions::new().with_orphans(OrphanAction::Register);
/// assert_eq!(options.orphans(), OrphanAction::Register);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepairOptions {
    orphans: OrphanAction,
    listed_orphans: usize,
    clock: ClockAction,
}

impl RepairOptions {
    /// How many orphaned values a report lists unless set: 1,000.
    pub const DEFAULT_LISTED_ORPHANS: usize = 1000;

    /// Repairs indexes, lists orphaned values, and sets back a store's time that is ahead.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            orphans: OrphanAction::List,
            listed_orphans: Self::DEFAULT_LISTED_ORPHANS,
            clock: ClockAction::SetBack,
        }
    }

    /// Sets what happens to orphaned values.
    #[must_use]
    pub const fn with_orphans(mut self, action: OrphanAction) -> Self {
        self.orphans = action;
        self
    }

    /// Sets how many orphaned values the report lists at most; all of them are counted.
    #[must_use]
    pub const fn with_listed_orphans(mut self, limit: usize) -> Self {
        self.listed_orphans = limit;
        self
    }

    /// Sets what happens to a store's time that is ahead of the machine's clock.
    #[must_use]
    pub const fn with_clock(mut self, action: ClockAction) -> Self {
        self.clock = action;
        self
    }

    /// What happens to a store's time that is ahead of the machine's clock.
    #[must_use]
    pub const fn clock(&self) -> ClockAction {
        self.clock
    }

    /// What happens to orphaned values.
    #[must_use]
    pub const fn orphans(&self) -> OrphanAction {
        self.orphans
    }

    /// How many orphaned values the report lists at most.
    #[must_use]
    pub const fn listed_orphans(&self) -> usize {
        self.listed_orphans
    }
}

impl Default for RepairOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// An orphaned value that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OrphanedValue {
    /// The namespace that its name says.
    pub namespace: Namespace,
    /// The key that its name says.
    pub key: String,
    /// The length of the value.
    pub bytes: u64,
    /// When the value expires.
    pub expires_at: Option<Timestamp>,
}

/// The orphaned values that were found and, if asked for, registered or removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Orphans {
    /// How many values.
    pub values: u64,
    /// In how many namespaces.
    pub namespaces: u64,
    /// The length of the values.
    pub bytes: u64,
    /// Some of them, in order: at most [`RepairOptions::listed_orphans`].
    pub listed: Vec<OrphanedValue>,
}

/// The time of an embedded store that is more than a minute ahead of the machine's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockAhead {
    /// The store's time.
    pub store_time: Timestamp,
    /// The machine's clock.
    pub clock: Timestamp,
    /// Expired entries, not swept, that are live again if the store's time is set back.
    pub revived: u64,
    /// The namespaces of these.
    pub revived_namespaces: u64,
    /// Entries that were written at a later instant than the clock shows. They keep their instants and
    /// expire no earlier.
    pub written_later: u64,
}

/// The findings and the work of a repair.
#[derive(Debug, Clone, Default)]
pub struct RepairReport {
    /// A line for each kind of repair that was made: empty if nothing was wrong.
    pub repaired: Vec<String>,
    /// The orphaned values.
    pub orphans: Orphans,
    /// The store's time, if it is ahead, or was and is set back.
    pub clock_ahead: Option<ClockAhead>,
    /// The first failure, if the repair is incomplete: the end of the context, an outage, or a
    /// namespace that another program has damaged. The rest of the report is true all the same.
    pub failure: Option<Error>,
}
