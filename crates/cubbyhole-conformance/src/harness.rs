//! What a store's author writes to run the suite: how to make a store, and what it can do.

use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::limits::DEFAULT_MAX_VALUE_BYTES;
use cubbyhole_core::{EntryStore, async_trait};

use crate::Sample;

/// Makes the stores that the suite runs on, and moves their time.
///
/// A harness is one world: the stores that it makes and the clock that they share. The suite makes
/// one harness for all cases that can live side by side, and one more for each case that moves the
/// time or needs a store of its own, so that cases run in parallel without disturbing each other.
/// What a harness holds (a temporary folder, a schema) it gives back when it is dropped.
///
/// A setup that fails may panic: the case fails with the message.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// The values that the stores hold.
    type Value: Sample;

    /// A new, empty store that shares nothing with any other, on the harness's clock.
    ///
    /// A store with only the core trait writes `impl EntryStore<V> for Mine {}` and says so in
    /// [`capabilities`](Self::capabilities).
    async fn store(&self) -> Arc<dyn EntryStore<Self::Value>>;

    /// A store that was opened and then closed, for the cases of closed stores; `None` where stores
    /// cannot be closed.
    async fn closed_store(&self) -> Option<Arc<dyn EntryStore<Self::Value>>> {
        None
    }

    /// Lets that much time pass for the stores: moves a manual clock by exactly `duration`, or
    /// waits at least that long.
    async fn advance(&self, duration: Duration);

    /// Sets the clock of the stores back by `duration`, without time passing, and returns whether it
    /// did. The default returns `false`: the harness cannot, and cases that need it are ignored.
    async fn set_clock_back(&self, duration: Duration) -> bool {
        let _ = duration;
        false
    }

    /// What the stores can do. Everything, unless said otherwise.
    fn capabilities(&self) -> Capabilities {
        Capabilities::new()
    }
}

/// The methods that [`EntryStore`] adds, by the names that their errors carry.
pub(crate) const ENTRY_METHODS: [&str; 13] = [
    "get_entry",
    "get_many",
    "put_entry",
    "delete_entry",
    "write",
    "scan",
    "scan_namespaces",
    "scan_tenants",
    "touch",
    "take",
    "erase",
    "usage",
    "current_time",
];

/// What the stores of a [`Harness`] can do.
///
/// It starts with everything; each method takes one thing away (or, after
/// [`core_only`](Self::core_only), gives one back). A case that needs what is missing is reported
/// as ignored, with the reason, after it has seen the store refuse with `Unsupported`: never is a
/// missing ability passed over in silence, and a store that has what it denies is not hidden
/// either.
///
/// ```
/// use cubbyhole_conformance::Capabilities;
///
/// // A store that implements the four required methods and nothing else.
/// let mine = Capabilities::core_only();
/// assert!(!mine.has("scan"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    pub(crate) missing: Vec<&'static str>,
    pub(crate) all_put_options: bool,
    pub(crate) lists_namespaces: bool,
    pub(crate) keeps_expired: bool,
    pub(crate) sees_tenants: bool,
    pub(crate) honours_context: bool,
    pub(crate) knows_value_bytes: bool,
    pub(crate) max_value_bytes: usize,
    pub(crate) keeps_any_value: bool,
    pub(crate) real_time: Option<Duration>,
}

impl Capabilities {
    /// Everything, with the default value limit and a manual clock.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            missing: Vec::new(),
            all_put_options: true,
            lists_namespaces: true,
            keeps_expired: true,
            sees_tenants: true,
            honours_context: true,
            knows_value_bytes: true,
            max_value_bytes: DEFAULT_MAX_VALUE_BYTES,
            keeps_any_value: true,
            real_time: None,
        }
    }

    /// The core trait's four required methods: no method of `EntryStore`, no write option but the
    /// TTL, the default bodies of `list_namespaces` and `evict_expired`, no limit on values.
    #[must_use]
    pub fn core_only() -> Self {
        Self {
            missing: ENTRY_METHODS.to_vec(),
            all_put_options: false,
            lists_namespaces: false,
            keeps_expired: false,
            knows_value_bytes: false,
            ..Self::new()
        }
    }

    /// One method of `EntryStore` is not there and answers `Unsupported`.
    #[must_use]
    pub fn without_method(mut self, name: &'static str) -> Self {
        self.missing.push(name);
        self
    }

    /// `put_with_options` refuses every option but the TTL, as
    /// [`PutOptions::ttl_only`](cubbyhole_core::PutOptions::ttl_only) does.
    #[must_use]
    pub const fn ttl_only(mut self) -> Self {
        self.all_put_options = false;
        self
    }

    /// Whether `list_namespaces` is more than the default body.
    #[must_use]
    pub const fn lists_namespaces(mut self, yes: bool) -> Self {
        self.lists_namespaces = yes;
        self
    }

    /// Whether expired entries stay until `evict_expired` removes and counts them. `false` for an
    /// engine that expires by itself: then nobody can tell how many were left.
    #[must_use]
    pub const fn keeps_expired(mut self, yes: bool) -> Self {
        self.keeps_expired = yes;
        self
    }

    /// `scan_tenants` answers `PermissionDenied`: the role may not see across tenants.
    #[must_use]
    pub const fn blind_to_tenants(mut self) -> Self {
        self.sees_tenants = false;
        self
    }

    /// The operations ignore their context, as those of `InMemoryStore` do; a case asserts it.
    #[must_use]
    pub const fn ignores_context(mut self) -> Self {
        self.honours_context = false;
        self
    }

    /// The store does not know how long values are: no limit on them, no bytes in `usage`.
    #[must_use]
    pub const fn without_value_bytes(mut self) -> Self {
        self.knows_value_bytes = false;
        self
    }

    /// The largest value that the store takes, in encoded bytes; 16 MiB unless set.
    #[must_use]
    pub const fn max_value_bytes(mut self, bytes: usize) -> Self {
        self.max_value_bytes = bytes;
        self
    }

    /// The store keeps only some values of its type; [`Sample::awkward`] values are not tried.
    #[must_use]
    pub const fn picky_about_values(mut self) -> Self {
        self.keeps_any_value = false;
        self
    }

    /// The clock is a real one that nobody can move: [`Harness::advance`] waits. Entries that are
    /// to expire get the TTL `short`, and the suite then waits for twice as long, so `short` is
    /// how far the store's clock may be off; 250 ms serves on a quiet machine. Cases that are
    /// exact to the millisecond are ignored.
    #[must_use]
    pub const fn real_time(mut self, short: Duration) -> Self {
        self.real_time = Some(short);
        self
    }

    /// Whether a method of `EntryStore` is there.
    #[must_use]
    pub fn has(&self, method: &str) -> bool {
        !self.missing.contains(&method)
    }
}

impl Default for Capabilities {
    fn default() -> Self {
        Self::new()
    }
}
