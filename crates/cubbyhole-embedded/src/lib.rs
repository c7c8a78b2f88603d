//! The embedded backend of Cubbyhole: a namespaced key/value store in one file, on redb.
//!
//! [`EmbeddedStore`] implements the contract of `cubbyhole-core` whole. What is its own:
//!
//! - **Durability.** A write is answered once it is on disk ([`Durability::Immediate`]), in a log
//!   ahead of the engine; writes that arrive together share a sync. [`Durability::Relaxed`] answers earlier.
//! - **One process** has the file open at a time.
//! - **Expiry** is judged by the configured clock, the system's by default, and a clock that steps
//!   back revives nothing: see [`EmbeddedConfig::with_clock`]. An entry that expires while a
//!   write that prolongs it is being committed may read as absent until that write is answered.
//! - **Damage** is noticed: every block of the file has a checksum that is compared when the block
//!   is read, so that a flipped bit is `Corrupt` and never a wrong answer.
//! - **Failures of the disk** do not outlast their cause: the store opens its file anew by itself.
//!
//! Most programs open it by `cubbyhole::open(ctx, "redb:PATH")`.

mod call;
mod checked;
mod config;
mod diagnose;
mod early_sync;
mod error;
mod file;
mod format;
mod log;
mod origin;
mod reader;
mod request;
mod snapshot;
mod storage;
mod store;
mod tables;
mod writer;

pub use config::{DEFAULT_CACHE_BYTES, Durability, EmbeddedConfig, RELAXED_FLUSH_INTERVAL};
pub use diagnose::{diagnose, is_store_file};
#[doc(hidden)]
pub use redb::StorageBackend;
pub use store::EmbeddedStore;
