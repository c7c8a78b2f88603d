//! A connection to a server that callers share, connected again after it has ended.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use cubbyhole_core::{Error, Result};

use super::connection::Connection;
use super::connector::Connector;
use crate::config::Address;

/// The target of log events, which is public and independent of the module.
const TARGET: &str = "cubbyhole_redis::connection";

/// Where a connection is kept.
#[derive(Default)]
pub(super) struct SharedConnection {
    current: RwLock<Option<Connection>>,
    /// How often connecting has failed.
    failures: AtomicUsize,
    /// Held while connecting; why it failed last.
    connecting: tokio::sync::Mutex<Option<Error>>,
}

impl SharedConnection {
    /// Returns the open connection, or connects.
    pub(super) async fn get(&self, address: &Address, connector: &Connector) -> Result<Connection> {
        match self.opened() {
            Some(connection) => Ok(connection),
            // Apart, because a call that need not connect would carry the room for it along.
            None => Box::pin(self.connect(address, connector)).await,
        }
    }

    /// Whoever waits while another connects takes what comes of it: callers that each tried for
    /// themselves, one after another, would wait for many times the limit.
    async fn connect(&self, address: &Address, connector: &Connector) -> Result<Connection> {
        let failures = self.failures.load(Ordering::Acquire);
        let mut last_failure = self.connecting.lock().await;
        if let Some(connection) = self.opened() {
            return Ok(connection);
        }
        if self.failures.load(Ordering::Acquire) != failures
            && let Some(error) = last_failure.as_ref()
        {
            return Err(error.clone());
        }
        let connection = match connector.connect(address).await {
            Ok(connection) => connection,
            Err(error) => {
                *last_failure = Some(error.clone());
                self.failures.fetch_add(1, Ordering::AcqRel);
                return Err(error);
            }
        };
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let before = current.replace(connection.clone());
        drop(current);
        if before.is_some() {
            tracing::info!(target: TARGET, %address, "connected again: the connection had ended");
        } else {
            tracing::debug!(target: TARGET, %address, "connected");
        }
        Ok(connection)
    }

    /// Ends the connection: what waits for an answer on it does not get one.
    pub(super) fn hang_up(&self) {
        let current = self.current.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(connection) = current {
            connection.abort();
        }
    }

    /// Lets go of the connection; it ends with its last request.
    pub(super) fn disconnect(&self) {
        self.current.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn opened(&self) -> Option<Connection> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().filter(|connection| !connection.is_closed()).cloned()
    }
}
