//! Private servers for tests: started on a free port in a temporary folder, stopped when their
//! guard is dropped, and also when the program that holds it is killed.
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
//! What every server needs is in a file of its own here: `folder.rs` (where its data is and who
//! owns it), `watcher.rs` (what ends it), `process.rs` (who runs, and signals), `port.rs`,
//! `wait.rs`, `install.rs`; `preload.rs` and `disk.rs` make its disk fail. A server is a file that puts these together.
//!
//! Only for Unix: elsewhere the crate is empty, and tests need a server of the developer's.
#![cfg(unix)]

mod disk;
mod folder;
mod install;
mod pgbouncer;
mod port;
mod postgres;
mod preload;
mod process;
mod redis;
mod wait;
mod watcher;

pub use disk::Disk;
pub use install::groff;
pub use pgbouncer::PgBouncer;
pub use postgres::PostgresServer;
pub use redis::{RedisCluster, RedisServer};
