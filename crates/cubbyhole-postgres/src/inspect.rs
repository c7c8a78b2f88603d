//! What the store stands on: the server, the schema and the role that it is used with.

use cubbyhole_core::{Compaction, Error, Result};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::call::{Failure, Stopped};
use crate::config::Pooler;
use crate::connection::{Connection, Connector};
use crate::error::{self, Effect};
use crate::migrate::LATEST;
use crate::pool::Lease;
use crate::pooling::{self, Pooling};
use crate::rows::{self, column};

/// The oldest server that has what the schema needs: views with the caller's rights.
const OLDEST_SERVER: i32 = 150_000;

/// What was found out about server, schema and role.
#[derive(Debug)]
pub(crate) struct Inspection {
    pub(crate) server: i32,
    /// The process of the server that answered.
    pub(crate) backend: i32,
    pub(crate) encoding: String,
    pub(crate) role: String,
    pub(crate) superuser: bool,
    pub(crate) bypasses: bool,
    /// Roles of the schema's that see across tenants and whose rights this role has.
    pub(crate) across: Vec<String>,
    pub(crate) is_app: bool,
    pub(crate) is_operator: bool,
    /// Whether row security is on, and forced on the owner; `None` without a table.
    pub(crate) row_security: Option<(bool, bool)>,
    /// The version of the schema; `None` if there is none, or it may not be read.
    pub(crate) version: Option<i32>,
}

/// One round trip over the catalogs, which everyone may read, and one for the schema's version.
pub(crate) async fn inspect(client: &Client, schema: &str) -> Result<Inspection> {
    const CATALOGS: &str = "
        SELECT current_setting('server_version_num')::int4 AS server,
            current_setting('server_encoding') AS encoding, pg_backend_pid() AS backend,
            r.rolname::text AS role, r.rolsuper AS superuser, r.rolbypassrls AS bypasses,
            EXISTS (SELECT FROM pg_roles g
                WHERE g.rolname = $1 || '_app' AND pg_has_role(g.oid, 'USAGE')) AS is_app,
            EXISTS (SELECT FROM pg_roles g
                WHERE g.rolname = $1 || '_operator' AND pg_has_role(g.oid, 'USAGE')) AS is_operator,
            ARRAY(SELECT g.rolname::text FROM pg_roles g
                WHERE g.rolname IN ($1 || '_sweeper', $1 || '_enumerator')
                    AND pg_has_role(g.oid, 'USAGE')) AS across,
            e.relrowsecurity AS row_security, e.relforcerowsecurity AS forced,
            coalesce(has_schema_privilege(n.oid, 'USAGE')
                AND has_table_privilege(m.oid, 'SELECT'), false) AS readable
        FROM pg_roles r
        LEFT JOIN pg_namespace n ON n.nspname = $1
        LEFT JOIN pg_class e ON e.relnamespace = n.oid AND e.relname = 'entries'
        LEFT JOIN pg_class m ON m.relnamespace = n.oid AND m.relname = 'migrations'
        WHERE r.rolname = current_user";
    let failed = |error| error::from_call(error, Effect::Read, schema);
    let found = client.query_typed(CATALOGS, &[(&schema, Type::TEXT)]).await.map_err(failed)?;
    let row = rows::first(&found)?;
    let mut inspection = Inspection {
        server: column(row, "server")?,
        backend: column(row, "backend")?,
        encoding: column(row, "encoding")?,
        role: column(row, "role")?,
        superuser: column(row, "superuser")?,
        bypasses: column(row, "bypasses")?,
        across: column(row, "across")?,
        is_app: column(row, "is_app")?,
        is_operator: column(row, "is_operator")?,
        row_security: column::<Option<bool>>(row, "row_security")?
            .zip(column::<Option<bool>>(row, "forced")?),
        version: None,
    };
    if column(row, "readable")? {
        let select = format!("SELECT max(version) FROM \"{schema}\".migrations");
        let found = client.query_typed(&select, &[]).await.map_err(failed)?;
        inspection.version = rows::scalar(&found)?;
    }
    Ok(inspection)
}

impl Inspection {
    /// What is wrong with the server, if anything.
    pub(crate) fn check_server(&self) -> Result<()> {
        if self.server < OLDEST_SERVER {
            return Err(Error::unsupported(format!(
                "the server is PostgreSQL {}; version 15 or later is needed",
                self.server / 10_000
            )));
        }
        if self.encoding != "UTF8" {
            return Err(Error::unsupported(format!(
                "the database's encoding is {}; make one with `ENCODING 'UTF8'`",
                self.encoding
            )));
        }
        Ok(())
    }

    /// Why row security does not bind the role, if it does not.
    pub(crate) fn unbound(&self) -> Option<String> {
        if self.superuser {
            Some("it is a superuser".to_owned())
        } else if self.bypasses {
            Some("it has BYPASSRLS".to_owned())
        } else {
            self.across.first().map(|across| format!("it has the rights of `{across}`"))
        }
    }

