//! Options and report of a repair.

use serde::{Deserialize, Serialize};

use crate::{Error, Namespace, Timestamp};

/// The action on orphaned values in Redis.
///
/// An orphaned value has lost its metadata, because Redis evicted the index of its namespace or another
/// program deleted it. `Store::get` still returns it; listings and `erase` may miss it. An entry that
/// still has metadata is not orphaned: a repair restores it in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrphanAction {
    /// Reports orphaned values and changes nothing.
    #[default]
    List,
    /// Adds orphaned values to the index again. Lost metadata is replaced: the entry gets a new version,
    /// and the server's current time as `created_at` and `updated_at`. Its expiry is that of the value.
    Register,
    /// Removes orphaned values.
    Remove,
}

/// The action on the time of an embedded store that is ahead of the machine's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockAction {
    /// Reports it and changes nothing.
    Report,
    /// Sets the store's time back to the machine's clock. Unswept entries that have expired by the
    /// store's time, but not by the machine's clock, become live again.
    #[default]
    SetBack,
}

/// Options of a repair. The default options change no value.
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
    /// Default maximum number of orphaned values that a report lists: 1,000.
    pub const DEFAULT_LISTED_ORPHANS: usize = 1000;

    /// Creates the default options: repair indexes, list orphaned values, and set back a store's time
    /// that is ahead of the machine's clock.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            orphans: OrphanAction::List,
            listed_orphans: Self::DEFAULT_LISTED_ORPHANS,
            clock: ClockAction::SetBack,
        }
    }

    /// Sets the action on orphaned values.
    #[must_use]
    pub const fn with_orphans(mut self, action: OrphanAction) -> Self {
        self.orphans = action;
        self
    }

    /// Sets the maximum number of orphaned values that the report lists. It counts all of them.
    #[must_use]
    pub const fn with_listed_orphans(mut self, limit: usize) -> Self {
        self.listed_orphans = limit;
        self
    }

    /// Sets the action on a store's time that is ahead of the machine's clock.
    #[must_use]
    pub const fn with_clock(mut self, action: ClockAction) -> Self {
        self.clock = action;
        self
    }

    /// Returns the action on a store's time that is ahead of the machine's clock.
    #[must_use]
    pub const fn clock(&self) -> ClockAction {
        self.clock
    }

    /// Returns the action on orphaned values.
    #[must_use]
    pub const fn orphans(&self) -> OrphanAction {
        self.orphans
    }

    /// Returns the maximum number of orphaned values that the report lists.
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

/// An orphaned value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OrphanedValue {
    /// The namespace, from the name of the Redis key.
    pub namespace: Namespace,
    /// The key, from the name of the Redis key.
    pub key: String,
    /// The length of the value in bytes.
    pub bytes: u64,
    /// The time at which the value expires.
    pub expires_at: Option<Timestamp>,
}

/// The orphaned values that a repair found and, depending on [`OrphanAction`], registered or removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Orphans {
    /// Number of values.
    pub values: u64,
    /// Number of namespaces that contain them.
    pub namespaces: u64,
    /// Total length of the values in bytes.
    pub bytes: u64,
    /// The first of them, in order: at most [`RepairOptions::listed_orphans`].
    pub listed: Vec<OrphanedValue>,
}

/// The time of an embedded store that is more than a minute ahead of the machine's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockAhead {
    /// The store's time.
    pub store_time: Timestamp,
    /// The machine's clock.
    pub clock: Timestamp,
    /// Number of unswept, expired entries that become live again if the store's time is set back.
    pub revived: u64,
    /// Number of their namespaces.
    pub revived_namespaces: u64,
    /// Number of entries that were written later than the machine's clock shows. They keep their
    /// timestamps and expire no earlier.
    pub written_later: u64,
}

/// The report of a repair.
#[derive(Debug, Clone, Default)]
pub struct RepairReport {
    /// One line for each kind of repair that was made. Empty if nothing was wrong.
    pub repaired: Vec<String>,
    /// The orphaned values.
    pub orphans: Orphans,
    /// The store's time, if it was ahead of the machine's clock when the repair began.
    pub clock_ahead: Option<ClockAhead>,
    /// The first failure, if the repair is incomplete: the context ended, the server was unavailable, or
    /// another program has damaged a namespace. The rest of the report is valid nevertheless.
    pub failure: Option<Error>,
}
