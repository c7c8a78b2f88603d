//! Sessions of [`tower-sessions`](https://docs.rs/tower-sessions) in a store of
//! [`cubbyhole`](https://docs.rs/cubbyhole): in memory, in a file, on PostgreSQL, on Redis or on
//! Redis Cluster.
//!
//! # Example
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use axum::Router;
//! use axum::http::StatusCode;
//! use axum::routing::get;
//! use cubbyhole::{ExecutionContext, Namespace};
//! use cubbyhole_tower_sessions::CubbyholeStore;
//! use tower_sessions::{Session, SessionManagerLayer};
//!
//! async fn visits(session: Session) -> Result<String, StatusCode> {
//!     let failed = |_| StatusCode::INTERNAL_SERVER_ERROR;
//!     let visits = session.get::<u64>("visits").await.map_err(failed)?.unwrap_or(0) + 1;
//!     session.insert("visits", visits).await.map_err(failed)?;
//!     Ok(format!("visit {visits}"))
//! }
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = cubbyhole::open(&ExecutionContext::new(), "redb:sessions.redb").await?;
//! let sessions = CubbyholeStore::new(store, Namespace::parse("acme:sessions")?)
//!     .with_user_key("user_id")
//!     .with_idle_ttl(Duration::from_secs(30 * 60));
//! let app: Router = Router::new()
//!     .route("/", get(visits))
//!     .layer(SessionManagerLayer::new(sessions));
//! # Ok(())
//! # }
//! ```
//!
//! # Where sessions are stored
//!
//! | session | namespace | key |
//! |---|---|---|
//! | without a user | the namespace of the store | session id |
//! | of a user | that namespace and the user | session id |
//!
//! An application names the user of a session with [`with_user_key`](CubbyholeStore::with_user_key)
//! or [`with_user_of`](CubbyholeStore::with_user_of). All sessions of the user are then in one
//! namespace, and [`sign_out_everywhere`](CubbyholeStore::sign_out_everywhere) erases it. An entry in
//! the namespace of the store leads from the session id to the user, because a cookie contains
//! only the id. Loading the session of a user therefore reads two entries.
//!
//! # Differences from other stores
//!
//! - A session that was deleted stays deleted. `save` writes only to a session that exists. With
//!   other stores, a slow request that saves after a sign-out creates the session again. Here it
//!   receives an error. A save without data is no error.
//! - `create` never overwrites a session. If the id is in use, it draws another one.
//! - The user of a session cannot change. Call
//!   [`cycle_id`](tower_sessions_core::Session::cycle_id) before a sign-in, which also prevents session
//!   fixation. A save with another user is an error.
//! - Because `save` does not create sessions, this store cannot be the *cache* of a
//!   [`CachingSessionStore`](tower_sessions_core::CachingSessionStore). It can be the store behind the
//!   cache, but a cached session survives a sign-out until the cache drops it.

mod store;
mod stored;

pub use store::{CubbyholeStore, DEFAULT_TIMEOUT};
