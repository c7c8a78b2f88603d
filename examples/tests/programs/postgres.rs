//! A private schema on a PostgreSQL server.

use cubbyhole::ExecutionContext;
use cubbyhole_testkit::shared;
use tokio_postgres::{Client, NoTls};

use crate::support::{TestResult, block_on};

/// A schema, and a role that logs in with the application's rights only.
pub(crate) struct Schema {
    pub(crate) names: shared::Schema,
    /// The URL of the application.
    pub(crate) store: String,
}

impl Schema {
    pub(crate) fn new() -> TestResult<Self> {
        let names = shared::Schema::new("examples")?;
        block_on(async {
            cubbyhole::migrate(&ExecutionContext::new(), &names.admin_url).await?;
            Ok(connect().await?.batch_execute(&names.create_login()).await?)
        })?;
        Ok(Self { store: names.url.clone(), names })
    }

    /// Returns the number of application calls that wait for a lock.
    pub(crate) async fn waiting(&self, client: &Client) -> TestResult<i64> {
        let sql = "SELECT count(*) FROM pg_stat_activity \
                   WHERE usename = $1 AND wait_event_type = 'Lock'";
        let row = client.query_one(sql, &[&format!("{}_login", self.names.name)]).await?;
        Ok(row.get(0))
    }
}

/// Leaves nothing behind on a server that may belong to the developer.
impl Drop for Schema {
    fn drop(&mut self) {
        // A failed cleanup fails no test. The schema has a unique name.
        drop(block_on(async { Ok(connect().await?.batch_execute(&self.names.drop_all()).await?) }));
    }
}

/// Connects as the administrator.
pub(crate) async fn connect() -> TestResult<Client> {
    let (client, connection) = tokio_postgres::connect(shared::postgres_url()?, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
