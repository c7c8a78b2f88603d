//! A model of a store, to compare with random sequences of operations.
//!
//! The model is a map and a counter of milliseconds. It shares no code with any store, and renders
//! and matches namespaces with its own code. The case `model::random_operations` plays random
//! sequences on the store and on the model, and compares every reply. It shrinks a failing sequence
//! to a minimal one, and prints it with its seed.
//!
//! With a manual clock, time passes within a sequence, and instants are compared to the
//! millisecond. With a real clock, entries either outlive the sequence or have expired long ago.
//!
//! Copy a sequence that failed into a test, and play it with [`replay`]:
//!
//! ```
//! # use std::sync::Arc;
//! # use cubbyhole_conformance::Harness;
//! # use cubbyhole_core::{Bytes, EntryStore, ManualClock, async_trait};
//! # use cubbyhole_memory::InMemoryStore;
//! use cubbyhole_conformance::model::{Lifetime, Location, Operation, replay};
//!
//! # #[derive(Default)]
//! # struct MyStore(ManualClock);
//! #
//! # #[async_trait]
//! # impl Harness for MyStore {
//! #     type Value = Bytes;
//! #
//! #     async fn store(&self) -> Arc<dyn EntryStore<Bytes>> {
//! #         Arc::new(InMemoryStore::builder().with_clock(self.0.clone()).build())
//! #     }
//! #
//! #     fn clock(&self) -> Option<&ManualClock> {
//! #         Some(&self.0)
//! #     }
//! # }
//! #
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), String> {
//! let location = Location { namespace: 1, key: 2 };
//! let operations = [
//!     Operation::Put(location, 7, Lifetime::Millis(5)),
//!     Operation::Advance(5),
//!     Operation::Get(location),
//! ];
//! replay(MyStore::default(), &operations).await
//! # }
//! ```
//!
//! # Environment variables
//!
//! - `CUBBYHOLE_MODEL_CASES`: the number of sequences, 256 by default. A sequence has 50 operations
//!   on average.
//! - `CUBBYHOLE_MODEL_SEED`: the seed that a failure printed, to repeat it.

mod condition;
mod operation;
mod play;
mod prefixes;
mod reads;
mod state;
mod writes;

use std::sync::Arc;

use proptest::strategy::Strategy;

use crate::Harness;
use crate::outcome::{Stop, Verdict};
use crate::world::World;

pub use operation::{
    Change, DeepScan, Lifetime, Location, Operation, PageScan, ReadMode, WriteCondition,
};
pub(crate) use play::play;

/// Returns the strategy that draws the sequences of the case, for tests of your own.
pub fn sequences() -> impl Strategy<Value = Vec<Operation>> {
    proptest::collection::vec(operation::any_operation(), 0..=100)
}

/// Plays one sequence on a new store of `harness`.
///
/// # Errors
/// The first difference between the store and the model.
pub async fn replay<H: Harness>(harness: H, operations: &[Operation]) -> Result<(), String> {
    let harness = Arc::new(harness);
    let store = harness.store().await;
    let world = World::new(harness, store).map_err(|error| error.to_string())?;
    play(&world, operations).await.map_err(message_of)
}

pub(crate) fn message_of(stop: Stop) -> String {
    match stop.into_verdict(&[]) {
        Verdict::Passed => String::new(),
        Verdict::Ignored(text) | Verdict::Failed(text) => text,
    }
}
