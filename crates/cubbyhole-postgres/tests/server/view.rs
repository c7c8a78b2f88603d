//! The view `documents` for users of psql.

use std::time::Duration;

use cubbyhole_core::{Bytes, PutOptions, Store};
use cubbyhole_testkit::helpers::{bytes, ctx, ns};

use crate::sql::{one, rows};
use crate::support::Schema;

#[tokio::test]
async fn view_shows_json_values_and_null_for_others() {
    let (schema, ctx) = (Schema::new().await, ctx());
    let store = schema.open().await;
    let deep = "[".repeat(100_000);
    let closed = format!("{deep}{}", "]".repeat(100_000));
    let cases: Vec<(Bytes, Option<&str>)> = vec![
        (bytes(r#"{"b": [1, 2.50, null], "a": "ä"}"#), Some(r#"{"a": "ä", "b": [1, 2.50, null]}"#)),
        (bytes(" \t\"text\"\r\n"), Some(r#""text""#)),
        (bytes("true"), Some("true")),
        (bytes("null"), Some("null")),
        (bytes("-0.5e-3"), Some("-0.0005")),
        (bytes(""), None),
        (bytes(" "), None),
        (bytes("hello"), None),
        (bytes("{'a': 1}"), None),
        (bytes("NaN"), None),
        (bytes("[1] [2]"), None),
        (bytes(r#""\u0000""#), None),
        (bytes(r#"{"\u0000": 1}"#), None),
        (bytes(r#""\ud800""#), None),
        (bytes("1e1000000"), None),
        (bytes(&deep), None),
        (bytes(&closed), None),
        (Bytes::from_static(b"\xff\xfe"), None),
        (Bytes::from_static(b"\"\xc3\x28\""), None),
        (Bytes::from_static(b"\"\xed\xa0\x80\""), None),
        (Bytes::from_static(b"\"\0\""), None),
        (Bytes::from_static(b"\0"), None),
    ];
    for (index, (value, _)) in cases.iter().enumerate() {
        let key = format!("{index:02}");
        store.put(&ctx, &ns("a:x"), &key, value.clone()).await.unwrap();
    }
    let login = schema.login().await;
    login.batch_execute("SET cubbyhole.tenant = 'a'").await.unwrap();
    let select =
        format!("SELECT key, value::text, value_bytes FROM {}.documents ORDER BY key", schema.name);
    let found = login.query(&select, &[]).await.unwrap();
    assert_eq!(found.len(), cases.len());
    for (index, (row, (value, expected))) in found.iter().zip(&cases).enumerate() {
        let shown: Option<&str> = row.get(1);
        // A server with a larger stack may parse this depth.
        if value[..].starts_with(b"[[") && value.len() == 200_000 && shown.is_some() {
            continue;
        }
        assert_eq!(shown, *expected, "case {index}");
        assert_eq!(row.get::<_, i32>(2), i32::try_from(value.len()).unwrap(), "case {index}");
    }
    let condition = format!("SELECT FROM {}.documents WHERE value ? 'a'", schema.name);
    assert_eq!(rows(&login, &condition).await, 1);
}

#[tokio::test]
async fn view_hides_expired_entries() {
    let (schema, ctx) = (Schema::new().await, ctx());
    schema.stop_clock().await;
    let store = schema.open().await;
    let minute = Duration::from_secs(60);
    let options = PutOptions::new().with_ttl(minute);
    store.put_with_options(&ctx, &ns("a"), "expiring", bytes("1"), options).await.unwrap();
    store.put(&ctx, &ns("a"), "permanent", bytes("2")).await.unwrap();
    let login = schema.login().await;
    login.batch_execute("SET cubbyhole.tenant = 'a'").await.unwrap();
    let select = format!(
        "SELECT string_agg(key || ' ' || coalesce((extract(epoch FROM expires_at - created_at))::int8::text,
            'never'), ', ' ORDER BY key) FROM {}.documents",
        schema.name
    );
    schema.advance(minute - Duration::from_millis(1)).await;
    assert_eq!(one::<String>(&login, &select).await, "expiring 60, permanent never");
    schema.advance(Duration::from_millis(1)).await;
    assert_eq!(one::<String>(&login, &select).await, "permanent never");
}

#[tokio::test]
async fn view_shows_the_idle_ttl() {
    let (schema, ctx) = (Schema::new().await, ctx());
    let store = schema.open().await;
    let options = PutOptions::new().with_idle_ttl(Duration::from_millis(90_500));
    store.put_with_options(&ctx, &ns("a"), "idle", bytes("1"), options).await.unwrap();
    store.put(&ctx, &ns("a"), "permanent", bytes("2")).await.unwrap();
    schema.make_role("watcher", &format!("IN ROLE {}_auditor", schema.name)).await;
    let watcher = schema.connect_as("watcher").await;
    watcher.batch_execute("SET cubbyhole.tenant = 'a'").await.unwrap();
    let select = format!(
        "SELECT string_agg(key || ' ' || coalesce(idle_ttl::text, 'none'), ', ' ORDER BY key)
            FROM {}.documents",
        schema.name
    );
    assert_eq!(one::<String>(&watcher, &select).await, "idle 00:01:30.5, permanent none");
}

#[tokio::test]
async fn view_shows_only_the_current_tenant() {
    let (schema, ctx) = (Schema::new().await, ctx());
    let store = schema.open().await;
    for tenant in ["a", "b"] {
        store.put(&ctx, &ns(tenant), "k", bytes(&format!("\"{tenant}\""))).await.unwrap();
    }
    let login = schema.login().await;
    let select =
        format!("SELECT coalesce(string_agg(value::text, ','), '') FROM {}.documents", schema.name);
    assert_eq!(one::<String>(&login, &select).await, "");
    for tenant in ["a", "b"] {
        login.batch_execute(&format!("SET cubbyhole.tenant = '{tenant}'")).await.unwrap();
        assert_eq!(one::<String>(&login, &select).await, format!("\"{tenant}\""));
    }
}
