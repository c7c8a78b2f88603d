//! Looking a database over.

mod table;

use std::time::Duration;

use cubbyhole_core::{
    Clock, Diagnosis, Error, ErrorKind, ExecutionContext, Result, ResultExt, SystemClock,
    Timestamp, Verdict,
};
use tokio_postgres::types::Type;

use crate::config::{Config, Pooler};
use crate::connection::{Connection, Connector};
use crate::conninfo::Encryption;
use crate::error::{self, Effect};
use crate::inspect::{self, Inspection};
use crate::migrate::LATEST;
use crate::pooling::{self, Pooling};
use crate::rows::{self, column};

/// How far the clocks of server and client may be apart without remark.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(2);

/// Looks server, role, schema, policies, clock, settings and what is left to sweep over, and says what
/// to do. Connects by
/// itself, also as a role that opening refuses, and changes nothing. What goes wrong is in the
/// [`Diagnosis`].
///
/// # Errors
/// The context's end; `InvalidArgument` without a tokio runtime with timers.
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
    if let Err(error) = ctx.race(look_over(&connector, &connection, &mut diagnosis)).await? {
        let advice = "look into the server's log";
        problem(&mut diagnosis, "connection", &error, advice);
    }
    Ok(diagnosis)
}

async fn look_over(
    connector: &Connector,
    connection: &Connection,
    diagnosis: &mut Diagnosis,
) -> Result<()> {
    let config = connector.config();
    let schema = config.schema();
    let found = inspect::inspect(&connection.client, schema).await?;
    check_server(diagnosis, &found);
    check_pooler(diagnosis, connector, connection, &found).await?;
    check_writes(diagnosis, connection).await?;
    check_encryption(diagnosis, connection, config).await?;
    check_clock(diagnosis, connection).await?;
    check_schema(diagnosis, &found, schema);
    check_role(diagnosis, &found, schema);
    if found.row_security.is_some() {
        check_policies(diagnosis, connection, &found, schema).await?;
        check_owners(diagnosis, connection, &found, schema).await?;
        table::check_vacuum(diagnosis, connection, schema).await?;
    }
    if found.check_version(schema).is_ok() && found.check_membership(schema).is_ok() {
        table::check_entries(diagnosis, connection, schema).await?;
    }
    check_settings(diagnosis, connection, config).await
}

fn check_server(diagnosis: &mut Diagnosis, found: &Inspection) {
    let (major, minor) = (found.server / 10_000, found.server % 10_000);
    match found.check_server() {
        Ok(()) => diagnosis.ok("server", format!("PostgreSQL {major}.{minor}, UTF8")),
        Err(error) => problem(diagnosis, "server", &error, "use another server or database"),
    }
}

/// Whether the URL says what is between the store and the server.
async fn check_pooler(
    diagnosis: &mut Diagnosis,
    connector: &Connector,
    connection: &Connection,
    found: &Inspection,
) -> Result<()> {
    let is_direct = connection.announced_backend().await == Some(found.backend);
    let finding = match (connector.config().pooler, is_direct) {
        (Pooler::None, true) => "none: the server itself answers",
        (Pooler::Transaction, true) => "none, although `pooler=transaction` is set: no harm",
        (Pooler::Transaction, false) => "one, and `pooler=transaction` is set",
        (Pooler::None, false) => match pooling::of(connector, connection).await? {
            Pooling::Session => "one that keeps a server connection for each client's session",
            Pooling::Transaction => {
                diagnosis.found(
                    Verdict::Problem,
                    "pooler",
                    "a pooler assigns a server connection to each transaction: time limits leak \
                     into other clients' sessions",
                    pooling::ADVICE,
                );
                return Ok(());
            }
        },
    };
    diagnosis.ok("pooler", finding);
    Ok(())
}

