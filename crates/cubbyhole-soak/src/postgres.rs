//! A private schema on a PostgreSQL server with an application role, and measurements of both.

use cubbyhole::ExecutionContext;
use tokio_postgres::{Client, NoTls};

/// The password of the role, which is dropped at the end of the run.
const PASSWORD: &str = "soak";

/// A private schema, and an administrator's connection.
pub(crate) struct Schema {
    name: String,
    admin: Client,
    url: String,
}

impl Schema {
    /// Creates the schema and the role. The role of `admin_url` must be able to create both.
    pub(crate) async fn new(ctx: &ExecutionContext, admin_url: &str) -> Result<Self, String> {
        let name = format!("soak{}", std::process::id());
        let (base, options) = admin_url.split_once('?').unwrap_or((admin_url, ""));
        let options = if options.is_empty() { String::new() } else { format!("&{options}") };
        let (_, address) = base.rsplit_once('@').ok_or("the PostgreSQL URL has no user")?;
        let url = format!("postgres://{name}_login:{PASSWORD}@{address}?schema={name}{options}");
        let (admin, connection) =
            tokio_postgres::connect(admin_url, NoTls).await.map_err(|error| message(&error))?;
        tokio::spawn(async move { drop(connection.await) });
        let schema = Self { name, admin, url };
        // An earlier process with the same process id can have left its schema behind.
        schema.remove().await?;
        let name = &schema.name;
        let migrate_url = format!("{base}?schema={name}{options}");
        cubbyhole::migrate(ctx, &migrate_url).await.map_err(|error| error.to_string())?;
        let sql =
            format!("CREATE ROLE {name}_login LOGIN PASSWORD '{PASSWORD}' IN ROLE {name}_app");
        schema.admin.batch_execute(&sql).await.map_err(|error| message(&error))?;
        Ok(schema)
    }

    /// The store URL of the application role.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Returns the bytes of the tables with their indexes.
    pub(crate) async fn bytes(&self) -> Result<u64, String> {
        let sql = "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class \
                   WHERE relnamespace = to_regnamespace($1) AND relkind = 'r'";
        self.number(sql, &self.name).await
    }

    /// Returns the number of connections of the application role.
    pub(crate) async fn connections(&self) -> Result<u64, String> {
        let login = format!("{}_login", self.name);
        self.number("SELECT count(*) FROM pg_stat_activity WHERE usename = $1", &login).await
    }

    async fn number(&self, sql: &str, name: &str) -> Result<u64, String> {
        let row = self.admin.query_one(sql, &[&name]).await.map_err(|error| message(&error))?;
        let number: i64 = row.try_get(0).map_err(|error| message(&error))?;
        Ok(number.unsigned_abs())
    }

    /// Drops the schema and its roles. The newest roles are dropped first, because older ones
    /// created them.
    pub(crate) async fn remove(&self) -> Result<(), String> {
        let name = &self.name;
        let sql = format!(
            "SET client_min_messages = warning; SET lock_timeout = '20s';
             DROP SCHEMA IF EXISTS {name} CASCADE;
             DO $$ DECLARE role text; BEGIN
                FOR role IN SELECT rolname FROM pg_roles
                    WHERE starts_with(rolname, '{name}_') ORDER BY oid DESC
                LOOP
                    EXECUTE format('DROP OWNED BY %I CASCADE', role);
                    EXECUTE format('DROP ROLE %I', role);
                END LOOP;
             END $$"
        );
        self.admin.batch_execute(&sql).await.map_err(|error| message(&error))
    }
}

/// The message of the server. `Display` of the error only says "db error".
fn message(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string)
}
