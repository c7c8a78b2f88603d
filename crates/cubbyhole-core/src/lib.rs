//! The contract of Cubbyhole: traits and types of a namespaced key/value store that behaves the same
//! on every backend.
//!
//! Start with [`Store`], the trait that every store implements. [`EntryStore`] adds versions,
//! conditional writes, batches, pages and erasure. [`Typed`] turns a store of bytes into a store of
//! your own type. [`delegate!`] writes the pass-through methods of a layer.
//!
//! Most programs depend on the `cubbyhole` crate, which re-exports everything here and opens backends
//! by URL. Depend on this crate to implement a store or a layer.
//!
//! ```
//! use cubbyhole::{ExecutionContext, InMemoryStore, Namespace, Store};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let store = InMemoryStore::<String>::new();
//! let ctx = ExecutionContext::new();
//! let ns = Namespace::parse("acme:agent-7")?;
//!
//! store.put(&ctx, &ns, "greeting", "hello".to_owned()).await?;
//! assert_eq!(store.get(&ctx, &ns, "greeting").await?.as_deref(), Some("hello"));
//! # Ok(())
//! # })
//! # }
//! ```

mod backend;
mod backoff;
mod batch;
mod clock;
mod codec;
mod condition;
mod context;
mod delegate;
mod diagnosis;
mod duration_text;
mod entry;
mod entry_store;
mod entry_store_ext;
mod error;
mod json_check;
pub mod limits;
mod namespace;
mod options;
mod page;
mod pointers;
mod read_only;
mod repair;
pub mod runtime;
mod store;
mod sweeper;
mod timestamp;
mod typed;

pub use async_trait::async_trait;
pub use backend::{Backend, Compaction};
pub use bytes::Bytes;
pub use tokio_util::sync::CancellationToken;

pub use backoff::Backoff;
pub use batch::{Batch, Operation, Written};
pub use clock::{Clock, HighWaterClock, ManualClock, SystemClock};
pub use codec::{BytesCodec, Codec, JsonCodec};
pub use condition::Condition;
pub use context::ExecutionContext;
pub use diagnosis::{Check, Diagnosis, Verdict};
pub use entry::{Entry, EntryMeta, EntryStat, Version};
pub use entry_store::{EntryStore, Erased, Usage};
pub use entry_store_ext::{EntryStoreExt, Update};
pub use error::{Error, ErrorKind, Result, ResultExt};
pub use namespace::{Namespace, NamespacePrefix, TenantId};
pub use options::{Expiry, GetOptions, PutOptions};
pub use page::{Page, Position, RecursiveScanOptions, ScanItem, ScanOptions};
pub use read_only::ReadOnly;
pub use repair::{
    ClockAction, ClockAhead, OrphanAction, OrphanedValue, Orphans, RepairOptions, RepairReport,
};
pub use store::Store;
pub use sweeper::{Sweep, Sweeper, SweeperStats};
pub use timestamp::Timestamp;
pub use typed::{Typed, TypedExt};
