//! [`diagnose`]: checks the health of a database.

mod report;
mod schema;
mod server;
mod table;

use cubbyhole_core::{Diagnosis, Error, ErrorKind, ExecutionContext, Result, ResultExt};

use crate::config::Config;
use crate::connection::{Connection, Connector};
use crate::inspect;
use report::problem;

/// Checks the server, the role, the schema and its policies, the clock, the settings and the
/// backlog of expired entries, and advises how to fix problems.
///
/// Opens its own connection and changes nothing. It also accepts a role that
/// [`PostgresStore::open`](crate::PostgresStore::open) rejects. The [`Diagnosis`] reports failures,
/// including a failure to connect.
///
/// ```no_run
/// use cubbyhole_core::ExecutionContext;
/// use cubbyhole_postgres::{Config, diagnose};
///
/// # #[tokio::main] async fn main() -> cubbyhole_core::Result<()> {
/// let config = Config::from_url("postgres://my_service@localhost/state")?;
/// for check in diagnose(&ExecutionContext::new(), &config).await?.checks {
///     println!("{:?} {}: {}", check.verdict, check.name, check.finding);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// - `Cancelled` or `DeadlineExceeded` if the context ends.
/// - `InvalidArgument` without a tokio runtime with timers.
pub async fn diagnose(ctx: &ExecutionContext, config: &Config) -> Result<Diagnosis> {
    ctx.begin_in_runtime().await.in_operation("diagnose")?;
    let mut diagnosis = Diagnosis::default();
    let connecting = async {
        let connector = Connector::new(config.clone())?;
        let connection = connector.connect().await?;
        Ok((connector, connection))
    };
    let (connector, connection) = match ctx.race(connecting).await? {
        Ok(connected) => connected,
        Err(error) => {
            problem(&mut diagnosis, "connection", &error, advice_on_connecting(&error));
            return Ok(diagnosis);
        }
    };
    if let Err(error) = ctx.race(run_checks(&connector, &connection, &mut diagnosis)).await? {
        problem(&mut diagnosis, "connection", &error, "check the log of the server");
    }
    Ok(diagnosis)
}

async fn run_checks(
    connector: &Connector,
    connection: &Connection,
    diagnosis: &mut Diagnosis,
) -> Result<()> {
    let config = connector.config();
    let schema = config.schema();
    let found = inspect::inspect(&connection.client, schema).await?;
    server::check_server(diagnosis, &found);
    server::check_pooler(diagnosis, connector, connection, &found).await?;
    server::check_writes(diagnosis, connection).await?;
    server::check_encryption(diagnosis, connection, config).await?;
    server::check_clock(diagnosis, connection).await?;
    schema::check_schema(diagnosis, &found, schema);
    schema::check_role(diagnosis, &found, schema);
    if found.row_security.is_some() {
        schema::check_policies(diagnosis, connection, &found, schema).await?;
        schema::check_owners(diagnosis, connection, &found, schema).await?;
        table::check_vacuum(diagnosis, connection, schema).await?;
    }
    if found.check_version(schema).is_ok() && found.check_membership(schema).is_ok() {
        table::check_entries(diagnosis, connection, schema).await?;
    }
    server::check_settings(diagnosis, connection, config).await
}

fn advice_on_connecting(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            "check the user and the password in the URL, and `pg_hba.conf`"
        }
        ErrorKind::InvalidArgument => "correct the URL",
        _ if error.message().contains("connection slot") => {
            "reduce `pool_size`, or raise `max_connections` or the CONNECTION LIMIT"
        }
        _ => "check the address, and whether the server runs and accepts connections from here",
    }
}
