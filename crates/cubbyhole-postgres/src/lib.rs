//! The PostgreSQL backend of Cubbyhole: a [`Store`](cubbyhole_core::Store) whose tenants the
//! database itself keeps apart, by row security, at one network round trip a call.
//!
//! Start reading at [`PostgresStore`] and [`Config`]. What every backend does is written on
//! the traits; what is this one's own:
//!
//! - The schema is made by [`migrate`], with a role that may; the application's role is a member
//!   of the role `<schema>_app` and owns nothing. Row security shows it one tenant for each
//!   statement and nothing where no tenant is set.
//! - The database's clock decides what has expired.
//! - A call whose context ends asks the server to stop its statement. The connection is used again
//!   once the statement and the request to stop it have both ended, and closed otherwise.
//! - A listing, a page or a batch is one statement and so of one snapshot.
//! - A deadlock or a serialization failure had no effect and is tried again within the call.
//! - `compact` runs `VACUUM` on the table of entries, as autovacuum does. Only the table's owner may;
//!   the application's role gets `PermissionDenied`.

mod arguments;
mod call;
mod config;
mod connection;
mod conninfo;
mod diagnose;
mod error;
mod functions;
mod inspect;
mod migrate;
mod pool;
mod pooling;
mod rows;
mod store;
mod tls;

pub use config::{
    Config, DEFAULT_ACQUIRE_TIMEOUT, DEFAULT_CONNECT_TIMEOUT, DEFAULT_IDLE_TIMEOUT,
    DEFAULT_POOL_SIZE, DEFAULT_SCHEMA, Pooler,
};
pub use diagnose::diagnose;
pub use migrate::migrate;
pub use store::PostgresStore;