/// Whether writes go through: opening needs none, and so does not notice.
async fn check_writes(diagnosis: &mut Diagnosis, connection: &Connection) -> Result<()> {
    let select = "SELECT pg_is_in_recovery() AS is_standby, \
                  current_setting('default_transaction_read_only')::bool AS read_only";
    let rows = query(connection, select, None).await?;
    let row = rows::first(&rows)?;
    if column(row, "is_standby")? {
        diagnosis.found(
            Verdict::Problem,
            "writes",
            "the server is a standby: it takes none",
            "put the address of its primary into the URL, or of all servers, with \
             `target_session_attrs=read-write`",
        );
    } else if column(row, "read_only")? {
        diagnosis.found(
            Verdict::Problem,
            "writes",
            "`default_transaction_read_only` is on: none is taken (the server is no standby)",
            "turn it off where it is set: `ALTER SYSTEM`, `ALTER DATABASE` or `ALTER ROLE … RESET \
             default_transaction_read_only`, or `options` in the URL",
        );
    } else {
        diagnosis.ok("writes", "the server takes them");
    }
    Ok(())
}

async fn check_encryption(
    diagnosis: &mut Diagnosis,
    connection: &Connection,
    config: &Config,
) -> Result<()> {
    let select = "SELECT coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), \
                  false) AS encrypted, coalesce(host(inet_client_addr()) IN ('127.0.0.1', '::1'), \
                  true) AS local";
    let rows = query(connection, select, None).await?;
    let row = rows::first(&rows)?;
    let (encrypted, local): (bool, bool) = (column(row, "encrypted")?, column(row, "local")?);
    let verified = config.tls.encryption == Encryption::VerifyFull;
    match (encrypted, local) {
        (true, _) if verified => {
            diagnosis.ok("encryption", "TLS, and the server's name is checked");
        }
        (true, false) => diagnosis.found(
            Verdict::Warning,
            "encryption",
            "TLS, but nothing makes sure that the server is the one that was asked for",
            "put `sslmode=verify-full` into the URL, and `sslrootcert` for an authority of yours",
        ),
        (true, true) => diagnosis.ok("encryption", "TLS, to this machine"),
        (false, true) => diagnosis.ok("encryption", "none, to this machine"),
        (false, false) => diagnosis.found(
            Verdict::Warning,
            "encryption",
            "none: values and the password's proof cross the network in the clear",
            "turn TLS on at the server and put `sslmode=verify-full` into the URL",
        ),
    }
    Ok(())
}

async fn check_clock(diagnosis: &mut Diagnosis, connection: &Connection) -> Result<()> {
    let select = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8 AS now";
    let before = SystemClock.now();
    let rows = query(connection, select, None).await?;
    let after = SystemClock.now();
    let millis: i64 = column(rows::first(&rows)?, "now")?;
    let server = Timestamp::from_millis(u64::try_from(millis).unwrap_or(0))?;
    let apart = before.saturating_since(server).max(server.saturating_since(after));
    if apart > CLOCK_TOLERANCE {
        diagnosis.found(
            Verdict::Warning,
            "clock",
            format!("the server's clock and this machine's are {apart:?} apart"),
            "set both by NTP; the server's decides what has expired",
        );
    } else {
        diagnosis
            .ok("clock", format!("the server's, within {CLOCK_TOLERANCE:?} of this machine's"));
    }
    Ok(())
}

fn check_schema(diagnosis: &mut Diagnosis, found: &Inspection, schema: &str) {
    match found.check_version(schema) {
        Ok(()) => {
            let version = found.version.unwrap_or(0);
            diagnosis.ok("schema", format!("`{schema}`, version {version}"));
        }
        Err(error) => {
            let advice = match error.kind() {
                ErrorKind::Unsupported => "use a newer build",
                ErrorKind::PermissionDenied => "grant the role what it needs",
                _ => "run `cubbyhole migrate` with a role that may",
            };
            problem(diagnosis, "schema", &error, advice);
        }
    }
}

fn check_role(diagnosis: &mut Diagnosis, found: &Inspection, schema: &str) {
    let role = &found.role;
    if let Some(why) = found.unbound() {
        let finding = format!("row security does not bind the role `{role}`: {why}");
        diagnosis.found(Verdict::Problem, "role", finding, inspect::proper_role(schema));
        return;
    }
    let membership = match found.row_security {
        Some(_) => found.check_membership(schema),
        // Without a schema there is nothing to be a member of.
        None => Ok(()),
    };
    match membership {
        Ok(()) if found.is_operator => {
            diagnosis.ok("role", format!("`{role}`, bound by row security; may list tenants"));
        }
        Ok(()) => diagnosis.ok("role", format!("`{role}`, bound by row security")),
        Err(error) => problem(diagnosis, "role", &error, "grant it what it needs"),
    }
}

