//! The conformance suite of Cubbyhole: tests whether a store fulfils the contract of
//! [`Store`](cubbyhole_core::Store) and [`EntryStore`](cubbyhole_core::EntryStore).
//!
//! The suite has more than 350 named cases, a comparison of random operations with a model, and a
//! linearizability checker. All backends and layers of Cubbyhole run it. Run it on your own store,
//! too.
//!
//! # Test your store
//!
//! Implement [`Harness`] and pass it to [`run`]. This is a complete test file,
//! `tests/conformance.rs`:
//!
//! ```
//! # use std::{process::ExitCode, sync::Arc};
//! # use cubbyhole_core::{Bytes, EntryStore, ManualClock, async_trait};
//! # use cubbyhole_memory::InMemoryStore;
//! use cubbyhole_conformance::{Capabilities, Harness, run};
//!
//! #[derive(Default)]
//! struct MyHarness(ManualClock);
//!
//! #[async_trait]
//! impl Harness for MyHarness {
//!     type Value = Bytes;
//!
//!     async fn store(&self) -> Arc<dyn EntryStore<Bytes>> {
//!         let store = InMemoryStore::builder().with_clock(self.0.clone());
//!         Arc::new(store.with_value_size(Bytes::len).build())
//!     }
//!
//!     fn clock(&self) -> Option<&ManualClock> {
//!         Some(&self.0)
//!     }
//!
//!     fn capabilities(&self) -> Capabilities {
//!         Capabilities::new().without_context_checks()
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     run(MyHarness::default)
//! }
//! ```
//!
//! `Cargo.toml` declares that the file has its own runner:
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
//! `cargo test` then runs each case as a separate test, in parallel. `cargo test --test conformance
//! -- ttl::` runs the cases of a topic, and `-- --list` lists all names. cargo-nextest works too.
//!
//! # Capabilities
//!
//! A store that lacks a method or a property declares it in [`Capabilities`]. A case that needs it
//! is reported as ignored, with the reason. For a missing method, the case is ignored only after
//! the method has returned `Unsupported`.
//!
//! A store that implements only the four required methods of `Store` needs an empty
//! `impl EntryStore<V> for MyStore {}` and [`Capabilities::core_only`].
//!
//! # Stores and harnesses
//!
//! Most cases share one store and use a fresh tenant each, which also tests isolation. A case that
//! moves the clock, or that works on a whole store, gets a new harness and a new store. A test run
//! therefore creates many harnesses. Share expensive resources, for example a server or a
//! connection pool, in an `Arc` that the closure for [`run`] clones.
//!
//! # Time
//!
//! The store's clock decides when an entry expires. If the harness can move this clock, as above,
//! the cases are exact to the millisecond. If it cannot, [`Harness::advance`] waits, and
//! [`Capabilities::with_real_time`] sets the TTL to wait for. Cases about a clock that is set back
//! run only if [`Harness::set_clock_back`] is implemented.
//!
//! # Values
//!
//! The cases write values of a type that implements [`Sample`]. Implementations exist for `Bytes`,
//! `String` and [`Document`], a structured type for stores of serde values and for `Typed`.
//! Implement it for your own type to test a store of it.
//!
//! # The model
//!
//! The case `model::random_operations` plays random sequences of operations on the store and on a
//! simple model, and compares every reply. It shrinks a failing sequence. See [`model`].
//!
//! # Histories
//!
//! The cases of the topic `history` record concurrent calls and check that they are linearizable.
//! See [`history`], also for tests that break a server or a connection during a run.
//!
//! # Faults
//!
//! [`Faulty`] is a layer that refuses calls, delays them, and leaves outcomes unknown. Use it to test
//! how your program handles errors.
//!
//! # Read-only stores
//!
//! The cases write, so they cannot run on a read-only store. [`read_only`] has checks for one.
//!
//! # Read a failure
//!
//! A failure shows the location in the source of the case, the value that differs with the expected
//! and the actual result, and the rule that the store breaks:
//!
//! ```text
//! ---- sliding::sliding_read_never_shortens_the_ttl ----
//! crates/cubbyhole-conformance/src/cases/sliding.rs:47:9: the returned entry
//!   expected: Some(Entry { value: …, meta: EntryMeta { …, expires_at: Some(…) } })
//!     actual: Some(Entry { value: …, meta: EntryMeta { …, expires_at: Some(…) } })
//!   contract: A sliding read never shortens a TTL.
//! ```
//!
//! A case fails after five minutes if a call hangs.
//!
//! # Environment variables
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `CUBBYHOLE_MODEL_CASES` | number of random sequences | 256 |
//! | `CUBBYHOLE_MODEL_SEED` | seed of the sequences; a failure prints it | random |
//! | `CUBBYHOLE_HISTORY_OPERATIONS` | number of calls in a history | 20,000 |
//! | `CUBBYHOLE_HISTORY_SEED` | seed of the calls; a failure prints it | random |
//!
//! If one of the two numbers is set, the time limit of a case is twelve hours.
//!
//! # Proof that the cases can fail
//!
//! The tests of this crate contain about a hundred deliberately broken stores. Each names the cases
//! that must catch it.

mod calls;
mod case;
mod cases;
mod env;
mod faulty;
mod harness;
pub mod history;
pub mod model;
mod outcome;
pub mod read_only;
mod sample;
mod suite;
mod world;

/// The test runner, for programs that add their own trials to those of [`Suite::trials`].
pub use libtest_mimic;

pub use case::{Case, Level, Needs};
pub use faulty::{FaultCounts, Faults, Faulty};
pub use harness::{Capabilities, Harness};
pub use outcome::Verdict;
pub use sample::{Document, Sample};
pub use suite::{Suite, case_names, run};
