//! The schema: making it, and bringing it up to date.

use cubbyhole_core::{Error, ErrorKind, ExecutionContext, Result, ResultExt};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::config::Config;
use crate::connection::Connector;
use crate::error::{self, Effect};
use crate::{inspect, rows};

/// The migrations in order; the place of one, counted from 1, is the version it leads to. One that
/// was released is never changed.
const MIGRATIONS: [Migration; 2] = [
    Migration { name: "entries", sql: include_str!("../migrations/0001_entries.sql") },
    Migration { name: "backlog", sql: include_str!("../migrations/0002_backlog.sql") },
];

/// The version of the schema that this build reads and writes.
pub(crate) const LATEST: i32 = MIGRATIONS.len() as i32;

struct Migration {
    name: &'static str,
    sql: &'static str,
}

/// The roles of a schema, by the ends of their names. None of them can log in.
const ROLES: [&str; 5] = ["app", "sweeper", "enumerator", "operator", "auditor"];

/// The roles that own functions; nobody is a member of them.
const OWNERS: [&str; 2] = ["sweeper", "enumerator"];

/// Keeps two that migrate the same schema apart; the first half of the key of an advisory lock.
const LOCK: i32 = 0x0063_7562;

/// Makes the schema, or brings it up to date, in one transaction. Several that do so at once wait
/// for each other and all succeed. Returns what was done, a line each: nothing if it was up to
/// date.
///
/// The role in the URL must be one that may create schemas in the database and roles: a superuser,
/// or the database's owner with `CREATEROLE`. The application's role needs none of it: it is
/// granted `<schema>_app`. Made beforehand, the roles `<schema>_app`, `_sweeper`, `_enumerator`,
/// `_operator` and `_auditor` are used as they are; the migrating role must then be a member of
/// the second and third.
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
/// `PermissionDenied` if the role may not; `Unsupported` if the schema is newer than this build,
/// or the server is older than 15; what the server meets. Nothing is done then.
pub async fn migrate(ctx: &ExecutionContext, config: &Config) -> Result<Vec<String>> {
    ctx.begin_in_runtime().await.in_operation("migrate")?;
    let migrate = async {
        let connection = Connector::new(config.clone())?.connect().await?;
        run(&connection.client, config.schema()).await
    };
    match ctx.race(migrate).await {
        Ok(done) => done.map_err(|error| with_advice(error, config.schema())),
        // The transaction ends with its connection; it may just have been committed.
        Err(ended) => Err(ended.with_unknown_outcome()),
    }
    .in_operation("migrate")
}

fn with_advice(error: Error, schema: &str) -> Error {
    if error.kind() != ErrorKind::PermissionDenied || error.operation().is_some() {
        return error;
    }
    let said = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    Error::permission_denied(format!(
        "the role may not make the schema `{schema}` and its roles: {said}. Use a superuser, or \
         the database's owner with CREATEROLE"
    ))
}

async fn run(client: &Client, schema: &str) -> Result<Vec<String>> {
    let failed = |error| error::from_call(error, Effect::Write, schema);
    inspect::inspect(client, schema).await?.check_server()?;
    // What others did while this waits for the lock must be seen.
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
        Some(version) if version > LATEST => return Err(newer(&found, schema)),
        Some(version) => version,
        None => 0,
    };
    if version == LATEST {
        client.batch_execute("ROLLBACK").await.map_err(failed)?;
        return Ok(Vec::new());
    }
    client.batch_execute(&preparation(schema)).await.map_err(failed)?;
    let borrowed = borrow_owners(client, schema, &found).await?;
    let mut done = Vec::new();
    for (place, migration) in
        MIGRATIONS.iter().enumerate().skip(usize::try_from(version).unwrap_or(0))
    {
        client.batch_execute(&fill_in(migration.sql, schema)).await.map_err(failed)?;
        let number = place + 1;
        let record = format!(
            "INSERT INTO \"{schema}\".migrations (version, name) VALUES ({number}, '{}')",
            migration.name
        );
        client.batch_execute(&record).await.map_err(failed)?;
        done.push(format!("schema `{schema}`: migration {number} ({})", migration.name));
    }
    for role in borrowed {
        let give_back = format!("REVOKE \"{role}\" FROM CURRENT_USER");
        client.batch_execute(&give_back).await.map_err(failed)?;
    }
    client.batch_execute("COMMIT").await.map_err(failed)?;
    if version == 0 {
        done.push(format!(
            "next: `CREATE ROLE my_service LOGIN PASSWORD '…'; GRANT {schema}_app TO my_service`"
        ));
    }
    Ok(done)
}

fn newer(found: &inspect::Inspection, schema: &str) -> Error {
    match found.check_version(schema) {
        Err(error) => error,
        Ok(()) => Error::internal("the schema's version changed while it was locked"),
    }
}

/// Roles, the schema, and the table that tells its version.
fn preparation(schema: &str) -> String {
    let mut sql = String::new();
    for role in ROLES {
        // Roles are the whole server's: one who migrates another database may just have made it.
        sql += &format!(
            "DO $$ BEGIN IF to_regrole('{schema}_{role}') IS NULL THEN \
             CREATE ROLE \"{schema}_{role}\" NOLOGIN; END IF; \
             EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;\n"
        );
    }
    sql + &format!(
        "CREATE SCHEMA IF NOT EXISTS \"{schema}\";\n\
         CREATE TABLE IF NOT EXISTS \"{schema}\".migrations (\
         version integer PRIMARY KEY, name text NOT NULL, \
         applied_at timestamptz NOT NULL DEFAULT now());\n"
    )
}

/// Makes the migrating role a member of the roles that it gives functions to, which it must be
/// for that unless it is a superuser. Returns those that it was made a member of.
async fn borrow_owners(
    client: &Client,
    schema: &str,
    found: &inspect::Inspection,
) -> Result<Vec<String>> {
    let mut borrowed = Vec::new();
    if found.superuser {
        return Ok(borrowed);
    }
    let failed = |error| error::from_call(error, Effect::Write, schema);
    for owner in OWNERS {
        let role = format!("{schema}_{owner}");
        // Since version 16 being a member does not mean that one may give to the role.
        let is_member = match found.server {
            160_000.. => "SELECT pg_has_role($1, 'SET')",
            _ => "SELECT pg_has_role($1, 'MEMBER')",
        };
        let answer = client.query_typed(is_member, &[(&role, Type::TEXT)]).await.map_err(failed)?;
        if !rows::scalar::<bool>(&answer)? {
            let grant = format!("GRANT \"{role}\" TO CURRENT_USER");
            client.batch_execute(&grant).await.map_err(failed)?;
            borrowed.push(role);
        }
    }
    Ok(borrowed)
}

/// The names in place of their marks. They are of letters, digits and `_`.
fn fill_in(sql: &str, schema: &str) -> String {
    let mut filled = sql.replace("@schema@", &format!("\"{schema}\""));
    for role in ROLES {
        filled = filled.replace(&format!("@{role}@"), &format!("\"{schema}_{role}\""));
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_is_filled_in() {
        for migration in &MIGRATIONS {
            let filled = fill_in(migration.sql, "s");
            assert!(!filled.contains('@'), "{}", migration.name);
        }
    }
}
