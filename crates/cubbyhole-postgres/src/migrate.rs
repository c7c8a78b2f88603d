//! Creates the schema and upgrades it to the latest version.

use cubbyhole_core::{Error, ErrorKind, ExecutionContext, Result, ResultExt};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::config::Config;
use crate::connection::Connector;
use crate::error::{self, Effect};
use crate::schema::{self, FUNCTION_OWNERS, LATEST_VERSION, MIGRATIONS};
use crate::{inspect, rows};

/// First half of the key of the advisory lock that serialises migrations of one schema.
const LOCK: i32 = 0x0063_7562;

/// Creates the schema or upgrades it to the version of this build, in one transaction.
///
/// Returns one line for each step, and no line if the schema was up to date. Concurrent migrations
/// of the same schema wait for each other and all succeed.
///
/// # Privileges
/// The role in the URL must be a superuser, or the owner of the database with `CREATEROLE`. The
/// application's role needs neither: grant it `<schema>_app`.
///
/// The migration creates the roles `<schema>_app`, `<schema>_sweeper`, `<schema>_enumerator`,
/// `<schema>_operator` and `<schema>_auditor`. It uses existing roles of these names unchanged. If
/// they exist, the migrating role must be a member of `<schema>_sweeper` and `<schema>_enumerator`.
///
/// ```no_run
/// use cubbyhole_core::ExecutionContext;
/// use cubbyhole_postgres::{Config, migrate};
///
/// # #[tokio::main] async fn main() -> cubbyhole_core::Result<()> {
/// let admin = Config::from_url("postgres://postgres@localhost/state")?;
/// for line in migrate(&ExecutionContext::new(), &admin).await? {
///     println!("{line}");
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// - `PermissionDenied` if the role lacks a privilege.
/// - `Unsupported` if the schema is newer than this build, the server is older than version 15, or
///   the encoding of the database is not UTF8.
/// - `Unavailable` if the server is unreachable.
/// - `Cancelled` or `DeadlineExceeded` if the context ends. The outcome is then unknown, because
///   the server may have committed.
///
/// After any other error the database is unchanged, unless the connection broke during the commit.
pub async fn migrate(ctx: &ExecutionContext, config: &Config) -> Result<Vec<String>> {
    ctx.begin_in_runtime().await.in_operation("migrate")?;
    let migrate = async {
        let connection = Connector::new(config.clone())?.connect().await?;
        run(&connection.client, config.schema()).await
    };
    match ctx.race(migrate).await {
        Ok(done) => done.map_err(|error| with_advice(error, config.schema())),
        // Closing the connection rolls back, unless the commit has already reached the server.
        Err(ended) => Err(ended.with_unknown_outcome()),
    }
    .in_operation("migrate")
}

fn with_advice(error: Error, schema: &str) -> Error {
    if error.kind() != ErrorKind::PermissionDenied || error.operation().is_some() {
        return error;
    }
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    Error::permission_denied(format!(
        "the role may not create the schema `{schema}` and its roles: {cause}. Use a superuser, or \
         the owner of the database with CREATEROLE"
    ))
}

async fn run(client: &Client, schema: &str) -> Result<Vec<String>> {
    let failed = |error| error::from_call(error, Effect::Write, schema);
    inspect::inspect(client, schema).await?.check_server()?;
    // With READ COMMITTED, this transaction sees a migration that commits while it waits for the
    // lock.
    let begin = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL client_min_messages = warning; \
                 SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0";
    client.batch_execute(begin).await.map_err(failed)?;
    let lock = "SELECT pg_advisory_xact_lock($1, hashtext($2))";
    client
        .query_typed(lock, &[(&LOCK, Type::INT4), (&schema, Type::TEXT)])
        .await
        .map_err(failed)?;
    let found = inspect::inspect(client, schema).await?;
    let version = match found.version {
        Some(newer) if newer > LATEST_VERSION => return Err(inspect::newer_schema(schema, newer)),
        Some(version) => version,
        None => 0,
    };
    if version == LATEST_VERSION {
        client.batch_execute("ROLLBACK").await.map_err(failed)?;
        return Ok(Vec::new());
    }
    client.batch_execute(&schema::preparation(schema)).await.map_err(failed)?;
    let granted = join_function_owners(client, schema, &found).await?;
    let applied = usize::try_from(version).unwrap_or(0);
    let mut done = Vec::new();
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(applied) {
        client.batch_execute(&migration.sql(schema)).await.map_err(failed)?;
        let (number, name) = (index + 1, migration.name);
        let record = format!(
            "INSERT INTO \"{schema}\".migrations (version, name) VALUES ({number}, '{name}')"
        );
        client.batch_execute(&record).await.map_err(failed)?;
        done.push(format!("schema `{schema}`: migration {number} ({name})"));
    }
    for role in granted {
        let revoke = format!("REVOKE \"{role}\" FROM CURRENT_USER");
        client.batch_execute(&revoke).await.map_err(failed)?;
    }
    client.batch_execute("COMMIT").await.map_err(failed)?;
    if version == 0 {
        done.push(format!(
            "next: `CREATE ROLE my_service LOGIN PASSWORD '…'; GRANT {schema}_app TO my_service`"
        ));
    }
    Ok(done)
}

/// Makes the migrating role a member of the roles that own functions, which `ALTER FUNCTION … OWNER
/// TO` requires unless the role is a superuser. Returns the memberships to revoke afterwards.
async fn join_function_owners(
    client: &Client,
    schema: &str,
    found: &inspect::Inspection,
) -> Result<Vec<String>> {
    let mut granted = Vec::new();
    if found.is_superuser {
        return Ok(granted);
    }
    let failed = |error| error::from_call(error, Effect::Write, schema);
    for owner in FUNCTION_OWNERS {
        let role = format!("{schema}_{owner}");
        // Since PostgreSQL 16, membership alone does not allow SET ROLE, which OWNER TO requires.
        let is_member = match found.server_version {
            160_000.. => "SELECT pg_has_role($1, 'SET')",
            _ => "SELECT pg_has_role($1, 'MEMBER')",
        };
        let answer = client.query_typed(is_member, &[(&role, Type::TEXT)]).await.map_err(failed)?;
        if !rows::scalar::<bool>(&answer)? {
            let grant = format!("GRANT \"{role}\" TO CURRENT_USER");
            client.batch_execute(&grant).await.map_err(failed)?;
            granted.push(role);
        }
    }
    Ok(granted)
}
