//! The store isolates tenants with any characters in their names.

use std::collections::BTreeMap;
use std::time::Duration;

use cubbyhole_core::{
    Batch, Bytes, Condition, EntryStore, ExecutionContext, Expiry, GetOptions, Namespace,
    NamespacePrefix, ScanOptions, Store, TenantId,
};
use cubbyhole_postgres::PostgresStore;
use cubbyhole_testkit::helpers::{bytes, ctx, ns};

use crate::support::Schema;

/// Names with special characters of patterns and of the stored form, and names that compare
/// similar.
const NAMES: [&str; 17] = [
    "a",
    "ab",
    "a_",
    "a%",
    "a:b",
    "a\\",
    "A",
    "a\nb",
    "a;",
    "a\\:",
    "a:",
    "a\\b",
    "ä",
    "a\u{308}",
    "a-b",
    "\u{10ffff}",
    "[a]*?",
];

/// The entries of one tenant, by namespace and key.
type Contents = BTreeMap<(String, String), Bytes>;

async fn contents(store: &PostgresStore, ctx: &ExecutionContext, tenant: &str) -> Contents {
    let prefix = NamespacePrefix::from(TenantId::new(tenant).unwrap());
    let mut found = Contents::new();
    for name in store.list_namespaces(ctx, &prefix).await.unwrap() {
        let page = store.scan(ctx, &name, ScanOptions::new()).await.unwrap();
        for item in page.items {
            let location = (name.as_str().to_owned(), item.key);
            found.insert(location, item.value.unwrap().unwrap());
        }
    }
    found
}

/// Three namespaces of a tenant.
fn namespaces(tenant: &str) -> [Namespace; 3] {
    let of = |segments: &[&str]| Namespace::from_parts(tenant, segments).unwrap();
    [of(&[]), of(&["b"]), of(&["b", ""])]
}

/// A store in which each tenant has two keys in each of its three namespaces.
async fn populated_store(
    schema: &Schema,
    ctx: &ExecutionContext,
) -> (PostgresStore, Vec<Contents>) {
    let store = schema.open().await;
    let mut all = Vec::new();
    for (index, tenant) in NAMES.iter().enumerate() {
        let mut own = Contents::new();
        for name in namespaces(tenant) {
            for key in ["k", "k%"] {
                let value = bytes(&format!("{index} {} {key}", name.as_str()));
                store.put(ctx, &name, key, value.clone()).await.unwrap();
                own.insert((name.as_str().to_owned(), key.to_owned()), value);
            }
        }
        all.push(own);
    }
    (store, all)
}

#[tokio::test]
async fn reads_show_no_other_tenant() {
    let (schema, ctx) = (Schema::new().await, ctx());
    let (store, all) = populated_store(&schema, &ctx).await;
    for (tenant, own) in NAMES.iter().zip(&all) {
        assert_eq!(contents(&store, &ctx, tenant).await, *own, "{tenant:?}");
        for (place, name) in namespaces(tenant).iter().enumerate() {
            let value = |key: &str| own[&(name.as_str().to_owned(), key.to_owned())].clone();
            assert_eq!(store.get(&ctx, name, "k").await.unwrap(), Some(value("k")), "{tenant:?}");
            let entry = store.get_entry(&ctx, name, "k%", GetOptions::new()).await.unwrap();
            assert_eq!(entry.unwrap().value, value("k%"), "{tenant:?}");
            let many =
                store.get_many(&ctx, name, &["k%", "K", "k"], GetOptions::new()).await.unwrap();
            let many: Vec<_> =
                many.into_iter().map(|one| one.unwrap().map(|entry| entry.value)).collect();
            assert_eq!(many, [Some(value("k%")), None, Some(value("k"))], "{tenant:?}");
            assert_eq!(store.list(&ctx, name, None).await.unwrap(), ["k", "k%"], "{tenant:?}");
            assert_eq!(store.list(&ctx, name, Some("k%")).await.unwrap(), ["k%"], "{tenant:?}");
            let prefix = NamespacePrefix::from(name);
            let names = store.scan_namespaces(&ctx, &prefix, None, 100).await.unwrap().items;
            assert_eq!(names, namespaces(tenant)[place..], "{tenant:?}");
            let usage = store.usage(&ctx, &prefix).await.unwrap();
            let left = u64::try_from(3 - place).unwrap();
            assert_eq!((usage.namespaces, usage.entries), (left, 2 * left), "{tenant:?}");
        }
    }
}

#[tokio::test]
async fn writes_touch_no_other_tenant() {
    let (schema, ctx) = (Schema::new().await, ctx());
    let (store, mut all) = populated_store(&schema, &ctx).await;
    for (place, tenant) in NAMES.iter().enumerate() {
        let [whole, scope, deep] = namespaces(tenant);
        let version = store
            .put_entry(&ctx, &whole, "k", bytes("new"), Default::default(), Condition::Always)
            .await
            .unwrap();
        assert!(
            store.delete_entry(&ctx, &whole, "k", Condition::IfVersion(version)).await.unwrap()
        );
        assert!(store.take(&ctx, &whole, "k%").await.unwrap().is_some(), "{tenant:?}");
        let minute = Expiry::After(Duration::from_secs(60));
        assert!(
            store.touch(&ctx, &scope, "k", minute, Condition::Always).await.unwrap(),
            "{tenant:?}"
        );
        let batch = Batch::new().delete("k").put("k%", bytes("new"));
        store.write(&ctx, &scope, batch).await.unwrap();
        store.delete(&ctx, &deep, "k").await.unwrap();
        let own = &mut all[place];
        own.clear();
        own.insert((scope.as_str().to_owned(), "k%".to_owned()), bytes("new"));
        let kept = store.get(&ctx, &deep, "k%").await.unwrap().unwrap();
        own.insert((deep.as_str().to_owned(), "k%".to_owned()), kept);
        for (other, expected) in NAMES.iter().zip(&all) {
            assert_eq!(contents(&store, &ctx, other).await, *expected, "{tenant:?}: {other:?}");
        }
        let erased = store.erase(&ctx, &NamespacePrefix::from(&whole), 100).await.unwrap();
        assert_eq!((erased.removed, erased.done), (2, true), "{tenant:?}");
        all[place].clear();
        for (other, expected) in NAMES.iter().zip(&all) {
            assert_eq!(contents(&store, &ctx, other).await, *expected, "{tenant:?}: {other:?}");
        }
    }
}

#[tokio::test]
async fn key_prefix_is_literal_text() {
    let (schema, ctx) = (Schema::new().await, ctx());
    let store = schema.open().await;
    let name = ns("a");
    let keys = ["user_", "user_1", "userX", "userX1", "user", "user%", "user\\_1", "USER_1"];
    for key in keys {
        store.put(&ctx, &name, key, bytes(key)).await.unwrap();
    }
    for (prefix, expected) in [
        ("user_", vec!["user_", "user_1"]),
        ("user%", vec!["user%"]),
        ("user\\", vec!["user\\_1"]),
        ("userX", vec!["userX", "userX1"]),
        ("user_1", vec!["user_1"]),
        ("u_er", vec![]),
    ] {
        assert_eq!(store.list(&ctx, &name, Some(prefix)).await.unwrap(), expected, "{prefix}");
        let options = ScanOptions::new().with_prefix(prefix);
        let page = store.scan(&ctx, &name, options).await.unwrap();
        let found: Vec<String> = page.items.into_iter().map(|item| item.key).collect();
        assert_eq!(found, expected, "{prefix}");
    }
}
