//! One server.

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

/// A server.
pub(crate) struct Node {
    pub(crate) address: Address,
    connector: Arc<Connector>,
    /// For what is answered at once. The slots are divided among them.
    ordinary: Vec<SharedConnection>,
    /// For writes that wait for replicas: such a write keeps others on its connection waiting.
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

    /// The connection of a slot for what is answered at once. It is always the same, so that a
    /// read comes after a write that was given up: then it tells what became of it.
    pub(crate) async fn connection(&self, slot: u16) -> Result<Connection> {
        let shared = &self.ordinary[usize::from(slot) % self.ordinary.len()];
        shared.get(&self.address, &self.connector).await
    }

    /// One of the connections for writes that wait for replicas, in turn.
    pub(crate) async fn waiting_connection(&self) -> Result<Connection> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let shared = &self.waiting[turn % self.waiting.len()];
        shared.get(&self.address, &self.connector).await
    }

    /// One command to one server, sent once.
    pub(crate) async fn ask(&self, command: &Cmd) -> Result<Value> {
        let mut connection = self.connection(0).await?;
        let answer = connection.send(command).await;
        let failed = |failure: Failure| failure.into_error(Effect::Read);
        let value = answer.map_err(|error| failed(Failure::Lost(error)))?;
        value.extract_error().map_err(|error| failed(Failure::Refused(error)))
    }

    /// Ends the connections: what waits for an answer on them does not get one.
    pub(crate) fn hang_up(&self) {
        self.ordinary.iter().chain(&self.waiting).for_each(SharedConnection::hang_up);
    }

    /// Lets go of the connections; those under way end with their last request.
    pub(crate) fn disconnect(&self) {
        self.ordinary.iter().chain(&self.waiting).for_each(SharedConnection::disconnect);
    }
}
