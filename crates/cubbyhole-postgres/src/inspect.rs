//! Reads the facts about server, schema and role that opening, migrating and diagnosing check.

use cubbyhole_core::{Error, Result};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::config::Pooler;
use crate::connection::{Connection, Connector};
use crate::error::{self, Effect};
use crate::pooling::{self, Pooling};
use crate::rows::{self, column};
use crate::schema::LATEST_VERSION;

/// The oldest supported server: the schema needs `security_invoker` views.
const MIN_SERVER_VERSION: i32 = 150_000;

/// Facts about the server, the schema and the role of one session.
#[derive(Debug)]
pub(crate) struct Inspection {
    /// `server_version_num`: 150004 is version 15.4.
    pub(crate) server_version: i32,
    /// The process id of the server process that answered.
    pub(crate) backend: i32,
    pub(crate) encoding: String,
    pub(crate) role: String,
    pub(crate) is_superuser: bool,
    pub(crate) bypasses_row_security: bool,
    /// Roles of the schema that see rows of all tenants and whose privileges this role has.
    pub(crate) cross_tenant_roles: Vec<String>,
    pub(crate) is_app: bool,
    pub(crate) is_operator: bool,
    /// Whether row security is enabled, and forced on the owner. `None` if there is no table.
    pub(crate) row_security: Option<(bool, bool)>,
    /// The version of the schema. `None` if the schema is missing or the role may not read it.
    pub(crate) version: Option<i32>,
}

/// Inspects in two round trips: one for the catalogs, which every role may read, and one for the
/// version of the schema.
pub(crate) async fn inspect(client: &Client, schema: &str) -> Result<Inspection> {
    const CATALOGS: &str = "
        SELECT current_setting('server_version_num')::int4 AS server_version,
            current_setting('server_encoding') AS encoding, pg_backend_pid() AS backend,
            r.rolname::text AS role, r.rolsuper AS superuser, r.rolbypassrls AS bypasses,
            EXISTS (SELECT FROM pg_roles g
                WHERE g.rolname = $1 || '_app' AND pg_has_role(g.oid, 'USAGE')) AS is_app,
            EXISTS (SELECT FROM pg_roles g
                WHERE g.rolname = $1 || '_operator' AND pg_has_role(g.oid, 'USAGE')) AS is_operator,
            ARRAY(SELECT g.rolname::text FROM pg_roles g
                WHERE g.rolname IN ($1 || '_sweeper', $1 || '_enumerator')
                    AND pg_has_role(g.oid, 'USAGE')) AS cross_tenant_roles,
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
        server_version: column(row, "server_version")?,
        backend: column(row, "backend")?,
        encoding: column(row, "encoding")?,
        role: column(row, "role")?,
        is_superuser: column(row, "superuser")?,
        bypasses_row_security: column(row, "bypasses")?,
        cross_tenant_roles: column(row, "cross_tenant_roles")?,
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
    /// Checks the version of the server and the encoding of the database.
    pub(crate) fn check_server(&self) -> Result<()> {
        if self.server_version < MIN_SERVER_VERSION {
            return Err(Error::unsupported(format!(
                "the server is PostgreSQL {}; version 15 or later is required",
                self.server_version / 10_000
            )));
        }
        if self.encoding != "UTF8" {
            return Err(Error::unsupported(format!(
                "the encoding of the database is {}; create a database with `ENCODING 'UTF8'`",
                self.encoding
            )));
        }
        Ok(())
    }

    /// The reason why the role bypasses row security, or `None` if row security applies to it.
    pub(crate) fn bypass_reason(&self) -> Option<String> {
        if self.is_superuser {
            Some("it is a superuser".to_owned())
        } else if self.bypasses_row_security {
            Some("it has BYPASSRLS".to_owned())
        } else {
            self.cross_tenant_roles.first().map(|role| format!("it has the privileges of `{role}`"))
        }
    }

    fn check_role(&self, schema: &str) -> Result<()> {
        let Some(reason) = self.bypass_reason() else { return Ok(()) };
        Err(Error::permission_denied(format!(
            "the role `{}` bypasses row security: {reason}; {} (or accept the role with \
             `allow_unbound_role=on` in the URL)",
            self.role,
            app_role_advice(schema)
        )))
    }

    /// Checks that the role has the privileges of `<schema>_app`.
    pub(crate) fn check_membership(&self, schema: &str) -> Result<()> {
        if self.is_app {
            return Ok(());
        }
        let role = &self.role;
        Err(Error::permission_denied(format!(
            "the role `{role}` lacks the privileges of `{schema}_app`; run `GRANT {schema}_app TO \
             {role}` (if it is already granted, run `ALTER ROLE {role} INHERIT`)"
        )))
    }

    /// Checks that the schema has the version that this build supports.
    pub(crate) fn check_version(&self, schema: &str) -> Result<()> {
        match self.version {
            Some(LATEST_VERSION) => Ok(()),
            Some(newer) if newer > LATEST_VERSION => Err(newer_schema(schema, newer)),
            Some(older) => Err(Error::unavailable(format!(
                "the schema `{schema}` has version {older} and this build needs version \
                 {LATEST_VERSION}; run `cubbyhole migrate` as an administrator"
            ))
            .permanent()),
            None if self.row_security.is_some() => Err(Error::permission_denied(format!(
                "the role `{}` may not read the schema `{schema}`; run `GRANT {schema}_app TO {}`",
                self.role, self.role
            ))),
            None => Err(Error::unavailable(format!(
                "the database has no schema `{schema}`; run `cubbyhole migrate` as an \
                 administrator, or open with `migrate=on`"
            ))
            .permanent()),
        }
    }

    /// Checks that row security is enabled and forced on the table.
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

/// The error for a schema that a newer build migrated.
pub(crate) fn newer_schema(schema: &str, version: i32) -> Error {
    Error::unsupported(format!(
        "the schema `{schema}` has version {version}, which is newer than version {LATEST_VERSION} \
         of this build; use a newer build"
    ))
}

/// Advice on creating a role for the application.
pub(crate) fn app_role_advice(schema: &str) -> String {
    format!(
        "use a role without these privileges: `CREATE ROLE my_service LOGIN PASSWORD '…'; GRANT \
         {schema}_app TO my_service`"
    )
}

/// Rejects a server, schema, role or pooler that the store cannot use safely.
pub(crate) async fn check_usable(connector: &Connector, connection: &Connection) -> Result<()> {
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
        && pooling::detect(connector, connection).await? == Pooling::Transaction
    {
        return Err(pooling::transaction_mode_error());
    }
    Ok(())
}
