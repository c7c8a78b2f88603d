//! The suite with a real clock, like that of a server: the cases wait for expiry.

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
        assert!(slept.is_ok(), "the sleep must not be cancelled");
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new().without_context_checks().with_real_time(Duration::from_millis(250))
    }
}

fn main() -> ExitCode {
    cubbyhole_conformance::run(|| RealTime)
}
