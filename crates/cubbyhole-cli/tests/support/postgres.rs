//! A separate PostgreSQL schema for each test, created by the tool.

use cubbyhole_testkit::shared;
use tokio_postgres::NoTls;

use crate::support::{Outcome, tool};

/// A schema, and a role that logs in with the application's rights only.
pub(crate) struct Schema {
    names: shared::Schema,
    /// The URL with the role that migrates the schema.
    pub(crate) admin_store: String,
    /// The URL of the application.
    pub(crate) store: String,
}

impl Schema {
    pub(crate) fn new() -> Outcome<Self> {
        let names = shared::Schema::new("tool")?;
        let (admin_store, store) = (names.admin_url.clone(), names.url.clone());
        let schema = Self { names, admin_store, store };
        let migrated = tool(&["migrate", "--store", &schema.admin_store])?;
        if !migrated.status.success() {
            return Err(format!("{migrated:?}").into());
        }
        execute(&schema.names.create_login())?;
        Ok(schema)
    }

    /// Allows the application's role to list tenants.
    pub(crate) fn grant_operator(&self) -> Outcome {
        execute(&format!("GRANT {0}_operator TO {0}_login", self.names.name))
    }
}

/// Leaves nothing behind on a server that may belong to the developer.
impl Drop for Schema {
    fn drop(&mut self) {
        // A failed cleanup fails no test. The schema has a unique name.
        drop(execute(&self.names.drop_all()));
    }
}

fn execute(sql: &str) -> Outcome {
    let url = shared::postgres_url()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        client.batch_execute(sql).await?;
        Ok(())
    })
}