/// A policy of the schema: its name, the role that it is for, the command, what it shows and what
/// it lets be written. `@` stands for the schema.
const POLICIES: [[&str; 5]; 4] = [
    ["tenant", "@_app", "ALL", OF_THE_TENANT, OF_THE_TENANT],
    ["audit", "@_auditor", "SELECT", OF_THE_TENANT, ""],
    ["sweep", "@_sweeper", "ALL", "COALESCE(expires_at <= @.clock(), false)", "false"],
    ["enumerate", "@_enumerator", "SELECT", "true", ""],
];
const OF_THE_TENANT: &str =
    "@.tenant_of(namespace) = current_setting('cubbyhole.tenant'::text, true)";

async fn check_policies(
    diagnosis: &mut Diagnosis,
    connection: &Connection,
    found: &Inspection,
    schema: &str,
) -> Result<()> {
    if let Err(error) = found.check_row_security(schema) {
        problem(diagnosis, "row security", &error, "turn it on and force it");
        return Ok(());
    }
    // An expression is shown with the names that are not in the path: none of ours is.
    let select = "SELECT policyname::text AS name, array_to_string(roles, ',') AS roles, cmd, \
                  coalesce(qual, '') AS shows, coalesce(with_check, '') AS lets \
                  FROM pg_policies WHERE schemaname = $1 AND tablename = 'entries' \
                  AND permissive = 'PERMISSIVE'";
    let rows = query(connection, select, Some(schema)).await?;
    let plain = |text: &str| text.replace(['(', ')', '"', ' '], "");
    let mut missing: Vec<[String; 5]> = POLICIES
        .iter()
        .map(|policy| policy.map(|part| plain(&part.replace('@', schema))))
        .collect();
    let mut strange = Vec::new();
    for row in &rows {
        let mut policy = Vec::with_capacity(5);
        for name in ["name", "roles", "cmd", "shows", "lets"] {
            policy.push(plain(&column::<String>(row, name)?));
        }
        match missing.iter().position(|known| *known == policy[..]) {
            Some(place) => drop(missing.remove(place)),
            None => strange.push(format!("`{}` for {}", policy[0], policy[1])),
        }
    }
    if strange.is_empty() && missing.is_empty() {
        diagnosis.ok("row security", "on and forced, with the four policies of the schema");
        return Ok(());
    }
    let mut finding = Vec::new();
    if !strange.is_empty() {
        finding.push(format!("policies that are not as they were made: {}", strange.join(", ")));
    }
    if !missing.is_empty() {
        let names: Vec<String> = missing.iter().map(|[name, ..]| format!("`{name}`")).collect();
        finding.push(format!("policies that are missing: {}", names.join(", ")));
    }
    diagnosis.found(
        Verdict::Problem,
        "row security",
        finding.join("; "),
        "policies are added up: one too many can show a tenant another's rows; drop it, or make \
         the missing ones as `migrations/0001_entries.sql` does",
    );
    Ok(())
}

