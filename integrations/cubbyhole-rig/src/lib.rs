//! Keeps the conversations of [`rig`](https://docs.rs/rig-core) agents in a store of
//! [`cubbyhole`](https://docs.rs/cubbyhole): in memory, in a file, on PostgreSQL, on Redis or on Redis
//! Cluster.
//!
//! # Example
//!
//! ```
//! use cubbyhole::{ExecutionContext, Namespace};
//! use cubbyhole_rig::CubbyholeMemory;
//! use rig_core::completion::Message;
//! use rig_core::memory::ConversationMemory;
//! use rig_core::serve::adapters::MemoryAdapter;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = cubbyhole::open(&ExecutionContext::new(), "memory:").await?;
//! let memory = CubbyholeMemory::new(store, Namespace::parse("acme:agent-7")?)
//!     .with_last_messages(100);
//!
//! let turn = vec![Message::user("My name is Ada."), Message::assistant("Hello, Ada!")];
//! memory.append(&"thread-1".into(), turn).await?;
//! assert_eq!(memory.load(&"thread-1".into()).await?.len(), 2);
//!
//! // The handler that an agent dispatches to.
//! let handler = MemoryAdapter::new(memory);
//! # drop(handler);
//! # Ok(())
//! # }
//! ```
//!
//! # Where conversations are stored
//!
//! Each conversation has a namespace: that of the memory, and the conversation id. Each message is an
//! entry with the key `message-` and a number of 20 digits. Processes may append to one conversation
//! at the same time. The messages of a call are stored together and atomically, up to 1,000 of them.
//!
//! Erasing the namespace of the memory erases all its conversations.

mod memory;

pub use memory::{CubbyholeMemory, DEFAULT_TIMEOUT};
