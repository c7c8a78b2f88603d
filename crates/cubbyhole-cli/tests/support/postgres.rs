//! A separate PostgreSQL schema for each test, created by the tool.

use std::sync::atomic::{AtomicU32, Ordering};

use cubbyhole_testkit::shared;
use tokio_postgres::NoTls;

use crate::support::{Outcome, tool};

/// The password of the application's role.
pub(crate) const PASSWORD: &str = "s3cret-Pa55";

/// A schema, and a login role with the permissions of an application.
pub(crate) struct Schema {
    name: String,
    /// The store as a role that can migrate it.
    pub(crate) admin_store: String,
    /// The store as the application's role.
    pub(crate) store: String,
}

impl Schema {
    pub(crate) fn new() -> Outcome<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tool{}_{number}", std::process::id());
        let admin = shared::postgres_url()?;
        let (_, address) = admin.rsplit_once('@').ok_or("the URL names no user")?;
        let schema = Self {
            admin_store: format!("{admin}?schema={name}"),
            store: format!("postgres://{name}_login:{PASSWORD}@{address}?schema={name}"),
            name,
        };
        let migrated = tool(&["migrate", "--store", &schema.admin_store])?;
        if !migrated.status.success() {
            return Err(format!("{migrated:?}").into());
        }
        let name = &schema.name;
        execute(&format!(
            "CREATE ROLE {name}_login LOGIN PASSWORD '{PASSWORD}' IN ROLE {name}_app"
        ))?;
        Ok(schema)
    }

    /// Allows the application's role to list tenants.
    pub(crate) fn grant_operator(&self) -> Outcome {
        execute(&format!("GRANT {0}_operator TO {0}_login", self.name))
    }
}

/// Cleans up, because the server may be the developer's.
impl Drop for Schema {
    fn drop(&mut self) {
        let name = &self.name;
        let roles = ["login", "app", "sweeper", "enumerator", "operator", "auditor"]
            .map(|role| format!("{name}_{role}"))
            .join(", ");
        // An error is ignored: the names are unique, so leftovers do not affect other tests.
        drop(execute(&format!(
            "SET client_min_messages = warning; DROP SCHEMA IF EXISTS {name} CASCADE;
             DROP OWNED BY {roles}; DROP ROLE {roles}"
        )));
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
