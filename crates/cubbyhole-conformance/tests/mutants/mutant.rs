//! The frame of the mutants: a layer above a sound store, and the test that a case catches it.

use std::marker::PhantomData;
use std::sync::Arc;

use cubbyhole_conformance::{Capabilities, Harness, Suite, Verdict};
use cubbyhole_core::{
    Backend, Bytes, Clock, EntryStore, ExecutionContext, ManualClock, Store, async_trait, delegate,
};
use cubbyhole_memory::InMemoryStore;

/// The sound store below a mutant.
pub(crate) type Inner = InMemoryStore<Bytes>;

pub(crate) type Context<'a> = &'a ExecutionContext;

/// A broken store: a layer that overrides the methods that it breaks.
pub(crate) trait Mutant: Sized + Send + Sync + 'static {
    fn around(inner: Inner) -> Self;

    fn inner(&self) -> &Inner;

    /// Returns the clock of the sound store.
    fn clock(manual: ManualClock) -> Arc<dyn Clock> {
        Arc::new(manual)
    }

    delegate!(Bytes, |mutant| mutant.inner() =>
        put_with_options, get, delete, list, put, list_namespaces, evict_expired, get_entry,
        get_many, stat, put_entry, delete_entry, write, scan, scan_recursive, scan_namespaces,
        scan_tenants, touch, take, delete_prefix, erase, usage, current_time,
        max_value_bytes
    );
}

/// The sound store, as a mutant that breaks nothing.
pub(crate) struct Sound(Inner);

impl Mutant for Sound {
    fn around(inner: Inner) -> Self {
        Self(inner)
    }

    fn inner(&self) -> &Inner {
        &self.0
    }
}

/// Implements the store traits for a mutant. It is a separate type, because a mutant that
/// implemented the traits itself would have two methods of each name.
struct MutantStore<M>(M);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<M: Mutant> Store<Bytes> for MutantStore<M> {
    delegate!(Bytes, |store| store.0 =>
        put_with_options, get, delete, list, put, list_namespaces, evict_expired
    );
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<M: Mutant> EntryStore<Bytes> for MutantStore<M> {
    delegate!(Bytes, |store| store.0 =>
        get_entry, get_many, stat, put_entry, delete_entry, write, scan, scan_recursive,
        scan_namespaces, scan_tenants, touch, take, delete_prefix, erase, usage, current_time,
        max_value_bytes
    );
}

/// The harness of a mutant.
pub(crate) struct MutantHarness<M> {
    clock: ManualClock,
    mutant: PhantomData<fn() -> M>,
}

impl<M> Default for MutantHarness<M> {
    fn default() -> Self {
        Self { clock: ManualClock::default(), mutant: PhantomData }
    }
}

#[async_trait]
impl<M: Mutant> Harness for MutantHarness<M> {
    type Value = Bytes;

    async fn store(&self) -> Arc<dyn EntryStore<Bytes>> {
        let builder = InMemoryStore::builder().with_clock(M::clock(self.clock.clone()));
        let store = builder.with_value_size(Bytes::len).build();
        Arc::new(MutantStore(M::around(store)))
    }

    async fn closed_store(&self) -> Option<Arc<dyn EntryStore<Bytes>>> {
        let store = InMemoryStore::<Bytes>::new();
        store.close(&ExecutionContext::new()).await.ok()?;
        Some(Arc::new(MutantStore(M::around(store))))
    }

    fn clock(&self) -> Option<&ManualClock> {
        Some(&self.clock)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new().without_context_checks()
    }
}

/// Asserts that the case passes on the sound store and fails on the mutant.
pub(crate) fn catches<M: Mutant>(case: &str) -> std::io::Result<()> {
    let sound = Suite::new(MutantHarness::<Sound>::default)?.run_case(case);
    assert_eq!(sound, Some(Verdict::Passed), "{case} must pass on the sound store");
    let broken = Suite::new(MutantHarness::<M>::default)?.run_case(case);
    let caught = matches!(broken, Some(Verdict::Failed(_)));
    assert!(caught, "{case} must fail on the mutant, but returned {broken:?}");
    Ok(())
}

/// Defines mutants. Each has the methods that it breaks, and the cases that must catch it. The
/// macro generates a test with the name of the mutant.
macro_rules! mutants {
    ($(
        #[doc = $doc:literal]
        #[caught_by($($case:literal),+)]
        $name:ident { $($body:tt)* }
    )*) => {$(
        #[doc = $doc]
        pub(crate) struct $name {
            inner: Inner,
        }

        #[async_trait]
        impl Mutant for $name {
            fn around(inner: Inner) -> Self {
                Self { inner }
            }

            fn inner(&self) -> &Inner {
                &self.inner
            }

            $($body)*
        }

        #[test]
        #[expect(non_snake_case, reason = "the test has the name of the mutant")]
        fn $name() -> std::io::Result<()> {
            $(catches::<$name>($case)?;)+
            Ok(())
        }
    )*};
}

pub(crate) use mutants;
