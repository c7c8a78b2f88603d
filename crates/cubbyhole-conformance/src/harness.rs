//! The interface between the suite and a store: [`Harness`] creates stores, and [`Capabilities`]
//! describes them.

use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::limits::{DEFAULT_MAX_VALUE_BYTES, MAX_NAMESPACE_BYTES};
use cubbyhole_core::{EntryStore, ManualClock, async_trait};

use crate::Sample;

/// Creates the stores for the suite, and moves their clock.
///
/// All stores of a harness share one clock. The suite creates one harness for all cases that only
/// need a fresh tenant. A case that moves the clock, or that needs a separate store, gets its own
/// harness, so cases can run in parallel. A harness releases its resources, for example a temporary
/// directory or a schema, when it is dropped.
///
/// A setup that fails may panic. The case then fails with the message of the panic.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// The type of the values.
    type Value: Sample;

    /// Creates an empty store that shares no data with another one, and uses the clock of the
    /// harness.
    ///
    /// A store that only implements `Store` needs an empty `impl EntryStore<V> for MyStore {}`, and
    /// declares the missing methods in [`capabilities`](Self::capabilities).
    async fn store(&self) -> Arc<dyn EntryStore<Self::Value>>;

    /// Creates a store and closes it. The default returns `None`, and the cases of closed stores
    /// are ignored.
    async fn closed_store(&self) -> Option<Arc<dyn EntryStore<Self::Value>>> {
        None
    }

    /// Returns the clock of the stores, if it is a [`ManualClock`]. The defaults of
    /// [`advance`](Self::advance) and [`set_clock_back`](Self::set_clock_back) move it. The default
    /// returns `None`.
    fn clock(&self) -> Option<&ManualClock> {
        None
    }

    /// Advances the time of the stores. With a manual clock, moves it by exactly `duration`. With a
    /// real clock, waits at least this long. The default moves the [`clock`](Self::clock).
    ///
    /// # Panics
    /// The default panics if there is no manual clock.
    #[expect(clippy::panic, reason = "a harness that cannot advance its time fails the case")]
    async fn advance(&self, duration: Duration) {
        let Some(clock) = self.clock() else {
            panic!("implement `clock` or `advance` of this harness");
        };
        clock.advance(duration);
    }

    /// Sets the clock of the stores back by `duration`, without time passing, and returns `true`.
    /// The default does so with the [`clock`](Self::clock). Without a manual clock it returns `false`,
    /// and the cases that need this are ignored.
    async fn set_clock_back(&self, duration: Duration) -> bool {
        self.clock().map(|clock| clock.set_back(duration)).is_some()
    }

    /// Returns the capabilities of the stores. By default, they have all capabilities.
    fn capabilities(&self) -> Capabilities {
        Capabilities::new()
    }
}

/// The methods of [`EntryStore`], by the names that their errors contain.
pub(crate) const ENTRY_METHODS: [&str; 16] = [
    "get_entry",
    "get_many",
    "stat",
    "put_entry",
    "delete_entry",
    "write",
    "scan",
    "scan_recursive",
    "scan_namespaces",
    "scan_tenants",
    "touch",
    "take",
    "delete_prefix",
    "erase",
    "usage",
    "current_time",
];

/// The capabilities of the stores of a [`Harness`].
///
/// [`new`](Self::new) has all capabilities and [`core_only`](Self::core_only) has the fewest. The
/// other methods change one of them. A case that needs a missing capability is reported as ignored,
/// with the reason. A case for a missing method is ignored only after the method has returned
/// `Unsupported`.
///
/// ```
/// use std::time::Duration;
///
/// use cubbyhole_conformance::Capabilities;
///
/// // A store that implements only the four required methods.
/// let minimal = Capabilities::core_only();
/// assert!(!minimal.has("scan"));
///
/// // A store with all methods, on an engine that removes expired entries itself.
/// let server = Capabilities::new()
///     .with_retained_expired(false)
///     .with_real_time(Duration::from_millis(250));
/// assert!(server.has("scan"));
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
    pub(crate) reports_value_sizes: bool,
    pub(crate) max_value_bytes: usize,
    pub(crate) max_namespace_bytes: usize,
    pub(crate) keeps_any_value: bool,
    pub(crate) real_time: Option<Duration>,
}

