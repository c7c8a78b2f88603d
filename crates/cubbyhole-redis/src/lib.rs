//! The Redis backend of Cubbyhole: a [`Store`](cubbyhole_core::Store) on a Redis server or a Redis
//! Cluster, by the same code, at one network round trip a call.
//!
//! Start reading at [`RedisStore`] and [`Config`]. What every backend does is written on the
//! traits; what is this one's own:
//!
//! - It takes Redis 7. Valkey speaks the same commands and was not tried.
//! - A namespace is one slot: what must be atomic is one script there. A value is an ordinary
//!   string, so that `get` is `GET`; keys, meta data and expiries stand beside it.
//! - The server's clock decides what has expired. After a failover that is another server's, and a
//!   clock that steps back may show an entry again that nobody had read in between.
//! - While a slot is being moved to another master, calls on its namespaces that touch several keys
//!   wait until the move is over (the server answers `TRYAGAIN`), within their deadline and
//!   [`Config::with_retry_timeout`]; `get` goes on.
//! - What is acknowledged is as durable as Redis is configured to be: see
//!   [`Config::with_wait_for_replicas`], and what [`diagnose`] says of the server's settings.
//! - Eviction can take the index of a namespace and leave its values. `get` returns such orphaned
//!   values; listings do not show them and `erase` does not find them. [`repair_with_options`] does.
//! - A batch is one script. A listing of many keys and a page with values are several.
//! - `evict_expired` asks every namespace; the values of what expired are gone before.
//! - `compact` asks the servers to give memory back (`MEMORY PURGE`).

mod change;
mod cluster;
mod concurrent;
mod config;
mod diagnose;
mod effect;
mod entries;
mod entry_reply;
mod error;
mod index;
mod key_range;
mod keys;
mod listing;
mod refusal;
mod registry;
mod removal;
mod repair;
mod replies;
mod scripts;
mod store;
mod stored_meta;
mod tls;
mod usage;

pub use config::{
    Config, DEFAULT_CONNECT_TIMEOUT, DEFAULT_CONNECTIONS, DEFAULT_PREFIX, DEFAULT_RETRY_TIMEOUT,
    DEFAULT_WAIT_CONNECTIONS, DEFAULT_WAIT_TIMEOUT,
};
pub use diagnose::diagnose;
pub use repair::{repair, repair_with_options};
pub use store::RedisStore;
