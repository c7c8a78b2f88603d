//! Runs the conformance suite on the embedded store: with bytes, with bytes in relaxed mode, and
//! with documents through `Typed`.

use std::marker::PhantomData;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cubbyhole_conformance::libtest_mimic::{Arguments, run};
use cubbyhole_conformance::{Document, Harness, Suite};
use cubbyhole_core::{
    Backend, Bytes, EntryStore, ExecutionContext, ManualClock, TypedExt, async_trait,
};
use cubbyhole_embedded::{Config, Durability, EmbeddedStore};
use cubbyhole_testkit::full_stack::FullStack;

/// Stores in a temporary folder, with a manual clock.
struct Embedded<V> {
    folder: tempfile::TempDir,
    stores: AtomicUsize,
    clock: ManualClock,
    durability: Durability,
    value: PhantomData<fn() -> V>,
}

impl<V> Embedded<V> {
    #[expect(clippy::expect_used, reason = "the case needs a folder")]
    fn new(durability: Durability) -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            stores: AtomicUsize::new(0),
            clock: ManualClock::default(),
            durability,
            value: PhantomData,
        }
    }

    #[expect(clippy::expect_used, reason = "the case needs a store")]
    async fn open(&self) -> EmbeddedStore {
        let name = format!("{}.redb", self.stores.fetch_add(1, Ordering::Relaxed));
        let config = Config::new(self.folder.path().join(name))
            .with_clock(self.clock.clone())
            .with_durability(self.durability);
        EmbeddedStore::open(&ExecutionContext::new(), config).await.expect("a store")
    }
}

#[async_trait]
impl Harness for Embedded<Bytes> {
    type Value = Bytes;

    async fn store(&self) -> Arc<dyn EntryStore<Bytes>> {
        Arc::new(self.open().await)
    }

    async fn closed_store(&self) -> Option<Arc<dyn EntryStore<Bytes>>> {
        let store = self.open().await;
        store.close(&ExecutionContext::new()).await.ok()?;
        Some(Arc::new(store))
    }

    fn clock(&self) -> Option<&ManualClock> {
        Some(&self.clock)
    }
}

#[async_trait]
impl Harness for Embedded<Document> {
    type Value = Document;

    async fn store(&self) -> Arc<dyn EntryStore<Document>> {
        Arc::new(self.open().await.typed::<Document>())
    }

    async fn closed_store(&self) -> Option<Arc<dyn EntryStore<Document>>> {
        let store = self.open().await;
        store.close(&ExecutionContext::new()).await.ok()?;
        Some(Arc::new(store.typed::<Document>()))
    }

    fn clock(&self) -> Option<&ManualClock> {
        Some(&self.clock)
    }
}

fn main() -> std::io::Result<ExitCode> {
    let bytes = || Embedded::<Bytes>::new(Durability::Immediate);
    let relaxed = || Embedded::<Bytes>::new(Durability::Relaxed);
    let typed = || Embedded::<Document>::new(Durability::Immediate);
    let mut trials = Suite::new(bytes)?.with_prefix("bytes").trials();
    trials.extend(Suite::new(relaxed)?.with_prefix("relaxed").trials());
    let layered = move || FullStack::new(bytes());
    trials.extend(Suite::new(layered)?.with_prefix("layers").trials());
    trials.extend(Suite::new(typed)?.with_prefix("typed").trials());
    Ok(run(&Arguments::from_args(), trials).exit_code())
}
