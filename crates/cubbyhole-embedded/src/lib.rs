//! The embedded backend of Cubbyhole: a namespaced key/value store in one file, on redb.
//!
//! [`EmbeddedStore`] implements the contract of `cubbyhole-core` whole. What is its own:
//!
//! - **Durability.** A write is answered once it is on disk ([`Durability::Immediate`]), in a log
//!   ahead of the engine; writes that arrive together share a sync. [`Durability::Relaxed`] answers earlier.
//! - **One process** has the file open for writing at a time, or any number read-only: see
//!   [`Config::with_read_only`], which works on a read-only volume too.
//! - **Expiry** is judged by the store's time: the configured clock, the system's by default, or the
//!   high-water mark in the file plus the time since opening. So a clock that steps back revives
//!   nothing, and TTLs count: see [`Config::with_clock`]. [`repair`] sets the mark back. An entry that expires while a
//!   write that extends it is being committed may read as absent until that write is answered.
//! - **Damage** is noticed: every block of the file has a checksum that is compared when the block
//!   is read, so that a flipped bit is `Corrupt` and never a wrong answer.
//! - **Failures of the disk** do not outlast their cause: the store opens its file anew by itself.
//!
//! Most programs open it by `cubbyhole::open(ctx, "redb:PATH")`.

mod call;
mod config;
mod diagnose;
mod engine;
mod error;
mod file;
mod layout;
mod reader;
mod repair;
mod storage;
mod store;
mod url_path;
mod wal;
mod writer;

pub use config::{Config, DEFAULT_CACHE_BYTES, Durability, RELAXED_FLUSH_INTERVAL};
pub use diagnose::{diagnose, is_store_file};
#[doc(hidden)]
pub use redb::StorageBackend;
pub use repair::{repair, repair_with_options};
pub use store::EmbeddedStore;
