//! `Scoped` as a security boundary.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod attack;

use cubbyhole_core::limits::MAX_NAMESPACE_BYTES;
use cubbyhole_core::{
    Backend, Bytes, EntryStore, Error, ErrorKind, ExecutionContext, Namespace, NamespacePrefix,
    Position, RecursiveScanOptions, Store,
};
use cubbyhole_layers::Scoped;
use cubbyhole_memory::InMemoryStore;
use proptest::prelude::*;

fn ns(rendered: &str) -> Namespace {
    Namespace::parse(rendered).unwrap()
}

fn under(rendered: &str) -> NamespacePrefix {
    NamespacePrefix::parse(rendered).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_call_leaves_the_scope(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(attack::run(&data));
    }
}

/// A store with entries in neighbours of the scope `acme:a`.
async fn filled() -> InMemoryStore<Bytes> {
    let (store, ctx) = (InMemoryStore::new(), ExecutionContext::new());
    for name in ["acme", "acme:a", "acme:a:b", "acme:a::x", "acme:ab", "acme:b", r"acme:a\:b", "a"]
    {
        store.put(&ctx, &ns(name), "k", Bytes::copy_from_slice(name.as_bytes())).await.unwrap();
    }
    store
}

#[tokio::test]
async fn relative_listing_shows_only_names_beneath_the_scope() {
    let ctx = ExecutionContext::new();
    let scoped = Scoped::relative(filled().await, under("acme:a"));
    assert_eq!(scoped.list_namespaces(&ctx, &under("b")).await.unwrap(), [ns("b")]);
    assert_eq!(scoped.get(&ctx, &ns("b"), "k").await.unwrap().unwrap(), "acme:a:b");
    assert_eq!(scoped.usage(&ctx, &under("b")).await.unwrap().entries, 1);
    assert_eq!(scoped.list_namespaces(&ctx, &under("acme")).await.unwrap(), []);
}

#[tokio::test]
async fn neighbour_whose_name_begins_alike_is_outside() {
    let ctx = ExecutionContext::new();
    let scoped = Scoped::within(filled().await, under("acme:a"));
    let inside = scoped.list_namespaces(&ctx, &under("acme:a")).await.unwrap();
    assert_eq!(inside, [ns("acme:a"), ns("acme:a::x"), ns("acme:a:b")]);
    for outside in ["acme", "acme:ab", "acme:b", r"acme:a\:b", "a", "globex"] {
        let errors = [
            scoped.get(&ctx, &ns(outside), "k").await.unwrap_err(),
            scoped.list_namespaces(&ctx, &under(outside)).await.unwrap_err(),
            scoped.erase(&ctx, &under(outside), 10).await.unwrap_err(),
            scoped.current_time(&ctx, &ns(outside)).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{outside}: {error}");
        }
    }
}

#[tokio::test]
async fn refusal_does_not_tell_whether_the_name_exists() {
    let ctx = ExecutionContext::new();
    let scoped = Scoped::within(filled().await, under("acme:a"));
    let text = async |name: &str| -> String {
        let error: Error = scoped.get(&ctx, &ns(name), "k").await.unwrap_err();
        format!("{error:?}")
    };
    assert_eq!(text("acme:b").await, text("nobody").await);
    assert_eq!(text("acme:b").await, text("acme:b:not:here").await);
}

#[tokio::test]
async fn page_after_a_position_outside_is_refused() {
    let ctx = ExecutionContext::new();
    let scoped = Scoped::within(filled().await, under("acme:a"));
    for outside in ["acme", "acme:ab", "globex"] {
        let page = scoped.scan_namespaces(&ctx, &under("acme:a"), Some(&ns(outside)), 10).await;
        assert_eq!(page.unwrap_err().kind(), ErrorKind::PermissionDenied, "{outside}");
        let after = Position { namespace: ns(outside), key: String::new() };
        let options = RecursiveScanOptions::new().with_after(after);
        let page = scoped.scan_recursive(&ctx, &under("acme:a"), options).await;
        assert_eq!(page.unwrap_err().kind(), ErrorKind::InvalidArgument, "{outside}");
    }
}

#[tokio::test]
async fn error_of_a_relative_scope_does_not_name_the_scope() {
    let ctx = ExecutionContext::new();
    let scoped = Scoped::relative(filled().await, under("acme:secret-project"));
    let after = Position { namespace: ns("x"), key: String::new() };
    let options = RecursiveScanOptions::new().with_after(after);
    let error = scoped.scan_recursive(&ctx, &under("b"), options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(!format!("{error:?}").contains("secret-project"), "{error:?}");
    let long = ns(&"x".repeat(MAX_NAMESPACE_BYTES));
    let error = scoped.put(&ctx, &long, "k", Bytes::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(!format!("{error:?}").contains("secret-project"), "{error:?}");
}

#[tokio::test]
async fn scope_of_a_scope_only_narrows() {
    let ctx = ExecutionContext::new();
    let store = filled().await;
    let outer = Scoped::within(Scoped::within(store.clone(), under("acme:a")), under("acme"));
    assert!(outer.get(&ctx, &ns("acme:a"), "k").await.unwrap().is_some());
    let error = outer.get(&ctx, &ns("acme:b"), "k").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let nested = Scoped::relative(Scoped::relative(store, under("acme")), under("a"));
    assert_eq!(nested.get(&ctx, &ns("b"), "k").await.unwrap().unwrap(), "acme:a:b");
}

#[tokio::test]
async fn calls_on_a_whole_store_are_permission_denied() {
    let ctx = ExecutionContext::new();
    let scoped = Scoped::within(filled().await, under("acme"));
    let errors = [
        scoped.scan_tenants(&ctx, None, 10).await.unwrap_err(),
        scoped.evict_expired(&ctx).await.unwrap_err(),
        scoped.compact(&ctx).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    }
    ctx.cancel();
    let error = scoped.scan_tenants(&ctx, None, 10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}
