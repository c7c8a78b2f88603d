//! Stores and connections of the application and the administrator.

use std::time::Duration;

use cubbyhole_core::ExecutionContext;
use cubbyhole_postgres::{Config, PostgresStore};
use tokio_postgres::Client;

use crate::support::{Schema, connect};

impl Schema {
    /// The configuration of the application.
    pub(crate) fn config(&self) -> Config {
        Config::from_url(&self.url("")).unwrap()
    }

    /// Opens a store as the application.
    pub(crate) async fn open(&self) -> PostgresStore {
        PostgresStore::open(&ExecutionContext::new(), self.config()).await.unwrap()
    }

    /// Connects as the administrator.
    pub(crate) async fn admin(&self) -> Client {
        connect(self.admin_url()).await
    }

    /// Connects as the application, for SQL statements.
    pub(crate) async fn login(&self) -> Client {
        let url = self.url("");
        let (address, _) = url.split_once('?').unwrap();
        connect(address).await
    }
}

/// Generous, for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

impl Schema {
    /// Waits until the application's role has no running statement and no open transaction, except
    /// on `others` connections of the test.
    pub(crate) async fn no_statement_is_left(&self, others: i64) {
        let admin = self.admin().await;
        let count = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND state <> 'idle'";
        let role = format!("{}_login", self.name);
        let waiting = async {
            loop {
                let left: i64 = admin.query_one(count, &[&role]).await.unwrap().get(0);
                if left <= others {
                    return;
                }
                ExecutionContext::new().sleep(Duration::from_millis(10)).await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .expect("a statement is still running on the server");
    }
}
