//! Creating and upgrading the schema.

use std::time::Duration;

use cubbyhole_core::{
    Check, EntryStore, ErrorKind, ExecutionContext, PutOptions, Result, Store, Verdict,
};
use cubbyhole_postgres::{Config, PostgresStore, diagnose, migrate};
use cubbyhole_testkit::helpers::{self, PASSWORD, bytes, ctx, ns, until};
use futures_util::future::join_all;
use tokio_postgres::Client;

use crate::sql::{one, rejection, rows};
use crate::support::{Schema, admin_url, connect};

/// The name of a schema on the shared server that does not exist yet.
fn not_created() -> Schema {
    Schema::not_created(admin_url())
}

/// The number of schemas and roles with the name, without the migrating role.
async fn object_count(schema: &Schema, admin: &Client) -> i64 {
    let sql = format!(
        "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname = '{0}')
            + (SELECT count(*) FROM pg_roles
                WHERE starts_with(rolname, '{0}_') AND rolname <> '{0}_maker')",
        schema.name
    );
    one(admin, &sql).await
}

/// Creates the application's role after `migrate`.
async fn make_login(schema: &Schema) {
    let group = format!("IN ROLE {}_app", schema.name);
    schema.make_role("login", &group).await;
}

/// Checks that a store works with a role that has only the privileges of the application.
async fn assert_works(schema: &Schema) {
    let (store, ctx, admin) = (schema.open().await, ctx(), schema.admin().await);
    store.put(&ctx, &ns("a:x"), "k", bytes("v")).await.unwrap();
    assert_eq!(store.get(&ctx, &ns("a:x"), "k").await.unwrap(), Some(bytes("v")));
    schema.execute(&schema.row("b:x", "gone", Some(1))).await;
    assert_eq!(store.evict_expired(&ctx).await.unwrap(), 1);
    let denied = store.scan_tenants(&ctx, None, 10).await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::PermissionDenied);
    schema.grant_operator().await;
    let tenants = store.scan_tenants(&ctx, None, 10).await.unwrap().items;
    assert_eq!(tenants.iter().map(|tenant| tenant.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(
        one::<i64>(&admin, &format!("SELECT count(*) FROM {}.entries", schema.name)).await,
        1
    );
}

#[tokio::test]
async fn migration_creates_schema_and_second_run_changes_nothing() {
    let (schema, ctx) = (not_created(), ctx());
    let done = migrate(&ctx, &schema.admin_config()).await.unwrap();
    assert!(done.iter().any(|line| line.contains(&schema.name)), "{done:?}");
    assert!(
        done.iter().any(|line| line.contains(&format!("GRANT {}_app", schema.name))),
        "{done:?}"
    );
    assert!(!done.concat().contains(PASSWORD));
    make_login(&schema).await;
    let admin = schema.admin().await;
    let catalog = format!(
        "SELECT md5(string_agg(o, ' ' ORDER BY o)) FROM (
            SELECT oid::text || xmin::text FROM pg_class
                WHERE relnamespace = '{0}'::regnamespace
            UNION ALL SELECT oid::text || xmin::text FROM pg_proc
                WHERE pronamespace = '{0}'::regnamespace
            UNION ALL SELECT version || name || applied_at FROM {0}.migrations) AS found (o)",
        schema.name
    );
    let before: String = one(&admin, &catalog).await;
    assert_eq!(migrate(&ctx, &schema.admin_config()).await.unwrap(), Vec::<String>::new());
    assert_eq!(one::<String>(&admin, &catalog).await, before);
    assert_works(&schema).await;
}

