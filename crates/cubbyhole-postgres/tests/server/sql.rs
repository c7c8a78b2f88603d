//! Helpers that run SQL statements and inspect the answers of the server.

use cubbyhole_postgres::Config;
use cubbyhole_testkit::helpers::{PASSWORD, until};
use tokio_postgres::Client;
use tokio_postgres::types::FromSqlOwned;

use crate::support::{Schema, connect};

/// Runs `sql` and returns its single value.
pub(crate) async fn one<T: FromSqlOwned>(client: &Client, sql: &str) -> T {
    match client.query_one(sql, &[]).await {
        Ok(row) => row.get(0),
        Err(error) => panic!("{sql}: {error:?}"),
    }
}

/// Runs `sql` and returns the number of rows that it returns or changes.
pub(crate) async fn rows(client: &Client, sql: &str) -> u64 {
    match client.execute(sql, &[]).await {
        Ok(rows) => rows,
        Err(error) => panic!("{sql}: {error:?}"),
    }
}

/// Runs `sql`, which the server must reject. Returns the SQLSTATE and all parts of the message.
pub(crate) async fn rejection(client: &Client, sql: &str) -> (String, String) {
    let error = match client.batch_execute(sql).await {
        Ok(()) => panic!("not rejected: {sql}"),
        Err(error) => error,
    };
    let Some(database) = error.as_db_error() else { panic!("{sql}: {error:?}") };
    let message = format!(
        "{} / {:?} / {:?} / {:?}",
        database.message(),
        database.detail(),
        database.hint(),
        database.where_()
    );
    (database.code().code().to_owned(), message)
}

impl Schema {
    /// Creates the login role `<schema>_<name>` with the password of the tests.
    pub(crate) async fn make_role(&self, name: &str, attributes: &str) {
        let sql =
            format!("CREATE ROLE {}_{name} LOGIN PASSWORD '{PASSWORD}' {attributes}", self.name);
        self.execute(&sql).await;
    }

    /// The configuration for a role of [`make_role`](Self::make_role).
    pub(crate) fn config_of(&self, role: &str) -> Config {
        Config::from_url(&self.url_of(role)).unwrap()
    }

    pub(crate) fn url_of(&self, role: &str) -> String {
        let login = format!("//{}_login:", self.name);
        self.url("").replace(&login, &format!("//{}_{role}:", self.name))
    }

    /// Connects as a role of [`make_role`](Self::make_role).
    pub(crate) async fn connect_as(&self, role: &str) -> Client {
        let url = self.url_of(role);
        let (address, _) = url.split_once('?').unwrap();
        connect(address).await
    }

    /// An `INSERT` statement for an entry.
    pub(crate) fn row(&self, name: &str, key: &str, expires_at: Option<i64>) -> String {
        let expires_at = expires_at.map_or("NULL".to_owned(), |at| at.to_string());
        format!(
            "INSERT INTO {}.entries
                (namespace, key, tenant, version, created_at, updated_at, expires_at, value)
             VALUES ('{name}', '{key}', split_part('{name}', ':', 1), gen_random_uuid(), 0, 0,
                {expires_at}, 'by hand');",
            self.name
        )
    }

    /// A digest of the rows of one tenant or of all tenants.
    pub(crate) async fn digest(&self, admin: &Client, tenant: Option<&str>) -> String {
        let condition = tenant.map_or("true".to_owned(), |tenant| format!("tenant = '{tenant}'"));
        let sql = format!(
            "SELECT count(*) || ' ' || coalesce(md5(string_agg(e::text, '|'
                ORDER BY namespace, key)), '') FROM {}.entries e WHERE {condition}",
            self.name
        );
        one(admin, &sql).await
    }

    /// Waits until this number of the application's statements wait for a lock.
    pub(crate) async fn until_waiting(&self, admin: &Client, calls: i64) {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity
             WHERE usename = '{}_login' AND wait_event_type = 'Lock'",
            self.name
        );
        until(&format!("{calls} blocked calls"), async || one::<i64>(admin, &sql).await == calls)
            .await;
    }
}
