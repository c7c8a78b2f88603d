//! The suite on `Typed`: documents as JSON in a store of bytes.

use std::process::ExitCode;
use std::sync::Arc;

use cubbyhole_conformance::{Capabilities, Document, Harness};
use cubbyhole_core::{
    Backend, Bytes, EntryStore, ExecutionContext, ManualClock, TypedExt, async_trait,
};
use cubbyhole_memory::InMemoryStore;

#[derive(Default)]
struct TypedMemory(ManualClock);

#[async_trait]
impl Harness for TypedMemory {
    type Value = Document;

    async fn store(&self) -> Arc<dyn EntryStore<Document>> {
        let store = InMemoryStore::builder().with_clock(self.0.clone());
        Arc::new(store.with_value_size(Bytes::len).build().typed::<Document>())
    }

    async fn closed_store(&self) -> Option<Arc<dyn EntryStore<Document>>> {
        let store = InMemoryStore::<Bytes>::new();
        store.close(&ExecutionContext::new()).await.ok()?;
        Some(Arc::new(store.typed::<Document>()))
    }

    fn clock(&self) -> Option<&ManualClock> {
        Some(&self.0)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new().without_context_checks()
    }
}

fn main() -> ExitCode {
    cubbyhole_conformance::run(TypedMemory::default)
}
