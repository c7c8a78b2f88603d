//! Runs the memories of [`entelix`](https://docs.rs/entelix-memory) agents on the stores of
//! [`cubbyhole`](https://docs.rs/cubbyhole): in memory, in a file, on PostgreSQL, on Redis or on Redis
//! Cluster.
//!
//! [`CubbyholeStore`] implements `entelix_memory::Store<V>` for any Cubbyhole store of `V`.
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//!
//! use cubbyhole::TypedExt;
//! use cubbyhole_entelix::CubbyholeStore;
//! use entelix_core::ir::Message;
//! use entelix_core::{ExecutionContext, TenantId};
//! use entelix_memory::{BufferMemory, Namespace};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = cubbyhole::open(&cubbyhole::ExecutionContext::new(), "memory:").await?;
//! let store = CubbyholeStore::new(store.typed::<Vec<Message>>());
//! let ns = Namespace::new(TenantId::new("acme")).with_scope("agent-7");
//! let memory = BufferMemory::new(Arc::new(store), ns, 20);
//!
//! let ctx = ExecutionContext::new();
//! memory.append(&ctx, Message::user("Hello")).await?;
//! assert_eq!(memory.messages(&ctx).await?.len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # What corresponds to what
//!
//! | entelix | Cubbyhole |
//! |---|---|
//! | namespace: tenant and scope | namespace with the same tenant and segments, and the same text |
//! | prefix of namespaces | the same prefix |
//! | cancellation and deadline of the context | cancellation and deadline of the context |
//! | other parts of the context: tenant, ids of the thread, the run and its parent, idempotency key, extensions | none: entelix's own stores do not read them |
//! | `PutOptions::ttl` | `PutOptions::with_ttl` |
//! | order of `list` and `list_namespaces`: unspecified | ascending |
//!
//! Cubbyhole has limits that entelix's own store in memory does not have. A key or a namespace that is
//! too long or contains NUL is `InvalidRequest`, and so is a TTL of zero. Nothing is written.
//!
//! # Errors
//!
//! | kind in Cubbyhole | error in entelix | transient |
//! |---|---|---|
//! | `InvalidArgument` | `InvalidRequest` | no |
//! | `Cancelled` | `Cancelled` | no |
//! | `DeadlineExceeded` | `DeadlineExceeded` | no |
//! | `Unavailable`, `ResourceExhausted` | `Provider`, kind `Network` | yes |
//! | `RateLimited` | `Provider`, status 429, with the time to wait | yes |
//! | `Codec`, `Corrupt` | `Serde` | no |
//! | any other | `Config` | no |
//!
//! The last column is the classification of entelix's retry policies. An error of a `put` may leave its
//! outcome unknown. Repeating the `put` is idempotent, but may overwrite the value that another writer
//! has put since. The error of Cubbyhole is the source of a `Provider` error.

mod convert;
mod store;

pub use store::CubbyholeStore;
