//! Histories: recorded concurrent calls, checked for linearizability.
//!
//! Several clients call one store concurrently: reads, puts, conditional puts and touches, deletes
//! of keys and of prefixes, takes, appends and batches. They record the start, the end and the reply
//! of each call. A checker then searches for a sequential order of the calls that explains every
//! reply. If one call ended before another one started, it must also come first in that order. A
//! history with this order is *linearizable* (Herlihy and Wing, 1990). A call that was cancelled, or
//! that lost its connection, may take effect once at any later time, or never.
//!
//! The case `history::histories_are_linearizable` runs on every store. Use [`run`] in a test of
//! your own:
//!
//! ```
//! # use std::sync::Arc;
//! use cubbyhole_conformance::history::{Plan, run};
//! use cubbyhole_core::{Bytes, CancellationToken, EntryStore, TenantId};
//! use cubbyhole_memory::InMemoryStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store: Arc<dyn EntryStore<Bytes>> = Arc::new(InMemoryStore::new());
//! let plan = Plan::new(TenantId::new("histories")?, 7).with_operations(1_000);
//! let report = run(&store, &plan, &CancellationToken::new()).await;
//! report.verdict()?;
//! assert!(report.operations >= 1_000);
//! # Ok(())
//! # }
//! ```
//!
//! [`Live`] runs the same clients in the background, for tests that break a server or a connection
//! during the run. [`FaultyStore`] adds a fault to a sound store and shows that the checker detects
//! it.
//!
//! # Environment variables
//!
//! - `CUBBYHOLE_HISTORY_OPERATIONS`: the number of calls that the cases make, 20,000 by default.
//! - `CUBBYHOLE_HISTORY_SEED`: the seed that a failure printed. It repeats the same calls, but not
//!   their timing.

mod check;
mod client;
mod faulty_store;
mod live;
mod plan;
mod progress;
mod report;
mod round;
mod run;

pub use faulty_store::{Fault, FaultyStore};
pub use live::Live;
pub(crate) use plan::DEFAULT_OPERATIONS;
pub use plan::Plan;
pub use progress::Counts;
pub use report::{Failure, Report};
pub use run::run;