impl Capabilities {
    /// All capabilities, the default limit for values, and a manual clock.
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
            reports_value_sizes: true,
            max_value_bytes: DEFAULT_MAX_VALUE_BYTES,
            max_namespace_bytes: MAX_NAMESPACE_BYTES,
            keeps_any_value: true,
            real_time: None,
        }
    }

    /// Only the four required methods of `Store`. The store has no method of `EntryStore`, supports
    /// no write option except the TTL, uses the default bodies of `list_namespaces` and
    /// `evict_expired`, and has no limit for values.
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

    /// The store lacks this method of `EntryStore`: it returns `Unsupported`.
    #[must_use]
    pub fn without_method(mut self, name: &'static str) -> Self {
        self.missing.push(name);
        self
    }

    /// `put_with_options` rejects every option except the TTL, like
    /// [`PutOptions::ttl_only`](cubbyhole_core::PutOptions::ttl_only).
    #[must_use]
    pub const fn with_ttl_only(mut self) -> Self {
        self.all_put_options = false;
        self
    }

    /// Sets whether the store implements `list_namespaces`. The default body returns no namespaces.
    #[must_use]
    pub const fn with_namespace_listing(mut self, yes: bool) -> Self {
        self.lists_namespaces = yes;
        self
    }

    /// Sets whether expired entries stay until `evict_expired` removes and counts them. Set `false`
    /// for an engine that removes them itself, because then the count is unpredictable.
    #[must_use]
    pub const fn with_retained_expired(mut self, yes: bool) -> Self {
        self.keeps_expired = yes;
        self
    }

    /// `scan_tenants` returns `PermissionDenied`: the role is not allowed to see across tenants.
    #[must_use]
    pub const fn without_tenant_listing(mut self) -> Self {
        self.sees_tenants = false;
        self
    }

    /// The methods ignore their context, like those of `InMemoryStore`. A case checks this.
    #[must_use]
    pub const fn without_context_checks(mut self) -> Self {
        self.honours_context = false;
        self
    }

    /// The store does not know the size of values. It has no limit for them, and `usage` returns no
    /// bytes.
    #[must_use]
    pub const fn without_value_bytes(mut self) -> Self {
        self.knows_value_bytes = false;
        self
    }

    /// Sets the limit for values, in encoded bytes. The default is 16 MiB.
    #[must_use]
    pub const fn with_max_value_bytes(mut self, bytes: usize) -> Self {
        self.max_value_bytes = bytes;
        self
    }

    /// `stat`, `scan` and `usage` report the sizes of stored values, which differ from the sizes of the
    /// values that were put, as in a layer that encrypts or compresses.
    #[must_use]
    pub const fn with_stored_sizes(mut self) -> Self {
        self.reports_value_sizes = false;
        self
    }

    /// Sets the limit for the text of a namespace, in bytes. The default is 1,024. A layer that adds
    /// a prefix has a lower limit.
    #[must_use]
    pub const fn with_max_namespace_bytes(mut self, bytes: usize) -> Self {
        self.max_namespace_bytes = bytes;
        self
    }

    /// The store accepts only some values of its type. The values of [`Sample::awkward`] are not
    /// written.
    #[must_use]
    pub const fn without_awkward_values(mut self) -> Self {
        self.keeps_any_value = false;
        self
    }

    /// The store uses a real clock, and [`Harness::advance`] waits. Cases that are exact to the
    /// millisecond are ignored.
    ///
    /// Entries that must expire during a case get the TTL `short`, and the case waits for twice as
    /// long. `short` is therefore the tolerance for the store's clock. 250 ms is enough on an idle
    /// machine.
    #[must_use]
    pub const fn with_real_time(mut self, short: Duration) -> Self {
        self.real_time = Some(short);
        self
    }

    /// Returns true if the store has this method of `EntryStore`.
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
