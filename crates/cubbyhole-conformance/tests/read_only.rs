//! The checks of a read-only store: the layer `ReadOnly` passes them, and one that lets a single
//! method through does not.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use cubbyhole_conformance::read_only::{answers, check_refusals};
use cubbyhole_core::{
    Backend, Batch, Bytes, Condition, Entry, EntryStore, Erased, ErrorKind, ExecutionContext,
    Expiry, GetOptions, ManualClock, Namespace, NamespacePrefix, Page, PutOptions, ReadOnly,
    Result, ScanItem, ScanOptions, Store, Sweeper, TenantId, Usage, Version, async_trait,
};
use cubbyhole_memory::InMemoryStore;

type Memory = InMemoryStore<Bytes>;

async fn filled() -> Memory {
    let clock = ManualClock::default();
    let builder = InMemoryStore::builder().with_clock(clock.clone());
    let store = builder.with_value_size(Bytes::len).build();
    let ctx = ExecutionContext::new();
    for tenant in ["acme", "ab", "a", "other"] {
        for ns in [tenant.to_owned(), format!("{tenant}:one"), format!("{tenant}:one:two")] {
            let ns = Namespace::parse(&ns).unwrap();
            for key in ["a", "b", "ba", "c", "d"] {
                store.put(&ctx, &ns, key, Bytes::copy_from_slice(key.as_bytes())).await.unwrap();
            }
            for (key, seconds) in [("expired", 1), ("expires", 100)] {
                let ttl = PutOptions::new().with_ttl(Duration::from_secs(seconds));
                store.put_with_options(&ctx, &ns, key, Bytes::new(), ttl).await.unwrap();
            }
        }
    }
    clock.advance(Duration::from_secs(1));
    store
}

#[tokio::test]
async fn the_layer_answers_as_the_store_and_refuses_writes() {
    let store = filled().await;
    let expected = answers(&store).await.unwrap();
    let store = ReadOnly::new(store);
    assert_eq!(answers(&store).await.unwrap(), expected);
    check_refusals(&store, Bytes::new()).await.unwrap();
}

#[tokio::test]
async fn a_closed_store_says_that_it_is_closed() {
    let ctx = ExecutionContext::new();
    let (store, ns) = (ReadOnly::new(filled().await), Namespace::parse("acme").unwrap());
    store.clone().close(&ctx).await.unwrap();
    let errors = [
        store.get(&ctx, &ns, "a").await.unwrap_err(),
        store.put(&ctx, &ns, "a", Bytes::new()).await.unwrap_err(),
        store.write(&ctx, &ns, Batch::new()).await.unwrap_err(),
        store.evict_expired(&ctx).await.unwrap_err(),
        store.compact(&ctx).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
}

#[tokio::test]
async fn a_call_whose_context_has_ended_is_refused_for_that() {
    let ctx = ExecutionContext::new();
    ctx.cancel();
    let (store, ns) = (ReadOnly::new(filled().await), Namespace::parse("acme").unwrap());
    let error = store.put(&ctx, &ns, "a", Bytes::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[tokio::test]
async fn a_sweeper_over_a_read_only_store_ends_with_the_refusal() {
    let sweeper = Sweeper::new(ReadOnly::new(filled().await));
    let patience = ExecutionContext::new().with_timeout(Duration::from_secs(60));
    let error = sweeper.run(&patience).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

/// A read-only store that passes one method to the store beneath.
struct Leaks {
    store: ReadOnly<Memory>,
    method: &'static str,
}

macro_rules! leaks {
    ($($store:ident { $($name:ident($($arg:ident: $ty:ty),*) -> $out:ty;)* })*) => {
        $(#[async_trait]
        impl $store<Bytes> for Leaks {
            $(async fn $name(&self, ctx: &ExecutionContext, $($arg: $ty),*) -> Result<$out> {
                if self.method == stringify!($name) {
                    return self.store.inner().$name(ctx, $($arg),*).await;
                }
                self.store.$name(ctx, $($arg),*).await
            })*
        })*
    };
}

leaks! {
    Store {
        put_with_options(ns: &Namespace, key: &str, value: Bytes, options: PutOptions) -> ();
        get(ns: &Namespace, key: &str) -> Option<Bytes>;
        delete(ns: &Namespace, key: &str) -> ();
        list(ns: &Namespace, prefix: Option<&str>) -> Vec<String>;
        put(ns: &Namespace, key: &str, value: Bytes) -> ();
        list_namespaces(prefix: &NamespacePrefix) -> Vec<Namespace>;
        evict_expired() -> usize;
    }
    EntryStore {
        get_entry(ns: &Namespace, key: &str, options: GetOptions) -> Option<Entry<Bytes>>;
        get_many(ns: &Namespace, keys: &[&str]) -> Vec<Result<Option<Entry<Bytes>>>>;
        put_entry(ns: &Namespace, key: &str, value: Bytes, options: PutOptions, condition: Condition) -> Version;
        delete_entry(ns: &Namespace, key: &str, condition: Condition) -> bool;
        write(ns: &Namespace, batch: Batch<Bytes>) -> Vec<Option<Version>>;
        scan(ns: &Namespace, options: ScanOptions) -> Page<ScanItem<Bytes>, String>;
        scan_namespaces(prefix: &NamespacePrefix, after: Option<&Namespace>, limit: usize) -> Page<Namespace>;
        scan_tenants(after: Option<&TenantId>, limit: usize) -> Page<TenantId>;
        touch(ns: &Namespace, key: &str, expiry: Expiry) -> bool;
        take(ns: &Namespace, key: &str) -> Option<Entry<Bytes>>;
        erase(prefix: &NamespacePrefix, limit: usize) -> Erased;
        usage(prefix: &NamespacePrefix) -> Usage;
    }
}

#[tokio::test]
async fn a_layer_that_lets_one_write_through_is_caught() {
    for method in [
        "put",
        "put_with_options",
        "delete",
        "evict_expired",
        "get_entry",
        "put_entry",
        "delete_entry",
        "write",
        "touch",
        "take",
        "erase",
    ] {
        let store = Leaks { store: ReadOnly::new(filled().await), method };
        let caught = check_refusals(&store, Bytes::new()).await.unwrap_err();
        assert!(caught.contains(method), "{method}: {caught}");
    }
}
