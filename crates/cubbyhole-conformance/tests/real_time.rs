//! The suite on a clock that nobody can move, as servers have it: expiry is waited for.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole_conformance::{Capabilities, Harness};
use cubbyhole_core::{Bytes, EntryStore, ExecutionContext, async_trait};
use cubbyhole_memory::InMemoryStore;

struct RealTime;

#[async_trait]
impl Harness for RealTime {
    type Value = Bytes;

    async fn store(&self) -> Arc<dyn EntryStore<Bytes>> {
        Arc::new(InMemoryStore::builder().with_value_size(Bytes::len).build())
    }

    async fn advance(&self, duration: Duration) {
        let slept = ExecutionContext::new().sleep(duration).await;
        assert!(slept.is_ok(), "a context that never ends has ended");
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new().ignores_context().real_time(Duration::from_millis(250))
    }
}

fn main() -> ExitCode {
    cubbyhole_conformance::run(|| RealTime)
}
