//! Access to the servers: connections, the slot map, and calls with retries.
//!
//! From the bottom up: `connection` is one connection, `node` is one server, `topology` has the
//! slot map, `call` sends requests to slots with retries, and `servers` sends requests to all
//! masters.

mod call;
mod connection;
mod connector;
mod health;
mod next_step;
mod node;
mod request;
mod retry;
mod server_info;
mod servers;
mod shared_connection;
mod slot_map;
mod slot_ranges;
mod stream;
mod topology;

pub(crate) use call::Caller;
pub(crate) use health::ClusterHealth;
pub(crate) use node::Node;
pub(crate) use request::Request;
pub(crate) use retry::Retry;
pub(crate) use server_info::ServerInfo;
pub(crate) use servers::Servers;