    fn check_role(&self, schema: &str) -> Result<()> {
        let Some(why) = self.unbound() else { return Ok(()) };
        Err(Error::permission_denied(format!(
            "row security does not bind the role `{}`: {why}; {} (or accept it with \
             `allow_unbound_role=on` in the URL)",
            self.role,
            proper_role(schema)
        )))
    }

    /// Why the role cannot use the schema, if it cannot.
    pub(crate) fn check_membership(&self, schema: &str) -> Result<()> {
        if self.is_app {
            return Ok(());
        }
        let role = &self.role;
        Err(Error::permission_denied(format!(
            "the role `{role}` has not the rights of `{schema}_app`; run `GRANT {schema}_app TO \
             {role}` (and, if it was granted before, `ALTER ROLE {role} INHERIT`)"
        )))
    }

    /// Whether the schema is the one that this build knows.
    pub(crate) fn check_version(&self, schema: &str) -> Result<()> {
        match self.version {
            Some(LATEST) => Ok(()),
            Some(newer) if newer > LATEST => Err(Error::unsupported(format!(
                "the schema `{schema}` is of version {newer}, newer than this build, which knows \
                 version {LATEST}; use a newer build"
            ))),
            Some(older) => Err(Error::unavailable(format!(
                "the schema `{schema}` is of version {older}, this build needs version {LATEST}; \
                 run `cubbyhole migrate` with a role that may"
            ))
            .permanent()),
            None if self.row_security.is_some() => Err(Error::permission_denied(format!(
                "the role `{}` may not read the schema `{schema}`; run `GRANT {schema}_app TO {}`",
                self.role, self.role
            ))),
            None => Err(Error::unavailable(format!(
                "there is no schema `{schema}` in this database; run `cubbyhole migrate` with a \
                 role that may, or open with `migrate=on`"
            ))
            .permanent()),
        }
    }

    /// Whether the table is protected as the migrations left it.
    pub(crate) fn check_row_security(&self, schema: &str) -> Result<()> {
        if self.row_security == Some((true, true)) {
            return Ok(());
        }
        Err(Error::permission_denied(format!(
            "row security is off on the table; run `ALTER TABLE {schema}.entries ENABLE ROW LEVEL \
             SECURITY, FORCE ROW LEVEL SECURITY`"
        )))
    }
}

/// How to make a role for the application.
pub(crate) fn proper_role(schema: &str) -> String {
    format!(
        "make one that it binds: `CREATE ROLE my_service LOGIN PASSWORD '…'; GRANT {schema}_app TO \
         my_service`"
    )
}

/// Refuses a server, a schema, a role or a pooler that the store is not safe with.
pub(crate) async fn admit(connector: &Connector, connection: &Connection) -> Result<()> {
    let config = connector.config();
    let schema = config.schema();
    let found = inspect(&connection.client, schema).await?;
    found.check_server()?;
    if !config.allow_unbound_role {
        found.check_role(schema)?;
    }
    found.check_version(schema)?;
    found.check_membership(schema)?;
    if !config.allow_unbound_role {
        found.check_row_security(schema)?;
    }
    if config.pooler == Pooler::None
        && connection.announced_backend().await != Some(found.backend)
        && pooling::of(connector, connection).await? == Pooling::Transaction
    {
        return Err(pooling::refusal());
    }
    Ok(())
}

/// Vacuums the table, if the role owns it.
pub(crate) async fn compact(
    mut lease: Lease,
    schema: String,
    stopped: Stopped,
) -> (Lease, Result<Compaction, Failure>) {
    let client = &lease.connection.client;
    // Without the limit of an earlier call; the next call sets its own.
    if let Err(error) = client.batch_execute("RESET statement_timeout").await {
        return (lease, Err(Failure::Server(error)));
    }
    let compacted = vacuum(client, &schema, &stopped).await;
    lease.connection.time_limit = None;
    (lease, compacted)
}

async fn vacuum(client: &Client, schema: &str, stopped: &Stopped) -> Result<Compaction, Failure> {
    let table = format!("\"{schema}\".\"entries\"");
    let size = || async {
        let select = format!(
            "SELECT pg_total_relation_size('{table}'::regclass), \
             pg_has_role((SELECT relowner FROM pg_class WHERE oid = '{table}'::regclass), 'USAGE')"
        );
        let rows = client.query_typed(&select, &[]).await.map_err(Failure::Server)?;
        let row = rows::first(&rows).map_err(Failure::Refused)?;
        let bytes: i64 = row.try_get(0).map_err(Failure::Server)?;
        let owns: bool = row.try_get(1).map_err(Failure::Server)?;
        Ok((u64::try_from(bytes).ok(), owns))
    };
    let (bytes_before, owns) = size().await?;
    if !owns {
        return Err(Failure::Refused(Error::permission_denied(format!(
            "only the table's owner may vacuum it, and autovacuum does so by itself; to do it now, \
             run `VACUUM {schema}.entries` as the owner"
        ))));
    }
    if stopped.is_set() {
        return Err(Failure::Refused(Error::cancelled()));
    }
    client.batch_execute(&format!("VACUUM {table}")).await.map_err(Failure::Server)?;
    let (bytes_after, _) = size().await?;
    Ok(Compaction { bytes_before, bytes_after })
}
