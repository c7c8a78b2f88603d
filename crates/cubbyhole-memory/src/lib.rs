//! The in-memory backend of Cubbyhole: [`InMemoryStore`].
//!
//! Use it in tests, as a cache, and for state that does not outlive its process.
//!
//! ```
//! use cubbyhole_core::{ExecutionContext, Namespace, Store};
//! use cubbyhole_memory::InMemoryStore;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole_core::Result<()> {
//! let ctx = ExecutionContext::new();
//! let store = InMemoryStore::<u64>::new();
//! let ns = Namespace::parse("acme:counters")?;
//! store.put(&ctx, &ns, "visits", 1).await?;
//! assert_eq!(store.get(&ctx, &ns, "visits").await?, Some(1));
//! # Ok(())
//! # }
//! ```

mod directory;
mod expiring;
mod index;
mod operations;
mod order;
mod pages;
mod shards;
mod space;
mod store;

pub use store::{InMemoryStore, InMemoryStoreBuilder};
