//! The servers: connections to them, the map of slots, and calls.

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
