//! A schema of its own in PostgreSQL.

use std::sync::atomic::{AtomicU32, Ordering};

use cubbyhole::ExecutionContext;
use cubbyhole_testkit::shared;
use tokio_postgres::{Client, NoTls};

use crate::support::{Outcome, block_on};

/// A schema, and a role that logs in with the application's rights and no other.
pub(crate) struct Schema {
    pub(crate) name: String,
    /// What the application uses.
    pub(crate) store: String,
}

impl Schema {
    pub(crate) fn new() -> Outcome<Self> {
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

    /// How many calls of the application wait for a lock.
    pub(crate) async fn waiting(&self, client: &Client) -> Outcome<i64> {
        let sql = "SELECT count(*) FROM pg_stat_activity \
                   WHERE usename = $1 AND wait_event_type = 'Lock'";
        let row = client.query_one(sql, &[&format!("{}_login", self.name)]).await?;
        Ok(row.get(0))
    }
}

/// Leaves nothing on a server that may be the developer's own.
impl Drop for Schema {
    fn drop(&mut self) {
        let name = &self.name;
        let roles = ["login", "app", "sweeper", "enumerator", "operator", "auditor"]
            .map(|role| format!("{name}_{role}"))
            .join(", ");
        // Without it a test fails no less; what is left has a name of its own.
        drop(block_on(async {
            let sql = format!(
                "SET client_min_messages = warning; DROP SCHEMA IF EXISTS {name} CASCADE;
                 DROP OWNED BY {roles}; DROP ROLE {roles}"
            );
            Ok(connect().await?.batch_execute(&sql).await?)
        }));
    }
}

/// As the role that may do anything.
pub(crate) async fn connect() -> Outcome<Client> {
    let (client, connection) = tokio_postgres::connect(shared::postgres_url()?, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
