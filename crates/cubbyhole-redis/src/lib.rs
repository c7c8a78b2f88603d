//! The Redis and Redis Cluster backend of Cubbyhole.
//!
//! [`RedisStore`] implements [`Store`](cubbyhole_core::Store),
//! [`EntryStore`](cubbyhole_core::EntryStore) and [`Backend`](cubbyhole_core::Backend) on a single
//! Redis server or on a Redis Cluster. Applications usually open it by URL with `cubbyhole::open`;
//! this crate is also available as `cubbyhole::redis`.
//!
//! ```no_run
//! use cubbyhole_core::{ExecutionContext, Namespace, Store, TypedExt};
//! use cubbyhole_redis::{Config, RedisStore};
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let ctx = ExecutionContext::new();
//! let config = Config::from_url("redis://localhost")?;
//! let store = RedisStore::open(&ctx, config).await?.typed::<String>();
//! let ns = Namespace::parse("acme:agent-7")?;
//! store.put(&ctx, &ns, "greeting", "hello".to_owned()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Config`] has the connection options. [`diagnose()`] checks the health of the servers, and
//! [`repair_with_options`] rebuilds lost indexes.
//!
//! # Requirements
//!
//! - Redis 7 or newer, without modules. Valkey has the same commands but is not tested.
//! - `maxmemory-policy noeviction`. Eviction removes entries, and parts of the index.
//! - A Redis user that may run the commands of the scripts on the keys of the store. Opening a
//!   store checks this.
//!
//! # How data is stored
//!
//! The keys of a namespace share a hash tag and so a hash slot. Each value is a plain string.
//! Keys, metadata and expiries are in an index of one hash and two sorted sets in the same slot. An
//! operation that changes several keys is one Lua script, which makes it atomic.
//!
//! # Costs
//!
//! - Most calls cost one round trip; `get` is a plain `GET`. The first put into a namespace costs
//!   more, because it registers the namespace in the index of its tenant.
//! - A batch is one script. A listing of many keys and a page with values run several scripts.
//! - `scan_recursive` asks up to eight namespaces at the same time.
//! - `list_namespaces`, `usage` and `evict_expired` send a request to every namespace that they
//!   cover.
//!
//! # Semantics
//!
//! - **Expiry.** The clock of the server decides. The engine frees expired values itself;
//!   `evict_expired` removes their keys from the index. After a failover, the clock of another
//!   server decides, and a clock that is behind can make an expired entry visible again.
//! - **Durability.** An acknowledged write is as durable as the persistence settings of Redis make
//!   it. A failover can lose acknowledged writes; [`Config::with_wait_for_replicas`] reduces that
//!   risk. [`diagnose()`] reports settings that lose data.
//! - **Migrating slots.** While a cluster migrates a slot, the server answers calls that touch
//!   several keys with `TRYAGAIN`. The store retries them until the migration ends, within the
//!   deadline and [`Config::with_retry_timeout`]. `get` is not affected.
//! - **Eviction.** If Redis evicts the index of a namespace, its values become orphaned: `get`
//!   returns them, but listings and `erase` do not find them. [`repair_with_options`] does.
//! - **Compaction.** `compact` runs `MEMORY PURGE` on each server, which affects the memory of the
//!   whole server and not of the store alone.

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
mod recursive_scan;
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
