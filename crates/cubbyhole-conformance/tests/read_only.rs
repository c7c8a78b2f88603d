//! The checks for read-only stores: the layer `ReadOnly` passes them. A layer that passes one write
//! method on fails them.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use cubbyhole_conformance::read_only::{answers, check_refusals};
use cubbyhole_core::{
    Backend, Batch, Bytes, Condition, Entry, EntryStore, Erased, ErrorKind, ExecutionContext,
    Expiry, GetOptions, ManualClock, Namespace, NamespacePrefix, Page, PutOptions, ReadOnly,
    Result, ScanItem, ScanOptions, Store, Sweeper, Version, Written, async_trait, delegate,
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
async fn read_only_layer_passes_the_checks() {
    let store = filled().await;
    let expected = answers(&store).await.unwrap();
    let store = ReadOnly::new(store);
    assert_eq!(answers(&store).await.unwrap(), expected);
    check_refusals(&store, Bytes::new()).await.unwrap();
}

#[tokio::test]
async fn closed_read_only_store_is_invalid_argument() {
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
async fn cancelled_context_is_reported_before_permission_denied() {
    let ctx = ExecutionContext::new();
    ctx.cancel();
    let (store, ns) = (ReadOnly::new(filled().await), Namespace::parse("acme").unwrap());
    let error = store.put(&ctx, &ns, "a", Bytes::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[tokio::test]
async fn sweeper_over_read_only_store_fails() {
    let sweeper = Sweeper::new(ReadOnly::new(filled().await));
    let patience = ExecutionContext::new().with_timeout(Duration::from_secs(60));
    let error = sweeper.run(&patience).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

/// A read-only layer that passes one write method on to the store.
struct LeakyReadOnly {
    store: ReadOnly<Memory>,
    method: &'static str,
}

macro_rules! leaky {
    ($($store:ident, delegates [$($read:ident),*] {
        $($name:ident($($arg:ident: $ty:ty),*) -> $out:ty;)*
    })*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl $store<Bytes> for LeakyReadOnly {
            $(async fn $name(&self, ctx: &ExecutionContext, $($arg: $ty),*) -> Result<$out> {
                if self.method == stringify!($name) {
                    return self.store.inner().$name(ctx, $($arg),*).await;
                }
                self.store.$name(ctx, $($arg),*).await
            })*

            delegate!(Bytes, |layer| layer.store => $($read), *);
        }
    )*};
}

leaky! {
    Store, delegates [get, list, list_namespaces] {
        put_with_options(ns: &Namespace, key: &str, value: Bytes, options: PutOptions) -> ();
        delete(ns: &Namespace, key: &str) -> ();
        put(ns: &Namespace, key: &str, value: Bytes) -> ();
        evict_expired() -> usize;
    }
    EntryStore, delegates [
        stat, scan_recursive, scan_namespaces, scan_tenants, usage, current_time,
        max_value_bytes
    ] {
        get_entry(ns: &Namespace, key: &str, options: GetOptions) -> Option<Entry<Bytes>>;
        get_many(
            ns: &Namespace, keys: &[&str], options: GetOptions
        ) -> Vec<Result<Option<Entry<Bytes>>>>;
        scan(ns: &Namespace, options: ScanOptions) -> Page<ScanItem<Bytes>, String>;
        put_entry(
            ns: &Namespace, key: &str, value: Bytes, options: PutOptions, condition: Condition
        ) -> Version;
        delete_entry(ns: &Namespace, key: &str, condition: Condition) -> bool;
        write(ns: &Namespace, batch: Batch<Bytes>) -> Vec<Written>;
        touch(ns: &Namespace, key: &str, expiry: Expiry, condition: Condition) -> bool;
        take(ns: &Namespace, key: &str) -> Option<Entry<Bytes>>;
        delete_prefix(ns: &Namespace, key_prefix: &str, limit: usize) -> Erased;
        erase(prefix: &NamespacePrefix, limit: usize) -> Erased;
    }
}

#[tokio::test]
async fn layer_that_passes_one_write_on_is_caught() {
    for method in [
        "put",
        "put_with_options",
        "delete",
        "evict_expired",
        "get_entry",
        "get_many",
        "scan",
        "put_entry",
        "delete_entry",
        "write",
        "touch",
        "take",
        "delete_prefix",
        "erase",
    ] {
        let store = LeakyReadOnly { store: ReadOnly::new(filled().await), method };
        let caught = check_refusals(&store, Bytes::new()).await.unwrap_err();
        assert!(caught.contains(method), "the error must name {method}: {caught}");
    }
}
