//! Detects the mode of a connection pooler between the store and the server.
//!
//! A pooler answers clients itself, so the process id that it announces differs from
//! `pg_backend_pid()`. That difference reveals the pooler, but not its mode. To find the mode, this
//! module runs statements on a few connections and compares the server processes that serve them:
//!
//! - In session mode, each client keeps a server process that no other client uses.
//! - In transaction mode, any free server process serves the next statement. A pooler that assigns
//!   the most recently used process serves two clients from one process. A pooler that assigns the
//!   least recently used one serves a client from changing processes.

use std::time::Duration;

use cubbyhole_core::{Error, Result};
use tokio_postgres::Client;

use crate::connection::{Connection, Connector};
use crate::error::{self, Effect};
use crate::rows::{self, column};

/// How a pooler assigns server connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pooling {
    Session,
    Transaction,
}

/// Advice for a store behind a pooler in transaction mode.
pub(crate) const TRANSACTION_MODE_ADVICE: &str = "add `pooler=transaction` to the URL, and also \
    `statement_cache=off` unless it is PgBouncer 1.21 or later with `max_prepared_statements`";

/// Clients in addition to the first. One is not enough: a pooler of two processes could serve each
/// client from its own process, and a pooler of two server connections could alternate between
/// them.
const ADDITIONAL_CLIENTS: usize = 2;
/// How many times each client is asked. Without load from other clients, one round is enough.
const ROUNDS: usize = 4;
/// How long to wait for an additional client. In session mode the pooler may have no free
/// connection.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(2);

/// Detects how the pooler behind `first` assigns server connections.
///
/// Returns `Session` also without evidence: if no additional client is served in time, or if the
/// pooler runs as more processes than there are clients here.
pub(crate) async fn detect(connector: &Connector, first: &Connection) -> Result<Pooling> {
    let schema = connector.config().schema();
    let mut backends = vec![backend(&first.client, schema).await?];
    let mut others: Vec<Connection> = Vec::new();
    for _ in 0..ADDITIONAL_CLIENTS {
        let join = async {
            let other = connector.connect().await?;
            let backend = backend(&other.client, schema).await?;
            Ok::<_, Error>((other, backend))
        };
        let Ok(Ok((other, joined))) = tokio::time::timeout(CLIENT_TIMEOUT, join).await else {
            break;
        };
        if backends.contains(&joined) {
            return Ok(Pooling::Transaction);
        }
        backends.push(joined);
        others.push(other);
        for _ in 0..ROUNDS {
            let clients = std::iter::once(first).chain(&others);
            for (client, initial) in clients.zip(&backends) {
                if backend(&client.client, schema).await? != *initial {
                    return Ok(Pooling::Transaction);
                }
            }
        }
    }
    Ok(Pooling::Session)
}

/// The server process that runs a statement. Its start time distinguishes equal process ids of
/// different machines.
async fn backend(client: &Client, schema: &str) -> Result<(i32, String)> {
    let select = "SELECT pg_backend_pid() AS pid, coalesce((SELECT backend_start::text \
                  FROM pg_stat_activity WHERE pid = pg_backend_pid()), '') AS start";
    let answer = client.query_typed(select, &[]).await;
    let rows = answer.map_err(|error| error::from_call(error, Effect::Read, schema))?;
    let row = rows::first(&rows)?;
    Ok((column(row, "pid")?, column(row, "start")?))
}

/// The error for opening a store behind a pooler in transaction mode without `pooler=transaction`.
pub(crate) fn transaction_mode_error() -> Error {
    Error::invalid_argument(format!(
        "a pooler between the store and the server assigns a server connection to each transaction \
         (PgBouncer's transaction mode), so this store's `statement_timeout` would leak into other \
         clients' sessions; {TRANSACTION_MODE_ADVICE}"
    ))
}
