//! One server and its connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cubbyhole_core::Result;
use redis::{Cmd, Value};

use super::connection::Connection;
use super::connector::Connector;
use super::shared_connection::SharedConnection;
use crate::config::Address;
use crate::effect::Effect;
use crate::error::Failure;

/// A server and its shared connections.
pub(crate) struct Node {
    pub(crate) address: Address,
    connector: Arc<Connector>,
    /// For ordinary requests. The slots are divided among these connections.
    ordinary: Vec<SharedConnection>,
    /// For writes that wait for replicas, because such a write blocks its connection.
    waiting: Vec<SharedConnection>,
    turn: AtomicUsize,
}

impl Node {
    pub(crate) fn new(address: Address, connector: Arc<Connector>) -> Self {
        let connections = |count| (0..count).map(|_| SharedConnection::default()).collect();
        let ordinary = connections(connector.connections);
        let waiting = connections(connector.wait_connections);
        Self { address, connector, ordinary, waiting, turn: AtomicUsize::new(0) }
    }

    /// Returns the connection for ordinary requests to a slot. A slot always uses the same
    /// connection, so a read is processed after a cancelled write and sees its outcome.
    pub(crate) async fn connection(&self, slot: u16) -> Result<Connection> {
        let shared = &self.ordinary[usize::from(slot) % self.ordinary.len()];
        shared.get(&self.address, &self.connector).await
    }

    /// Returns one of the connections for writes that wait for replicas, in round-robin order.
    pub(crate) async fn waiting_connection(&self) -> Result<Connection> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let shared = &self.waiting[turn % self.waiting.len()];
        shared.get(&self.address, &self.connector).await
    }

    /// Sends one command to this server, without retries.
    pub(crate) async fn ask(&self, command: &Cmd) -> Result<Value> {
        let mut connection = self.connection(0).await?;
        let answer = connection.send(command).await;
        let failed = |failure: Failure| failure.into_error(Effect::Read);
        let value = answer.map_err(|error| failed(Failure::Lost(error)))?;
        value.extract_error().map_err(|error| failed(Failure::Refused(error)))
    }

    /// Closes the connections. Requests in flight fail.
    pub(crate) fn abort_connections(&self) {
        self.ordinary.iter().chain(&self.waiting).for_each(SharedConnection::abort);
    }

    /// Releases the connections. Each closes after its last request in flight.
    pub(crate) fn release_connections(&self) {
        self.ordinary.iter().chain(&self.waiting).for_each(SharedConnection::release);
    }
}
