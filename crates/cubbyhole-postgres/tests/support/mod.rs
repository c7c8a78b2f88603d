//! Creates a schema for each test on a real server.

#![expect(clippy::expect_used, reason = "a test cannot start without a server and a schema")]

use std::sync::atomic::{AtomicU32, Ordering};

use cubbyhole_core::ExecutionContext;
use cubbyhole_postgres::{Config, migrate};
use cubbyhole_testkit::helpers::PASSWORD;
use cubbyhole_testkit::shared;
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

/// Returns the URL of the server that the tests share.
pub(crate) fn admin_url() -> &'static str {
    shared::postgres_url().expect("a private PostgreSQL")
}

/// A migrated schema, with a login role that has only the privileges of the application.
pub(crate) struct Schema {
    pub(crate) name: String,
    admin_url: String,
    /// Opened once, because password authentication is slow in unoptimised builds.
    own_admin: OnceCell<Client>,
}

impl Schema {
    /// Creates a schema on the shared server.
    pub(crate) async fn new() -> Self {
        Self::on(admin_url()).await
    }

    /// Creates a schema on another server.
    pub(crate) async fn on(admin_url: &str) -> Self {
        let schema = Self::not_created(admin_url);
        migrate(&ExecutionContext::new(), &schema.admin_config()).await.expect("migrations");
        let name = &schema.name;
        let sql =
            format!("CREATE ROLE {name}_login LOGIN PASSWORD '{PASSWORD}' IN ROLE {name}_app");
        schema.execute(&sql).await;
        schema
    }

    /// A new name. The schema does not exist yet.
    pub(crate) fn not_created(admin_url: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{}_{number}", std::process::id());
        Self { name, admin_url: admin_url.to_owned(), own_admin: OnceCell::new() }
    }

    /// The URL of the server with the administrator's role.
    pub(crate) fn admin_url(&self) -> &str {
        &self.admin_url
    }

    /// The configuration of the administrator.
    pub(crate) fn admin_config(&self) -> Config {
        Config::from_url(&self.admin_url)
            .and_then(|config| config.with_schema(&self.name))
            .expect("a URL")
    }

    /// The URL of the application, with `options` appended.
    pub(crate) fn url(&self, options: &str) -> String {
        let (_, address) = self.admin_url.rsplit_once('@').expect("a URL with a user");
        let address = address.split('?').next().unwrap_or(address);
        let name = &self.name;
        format!("postgres://{name}_login:{PASSWORD}@{address}?schema={name}{options}")
    }

    /// Grants the application's role the privilege to list tenants.
    pub(crate) async fn grant_operator(&self) {
        let name = &self.name;
        let sql = format!("GRANT {name}_operator TO {name}_login");
        self.execute(&sql).await;
    }

    /// Replaces the clock with one that only [`advance`](Self::advance) moves.
    pub(crate) async fn stop_clock(&self) {
        let name = &self.name;
        let sql = format!(
            "CREATE TABLE {name}.test_clock (now bigint);
             INSERT INTO {name}.test_clock VALUES ({name}.clock());
             GRANT SELECT ON {name}.test_clock TO PUBLIC;
             CREATE OR REPLACE FUNCTION {name}.clock() RETURNS bigint
             LANGUAGE sql VOLATILE AS $$ SELECT now FROM {name}.test_clock $$;"
        );
        self.execute(&sql).await;
    }

    /// Moves the stopped clock forward.
    pub(crate) async fn advance(&self, by: std::time::Duration) {
        let sql = format!("UPDATE {}.test_clock SET now = now + {}", self.name, by.as_millis());
        self.execute(&sql).await;
    }

    /// Runs SQL as the administrator.
    pub(crate) async fn execute(&self, sql: &str) {
        let admin = self.own_admin.get_or_init(|| connect(self.admin_url())).await;
        admin.batch_execute(sql).await.expect("the administrator's SQL succeeds");
    }
}

/// Removes all objects, because the server may belong to the developer.
impl Drop for Schema {
    fn drop(&mut self) {
        let (url, name) = (self.admin_url.clone(), self.name.clone());
        // `drop` cannot await, and may run on a thread of a runtime.
        let cleanup = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let admin = connect(&url).await;
                // A failed test may have left a transaction open. Drop newer roles first, because
                // older roles may own them.
                let sql = format!(
                    "SET client_min_messages = warning; SET lock_timeout = '20s';
                     SELECT pg_terminate_backend(l.pid) FROM pg_locks l
                        JOIN pg_class c ON c.oid = l.relation
                        WHERE c.relnamespace = to_regnamespace('{name}');
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
                // The test may have stopped the server.
                drop(admin.batch_execute(&sql).await);
            });
        });
        drop(cleanup.join());
    }
}

/// Opens a plain connection.
pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(async move { drop(connection.await) });
    client
}
