//! How a pooler between the store and the server assigns server connections.
//!
//! A pooler answers clients itself, so the process id that it announces is not the one that
//! `pg_backend_pid()` returns: that says that there is a pooler. Its mode shows in which backends
//! serve a few clients whose statements are transactions of their own. In session mode each client
//! keeps a backend that no other has. In transaction mode a free backend serves whichever client
//! comes: two clients share one, or one client changes it. A pooler that hands out the backend that
//! was used last shows the first, one that hands out the one used longest ago the second.

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

/// What to do behind a pooler in transaction mode.
pub(crate) const ADVICE: &str = "add `pooler=transaction` to the URL, and `statement_cache=off` \
    unless it is PgBouncer 1.21 or later with `max_prepared_statements`";

/// Clients beside the first. With one, a pooler of two processes could serve each client by another,
/// and one of two server connections could answer the two clients in turns.
const MORE_CLIENTS: usize = 2;
/// How often each client is asked. Once would do while no other client is served.
const ROUNDS: usize = 4;
/// How long another client may wait: in session mode the pooler may have no connection for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// How the pooler that `first` leads to assigns server connections. `Session` is also the answer
/// where nothing shows: no other client was served in time, or the pooler is spread over more
/// processes than there are clients here.
pub(crate) async fn of(connector: &Connector, first: &Connection) -> Result<Pooling> {
    let schema = connector.config().schema();
    let mut backends = vec![backend(&first.client, schema).await?];
    let mut others: Vec<Connection> = Vec::new();
    for _ in 0..MORE_CLIENTS {
        let join = async {
            let other = connector.connect().await?;
            let backend = backend(&other.client, schema).await?;
            Ok::<_, Error>((other, backend))
        };
        let Ok(Ok((other, joined))) = tokio::time::timeout(PATIENCE, join).await else { break };
        if backends.contains(&joined) {
            return Ok(Pooling::Transaction);
        }
        backends.push(joined);
        others.push(other);
        for _ in 0..ROUNDS {
            let clients = std::iter::once(first).chain(&others);
            for (client, at_first) in clients.zip(&backends) {
                if backend(&client.client, schema).await? != *at_first {
                    return Ok(Pooling::Transaction);
                }
            }
        }
    }
    Ok(Pooling::Session)
}

/// The server's process for a statement. Its start tells apart processes of several machines.
async fn backend(client: &Client, schema: &str) -> Result<(i32, String)> {
    let select = "SELECT pg_backend_pid() AS pid, coalesce((SELECT backend_start::text \
                  FROM pg_stat_activity WHERE pid = pg_backend_pid()), '') AS start";
    let answer = client.query_typed(select, &[]).await;
    let rows = answer.map_err(|error| error::from_call(error, Effect::Read, schema))?;
    let row = rows::first(&rows)?;
    Ok((column(row, "pid")?, column(row, "start")?))
}

/// Why a store is not opened behind a pooler in transaction mode.
pub(crate) fn refusal() -> Error {
    Error::invalid_argument(format!(
        "a pooler between the store and the server assigns a server connection to each transaction \
         (PgBouncer's transaction mode), so the time limits of this store's calls would remain set \
         for other clients; {ADVICE}"
    ))
}
