//! The embedded backend of Cubbyhole: a namespaced key/value store in one file, built on redb.
//!
//! [`EmbeddedStore`] implements `Store`, `EntryStore` and `Backend` of `cubbyhole-core` for
//! `Bytes`. It needs no server: a program opens a file and reads and writes it. Most programs use
//! the facade instead, `cubbyhole::open(&ctx, "redb:PATH")`, which also reports every call as
//! spans, events and metrics.
//!
//! ```
//! use cubbyhole_core::{Backend, ExecutionContext, Namespace, Store, TypedExt};
//! use cubbyhole_embedded::{Config, EmbeddedStore};
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("state.redb");
//! let ctx = ExecutionContext::new();
//! let file = EmbeddedStore::open(&ctx, Config::new(path)).await?;
//! let store = file.clone().typed::<String>();
//! let ns = Namespace::parse("acme:agent-7")?;
//! store.put(&ctx, &ns, "greeting", "hello".to_owned()).await?;
//! assert_eq!(store.get(&ctx, &ns, "greeting").await?.as_deref(), Some("hello"));
//! file.close(&ctx).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Durability
//!
//! A write returns when it is on disk, in a write-ahead log. Concurrent writes share one fsync
//! (group commit). With [`Durability::Relaxed`] a write returns earlier, and a crash may lose the
//! writes of the last 200 ms.
//!
//! # Processes
//!
//! One process can have the file open for writing, or any number of processes can have it open
//! [read-only](Config::with_read_only). Read-only opening also works on a read-only volume. To
//! share a store between writing processes, use PostgreSQL or Redis.
//!
//! # Expiry
//!
//! Expiry follows the store's time: the configured clock, or the high-water mark in the file plus
//! the time since opening if the clock is behind that. So a clock that steps back revives no entry,
//! and TTLs continue to count. See [`Config::with_clock`]. [`repair()`] sets the store's time back
//! after the clock was ahead.
//!
//! While a write that extends an entry commits, the entry may expire. Reads may then not find it
//! until the write returns.
//!
//! # Damage and disk failures
//!
//! Every block of the file has a checksum, which each read from the file verifies. A flipped bit
//! causes a `Corrupt` error instead of a wrong result. After an I/O error the store reopens its
//! file automatically, so it recovers when the disk does. [`diagnose()`] checks the health of a
//! file.

mod call;
mod config;
mod diagnose;
mod engine;
mod error;
mod file;
mod layout;
mod migrate;
mod reader;
mod repair;
mod storage;
mod store;
mod url_path;
mod wal;
mod writer;

pub use config::{Config, DEFAULT_CACHE_BYTES, Durability, RELAXED_FLUSH_INTERVAL};
pub use diagnose::{diagnose, is_store_file};
pub use migrate::migrate;
#[doc(hidden)]
pub use redb::StorageBackend;
pub use repair::{repair, repair_with_options};
pub use store::EmbeddedStore;
