//! The suite on `InMemoryStore`: with bytes, whose size it knows, and with documents, which it
//! stores without a codec.

use std::marker::PhantomData;
use std::process::ExitCode;
use std::sync::Arc;

use cubbyhole_conformance::libtest_mimic::{Arguments, run};
use cubbyhole_conformance::{Capabilities, Document, Harness, Suite};
use cubbyhole_core::{Backend, Bytes, EntryStore, ExecutionContext, ManualClock, async_trait};
use cubbyhole_memory::InMemoryStore;

#[derive(Default)]
struct Memory<V> {
    clock: ManualClock,
    value: PhantomData<fn() -> V>,
}

#[async_trait]
impl Harness for Memory<Bytes> {
    type Value = Bytes;

    async fn store(&self) -> Arc<dyn EntryStore<Bytes>> {
        let store = InMemoryStore::builder().with_clock(self.clock.clone());
        Arc::new(store.with_value_size(Bytes::len).build())
    }

    async fn closed_store(&self) -> Option<Arc<dyn EntryStore<Bytes>>> {
        let store = InMemoryStore::<Bytes>::new();
        store.close(&ExecutionContext::new()).await.ok()?;
        Some(Arc::new(store))
    }

    fn clock(&self) -> Option<&ManualClock> {
        Some(&self.clock)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new().without_context_checks()
    }
}

#[async_trait]
impl Harness for Memory<Document> {
    type Value = Document;

    async fn store(&self) -> Arc<dyn EntryStore<Document>> {
        Arc::new(InMemoryStore::builder().with_clock(self.clock.clone()).build())
    }

    fn clock(&self) -> Option<&ManualClock> {
        Some(&self.clock)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new().without_context_checks().without_value_bytes()
    }
}

fn main() -> std::io::Result<ExitCode> {
    let bytes = Suite::new(Memory::<Bytes>::default)?.with_prefix("bytes");
    let documents = Suite::new(Memory::<Document>::default)?.with_prefix("documents");
    let trials = bytes.trials().into_iter().chain(documents.trials()).collect();
    Ok(run(&Arguments::from_args(), trials).exit_code())
}
