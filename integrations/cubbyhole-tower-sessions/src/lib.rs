//! Sessions of [`tower-sessions`](https://docs.rs/tower-sessions) in a store of
//! [`cubbyhole`](https://docs.rs/cubbyhole): in memory, in a file, on PostgreSQL, on Redis or on
//! Redis Cluster.
//!
//! # Example
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use axum::Router;
//! use axum::extract::{Path, State};
//! use axum::http::StatusCode;
//! use axum::routing::post;
//! use cubbyhole::{Backend, ExecutionContext, Namespace};
//! use cubbyhole_tower_sessions::CubbyholeStore;
//! use tower_sessions::{Session, SessionManagerLayer};
//!
//! type Sessions = CubbyholeStore<Arc<dyn Backend>>;
//!
//! fn failed<E>(_: E) -> StatusCode {
//!     StatusCode::INTERNAL_SERVER_ERROR
//! }
//!
//! async fn sign_in(session: Session, Path(user): Path<u64>) -> Result<(), StatusCode> {
//!     // Check the password here.
//!     session.cycle_id().await.map_err(failed)?;
//!     session.insert("user_id", user).await.map_err(failed)
//! }
//!
//! /// Signs the user out everywhere else.
//! async fn change_password(
//!     State(sessions): State<Sessions>,
//!     session: Session,
//! ) -> Result<(), StatusCode> {
//!     let user: Option<u64> = session.get("user_id").await.map_err(failed)?;
//!     let user = user.ok_or(StatusCode::UNAUTHORIZED)?;
//!     // Store the new password here.
//!     sessions.sign_out_everywhere(&user.to_string()).await.map_err(failed)?;
//!     session.cycle_id().await.map_err(failed)
//! }
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = cubbyhole::open(&ExecutionContext::new(), "redb:sessions.redb").await?;
//! let sessions = CubbyholeStore::new(store, Namespace::parse("acme:sessions")?)
//!     .with_user_key("user_id")
//!     .with_idle_ttl(Duration::from_secs(30 * 60));
//! let app: Router = Router::new()
//!     .route("/sign-in/{user}", post(sign_in))
//!     .route("/password", post(change_password))
//!     .layer(SessionManagerLayer::new(sessions.clone()))
//!     .with_state(sessions);
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
//! namespace, and [`sign_out_everywhere`](CubbyholeStore::sign_out_everywhere) empties it.
//!
//! A cookie contains only the session id. The namespace of the store therefore has a *reference* for
//! each session of a user: an entry with the session id and the name of the user. Loading a
//! session of a user reads two entries.
//!
//! # Differences from other stores
//!
//! - `save` writes only to a session that exists, so a session that was deleted stays deleted. With
//!   other stores, a slow request that saves after a sign-out creates the session again. Here it
//!   receives an error. Saving an empty session that has ended succeeds and writes nothing.
//! - `create` never overwrites a session. It always draws a new id.
//! - The user of a session cannot change. Call
//!   [`cycle_id`](tower_sessions_core::Session::cycle_id) before a sign-in. This also prevents session
//!   fixation. A save with another user is an error.
//! - [`Session::clear`](tower_sessions_core::Session::clear) keeps the id. If the session of the id has
//!   expired, a save of new data is an error until the browser drops the cookie. Call `cycle_id`
//!   after `clear`.
//! - Because `save` does not create sessions, this store cannot be the *cache* of a
//!   [`CachingSessionStore`](tower_sessions_core::CachingSessionStore). It can be the store behind a
//!   cache. A cached session then survives a sign-out until the cache drops it, and a read from the
//!   cache does not extend an idle TTL.

mod store;
mod stored;

pub use store::{CubbyholeStore, DEFAULT_TIMEOUT};