/// Checks that exactly one of the concurrent migrations applied steps.
fn assert_one_applied(all: Vec<Result<Vec<String>>>) {
    let lines: Vec<Vec<String>> = all.into_iter().map(|done| done.unwrap()).collect();
    assert_eq!(lines.iter().filter(|lines| !lines.is_empty()).count(), 1, "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_migrations_all_succeed_and_one_applies() {
    let (schema, ctx) = (not_created(), ctx());
    let config = schema.admin_config();
    assert_one_applied(join_all((0..10).map(|_| migrate(&ctx, &config))).await);
    make_login(&schema).await;
    assert_works(&schema).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_migrations_succeed_at_any_isolation_level() {
    for level in ["repeatable read", "serializable"] {
        let (schema, ctx) = (not_created(), ctx());
        schema.make_role("maker", "SUPERUSER").await;
        let sql = format!(
            "ALTER ROLE {}_maker SET default_transaction_isolation = '{level}'",
            schema.name
        );
        schema.execute(&sql).await;
        let config = schema.config_of("maker");
        assert_one_applied(join_all((0..10).map(|_| migrate(&ctx, &config))).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_opens_with_migrations_all_succeed() {
    let (schema, ctx) = (not_created(), ctx());
    let config = schema.admin_config().with_migrations(true).with_unbound_role(true);
    let config = config.with_pool_size(2);
    let open = || PostgresStore::open(&ctx, config.clone());
    for (place, store) in join_all((0..10).map(|_| open())).await.into_iter().enumerate() {
        let (store, key) = (store.unwrap(), place.to_string());
        store.put(&ctx, &ns("a"), &key, bytes(&key)).await.unwrap();
        assert_eq!(store.list(&ctx, &ns("a"), None).await.unwrap().len(), place + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_in_one_database_are_isolated() {
    let ctx = ctx();
    let (one_schema, other) = tokio::join!(Schema::new(), Schema::new());
    let (one_store, other_store) = (one_schema.open().await, other.open().await);
    one_store.put(&ctx, &ns("a"), "k", bytes("one")).await.unwrap();
    assert_eq!(other_store.get(&ctx, &ns("a"), "k").await.unwrap(), None);
    other_store.put(&ctx, &ns("a"), "k", bytes("other")).await.unwrap();
    assert_eq!(one_store.get(&ctx, &ns("a"), "k").await.unwrap(), Some(bytes("one")));
    one_schema.execute(&one_schema.row("b", "gone", Some(1))).await;
    assert_eq!(other_store.evict_expired(&ctx).await.unwrap(), 0);
    // The role of one schema has no privileges in the other.
    let login = one_schema.login().await;
    let sql = format!("SELECT FROM {}.entries", other.name);
    assert_eq!(rejection(&login, &sql).await.0, "42501");
    let config = one_schema.config().with_schema(&other.name).unwrap();
    let error = PostgresStore::open(&ctx, config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
}

#[tokio::test]
async fn schema_of_version_1_is_upgraded() {
    let (schema, ctx) = (Schema::at_version(1).await, ctx());
    let name = &schema.name;
    schema.execute(&schema.row("a:y", "k", None)).await;
    let error = PostgresStore::open(&ctx, schema.config()).await.unwrap_err();
    assert!(error.message().contains("has version 1"), "{error:?}");
    let diagnosis = diagnose(&ctx, &schema.config()).await.unwrap();
    let problems = diagnosis.checks.iter().filter(|check| check.verdict == Verdict::Problem);
    let problems: Vec<_> = problems.map(|check| check.name.as_str()).collect();
    assert_eq!(problems, ["schema"], "{diagnosis:#?}");
    let done = migrate(&ctx, &schema.admin_config()).await.unwrap();
    let expected = ["2 (backlog)", "3 (idle_ttl)"];
    assert_eq!(done, expected.map(|line| format!("schema `{name}`: migration {line}")));
    let store = schema.open().await;
    assert_eq!(store.get(&ctx, &ns("a:y"), "k").await.unwrap(), Some(bytes("by hand")));
    let diagnosis = diagnose(&ctx, &schema.config()).await.unwrap();
    let is_ok = |check: &Check| check.name == "entries" && check.verdict == Verdict::Ok;
    assert!(diagnosis.checks.iter().any(is_ok), "{diagnosis:#?}");
}

#[tokio::test]
async fn newer_schema_is_unsupported_and_unchanged() {
    let (schema, ctx, admin) = (Schema::new().await, ctx(), Schema::admin(&not_created()).await);
    schema.execute(&format!("INSERT INTO {}.migrations VALUES (99, 'later')", schema.name)).await;
    let opened = PostgresStore::open(&ctx, schema.config()).await.unwrap_err();
    let migrated = migrate(&ctx, &schema.admin_config()).await.unwrap_err();
    for error in [opened, migrated] {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        assert!(!error.is_retryable());
        assert!(error.message().contains("99") && error.message().contains("newer"), "{error}");
    }
    let sql = format!("SELECT FROM {}.migrations", schema.name);
    assert_eq!(rows(&admin, &sql).await, 4);
}

#[tokio::test]
async fn older_or_missing_schema_advises_migrate() {
    let (schema, ctx) = (Schema::new().await, ctx());
    let missing = schema.config().with_schema("no_such_schema").unwrap();
    let missing = PostgresStore::open(&ctx, missing).await.unwrap_err();
    schema.execute(&format!("DELETE FROM {}.migrations WHERE version > 1", schema.name)).await;
    let older = PostgresStore::open(&ctx, schema.config()).await.unwrap_err();
    for error in [missing, older] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(!error.is_retryable(), "a retry is pointless: {error:?}");
        assert!(error.message().contains("cubbyhole migrate"), "{error}");
    }
}

#[tokio::test]
async fn migration_without_privileges_is_denied_and_leaves_nothing() {
    let ctx = ctx();
    for (attributes, may_create) in [("", false), ("CREATEROLE", false), ("", true)] {
        let (schema, case) = (not_created(), format!("{attributes:?} {may_create}"));
        let admin = schema.admin().await;
        schema.make_role("maker", attributes).await;
        if may_create {
            grant_create(&schema).await;
        }
        let error = migrate(&ctx, &schema.config_of("maker")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{case}: {error:?}");
        assert!(error.message().contains("CREATEROLE"), "{case}: {error}");
        assert!(!error.is_retryable() && !error.may_have_been_applied(), "{case}: {error:?}");
        assert_eq!(object_count(&schema, &admin).await, 0, "{case}");
    }
}

/// Grants the migrating role the privilege to create schemas in the database.
async fn grant_create(schema: &Schema) {
    let sql = format!(
        "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO {}_maker',
            current_database()); END $$",
        schema.name
    );
    // Concurrent grants conflict on one catalog row, so retry.
    until("the grant", async || schema.admin().await.batch_execute(&sql).await.is_ok()).await;
}

/// The number of function-owning roles whose privileges the migrating role has.
async fn owner_memberships(schema: &Schema, admin: &Client) -> i64 {
    let sql = format!(
        "SELECT count(*) FROM pg_roles WHERE rolname IN ('{0}_sweeper', '{0}_enumerator')
            AND pg_has_role('{0}_maker', oid, 'USAGE')",
        schema.name
    );
    one(admin, &sql).await
}

#[tokio::test]
async fn database_owner_migrates_and_keeps_no_cross_tenant_rights() {
    let (schema, ctx) = (not_created(), ctx());
    let admin = schema.admin().await;
    schema.make_role("maker", "CREATEROLE").await;
    grant_create(&schema).await;
    assert!(!migrate(&ctx, &schema.config_of("maker")).await.unwrap().is_empty());
    assert_eq!(owner_memberships(&schema, &admin).await, 0);
    assert_eq!(migrate(&ctx, &schema.config_of("maker")).await.unwrap(), Vec::<String>::new());
    make_login(&schema).await;
    assert_works(&schema).await;
    // The role owns the table but sees no rows.
    let maker = schema.connect_as("maker").await;
    maker.batch_execute("SET cubbyhole.tenant = 'a'").await.unwrap();
    assert_eq!(rows(&maker, &format!("SELECT FROM {}.entries", schema.name)).await, 0);
}

#[tokio::test]
async fn migration_uses_existing_roles() {
    let (schema, ctx) = (not_created(), ctx());
    let (admin, name) = (schema.admin().await, &schema.name);
    let mut sql = String::new();
    for role in ["app", "sweeper", "enumerator", "operator", "auditor"] {
        sql += &format!("CREATE ROLE {name}_{role} NOLOGIN;");
    }
    schema.execute(&sql).await;
    let group = format!("IN ROLE {name}_sweeper, {name}_enumerator");
    schema.make_role("maker", &group).await;
    grant_create(&schema).await;
    let select = format!(
        "SELECT string_agg(oid::text, ' ' ORDER BY oid) FROM pg_roles
        WHERE starts_with(rolname, '{name}_')"
    );
    let before: String = one(&admin, &select).await;
    migrate(&ctx, &schema.config_of("maker")).await.unwrap();
    assert_eq!(one::<String>(&admin, &select).await, before);
    make_login(&schema).await;
    assert_works(&schema).await;
}

#[tokio::test]
async fn database_without_utf8_is_unsupported() {
    let (schema, ctx) = (not_created(), ctx());
    let admin = schema.admin().await;
    let name = &schema.name;
    let create = format!(
        "CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'"
    );
    admin.batch_execute(&create).await.unwrap();
    let address = schema.admin_url().split('?').next().unwrap();
    let (server, _) = address.rsplit_once('/').unwrap();
    let config = Config::from_url(&format!("{server}/{name}?schema={name}")).unwrap();
    let migrated = migrate(&ctx, &config).await;
    let opened = PostgresStore::open(&ctx, config.with_unbound_role(true)).await;
    let left = object_count(&schema, &admin).await;
    admin.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
    for error in [migrated.unwrap_err(), opened.map(drop).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        assert!(error.message().contains("UTF8"), "{error}");
    }
    assert_eq!(left, 0);
}

#[tokio::test]
async fn cancelled_migration_leaves_nothing() {
    let (schema, admin) = (not_created(), connect(admin_url()).await);
    let refused = ExecutionContext::new();
    refused.cancel();
    let error = migrate(&refused, &schema.admin_config()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    // The advisory lock that serialises migrations.
    let lock = format!("(6518114, hashtext('{}'))", schema.name);
    one::<String>(&admin, &format!("SELECT pg_advisory_lock{lock}::text")).await;
    let (ctx, config) = (ctx(), schema.admin_config());
    let running = tokio::spawn({
        let ctx = ctx.clone();
        async move { migrate(&ctx, &config).await }
    });
    let waiting = format!(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
            AND classid = 6518114
            AND objid::bigint = hashtext('{}')::bigint & 4294967295",
        schema.name
    );
    until("a waiting migration", async || one::<i64>(&admin, &waiting).await == 1).await;
    ctx.cancel();
    let error = running.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    one::<bool>(&admin, &format!("SELECT pg_advisory_unlock{lock}")).await;
    // The session has ended when the lock is free.
    until("the end of the session", async || {
        let taken = format!(
            "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory'
                AND classid = 6518114
                AND objid::bigint = hashtext('{}')::bigint & 4294967295)",
            schema.name
        );
        one(&admin, &taken).await
    })
    .await;
    assert_eq!(object_count(&schema, &admin).await, 0);
    assert!(!migrate(&helpers::ctx(), &schema.admin_config()).await.unwrap().is_empty());
}

#[tokio::test]
async fn entries_survive_a_second_migration() {
    let (schema, ctx) = (Schema::new().await, ctx());
    let store = schema.open().await;
    let options = PutOptions::new().with_ttl(Duration::from_secs(3600));
    store.put_with_options(&ctx, &ns("a"), "k", bytes("v"), options).await.unwrap();
    let admin = schema.admin().await;
    let before = schema.digest(&admin, None).await;
    migrate(&ctx, &schema.admin_config()).await.unwrap();
    assert_eq!(schema.digest(&admin, None).await, before);
    assert_eq!(store.get(&ctx, &ns("a"), "k").await.unwrap(), Some(bytes("v")));
}
