//! The harness of a layer over memory.

use std::marker::PhantomData;
use std::sync::Arc;

use cubbyhole_conformance::{Capabilities, Harness, Suite, libtest_mimic::Trial};
use cubbyhole_core::{Backend, Bytes, EntryStore, ExecutionContext, ManualClock, async_trait};
use cubbyhole_memory::InMemoryStore;
use cubbyhole_testkit::full_stack::FullStack;

/// The store below a layer.
pub(crate) type Inner = InMemoryStore<Bytes>;

/// A layer, and how it differs from the store below it.
pub(crate) trait Layer: Send + Sync + 'static {
    fn around(inner: Inner, clock: &ManualClock) -> Arc<dyn EntryStore<Bytes>>;

    fn capabilities(inner: Capabilities) -> Capabilities {
        inner
    }
}

/// Returns the cases for a layer.
pub(crate) fn trials<L: Layer>(name: &str) -> std::io::Result<Vec<Trial>> {
    Ok(Suite::new(LayerHarness::<L>::default)?.with_prefix(name).trials())
}

struct LayerHarness<L> {
    clock: ManualClock,
    layer: PhantomData<fn() -> L>,
}

impl<L> Default for LayerHarness<L> {
    fn default() -> Self {
        Self { clock: ManualClock::default(), layer: PhantomData }
    }
}

impl<L> LayerHarness<L> {
    fn inner(&self) -> Inner {
        let builder = InMemoryStore::builder().with_clock(self.clock.clone());
        builder.with_value_size(Bytes::len).build()
    }
}

#[async_trait]
impl<L: Layer> Harness for LayerHarness<L> {
    type Value = Bytes;

    async fn store(&self) -> Arc<dyn EntryStore<Bytes>> {
        L::around(self.inner(), &self.clock)
    }

    async fn closed_store(&self) -> Option<Arc<dyn EntryStore<Bytes>>> {
        let inner = self.inner();
        inner.close(&ExecutionContext::new()).await.ok()?;
        Some(L::around(inner, &self.clock))
    }

    fn clock(&self) -> Option<&ManualClock> {
        Some(&self.clock)
    }

    fn capabilities(&self) -> Capabilities {
        L::capabilities(Capabilities::new().without_context_checks())
    }
}

/// The store without a layer.
struct Plain;

impl Layer for Plain {
    fn around(inner: Inner, _: &ManualClock) -> Arc<dyn EntryStore<Bytes>> {
        Arc::new(inner)
    }
}

/// Returns the cases for all layers together.
pub(crate) fn full_stack() -> std::io::Result<Vec<Trial>> {
    let harness = || FullStack::new(LayerHarness::<Plain>::default());
    Ok(Suite::new(harness)?.with_prefix("full_stack").trials())
}
