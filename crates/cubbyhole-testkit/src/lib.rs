//! Test servers, fault injection and load drivers for the tests of Cubbyhole.
//!
//! ```no_run
//! # fn main() -> Result<(), String> {
//! # #[cfg(unix)] {
//! let server = cubbyhole_testkit::PostgresServer::start()?;
//! let url = server.url();
//! # drop(url);
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! A private server runs on a free port of 127.0.0.1 with its data in a temporary folder. It stops
//! when its guard is dropped, and also when the test process is killed. Private servers need Unix.
//!
//! | file | contents |
//! |---|---|
//! | `postgres.rs`, `redis.rs`, `redis/cluster.rs`, `pgbouncer.rs` | the private servers |
//! | `shared.rs` | the server that the tests of one program share: private, or named by a variable |
//! | `disk.rs` | a server's disk that is full or fails to sync on demand |
//! | `process/` | parts of every private server: folder, port, watcher, signals, installation |
//!
//! The feature `stores` adds helpers for tests of stores:
//!
//! | file | contents |
//! |---|---|
//! | `helpers.rs` | contexts, namespaces, waiting, and checks of errors and diagnoses |
//! | `listener.rs`, `proxy.rs` | a TCP listener, and a proxy that counts, delays, cuts, resets and holds |
//! | `tls.rs` | a certificate authority, its certificates, and a TLS acceptor |
//! | `load.rs` | load drivers: cancelled calls, writers across restarts, histories under faults |
//! | `round_trips.rs` | one call of each kind, with the round trips that it takes |
//! | `runtimes.rs` | calls outside a tokio runtime |

#[cfg(unix)]
mod disk;
#[cfg(unix)]
mod pgbouncer;
#[cfg(unix)]
mod postgres;
#[cfg(unix)]
mod process;
#[cfg(unix)]
mod redis;
#[cfg(unix)]
pub mod shared;

#[cfg(feature = "stores")]
pub mod helpers;
#[cfg(feature = "stores")]
pub mod listener;
#[cfg(feature = "stores")]
pub mod load;
#[cfg(feature = "stores")]
pub mod proxy;
#[cfg(feature = "stores")]
pub mod round_trips;
#[cfg(feature = "stores")]
pub mod runtimes;
#[cfg(feature = "stores")]
pub mod tls;

#[cfg(unix)]
pub use disk::Disk;
#[cfg(unix)]
pub use pgbouncer::PgBouncer;
#[cfg(unix)]
pub use postgres::PostgresServer;
#[cfg(unix)]
pub use process::install::groff;
#[cfg(unix)]
pub use process::server::Disturb;
#[cfg(unix)]
pub use redis::{RedisCluster, RedisServer};
