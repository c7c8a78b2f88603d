//! A connection that is established on first use and re-established after it has ended.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use cubbyhole_core::{Error, Result};

use super::connection::Connection;
use super::connector::Connector;
use crate::config::Address;

/// The target of log events. It is documented, so it does not follow the module path.
const TARGET: &str = "cubbyhole_redis::connection";

/// A connection to a server that callers share. It is established on first use and re-established
/// after it has ended.
#[derive(Default)]
pub(super) struct SharedConnection {
    current: RwLock<Option<Connection>>,
    /// The number of failed attempts to connect.
    failures: AtomicUsize,
    /// Locked while connecting; contains the last failure.
    connecting: tokio::sync::Mutex<Option<Error>>,
}

impl SharedConnection {
    /// Returns the open connection, or connects.
    pub(super) async fn get(&self, address: &Address, connector: &Connector) -> Result<Connection> {
        match self.opened() {
            Some(connection) => Ok(connection),
            // Boxed, so the future of a call that need not connect stays small.
            None => Box::pin(self.connect(address, connector)).await,
        }
    }

    /// Connects. Callers that wait for an attempt of another caller share its result. If each
    /// caller tried separately, the last would wait for many times the time limit.
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
            tracing::info!(target: TARGET, %address, "reconnected after the connection had ended");
        } else {
            tracing::debug!(target: TARGET, %address, "connected");
        }
        Ok(connection)
    }

    /// Closes the connection. Requests in flight fail.
    pub(super) fn abort(&self) {
        let current = self.current.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(connection) = current {
            connection.abort();
        }
    }

    /// Releases the connection. It closes after its last request in flight.
    pub(super) fn release(&self) {
        self.current.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn opened(&self) -> Option<Connection> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().filter(|connection| !connection.is_closed()).cloned()
    }
}
