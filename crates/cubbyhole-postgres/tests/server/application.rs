//! The application's side of a schema.

use std::time::Duration;

use cubbyhole_core::ExecutionContext;
use cubbyhole_postgres::{Config, PostgresStore};
use tokio_postgres::Client;

use crate::support::{Schema, connect};

impl Schema {
    /// The application's configuration.
    pub(crate) fn config(&self) -> Config {
        Config::from_url(&self.url("")).unwrap()
    }

    /// A store as the application opens it.
    pub(crate) async fn open(&self) -> PostgresStore {
        PostgresStore::open(&ExecutionContext::new(), self.config()).await.unwrap()
    }

    /// A connection of the administrator's.
    pub(crate) async fn admin(&self) -> Client {
        connect(self.admin_url()).await
    }

    /// A connection of the application's, for SQL by hand.
    pub(crate) async fn login(&self) -> Client {
        let url = self.url("");
        let (address, _) = url.split_once('?').unwrap();
        connect(address).await
    }
}

/// How long a condition may take to come true on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

impl Schema {
    /// Waits until the application's role has nothing running and no transaction open, but for
    /// `others` connections of the test's own.
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
        tokio::time::timeout(PATIENCE, waiting).await.expect("a statement is left at the server");
    }
}
