//! The conformance suite of Cubbyhole: what every store must do, case by case.
//!
//! The contract stands on the traits of `cubbyhole-core`; here it is put to the test. Every backend
//! and layer of the project runs this suite, and so can a store of yours:
//!
//! ```
//! # use std::{process::ExitCode, sync::Arc, time::Duration};
//! # use cubbyhole_core::{Bytes, EntryStore, ManualClock, async_trait};
//! # use cubbyhole_memory::InMemoryStore;
//! use cubbyhole_conformance::{Capabilities, Harness, run};
//!
//! #[derive(Default)]
//! struct Mine(ManualClock);
//!
//! #[async_trait]
//! impl Harness for Mine {
//!     type Value = Bytes;
//!
//!     async fn store(&self) -> Arc<dyn EntryStore<Bytes>> {
//!         let store = InMemoryStore::builder().with_clock(self.0.clone());
//!         Arc::new(store.with_value_size(Bytes::len).build())
//!     }
//!
//!     async fn advance(&self, duration: Duration) {
//!         self.0.advance(duration);
//!     }
//!
//!     fn capabilities(&self) -> Capabilities {
//!         Capabilities::new().ignores_context()
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     run(Mine::default)
//! }
//! ```
//!
//! That is a whole test file, `tests/conformance.rs`; `Cargo.toml` says that it brings its own
//! runner:
//!
//! ```toml
//! [dev-dependencies]
//! cubbyhole-conformance = "0.1"
//!
//! [[test]]
//! name = "conformance"
//! harness = false
//! ```
//!
//! `cargo test` then runs every case as a test of its own, in parallel; `cargo test --
//! isolation::` those whose names hold that text, and `cargo test -- --list` names them all.
//! nextest works too.
//!
//! # What a case needs
//!
//! Most cases take a fresh tenant in one store that they share, which is itself a test of
//! isolation. Those that move the time, or look at a whole store, get a harness and a store of
//! their own. So a harness is made many times; what is expensive to make (a server, a pool) belongs
//! behind an `Arc` that the closure given to [`run`] clones into each.
//!
//! # What a store cannot do
//!
//! [`Capabilities`] says it. A case that needs something missing is reported as ignored, with the
//! reason, and for a missing method only after it has answered `Unsupported`. A store that
//! implements just the four required methods of `Store` writes `impl EntryStore<V> for Mine {}`
//! and [`Capabilities::core_only`].
//!
//! # Time
//!
//! Expiry is judged by the store's clock. Where the harness can move it, as above, cases are exact
//! to the millisecond. Where it cannot, [`Harness::advance`] waits and
//! [`Capabilities::real_time`] gives the TTL to wait for. Cases about a clock that is set back run
//! where [`Harness::set_clock_back`] does that.
//!
//! # Values
//!
//! They come from [`Sample`], which is there for `Bytes`, `String` and [`Document`], a structured
//! type for stores of serde values and for `Typed`. Implement it for your own type.
//!
//! # The model
//!
//! The case `model::random_operations` plays random sequences of operations against a simple model
//! and shrinks what fails; see [`model`].
//!
//! # Histories
//!
//! The cases of [`history`] write down what concurrent callers are answered, and look for an order
//! that explains it.
//!
//! # Can it fail?
//!
//! The tests of this crate hold some thirty deliberately broken stores, and the name of the case
//! that must catch each.

mod calls;
mod case;
mod cases;
mod env;
mod harness;
pub mod history;
pub mod model;
mod outcome;
pub mod read_only;
mod sample;
mod suite;
mod world;

/// The runner, for programs that put trials of their own beside those of [`Suite::trials`].
pub use libtest_mimic;

pub use case::{Case, Level, Needs};
pub use harness::{Capabilities, Harness};
pub use outcome::Verdict;
pub use sample::{Document, Sample};
pub use suite::{Suite, case_names, run};
