//! The conformance suite over a store inside all layers.

use std::sync::Arc;
use std::time::Duration;

use cubbyhole_conformance::{Capabilities, Harness};
use cubbyhole_core::limits::{DEFAULT_MAX_VALUE_BYTES, MAX_NAMESPACE_BYTES};
use cubbyhole_core::{
    Backend, Bytes, Compaction, EntryStore, ExecutionContext, ManualClock, NamespacePrefix, Result,
    Store, async_trait, delegate,
};
use cubbyhole_layers::{
    CacheOptions, DEFAULT_COMPRESSION_LEVEL, Encryption, KeyRing, Layers, Limits, RetryOptions,
    Timeouts, TtlRule,
};

const SCOPE: &str = "full:stack";
/// The bytes that compression and encryption add to a value.
const OVERHEAD: usize = 1 + 54;

/// A harness whose stores are those of another harness inside all layers but `ReadOnly`. Names are
/// relative to a scope. Limits and timeouts are so high that no case reaches them.
pub struct FullStack<H> {
    backend: H,
    /// The clock of the layers.
    clock: ManualClock,
}

impl<H> FullStack<H> {
    /// Wraps the stores of `backend`.
    pub fn new(backend: H) -> Self {
        Self { backend, clock: ManualClock::default() }
    }

    fn around(&self, backend: Arc<dyn EntryStore<Bytes>>) -> Arc<dyn EntryStore<Bytes>> {
        let minute = Duration::from_secs(60);
        let timeouts = Timeouts::new().with_read(minute).with_write(minute).with_walk(5 * minute);
        let limits = Limits::new()
            .with_value_bytes(DEFAULT_MAX_VALUE_BYTES)
            .with_rate(u32::MAX, None)
            .with_concurrency(100_000);
        let other = NamespacePrefix::parse("full:stack:other").expect("a prefix");
        let ring = KeyRing::generate().expect("random bytes");
        let layers = Layers::new()
            .with_relative_scope(NamespacePrefix::parse(SCOPE).expect("a scope"))
            .with_limits(limits)
            // The cases expect their own expiries, so the rule is for names that they do not use.
            .with_ttl_rule_for(other, TtlRule::new().with_default(minute))
            .with_cache(CacheOptions::new().with_max_stale(Duration::from_secs(3_600)))
            .with_timeouts(timeouts)
            .with_retry(RetryOptions::new())
            .with_compression(DEFAULT_COMPRESSION_LEVEL)
            .with_encryption(Encryption::new(Arc::new(ring)))
            .with_clock(Arc::new(self.clock.clone()));
        let inner = AsBackend(Arc::clone(&backend));
        let layered = layers.around(Arc::new(inner)).expect("valid layers");
        Arc::new(SweptBelow { layered, below: backend })
    }
}

#[async_trait]
impl<H: Harness<Value = Bytes>> Harness for FullStack<H> {
    type Value = Bytes;

    async fn store(&self) -> Arc<dyn EntryStore<Bytes>> {
        self.around(self.backend.store().await)
    }

    async fn closed_store(&self) -> Option<Arc<dyn EntryStore<Bytes>>> {
        Some(self.around(self.backend.closed_store().await?))
    }

    async fn advance(&self, duration: Duration) {
        self.backend.advance(duration).await;
        self.clock.advance(duration);
    }

    async fn set_clock_back(&self, duration: Duration) -> bool {
        self.backend.set_clock_back(duration).await
    }

    fn capabilities(&self) -> Capabilities {
        self.backend
            .capabilities()
            .without_tenant_listing()
            .with_stored_sizes()
            .with_max_value_bytes(DEFAULT_MAX_VALUE_BYTES - OVERHEAD)
            .with_max_namespace_bytes(MAX_NAMESPACE_BYTES - SCOPE.len() - 1)
    }
}

/// A store inside layers that sweeps below them, because a scope refuses to sweep.
pub struct SweptBelow<S> {
    /// The outermost layer.
    pub layered: S,
    /// The store below the layers.
    pub below: Arc<dyn EntryStore<Bytes>>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store<Bytes>> Store<Bytes> for SweptBelow<S> {
    async fn evict_expired(&self, ctx: &ExecutionContext) -> Result<usize> {
        self.below.evict_expired(ctx).await
    }

    delegate!(Bytes, |store| store.layered =>
        put_with_options, get, delete, list, put, list_namespaces
    );
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: EntryStore<Bytes>> EntryStore<Bytes> for SweptBelow<S> {
    delegate!(Bytes, |store| store.layered =>
        get_entry, get_many, stat, put_entry, delete_entry, write, scan, scan_recursive,
        scan_namespaces, scan_tenants, touch, take, delete_prefix, erase, usage, current_time,
        max_value_bytes
    );
}

/// A store of a harness as a backend. The harness opens and closes it.
struct AsBackend(Arc<dyn EntryStore<Bytes>>);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store<Bytes> for AsBackend {
    delegate!(Bytes, |store| store.0 =>
        put_with_options, get, delete, list, put, list_namespaces, evict_expired
    );
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl EntryStore<Bytes> for AsBackend {
    delegate!(Bytes, |store| store.0 =>
        get_entry, get_many, stat, put_entry, delete_entry, write, scan, scan_recursive,
        scan_namespaces, scan_tenants, touch, take, delete_prefix, erase, usage, current_time,
        max_value_bytes
    );
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for AsBackend {
    async fn close(&self, _: &ExecutionContext) -> Result<()> {
        Ok(())
    }

    async fn compact(&self, _: &ExecutionContext) -> Result<Compaction> {
        Ok(Compaction::default())
    }
}
