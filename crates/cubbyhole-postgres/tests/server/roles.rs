//! The roles that may open a store, and their privileges.

use cubbyhole_core::{EntryStore, ErrorKind, Store};
use cubbyhole_postgres::{Config, PostgresStore};
use cubbyhole_testkit::helpers::{PASSWORD, bytes, ctx, ns};

use crate::sql::{one, rejection, rows};
use crate::support::Schema;

#[tokio::test]
async fn role_bypassing_row_security_is_rejected_unless_allowed() {
    let (schema, ctx) = (Schema::new().await, ctx());
    let name = &schema.name;
    schema.make_role("bypass", &format!("BYPASSRLS IN ROLE {name}_app")).await;
    schema.make_role("sweeping", &format!("IN ROLE {name}_app, {name}_sweeper")).await;
    schema.make_role("listing", &format!("IN ROLE {name}_app, {name}_enumerator")).await;
    for (config, reason) in [
        (schema.admin_config(), "superuser".to_owned()),
        (schema.config_of("bypass"), "BYPASSRLS".to_owned()),
        (schema.config_of("sweeping"), format!("{name}_sweeper")),
        (schema.config_of("listing"), format!("{name}_enumerator")),
    ] {
        let error = PostgresStore::open(&ctx, config.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{reason}: {error:?}");
        assert!(!error.is_retryable());
        for expected in [reason.as_str(), &format!("GRANT {name}_app TO"), "allow_unbound_role"] {
            assert!(error.message().contains(expected), "{expected}: {error}");
        }
        assert!(!format!("{error:?}").contains(PASSWORD));
        let store = PostgresStore::open(&ctx, config.with_unbound_role(true)).await.unwrap();
        store.put(&ctx, &ns("a"), "k", bytes("v")).await.unwrap();
        assert_eq!(store.get(&ctx, &ns("a"), "k").await.unwrap(), Some(bytes("v")), "{reason}");
    }
    let url = format!("{}&allow_unbound_role=on", schema.url_of("bypass"));
    let config = Config::from_url(&url).unwrap();
    assert!(PostgresStore::open(&ctx, config).await.is_ok());
}

#[tokio::test]
async fn role_without_app_privileges_is_advised_the_grant() {
    let (schema, ctx) = (Schema::new().await, ctx());
    let name = &schema.name;
    schema.make_role("nobody", "").await;
    schema.make_role("aloof", &format!("NOINHERIT IN ROLE {name}_app")).await;
    schema.make_role("watcher", &format!("IN ROLE {name}_auditor")).await;
    for role in ["nobody", "aloof", "watcher"] {
        let error = PostgresStore::open(&ctx, schema.config_of(role)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{role}: {error:?}");
        assert!(!error.is_retryable(), "{role}");
        let grant = format!("GRANT {name}_app TO {name}_{role}");
        assert!(error.message().contains(&grant), "{role}: {error}");
    }
    // The advised statement works.
    schema.execute(&format!("GRANT {name}_app TO {name}_nobody")).await;
    let store = PostgresStore::open(&ctx, schema.config_of("nobody")).await.unwrap();
    assert_eq!(store.get(&ctx, &ns("a"), "k").await.unwrap(), None);
}

#[tokio::test]
async fn table_without_row_security_is_rejected() {
    let (schema, ctx) = (Schema::new().await, ctx());
    for off in
        ["DISABLE ROW LEVEL SECURITY", "ENABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY"]
    {
        schema.execute(&format!("ALTER TABLE {}.entries {off}", schema.name)).await;
        let error = PostgresStore::open(&ctx, schema.config()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{off}: {error:?}");
        assert!(error.message().contains("FORCE ROW LEVEL SECURITY"), "{error}");
    }
    let force = "FORCE ROW LEVEL SECURITY";
    schema.execute(&format!("ALTER TABLE {}.entries {force}", schema.name)).await;
    assert!(PostgresStore::open(&ctx, schema.config()).await.is_ok());
}

#[tokio::test]
async fn wrong_password_or_user_is_denied() {
    let (schema, ctx) = (Schema::new().await, ctx());
    let wrong = schema.url("").replace(PASSWORD, "Wr0ng-0ne");
    let unknown = schema.url_of("unknown");
    let none = schema.url("").replace(&format!(":{PASSWORD}"), "");
    for url in [wrong, unknown, none] {
        let config = Config::from_url(&url).unwrap();
        let error = PostgresStore::open(&ctx, config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
        assert!(!error.is_retryable(), "{error:?}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(PASSWORD) && !shown.contains("Wr0ng"), "{shown}");
    }
    schema.execute(&format!("ALTER ROLE {}_login NOLOGIN", schema.name)).await;
    let error = PostgresStore::open(&ctx, schema.config()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
}

#[tokio::test]
async fn missing_database_is_permanently_unavailable() {
    let (schema, ctx) = (Schema::new().await, ctx());
    let url = schema.url("");
    let (address, options) = url.split_once('?').unwrap();
    let (server, _) = address.rsplit_once('/').unwrap();
    let url = format!("{server}/no_such_database?{options}");
    let config = Config::from_url(&url).unwrap();
    let error = PostgresStore::open(&ctx, config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(!error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn listing_tenants_requires_the_operator_role() {
    let (schema, ctx) = (Schema::new().await, ctx());
    let store = schema.open().await;
    store.put(&ctx, &ns("a:x"), "k", bytes("v")).await.unwrap();
    store.put(&ctx, &ns("b"), "k", bytes("v")).await.unwrap();
    let error = store.scan_tenants(&ctx, None, 10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    assert!(!error.is_retryable() && !error.may_have_been_applied());
    assert!(error.message().contains(&format!("{}_operator", schema.name)), "{error}");
    schema.grant_operator().await;
    let found = store.scan_tenants(&ctx, None, 10).await.unwrap().items;
    assert_eq!(found.iter().map(|tenant| tenant.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    // The role may list names only; row security still applies to it.
    assert!(PostgresStore::open(&ctx, schema.config()).await.is_ok());
    let name = &schema.name;
    schema.execute(&format!("REVOKE {name}_operator FROM {name}_login")).await;
    let error = store.scan_tenants(&ctx, None, 10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
}

#[tokio::test]
async fn auditor_reads_its_tenant_and_writes_nothing() {
    let (schema, ctx) = (Schema::new().await, ctx());
    let store = schema.open().await;
    store.put(&ctx, &ns("a:x"), "k", bytes(r#"{"n": 1}"#)).await.unwrap();
    store.put(&ctx, &ns("b:x"), "k", bytes(r#"{"n": 2}"#)).await.unwrap();
    let name = &schema.name;
    schema.make_role("watcher", &format!("IN ROLE {name}_auditor")).await;
    let (watcher, admin) = (schema.connect_as("watcher").await, schema.admin().await);
    let before = schema.digest(&admin, None).await;
    for relation in ["documents", "entries"] {
        assert_eq!(rows(&watcher, &format!("SELECT FROM {name}.{relation}")).await, 0);
    }
    watcher.batch_execute("SET cubbyhole.tenant = 'a'").await.unwrap();
    let select = format!("SELECT (value ->> 'n')::int4 FROM {name}.documents");
    assert_eq!(one::<i32>(&watcher, &select).await, 1);
    assert_eq!(rows(&watcher, &format!("SELECT FROM {name}.entries")).await, 1);
    for sql in [
        "UPDATE @.entries SET value = ''",
        "DELETE FROM @.entries",
        "SELECT FROM @.entries FOR UPDATE",
        "INSERT INTO @.entries SELECT namespace, 'new', tenant, version, 0, 0, NULL, '' FROM @.entries",
        "UPDATE @.documents SET key = 'x'",
        "DELETE FROM @.documents",
        "SELECT @.put('a', 'a:x', 'k', '', gen_random_uuid(), NULL, NULL)",
        "SELECT @.delete('a', 'a:x', 'k')",
        "SELECT @.take('a', 'a:x', 'k')",
        "SELECT @.evict(10)",
        "SELECT @.tenants(NULL, 10)",
        "SET ROLE @_app",
    ] {
        let (code, message) = rejection(&watcher, &sql.replace('@', name)).await;
        assert_eq!(code, "42501", "{sql}: {message}");
    }
    assert_eq!(schema.digest(&admin, None).await, before);
}
