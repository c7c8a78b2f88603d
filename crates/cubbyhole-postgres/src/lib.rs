//! PostgreSQL backend of Cubbyhole: a namespaced key/value store in one table of a PostgreSQL
//! database (version 15 or later).
//!
//! [`PostgresStore`] implements [`Store`](cubbyhole_core::Store),
//! [`EntryStore`](cubbyhole_core::EntryStore) and [`Backend`](cubbyhole_core::Backend) over bytes.
//! The traits document the behaviour that all backends share; this page lists the properties of
//! this one.
//!
//! # Setup
//!
//! An administrator creates the schema once with [`migrate`], or `cubbyhole migrate`, and creates a
//! login role for the application:
//!
//! ```sql
//! CREATE ROLE my_service LOGIN PASSWORD '…';
//! GRANT cubbyhole_app TO my_service;
//! ```
//!
//! The application then opens the store with that role:
//!
//! ```no_run
//! use cubbyhole_core::{ExecutionContext, Namespace, Store, TypedExt};
//! use cubbyhole_postgres::{Config, PostgresStore};
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let ctx = ExecutionContext::new();
//! let config = Config::from_url("postgres://my_service:secret@localhost/state")?;
//! let store = PostgresStore::open(&ctx, config).await?.typed::<String>();
//! let ns = Namespace::parse("acme:agent-7")?;
//! store.put(&ctx, &ns, "greeting", "hello".to_owned()).await?;
//! assert_eq!(store.get(&ctx, &ns, "greeting").await?.as_deref(), Some("hello"));
//! # Ok(())
//! # }
//! ```
//!
//! # Properties
//!
//! - **Isolation.** Row security isolates tenants inside the database. Each statement sets one
//!   tenant, and the database shows no row of another. Without a tenant it shows no rows. The
//!   application's role is a member of `<schema>_app` and owns no object.
//! - **Round trips.** Each call is one SQL function call in one network round trip, including the
//!   first call on a connection. `evict_expired` makes one call per 1,000 entries.
//! - **Consistency.** A listing, a page or a batch read is one statement and reads one snapshot. A
//!   batch write is one transaction.
//! - **Expiry.** The clock of the database decides which entries have expired.
//! - **Retries.** A call that fails with a deadlock or a serialization failure had no effect; the
//!   store retries it within the call.
//! - **Cancellation.** When the context of a call ends, the store asks the server to cancel the
//!   statement. The connection returns to the pool after the statement and the cancel request have
//!   both ended. If they do not end within five seconds, the store closes the connection.
//! - **Compaction.** `compact` runs `VACUUM` on the table, as autovacuum does. Only the owner of
//!   the table may run it; the application's role gets `PermissionDenied`.
//!
//! # Where to continue
//!
//! - [`Config`]: connection URL, pool, timeouts, TLS, poolers such as PgBouncer.
//! - [`migrate`]: the privileges that creating the schema needs.
//! - [`diagnose`]: checks of the server, the role, the schema and its policies.

mod arguments;
mod call;
mod compact;
mod config;
mod connection;
mod conninfo;
mod diagnose;
mod error;
mod functions;
mod inspect;
mod migrate;
mod operations;
mod pool;
mod pooling;
mod rows;
mod schema;
mod store;
mod tls;

pub use config::{
    Config, DEFAULT_ACQUIRE_TIMEOUT, DEFAULT_CONNECT_TIMEOUT, DEFAULT_IDLE_TIMEOUT,
    DEFAULT_POOL_SIZE, DEFAULT_SCHEMA, Pooler,
};
pub use diagnose::diagnose;
pub use migrate::migrate;
pub use store::PostgresStore;