/// The functions that run with their owner's rights must be owned by roles that see no more than
/// they need and that nobody is a member of.
async fn check_owners(
    diagnosis: &mut Diagnosis,
    connection: &Connection,
    found: &Inspection,
    schema: &str,
) -> Result<()> {
    let select = "SELECT p.proname::text AS name, r.rolname::text AS owner, \
                  r.rolsuper OR r.rolbypassrls OR r.rolcanlogin AS powerful \
                  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
                  JOIN pg_roles r ON r.oid = p.proowner \
                  WHERE n.nspname = $1 AND p.prosecdef ORDER BY p.proname";
    let rows = query(connection, select, Some(schema)).await?;
    let mut wrong = Vec::new();
    for row in &rows {
        let (name, owner): (String, String) = (column(row, "name")?, column(row, "owner")?);
        let wanted = match name.as_str() {
            "evict" | "backlog" => format!("{schema}_sweeper"),
            "tenants" => format!("{schema}_enumerator"),
            _ => String::new(),
        };
        if owner != wanted || column(row, "powerful")? {
            wrong.push(format!("`{name}` is owned by `{owner}`"));
        }
    }
    // A schema of another version may have others; that it is one is said already.
    let all_there = rows.len() == 3 || found.version.is_some_and(|version| version != LATEST);
    if !all_there && wrong.is_empty() {
        wrong.push(format!("there are {} and not 3", rows.len()));
    }
    if wrong.is_empty() {
        diagnosis.ok("functions", "the sweep and the list of tenants run with roles of their own");
    } else {
        diagnosis.found(
            Verdict::Problem,
            "functions",
            format!(
                "functions with their owner's rights are not as they were made: {}",
                wrong.join(", ")
            ),
            "give `evict` and `backlog` to `<schema>_sweeper` and `tenants` to \
             `<schema>_enumerator`, roles that cannot log in, and drop any other",
        );
    }
    Ok(())
}

async fn check_settings(
    diagnosis: &mut Diagnosis,
    connection: &Connection,
    config: &Config,
) -> Result<()> {
    let select = "SELECT current_setting('synchronous_commit') AS synchronous_commit, \
                  current_setting('fsync') AS fsync, \
                  current_setting('full_page_writes') AS full_page_writes, \
                  current_setting('default_transaction_isolation') AS isolation, \
                  current_setting('max_connections')::int4 AS connections";
    let rows = query(connection, select, None).await?;
    let row = rows::first(&rows)?;
    let setting = |name: &str| column::<&str>(row, name);
    let safety = ["fsync", "full_page_writes", "synchronous_commit"];
    let off: Vec<&str> =
        safety.into_iter().filter(|name| setting(name).is_ok_and(|value| value == "off")).collect();
    if off.is_empty() {
        diagnosis.ok("durability", "a write is answered once it is on disk");
    } else {
        diagnosis.found(
            Verdict::Warning,
            "durability",
            format!(
                "off: {}; what was acknowledged can be lost, or the database damaged, when the \
                 server's machine fails",
                off.join(", ")
            ),
            "turn it on, unless the data can be made anew",
        );
    }
    if setting("isolation")? != "read committed" {
        diagnosis.found(
            Verdict::Warning,
            "isolation",
            format!("`default_transaction_isolation` is `{}`", setting("isolation")?),
            "set it to `read committed` for the role: the calls need no more, and fail and are \
             repeated more often otherwise",
        );
    }
    let connections: i32 = column(row, "connections")?;
    let size = config.pool_size;
    if usize::try_from(connections).unwrap_or(0) <= size {
        diagnosis.found(
            Verdict::Warning,
            "pool",
            format!("up to {size} connections, and the server takes {connections} in all"),
            "make `pool_size` smaller or `max_connections` larger; count every process",
        );
    } else {
        diagnosis.ok("pool", format!("up to {size} of the server's {connections} connections"));
    }
    Ok(())
}

async fn query(
    connection: &Connection,
    select: &str,
    schema: Option<&str>,
) -> Result<Vec<tokio_postgres::Row>> {
    let failed = |error| error::from_call(error, Effect::Read, schema.unwrap_or("<schema>"));
    match schema {
        None => connection.client.query_typed(select, &[]).await.map_err(failed),
        Some(schema) => {
            let params: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)] =
                &[(&schema, Type::TEXT)];
            connection.client.query_typed(select, params).await.map_err(failed)
        }
    }
}

fn advice_on_connecting(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => "check user and password in the URL, and `pg_hba.conf`",
        ErrorKind::InvalidArgument => "correct the URL",
        _ if error.message().contains("connection slot") => {
            "make the pools smaller, or raise `max_connections` or the CONNECTION LIMIT"
        }
        _ => "check the address, and that the server runs and lets this machine in",
    }
}

fn problem(diagnosis: &mut Diagnosis, name: &str, error: &Error, advice: &str) {
    diagnosis.found(Verdict::Problem, name, error.message().to_owned(), advice);
}
