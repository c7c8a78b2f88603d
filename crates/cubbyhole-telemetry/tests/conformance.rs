//! Runs the conformance suite against `Instrumented` over the in-memory store.

use std::process::ExitCode;
use std::sync::Arc;

use cubbyhole_conformance::libtest_mimic::{Arguments, run};
use cubbyhole_conformance::{Capabilities, Harness, Suite};
use cubbyhole_core::{Backend, Bytes, EntryStore, ExecutionContext, ManualClock, async_trait};
use cubbyhole_memory::InMemoryStore;
use cubbyhole_telemetry::Instrumented;

#[derive(Default)]
struct Memory {
    clock: ManualClock,
}

#[async_trait]
impl Harness for Memory {
    type Value = Bytes;

    async fn store(&self) -> Arc<dyn EntryStore<Bytes>> {
        let store = InMemoryStore::builder().with_clock(self.clock.clone());
        Arc::new(Instrumented::new(store.with_value_size(Bytes::len).build(), "memory"))
    }

    async fn closed_store(&self) -> Option<Arc<dyn EntryStore<Bytes>>> {
        let store = Instrumented::new(InMemoryStore::<Bytes>::new(), "memory");
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

fn main() -> std::io::Result<ExitCode> {
    Ok(run(&Arguments::from_args(), Suite::new(Memory::default)?.trials()).exit_code())
}
