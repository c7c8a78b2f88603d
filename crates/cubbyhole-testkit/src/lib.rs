//! Test servers, fault injection and load drivers for the tests of Cubbyhole.
//!
//! ```no_run
//! # fn main() -> Result<(), String> {
//! let server = cubbyhole_testkit::PostgresServer::start()?;
//! let url = server.url();
//! # drop(url);
//! # Ok(())
//! # }
//! ```
//!
//! A private server runs on a free port of 127.0.0.1 with its data in a temporary folder. It stops
//! when its guard is dropped, and also when the test process is killed. The crate needs Unix. It is
//! empty on other systems, and tests need servers that environment variables name.
//!
//! | file | contents |
//! |---|---|
//! | `postgres.rs`, `redis.rs`, `redis/cluster.rs`, `pgbouncer.rs` | the private servers |
//! | `shared.rs` | the server that the tests of one program share: private, or named by a variable |
//! | `disk.rs` | a server's disk that is full or fails to sync on demand |
//! | `process/` | parts of every private server: lifecycle, folder, port, watcher, installation |
//!
//! The feature `stores` adds helpers for tests of stores, in `stores/`:
//!
//! | file | contents |
//! |---|---|
//! | `helpers.rs` | contexts, namespaces, waiting, and checks of errors and diagnoses |
//! | `listener.rs`, `proxy.rs` | a TCP listener, and a proxy that counts, delays, cuts, resets and holds |
//! | `tls.rs` | a certificate authority, its certificates, and a TLS acceptor |
//! | `load.rs` | load drivers: cancelled calls, writers across restarts, histories under faults |
//! | `round_trips.rs` | one call of each kind, with the round trips that it takes |
//! | `runtimes.rs` | calls outside a tokio runtime |
//! | `conformance.rs` | the conformance suite over a backend on real servers |
//! | `full_stack.rs` | the conformance suite over a backend inside all layers |
#![cfg(unix)]

mod disk;
mod pgbouncer;
mod postgres;
mod process;
mod redis;
pub mod shared;
#[cfg(feature = "stores")]
mod stores;

pub use disk::Disk;
pub use pgbouncer::PgBouncer;
pub use postgres::PostgresServer;
pub use process::install::groff;
pub use process::server::Disturb;
pub use redis::{RedisCluster, RedisServer};
#[cfg(feature = "stores")]
pub use stores::{full_stack, helpers, listener, load, proxy, round_trips, runtimes, tls};
