//! A store that does what the one beneath does, except where a mutant says otherwise.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole_conformance::{Capabilities, Harness};
use cubbyhole_core::{
    Backend, Batch, Bytes, Clock, Condition, Entry, EntryStore, Erased, ExecutionContext, Expiry,
    GetOptions, ManualClock, Namespace, NamespacePrefix, Page, PutOptions, Result, ScanItem,
    ScanOptions, Store, TenantId, Timestamp, Usage, Version, async_trait,
};
use cubbyhole_memory::InMemoryStore;

/// The store beneath a mutant.
pub(crate) type Inner = InMemoryStore<Bytes>;

/// Writes each method twice: as a default of `Mutant`, which asks the store beneath, and as the
/// store's own, which asks the mutant.
macro_rules! methods {
    (
        Store { $($core:ident($($core_arg:ident: $core_ty:ty),*) -> $core_out:ty;)* }
        EntryStore { $($entry:ident($($entry_arg:ident: $entry_ty:ty),*) -> $entry_out:ty;)* }
    ) => {
        /// A broken store: it overrides the method that it breaks.
        #[async_trait]
        pub(crate) trait Mutant: Sized + Send + Sync + 'static {
            /// Around the store beneath.
            fn around(inner: Inner) -> Self;

            /// The store beneath.
            fn inner(&self) -> &Inner;

            /// The clock of the store beneath.
            fn clock(manual: ManualClock) -> Arc<dyn Clock> {
                Arc::new(manual)
            }

            $(async fn $core(
                &self,
                ctx: &ExecutionContext,
                $($core_arg: $core_ty),*
            ) -> Result<$core_out> {
                self.inner().$core(ctx, $($core_arg),*).await
            })*

            $(async fn $entry(
                &self,
                ctx: &ExecutionContext,
                $($entry_arg: $entry_ty),*
            ) -> Result<$entry_out> {
                self.inner().$entry(ctx, $($entry_arg),*).await
            })*
        }

        #[async_trait]
        impl<M: Mutant> Store<Bytes> for Layer<M> {
            $(async fn $core(
                &self,
                ctx: &ExecutionContext,
                $($core_arg: $core_ty),*
            ) -> Result<$core_out> {
                self.0.$core(ctx, $($core_arg),*).await
            })*
        }

        #[async_trait]
        impl<M: Mutant> EntryStore<Bytes> for Layer<M> {
            $(async fn $entry(
                &self,
                ctx: &ExecutionContext,
                $($entry_arg: $entry_ty),*
            ) -> Result<$entry_out> {
                self.0.$entry(ctx, $($entry_arg),*).await
            })*
        }
    };
}

methods! {
    Store {
        put_with_options(ns: &Namespace, key: &str, value: Bytes, options: PutOptions) -> ();
        get(ns: &Namespace, key: &str) -> Option<Bytes>;
        delete(ns: &Namespace, key: &str) -> ();
        list(ns: &Namespace, prefix: Option<&str>) -> Vec<String>;
        put(ns: &Namespace, key: &str, value: Bytes) -> ();
        list_namespaces(prefix: &NamespacePrefix) -> Vec<Namespace>;
        evict_expired() -> usize;
    }
    EntryStore {
        get_entry(ns: &Namespace, key: &str, options: GetOptions) -> Option<Entry<Bytes>>;
        get_many(ns: &Namespace, keys: &[&str]) -> Vec<Result<Option<Entry<Bytes>>>>;
        put_entry(
            ns: &Namespace, key: &str, value: Bytes, options: PutOptions, condition: Condition
        ) -> Version;
        delete_entry(ns: &Namespace, key: &str, condition: Condition) -> bool;
        write(ns: &Namespace, batch: Batch<Bytes>) -> Vec<Option<Version>>;
        scan(ns: &Namespace, options: ScanOptions) -> Page<ScanItem<Bytes>, String>;
        scan_namespaces(
            prefix: &NamespacePrefix, after: Option<&Namespace>, limit: usize
        ) -> Page<Namespace>;
        scan_tenants(after: Option<&TenantId>, limit: usize) -> Page<TenantId>;
        touch(ns: &Namespace, key: &str, expiry: Expiry) -> bool;
        take(ns: &Namespace, key: &str) -> Option<Entry<Bytes>>;
        erase(prefix: &NamespacePrefix, limit: usize) -> Erased;
        usage(prefix: &NamespacePrefix) -> Usage;
        current_time(ns: &Namespace) -> Timestamp;
    }
}

/// A mutant as a store: a type of its own, so that no call of a method is ambiguous.
struct Layer<M>(M);

/// The harness of a mutant.
pub(crate) struct Lab<M> {
    clock: ManualClock,
    mutant: PhantomData<fn() -> M>,
}

impl<M> Default for Lab<M> {
    fn default() -> Self {
        Self { clock: ManualClock::default(), mutant: PhantomData }
    }
}

#[async_trait]
impl<M: Mutant> Harness for Lab<M> {
    type Value = Bytes;

    async fn store(&self) -> Arc<dyn EntryStore<Bytes>> {
        let builder = InMemoryStore::builder().with_clock(M::clock(self.clock.clone()));
        let store = builder.with_value_size(Bytes::len).build();
        Arc::new(Layer(M::around(store)))
    }

    async fn closed_store(&self) -> Option<Arc<dyn EntryStore<Bytes>>> {
        let store = InMemoryStore::<Bytes>::new();
        store.close(&ExecutionContext::new()).await.ok()?;
        Some(Arc::new(Layer(M::around(store))))
    }

    async fn advance(&self, duration: Duration) {
        self.clock.advance(duration);
    }

    async fn set_clock_back(&self, duration: Duration) -> bool {
        self.clock.set_back(duration);
        true
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new().ignores_context()
    }
}
