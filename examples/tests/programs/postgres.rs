//! A private schema on a PostgreSQL server.

use std::sync::atomic::{AtomicU32, Ordering};

use cubbyhole::ExecutionContext;
use cubbyhole_testkit::shared;
use tokio_postgres::{Client, NoTls};

use crate::support::{TestResult, block_on};

/// A schema, and a login role with only the application's privileges.
pub(crate) struct Schema {
    pub(crate) name: String,
    /// The store URL of the application.
    pub(crate) store: String,
}

impl Schema {
    pub(crate) fn new() -> TestResult<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("examples{}_{number}", std::process::id());
        let admin = shared::postgres_url()?;
        let (_, address) = admin.rsplit_once('@').ok_or("the URL names no user")?;
        let store = format!("postgres://{name}_login:secret@{address}?schema={name}");
        let schema = Self { name, store };
        let name = &schema.name;
        block_on(async {
            cubbyhole::migrate(&ExecutionContext::new(), &format!("{admin}?schema={name}")).await?;
            let role =
                format!("CREATE ROLE {name}_login LOGIN PASSWORD 'secret' IN ROLE {name}_app");
            Ok(connect().await?.batch_execute(&role).await?)
        })?;
        Ok(schema)
    }

    /// Returns the number of application calls that wait for a lock.
    pub(crate) async fn waiting(&self, client: &Client) -> TestResult<i64> {
        let sql = "SELECT count(*) FROM pg_stat_activity \
                   WHERE usename = $1 AND wait_event_type = 'Lock'";
        let row = client.query_one(sql, &[&format!("{}_login", self.name)]).await?;
        Ok(row.get(0))
    }
}

/// Drops the schema and its roles, because the server can be the developer's.
impl Drop for Schema {
    fn drop(&mut self) {
        let name = &self.name;
        let roles = ["login", "app", "sweeper", "enumerator", "operator", "auditor"]
            .map(|role| format!("{name}_{role}"))
            .join(", ");
        // Errors are ignored: a remaining schema has a unique name and affects no other test.
        drop(block_on(async {
            let sql = format!(
                "SET client_min_messages = warning; DROP SCHEMA IF EXISTS {name} CASCADE;
                 DROP OWNED BY {roles}; DROP ROLE {roles}"
            );
            Ok(connect().await?.batch_execute(&sql).await?)
        }));
    }
}

/// Connects as the administrator.
pub(crate) async fn connect() -> TestResult<Client> {
    let (client, connection) = tokio_postgres::connect(shared::postgres_url()?, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
